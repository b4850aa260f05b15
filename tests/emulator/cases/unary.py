"""Unary ops against torch in float32.

One rounding to bfloat16 costs at most 2^-9 of a value, 1.7e-3 in relative L2; functions that the device approximates
are
off by one unit in the last place for some inputs. Block formats: half a step of the block's largest value.
"""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

BF16, BFP8, FP32 = 3e-3, 2e-2, 1e-6
CUT = 2**-8  # kernels that store into bfloat16 without rounding
SHAPE = (1, 1, 32, 64)
ANY, POSITIVE, UNIT, WIDE = {}, dict(low=0.1, high=4.0), dict(low=-0.9, high=0.9), dict(low=-8.0, high=8.0)
L1 = ttnn.L1_MEMORY_CONFIG
INTEGER = "does not support integer input dtype DataType::UINT32"


def whole(shape=SHAPE, dtype=ttnn.int32, high=100, layout=ttnn.TILE_LAYOUT):
    return T(shape, dtype, layout, high=high)


def cases(reference, values=ANY, *args, integers=(), approximate=BF16, **kwargs):
    """bfloat16, float32 in ROW_MAJOR and L1, bfloat8_b, the integers that are taken, and one that is refused."""

    def without_placement(x, *rest, memory_config=None, **given):
        return reference(x, *rest, **given)

    made = [
        Case((T(SHAPE, **values), *args), kwargs, without_placement, approximate),
        Case(
            (T((2, 3, 20, 50), ttnn.float32, ttnn.ROW_MAJOR_LAYOUT, **values), *args),
            kwargs,
            without_placement,
            FP32 * 10,
        ),
        Case((T(SHAPE, ttnn.bfloat8_b, **values), *args), {**kwargs, "memory_config": L1}, without_placement, BFP8),
    ]
    made += [
        Case((whole(dtype=d), *args), kwargs, lambda x, *r, **k: reference(x.double(), *r, **k).trunc(), 0)
        for d in integers
    ]
    if ttnn.uint32 not in integers:
        made.append(Refused((whole(dtype=ttnn.uint32), *args), kwargs, INTEGER))
    return made


def flag(test):
    return lambda x, **_: test(x).float()


SIGNED, BUT_BYTES = (ttnn.int32,), (ttnn.int32, ttnn.uint32, ttnn.uint16)
ALL = (*BUT_BYTES, ttnn.uint8)

