"""Unary ops, one line each, and the same functions as activations fused into other ops."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ... import numerics
from ...config import GeluVariant, SigmoidMode
from ...dtypes import (
    BLOCK_FORMATS,
    FLOATS,
    INTEGERS,
    NAME,
    Layout,
    bfloat4_b,
    cpp,
    float32,
    int32,
    listed,
    uint16,
    uint32,
)  # fmt: skip
from ...errors import DeviceRejects, NotEmulated
from ...launch import finish, on_device, same, update
from ...memory import MemoryConfig
from ...numerics import rounding
from ...numerics.rows import EACH
from ...numerics.unary import FORMULAS
from ...op import described, op, refuse_unmodelled
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


def unary(name: str, row: Row):
    """The op of a row of the table."""
    kind, full = row.kind or name.upper(), f"ttnn.{name}"
    if row.given or row.defaults:
        call = with_numbers(full, name, kind, row)
    elif row.fast:

        def call(
            input_tensor: Tensor, *, fast_and_approximate_mode: bool = False, memory_config: MemoryConfig | None = None,
            output_tensor: Tensor | None = None, sub_core_grids=None,
        ) -> Tensor:  # fmt: skip
            params = {"fast_and_approximate_mode": True} if fast_and_approximate_mode else None
            return apply_unary(full, name, kind, NONE, input_tensor, memory_config, output_tensor, params)
    else:

        def call(
            input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
            sub_core_grids=None,
        ) -> Tensor:  # fmt: skip
            return apply_unary(full, name, kind, row.integers, input_tensor, memory_config, output_tensor)

    call.__doc__ = documented(row.doc, row.integers)
    return op(full)(call)


def documented(doc: str, integers=NONE) -> str:
    """The docstring of a unary op."""
    return described(
        doc, Shapes="any; kept", Dtypes=f"{listed(FLOATS | integers)}; kept unless output_tensor has another",
        Layout="TILE or ROW_MAJOR; kept", Source="ttnn 0.81.1: asked dtype by dtype",
    )  # fmt: skip


def with_numbers(full: str, name: str, kind: str, row: Row):
    """A unary op that takes numbers beside the tensor."""
    parameters = [inspect.Parameter("input_tensor", _POSITIONAL, annotation="Tensor")]
    parameters += [inspect.Parameter(p, _POSITIONAL, annotation="float") for p in row.given]
    parameters += [inspect.Parameter(p, _KEYWORD, default=v, annotation="float") for p, v in row.defaults.items()]
    parameters += [inspect.Parameter(p, _KEYWORD, default=None) for p in row.unmodelled]
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
        refuse_unmodelled(full, **{p: given.get(p) for p in row.unmodelled})
        params = {p: given[p] for p in row.given} | {p: given.get(p, v) for p, v in row.defaults.items()}
        memory_config, output_tensor = given.get("memory_config"), given.get("output_tensor")
        return apply_unary(full, name, kind, row.integers, given["input_tensor"], memory_config, output_tensor, params)

    call.__signature__, call.__name__ = signature, name
    return call


_KEYWORD, _POSITIONAL = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


class Row(NamedTuple):
    """A unary op: what it computes, the integer dtypes that it takes, what refusals call it (by default its name)."""

    doc: str
    integers: frozenset = NONE
    kind: str | None = None
    fast: bool = False  # has a fast and an accurate form
    given: tuple[str, ...] = ()  # numbers that a call must give
    defaults: Mapping[str, float] = MappingProxyType({})  # numbers that it may give
    unmodelled: tuple[str, ...] = ()  # other arguments, which have no model where they are given


#: The op `ttnn.<name>` for each: one value in, one out, by the function of this name of the numerics.
UNARY = {
    "relu": Row("max(x, 0).", ALL),
    "relu6": Row("min(max(x, 0), 6).", ALL),
    "silu": Row("x * sigmoid(x)."),
    "swish": Row("x * sigmoid(x).", kind="SILU"),
    "hardmish": Row("x * clamp(x + 2.8, 0, 5) / 5."),
    "hardsigmoid": Row("clamp(x / 6 + 1 / 2, 0, 1)."),
    "hardswish": Row("x * hardsigmoid(x)."),
    "log_sigmoid": Row("log(sigmoid(x)).", kind="LOGSIGMOID"),
    "softsign": Row("x / (1 + |x|)."),
    "tanhshrink": Row("x - tanh(x)."),
    "square": Row("x * x.", BUT_BYTES),
    "reciprocal": Row("1 / x.", kind="RECIP"),
    "abs": Row("|x|.", ALL),
    "neg": Row("-x.", SIGNED),
    "sign": Row("-1, 0 or 1."),
    "signbit": Row("1 where x is negative.", SIGNED),
    "identity": Row("A copy of x.", ALL),
    "floor": Row("The largest integer that is not above x."),
    "ceil": Row("The smallest integer that is not below x."),
    "trunc": Row("x without its fraction."),
    "frac": Row("The fraction of x."),
    "exp2": Row("2 ** x."),
    "expm1": Row("exp(x) - 1."),
    "cbrt": Row("The cube root."),
    "sin": Row("Sine of radians."),
    "cos": Row("Cosine of radians."),
    "tan": Row("Tangent of radians."),
    "asin": Row("Arc sine."),
    "acos": Row("Arc cosine."),
    "atan": Row("Arc tangent."),
    "sinh": Row("Hyperbolic sine."),
    "cosh": Row("Hyperbolic cosine."),
    "asinh": Row("Inverse hyperbolic sine."),
    "acosh": Row("Inverse hyperbolic cosine."),
    "atanh": Row("Inverse hyperbolic tangent."),
    "erfc": Row("1 - erf(x)."),
    "erfinv": Row("The inverse of erf."),
    "i0": Row("The modified Bessel function of order 0."),
    "i1": Row("The modified Bessel function of order 1."),
    "lgamma": Row("log |gamma(x)|."),
    "digamma": Row("The logarithmic derivative of gamma."),
    "deg2rad": Row("Degrees to radians.", kind="MUL_UNARY_SFPU"),
    "rad2deg": Row("Radians to degrees.", kind="MUL_UNARY_SFPU"),
    "eqz": Row("1 where x == 0.", BUT_BYTES),
    "nez": Row("1 where x != 0.", BUT_BYTES),
    "gtz": Row("1 where x > 0.", SIGNED),
    "ltz": Row("1 where x < 0.", SIGNED),
    "gez": Row("1 where x >= 0.", SIGNED),
    "lez": Row("1 where x <= 0.", SIGNED),
    "isnan": Row("1 where x is nan."),
    "isinf": Row("1 where x is infinite."),
    "isposinf": Row("1 where x is +inf."),
    "isneginf": Row("1 where x is -inf."),
    "isfinite": Row("1 where x is finite."),
    "logical_not": Row("1 where x == 0.", BUT_BYTES, kind="LOGICAL_NOT_UNARY"),
    "exp": Row("e ** x.", fast=True),
    "log": Row("Natural logarithm.", fast=True),
    "log2": Row("Logarithm to base 2.", fast=True),
    "log10": Row("Logarithm to base 10.", fast=True),
    "log1p": Row("log(1 + x).", fast=True),
    "sqrt": Row("The square root.", fast=True),
    "rsqrt": Row("1 / sqrt(x).", fast=True),
    "tanh": Row("Hyperbolic tangent.", fast=True),
    "erf": Row("The error function.", fast=True),
    "mish": Row("x * tanh(softplus(x)).", fast=True),
    "leaky_relu": Row("x, or negative_slope * x below 0.", ALL - SIGNED, given=("negative_slope",)),
    "elu": Row("x, or alpha * (exp(x) - 1) below 0.", defaults={"alpha": 1.0}),
    "celu": Row("x, or alpha * (exp(x / alpha) - 1) below 0.", defaults={"alpha": 1.0}),
    "selu": Row("scale * elu(x, alpha).", defaults={"scale": 1.0506999492645264, "alpha": 1.673259973526001}),
    "softplus": Row("log(1 + exp(beta x)) / beta, x above the threshold.", defaults={"beta": 1.0, "threshold": 20.0}),
    "softshrink": Row("x pulled towards 0 by lambd.", defaults={"lambd": 0.5}),
    "hardshrink": Row("x, or 0 within lambd of 0.", defaults={"lambd": 0.5}),
    "xielu": Row(
        "alpha_p x^2 + x / 2, or alpha_n (exp(x) - 1 - x) + x / 2 below 0.",
        defaults={"alpha_p": 0.800000011920929, "alpha_n": 0.800000011920929},
    ),
    "hardtanh": Row("x clamped to [min_val, max_val].", defaults={"min_val": -1.0, "max_val": 1.0}),
    "relu_max": Row("relu(min(x, upper_limit)).", ALL, given=("upper_limit",)),
    "relu_min": Row("max(x, lower_limit).", ALL, given=("lower_limit",)),
    "heaviside": Row("0 below 0, `value` at 0, 1 above.", given=("value",)),
    "threshold": Row("x above `threshold`, else `value`.", given=("threshold", "value")),
    "fill": Row("fill_value everywhere.", BUT_BYTES, given=("fill_value",)),
    "rpow": Row("exponent ** x.", given=("exponent",)),
    "rdiv": Row("value / x.", given=("value",), unmodelled=("rounding_mode",)),
}
UNARY_OPS = {name: unary(name, row) for name, row in UNARY.items()}


@op("ttnn.round")
def round(
    input_tensor: Tensor, *, decimals: int | None = 0, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """x to `decimals` places, halves to even.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    params = {"decimals": decimals or 0}
    return apply_unary("ttnn.round", "round", "ROUND", NONE, input_tensor, memory_config, output_tensor, params)


