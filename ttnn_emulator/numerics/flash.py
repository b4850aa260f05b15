"""Flash attention of prompts, bit for bit, in the steps of the library's own kernels (decode steps: `flash_decode`).

Source    `sdpa` kernels of the wheel (ttnn 0.81.1), with the compile-time arguments that the library
          gives them; all recorded vectors
"""

import builtins
import functools
import math
from typing import NamedTuple

import numpy
import torch

from . import ComputeConfig, approximate_steps, fpu, vector
from .common import TILE, stored
from .rounding import HELD_AS, to_bf16_truncated, truncate_fp32
from .unary import tabulate, take


def _l1_add(a, b):
    """The packer's accumulation in L1: one RNE."""
    return (a.float() + b.float()).to(torch.bfloat16)


def _exp_cut(v, scale):
    return to_bf16_truncated(vector.exp_unclamped(v, scale))


def _correction_approx(v, scale):
    return vector.exp_21f(v.float() * vector.bf16_scale(scale)).to(torch.bfloat16)


def _correction_polynomial(v, scale):
    return vector.exp_polynomial(v.float() * vector.bf16_scale(scale), 2).to(torch.bfloat16)


def _reciprocal_cut(x, steps):
    return to_bf16_truncated(vector.reciprocal(x, steps))


def _reciprocal(x):
    return (1 / x.double()).float().to(torch.bfloat16)


def _passes():
    from . import flash_values  # numba and its compiler: imported when first needed

    return flash_values


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
    getattr(_passes(), name)(x.view(-1).numpy(), *parameters, out.view(-1).numpy())
    return out


#: Multiply-adds below which a user's attention is bit for bit in `fast` too.
MANY = 1 << 17
_NO_SINK = torch.empty(0, dtype=torch.bfloat16)
_NO_TABLE = torch.zeros(1, dtype=torch.bfloat16)


class _Flash:
    """The steps that prefill and decode share, on rows of one K chunk; `wide` keeps scores in fp32 (prefill, fp32
    dest)."""

    fast = False  # whether `decode_on_cpu` takes the products of `fast` where a user has MANY multiply-adds

    def __init__(self, config, scale, exp_approx, wide):
        self.fidelity, self.fp32, self.approx_recip = (
            config.math_fidelity,
            config.fp32_dest_acc_en,
            config.math_approx_mode,
        )
        self.scale, self.exp_approx, self.wide = scale, exp_approx, wide
        self.steps = approximate_steps() if self.approx_recip else 2
        self.correction_scale = vector.bf16_scale(scale)

    def packed(self, y):
        return stored(y, "bfloat16")

    def matmul(self, x, w, block_w=0):
        """A product, as the destination holds it; block_w: tiles of K whose sums are added in L1 (0: one block)."""
        return fpu.matmul(x, w, self.fidelity, self.fp32, block_w, sum_all=True)

    def scores(self, q, k, mask):
        s = self.matmul(q, k.mT)
        s = s if self.wide else self.packed(s)
        return s if mask is None else s.masked_fill(mask, -math.inf)

    def row_max(self, s):
        m = s.amax(-1, keepdim=True)
        return to_bf16_truncated(m) if self.wide else m

    def exponentials(self, s, m):
        if self.fp32 and not self.wide and s.device.type == "cpu":
            out = torch.empty_like(s, memory_format=torch.contiguous_format)
            rows, maxima = _patterns(s).reshape(-1, s.shape[-1]), _patterns(m).reshape(-1)
            _passes().exponentials(rows, maxima, self.scale, self.exp_approx, _patterns(out).reshape(rows.shape))
            return out
        v = fpu.sub(s, m, self.fp32)
        if not self.fp32:
            return self._of_bf16(_exp_cut, v)
        if self.exp_approx:
            e = vector.exp_unclamped(v, self.scale)
        else:
            e = self.exp_accurate(v * vector.f32(self.scale))
        return e if self.wide else self.packed(e)

    exp_accurate = staticmethod(vector.exp_accurate)

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

    def with_sink(self, sink, m, total, acc):
        """(sum, output) of rows with one more score, bfloat16."""
        if not self.fp32:
            return to_bf16_truncated(total.float() + self.correction(sink, m).float()), acc
        new = torch.maximum(m, sink)
        c = self.correction(m, new)
        total = fpu.add(self.exponentials(sink.float(), new), fpu.mul(total, c, self.fidelity, True), True)
        return total, self.times(acc, c)

    def product(self, p, v):
        return self.packed(self.matmul(p, v))

    def times(self, a, b):
        return self.packed(fpu.mul(a, b, self.fidelity, self.fp32))

    def decode_on_cpu(self, q, k, v, sink, group, chunk, cores, window):
        """`attention_decode` of users (row, last position) in one compiled pass; None if a product could overflow."""
        here = [user for user, _ in group]
        every = slice(here[0], here[-1] + 1) if here[-1] - here[0] + 1 == len(here) else here
        tables = [_NO_TABLE] * 3
        if not self.fp32:
            correction = _correction_approx if self.exp_approx else _correction_polynomial
            tables = [tabulate(_exp_cut, self.scale), tabulate(correction, self.scale), self.inverses()]
        fast = self.fast and q.shape[-1] * q.shape[-2] * builtins.max(position for _, position in group) >= MANY
        from . import flash_kernel  # as above

        out = flash_kernel.decode(
            *map(_patterns, (q[0, every], k[every], v[every], _NO_SINK if sink is None else sink.to(torch.bfloat16))),
            numpy.array([position for _, position in group]), chunk, (self.scale, self.correction_scale),
            (self.exp_approx, self.steps, cores, window), [_patterns(t) for t in tables],
            self.fidelity, self.fp32, fast,
        )  # fmt: skip
        if out is None:
            return None
        words = torch.from_numpy(out)
        return words.view(torch.float32) if self.fp32 else (words >> 16).to(torch.int16).view(torch.bfloat16)

    def inverse(self, total):
        if self.fp32:
            return _compiled("reciprocal", truncate_fp32(total), self.steps)
        return take(self.inverses(str(total.device)), total)

    def inverses(self, device="cpu"):
        """The table of reciprocals of a bf16 destination."""
        if self.approx_recip:
            return tabulate(_reciprocal_cut, self.steps, device=device)
        return tabulate(_reciprocal, device=device)


