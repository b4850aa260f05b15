"""Unary ops, one line each, and the same functions as activations fused into other ops."""

from __future__ import annotations

import inspect

from ... import numerics
from ...config import GeluVariant, SigmoidMode
from ...dtypes import BLOCK_FORMATS, INTEGERS, NAME, Layout, bfloat4_b, cpp, int32, uint16, uint32
from ...errors import DeviceRejects, NotEmulated
from ...launch import finish, on_device, same, update
from ...memory import MemoryConfig
from ...numerics import rounding
from ...numerics.rows import EACH
from ...numerics.unary import FORMULAS
from ...op import op, refuse_unmodelled
from ...tensor import Tensor
from ..core.sharding import result, unary_memory
from .fused import activation, fused

ALL = INTEGERS
BUT_BYTES = frozenset((uint16, uint32, int32))
SIGNED = frozenset((int32,))
NONE = frozenset()


# ---------------------------------------------------------------- unary


def apply_unary(
    name, function, kind, integers, x: Tensor, memory_config=None, output_tensor=None, params=None, dtype=None
):
    """Runs the unary function `function` of the numerics as the op `name`; `kind` is what refusals call it."""
    on_device(x)
    if x.dtype in INTEGERS and x.dtype not in integers:
        raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(x.dtype)}")
    if output_tensor is not None:
        check_preallocated(x, dtype or x.dtype, on_device(output_tensor))
    if kind == "LGAMMA" and x.dtype in BLOCK_FORMATS:
        raise DeviceRejects(f"Unary: LGAMMA requires BFLOAT16 or FLOAT32 input, got dtype {x.dtype.value}")
    if function not in FORMULAS:
        raise NotEmulated(f"{name} has no model in the emulator")
    out = result(x.spec.shape, dtype or x.dtype, x.layout, unary_memory(x, memory_config))
    made = NAME[out.dtype if output_tensor is None else output_tensor.dtype]
    params = params or {}
    return finish(
        name,
        (x,),
        out,
        lambda v: numerics.now().unary(function, v, made, **params),
        output_tensor,
        flops=out.shape.volume(),
        rows=EACH,
    )


def check_preallocated(x: Tensor, dtype, target: Tensor) -> None:
    """Refuses an output tensor whose shape, layout or dtype does not suit the result of a unary op."""
    if target.spec.shape != x.spec.shape:
        raise DeviceRejects(
            f"Unary: Preallocated output shape must match computed shape. Computed: {x.spec.shape}, Preallocated: "
            f"{target.spec.shape}"
        )
    if target.layout is not x.layout:
        raise DeviceRejects(
            "Unary: Output format (tile/row-major) must match input when preallocated. "
            f"Output: {target.layout.value}, Input: {x.layout.value}"
        )
    if target.dtype is not dtype and (
        target.dtype in INTEGERS or dtype in INTEGERS or target.dtype is bfloat4_b or dtype is bfloat4_b
    ):
        raise DeviceRejects(
            f"Preallocated output dtype {cpp(target.dtype)} is not compatible with input dtype {cpp(dtype)}. "
            "Integer and "
            "float dtypes cannot be mixed; mixed floating-point output is limited to BFLOAT16, FLOAT32, and BFLOAT8_B."
        )


def unary(name: str, doc: str, integers=NONE, kind: str | None = None, function: str | None = None):
    """The op `ttnn.<name>`: one value in, one out; `integers` are the integer dtypes that it takes."""
    kind, function, full = kind or name.upper(), function or name, f"ttnn.{name}"

    @op(full)
    def call(
        input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
        sub_core_grids=None,
    ) -> Tensor:  # fmt: skip
        return apply_unary(full, function, kind, integers, input_tensor, memory_config, output_tensor)

    call.__doc__ = doc
    return call