CASES = {
    "ttnn.relu": cases(torch.relu, integers=ALL),
    "ttnn.relu6": cases(lambda x: x.clamp(0, 6), WIDE, integers=ALL),
    "ttnn.silu": [
        *cases(F.silu),
        Case((T(SHAPE), ), {"output_tensor": T(SHAPE, ttnn.float32)}, lambda x, output_tensor: F.silu(x), BF16),
        Refused(
            (T(SHAPE),), {"output_tensor": T((1, 1, 32, 32))}, "Preallocated output shape must match computed shape",
        ),
        Refused(
            (T(SHAPE),), {"output_tensor": T(SHAPE, layout=ttnn.ROW_MAJOR_LAYOUT)}, "Output format .* must match input",
        ),
        Refused((T(SHAPE),), {"output_tensor": T(SHAPE, ttnn.int32)}, "Integer and float dtypes cannot be mixed"),
        Refused((T(SHAPE), ttnn.L1_MEMORY_CONFIG), {}, "incompatible function arguments", TypeError),
    ],
    "ttnn.swish": cases(F.silu),
    "ttnn.gelu": [
        *cases(F.gelu),
        Case((T(SHAPE),), {"fast_and_approximate_mode": True}, lambda x, **_: F.gelu(x), 2e-2),  # recorded table
        Case((T(SHAPE),), {"variant": ttnn.GeluVariant.Tanh}, lambda x, **_: F.gelu(x, approximate="tanh"), BF16),
    ],
    "ttnn.sigmoid": cases(torch.sigmoid),
    "ttnn.sigmoid_accurate": cases(torch.sigmoid),
    "ttnn.tanh": cases(torch.tanh),
    "ttnn.hardsigmoid": cases(F.hardsigmoid),
    "ttnn.hardswish": cases(F.hardswish),
    "ttnn.hardmish": cases(lambda x: x * (x + 2.8).clamp(0, 5) / 5),
    "ttnn.mish": cases(F.mish),
    "ttnn.log_sigmoid": cases(F.logsigmoid),
    "ttnn.softsign": cases(F.softsign),
    "ttnn.tanhshrink": cases(F.tanhshrink, WIDE),
    "ttnn.square": cases(torch.square, integers=(ttnn.int32, ttnn.uint32)),
    "ttnn.reciprocal": cases(torch.reciprocal, POSITIVE, approximate=BF16),
    "ttnn.abs": cases(torch.abs, integers=ALL),
    "ttnn.neg": cases(torch.neg, integers=SIGNED),
    "ttnn.sign": cases(torch.sign),
    "ttnn.signbit": cases(flag(torch.signbit), integers=SIGNED),
    "ttnn.identity": cases(lambda x: x, integers=ALL),
    "ttnn.floor": cases(torch.floor, WIDE),
    "ttnn.ceil": cases(torch.ceil, WIDE),
    "ttnn.trunc": cases(torch.trunc, WIDE),
    "ttnn.frac": cases(torch.frac, WIDE),
    "ttnn.round": cases(lambda x, decimals=0: x.round(decimals=decimals), WIDE, decimals=0),
    "ttnn.exp": cases(torch.exp),
    "ttnn.exp2": cases(torch.exp2),
    "ttnn.expm1": cases(torch.expm1),
    "ttnn.log": cases(torch.log, POSITIVE),
    "ttnn.log2": cases(torch.log2, POSITIVE),
    "ttnn.log10": cases(torch.log10, POSITIVE),
    "ttnn.log1p": cases(torch.log1p, POSITIVE),
    "ttnn.sqrt": cases(torch.sqrt, POSITIVE),
    "ttnn.rsqrt": [
        *cases(torch.rsqrt, POSITIVE),
        Case((T(SHAPE, **POSITIVE),), {"fast_and_approximate_mode": True}, lambda x, **_: torch.rsqrt(x), 1e-2),
    ],
    "ttnn.cbrt": cases(lambda x: x.sign() * x.abs() ** (1 / 3)),
    "ttnn.sin": cases(torch.sin),
    "ttnn.cos": cases(torch.cos),
    "ttnn.tan": cases(torch.tan, UNIT),
    "ttnn.asin": cases(torch.asin, UNIT),
    "ttnn.acos": cases(torch.acos, UNIT),
    "ttnn.atan": cases(torch.atan),
    "ttnn.sinh": cases(torch.sinh),
    "ttnn.cosh": cases(torch.cosh),
    "ttnn.asinh": cases(torch.asinh),
    "ttnn.acosh": cases(torch.acosh, dict(low=1.5, high=4.0)),
    "ttnn.atanh": cases(torch.atanh, UNIT),
    "ttnn.erf": cases(torch.erf),
    "ttnn.erfc": cases(torch.erfc),
    "ttnn.erfinv": cases(torch.erfinv, UNIT, approximate=CUT),
    "ttnn.i0": cases(torch.special.i0, approximate=CUT),
    "ttnn.i1": cases(torch.special.i1),
    "ttnn.lgamma": [
        *(c for c in cases(torch.lgamma, POSITIVE) if not (isinstance(c, Case) and c.args[0].dtype is ttnn.bfloat8_b)),
        Refused((T(SHAPE, ttnn.bfloat8_b),), {}, "LGAMMA requires BFLOAT16 or FLOAT32 input"),
    ],
    "ttnn.digamma": cases(torch.digamma, POSITIVE),
    "ttnn.deg2rad": cases(torch.deg2rad, approximate=CUT),
    "ttnn.rad2deg": cases(torch.rad2deg, approximate=CUT),
    "ttnn.eqz": cases(flag(lambda x: x == 0), integers=BUT_BYTES),
    "ttnn.nez": cases(flag(lambda x: x != 0), integers=BUT_BYTES),
    "ttnn.gtz": cases(flag(lambda x: x > 0), integers=SIGNED),
    "ttnn.ltz": cases(flag(lambda x: x < 0), integers=SIGNED),
    "ttnn.gez": cases(flag(lambda x: x >= 0), integers=SIGNED),
    "ttnn.lez": cases(flag(lambda x: x <= 0), integers=SIGNED),
    "ttnn.isnan": cases(flag(torch.isnan)),
    "ttnn.isinf": cases(flag(torch.isinf)),
    "ttnn.isposinf": cases(flag(torch.isposinf)),
    "ttnn.isneginf": cases(flag(torch.isneginf)),
    "ttnn.isfinite": cases(flag(torch.isfinite)),
    "ttnn.logical_not": cases(flag(lambda x: x == 0), integers=BUT_BYTES),
    "ttnn.leaky_relu": [
        *(c for c in cases(F.leaky_relu, ANY, 0.1) if isinstance(c, Case)),
        Refused((T(SHAPE),), {}, "missing a required argument: 'negative_slope'", TypeError),
        Refused((whole(), 0.1), {}, "LEAKY_RELU does not support integer input dtype DataType::INT32"),
    ],
    "ttnn.elu": cases(F.elu, alpha=0.5),
    "ttnn.celu": cases(F.celu, alpha=0.5),
    "ttnn.selu": cases(torch.selu),
    "ttnn.softplus": cases(F.softplus, beta=2.0, threshold=5.0),
    "ttnn.softshrink": cases(F.softshrink, lambd=0.3),
    "ttnn.hardshrink": cases(F.hardshrink, lambd=0.3),
    "ttnn.hardtanh": cases(F.hardtanh, min_val=-0.5, max_val=0.25),
    "ttnn.relu_max": cases(lambda x, top: x.clamp(0, top), ANY, 1.5, integers=ALL),
    "ttnn.relu_min": cases(lambda x, low: x.clamp(min=low), ANY, 0.5, integers=ALL),
    "ttnn.heaviside": cases(lambda x, v: torch.heaviside(x, torch.tensor(v)), ANY, 0.5),
    "ttnn.threshold": cases(F.threshold, ANY, 0.5, 2.0),
    "ttnn.fill": cases(torch.full_like, ANY, 3.0, integers=BUT_BYTES),
    "ttnn.rpow": cases(lambda x, base: base**x, ANY, 2.0),
    "ttnn.rdiv": cases(lambda x, value: value / x, POSITIVE, 2.0),
    "ttnn.unary_chain": [
        Case(
            (T(SHAPE), [ttnn.UnaryOpType.RELU, ttnn.UnaryWithParam(ttnn.UnaryOpType.POWER, 2.0)]), {},
            lambda x, chain: torch.relu(x).square(), BF16,
        ),
        Refused((T(SHAPE), []), {}, "Op chain cannot be empty"),
    ],
    "ttnn.logical_not_": [Case((whole(high=2),), {}, lambda x: (x == 0).long(), 0, changes=0)],
    "ttnn.plus_one": [
        Case((whole((1, 32), layout=ttnn.ROW_MAJOR_LAYOUT),), {}, lambda x: x + 1, 0, changes=0),
        Case(
            (T((4,), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT, values=torch.tensor([3, -1, 0, -7])),),
            {"skip_negative_entries": True},
            lambda x, **_: torch.tensor([4, -1, 1, -7]), 0, changes=0,
        ),
        Refused((T(SHAPE, layout=ttnn.ROW_MAJOR_LAYOUT),), {}, "Only INT32 and UINT32"),
        Refused((whole(),), {}, "Only ROW_MAJOR layout"),
    ],
}  # fmt: skip
