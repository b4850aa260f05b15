"""Operations that are bit for bit the device's in both modes, because the rule is known and cheap to follow.

Element-wise arithmetic, norms, softmax, reductions, rotary; and helpers of the two modes. Each is the sequence of
steps of the library's own kernel, each step by the rule of the unit that does it: `fpu` (element-wise FPU and matrix
unit), `vector` (the vector unit), `rounding.pack` (the packer).
"""

import builtins

import torch

from . import ComputeConfig, fpu, vector
from .rounding import (
    BLOCK_FORMATS,
    FLOATS,
    HELD_AS,
    cast_integer,
    pack,
    scalar,
    to_bf16_rna,
    to_bf16_truncated,
    truncate,
)
from .unary import look_up, unary

TILE = 32
MATMUL_GRID = 8  # columns of the worker grid


def auto_block_w(m: int, k: int, n: int) -> int:
    """in0_block_w, in tiles, that the library chooses by itself for x [m, k] @ w [k, n].

    Wide or tall outputs (more than 8 to 1 in tiles, or one tile) go to a 1-d program that takes 2 tiles when K is an
    even number of them; others to a 2-d program that takes an eighth of K.

    Source    ttnn 0.81.1, block sizes asked (`ops.matmul.program.automatic` has the whole rule)
    """
    mt, kt, nt = (-(-d // TILE) for d in (m, k, n))
    if builtins.max(mt, nt) // builtins.min(mt, nt) > 8 or mt == 1 or nt == 1:
        return 2 if kt % 2 == 0 else 1
    return kt // MATMUL_GRID if kt % MATMUL_GRID == 0 else 1


def on_fpu(a, b) -> bool:
    return a.dtype == torch.bfloat16 and (not torch.is_tensor(b) or b.dtype == torch.bfloat16)


def operand(a, b):
    """b as a tensor: a number is first rounded to bfloat16."""
    return b if torch.is_tensor(b) else torch.tensor(scalar(b), dtype=torch.bfloat16, device=a.device)


def stored(y, dtype):
    """pack() of what the FPU left: a destination holds no denormal, -0 or nan, so that bfloat16 takes little."""
    if dtype == "bfloat16":
        return y if y.dtype == torch.bfloat16 else to_bf16_rna(y)
    return pack(y, dtype) if dtype in FLOATS else cast_integer(y, dtype)


def activated(y, activation):
    """A fused activation (a name or a function) on the destination register."""
    if callable(activation):
        return activation(y)
    return unary(activation, y, "float32" if y.dtype == torch.float32 else "bfloat16")


# ---------------------------------------------------------------- element-wise


def _binary(op, a, b, dtype):
    if not torch.is_tensor(b):
        if a.is_floating_point():
            b = scalar(b) if a.dtype == torch.bfloat16 else float(b)
        else:
            b = int(b) if float(b).is_integer() and op is not torch.true_divide else float(b)
    if not a.is_floating_point() and (not torch.is_tensor(b) or not b.is_floating_point()):
        y = op(a.to(torch.int64), b)
        return y.to(HELD_AS[dtype]) if dtype in FLOATS else cast_integer(y, dtype)
    if on_fpu(a, b):
        y = op(a, b)
        if dtype == "bfloat16":
            return y
    else:
        y = op(a.to(torch.float32), b.to(torch.float32) if torch.is_tensor(b) else b)
    return pack(y, dtype) if dtype in FLOATS else cast_integer(y, dtype)


def add(a, b, dtype, a_dtype=None, b_dtype=None):
    """a + b; b a tensor or a number (rounded to bfloat16). bfloat16 and block formats: the FPU's add, bit for bit."""
    return stored(fpu.add(a, operand(a, b)), dtype) if on_fpu(a, b) else _binary(torch.add, a, b, dtype)


def sub(a, b, dtype, a_dtype=None, b_dtype=None):
    """a - b, as `add`."""
    return stored(fpu.sub(a, operand(a, b)), dtype) if on_fpu(a, b) else _binary(torch.sub, a, b, dtype)


def mul(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * b; bfloat16 by bfloat16 or a number: one RNE; with a block-format tensor: the FPU's four phases. Bit for
    bit."""
    if on_fpu(a, b) and torch.is_tensor(b) and {a_dtype, b_dtype} & set(BLOCK_FORMATS):
        return stored(fpu.mul(a, b, "HiFi4"), dtype)
    return _binary(torch.mul, a, b, dtype)


def div(a, b, dtype, a_dtype=None, b_dtype=None):
    """a / b; b a tensor or a number (rounded to bfloat16). bfloat16: one RNE of the quotient, bit for bit."""
    return _binary(torch.true_divide, a, b, dtype)


# ---------------------------------------------------------------- norms


def _mean(x, fidelity, fp32):
    y = fpu.row_sum(x, fidelity, fp32).float() * vector.f32(1 / x.shape[-1])
    return y if fp32 else to_bf16_truncated(y)


def rms_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None):
    """x / sqrt(mean(x^2) + eps) * weight + bias over the last dimension. Bit for bit in both modes.

    Numerics  Each step in the fidelity's phases and kept in bfloat16, or in fp32 with an fp32 destination (read back
              with 11 significand bits); row sum by the matrix unit; 1 / W on the vector unit; math_approx_mode:
              10-bit rsqrt.
    Source    `layernorm.cpp` of the wheel; all recorded configs
    """
    return _norm(x, weight, bias, eps, config, dtype, residual, centre=False)


def layer_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension, in the steps of `rms_norm`."""
    return _norm(x, weight, bias, eps, config, dtype, residual, centre=True)


def _norm(x, weight, bias, eps, config, dtype, residual, centre):
    fidelity, fp32 = config.math_fidelity, config.fp32_dest_acc_en
    shape = x.shape
    if x.dtype == torch.float32 and not fp32:
        x = x.to(torch.bfloat16)
    if residual is not None:
        x = fpu.add(x, residual, fp32)
    x = x.reshape(-1, shape[-1])
    weight, bias = (t if t is None else t.to(torch.bfloat16).reshape(1, -1) for t in (weight, bias))
    one_pass = not centre and bias is None and shape[-1] % TILE == 0 and x.dtype == torch.bfloat16
    if one_pass and x.device.type == "cpu" and (dtype == "bfloat16" or not fp32):
        y = stored(fpu.rms_norm(x, weight, operand(x, eps), fidelity, config.math_approx_mode, fp32), dtype)
        return y.reshape(shape)
    if centre:
        x = fpu.sub(x, _mean(x, fidelity, fp32), fp32)
    r = fpu.add(_mean(fpu.mul(x, x, fidelity, fp32), fidelity, fp32), operand(x, eps), fp32)
    r = vector.rsqrt_approx(r) if config.math_approx_mode else r.double().rsqrt().float()
    y = fpu.mul(x, r if fp32 else r.to(torch.bfloat16), fidelity, fp32)
    if weight is not None:
        y = fpu.mul(y, weight, fidelity, fp32)
    if bias is not None:
        y = fpu.add(y, bias, fp32)
    return stored(y, dtype).reshape(shape)


# ---------------------------------------------------------------- softmax


def softmax(x, dim, config: ComputeConfig, dtype, numeric_stable=True):
    """exp(x - max) / sum.

    Numerics  math_approx_mode: the approximate exponential. fp32 destination: the exponentials are kept in fp32 (in
              bfloat16 when approximate), the sum's reciprocal in fp32. bf16 destination: bfloat16 after every step.
    """
    x = x.transpose(dim, -1)
    fidelity, fp32, approximate = config.math_fidelity, config.fp32_dest_acc_en, config.math_approx_mode
    if x.dtype == torch.float32 and not fp32:
        x = x.to(torch.bfloat16)
    v = fpu.sub(x, x.amax(-1, keepdim=True), fp32) if numeric_stable else x
    if approximate:
        e = vector.exp_approx(v)
        e = pack(e if fp32 else to_bf16_truncated(e), "bfloat16")
    else:
        e = vector.exp_accurate(v) if fp32 else pack(look_up(v, "exp"), "bfloat16")
    total = fpu.row_sum(e, fidelity, fp32)
    r = (1 / total.double()).float()
    y = fpu.mul(e, r if fp32 else r.to(torch.bfloat16), fidelity, fp32)
    return stored(y, dtype).transpose(dim, -1)


# ---------------------------------------------------------------- rotary


def rotary(x, cos, sin, config: ComputeConfig, dtype, turned=None, cut=False):
    """x * cos + turned * sin; the arguments broadcast. Bit for bit.

    turned    by default rotate_half(x), in the halves layout of HF models; cut: without the last bit that LoFi and
              HiFi2 drop where the matrix unit turns x
    Numerics  FPU products and an FPU add in the phases of the fidelity, packed to bfloat16 after each.
    """
    fidelity, fp32, half = config.math_fidelity, config.fp32_dest_acc_en, x.shape[-1] // 2
    x, cos, sin = (t.to(torch.bfloat16) for t in (x, cos, sin))
    cut = cut and fidelity in ("LoFi", "HiFi2")
    one_pass = turned is None and x.device.type == "cpu" and half % (TILE // 2) == 0 and cos.shape == sin.shape
    if one_pass and cos.shape[-1] == 2 * half and torch.broadcast_shapes(x.shape, cos.shape) == x.shape:
        return stored(fpu.rotary(x, cos, sin, fidelity, fp32, cut), dtype)
    if turned is None:
        turned = truncate(x, 7) if cut else x
        turned = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    first, second = (stored(fpu.mul(*pair, fidelity, fp32), "bfloat16") for pair in ((x, cos), (turned, sin)))
    return stored(fpu.add(first, second, fp32), dtype)