def unary_approximate(name: str, doc: str, kind: str | None = None):
    """As `unary`, with a choice between a fast and an accurate form."""
    kind, full = kind or name.upper(), f"ttnn.{name}"

    @op(full)
    def call(
        input_tensor: Tensor, *, fast_and_approximate_mode: bool = False, memory_config: MemoryConfig | None = None,
        output_tensor: Tensor | None = None, sub_core_grids=None,
    ) -> Tensor:  # fmt: skip
        params = {"fast_and_approximate_mode": True} if fast_and_approximate_mode else None
        return apply_unary(full, name, kind, NONE, input_tensor, memory_config, output_tensor, params)

    call.__doc__ = doc
    return call


_KEYWORD, _POSITIONAL = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


def unary_with(name: str, doc: str, *positional: str, integers=NONE, kind: str | None = None, **keywords: float):
    """As `unary`, with numbers: `positional` ones that must be given, `keywords` that have a default."""
    kind, full = kind or name.upper(), f"ttnn.{name}"
    parameters = [inspect.Parameter("input_tensor", _POSITIONAL, annotation="Tensor")]
    parameters += [inspect.Parameter(p, _POSITIONAL, annotation="float") for p in positional]
    parameters += [inspect.Parameter(p, _KEYWORD, default=v, annotation="float") for p, v in keywords.items()]
    parameters += [
        inspect.Parameter("memory_config", _KEYWORD, default=None, annotation="MemoryConfig | None"),
        inspect.Parameter("output_tensor", _KEYWORD, default=None, annotation="Tensor | None"),
        inspect.Parameter("sub_core_grids", _KEYWORD, default=None),
    ]
    signature = inspect.Signature(parameters)

    def call(*args, **kwargs) -> Tensor:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as e:
            raise TypeError(f"{full}(): incompatible function arguments.\n  {e}\n  want   {full}{signature}") from None
        params = {p: given[p] for p in positional} | {p: given.get(p, v) for p, v in keywords.items()}
        return apply_unary(
            full,
            name,
            kind,
            integers,
            given["input_tensor"],
            given.get("memory_config"),
            given.get("output_tensor"),
            params,
        )

    call.__signature__, call.__doc__, call.__name__ = signature, doc, name
    return op(full)(call)


relu = unary("relu", "max(x, 0).", ALL)
relu6 = unary("relu6", "min(max(x, 0), 6).", ALL)
silu = unary("silu", "x * sigmoid(x).")
swish = unary("swish", "x * sigmoid(x).", kind="SILU")
hardmish = unary("hardmish", "x * clamp(x + 2.8, 0, 5) / 5.")
hardsigmoid = unary("hardsigmoid", "clamp(x / 6 + 1 / 2, 0, 1).")
hardswish = unary("hardswish", "x * hardsigmoid(x).")
log_sigmoid = unary("log_sigmoid", "log(sigmoid(x)).", kind="LOGSIGMOID")
softsign = unary("softsign", "x / (1 + |x|).")
tanhshrink = unary("tanhshrink", "x - tanh(x).")
square = unary("square", "x * x.", BUT_BYTES)
reciprocal = unary("reciprocal", "1 / x.", kind="RECIP")
abs = unary("abs", "|x|.", ALL)
neg = unary("neg", "-x.", SIGNED)
sign = unary("sign", "-1, 0 or 1.")
signbit = unary("signbit", "1 where x is negative.", SIGNED)
identity = unary("identity", "A copy of x.", ALL)
floor = unary("floor", "The largest integer that is not above x.")
ceil = unary("ceil", "The smallest integer that is not below x.")
trunc = unary("trunc", "x without its fraction.")
frac = unary("frac", "The fraction of x.")
exp2 = unary("exp2", "2 ** x.")
expm1 = unary("expm1", "exp(x) - 1.")
cbrt = unary("cbrt", "The cube root.")
sin = unary("sin", "Sine of radians.")
cos = unary("cos", "Cosine of radians.")
tan = unary("tan", "Tangent of radians.")
asin = unary("asin", "Arc sine.")
acos = unary("acos", "Arc cosine.")
atan = unary("atan", "Arc tangent.")
sinh = unary("sinh", "Hyperbolic sine.")
cosh = unary("cosh", "Hyperbolic cosine.")
asinh = unary("asinh", "Inverse hyperbolic sine.")
acosh = unary("acosh", "Inverse hyperbolic cosine.")
atanh = unary("atanh", "Inverse hyperbolic tangent.")
erfc = unary("erfc", "1 - erf(x).")
erfinv = unary("erfinv", "The inverse of erf.")
i0 = unary("i0", "The modified Bessel function of order 0.")
i1 = unary("i1", "The modified Bessel function of order 1.")
lgamma = unary("lgamma", "log |gamma(x)|.")
digamma = unary("digamma", "The logarithmic derivative of gamma.")
deg2rad = unary("deg2rad", "Degrees to radians.", kind="MUL_UNARY_SFPU")
rad2deg = unary("rad2deg", "Radians to degrees.", kind="MUL_UNARY_SFPU")
eqz = unary("eqz", "1 where x == 0.", BUT_BYTES)
nez = unary("nez", "1 where x != 0.", BUT_BYTES)
gtz = unary("gtz", "1 where x > 0.", SIGNED)
ltz = unary("ltz", "1 where x < 0.", SIGNED)
gez = unary("gez", "1 where x >= 0.", SIGNED)
lez = unary("lez", "1 where x <= 0.", SIGNED)
isnan = unary("isnan", "1 where x is nan.")
isinf = unary("isinf", "1 where x is infinite.")
isposinf = unary("isposinf", "1 where x is +inf.")
isneginf = unary("isneginf", "1 where x is -inf.")
isfinite = unary("isfinite", "1 where x is finite.")
logical_not = unary("logical_not", "1 where x == 0.", BUT_BYTES, kind="LOGICAL_NOT_UNARY")

