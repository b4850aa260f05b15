"""Ops that are steps of others, and the sums of state-space models, against torch in float32."""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

BF16, BFP8, FP32 = 4e-3, 2e-2, 1e-6
SHAPE = (1, 1, 32, 64)
RM = ttnn.ROW_MAJOR_LAYOUT
A, B, ROW, WIDE = T(SHAPE), T(SHAPE), T((1, 1, 1, 64)), T((1, 1, 64, 1024))
HOLES = T(values=(torch.arange(2048) % 5 - 2).float().view(SHAPE))
F32, B8, I32, U16, U8 = (
    T(SHAPE, d, high=50) for d in (ttnn.float32, ttnn.bfloat8_b, ttnn.int32, ttnn.uint16, ttnn.uint8)
)
SHARDS = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (0, 0))]), (32, 64)),
)  # fmt: skip
TypeRefused = dict(match="incompatible function arguments", error=TypeError)


def average(x, alpha, **_):
    states = [torch.zeros_like(x[..., 0])]
    for t in range(x.shape[-1]):
        states.append(alpha * states[-1] + (1 - alpha) * x[..., t])
    return torch.stack(states[1:], -1)


def groups(x, **_):
    return x.unflatten(-1, (-1, 32)).sum(-1)


def polynomial(x, coeffs, **_):
    y = torch.zeros_like(x)
    for c in coeffs:
        y = y * x + c
    return y


def quotient(a, b, **_):
    return torch.where(torch.as_tensor(b) == 0, 0.0, a / b)


def bias_gelu(a, b, **_):
    return F.gelu(a + b)


CASES = {
    "ttnn.hypot": [
        Case((A, B), {}, torch.hypot, BF16),
        Case((F32, F32), {}, torch.hypot, FP32),
        Case((B8, B8), {}, torch.hypot, BFP8),
        Case((T(SHAPE, layout=RM), ROW), {}, torch.hypot, BF16),
        Refused((A, 2.0), {}, **TypeRefused),
        Refused((A, F32), {}, "Mixed dtype is not supported for binary operation BinaryOpType::HYPOT"),
        Refused((I32, I32), {}, "INT32 is not supported for binary operation BinaryOpType::HYPOT"),
    ],
    "ttnn.bias_gelu": [
        Case((A, ROW), {}, bias_gelu, 6e-3),
        Case((A, 0.5), {"memory_config": ttnn.L1_MEMORY_CONFIG}, bias_gelu, 6e-3),
        Case((F32, F32), {}, bias_gelu, 1e-5),
        Case((A, B), {"fast_and_approximate_mode": True, "dtype": ttnn.float32}, bias_gelu, 2e-2),
        Refused((I32, I32), {}, "INT32 is not supported for binary operation BinaryOpType::BIAS_GELU"),
        Refused((I32, 2.5), {}, "cannot represent the scalar 2.5"),
        Refused((U16, 2), {}, "UnaryOpType::GELU does not support integer input dtype DataType::UINT16"),
        Refused((U8, 2), {}, "UINT8 is not supported for binary operation BinaryOpType::ADD"),
        Refused((A, B8), {}, "Mixed dtype"),
        Refused((2.5, A), {}, **TypeRefused),
    ],
    "ttnn.div_no_nan": [
        Case((A, HOLES), {}, quotient, BF16),
        Case((F32, T(SHAPE, ttnn.float32, low=0.5, high=3.0)), {}, quotient, FP32),
        Case((A, 2.0), {}, quotient, BF16),
        Case((A, 0), {}, quotient),
        Case((I32, 4), {}, quotient, FP32),
        Case((T(SHAPE, layout=RM), T(SHAPE, layout=RM, low=0.5, high=3.0)), {}, quotient, BF16),
        Refused((A, F32), {}, "WHERE_TST, dtype A: DataType::FLOAT32, dtype B: DataType::BFLOAT16"),
        Refused((U16, U16), {}, "UINT16 is not supported for binary operation BinaryOpType::DIV"),
        Refused((U8, 2), {}, "UINT8 is not supported for binary operation BinaryOpType::MUL"),
        Refused((2.5, A), {}, **TypeRefused),
    ],
    "ttnn.polyval": [
        Case((A, [0.5, -1.0, 2.0]), {}, polynomial, 2 * BF16),
        Case((A, (2.5,)), {}, polynomial),
        Case((T(SHAPE, layout=RM), [0.5, -1.0]), {"memory_config": ttnn.L1_MEMORY_CONFIG}, polynomial, BF16),
        Case((I32, [2.0, 1.0]), {}, polynomial, FP32),
        Refused((A, []), {}, "polyval requires at least one coefficient"),
        Refused((U8, [1.0, 2.0]), {}, "UINT8 is not supported for binary operation BinaryOpType::MUL"),
    ],
    "ttnn.ema": [
        Case((T((1, 2, 32, 64)), 0.875), {}, average, BF16),
        Case((T((1, 1, 30, 50)), 0.75), {"memory_config": ttnn.L1_MEMORY_CONFIG}, average, BF16),
        Case((A, 0.5), {"memory_config": SHARDS}, average, BF16),
        Case((A, 0.5), {"out": T(SHAPE)}, average, BF16),
        Refused((T((2, 1, 32, 64)), 0.5), {}, "EMA expects leading dimension to be 1, got 2"),
        Refused((T((1, 32, 64)), 0.5), {}, "EMA input must be 4D"),
        Refused((F32, 0.5), {}, "Input tensor must be BFLOAT16, got: DataType::FLOAT32"),
        Refused((T(SHAPE, layout=RM), 0.5), {}, "Input tensor must have TILE layout, got: Layout::ROW_MAJOR"),
        Refused((A, 0.5), {"out": F32}, "Output tensor must be BFLOAT16, got: DataType::FLOAT32"),
        Refused((A, 0.5), {"out": T((1, 1, 32, 32))}, "must have the same volume, input: 2048, output: 1024"),
    ],
    "ttnn.experimental.hc_sum_reduce": [
        Case((WIDE,), {}, groups, 2e-2),
        Case((T((1, 1, 32, 1024), ttnn.bfloat8_b),), {"dtype": ttnn.bfloat16}, groups, 2e-2),
        Case((WIDE,), {"math_fidelity": ttnn.MathFidelity.LoFi, "memory_config": ttnn.L1_MEMORY_CONFIG}, groups, 8e-2),
        Case((T((1, 1, 48, 1000)),), {}, lambda x: groups(F.pad(x, (0, 24, 0, 16))), 2e-2),
        Refused((A,), {}, "Final dim/TILE_SIZE must be a multiple of latent size!"),
        Refused((T((1, 1, 32, 1024), ttnn.float32),), {}, "Unsupported data format for input a!"),
        Refused((WIDE,), {"dtype": ttnn.float32}, "Unsupported data format for output!"),
        Refused((T((1, 1, 32, 1024), layout=RM),), {}, "Inputs to ssm_1d_sum_reduce must be tilized"),
        Refused((T((2, 1, 32, 1024)),), {}, "Dim 1 and 2 are expected to be 1"),
        Refused((WIDE,), {"memory_config": SHARDS}, "Unsupported memory layout for output!"),
        Refused((T((1, 32, 1024)),), {}, r"3 not in \[-4, 3\)"),
    ],
}