#: Blocks of tiles (rows, columns) that fit a bf16 destination, in the order in which attention tries them.
_SUBBLOCKS = (
    (2, 4), (4, 2), (1, 8), (8, 1), (1, 7), (7, 1), (2, 3), (3, 2), (1, 6), (6, 1), (1, 5), (5, 1), (2, 2), (1, 4),
    (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1),
)  # fmt: skip


def _subblock(rows: int, columns: int, highest: int = 8) -> tuple[int, int]:
    return next((h, w) for h, w in _SUBBLOCKS if h <= highest and rows % h == 0 and columns % w == 0)


class _Tiles(NamedTuple):
    """The sizes of a prefill in tiles: chunks of queries and keys, all keys, and how far a window reaches."""

    q: int
    k: int
    keys: int
    causal: bool
    masked: bool
    left: int | None  # None: no window
    right: int
    streaming: bool  # the kernel of a bf16 destination

    def chunks(self, first: int):
        """(number, keys at work) of every chunk of keys for the queries from tile `first` on. The kernel of a bf16
        destination leaves out what no query of the chunk sees, the other one only what is behind all of them.

        Source    `compute_streaming.hpp`, `compute_common.hpp` and `sliding_window_geometry.hpp` of the wheel
        """
        count = -(-self.keys // self.k)
        past = first + self.q + (0 if self.causal else self.right)  # the first tile that no query sees
        start, stop, bounded = 0, count, self.causal or (self.streaming and self.left is not None)
        if bounded:
            stop = builtins.min(count, -(-past // self.k))
        if self.streaming and self.left is not None and first > self.left:
            start = (first - self.left) // self.k
        for i in range(start, stop):
            live = self.k
            if self.streaming and not self.causal and not self.masked and i == count - 1:
                live = self.keys - i * self.k
            if self.streaming and bounded and i == stop - 1 and past > i * self.k:
                live = builtins.min(live, past - i * self.k)
            yield i, live


def prefill(
    steps, q, k, v, *, mask=None, is_causal=False, scale=None, config: ComputeConfig, exp_approx=True, q_chunk=32,
    k_chunk=32, sliding_window=None, sink=None, start=0, dtype="bfloat16",
):  # fmt: skip
    """softmax((q k^T + mask) * scale) v, grouped heads, in the steps of the library's flash attention.

    steps     `_Flash`, or what multiplies in another way

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd] -> [B, nq, S, hd]; mask broadcasts to [B, nq, S, Sk], added to
              the unscaled scores; sink [1, nq, 1, 1]: one more unscaled score of every row, without a value; start:
              the position of the first query among the keys
    Numerics  Scores, exponentials, partial sums and outputs of every K chunk pass through L1 in bfloat16; with an fp32
              destination, scores, exponentials and sums in fp32. The scale is fused into the exponential, which is the
              approximate one in a bf16 destination, whatever `exp_approx` says; that then chooses only the one of the
              corrections between chunks. math_approx_mode: the sum's reciprocal is not rounded but cut. In a bf16
              destination the first tile rows of a chunk of queries are multiplied with v in blocks, which are added in
              L1, while their exponentials come. A window without `is_causal` is centred: |key - query| <= window / 2.
    Source    `sdpa` compute kernels of the wheel (`compute_streaming.hpp` for a bf16, `compute_common.hpp` for an fp32
              destination)
    """
    b, nq, s, hd = q.shape
    nk, sk = k.shape[1:3]
    group = nq // nk
    q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
    scale = 1 / math.sqrt(hd) if scale is None else scale
    step = steps(config, scale, exp_approx, wide=config.fp32_dest_acc_en)
    pad = -sk % k_chunk
    k, v = (torch.nn.functional.pad(t, (0, 0, 0, pad)) for t in (k, v))
    if mask is not None:
        mask = torch.nn.functional.pad(mask.expand(b, nq, s, sk), (0, pad), value=-math.inf).to(torch.bfloat16)
    if sink is not None:
        sink = sink.to(torch.bfloat16).reshape(nk, group, 1, 1)
    left = right = None
    if sliding_window:
        left, right = (sliding_window - 1, 0) if is_causal else (sliding_window // 2, sliding_window // 2)
    sizes = _Tiles(
        q_chunk // TILE, k_chunk // TILE, -(-sk // TILE), is_causal, mask is not None,
        None if left is None else -(-left // TILE), -(-(right or 0) // TILE), not step.fp32,
    )  # fmt: skip
    _, width = _subblock(sizes.q, sizes.k)
    high, columns = _subblock(sizes.q, -(-v.shape[-1] // TILE), 2)
    if high == 1 and 2 * columns <= 8 and sizes.q > 1:
        high = 2
    out = torch.empty(b, nq, s, v.shape[-1], dtype=HELD_AS[dtype], device=q.device)
    positions = torch.arange(builtins.max(sk + pad, start + s), device=q.device)
    for q0 in range(0, s, q_chunk):
        these = slice(q0, builtins.min(q0 + q_chunk, s))
        rows = positions[start + these.start : start + these.stop, None]
        queries = q[:, :, these].reshape(b, nk, group * len(rows), hd)
        m = total = acc = None
        for i, live in sizes.chunks((start + q0) // TILE):
            at = slice(i * k_chunk, i * k_chunk + live * TILE)
            keys = positions[at]
            hidden = (keys >= sk)[None].expand(len(rows), -1)
            if is_causal:
                hidden = hidden | (keys > rows)
            if sliding_window:
                hidden = hidden | (keys < rows - left) | (keys > rows + right if not is_causal else False)
            hidden = hidden.repeat(group, 1) if bool(hidden.any()) else None
            scores = step.scores(queries, k[:, :, at], hidden)
            if mask is not None:
                extra = mask[:, :, these][..., at].reshape(scores.shape)
                scores = fpu.add(scores, extra, True) if step.fp32 else _l1_add(scores, extra)
            new = step.row_max(scores)
            new = new if m is None else torch.maximum(m, new)
            p = step.exponentials(scores, new)
            part = p[..., :TILE]
            for t in range(TILE, live * TILE, TILE):
                part = part + p[..., t : t + TILE] if step.fp32 else _l1_add(part, p[..., t : t + TILE])
            y = step.product(p, v[:, :, at])
            block = next(w for w in range(builtins.min(width, live), 0, -1) if live % w == 0)
            if not step.fp32 and block < live:
                y, first = (t.unflatten(2, (group, -1)) for t in (y, p))
                first = first[:, :, :, : high * TILE]
                blocks = step.matmul(first.flatten(2, 3), v[:, :, at], block)
                y[:, :, :, : high * TILE] = step.packed(blocks).view(*first.shape[:4], -1)
                y = y.flatten(2, 3)
            if m is not None:
                c = step.correction(m, new)
                old = fpu.mul(total, c, step.fidelity, step.fp32)
                part = fpu.add(part, old, True) if step.fp32 else _l1_add(part, step.packed(old))
                y = _l1_add(y, step.times(acc, c))
            m, total, acc = new, part, y
        total = fpu.row_sum(total, step.fidelity, step.fp32)
        if sink is not None:
            extra = sink.expand(nk, group, len(rows), 1).reshape(1, nk, -1, 1)
            total, acc = step.with_sink(extra.expand(b, -1, -1, -1), m, total, acc)
        y = stored(fpu.mul(acc, step.inverse(total), step.fidelity, step.fp32), dtype)
        out[:, :, these] = y.reshape(b, nq, len(rows), -1)
    return out


attention = functools.partial(prefill, _Flash)
