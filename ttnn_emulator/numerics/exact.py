"""Bit for bit what the chip computes, wherever its rule is known.

Every operation is the sequence of steps of the library's own kernel, each step by the rule of the unit that does it:
`fpu` (element-wise FPU and matrix unit), `vector` (the vector unit) and `rounding.pack` (the packer).

Source    ttnn 0.81.1: kernel sources in the wheel; all recorded vectors of matmul, linear, element-wise, norms,
          softmax, reductions, rotary and attention are reproduced bit for bit (`tests/numerics/test_exact.py`).
"""

import builtins
import math

import numpy
import torch

from . import ComputeConfig, fpu, vector
from .common import (
    TILE,
    activated,
    add,
    auto_block_w,
    div,
    layer_norm,
    max,
    mean,
    min,
    mul,
    rms_norm,
    rotary,
    softmax,
    stored,
    sub,
    sum,
)
from .rounding import HELD_AS, pack, to_bf16_rna, to_bf16_truncated, typecast
from .unary import tabulate, take, unary

__all__ = [
    "add", "attention", "attention_decode", "auto_block_w", "div", "layer_norm", "matmul", "max", "mean", "min", "mul",
    "pack", "rms_norm", "rotary", "softmax", "sub", "sum", "typecast", "unary",
]  # fmt: skip


# ---------------------------------------------------------------- matmul


def matmul(
    x, w, config: ComputeConfig, *, dtype, block_w=None, bias=None, activation=None, w_truncated=None, w_dtype=None
):
    """x @ w (+ bias), activation(...), stored as `dtype`.

    Shapes    x [..., M, K], w [..., K, N] -> [..., M, N]; batch dimensions broadcast; bias [..., 1, N]
    Numerics  The matrix unit's integer rule. With packer_l1_acc, K goes in blocks of `block_w` tiles (None: the
              library's choice; a batched w is one block) whose sums are added in L1; with a bias the last one too,
              and the bias is an FPU add. The activation sees the destination register. A float32 operand has no
              recorded vectors: products of 11 significand bits are summed in fp32.
    """
    if x.dtype == torch.float32 or w.dtype == torch.float32:
        y = _tf32(x) @ _tf32(w)
        y = y if bias is None else y + bias.float()
    else:
        blocks = 0
        if config.packer_l1_acc and all(d == 1 for d in w.shape[:-2]):
            blocks = block_w or auto_block_w(x.shape[-2], x.shape[-1], w.shape[-1])
        fp32 = config.fp32_dest_acc_en
        y = fpu.matmul(x, w, config.math_fidelity, fp32, blocks, sum_all=bias is not None)
        if bias is not None:
            y = fpu.add(y, bias.to(torch.bfloat16), fp32)
    return pack(y if activation is None else activated(y, activation), dtype)


def _tf32(x):
    """float32 cut to the 11 significand bits that a source register holds."""
    return (x.to(torch.float32).contiguous().view(torch.int32) & -0x2000).view(torch.float32)


# ---------------------------------------------------------------- attention


def _l1_add(a, b):
    """The packer's accumulation in L1: one RNE."""
    return (a.float() + b.float()).to(torch.bfloat16)


def _exp_cut(v, scale):
    return to_bf16_truncated(vector.exp_unclamped(v, scale))


def _correction_approx(v, scale):
    return vector.exp_21f(v.float() * vector.bf16_scale(scale)).to(torch.bfloat16)


def _correction_polynomial(v, scale):
    return vector.exp_polynomial(v.float() * vector.bf16_scale(scale), 2).to(torch.bfloat16)


def _reciprocal_cut(x):
    return to_bf16_truncated(vector.reciprocal(x, 1))


def _reciprocal(x):
    return (1 / x.double()).float().to(torch.bfloat16)


def _loops():
    from . import flash_kernel  # numba and its compiler: imported when first needed

    return flash_kernel


def _patterns(x):
    """bfloat16 as a numpy array of its patterns."""
    return x.contiguous().view(torch.int16).numpy().view("uint16")


