"""Device-like numerics at the speed of torch: operand truncation, roundings and block sums where they are cheap.

The same functions as `exact`; no result here is promised bit for bit unless a docstring says so.
"""

import builtins
import math

import torch

from . import ComputeConfig
from .rounding import (
    BLOCK_FORMATS, FLOATS, HELD_AS, cast_integer, pack, scalar, to_bf16_rna, truncate, typecast,
)  # fmt: skip
from .unary import unary
from .vector import exp_approx as approximate_exp

__all__ = [
    "add", "attention", "attention_decode", "auto_block_w", "div", "layer_norm", "matmul", "max", "mean", "min", "mul",
    "pack", "rms_norm", "rotary", "softmax", "sub", "sum", "typecast", "unary",
]  # fmt: skip

TILE = 32


def auto_block_w(m: int, k: int, n: int) -> int:
    """in0_block_w, in tiles, that the library chooses for x [m, k] @ w [k, n]: 2 where K is an even number of tiles, else 1."""
    return 2 if -(-k // TILE) % 2 == 0 else 1


# ---------------------------------------------------------------- matmul


def matmul(x, w, config: ComputeConfig, *, dtype, block_w=None, bias=None, activation=None, w_truncated=None):
    """x @ w (+ bias), activation(...), stored as `dtype`.

    Shapes    x [..., M, K], w [..., K, N] -> [..., M, N]; batch dimensions broadcast; bias [..., 1, N]
    Numerics  Operands lose the bits that the fidelity drops; products are summed in fp32, rounded once.
    """
    if x.dtype == torch.float32 or w.dtype == torch.float32:
        y = x.to(torch.float32) @ w.to(torch.float32)
    else:
        if config.math_fidelity in ("LoFi", "HiFi2"):
            x = truncate(x, 7)
        if config.math_fidelity == "LoFi":
            w = truncate(w, 5) if w_truncated is None else w_truncated
        y = x @ w
    if bias is not None:
        y = y + bias.to(y.dtype)
    if activation is not None:
        y = activation(y) if callable(activation) else unary(activation, y, "float32" if y.dtype == torch.float32 else "bfloat16")
    return pack(y, dtype)


# ---------------------------------------------------------------- element-wise


def _binary(op, a, b, dtype, *, rna=False):
    if not torch.is_tensor(b):
        if a.is_floating_point():
            b = scalar(b) if a.dtype == torch.bfloat16 else float(b)
        else:
            b = int(b) if float(b).is_integer() and op is not torch.true_divide else float(b)
    if not a.is_floating_point() and (not torch.is_tensor(b) or not b.is_floating_point()):
        y = op(a.to(torch.int64), b)
        return y.to(HELD_AS[dtype]) if dtype in FLOATS else cast_integer(y, dtype)
    if a.dtype == torch.float32 or (torch.is_tensor(b) and b.dtype != torch.bfloat16):
        y = op(a.to(torch.float32), b)
    else:
        y = op(a.to(torch.float32), b.to(torch.float32) if torch.is_tensor(b) else b)
        y = to_bf16_rna(y) if rna else y.to(torch.bfloat16)
    if dtype in BLOCK_FORMATS or (dtype == "bfloat16" and y.dtype == torch.float32):
        return pack(y, dtype)
    return y.to(HELD_AS[dtype]) if dtype in FLOATS else cast_integer(y, dtype)


def add(a, b, dtype, a_dtype=None, b_dtype=None):
    """a + b; b a tensor or a number. bfloat16: RNA of the fp32 sum."""
    return _binary(torch.add, a, b, dtype, rna=True)


def sub(a, b, dtype, a_dtype=None, b_dtype=None):
    """a - b, as `add`."""
    return _binary(torch.sub, a, b, dtype, rna=True)


def mul(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * b; b a tensor or a number. bfloat16: one RNE of the exact product."""
    return _binary(torch.mul, a, b, dtype, rna=bool({a_dtype, b_dtype} & set(BLOCK_FORMATS)))


def div(a, b, dtype, a_dtype=None, b_dtype=None):
    """a / b; b a tensor or a number. bfloat16: one RNE of the quotient."""
    return _binary(torch.true_divide, a, b, dtype)


# ---------------------------------------------------------------- norms, softmax, reductions


def rms_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None):
    """x / sqrt(mean(x^2) + eps) * weight + bias over the last dimension."""
    x = x.to(torch.float32) if residual is None else x.to(torch.float32) + residual.to(torch.float32)
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return _affine(y, weight, bias, dtype)


def layer_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""
    x = x.to(torch.float32) if residual is None else x.to(torch.float32) + residual.to(torch.float32)
    x = x - x.mean(-1, keepdim=True)
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return _affine(y, weight, bias, dtype)


def _affine(y, weight, bias, dtype):
    if weight is not None:
        y = y * weight.to(torch.float32)
    if bias is not None:
        y = y + bias.to(torch.float32)
    return pack(y, dtype)


def softmax(x, dim, config: ComputeConfig, dtype, numeric_stable=True):
    """exp(x - max) / sum, the exponential approximate in math_approx_mode."""
    x = x.to(torch.float32)
    if numeric_stable:
        x = x - x.amax(dim, keepdim=True)
    e = approximate_exp(x) if config.math_approx_mode else torch.exp(x)
    return pack(e / e.sum(dim, keepdim=True), dtype)


def _dims(x, dims):
    if dims is None:
        return tuple(range(x.dim()))
    return (dims,) if isinstance(dims, int) else tuple(dims)


def sum(x, dims, keepdim, dtype, config: ComputeConfig):
    """Sum over `dims` (None: all), in fp32."""
    if not x.is_floating_point():
        return cast_integer(x.to(torch.int64).sum(_dims(x, dims), keepdim), dtype)
    return pack(x.to(torch.float32).sum(_dims(x, dims), keepdim), dtype)


def mean(x, dims, keepdim, dtype, config: ComputeConfig):
    """Mean over `dims` (None: all), in fp32."""
    return pack(x.to(torch.float32).mean(_dims(x, dims), keepdim), dtype)


def max(x, dims, keepdim, dtype, config: ComputeConfig):
    """Largest value over `dims` (None: all). Exact."""
    y = x.amax(_dims(x, dims), keepdim)
    return pack(y, dtype) if dtype in BLOCK_FORMATS else y.to(HELD_AS[dtype])


def min(x, dims, keepdim, dtype, config: ComputeConfig):
    """Smallest value over `dims` (None: all). Exact."""
    y = x.amin(_dims(x, dims), keepdim)
    return pack(y, dtype) if dtype in BLOCK_FORMATS else y.to(HELD_AS[dtype])


# ---------------------------------------------------------------- rotary, attention


def rotary(x, cos, sin, config: ComputeConfig, dtype):
    """x * cos + rotate_half(x) * sin, in the halves layout of HF models; the arguments broadcast."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    if x.dtype == torch.float32:
        return pack(x * cos + turned * sin, dtype)
    y = to_bf16_rna(x.float() * cos.float()).float() + to_bf16_rna(turned.float() * sin.float()).float()
    return pack(to_bf16_rna(y), dtype)


def attention(
    q, k, v, *, mask=None, is_causal=False, scale=None, config: ComputeConfig, exp_approx=True, q_chunk=32, k_chunk=32,
    sliding_window=None, dtype="bfloat16",
):  # fmt: skip
    """softmax(q k^T * scale + mask) v, grouped heads.

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd] -> [B, nq, S, hd]; mask broadcasts to [B, nq, S, Sk], added to scores
    """
    s, sk = q.shape[-2], k.shape[-2]
    allowed = None
    if is_causal or sliding_window:
        rows, cols = torch.arange(s, device=q.device)[:, None], torch.arange(sk, device=q.device)[None]
        allowed = cols <= rows if is_causal else torch.ones(s, sk, dtype=torch.bool, device=q.device)
        if sliding_window:
            allowed = allowed & (cols > rows - sliding_window)
    return _attend(q, k, v, mask, allowed, scale, config, exp_approx, dtype)


def attention_decode(
    q, k, v, positions, *, scale=None, config: ComputeConfig, exp_approx=True, k_chunk=32, mask=None, sliding_window=None,
    dtype="bfloat16",
):  # fmt: skip
    """One new token per user against a cache.

    Shapes    q [1, B, nq, hd], k and v [B, nk, L, hd], positions B ints (-1: the user is skipped, zeros) -> [1, B, nq, hd]
    """
    out = torch.zeros_like(q, dtype=HELD_AS[dtype])
    for user, position in enumerate(positions):
        if position < 0:
            continue
        first = 0 if not sliding_window else builtins.max(0, position + 1 - sliding_window)
        span = slice(first, position + 1)
        m = None if mask is None else mask[user : user + 1, ..., span] if mask.shape[0] > 1 else mask[..., span]
        if m is not None and m.dim() == 4 and m.shape[1] == 1 and m.shape[2] > 1:
            m = m.transpose(1, 2)
        y = _attend(
            q[0, user][None, :, None], k[user : user + 1, :, span], v[user : user + 1, :, span], m, None, scale, config,
            exp_approx, dtype,
        )  # fmt: skip
        out[0, user] = y[0, :, 0]
    return out


def _attend(q, k, v, mask, allowed, scale, config, approximate, dtype):
    group = q.shape[1] // k.shape[1]
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    b, nq, s, hd = q.shape
    grouped = q.reshape(b, k.shape[1], group * s, hd)
    scores = (grouped.to(torch.float32) @ k.to(torch.float32).transpose(-1, -2)).reshape(b, nq, s, -1) * scale
    if mask is not None:
        scores = scores + mask.to(torch.float32)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    scores = scores - scores.amax(-1, keepdim=True)
    p = approximate_exp(scores) if approximate else torch.exp(scores)
    if allowed is not None:
        p = p * allowed
    p = p / p.sum(-1, keepdim=True)
    y = p.reshape(b, k.shape[1], group * s, -1).to(torch.bfloat16) @ v.to(torch.bfloat16)
    return pack(y.reshape(b, nq, s, hd), dtype)