@op("ttnn.unary_chain")
def unary_chain(
    input_tensor: Tensor, ops_chain, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """Unary functions one after the other, each rounded to the dtype.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
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
    """1 where x == 0, written into x.

    Shapes    any; kept
    Dtypes    floats, uint32, int32, uint16; kept
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    return apply_unary(
        "ttnn.logical_not_", "logical_not", "LOGICAL_NOT_UNARY", BUT_BYTES, input_tensor, memory_config, input_tensor
    )


@op("ttnn.plus_one")
def plus_one(input_tensor: Tensor, sub_core_grids=None, skip_negative_entries: bool = False) -> Tensor:
    """x + 1 in place, of positions; with skip_negative_entries negative ones stay.

    Shapes    any, in ROW_MAJOR; kept
    Dtypes    int32, uint32; kept
    Source    recorded contract, op `ttnn.plus_one`
    """
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
    """x * Phi(x), by a look-up table of the vector unit in the fast form.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Source    recorded contract, op `ttnn.gelu`
    """
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
    """1 / (1 + exp(-x)).

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Numerics  in the fast form of bfloat16 and the block formats by a look-up table
    Source    recorded contract, op `ttnn.sigmoid`
    """
    fast = mode is SigmoidMode.FastApproximate and input_tensor.dtype is not float32
    whole = vector_mode == 4  # of every face of a tile
    refuse_unmodelled(
        "ttnn.sigmoid", mode=None if fast or mode is SigmoidMode.Accurate else mode,
        vector_mode=None if whole else vector_mode,
    )  # fmt: skip
    params = {"fast_and_approximate_mode": True} if fast else None
    return apply_unary("ttnn.sigmoid", "sigmoid", "SIGMOID", NONE, input_tensor, memory_config, output_tensor, params)


@op("ttnn.sigmoid_accurate")
def sigmoid_accurate(
    input_tensor: Tensor, fast_and_approximate_mode: bool = False, *, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """1 / (1 + exp(-x)).

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    refuse_unmodelled("ttnn.sigmoid_accurate", fast_and_approximate_mode=fast_and_approximate_mode)
    return apply_unary("ttnn.sigmoid_accurate", "sigmoid", "SIGMOID", NONE, input_tensor, memory_config, output_tensor)
