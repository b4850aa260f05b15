"""Device-like numerics at the speed of matrix products on this machine (`product`), or on any device torch has.

The same functions as `exact`, and most of them are the same: only products and attention differ. They keep what
decides a result's quality (dropped operand bits, the approximate exponential and cut reciprocal, bfloat16 between
stages) and replace the many roundings of a bf16 destination by one error of the measured size.
"""

import builtins
import math

import torch

from . import ComputeConfig, flash, flash_decode, fpu, vector
from .binary import add, div, div_fast, ldexp, mul, mul_on_fpu, rsub, squared_difference, sub
from .common import TILE, activated, auto_block_w, rotary, stored
from .destination import Sum, in_bf16
from .norms import layer_norm, norm_from_sums, norm_sums, rms_norm, softmax, weights
from .product import product
from .reductions import max, mean, min, prod, sum
from .rounding import BLOCK_FORMATS, HELD_AS, pack, to_bf16_truncated, truncate, truncate_fp32, typecast
from .unary import unary

__all__ = [
    "add", "attention", "attention_decode", "auto_block_w", "div", "div_fast", "layer_norm", "ldexp", "matmul", "max",
    "mean", "min", "mul", "mul_on_fpu", "norm_from_sums", "norm_sums", "pack", "prod", "rms_norm", "rotary", "rsub",
    "softmax", "squared_difference", "sub", "sum", "typecast", "unary", "weights",
]  # fmt: skip

# ---------------------------------------------------------------- matmul

LOFI_DROPS = 3  # low bits of a weight that LoFi does not see


