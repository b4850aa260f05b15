"""Reductions against torch in float32; extrema and indices are exact.

Sums have a float32 destination and one rounding to bfloat16 (1.7e-3 in relative L2); where values cancel it is larger.
"""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Device, Refused, T

BF16, BFP8, FP32 = 4e-3, 2e-2, 1e-5
PRODUCT = 50 * 2**-9  # every one of up to 50 factors is multiplied in four phases, each rounded to bfloat16
MEAN = 2**-7 + BF16  # the matrix unit multiplies by 1 / n, cut to bfloat16
RM = ttnn.ROW_MAJOR_LAYOUT
X, POSITIVE = T((2, 3, 20, 50)), T((2, 3, 20, 50), low=0.5, high=1.5)
L1 = ttnn.L1_MEMORY_CONFIG
UNSUPPORTED = "Only FLOAT32, BFLOAT16, BFLOAT8_B, and UINT32 are supported for generic reduction"


def over(function, every):
    """function(x, dims, keepdim); every(x): over everything."""

    def reference(x, dim=None, keepdim=False, memory_config=None, **config):
        dims = tuple(range(x.dim())) if dim is None else dim
        return function(x, dims, keepdim, **config)

    return reference


def reduction(function, tolerance, integers=True):
    r = over(function, None)
    made = [
        Case((POSITIVE, -1), {}, r, tolerance),
        Case((POSITIVE,), {"dim": -2, "keepdim": True}, r, tolerance),
        Case((POSITIVE, 1), {"memory_config": L1}, r, tolerance),
        Case((POSITIVE, (0, 1)), {}, r, tolerance),
        Case((POSITIVE,), {}, r, tolerance),
        Case((T((2, 3, 20, 50), layout=RM, low=0.5, high=1.5), -1), {}, r, tolerance),
        Case((T((2, 3, 20, 50), ttnn.float32, low=0.5, high=1.5), (2, 3)), {}, r, min(tolerance, FP32)),
        Case((T((1, 1, 32, 64), ttnn.bfloat8_b, low=0.5, high=1.5), -1), {"keepdim": True}, r, tolerance and BFP8),
        Case((T((1, 1, 32, 64), ttnn.bfloat8_b, low=0.5, high=1.5), -1), {}, r, BFP8, note="packed in other blocks"),
        Refused((X, 4), {}, "Unsupported dim 4 at index 0"),
        Refused((X, (1, 1)), {}, "contains a duplicate axis"),
        Refused((T((1, 1, 32, 64), ttnn.bfloat4_b), -1), {}, UNSUPPORTED),
        Refused((T((1, 1, 32, 64), ttnn.uint16), -1), {}, UNSUPPORTED),
    ]
    if integers:
        made.append(Case((T((2, 3, 20, 50), ttnn.int32, high=100), -1), {}, r, 0))
    return made


def spread(function):
    def reference(x, dim=None, keepdim=False, correction=True, **config):
        dims = tuple(range(x.dim())) if dim is None else dim
        return function(x, dims, correction=int(correction), keepdim=keepdim)

    return [
        Case((X, -1), {}, reference, BF16),
        Case((X,), {"dim": (2, 3), "keepdim": True, "correction": False}, reference, BF16),
        Case((T((2, 3, 20, 50), ttnn.float32),), {}, reference, 1e-5),
        Refused((T((1, 1, 32, 64), ttnn.int32), -1), {}, "are supported for Std/Var reduction"),
        Refused((X, 7), {}, "Unsupported dim 7"),
    ]


def product(x, dim=None, keepdim=False):
    return x.prod() if dim is None else x.prod(dim, keepdim=keepdim)


def largest(x, dim=None, keepdim=False, **config):
    return x.argmax(dim, keepdim) if dim is not None or not keepdim else x.argmax().reshape((1,) * x.dim())


def topk(x, k=32, dim=-1, largest=True, **config):
    values, indices = torch.sort(x, dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, k), indices.narrow(dim, 0, k)


def moe(x, experts, top, k=32):
    values, indices = torch.topk(x + experts, k)
    return (torch.softmax(values + top, -1) * (indices == 0)).sum(-1, keepdim=True)


# Equal values: the first counts.
TIES = T((1, 1, 32, 64), values=torch.randint(0, 4, (1, 1, 32, 64)).float())
# Distinct values, so that the k largest are in one order only.
DISTINCT = T((1, 1, 32, 128), ttnn.float32, values=torch.randperm(32 * 128).reshape(1, 1, 32, 128).float())
EVERY_OTHER = torch.zeros(1, 1, 1, 64)
EVERY_OTHER[..., 40:] = -1e9
GREEDY = {"k": torch.ones(32), "p": torch.full((32,), 0.9), "temp": torch.ones(32)}
LOGITS = T((1, 1, 32, 64))
TOKENS = T((1, 1, 32, 64), ttnn.int32, RM, values=torch.arange(64).expand(1, 1, 32, 64) + 1000)


