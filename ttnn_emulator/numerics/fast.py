"""Device-like numerics at the speed of torch, on its bf16 units or on any device it has.

The same functions as `exact`, and most of them are the same: only products and attention differ. They keep what
decides a result's quality (dropped operand bits, the approximate exponential and cut reciprocal, bfloat16 between
stages) and replace the many roundings of a bf16 destination by one error of the measured size.
"""

import builtins
import functools
import math

import torch

from . import ComputeConfig, exact, fpu, vector
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
from .rounding import BLOCK_FORMATS, HELD_AS, pack, to_bf16_truncated, truncate, typecast
from .unary import unary

__all__ = [
    "add", "attention", "attention_decode", "auto_block_w", "div", "layer_norm", "matmul", "max", "mean", "min", "mul",
    "pack", "rms_norm", "rotary", "softmax", "sub", "sum", "typecast", "unary",
]  # fmt: skip

# ---------------------------------------------------------------- matmul

#: Measured on random normal operands with the exact matrix unit: the error that a bf16 destination adds to the
#: product of the operands' kept bits, for K = 32 * 2^i in one block: relative rms about the mean gain, and gain - 1.
#: By passes: 1 (LoFi; also HiFi2 with bfloat4_b weights), 2 (HiFi2), 4 (HiFi3 and HiFi4), 3 (those with bfloat4_b
#: weights).
_ONE_BLOCK = {
    1: ((0.0021, 0.0027, 0.0037, 0.0051, 0.0080, 0.0118, 0.0196, 0.0343, 0.0652, 0.137),
        (0.0004, 0.0007, 0.0014, 0.0026, 0.0057, 0.0108, 0.0222, 0.0465, 0.0937, 0.201)),
    2: ((0.0032, 0.0041, 0.0053, 0.0079, 0.0118, 0.0184, 0.0292, 0.0465, 0.0790, 0.154),
        (0.0010, 0.0018, 0.0030, 0.0057, 0.0102, 0.0175, 0.0309, 0.0545, 0.1010, 0.206)),
    3: ((0.0030, 0.0037, 0.0045, 0.0060, 0.0082, 0.0123, 0.0195, 0.0335, 0.0650, 0.137),
        (0.0001, 0.0002, 0.0008, 0.0017, 0.0039, 0.0093, 0.0205, 0.0445, 0.0940, 0.200)),
    4: ((0.0039, 0.0047, 0.0060, 0.0082, 0.0119, 0.0177, 0.0284, 0.0469, 0.0825, 0.153),
        (0.0009, 0.0012, 0.0023, 0.0043, 0.0084, 0.0154, 0.0275, 0.0512, 0.1009, 0.203)),
}  # fmt: skip
#: The same within blocks of 2^i tiles whose sums are added in L1, without the error of those additions.
_BLOCKS = {
    1: ((0.0038, 0.0047, 0.0064, 0.0088, 0.0128), (0.0009, 0.0019, 0.0040, 0.0076, 0.0140)),
    2: ((0.0046, 0.0060, 0.0083, 0.0120, 0.0184), (0.0018, 0.0034, 0.0062, 0.0115, 0.0202)),
    3: ((0.0042, 0.0056, 0.0072, 0.0095, 0.0130), (0.0009, 0.0013, 0.0035, 0.0070, 0.0135)),
    4: ((0.0051, 0.0068, 0.0091, 0.0124, 0.0186), (0.0017, 0.0029, 0.0052, 0.0101, 0.0178)),
}  # fmt: skip
LOFI_DROPS = 3  # low bits of a weight that LoFi does not see
PART = 1 << 21  # elements of a weight that are cut at a time
_ROUNDING = 0.00166  # relative rms of one rounding to bfloat16


def _at(table, log2):
    """Linear interpolation of a table over 0, 1, 2, ..."""
    log2 = builtins.min(builtins.max(log2, 0.0), len(table) - 1)
    i = builtins.min(int(log2), len(table) - 2)
    return table[i] + (table[i + 1] - table[i]) * (log2 - i)


