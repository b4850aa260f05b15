"""Norms and softmax over rows, bit for bit in both modes.

Each step in the fidelity's phases and kept in bfloat16, or in fp32 with an fp32 destination (read back with 11
significand bits); row sums by the matrix unit.

Source    ttnn 0.81.1: `layernorm*.cpp`, `rmsnorm*.cpp` and `softmax.cpp` of the wheel; all recorded configs
"""

import torch

from . import ComputeConfig, approximate_steps, fpu, vector
from .common import TILE, operand, stored
from .rounding import pack, to_bf16_truncated
from .unary import look_up


def _mean(x, config: ComputeConfig, cores: int = 1, high: int = 0):
    """The mean over the last dim. Of one core: a row sum, times 1 / n on the vector unit. Of a row of `cores`: each
    takes the mean of its columns by the matrix unit, then the mean of these is taken in the same way, for a tile row
    by one of the cores, which starts with its own part; a shard has `high` tile rows."""
    fidelity, fp32, n = config.math_fidelity, config.fp32_dest_acc_en, x.shape[-1]
    if cores == 1:
        y = fpu.row_sum(x, fidelity, fp32).float() * vector.f32(1 / n)
        return y if fp32 else to_bf16_truncated(y)
    parts = _scaled_sum(x.unflatten(-1, (cores, -1)), cores / n, config)
    tiles = torch.nn.functional.pad(parts, (0, TILE - 1)).unflatten(0, (-1, TILE))  # [tile rows, 32, cores, 32]
    own = -(-high // cores)
    turned = [t.roll(-((i % high) // own), 1) for i, t in enumerate(tiles)]
    return _scaled_sum(torch.stack(turned).flatten(2, 3), 1 / cores, config).flatten(0, 1)


def _scaled_sum(x, scale: float, config: ComputeConfig):
    """scale (rounded to bfloat16) times the sum over the last dim, by the matrix unit."""
    column = torch.full((x.shape[-1], 1), scale, dtype=torch.bfloat16, device=x.device)
    return fpu.matmul(x, column, config.math_fidelity, config.fp32_dest_acc_en)


def _rsqrt(x, config: ComputeConfig):
    """1 / sqrt(x), by the 10-bit variant with math_approx_mode."""
    r = vector.rsqrt_approx(x) if config.math_approx_mode else x.double().rsqrt().float()
    return r if config.fp32_dest_acc_en else r.to(torch.bfloat16)


def _rows(x, *weights):
    """[..., W] as [rows, W], and weights as rows of bfloat16."""
    return x.reshape(-1, x.shape[-1]), *(t if t is None else t.to(torch.bfloat16).reshape(1, -1) for t in weights)


def _weighted(y, weight, bias, config: ComputeConfig):
    y = y if weight is None else fpu.mul(y, weight, config.math_fidelity, config.fp32_dest_acc_en)
    return y if bias is None else fpu.add(y, bias, config.fp32_dest_acc_en)


def rms_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None, cores=1, high=1):
    """x / sqrt(mean(x^2) + eps) * weight + bias over the last dimension.

    cores, high    a sharded x: the cores that have a row's columns, and the tile rows of a shard
    """
    return _norm(x, weight, bias, eps, config, dtype, residual, cores, high, centre=False)


def layer_norm(x, weight, bias, eps, config: ComputeConfig, dtype, residual=None, cores=1, high=1):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension, in the steps of `rms_norm`."""
    return _norm(x, weight, bias, eps, config, dtype, residual, cores, high, centre=True)


def _norm(x, weight, bias, eps, config, dtype, residual, cores, high, centre):
    fidelity, fp32, shape = config.math_fidelity, config.fp32_dest_acc_en, x.shape
    if x.dtype == torch.float32 and not fp32:
        x = to_bf16_truncated(x)
    if residual is not None:
        x = fpu.add(x, residual, fp32)
    x, weight, bias = _rows(x, weight, bias)
    filled = len(x) if cores == 1 else -(-len(x) // TILE) * TILE
    x = x if filled == len(x) else torch.nn.functional.pad(x, (0, 0, 0, filled - len(x)))
    one_pass = not centre and bias is None and shape[-1] % TILE == 0 and x.dtype == torch.bfloat16 and cores == 1
    if one_pass and x.device.type == "cpu" and (dtype == "bfloat16" or not fp32):
        y = stored(fpu.rms_norm(x, weight, eps, fidelity, config.math_approx_mode, fp32), dtype)
        return y.reshape(shape)
    if centre:
        x = fpu.sub(x, _mean(x, config, cores, high), fp32)
    square = _mean(fpu.mul(x, x, fidelity, fp32), config, cores, high)
    r = _rsqrt(fpu.add(square, operand(x, eps), fp32), config)
    y = _weighted(fpu.mul(x, r, fidelity, fp32), weight, bias, config)
    return stored(y, dtype)[: shape.numel() // shape[-1]].reshape(shape)


def norm_sums(x, sums: int, config: ComputeConfig, dtype, residual=None):
    """What a chip knows of a norm over chips: the sum of x^2 and, with `sums` 2, of x, each in the first of 32
    columns."""
    fidelity, fp32 = config.math_fidelity, config.fp32_dest_acc_en
    if residual is not None:
        x = fpu.add(x, residual, fp32)
    found = [fpu.row_sum(t, fidelity, fp32) for t in (fpu.mul(x, x, fidelity, fp32), x)[:sums]]
    return pack(torch.cat([torch.nn.functional.pad(t, (0, TILE - 1)) for t in found], -1), dtype)


def norm_from_sums(x, stats, weight, bias, eps, sums: int, config: ComputeConfig, dtype):
    """The norm of a chip's columns from the `norm_sums` of all chips, [..., 32 * sums * chips]; 2 sums: layer_norm."""
    fidelity, fp32, shape = config.math_fidelity, config.fp32_dest_acc_en, x.shape
    x, weight, bias = _rows(x, weight, bias)
    stats = stats.reshape(len(x), -1, sums, TILE)
    n = shape[-1] * stats.shape[1]
    square, *mean = (_scaled_sum(t.flatten(1), vector.bf16_scale(1 / n), config) for t in stats.unbind(2))
    if mean:
        square = fpu.sub(square, fpu.mul(mean[0], mean[0], fidelity, fp32), fp32)
        x = fpu.sub(x, mean[0], fp32)
    r = _rsqrt(fpu.add(square, operand(x, eps), fp32), config)
    return stored(_weighted(fpu.mul(x, r, fidelity, fp32), weight, bias, config), dtype).reshape(shape)


def softmax(
    x, dim, config: ComputeConfig, dtype, numeric_stable=True, scale=None, mask=None, wide=True
):  # fmt: skip
    """exp(v - max) / sum, v = x * scale + mask.

    wide      with an fp32 destination what lies between steps is fp32 too, as where the caller gives a config; then the
              largest of a masked row is cut to bfloat16
    Numerics  math_approx_mode: the approximate exponential and, with a bf16 destination, a reciprocal of one Newton
              step, both cut to bfloat16. Else a bf16 destination is rounded after every step.
    """
    x = x.transpose(dim, -1)
    fidelity, fp32, approximate = config.math_fidelity, config.fp32_dest_acc_en, config.math_approx_mode
    if x.dtype == torch.float32 and not fp32:
        x = to_bf16_truncated(x)
    if scale is not None:
        x = fpu.mul(x, operand(x.to(torch.bfloat16), scale), fidelity, fp32)
        x = x if wide else pack(x, "bfloat16")
    if mask is not None:
        x = fpu.add(x, mask, fp32)
        x = x if wide else pack(x, "bfloat16")
    top = x.amax(-1, keepdim=True)
    top = top if mask is None else to_bf16_truncated(top)
    v = fpu.sub(x, top, fp32) if numeric_stable else x
    if approximate:
        e = vector.exp_approx(v)
        e = pack(e, "float32" if wide else "bfloat16") if fp32 else to_bf16_truncated(e)
    else:
        e = vector.exp_accurate(v) if fp32 else pack(look_up(v, "exp"), "bfloat16")
    total = fpu.row_sum(e, fidelity, fp32)
    if approximate and not fp32:
        r = to_bf16_truncated(vector.reciprocal(total, approximate_steps()))
    else:
        r = (1 / total.double()).float()
    y = fpu.mul(e, r if fp32 else r.to(torch.bfloat16), fidelity, fp32)
    return stored(y, dtype).transpose(dim, -1)


def weights(x):
    """The softmax of bfloat16 that `ttnn.moe` has in its own kernel, every step in bfloat16."""
    e = to_bf16_truncated(vector.exp_approx(fpu.sub(x, x.amax(-1, keepdim=True))))
    total = fpu.row_sum(e, "HiFi4")
    return fpu.mul(e, (1 / total.double()).float().to(torch.bfloat16), "HiFi4")