def users(values, dtype=ttnn.bfloat16):
    return T((32,), dtype, RM, values=values)


def sampled(values, tokens, k, p, temp, **config):
    return tokens.gather(-1, values.argmax(-1, keepdim=True)).reshape(1, 1, 1, -1)


def labels(dtype, layout=ttnn.TILE_LAYOUT):
    return T((1, 1, 32, 128), dtype, layout, high=1000)


def made(dtype):
    return T((1, 1, 32, 4), dtype)


def labelled(x, k, indices_tensor):
    values, at = x.topk(k)
    return values, indices_tensor.gather(-1, at)


SAMPLING = (LOGITS, TOKENS, users(torch.ones(32), ttnn.uint32), users(torch.full((32,), 0.9)), users(torch.ones(32)))
SEEDS = T((32,), ttnn.uint32, RM, high=32)
FIVE = [T(values=torch.ones(5), dtype=d, layout=RM) for d in (ttnn.uint32, ttnn.bfloat16, ttnn.bfloat16)]


def outer(x, dims, **_):
    y = x.sum(dims, keepdim=True)
    return torch.nn.functional.pad(y, (0, -y.shape[-1] % 32, 0, -y.shape[-2] % 32))


def parted(x, dim, split_size, **_):
    return list(x.sum(dim, keepdim=True).split(split_size, -1))


OUTER, BLOCKS = T((2, 4, 20, 50)), T((1, 4, 32, 64), ttnn.bfloat8_b)
PRECISE = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi3, fp32_dest_acc_en=True)