def _compiled(name, x, parameter):
    """`vector.exp_polynomial` (of degree 4) or `vector.reciprocal`, on the CPU in one pass."""
    if x.device.type != "cpu":
        return getattr(vector, name)(x, parameter)
    x = x.contiguous()
    out = torch.empty_like(x)
    parameters = () if name == "exp_polynomial" else (parameter,)
    getattr(_loops(), name)(x.view(-1).numpy(), *parameters, out.view(-1).numpy())
    return out


#: Multiply-adds of a decode step from which one compiled pass is worth its compilation, once per machine.
WORTH = 1 << 17
_NO_TABLE = torch.zeros(1, dtype=torch.bfloat16)


class _Flash:
    """The steps that prefill and decode share, on rows of one K chunk; `wide` keeps scores in fp32 (prefill, fp32
    dest)."""

    def __init__(self, config, scale, exp_approx, wide):
        self.fidelity, self.fp32, self.approx_recip = (
            config.math_fidelity,
            config.fp32_dest_acc_en,
            config.math_approx_mode,
        )
        self.scale, self.exp_approx, self.wide = scale, exp_approx, wide
        self.correction_scale = vector.bf16_scale(scale)

    def packed(self, y):
        return stored(y, "bfloat16")

    def scores(self, q, k, mask):
        s = fpu.matmul(q, k.mT, self.fidelity, self.fp32)
        s = s if self.wide else self.packed(s)
        return s if mask is None else s.masked_fill(mask, -math.inf)

    def row_max(self, s):
        m = s.amax(-1, keepdim=True)
        return to_bf16_truncated(m) if self.wide else m

    def exponentials(self, s, m):
        if self.fp32 and not self.wide and s.device.type == "cpu":
            out = torch.empty_like(s, memory_format=torch.contiguous_format)
            rows, maxima = _patterns(s).reshape(-1, s.shape[-1]), _patterns(m).reshape(-1)
            _loops().exponentials(rows, maxima, self.scale, self.exp_approx, _patterns(out).reshape(rows.shape))
            return out
        v = fpu.sub(s, m, self.fp32)
        if not self.fp32:
            return self._of_bf16(_exp_cut, v)
        if self.exp_approx:
            e = vector.exp_unclamped(v, self.scale)
        else:
            e = vector.exp_accurate(v * vector.f32(self.scale))
        return e if self.wide else self.packed(e)

    def _of_bf16(self, function, v):
        """A vector-unit function of bfloat16 values and the scale, from a table."""
        return take(tabulate(function, self.scale, device=str(v.device)), v)

    def correction(self, old, new):
        """exp((old max - new max) * scale), bfloat16."""
        v = fpu.sub(old, new, self.fp32)
        if not self.fp32:
            return self._of_bf16(_correction_approx if self.exp_approx else _correction_polynomial, v)
        v = v * self.correction_scale
        return self.packed(vector.exp_accurate(v) if self.exp_approx else _compiled("exp_polynomial", v, 4))

    def product(self, p, v):
        return self.packed(fpu.matmul(p, v, self.fidelity, self.fp32))

    def times(self, a, b):
        return self.packed(fpu.mul(a, b, self.fidelity, self.fp32))

    def decode_on_cpu(self, q, k, v, group, chunk):
        """`attention_decode` of users (row, last position) in one compiled pass; None if a product could overflow."""
        here = [user for user, _ in group]
        every = slice(here[0], here[-1] + 1) if here[-1] - here[0] + 1 == len(here) else here
        tables = [_NO_TABLE] * 3
        if not self.fp32:
            correction = _correction_approx if self.exp_approx else _correction_polynomial
            reciprocal = _reciprocal_cut if self.approx_recip else _reciprocal
            tables = [tabulate(_exp_cut, self.scale), tabulate(correction, self.scale), tabulate(reciprocal)]
        out = _loops().decode(
            *(_patterns(t) for t in (q[0, every], k[every], v[every])),
            numpy.array([position for _, position in group]), chunk, (self.scale, self.correction_scale),
            (self.exp_approx, 1 if self.approx_recip else 2), [_patterns(t) for t in tables], self.fidelity, self.fp32,
        )  # fmt: skip
        if out is None:
            return None
        words = torch.from_numpy(out)
        return words.view(torch.float32) if self.fp32 else (words >> 16).to(torch.int16).view(torch.bfloat16)

    def inverse(self, total):
        if self.fp32:
            return _compiled("reciprocal", _tf32(total), 1 if self.approx_recip else 2)
        return take(tabulate(_reciprocal_cut if self.approx_recip else _reciprocal, device=str(total.device)), total)