@functools.cache
def bf16_destination(passes: int, k: int, block_w: int) -> tuple[float, float, float]:
    """What a bf16 destination adds: relative rms error, gain - 1, and the share of the error's variance that does not
    scale with the element. block_w 0: one block."""
    blocks = -(-k // (TILE * block_w)) if block_w else 1
    if blocks == 1:
        size, gain = (_at(t, math.log2(builtins.max(k, TILE) / TILE)) for t in _ONE_BLOCK[passes])
        return size, gain, builtins.min(1.0, builtins.max(0.1, 0.22 + 0.13 * math.log2(k / 64)))
    within, gain = (_at(t, math.log2(block_w)) for t in _BLOCKS[passes])
    variance = within**2 * (1 - 1 / (2 * blocks)) + _ROUNDING**2 * blocks / 2
    return math.sqrt(variance), gain, 0.42


@functools.lru_cache(64)
def _column_salt(n: int, device: str) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.int64) * 0x9E3779B1 >> 7).to(torch.int16).to(device)


def _perturb(y, passes, k, block_w):
    """Give y [M, N] (bfloat16) the error of a bf16 destination: y (1 + gain + a h) + b h rms(row).

    h is a pseudo-random number from a hash of y's bits and the column, +-[0.5, 2), mean square 1.46: the same input
    gives the same output, whatever row it is in.
    """
    size, gain, constant = bf16_destination(passes, k, block_w)
    variance = size**2 - 2 * _ROUNDING**2  # torch rounds the product, and the sum below is rounded once more
    if variance <= 0:
        return y
    a, b = math.sqrt(1 - constant), math.sqrt(constant)
    unit = math.sqrt(variance / (1.458 * (a * a + b * b + 1.6 * a * b)))
    salt = _column_salt(y.shape[-1], str(y.device))
    if y.device.type == "cpu":
        from . import fused  # numba and its compiler: imported when first needed

        flat, salt = (t.reshape(-1).numpy().view("uint16") for t in (y.contiguous().view(torch.int16), salt))
        fused.perturb(flat, y.shape[-1], salt, gain, unit * a, unit * b)
        return torch.from_numpy(flat.view("int16")).view(torch.bfloat16).view(y.shape)
    h = (y.view(torch.int16) * 0x6255).add_(salt)
    h.bitwise_xor_((h >> 8) & 0xFF).mul_(0x2F35).bitwise_xor_((h >> 8) & 0xFF).bitwise_and_(-0x7F01).bitwise_or_(0x3F00)
    rms = torch.linalg.vector_norm(y, dim=-1, keepdim=True, dtype=torch.float32).div_(math.sqrt(y.shape[-1]))
    amplitude = torch.abs(y).mul_(unit * a).add_(rms.mul_(unit * b).to(torch.bfloat16))
    error = torch.mul(y, gain).addcmul_(h.view(torch.bfloat16), amplitude)
    return error.add_(y)


def _passes(fidelity, w_dtype="bfloat16"):
    four = w_dtype == "bfloat4_b"
    return {"LoFi": 1, "HiFi2": 1 if four else 2}.get(fidelity, 3 if four else 4)


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
        y = _plain(x, w)
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
        y = _plain(x, _cut(w, drop)) if fp32 and dtype == "float32" else _product(x, w, drop)
        if not fp32:
            blocks = (block_w or auto_block_w(m, k, n)) if config.packer_l1_acc and single else 0
            y = _perturb(y, _passes(fidelity, w_dtype), k, blocks)
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