CASES = {
    "ttnn.sum": reduction(torch.sum, BF16),
    "ttnn.mean": [
        *reduction(torch.mean, MEAN, integers=False),
        Refused((T((1, 1, 32, 64), ttnn.int32), -1), {}, "ttnn.mean does not support integer inputs"),
    ],
    "ttnn.max": reduction(torch.amax, 0),
    "ttnn.min": reduction(torch.amin, 0),
    "ttnn.std": spread(torch.std),
    "ttnn.var": spread(torch.var),
    "ttnn.prod": [
        Case((POSITIVE, -1), {}, product, PRODUCT),
        Case((T((2, 3, 20, 50), ttnn.float32, low=0.9, high=1.1), 1, True), {}, product, 1e-5),
        Case((T((8, 8), low=0.9, high=1.1),), {}, product, PRODUCT),
        Refused((X, 4), {}, "Dimension for prod is out of range"),
        Refused((T((1, 1, 32, 64), ttnn.int32), 0), {}, "unsupported data type for prod"),
        Refused((T((1, 1, 32, 64), ttnn.bfloat4_b), 0), {}, "does not support bfloat4_b"),
    ],
    "ttnn.argmax": [
        Case((TIES,), {"dim": -1}, lambda x, **_: (x == x.amax(-1, keepdim=True)).int().argmax(-1), 0),
        Case((T((1, 3, 20, 50)), 1, True), {}, largest, 0),
        Case((T((4, 50), ttnn.int32, RM, high=1000),), {"dim": None}, largest, 0),
        Case((T((4, 50), layout=RM), None, True), {}, largest, 0),
        Case((T((1, 1, 32, 64)), -1), {"output_tensor": T((1, 1, 32), ttnn.uint32, RM)}, largest, 0),
        Refused((X,), {}, "For inputs with TILE layout, dim parameter must be specified!"),
        Refused((X, 4), {}, "argmax: Dimension out of range"),
        Refused(
            (T((1, 1, 32, 64), ttnn.bfloat8_b), -1), {}, "Only BFLOAT16, FLOAT32 are supported for inputs with TILE",
        ),
        Refused((X,), {"dim": -1, "use_multicore": True}, "incompatible function arguments", TypeError),
    ],
    "ttnn.topk": [
        Case((DISTINCT, 32), {}, topk, 0),
        Case((DISTINCT,), {"k": 5, "dim": 2, "largest": False}, topk, 0),
        Case((T((1, 1, 32, 64), values=torch.arange(64.0).expand(1, 1, 32, 64)), 4), {}, topk, 0),
        Case((DISTINCT, 4), dict(indices_tensor=labels(ttnn.int32)), labelled, 0),
        Case((DISTINCT, 4), dict(output_tensor=(made(ttnn.float32), made(ttnn.uint32))), topk, 0),
        Refused((DISTINCT, 4), dict(indices_tensor=labels(ttnn.uint16)), "must be UINT32 when input tensor is FLOAT32"),
        Refused((X, 4), dict(indices_tensor=labels(ttnn.uint16)), "Indices tensor has incorrect shape"),
        Refused((DISTINCT, 4), dict(indices_tensor=labels(ttnn.bfloat16)), "must be UINT16, UINT32, or INT32"),
        Refused((DISTINCT, 4), dict(indices_tensor=labels(ttnn.uint32, RM)), "must be in tiled format, got"),
        Refused(
            (DISTINCT, 4), dict(output_tensor=(made(ttnn.bfloat16), made(ttnn.uint32))),
            "Got output: DataType::BFLOAT16, input: DataType::FLOAT32",
        ),
        Refused((X, 4), dict(output_tensor=(made(ttnn.bfloat16), made(ttnn.uint16))), "incorrect shape! Got"),
        Refused((X, 51), {}, "K cannot be larger than the dimension size! K=51, dimension size=50"),
        Refused((T((1, 1, 32, 64), layout=RM), 4), {}, "The input must be in tiled format"),
        Refused((T((1, 1, 32, 64), ttnn.int32), 4), {}, "Input tensor must be BFLOAT16, BFLOAT8_B, or FLOAT32"),
        Refused((X, 4, 9), {}, "Dimension for topk is out of range"),
    ],
    "ttnn.sort": [
        Case((DISTINCT,), {}, lambda x: tuple(x.sort(dim=-1)), 0),
        Case((DISTINCT, 2), {"descending": True}, lambda x, d, **_: tuple(x.sort(dim=d, descending=True)), 0),
        Refused((X, 4), {}, "Sort dim 4 is out of range for rank-4 tensor"),
        Refused((T((1, 1, 32, 64), ttnn.int32),), {}, "Input tensor data type must be BFLOAT16, UINT16, or FLOAT32"),
    ],
    "ttnn.cumsum": [
        Case((POSITIVE,), {"dim": -1}, torch.cumsum, BF16),
        Case((T((2, 3, 20, 50), ttnn.int32, high=9), 0), {}, torch.cumsum, 0),
        Case((POSITIVE, 2), {"reverse_order": True}, lambda x, d, **_: x.flip(d).cumsum(d).flip(d), BF16),
        Refused((T((1, 1, 32, 64), layout=RM), -1), {}, "non-tile layout: ROW_MAJOR"),
        Refused((X, 4), {}, "The requested accumulation axis is 4"),
    ],
    "ttnn.cumprod": [Case((T((1, 1, 32, 64), low=0.9, high=1.1), -1), {}, torch.cumprod, BF16)],
    "ttnn.moe": [
        Case(
            (T((1, 1, 32, 64)), T((1, 1, 1, 64), values=EVERY_OTHER), T((1, 1, 1, 32), values=torch.zeros(1, 1, 1,
            32)), 32),
            {}, moe, 1e-2,
        ),
        Refused((T((1, 1, 32, 64)), T((1, 1, 1, 64)), T((1, 1, 1, 32)), 16), {}, "K must be equal to 32"),
        Refused(
            (T((1, 1, 32, 64)), T((1, 1, 1, 64)), T((1, 1, 32, 32)), 32), {}, "Topk mask must be row-broadcastable",
        ),
    ],
    "ttnn.sampling": [
        Case(SAMPLING, {}, sampled, 0),
        Case(
            (LOGITS, TOKENS, users(torch.full((32,), 8), ttnn.uint32), *SAMPLING[3:]), {"seed": 7},
            note="the draw is torch's; specs and memory are checked",
        ),
        Case((T((1, 1, 5, 64)), T((1, 1, 5, 64), ttnn.uint32, RM), *FIVE), {}, sampled, 0),
        Case(SAMPLING, dict(output_tensor=T((1, 1, 1, 32), ttnn.int32, RM)), sampled, 0),
        Refused(SAMPLING, dict(output_tensor=T((1, 1, 1, 16), ttnn.uint32, RM)), r"must be \[1,1,1,32\]"),
        Refused(SAMPLING, dict(output_tensor=T((1, 1, 1, 32), ttnn.uint16, RM)), "are supported for outputs"),
        Refused((T((1, 1, 33, 64)), T((1, 1, 33, 64), ttnn.int32, RM), *SAMPLING[2:]), {}, "users .*; got 33!"),
        Refused((T((1, 1, 5, 64)), T((1, 1, 5, 64), ttnn.int32, RM), *SAMPLING[2:]), {}, r"k must have shape \[5\]"),
        Refused((T((1, 2, 32, 64)), T((1, 2, 32, 64), ttnn.int32, RM), *SAMPLING[2:]), {}, r"dims 0 and 1 \(N, C\)"),
        Refused(
            (T((1, 1, 32, 8192)), T((1, 1, 32, 8192), ttnn.int32, RM), *SAMPLING[2:]), {}, "grow to 2260384 B"
        ),
        Refused((*SAMPLING[:3], T((32,), ttnn.float32, RM), SAMPLING[4]), {}, "supported for p!"),
        Refused(SAMPLING, dict(sub_core_grids=ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0))])), "found 1!"),
        Refused((T((1, 1, 32, 64), layout=RM), *SAMPLING[1:]), {}, "Only TILE_LAYOUT is supported for inputs"),
        Refused(
            (LOGITS, T((1, 1, 32, 64), ttnn.int32), *SAMPLING[2:]), {}, "Only ROW_MAJOR is supported for input indices",
        ),
        Refused(
            (*SAMPLING[:2], users(torch.ones(32)), *SAMPLING[3:]), {}, "Only UINT32 & INT32 dtypes are supported for k",
        ),
        Refused(
            (T((1, 1, 32, 96)), T((1, 1, 32, 96), ttnn.int32, RM), *SAMPLING[2:]), {},
            "must yield a power-of-2 number of tiles",
        ),
    ],
    "ttnn.manual_seed": [
        Case((3,), dict(device=Device), note="what comes back has no meaning"),
        Case((3,), dict(device=Device, user_ids=5), note="as above"),
        Case((SEEDS,), {}, note="as above"),
        Case((SEEDS,), dict(user_ids=SEEDS), note="as above"),
        Case((7,), dict(device=Device, user_ids=SEEDS), note="as above"),
        Refused((3,), {}, "Device must be provided"),
        Refused((3,), dict(device=Device, user_ids=32), r"range \[0, 31\]"),
        Refused((-1,), dict(device=Device), "incompatible", TypeError),
        Refused((T((32,), ttnn.int32, RM),), {}, "must be of type UINT32"),
        Refused((T((32,), ttnn.uint32),), {}, "must have ROW_MAJOR layout"),
        Refused((SEEDS,), dict(user_ids=3), "user_ids must not be provided as a scalar"),
        Refused((SEEDS,), dict(user_ids=T((16,), ttnn.uint32, RM)), "seeds volume: 32 and user_ids volume: 16"),
    ],
    "ttnn.experimental.fast_reduce_nc": [
        Case((OUTER,), dict(dims=[1], compute_kernel_config=PRECISE), outer, BF16),
        Case((OUTER,), dict(dims=[0, 1], memory_config=L1), outer, 2e-2, note="rounds every sum"),
        Case((T((3, 32, 64), ttnn.float32),), dict(dims=[0], compute_kernel_config=PRECISE), outer, 2e-3),
        Case((T((2, 4, 32, 64), ttnn.bfloat8_b),), dict(dims=[0], output=BLOCKS), outer, BFP8),
        Refused((OUTER,), dict(dims=[]), "dims should not be empty"),
        Refused((OUTER,), dict(dims=[2]), "dim must be between 0 and 1, but has 2"),
        Refused((OUTER,), dict(dims=[4]), r"4 not in \[-4, 4\)"),
        Refused((T((32, 64)),), dict(dims=[0]), "rank must be greater than 2, but has 2"),
        Refused((T((2, 32, 64), layout=RM),), dict(dims=[0]), "FastReduceNC input only supports TILE layout"),
        Refused((T((2, 32, 64), ttnn.int32),), dict(dims=[0]), r"\[BFLOAT16, BFLOAT8_B, FLOAT32\]"),
    ],
    "ttnn.experimental.deepseek_moe_fast_reduce_nc": [
        Case((T((4, 1, 20, 96)), 0), dict(split_size=48), parted, BF16),
        Case((T((4, 3, 32, 64)), -3), dict(split_size=64), parted, BF16),
        Refused((T((4, 1, 20, 96)), 0), dict(split_size=36), r"split_size \(36\) must be greater than 0 and divide"),
        Refused((T((4, 1, 20, 96)), 2), dict(split_size=48), "between 0 and 1, but has 2"),
        Refused((T((4, 1, 20, 96), ttnn.float32), 0), dict(split_size=48), r"\[BFLOAT16, BFLOAT8_B\]"),
    ],
}  # fmt: skip
