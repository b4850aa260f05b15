"""Unary functions as activations fused into other ops."""

from __future__ import annotations

from functools import lru_cache

from ...chips import Chip
from ...config import UnaryOpType, UnaryWithParam
from ...errors import DeviceRejects, NotEmulated
from ...numerics.unary import FORMULAS, unary

#: UnaryOpType -> (function of the numerics, its parameters by position), where the name differs or parameters are
#: taken.
_FUSED = {
    "RECIP": ("reciprocal",), "LOGSIGMOID": ("log_sigmoid",), "LOGICAL_NOT_UNARY": ("logical_not",),
    "POWER": ("pow", "exponent"),
    "LEAKY_RELU": ("leaky_relu", "negative_slope"), "ELU": ("elu", "alpha"),
    "SOFTPLUS": ("softplus", "beta", "threshold"),
    "RELU_MAX": ("relu_max", "upper_limit"), "RELU_MIN": ("relu_min", "lower_limit"),
    "HEAVISIDE": ("heaviside", "value"),
    "HARDTANH": ("hardtanh", "min_val", "max_val"), "CLAMP_TSS": ("clamp", "min", "max"),
    "FILL": ("fill", "fill_value"),
    "SELU": ("selu",), "CELU": ("celu", "alpha"), "SOFTSHRINK": ("softshrink", "lambd"),
    "HARDSHRINK": ("hardshrink", "lambd"),
    "XIELU": ("xielu", "alpha_p", "alpha_n"), "SOFTCAP": ("softcap", "beta"), "PRELU_SFPU": ("prelu", "weight"),
    "MAXIMUM": ("clamp", "min"), "MINIMUM": ("clamp", "max"), "MUL_UNARY_SFPU": ("mul_unary", "value"),
    "ADD_UNARY_SFPU": ("add_unary", "value"), "SUB_UNARY_SFPU": ("sub_unary", "value"),
    "RSUB": ("rsub_unary", "value"),
    "ROUND": ("round", "decimals"), "RPOW": ("rpow", "exponent"), "RDIV": ("rdiv", "value"),
}  # fmt: skip
#: Function types that need a parameter (ttnn 0.81.1, asked one by one).
_NEED_PARAMETER = frozenset((
    "RELU_MAX", "RELU_MIN", "POWER", "POWER_ITERATIVE", "LEAKY_RELU", "ELU", "HEAVISIDE", "RSUB", "RDIV", "SOFTPLUS",
    "ADD_UNARY_SFPU", "SUB_UNARY_SFPU", "MUL_UNARY_SFPU", "DIV_UNARY_SFPU", "UNARY_NE", "UNARY_EQ", "UNARY_GT",
    "UNARY_LT",
    "UNARY_GE", "UNARY_LE", "TYPECAST", "BITWISE_XOR", "BITWISE_AND", "BITWISE_OR", "RIGHT_SHIFT", "ROUND",
    "LEFT_SHIFT",
    "REMAINDER", "FMOD", "DROPOUT", "FILL", "PRELU_SFPU", "ZERO_POINT", "MISH", "MAXIMUM", "MINIMUM", "THRESHOLD",
    "SOFTSHRINK", "HARDSHRINK", "HARDTANH", "WHERE_TSS", "MAC_TSS", "CELU", "CLAMP_TSS", "SELU", "RPOW", "LOGIT",
    "XIELU",
    "POLYGAMMA",
))  # fmt: skip
#: Activation strings that matmul and linear take (ttnn 0.81.1, asked one by one), where the type is not the name
#: itself.
_STRINGS = {
    "gelu_approx": (UnaryOpType.GELU, 1.0), "gelu": (UnaryOpType.GELU, 0.0),
    "softplus": (UnaryOpType.SOFTPLUS, 1.0, 20.0),
    "mish": (UnaryOpType.MISH, 0.0), "hardtanh": (UnaryOpType.HARDTANH, -1.0, 1.0), "exp": (UnaryOpType.EXP, 1.0),
    "sigmoid_approx": (UnaryOpType.SIGMOID, 4.0, 1.0),
    "selu": (UnaryOpType.SELU, 1.0507, 1.67326), "xielu": (UnaryOpType.XIELU, 0.8, 0.8),
} | {
    name: (UnaryOpType[name.upper()],)
    for name in (
        "recip", "gelu_tanh", "relu", "sqrt", "sigmoid", "log", "log1p", "tanh", "log2", "log10", "sin", "cos",
        "cosh", "sinh",
        "abs", "abs_int32", "sign", "square", "rsqrt", "relu6", "silu", "alt_complex_rotate90", "hardsigmoid",
    )
}  # fmt: skip


def activation(value) -> UnaryWithParam | None:
    """A fused activation from what a call may say: a name, a UnaryOpType or a UnaryWithParam."""
    if value is None or isinstance(value, UnaryWithParam):
        return value
    if isinstance(value, UnaryOpType):
        return UnaryWithParam(value)
    if value not in _STRINGS:
        raise DeviceRejects(f"Unknown unary op: {value}", f"known: {', '.join(sorted(_STRINGS))}")
    return UnaryWithParam(*_STRINGS[value])


def fused(act: UnaryWithParam, chip: Chip):
    """A fused activation as (function of the numerics, keywords), refused where it lacks its parameter."""
    kind = act.op_type.name
    if kind in _NEED_PARAMETER and not act.params:
        raise DeviceRejects(f"Undefined non-parametrized op type UnaryOpType::{kind}")
    if kind in chip.missing:
        raise DeviceRejects(f"Unary: {kind} is implemented for Blackhole only, got arch {chip.name}")
    name, *names = _FUSED.get(kind, (kind.lower(),))
    if kind in ("GELU", "EXP", "RSQRT", "SQRT", "LOG", "TANH", "ERF", "MISH"):
        # gelu_tile is the only one of these kernels that is approximate when it is not told (the wheel's gelu.h).
        fast = act.params[0] if act.params else kind == "GELU"
        return name, {"fast_and_approximate_mode": True} if fast else {}
    if name not in FORMULAS or (kind == "SIGMOID" and any(act.params[1:])):
        raise NotEmulated(f"fused activation {act} has no model in the emulator")
    return name, dict(zip(names, act.params, strict=False))


def fuse(act: UnaryWithParam | None, chip: Chip):
    """A fused activation as the numerics take it: None, a name, or a function of values."""
    if act is None:
        return None
    name, params = fused(act, chip)
    return _function(name, tuple(params.items())) if params else name


@lru_cache(maxsize=1024)
def _function(name: str, params: tuple):
    """One function for one activation, so that calls with it are known to be alike."""
    keywords = dict(params)
    return lambda v: unary(name, v, "float32" if v.dtype.itemsize == 4 else "bfloat16", **keywords)