def attention(
    q, k, v, *, mask=None, is_causal=False, scale=None, config: ComputeConfig, exp_approx=True, q_chunk=32, k_chunk=32,
    sliding_window=None, dtype="bfloat16",
):  # fmt: skip
    """softmax(q k^T * scale + mask) v, grouped heads, in the steps of the library's flash attention.

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd] -> [B, nq, S, hd]; mask broadcasts to [B, nq, S, Sk], added to
              the unscaled scores
    Numerics  Scores, exponentials, partial sums and outputs of every K chunk pass through L1 in bfloat16; with an fp32
              destination, scores, exponentials and sums in fp32. The scale is fused into the exponential, which is the
              approximate one in a bf16 destination, whatever `exp_approx` says; that then chooses only the one of the
              corrections between chunks. math_approx_mode: the sum's reciprocal is not rounded but cut.
    Source    `sdpa` compute kernels of the wheel (`compute_streaming.hpp` for a bf16, `compute_common.hpp` for an fp32
              destination)
    """
    b, nq, s, hd = q.shape
    nk, sk = k.shape[1:3]
    group = nq // nk
    q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
    scale = 1 / math.sqrt(hd) if scale is None else scale
    step = _Flash(config, scale, exp_approx, wide=config.fp32_dest_acc_en)
    pad = -sk % k_chunk
    k, v = (torch.nn.functional.pad(t, (0, 0, 0, pad)) for t in (k, v))
    if mask is not None:
        mask = torch.nn.functional.pad(mask.expand(b, nq, s, sk), (0, pad), value=-math.inf).to(torch.bfloat16)
    out = torch.empty(b, nq, s, v.shape[-1], dtype=HELD_AS[dtype], device=q.device)
    columns = torch.arange(sk + pad, device=q.device)
    for q0 in range(0, s, q_chunk):
        rows = torch.arange(q0, builtins.min(q0 + q_chunk, s), device=q.device)
        queries = q[:, :, rows].reshape(b, nk, group * len(rows), hd)
        end = builtins.min(-(-builtins.min(q0 + q_chunk, sk) // k_chunk) * k_chunk, sk + pad) if is_causal else sk + pad
        m = total = acc = None
        for k0 in range(0, end, k_chunk):
            at = slice(k0, k0 + k_chunk)
            hidden = (columns[at] >= sk)[None].expand(len(rows), -1)
            if is_causal:
                hidden = hidden | (columns[at] > rows[:, None])
            if sliding_window:
                hidden = hidden | (columns[at] <= rows[:, None] - sliding_window)
            hidden = hidden.repeat(group, 1) if bool(hidden.any()) else None
            scores = step.scores(queries, k[:, :, at], hidden)
            if mask is not None:
                extra = mask[:, :, rows][..., at].reshape(scores.shape)
                scores = fpu.add(scores, extra, step.fp32)
            new = step.row_max(scores)
            new = new if m is None else torch.maximum(m, new)
            p = step.exponentials(scores, new)
            part = p[..., :TILE]
            for t in range(TILE, k_chunk, TILE):
                part = part + p[..., t : t + TILE] if step.fp32 else _l1_add(part, p[..., t : t + TILE])
            y = step.product(p, v[:, :, at])
            if m is not None:
                c = step.correction(m, new)
                old = fpu.mul(total, c, step.fidelity, step.fp32)
                part = fpu.add(part, old, True) if step.fp32 else _l1_add(part, step.packed(old))
                y = _l1_add(y, step.times(acc, c))
            m, total, acc = new, part, y
        total = fpu.row_sum(total, step.fidelity, step.fp32)
        y = stored(fpu.mul(acc, step.inverse(total), step.fidelity, step.fp32), dtype)
        out[:, :, rows] = y.reshape(b, nq, len(rows), -1)
    return out


def _decode_chunks(position, k_chunk, sliding_window):
    """The K chunk of decode and the first and one-past-last chunk: a power of 2 of up to 8 tiles when none is
    configured."""
    if not k_chunk:
        tiles = position // TILE + 1
        k_chunk = TILE * builtins.min(8, 1 << (tiles - 1).bit_length())
    first = builtins.max(0, position + 1 - sliding_window) // k_chunk if sliding_window else 0
    return k_chunk, first, position // k_chunk + 1


def attention_decode(
    q, k, v, positions, *, scale=None, config: ComputeConfig, exp_approx=True, k_chunk=0, mask=None,
    sliding_window=None, dtype="bfloat16", cores=None,
):  # fmt: skip
    """One new token per user against a cache.

    Shapes    q [1, B, nq, hd], k and v [B, nk, L, hd], positions B ints (-1: the user is skipped, zeros); mask
              broadcasts to [B, 1, nq, L] and is used instead of the positions' bound -> [1, B, nq, hd]
    Numerics  bfloat16 after every step, also with an fp32 destination. K goes in chunks of `k_chunk` (0: the power
              of 2 of tiles that covers the position, up to 8). A head's chunks are spread over `cores` (None: 64 /
              (B * nk), 1 to 16), last chunks first; a core's chunks are folded one by one, the cores' results by a
              tree.
    Source    `sdpa_flash_decode.cpp` and `rt_args_common.hpp` of the wheel. One chunk per head is recorded
              (bit-exact); several are as the source says, not recorded, and the number of cores is the rule of thumb
              above.
    """
    users, nq, hd = q.shape[1:]
    nk, length = k.shape[1:3]
    q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
    scale = 1 / math.sqrt(hd) if scale is None else scale
    # Up to 16 query heads the kernel works on half tiles (its compile-time argument 23, as ttnn 0.81.1 sets it), and
    # there the exponential is the approximate one whatever was asked for.
    step = _Flash(config, scale, exp_approx or nq <= TILE // 2, wide=False)
    cores = cores or builtins.max(1, builtins.min(16, 64 // (users * nk)))
    out = torch.zeros(1, users, nq, v.shape[-1], dtype=HELD_AS[dtype], device=q.device)
    alike = {}  # users whose chunks are the same go together
    for user, position in enumerate(positions):
        if position >= 0:
            last = length - 1 if mask is not None else builtins.min(position, length - 1)
            alike.setdefault(_decode_chunks(last, k_chunk, sliding_window), []).append((user, last))
    for (chunk, first, end), group in alike.items():
        here = [user for user, _ in group]
        farthest = builtins.max(position for _, position in group)
        one_pass = q.device.type == "cpu" and len(here) * nq * hd * farthest >= WORTH and hd % TILE == 0
        one_pass = one_pass and mask is None and not sliding_window and (cores == 1 or end == 1)  # one core a head
        one_pass = one_pass and v.shape[-1] == hd and (farthest // TILE + 1) * TILE <= length
        y = step.decode_on_cpu(q, k, v, group, chunk) if one_pass else None
        if y is not None:
            out[0, here] = stored(y, dtype)
            continue
        every = slice(here[0], here[-1] + 1) if here[-1] - here[0] + 1 == len(here) else here
        queries = q[0, every].reshape(-1, nq // nk, hd)
        # Behind the farthest position nothing is computed: what is hidden there comes to the same.
        start, stop = first * chunk, builtins.min(end * chunk, length)
        live = builtins.min(stop, (farthest // TILE + 1) * TILE)
        last = torch.tensor([position for _, position in group], device=q.device)[:, None]
        columns = torch.arange(start, live, device=q.device)
        hidden = columns > last
        if sliding_window:
            hidden = hidden | (columns <= last - sliding_window)
        hidden = hidden.repeat_interleave(nk, 0)[:, None] if bool(hidden.any()) else None
        scores = step.scores(queries, k[every, :, start:live].flatten(0, 1), hidden)
        if mask is not None:
            extra = mask.expand(users, 1, nq, -1)[every, 0, :, start:live].reshape(scores.shape)
            scores = step.packed(fpu.add(scores, extra.to(torch.bfloat16), step.fp32))
        if end * chunk > live:
            scores = torch.nn.functional.pad(scores, (0, end * chunk - live), value=-math.inf)
        scores = scores.unflatten(-1, (end - first, chunk)).transpose(1, 2)  # [users nk, chunks, group, chunk]
        values = v[every, :, start:stop]
        if end * chunk > stop:
            values = torch.nn.functional.pad(values, (0, 0, 0, end * chunk - stop))
        values = values.unflatten(2, (end - first, chunk)).flatten(0, 1)
        _, total, acc = _folded(step, scores, values, _spread(end - first, cores))
        y = stored(fpu.mul(acc, step.packed(step.inverse(total)), step.fidelity, step.fp32), dtype)
        out[0, every] = y.reshape(-1, nq, y.shape[-1])
    return out


def _folded(step, scores, values, spread):
    """(max, sum, output) of a row over all chunks: every core folds its own one by one, a tree folds the cores'.

    Shapes    scores [B, chunks, rows, keys], values [B, chunks, keys, hd] -> [B, rows, 1] twice, [B, rows, hd]
    """
    m = step.row_max(scores)
    for chunks in spread:
        if len(chunks) > 1:
            at = slice(chunks[0], chunks[-1] + 1)
            m[:, at] = m[:, at].cummax(1).values
    p = step.exponentials(scores, m)
    total = step.packed(fpu.row_sum(p, step.fidelity, step.fp32))
    both = torch.cat([step.product(p, values), total], -1)  # the sum is folded as the output is
    corrections = step.correction(m[:, :-1], m[:, 1:]) if m.shape[1] > len(spread) else None
    results = []
    for chunks in spread:
        acc = both[:, chunks[0]]
        for i in chunks[1:]:
            acc = step.packed(fpu.add(step.times(acc, corrections[:, i - 1]), both[:, i], step.fp32))
        results.append((m[:, chunks[-1]], acc[..., -1:], acc[..., :-1]))
    return _tree(step, results)


def _spread(n, cores):
    """Which of n chunks each core has; core 0, the root, has the last ones."""
    cores = builtins.min(cores, n)
    share, rest = divmod(n, cores)
    spans, at = [], 0
    for i in range(cores):
        size = share + (i < rest)
        spans.append(range(at, at + size))
        at += size
    return spans[::-1]


def _tree(step, results):
    """Fold the cores' results: in round r, core i takes in core i + 2^r."""
    results = list(results)
    stride = 1
    while stride < len(results):
        for i in range(0, len(results) - stride, 2 * stride):
            results[i] = _merge(step, results[i], results[i + stride])
        stride *= 2
    return results[0]


def _merge(step, mine, theirs):
    """The vector unit's correction: both maxima, sums and outputs brought to the larger maximum."""
    m = torch.maximum(mine[0], theirs[0])
    total, outputs = [], []
    for old, part, y in (mine, theirs):
        v = (old.float() - m.float()) * vector.bf16_scale(step.scale)
        e = vector.exp_accurate(v) if step.fp32 else vector.exp_21f(v).to(torch.bfloat16).float()
        scaled = e * part.float()
        total.append(scaled if step.fp32 else to_bf16_truncated(scaled).float())
        outputs.append(step.times(y, step.packed(e)))
    total = total[0] + total[1]
    total = to_bf16_rna(total) if step.fp32 else to_bf16_truncated(total)
    return m, total, step.packed(fpu.add(outputs[0], outputs[1], step.fp32))