exp = unary_approximate("exp", "e ** x.")
log = unary_approximate("log", "Natural logarithm.")
log2 = unary_approximate("log2", "Logarithm to base 2.")
log10 = unary_approximate("log10", "Logarithm to base 10.")
log1p = unary_approximate("log1p", "log(1 + x).")
sqrt = unary_approximate("sqrt", "The square root.")
rsqrt = unary_approximate("rsqrt", "1 / sqrt(x).")
tanh = unary_approximate("tanh", "Hyperbolic tangent.")
erf = unary_approximate("erf", "The error function.")
mish = unary_approximate("mish", "x * tanh(softplus(x)).")

leaky_relu = unary_with("leaky_relu", "x, or negative_slope * x below 0.", "negative_slope", integers=ALL - SIGNED)
elu = unary_with("elu", "x, or alpha * (exp(x) - 1) below 0.", alpha=1.0)
celu = unary_with("celu", "x, or alpha * (exp(x / alpha) - 1) below 0.", alpha=1.0)
selu = unary_with("selu", "scale * elu(x, alpha).", scale=1.0506999492645264, alpha=1.673259973526001)
softplus = unary_with("softplus", "log(1 + exp(beta x)) / beta, x above the threshold.", beta=1.0, threshold=20.0)
softshrink = unary_with("softshrink", "x pulled towards 0 by lambd.", lambd=0.5)
hardshrink = unary_with("hardshrink", "x, or 0 within lambd of 0.", lambd=0.5)
hardtanh = unary_with("hardtanh", "x clamped to [min_val, max_val].", min_val=-1.0, max_val=1.0)
relu_max = unary_with("relu_max", "relu(min(x, upper_limit)).", "upper_limit", integers=ALL)
relu_min = unary_with("relu_min", "max(x, lower_limit).", "lower_limit", integers=ALL)
heaviside = unary_with("heaviside", "0 below 0, `value` at 0, 1 above.", "value")
threshold = unary_with("threshold", "x above `threshold`, else `value`.", "threshold", "value")
fill = unary_with("fill", "fill_value everywhere.", "fill_value", integers=BUT_BYTES)
rpow = unary_with("rpow", "exponent ** x.", "exponent")


