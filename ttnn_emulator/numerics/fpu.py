"""The FPU on torch tensors: bit-exact element-wise operations, matrix products and row sums.

A value that an operation leaves in the destination register is returned as torch.bfloat16 (a bf16 destination) or
torch.float32 (`fp32=True`). Operands are bfloat16 or float32; of a float32 the sources take 11 significand bits, with a
bf16 destination 8, without rounding.
Element-wise operations run compiled on the CPU and as torch operations elsewhere; the matrix unit runs on the CPU.
"""

import functools
import math

import numpy
import torch

from . import rules
from .rounding import bits_of, scalar, to_bf16_truncated, truncate_fp32

PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}


def _unit():
    from . import matrix_unit  # numba and its compiler: imported when first needed

    return matrix_unit


def _words(x: torch.Tensor) -> torch.Tensor:
    """fp32 patterns, int32."""
    return x.to(torch.float32).contiguous().view(torch.int32)


def _patterns(x: torch.Tensor) -> numpy.ndarray:
    """bfloat16 patterns, flat, uint16."""
    return x.contiguous().view(torch.int16).numpy().view(numpy.uint16).reshape(-1)


def _of_patterns(flat: numpy.ndarray, shape) -> torch.Tensor:
    """The bfloat16 tensor of `_patterns`."""
    return torch.from_numpy(flat.view(numpy.int16).reshape(shape)).view(torch.bfloat16)


def _cut(x: torch.Tensor) -> torch.Tensor:
    """x as bfloat16; of a float32 the upper half."""
    return to_bf16_truncated(x) if x.dtype == torch.float32 else x.to(torch.bfloat16)


def _pair(a: torch.Tensor, b: torch.Tensor, phases: int, fp32: bool) -> torch.Tensor:
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    if not fp32:
        a, b = _cut(a), _cut(b)
    if a.device.type != "cpu" or b.device.type != "cpu":
        va, vb = rules.Tensors(_words(a)), rules.Tensors(_words(b))
        out = (rules.mul(va, vb, phases, fp32) if phases else rules.add(va, vb, fp32)).value
        return out.view(torch.float32) if fp32 else (out >> 16).to(torch.int16).view(torch.bfloat16)
    shape, n = a.shape, a.numel()
    x, y = (_words(t).numpy().reshape(-1) if fp32 else _patterns(t) for t in (a, b))
    if n % 16:
        x, y = (numpy.pad(t, (0, -n % 16)) for t in (x, y))
    out = numpy.empty_like(x)
    _unit().elementwise(phases, fp32)(x, y, out)
    if fp32:
        return torch.from_numpy(out[:n].reshape(shape)).view(torch.float32)
    return _of_patterns(out[:n], shape)


def add(a, b, fp32: bool = False) -> torch.Tensor:
    """a + b: the smaller operand is rounded to the larger one's 11-bit grid."""
    return _pair(a, b, 0, fp32)


def sub(a, b, fp32: bool = False) -> torch.Tensor:
    return add(a, -b, fp32)


def mul(a, b, fidelity: str, fp32: bool = False) -> torch.Tensor:
    """a * b in the phases of the fidelity; a is the operand in 5-bit pieces."""
    return _pair(a, b, PHASES[fidelity], fp32)


def added_up(parts) -> torch.Tensor:
    """The sum of tensors, one after another in a bf16 destination."""
    total = None
    for part in parts:
        sign, exponent, significand = rules.source(rules.Tensors(_words(_cut(part))))
        start = total or exponent & 0
        total = rules.accumulate(start, [(exponent, (significand ^ sign) - sign)], fp32=False)
    return (total.value >> 16).to(torch.int16).view(torch.bfloat16)


def mul_onto(start, a, b, fidelity: str) -> torch.Tensor:
    """a * b added to what an fp32 destination holds, which `start` was copied to: with 11 bits."""
    shape = torch.broadcast_shapes(start.shape, a.shape, b.shape)
    values = (rules.Tensors(_words(t.expand(shape))) for t in (a, b, truncate_fp32(start)))
    a, b, start = values
    return rules.mul(a, b, PHASES[fidelity], True, start).value.view(torch.float32)


