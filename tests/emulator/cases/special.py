"""Ops with rules of their own, against torch in float32: softcap to logical shifts, parts, places, random numbers."""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Device, Refused, T

BF16, BFP8, FP32 = 4e-3, 2e-2, 1e-6
PHASES = 8e-3  # of a matmul of bfloat16 that is told no fidelity: not every bit of an operand is multiplied
SHAPE = (1, 1, 32, 64)
RM, L1 = ttnn.ROW_MAJOR_LAYOUT, ttnn.L1_MEMORY_CONFIG
DEVICE = Device()
A, B, ROW = T(SHAPE), T(SHAPE), T((1, 1, 1, 64))
F32, B8, I32, U32, U16, U8 = (
    T(SHAPE, d, high=50) for d in (ttnn.float32, ttnn.bfloat8_b, ttnn.int32, ttnn.uint32, ttnn.uint16, ttnn.uint8)
)
BITS32, SHIFTS = (T(SHAPE, ttnn.int32, values=v) for v in (
    (torch.arange(2048) * 2_654_435 - 2**31).int().view(SHAPE), (torch.arange(2048) % 31).int().view(SHAPE),
))  # fmt: skip
CHANCE = T(SHAPE, low=0.05, high=0.95)
EDGES = T(SHAPE, ttnn.float32, values=torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, 3.0, 0.5]).repeat(256)
          .view(SHAPE))  # fmt: skip
OTHERS = T(SHAPE, ttnn.float32, values=torch.tensor([0.0, 0.0, 1.1, -1.0, torch.inf, torch.inf, 3.0, 0.5]).repeat(256)
           .view(SHAPE))  # fmt: skip
TypeRefused = dict(match="incompatible function arguments", error=TypeError)
HALF = T((1, 1, 64, 64))


def shards(kind, shape, cores):
    grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (cores - 1, 0))])
    layout = getattr(ttnn.TensorMemoryLayout, f"{kind}_SHARDED")
    return ttnn.MemoryConfig(layout, ttnn.BufferType.L1, ttnn.ShardSpec(grid, shape))


def softcap(x, beta, **_):
    return beta * torch.tanh(x / beta)


def xielu(x, alpha_p=0.8, alpha_n=0.8, **_):
    return torch.where(x > 0, alpha_p * x * x + x / 2, alpha_n * (torch.expm1(x) - x) + x / 2)


def prelu(x, weight, **_):
    weight = weight[0] if isinstance(weight, list) else weight
    if torch.is_tensor(weight) and weight.numel() > 1:
        weight = weight.reshape(1, -1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, x * weight, x)


def close(a, b, rtol=1e-5, atol=1e-8, equal_nan=False, **_):
    return torch.isclose(a.float(), b.float(), rtol, atol, equal_nan).float()


def clamped(gate, up, limit, **_):
    return F.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)


def unsigned(a, b):
    return ((a.long() & 0xFFFFFFFF) >> b).int().long()


def part(x, dim, start, length):
    return x.narrow(dim, start, length)


def among(x, others, invert=False, **_):
    return torch.where(torch.isin(x, others) != invert, 0xFFFFFFFF, 0)


def places(x, **_):
    at = torch.nonzero(x.flatten()).flatten()
    count, where = (torch.zeros(1, 1, 1, n, dtype=torch.int64) for n in (8, 4 * x.numel()))
    count[..., 0], where[..., : len(at)] = len(at), at
    return [count, where]


HOLES = T((1, 1, 1, 64), layout=RM, values=(torch.arange(64) % 3).float().view(1, 1, 1, 64))
IDS, FEW = (T((n,), ttnn.uint32, RM, values=torch.tensor(v, dtype=torch.int32)) for n, v in ((3, [0, 5, 9]), (1, [7])))
DRAWN = "numbers of torch's generator; test_random_numbers has their spread"