def matmul(
    x,
    w,
    config: ComputeConfig,
    *,
    dtype,
    block_w=None,
    bias=None,
    activation=None,
    w_truncated=None,
    w_dtype="bfloat16",
    sum_all=False,
):
    """x @ w (+ bias), activation(...), stored as `dtype`.

    Shapes    x [..., M, K], w [..., K, N] -> [..., M, N]; batch dimensions broadcast; bias [..., 1, N]
    Numerics  Operands lose the bits that the fidelity drops; torch sums products in fp32 and rounds once. An fp32
              destination adds 3e-4 to that, which is left out. A bf16 destination's roundings are one pseudo-random
              error with the measured size, gain and dependence on the element (`bf16_destination`).
    Speed     On CPUs, w is best a transposed view of a contiguous [N, K], as HF stores it: one row is then 5 to 7
              times as fast as with a contiguous [K, N]. LoFi cuts w while it is read, or in parts that stay in the
              cache; `w_truncated` is a w that was cut before.
    """
    *batch, m, k = x.shape
    n = w.shape[-1]
    if x.dtype == torch.float32 or w.dtype == torch.float32:
        y = product(x, w, wide=True)
        y = y if bias is None else y + bias.to(torch.float32)
    else:
        single = all(d == 1 for d in w.shape[:-2])
        fidelity, fp32 = config.math_fidelity, config.fp32_dest_acc_en
        drop = LOFI_DROPS if fidelity == "LoFi" and w_dtype != "bfloat4_b" else 0
        if w_truncated is not None and drop:
            w, drop = w_truncated, 0
        if single:
            x, w = x.reshape(-1, k), w.reshape(k, n)
        if fidelity in ("LoFi", "HiFi2"):
            x = truncate(x, 7)
        y = product(x, w, drop, wide=fp32 and dtype == "float32")
        if not fp32:
            blocks = (block_w or auto_block_w(m, k, n)) if config.packer_l1_acc else 0
            y = in_bf16(y, x, w, Sum(fidelity, w_dtype, blocks, bias is not None))
        if bias is not None:
            if single:
                bias = bias.reshape(-1, bias.shape[-1])
                if 1 < bias.shape[0] < y.shape[0]:
                    bias = bias.repeat(y.shape[0] // bias.shape[0], 1)
            y = fpu.add(y, bias.to(torch.bfloat16), y.dtype == torch.float32)
        if activation is not None:
            y, activation = activated(y, activation), None
        y = stored(y, dtype) if dtype not in BLOCK_FORMATS else pack(y, dtype)
        return y.reshape(*batch, m, n) if single else y
    return pack(y if activation is None else activated(y, activation), dtype)


# ---------------------------------------------------------------- attention


def attention(
    q, k, v, *, mask=None, is_causal=False, scale=None, config: ComputeConfig, exp_approx=True, q_chunk=32, k_chunk=32,
    sliding_window=None, sink=None, start=0, dtype="bfloat16",
):  # fmt: skip
    """softmax((q k^T + mask) * scale) v, grouped heads.

    Shapes    as `exact.attention`
    Numerics  on a CPU in the steps of `exact.attention` (`_Flash`), elsewhere `_attend`, over all of K at once
    """
    if q.device.type == "cpu":
        return flash.prefill(
            _Flash, q, k, v, mask=mask, is_causal=is_causal, scale=scale, config=config, exp_approx=exp_approx,
            q_chunk=q_chunk, k_chunk=k_chunk, sliding_window=sliding_window, sink=sink, start=start, dtype=dtype,
        )  # fmt: skip
    s, sk = q.shape[-2], k.shape[-2]
    hidden = None
    if is_causal or sliding_window:
        rows, columns = torch.arange(start, start + s, device=q.device)[:, None], torch.arange(sk, device=q.device)
        hidden = columns > rows if is_causal else torch.zeros(s, sk, dtype=torch.bool, device=q.device)
        if sliding_window:
            hidden = hidden | (
                columns <= rows - sliding_window if is_causal else (columns - rows).abs() > sliding_window // 2
            )
    return _attend(q, k, v, mask, hidden, scale, config, exp_approx, dtype, k_chunk // TILE, True, sink)


_LOWEST = torch.finfo(torch.bfloat16).min


class _Flash(flash._Flash):
    """The steps of flash attention. With an fp32 destination by the products of `fast`, torch's exponential where the
    device's is accurate, and one rounding to nearest where the FPU has several.

    A bf16 destination's are the matrix unit's own: weights of attention have one sign, so that most of the sums in it
    are no random ones (`destination`).
    """

    def matmul(self, x, w, block_w=0):
        if not self.fp32:
            return super().matmul(x, w, block_w)
        if self.fidelity in ("LoFi", "HiFi2"):
            x = truncate(x, 7) if x.dtype == torch.bfloat16 else truncate_fp32(x, 7)
        return product(x, w, LOFI_DROPS if self.fidelity == "LoFi" else 0, wide=True)

    def exponentials(self, s, m):
        if not self.fp32 or self.exp_approx:
            return super().exponentials(s, m)
        m = m.clamp(min=_LOWEST)  # of a row that sees nothing of this chunk; the FPU knows no nan
        return truncate_fp32(s).sub_(m).mul_(vector.f32(self.scale)).exp_()

    def times(self, a, b):
        return self.packed(a * b) if self.fp32 else super().times(a, b)

    def packed(self, y):
        return y.to(torch.bfloat16)


class _Decode(flash._Flash):
    fast = True


def attention_decode(
    q, k, v, positions, *, scale=None, config: ComputeConfig, exp_approx=True, k_chunk=0, mask=None,
    sliding_window=None, dtype="bfloat16", cores=None, sink=None,
):  # fmt: skip
    """One new token per user against a cache.

    Shapes    q [1, B, nq, hd], k and v [B, nk, L, hd], positions B ints (-1: the user is skipped, zeros); mask
              broadcasts to [B, 1, nq, L] and is used instead of the positions' bound; sink as `exact`'s
              -> [1, B, nq, hd]
    Numerics  On a CPU that of `exact`, bit for bit; many keys in an fp32 destination by the products of `fast`.
              Elsewhere `_attend` over the keys up to the farthest position.
    """
    if q.device.type == "cpu":
        return flash_decode.decode(
            _Decode, q, k, v, positions, scale=scale, config=config, exp_approx=exp_approx, k_chunk=k_chunk, mask=mask,
            sliding_window=sliding_window, dtype=dtype, cores=cores, sink=sink,
        )  # fmt: skip
    users, nq = q.shape[1:3]
    here = [u for u, p in enumerate(positions) if p >= 0]
    out = torch.zeros(1, users, nq, v.shape[-1], dtype=HELD_AS[dtype], device=q.device)
    if not here:
        return out
    length = k.shape[2]
    last = [length - 1 if mask is not None else builtins.min(positions[u], length - 1) for u in here]
    first = builtins.max(0, builtins.min(last) + 1 - sliding_window) if sliding_window else 0
    span = slice(first, builtins.max(last) + 1)
    everyone = len(here) == users
    q, k, v = (q[0], k, v) if everyone else (q[0, here], k[here], v[here])
    hidden = None
    if len(set(last)) > 1:
        columns = torch.arange(span.start, span.stop, device=q.device)
        bound = torch.tensor(last, device=q.device)[:, None]
        hidden = columns > bound
        if sliding_window:
            hidden = hidden | (columns <= bound - sliding_window)
        hidden = hidden[:, None, None]
    if mask is not None:
        mask = mask.expand(users, 1, nq, -1)[here][..., span].transpose(1, 2)
    exp_approx = exp_approx or nq <= TILE // 2  # as `exact.attention_decode`
    tiles = (k_chunk or 8 * TILE) // TILE
    block_w = builtins.min(tiles, 1 << (builtins.max(last) // TILE).bit_length())
    y = _attend(
        q[:, :, None], k[:, :, span], v[:, :, span], mask, hidden, scale, config, exp_approx, dtype, block_w, False,
        None if sink is None else sink.reshape(1, nq, 1, 1),
    )  # fmt: skip
    out[0, here] = y[:, :, 0]
    return out


def _attend(q, k, v, mask, hidden, scale, config, exp_approx, dtype, block_w, by_tile, sink=None):
    """q [B, nq, S, hd]; hidden: booleans that broadcast to [B, nq, S, Sk]; sink: as `exact.attention`.

    Numerics  Scores in bfloat16; exp((score - max) * scale) by the approximate exponential, cut to bfloat16; sums by
              the matrix unit; the reciprocal cut (math_approx_mode) or rounded to bfloat16; operands lose the bits
              that the fidelity drops. The product with v gets the error of a bf16 destination.
              With an fp32 destination scores and exponentials stay in fp32, the latter accurate without `exp_approx`.
    """
    b, nq, s, hd = q.shape
    nk, sk = k.shape[1:3]
    fp32, cut = config.fp32_dest_acc_en, config.math_fidelity in ("LoFi", "HiFi2")
    scale = 1 / math.sqrt(hd) if scale is None else scale
    q, k, v = (t.to(torch.bfloat16) for t in (q, k, v))
    q = q.reshape(b, nk, nq // nk * s, hd)
    q = truncate(q, 7) if cut else q
    scores = product(q, k.mT, wide=fp32).view(b, nq, s, sk)
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    top = scores.amax(-1, keepdim=True)
    scores = scores.sub_(top) if fp32 else scores - top
    if fp32 and not exp_approx:
        p = scores.mul_(scale).exp_()
    else:
        u = scores.float().mul_(vector.f32(vector.SCALE) * scale).add_(vector.OFFSET + 0.5).clamp_(0, 32767)
        if fp32:
            p = u.to(torch.int32).bitwise_left_shift_(15).view(torch.float32)
        else:
            p = u.to(torch.int16).bitwise_right_shift_(1).view(torch.bfloat16)
    if fp32:
        total = p.sum(-1, keepdim=True, dtype=torch.float32)
        p = p.to(torch.bfloat16)
    elif by_tile:  # sums of whole tiles in L1, then one row sum of 32 columns
        tiles = torch.nn.functional.pad(p, (0, -sk % TILE)).view(b, nq, s, -1, TILE)
        total = fpu.row_sum(tiles.sum(-2, dtype=torch.float32).to(torch.bfloat16), config.math_fidelity)
    else:
        total = fpu.row_sum(p, config.math_fidelity)
    if sink is not None:
        total = (total + ((sink.float() - top) * scale).exp()).to(total.dtype)
    p = (truncate(p, 7) if cut else p).view(b, nk, -1, sk)
    y = product(p, v)
    if fp32:
        return pack(y.view(b, nq, s, -1).float() * (1 / total), dtype)
    y = in_bf16(y, p, v, Sum(config.math_fidelity, block_w=block_w, sum_all=True)).view(b, nq, s, -1)
    r = 1 / total.float()
    r = to_bf16_truncated(r) if config.math_approx_mode else r.to(torch.bfloat16)
    return pack(y.float() * (truncate(r, 7) if cut else r).float(), dtype)