def matmul(x, w, fidelity: str, fp32: bool = False, block_w: int = 0, sum_all: bool = False) -> torch.Tensor:
    """x [..., M, K] @ w [..., K, N] -> [..., M, N]; leading dimensions of w are x's, or 1s (then rows are folded).

    block_w: tiles of K in a block whose partial sums are added in L1 (0: no blocks); sum_all: also the last block.
    """
    device, k, n = x.device, x.shape[-1], w.shape[-1]
    batch = x.shape[:-2] if x.shape[:-2] == w.shape[:-2] else torch.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    if all(d == 1 for d in w.shape[:-2]):
        rows, w = x.reshape(1, -1, k), w.reshape(1, k, n)
    else:
        rows = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
        w = w.expand(*batch, k, n)
        w = w.flatten(0, -3) if w.dim() > 2 else w[None]
    if k % 32:
        rows = torch.nn.functional.pad(rows, (0, -k % 32))
        w = torch.nn.functional.pad(w.contiguous(), (0, 0, 0, -k % 32))
    rows = _words(rows if fp32 else _cut(rows)).cpu()
    wide = fp32 and w.dtype == torch.float32
    w = (w.view(torch.int32) if wide else _cut(w).view(torch.int16)).cpu().numpy()
    distinct, index = _distinct_rows(rows)
    w = w if wide else w.view("uint16")
    out = torch.from_numpy(_unit().matmul(distinct.numpy(), w, fidelity, fp32, block_w, sum_all))
    if index is not None:
        out = out[:, index]
    out = out.view(torch.float32) if fp32 else (out >> 16).to(torch.int16).view(torch.bfloat16)
    return out.reshape(*batch, x.shape[-2], n).to(device)


def _distinct_rows(rows: torch.Tensor):
    """Rows [B, M, K] without repetitions of the last one (the padding of a tile in decode), and where each row went."""
    b, m, _ = rows.shape
    if b != 1 or m == 1:
        return rows, None
    same = (rows[0] == rows[0, -1]).all(-1)
    if int(same.sum()) == 1:
        return rows, None
    keep = (~same).nonzero().flatten()
    index = torch.full((m,), keep.numel())
    index[keep] = torch.arange(keep.numel())
    return torch.cat([rows[:, keep], rows[:, -1:]], 1), index


def row_sum(x, fidelity: str, fp32: bool = False) -> torch.Tensor:
    """The sum over the last dimension [..., K] -> [..., 1]: a product with a column of ones."""
    rows = _words(x if fp32 else _cut(x)).reshape(-1, x.shape[-1]).cpu()
    if x.shape[-1] % 32:
        rows = torch.nn.functional.pad(rows, (0, -x.shape[-1] % 32))
    from . import row_sums  # as above

    out = torch.from_numpy(row_sums.row_sum(rows.numpy(), fidelity, fp32))
    out = out.view(torch.float32) if fp32 else (out >> 16).to(torch.int16).view(torch.bfloat16)
    return out.reshape(*x.shape[:-1], 1).to(x.device)


def rotary(x, cos, sin, fidelity: str, fp32: bool = False, cut: bool = False) -> torch.Tensor:
    """x * cos + rotate_half(x) * sin of bfloat16 in one compiled pass; the tables broadcast to x, whose last dim is a
    multiple of 32 (the steps are `common.rotary`'s)."""
    from . import fused

    rows = _rows_of(cos.shape[:-1], x.shape[:-1])
    out = fused.rotary(*map(_patterns, (x, cos, sin)), rows, x.shape[-1], fidelity, fp32, cut)
    return _of_patterns(out, x.shape)


@functools.lru_cache(64)
def _rows_of(table: tuple, x: tuple) -> numpy.ndarray:
    """For every row of x, flat, the row of a table that broadcasts to it."""
    return numpy.broadcast_to(numpy.arange(math.prod(table)).reshape(table), x).flatten()


def rms_norm(x, weight, eps: float, fidelity: str, approximate: bool, fp32: bool) -> torch.Tensor:
    """rms_norm of bfloat16 [M, W] to bfloat16 in one compiled pass; W a multiple of 32 (the steps are
    `common._norm`'s)."""
    from . import fused

    rows, weight = _patterns(x).reshape(x.shape), None if weight is None else _patterns(weight)
    out = fused.rms_norm(rows, weight, bits_of(scalar(eps)), fidelity, approximate, fp32)
    return _of_patterns(out, x.shape)