CASES = {
    "ttnn.softcap": [
        Case((A, 2.0), {}, softcap, BF16, "p150"),
        Case((B8, 2.0), {"memory_config": L1}, softcap, BFP8, "p150"),
        Refused((A, 30.0), {}, "Unary: SOFTCAP is implemented for Blackhole only, got arch wormhole_b0"),
        Refused((F32, 30.0), {}, "SOFTCAP supports BFLOAT16 and BFLOAT8_B inputs, got", system="p150"),
        Refused((A, 0.0), {}, "SOFTCAP requires a non-zero beta", system="p150"),
        Refused((I32, 2.0), {}, "UnaryOpType::SOFTCAP does not support integer input dtype DataType::INT32"),
    ],
    "ttnn.situ_glu": [
        Case((A, B, 2.0, 3.0), {}, lambda g, u, p, q: softcap(g, p) * g.sigmoid() * softcap(u, q), 3 * BF16, "p150"),
        Refused((A, B, 0.0, 3.0), {}, "beta1 and beta2 must be non-zero"),
        Refused((A, B, 2.0, 3.0), {}, "SOFTCAP is implemented for Blackhole only"),
        Refused((T(SHAPE, layout=RM), B, 2.0, 3.0), {}, "Optional output tensor with Row Major", system="p150"),
    ],
    "ttnn.xielu": [
        Case((A,), {}, xielu, BF16),
        Case((F32,), {"alpha_p": 0.5, "alpha_n": 0.25}, xielu, 2 * FP32),
        Case((T(SHAPE, ttnn.float32, low=-100.0, high=-0.1),), {}, xielu, 2 * FP32),
        Case((B8,), {"memory_config": L1}, xielu, BFP8),
        Refused((I32,), {}, "UnaryOpType::XIELU does not support integer input dtype DataType::INT32"),
    ],
    "ttnn.logit": [
        Case((CHANCE,), {}, torch.logit, 2e-2),  # the quotient of bfloat16 is off by 2^-9, its logarithm by as much
        Case((T(SHAPE, ttnn.float32, low=0.05, high=0.95),), {}, torch.logit, 2 * FP32),
        Case((A,), {"eps": 0.125, "memory_config": L1}, lambda x, eps, **_: torch.logit(x, eps), 2e-2),
        Refused((I32,), {}, "UnaryOpType::LOGIT does not support integer input dtype DataType::INT32"),
    ],
    "ttnn.bitwise_not": [
        Case((I32,), {}, torch.bitwise_not),
        Case((U32,), {}, lambda x: 0xFFFFFFFF - x),
        Refused((U16,), {}, "UnaryOpType::BITWISE_NOT does not support integer input dtype DataType::UINT16"),
        Refused((A,), {}, "has no model in the emulator", ttnn.NotEmulated),
    ],
    "ttnn.bitcast": [
        Case((A, ttnn.uint16), {}, lambda x, _: x.bfloat16().view(torch.int16).long() & 0xFFFF),
        Case((U16, ttnn.bfloat16), {}, lambda x, _: x.short().view(torch.bfloat16).float()),
        Case((F32, ttnn.int32), {"memory_config": L1}, lambda x, _, **k: x.view(torch.int32).long()),
        Case((BITS32, ttnn.uint32), {}, lambda x, _: x & 0xFFFFFFFF),
        Refused((A, ttnn.float32), {}, "has no model in the emulator", ttnn.NotEmulated),
    ],
    "ttnn.prelu": [
        Case((A, 0.25), {}, prelu, BF16),
        Case((A, [0.25]), {"memory_config": L1}, prelu, BF16),
        Case((T((1, 4, 32, 64)), T((4,))), {}, prelu, BF16),
        Case((A, T((1, 1, 1, 1))), {}, prelu, BF16),
        Case((T((4, 64), ttnn.float32), T((64,), ttnn.float32)), {}, prelu, FP32),
        Refused((A, [0.25, 0.5]), {}, **TypeRefused),
        Refused((A, T((64,))), {}, "Found parameter numbers = 64 and channel size = 1"),
        Refused((U32, T((1, 1, 1, 1), ttnn.uint32)), {}, "UnaryOpType::LTZ does not support integer"),
        Refused((I32, 0.25), {}, "UnaryOpType::PRELU_SFPU does not support integer"),
        Refused((T((64,)), T((64,))), {}, r"1 not in \[-4, 1\)"),
    ],
    "ttnn.isclose": [
        Case((A, A), {}, close),
        Case((A, B), {"rtol": 0.5, "atol": 0.125}, close),
        Case((EDGES, OTHERS), {"rtol": 0.125}, close),
        Case((I32, F32), {"memory_config": L1}, close),
        Refused((A, 2.0), {}, **TypeRefused),
        Refused((A, B8), {}, "Mixed dtype is not supported"),
        Refused((U32, U32), {}, "UINT32 is not supported for binary operation BinaryOpType::ISCLOSE"),
        Refused((A, T((1, 1, 32, 32))), {}, "Invalid subtile broadcast type"),
    ],
    "ttnn.atan2": [
        Case((A, B), {}, torch.atan2, BF16),
        Case((F32, T(SHAPE, ttnn.float32)), {}, torch.atan2, 2 * FP32),
        Case((EDGES, OTHERS), {}, torch.atan2, 2 * FP32),
        Case((A, ROW), {}, torch.atan2, BF16),
        Refused((A, F32), {}, "Mixed dtype is not supported for binary operation BinaryOpType::ATAN2"),
        Refused((I32, I32), {}, "INT32 is not supported for binary operation BinaryOpType::ATAN2"),
    ],
    "ttnn.addalpha": [
        Case((A, B, 2.5), {}, lambda a, b, n: a + n * b, 2 * BF16),
        Case((F32, F32, -0.5), {"memory_config": L1}, lambda a, b, n, **k: a + n * b, FP32),
        Case((A, ROW, 2.0), {}, lambda a, b, n: a + n * b, 2 * BF16),
        Refused((U8, U8, 2.0), {}, "UINT8 is not supported for binary operation BinaryOpType::ADD"),
        Refused((I32, A, 2.0), {}, "Mixed dtype is not supported"),
        Refused((I32, I32, 2.0), {}, "has no model in the emulator", ttnn.NotEmulated),
    ],
    "ttnn.subalpha": [
        Case((A, B, 2.5), {}, lambda a, b, n: a - n * b, 2 * BF16),
        Refused((A, 2.0, 2.5), {}, **TypeRefused),
    ],
    "ttnn.logical_left_shift": [
        Case((I32, 3), {}, lambda a, b: a << b),
        Case((I32, SHIFTS), {}, lambda a, b: (a << b).int().long()),
        Refused((A, 2), {}, "bitwise/shift op_type UnaryOpType::LEFT_SHIFT"),
        Refused((U8, 2), {}, "Unary: UnaryOpType::LEFT_SHIFT does not support integer input dtype DataType::UINT8"),
    ],
    "ttnn.logical_right_shift": [
        Case((BITS32, 3), {}, unsigned),
        Case((BITS32, SHIFTS), {}, unsigned),
        Case((U32, 2), {}, unsigned),
        Refused((A, 2), {}, "BFLOAT16 is not supported for binary operation BinaryOpType::LOGICAL_RIGHT_SHIFT"),
        Refused((U16, U16), {}, "UINT16 is not supported for binary operation BinaryOpType::LOGICAL_RIGHT_SHIFT"),
    ],
    "ttnn.bias_gelu_": [
        Case((A, ROW), {}, lambda a, b: F.gelu(a + b), 6e-3, changes=0),
        Case((A, 2), {}, lambda a, b: F.gelu(a + b), 6e-3),
        Refused((I32, 2), {}, "INT32 is not supported for binary operation BinaryOpType::BIAS_GELU"),
    ],
    "ttnn.clamped_silu_glu": [
        Case((A, B, 1.0), {}, clamped, 2 * BF16),
        Case((F32, F32, 0.5), {"memory_config": L1}, clamped, 2e-5),
        Case((B8, A, 7.0), {}, clamped, BFP8),
        Refused((A, B, 0.0), {}, "clamped_silu_glu: limit must be positive, got 0"),
        Refused((U8, U8, 7.0), {}, "UINT8 is not supported for binary operation BinaryOpType::MUL"),
        Refused((I32, I32, 7.0), {}, "has no model in the emulator", ttnn.NotEmulated),
    ],
    "ttnn.outer": [
        Case((T((64,)), T((32,))), {}, torch.outer, PHASES),
        Case(
            (T((64,), ttnn.float32), T((32,), ttnn.float32)),
            {"memory_config": L1},
            lambda a, b, **_: torch.outer(a, b),
            FP32,
        ),
        Case((T((3, 1, 64)), T((2, 32))), {}, lambda a, b: a[..., None] * b[..., None, :], BF16),
        Case((T((50,), layout=RM), T((30,), layout=RM)), {}, torch.outer, PHASES),
        Refused((T((64,)), T((32,), ttnn.float32)), {}, "inputs must have the same dtype, but got"),
        Refused((T((64,), ttnn.uint16), T((32,), ttnn.uint16)), {}, "ttnn.outer: unsupported dtype"),
        Refused((T((3, 64)), T((2, 32))), {}, "Broadcasting rule violation"),
    ],
    "ttnn.narrow": [
        Case((HALF, 2, 0, 32), {}, part),
        Case((T((24, 1, 32, 32)), 0, -12, 4), {}, part),
        Case((T((1, 1, 36, 64), layout=RM), 2, 24, 12), {}, part),
        Case((T((1, 1, 64, 64), memory_config=shards("HEIGHT", (32, 64), 2)), 2, 32, 32), {}, part),
        Case((T((1, 1, 32, 256), memory_config=shards("WIDTH", (32, 64), 4)), 3, 64, 128), {}, part),
        Case((T((1, 1, 64, 128), memory_config=shards("WIDTH", (64, 64), 2)), 2, 32, 32), {}, part),
        Refused(
            (HALF, 2, 32, 32), {}, "Start page ID must be aligned with number of banks for INTERLEAVED DRAM buffer"
        ),
        Refused((HALF, 3, 0, 32), {}, "requires all preceding dimensions to be trivial"),
        Refused((HALF, 2, 0, 20), {}, r"TILE_HEIGHT \(32\), got start 0 and length 20"),
        Refused((HALF, 2, 0, 65), {}, "Narrow length 65 out of bounds for dimension 2 with start index 0 and size 64"),
        Refused((HALF, 2, -65, 1), {}, "Narrow start index 4294967295 out of bounds"),
        Refused((HALF, 4, 0, 1), {}, "should be between 0 and 3 however is 4"),
        Refused(
            (T((1, 1, 64, 64), memory_config=L1), 2, 0, 32), {}, "given tensor configuration is not yet implemented"
        ),
        Refused(
            (T((1, 1, 128, 64), memory_config=shards("HEIGHT", (64, 64), 2)), 2, 32, 64),
            {},
            "only supports full shards",
        ),
        Refused((T((4, 4), layout=RM, host=True), 0, 0, 2), {}, "only supports DEVICE tensors"),
    ],
    "ttnn.experimental.broadcast_to": [
        Case((ROW, (2, 1, 32, 64)), {}, lambda x, shape: x.expand(shape)),
        Case((T((1, 64), ttnn.int32), (2, 32, 64)), {"memory_config": L1}, lambda x, shape, **_: x.expand(shape)),
        Refused((T((1, 1, 2, 64)), (1, 1, 32, 64)), {}, r"Input dimension -2 \(size 2\) cannot be broadcast"),
        Refused((ROW, (64,)), {}, "must be at least as large as the broadcast shape"),
        Refused((ROW, (2, 2, 1, 1, 64)), {}, "must be at most 4D"),
        Refused((T((1, 1, 1, 64), layout=RM), (1, 1, 32, 64)), {}, "Input tensor layout must be TILE"),
    ],
    "ttnn.index_fill": [
        Case((T((2, 64), layout=RM), 1, IDS, 2.0), {}, lambda x, d, i, v: x.index_fill(d, i, v)),
        Case(
            (T((16, 64), ttnn.int32, RM), 0, FEW, 2),
            {"memory_config": L1},
            lambda x, d, i, v, **_: x.index_fill(d, i, v),
        ),
        Refused((T((2, 64), layout=RM), 1, IDS, 2), {}, "Value type must match input tensor dtype"),
        Refused((T((2, 64)), 1, IDS, 2.0), {}, "Only supporting row major layout"),
        Refused((T((2, 64), layout=RM), 2, IDS, 2.0), {}, "Invalid dimension"),
        Refused((T((2, 64), layout=RM), -1, IDS, 2.0), {}, **TypeRefused),
        Refused((T((2, 64), layout=RM), 0, T((1, 1), ttnn.uint32, RM), 2.0), {}, "Index tensor must be 1D"),
        Refused((T((2, 64), layout=RM), 0, T((1,), ttnn.int32, RM), 2.0), {}, "Index tensor must have UINT32 dtype"),
    ],
    "ttnn.experimental.isin": [
        Case((T((4, 64), ttnn.uint32, RM, high=12), IDS), {}, among),
        Case((T((4, 64), ttnn.uint32, high=12), IDS), {"invert": True}, among),
        Refused((U16, U16), {}, "Can only work with bfloat16/float32 or int32/uint32 tensors"),
    ],
    "ttnn.nonzero": [
        Case((HOLES,), {}, places),
        Refused((IDS,), {}, "input must be rank-4, got rank 1"),
        Refused((A,), {}, "has no model in the emulator", ttnn.NotEmulated),
    ],
    "ttnn.randn": [
        Case(((32, 64), DEVICE), {"seed": 5}, note=DRAWN),
        Case(((5, 7), DEVICE), {"layout": RM, "dtype": ttnn.float32}, note=DRAWN),
        Refused(((32, 64), DEVICE), {"dtype": ttnn.bfloat8_b}, "Randn: Output tensor must be Float32 or Bfloat16"),
        Refused(((32, 64),), {}, **TypeRefused),
        Refused(((32, 64), DEVICE), {"seed": -3}, **TypeRefused),
    ],
    "ttnn.bernoulli": [
        Case((CHANCE,), {}, note=DRAWN),
        Case((CHANCE, 3), {"dtype": ttnn.bfloat16, "memory_config": L1}, note=DRAWN),
        Refused((B8,), {}, "Bernoulli: Input tensor must be Float32 or Bfloat16"),
        Refused((T(SHAPE, layout=RM),), {}, "Bernoulli: Input tensor must be tilized"),
    ],
    "ttnn.uniform": [
        Case((A, -1.0, 1.0, 4), {}, note=DRAWN),
        Case((F32,), {"to": 3.0}, note=DRAWN),
        Refused((A, 2.0, 1.0), {}, r"lower bound must be less than upper bound, got \[2, 1\)"),
        Refused((I32,), {}, "Uniform: Input tensor must be Float32 or Bfloat16"),
        Refused((A,), {"low": 1.0}, **TypeRefused),
    ],
    "ttnn.from_buffer": [
        Case(([0.5] * 64, (2, 32), ttnn.bfloat16, DEVICE), {}, lambda v, s, *_: torch.tensor(v).view(s)),
        Case(
            (list(range(64)), (1, 64), ttnn.int32, DEVICE, ttnn.TILE_LAYOUT, L1),
            {},
            lambda v, s, *_: torch.tensor(v).view(s),
        ),
        Refused(([1] * 63, (1, 64), ttnn.int32, DEVICE), {}, "Buffer size 63 differs from shape volume 64"),
        Refused(([1.5], (1,), ttnn.int32, DEVICE), {}, "bad_cast"),
        Refused(([1.5], (1,), ttnn.bfloat8_b, DEVICE), {}, "Unreachable"),
    ],
    "ttnn.allocate_tensor_on_host": [
        Case(((1, 1, 32, 64), ttnn.bfloat16, ttnn.TILE_LAYOUT, DEVICE), {}, lambda s, *_: torch.zeros(s)),
        Refused(((1, 1, 32, 64), ttnn.bfloat16), {}, **TypeRefused),
    ],
    "ttnn.create_layer_norm_reciprocals": [
        Case(
            (DEVICE, ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (3, 1))]), 50),
            {},
            lambda d, c, w: (1.0 / torch.arange(1, w + 1)).expand(8, w),
            FP32,
        ),
        Refused((DEVICE, ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (9, 9))]), 50), {}, "no L1 bank on this device"),
    ],
}
