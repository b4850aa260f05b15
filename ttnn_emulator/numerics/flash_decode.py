"""Flash attention of decode steps, bit for bit, in the steps of the library's own kernel.

Source    `sdpa_decode` kernels of the wheel (ttnn 0.81.1), with the compile-time arguments that the library gives
          them; all recorded vectors
"""

import builtins
import functools
import math

import torch

from . import ComputeConfig, fpu, vector
from .common import TILE, stored
from .flash import _Flash as Steps
from .rounding import HELD_AS, to_bf16_rna, to_bf16_truncated

#: Multiply-adds of a step from which one compiled pass is worth its compilation, half a minute once per machine.
WORTH = 1 << 15


def _decode_chunks(position, k_chunk, sliding_window, fp32):
    """The K chunk of decode and the first and one-past-last chunk: where none is given a power of 2 of tiles, as many
    as fit the destination at most."""
    if not k_chunk:
        tiles = position // TILE + 1
        k_chunk = TILE * builtins.min(4 if fp32 else 8, 1 << (tiles - 1).bit_length())
    first = builtins.max(0, position + 1 - sliding_window) // k_chunk if sliding_window else 0
    return k_chunk, first, position // k_chunk + 1


def decode(
    steps, q, k, v, positions, *, scale=None, config: ComputeConfig, exp_approx=True, k_chunk=0, mask=None,
    sliding_window=None, dtype="bfloat16", cores=None, sink=None,
):  # fmt: skip
    """One new token per user against a cache.

    steps     as `flash.prefill`'s

    Shapes    q [1, B, nq, hd], k and v [B, nk, L, hd], positions B ints (-1: the user is skipped, zeros); mask
              broadcasts to [B, 1, nq, L] and is used instead of the positions' bound; sink [nq]: one more unscaled
              score of every head, without a value -> [1, B, nq, hd]
    Numerics  bfloat16 after every step, also with an fp32 destination. K goes in chunks of `k_chunk` (0: the power
              of 2 of tiles that covers the position, up to 8). A head's chunks are spread over `cores` (None: 64 /
              (B * nk), 1 to 16), last chunks first; a core's chunks are folded one by one, the cores' results by a
              tree.
    Source    `sdpa_flash_decode.cpp` and `rt_args_common.hpp` of the wheel. One chunk per head is recorded
              (bit-exact); several, and a sink, are as the source says, not recorded, and the number of cores is the
              rule of thumb above.
    """
    users, nq, hd = q.shape[1:]
    nk, length = k.shape[1:3]
    q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
    scale = 1 / math.sqrt(hd) if scale is None else scale
    # Up to 16 query heads the kernel works on half tiles (its compile-time argument 23, as ttnn 0.81.1 sets it), and
    # there the exponential is the approximate one whatever was asked for.
    step = steps(config, scale, exp_approx or nq <= TILE // 2, wide=False)
    cores = cores or builtins.max(1, builtins.min(16, 64 // (users * nk)))
    out = torch.zeros(1, users, nq, v.shape[-1], dtype=HELD_AS[dtype], device=q.device)
    alike = {}  # users whose chunks are the same go together
    for user, position in enumerate(positions):
        if position >= 0:
            last = length - 1 if mask is not None else builtins.min(position, length - 1)
            alike.setdefault(_decode_chunks(last, k_chunk, sliding_window, step.fp32), []).append((user, last))
    for (chunk, first, end), group in alike.items():
        here = [user for user, _ in group]
        farthest = builtins.max(position for _, position in group)
        one_pass = q.device.type == "cpu" and hd % TILE == 0 and v.shape[-1] == hd and mask is None
        one_pass = one_pass and (step.fp32 or (sink is None and (cores == 1 or end - first == 1)))
        one_pass = one_pass and (farthest // TILE + 1) * TILE <= length and len(here) * nq * hd * farthest >= WORTH
        y = step.decode_on_cpu(q, k, v, sink, group, chunk, cores, sliding_window or 0) if one_pass else None
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
        m, total, acc = _folded(step, scores, values, _spread(end - first, cores))
        if sink is not None:
            extra = sink.to(torch.bfloat16).reshape(nk, -1, 1).repeat(len(group), 1, 1)
            total, acc = _with_sink(step, extra, m, total, acc)
        y = stored(fpu.mul(acc, step.packed(step.inverse(total)), step.fidelity, step.fp32), dtype)
        out[0, every] = y.reshape(-1, nq, y.shape[-1])
    return out


def _with_sink(step, sink, m, total, acc):
    """(sum, output) of rows with one more score."""
    new = torch.maximum(m, sink)
    c = step.correction(m, new)
    total = fpu.add(step.times(total, c), step.correction(sink, new), step.fp32)
    return step.packed(total), step.times(acc, c)


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


attention_decode = functools.partial(decode, Steps)
