"""Sums, means, extrema and products over dims, bit for bit in both modes.

Of bfloat16 and block formats a sum is a product with ones, of a mean with 1 / n, on the matrix unit; of float32 the
vector unit adds. Leading dims are added tile by tile (sums), or reduced as rows are (means).

Source    ttnn 0.81.1, `reduce.cpp` and `reduce_nc.cpp` of the wheel; which of them run for which dims was asked
"""

import functools
import math
import operator

import torch

from . import ComputeConfig, fpu, vector
from .rounding import BLOCK_FORMATS, HELD_AS, cast_integer, pack, to_bf16_truncated, truncate_fp32

TILE = 32


def _dims(x, dims) -> list[int]:
    dims = range(x.dim()) if dims is None else (dims,) if isinstance(dims, int) else dims
    return sorted({d % x.dim() for d in dims})


def _tiles(x, dim: int):
    """The tiles along a dim, the last one filled with zeros."""
    x = x.movedim(dim, -1)
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % TILE)).unflatten(-1, (-1, TILE)).unbind(-2)


def _added(parts):
    """One after the other, as written."""
    return functools.reduce(operator.add, parts)


def _row_on_vector_unit(x):
    """The sum of float32 [..., n] over the last dim -> [..., 1]: tiles, then columns in pairs, then pairs."""
    upper, lower = _added(_tiles(x, -1)).unflatten(-1, (2, 8, 2)).flip(-3).unbind(-3)
    v = _added((upper[..., 1], upper[..., 0], lower[..., 1], lower[..., 0]))
    for half in (4, 2, 1):
        v = v[..., :half] + v[..., half:]
    return v


def _column_on_vector_unit(x):
    """The sum of float32 [..., n, m] over n -> [..., 1, m]: tiles, then rows in groups of four."""
    halves = _added(_tiles(x, -2)).unflatten(-1, (2, 4, 4))
    first, second = _added(halves.flip(-2).unbind(-2)).unbind(-2)
    t = first + second
    return ((t[..., 0] + t[..., 1]) + (t[..., 2] + t[..., 3])).unsqueeze(-2)


def _row(x, scale: float, config: ComputeConfig):
    """scale times the sum of bfloat16 [..., n] -> [..., 1] as the destination holds it."""
    if scale == 1:
        return fpu.row_sum(x, config.math_fidelity, config.fp32_dest_acc_en)
    column = torch.full((x.shape[-1], 1), scale, dtype=torch.bfloat16, device=x.device)
    return fpu.matmul(x, column, config.math_fidelity, config.fp32_dest_acc_en)


def _column(x, scale: float, config: ComputeConfig):
    """scale times the sum of bfloat16 [..., n, m] over n -> [..., 1, m]: all phases of 16 rows, then the next 16."""
    x = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[-2] % (TILE // 2))).unflatten(-2, (-1, TILE // 2))
    x = torch.nn.functional.pad(x, (0, 0, 0, TILE // 2)).flatten(-3, -2)
    row = torch.full((1, x.shape[-2]), scale, dtype=torch.bfloat16, device=x.device)
    return fpu.matmul(row.expand(*x.shape[:-2], 1, -1), x, config.math_fidelity, config.fp32_dest_acc_en)


def column_sum(x, config: ComputeConfig):
    """The sum of [..., n, m] over n -> [..., 1, m] as the destination holds it."""
    return _column(x, 1.0, config)


def leading_sum(x, dim: int, fp32: bool):
    """The sum over a leading dim, tile by tile in the destination."""
    if fp32:
        return _added(truncate_fp32(p) for p in x.split(1, dim))
    return fpu.added_up(x.split(1, dim))


def _sums(x, dims, keepdim, dtype, config: ComputeConfig, mean: bool):
    """Sums, or means, one dim after the other.

    In between lies what the library keeps there: the operand's dtype for a mean over the last two dims or all, and in
    the leading dims of a sum over all; else float32, which the vector unit adds (not for the last two dims).
    """
    everything, dims = dims is None, _dims(x, dims)
    rank, fp32 = x.dim(), config.fp32_dest_acc_en
    x = _operand(x, config)
    block, whole = dtype in BLOCK_FORMATS, x.dtype == torch.float32
    leading = [d for d in reversed(dims) if d < rank - 2]
    last = [d for d in reversed(dims) if d >= rank - 2]
    order = last + leading if mean or whole else leading + last
    share = 1 / math.prod(x.shape[d] for d in dims) if mean else 1.0
    for i, d in enumerate(order):
        final = i == len(order) - 1
        on_vector_unit = x.dtype == torch.float32 and (whole or (fp32 and bool(leading) and not everything))
        mine = share if (i == 0 if leading else final) else 1.0
        if d < rank - 2 and not mean and not whole:
            y = leading_sum(x, d, fp32)
        elif d == rank - 1:
            y = _row_on_vector_unit(x) if on_vector_unit else _row(x, vector.bf16_scale(mine), config)
        else:
            turned = x.movedim(d, -2)
            y = _column_on_vector_unit(turned) if on_vector_unit else _column(turned, vector.bf16_scale(mine), config)
            y = y.movedim(-2, d)
        if on_vector_unit:
            y = y * vector.f32(mine)
        small = final or block or not fp32 or (mean and (everything or not leading)) or (everything and d not in last)
        x = y.float() if whole or not small else pack(y, dtype if block else "bfloat16")
    if not keepdim:
        x = x.reshape([n for d, n in enumerate(x.shape) if d not in dims])
    return x.to(HELD_AS[dtype]) if block else pack(x, dtype)


def _operand(x, config: ComputeConfig):
    """float32 as the unpacker brings it to a bf16 destination."""
    return to_bf16_truncated(x) if x.dtype == torch.float32 and not config.fp32_dest_acc_en else x


def sum(x, dims, keepdim, dtype, config: ComputeConfig):
    """Sum over `dims` (None: all)."""
    if not x.is_floating_point():
        return cast_integer(x.to(torch.int64).sum(_dims(x, dims), keepdim), dtype)
    return _sums(x, dims, keepdim, dtype, config, mean=False)


def mean(x, dims, keepdim, dtype, config: ComputeConfig):
    """Mean over `dims` (None: all). 1 / n is cut to bfloat16 where the matrix unit takes it."""
    return _sums(x, dims, keepdim, dtype, config, mean=True)


def _extreme(x, dims, keepdim, dtype, config, function):
    y = function(_operand(x, config), _dims(x, dims), keepdim)
    return pack(y, dtype) if dtype in BLOCK_FORMATS else y.to(HELD_AS[dtype])


def max(x, dims, keepdim, dtype, config: ComputeConfig):
    """Largest value over `dims` (None: all). Exact."""
    return _extreme(x, dims, keepdim, dtype, config, torch.amax)


def min(x, dims, keepdim, dtype, config: ComputeConfig):
    """Smallest value over `dims` (None: all). Exact."""
    return _extreme(x, dims, keepdim, dtype, config, torch.amin)


def prod(x, dims, keepdim, dtype):
    """Product over one dim: FPU products in four phases, bfloat16 after each; of float32 plain ones. Over all (None)
    the device's order is not known: a float32 product, rounded once."""
    if dims is None:
        y = x.float().prod()
        return pack(y.reshape([1] * x.dim()) if keepdim else y, dtype)
    (d,) = _dims(x, dims)
    multiply = torch.mul if x.dtype == torch.float32 else functools.partial(fpu.mul, fidelity="HiFi4")
    y = functools.reduce(multiply, x.split(1, d))
    return pack(y if keepdim else y.squeeze(d), dtype)