def _product(x, w, drop):
    """x @ w, w without its `drop` low bits; a large w is read once for one or two rows, and cut in parts for more."""
    if x.dim() == 2 and x.shape[0] <= 2 and w.dim() == 2 and x.device.type == "cpu":
        from . import few_rows  # numba and its compiler: imported when first needed

        if few_rows.fits(x, w):
            return few_rows.product(x, w, drop)
    if not drop or w.dim() > 2:
        return x @ _cut(w, drop)
    columns = builtins.max(TILE, PART // w.shape[0])
    parts = (_cut(part, drop) for part in w.split(columns, -1))
    return torch.cat([x @ part for part in parts], -1) if w.shape[-1] > columns else x @ next(parts)


def _cut(w, drop):
    return truncate(w, 8 - drop) if drop else w


def _plain(x, w):
    """A product in float32, over columns of w in parts so that a bfloat16 w is never held whole in float32."""
    x = x.to(torch.float32)
    if w.dtype == torch.float32:
        return x @ w
    return torch.cat([x @ part.to(torch.float32) for part in w.split(4096, -1)], -1)


# ---------------------------------------------------------------- attention


def attention(
    q, k, v, *, mask=None, is_causal=False, scale=None, config: ComputeConfig, exp_approx=True, q_chunk=32, k_chunk=32,
    sliding_window=None, dtype="bfloat16",
):  # fmt: skip
    """softmax(q k^T * scale + mask) v, grouped heads.

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd] -> [B, nq, S, hd]; mask broadcasts to [B, nq, S, Sk], added to
              the unscaled scores
    Numerics  `_attend`, over all of K at once: the chunks of the device are not followed
    """
    s, sk = q.shape[-2], k.shape[-2]
    hidden = None
    if is_causal or sliding_window:
        rows, columns = torch.arange(s, device=q.device)[:, None], torch.arange(sk, device=q.device)[None]
        hidden = columns > rows if is_causal else torch.zeros(s, sk, dtype=torch.bool, device=q.device)
        if sliding_window:
            hidden = hidden | (columns <= rows - sliding_window)
    return _attend(q, k, v, mask, hidden, scale, config, exp_approx, dtype, k_chunk // TILE, True)


def attention_decode(
    q, k, v, positions, *, scale=None, config: ComputeConfig, exp_approx=True, k_chunk=0, mask=None,
    sliding_window=None, dtype="bfloat16", cores=None,
):  # fmt: skip
    """One new token per user against a cache.

    Shapes    q [1, B, nq, hd], k and v [B, nk, L, hd], positions B ints (-1: the user is skipped, zeros); mask
              broadcasts to [B, 1, nq, L] and is used instead of the positions' bound -> [1, B, nq, hd]
    Numerics  On a CPU that of `exact`: bit for bit, and cheap for a token. Elsewhere `_attend` over the keys up to the
              farthest position.
    """
    if q.device.type == "cpu":
        return exact.attention_decode(
            q, k, v, positions, scale=scale, config=config, exp_approx=exp_approx, k_chunk=k_chunk, mask=mask,
            sliding_window=sliding_window, dtype=dtype, cores=cores,
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
        q[:, :, None], k[:, :, span], v[:, :, span], mask, hidden, scale, config, exp_approx, dtype, block_w, False
    )
    out[0, here] = y[:, :, 0]
    return out


def _attend(q, k, v, mask, hidden, scale, config, exp_approx, dtype, block_w, by_tile):
    """q [B, nq, S, hd]; hidden: booleans that broadcast to [B, nq, S, Sk].

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
    scores = (q.float() @ k.float().mT if fp32 else q @ k.mT).view(b, nq, s, sk)
    if mask is not None:
        scores = scores + mask.to(scores.dtype)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    scores = scores.sub_(scores.amax(-1, keepdim=True)) if fp32 else scores - scores.amax(-1, keepdim=True)
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
    y = (truncate(p, 7) if cut else p).view(b, nk, -1, sk) @ v
    if fp32:
        return pack(y.view(b, nq, s, -1).float() * (1 / total), dtype)
    y = _perturb(y.view(b * nq * s, -1), _passes(config.math_fidelity), sk, block_w).view(b, nq, s, -1)
    r = 1 / total.float()
    r = to_bf16_truncated(r) if config.math_approx_mode else r.to(torch.bfloat16)
    return pack(y.float() * (truncate(r, 7) if cut else r).float(), dtype)