@op("ttnn.round")
def round(
    input_tensor: Tensor, *, decimals: int | None = 0, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """x to `decimals` places, halves to even."""
    params = {"decimals": decimals or 0}
    return apply_unary("ttnn.round", "round", "ROUND", NONE, input_tensor, memory_config, output_tensor, params)


@op("ttnn.rdiv")
def rdiv(
    input_tensor: Tensor, value: float, *, rounding_mode=None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """value / x."""
    refuse_unmodelled("ttnn.rdiv", rounding_mode=rounding_mode)
    return apply_unary("ttnn.rdiv", "rdiv", "RDIV", NONE, input_tensor, memory_config, output_tensor, {"value": value})


@op("ttnn.unary_chain")
def unary_chain(
    input_tensor: Tensor, ops_chain, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """Unary functions one after the other, each rounded to the dtype."""
    if not ops_chain:
        raise DeviceRejects("Op chain cannot be empty")
    x = on_device(input_tensor)
    chain = [activation(a) for a in ops_chain]
    for act in chain:
        if x.dtype in INTEGERS:
            raise DeviceRejects(
                f"Unary: UnaryOpType::{act.op_type.name} does not support integer input dtype {cpp(x.dtype)}"
            )
    steps, dtype = [fused(act, x.buffer.device.chip) for act in chain], NAME[x.dtype]
    out = result(x.spec.shape, x.dtype, x.layout, unary_memory(x, memory_config))

    def compute(v):
        for function, params in steps:
            v = numerics.now().unary(function, v, dtype, **params)
        return v

    return finish("ttnn.unary_chain", (x,), out, compute, output_tensor, flops=len(steps) * x.volume())


@op("ttnn.logical_not_")
def logical_not_(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """1 where x == 0, written into x."""
    return apply_unary(
        "ttnn.logical_not_", "logical_not", "LOGICAL_NOT_UNARY", BUT_BYTES, input_tensor, memory_config, input_tensor
    )


@op("ttnn.plus_one")
def plus_one(input_tensor: Tensor, sub_core_grids=None, skip_negative_entries: bool = False) -> Tensor:
    """x + 1 in place, of positions; with skip_negative_entries negative ones stay."""
    x = on_device(input_tensor)
    if x.dtype not in (int32, uint32):
        raise DeviceRejects("Only INT32 and UINT32 is supported for inputs!")
    if x.layout is not Layout.ROW_MAJOR:
        raise DeviceRejects("Only ROW_MAJOR layout is supported for inputs!")

    dtype = NAME[x.dtype]

    def compute(target, v):
        step = (v >= 0).to(v.dtype) if skip_negative_entries else 1
        target.copy_(rounding.cast_integer(v + step, dtype))

    update("ttnn.plus_one", x, (x,), compute, flops=x.volume())
    return same(x)


@op("ttnn.gelu")
def gelu(
    input_tensor: Tensor, *, fast_and_approximate_mode: bool = False, variant: GeluVariant = GeluVariant.Accurate,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """x * Phi(x), by a look-up table of the vector unit in the fast form."""
    if variant is GeluVariant.Tanh:
        return apply_unary("ttnn.gelu", "gelu_tanh", "GELU_TANH", NONE, input_tensor, memory_config, output_tensor)
    params = (
        {"fast_and_approximate_mode": True} if fast_and_approximate_mode or variant is GeluVariant.FastLut else None
    )
    return apply_unary("ttnn.gelu", "gelu", "GELU", NONE, input_tensor, memory_config, output_tensor, params)


@op("ttnn.sigmoid")
def sigmoid(
    input_tensor: Tensor, *, vector_mode: int = 4, mode: SigmoidMode = SigmoidMode.Accurate,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """1 / (1 + exp(-x))."""
    refuse_unmodelled("ttnn.sigmoid", mode=None if mode is SigmoidMode.Accurate else mode)
    return apply_unary("ttnn.sigmoid", "sigmoid", "SIGMOID", NONE, input_tensor, memory_config, output_tensor)


@op("ttnn.sigmoid_accurate")
def sigmoid_accurate(
    input_tensor: Tensor, fast_and_approximate_mode: bool = False, *, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """1 / (1 + exp(-x))."""
    refuse_unmodelled("ttnn.sigmoid_accurate", fast_and_approximate_mode=fast_and_approximate_mode)
    return apply_unary("ttnn.sigmoid_accurate", "sigmoid", "SIGMOID", NONE, input_tensor, memory_config, output_tensor)
