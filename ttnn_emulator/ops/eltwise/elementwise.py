"""Element-wise ops of two operands: arithmetic, comparisons and logic on tensors and numbers."""

from __future__ import annotations

import torch

from ... import numerics
from ...dtypes import FLOATS, INTEGERS, DataType, Layout, cpp, int32, uint8, uint16, uint32
from ...errors import DeviceRejects, NotEmulated
from ...memory import MemoryConfig
from ...names import library_names
from ...op import op
from ...oplog import describe
from ...tensor import Tensor
from .binary import (
    ANY,
    BUT_BYTES,
    OTHER_UNIT,
    WIDE,
    alike,
    bytes_mix,
    documented,
    first_dtype,
    float_of_two,
    floats_mix,
    floats_mix_with_all,
    from_numerics,
    number,
    plain,
    quotient,
    run,
    wide_flag,
)
from .unary import apply_unary


def arithmetic(name, kind, doc, *aliases, compute, accepted=BUT_BYTES, mixed=floats_mix, out_dtype=first_dtype):
    """The op `ttnn.<name>` of two tensors, or a tensor and a number in either order, and its in-place form."""
    full, commutes = f"ttnn.{name}", kind in ("ADD", "MUL")

    @op(full, *(f"ttnn.{a}" for a in aliases))
    def call(
        input_tensor_a, input_tensor_b, *, fast_and_approximate_mode: bool | None = None, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        return run(
            full, kind, OTHER_UNIT.get((name, fast_and_approximate_mode), compute), accepted, mixed, out_dtype,
            input_tensor_a,
            input_tensor_b, dtype, memory_config, output_tensor, activations, input_tensor_a_activations,
            input_tensor_b_activations, commutes=commutes,
        )  # fmt: skip

    call.__doc__ = documented(doc, accepted, mixed, out_dtype)
    in_place(name, kind, doc, *aliases, compute=compute, accepted=accepted, mixed=mixed, out_dtype=out_dtype)
    return call


def in_place(name, kind, doc, *aliases, compute, accepted, mixed, out_dtype):
    """The op `ttnn.<name>_`: as `ttnn.<name>`, written into the first operand, which comes back."""
    full = f"ttnn.{name}_"
    out_dtype = in_integers if kind == "DIV" else out_dtype

    def into(a, b, activations, on_a, on_b, fast):
        if not isinstance(a, Tensor):
            raise TypeError(f"{full}(): incompatible function arguments.\n  got    {describe(a)} as the first operand")
        function = OTHER_UNIT.get((name, fast), compute)
        return run(full, kind, function, accepted, mixed, out_dtype, a, b, None, None, a, activations, on_a, on_b)

    if name in ("add", "subtract"):

        def call(
            input_tensor_a: Tensor, input_tensor_b, *, activations=(), input_tensor_a_activations=(),
            input_tensor_b_activations=(), fast_and_approximate_mode: bool | None = None, sub_core_grids=None,
            sub_device_id=None,
        ) -> Tensor:  # fmt: skip
            return into(
                input_tensor_a, input_tensor_b, activations, input_tensor_a_activations, input_tensor_b_activations,
                fast_and_approximate_mode,
            )  # fmt: skip
    else:

        def call(
            input_a: Tensor, input_b, *, activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(),
            fast_and_approximate_mode: bool | None = None, sub_core_grids=None, sub_device_id=None,
        ) -> Tensor:  # fmt: skip
            return into(
                input_a,
                input_b,
                activations,
                input_tensor_a_activations,
                input_tensor_b_activations,
                fast_and_approximate_mode,
            )

    call.__doc__ = documented(f"{doc} Written into the first operand.", accepted, mixed, first_dtype)
    return op(full, *(f"ttnn.{a}_" for a in aliases))(call)


def in_integers(kind, a, b):
    """Division in place has no integer result."""
    natural = quotient(kind, a, b)
    if a is int32 and b is int32:
        raise DeviceRejects("For integer division, supported output dtype is FLOAT32")
    return natural


def compared(function):
    """The computation of an op of the table below: by the numerics' name, or a torch function of two values, which of a
    float32 and a bfloat16 sees what the FPU subtracts."""
    if isinstance(function, str):
        return from_numerics(function)
    one_rounding = plain(function)

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        mixed = torch.is_tensor(y) and {x.dtype, y.dtype} == {torch.float32, torch.bfloat16}
        if mixed and function in _OF_DIFFERENCES:
            x, y = numerics.now().sub(x, y, "float32", a_dtype, b_dtype), 0
        return one_rounding(x, y, dtype, a_dtype, b_dtype)

    return compute


_OF_DIFFERENCES = (torch.eq, torch.ne, torch.gt, torch.ge, torch.lt, torch.le)


def comparison(name, kind, doc, function, accepted=ANY, mixed=bytes_mix, out_dtype=wide_flag):
    """The op `ttnn.<name>` of a tensor and a tensor or number: 1 where it holds, else 0; and in place."""
    full, compute = f"ttnn.{name}", compared(function)

    @op(full)
    def call(
        input_tensor_a: Tensor, input_tensor_b, *, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None,
        output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(),
        input_tensor_b_activations=(),
        sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        return run(
            full, kind, compute, accepted, mixed, out_dtype, input_tensor_a, input_tensor_b, dtype, memory_config,
            output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations,
        )  # fmt: skip

    call.__doc__ = documented(doc, accepted, mixed, out_dtype)
    if f"{name}_" in library_names()["ttnn"]:
        in_place(name, kind, doc, compute=compute, accepted=accepted, mixed=mixed, out_dtype=out_dtype)
    return call


FLOAT_PAIRS = dict(accepted=FLOATS, mixed=alike, out_dtype=first_dtype)
FLAGS = dict(accepted=BUT_BYTES, mixed=floats_mix, out_dtype=first_dtype)

add = arithmetic("add", "ADD", "a + b.", compute=from_numerics("add"))
subtract = arithmetic("subtract", "SUB", "a - b.", "sub", compute=from_numerics("sub"))
multiply = arithmetic(
    "multiply", "MUL", "a * b.", "mul", compute=from_numerics("mul"), mixed=floats_mix_with_all, out_dtype=float_of_two
)
rsub = comparison("rsub", "RSUB", "b - a.", "rsub", **FLAGS)
eq = comparison("eq", "EQ", "1 where a == b.", torch.eq)
ne = comparison("ne", "NE", "1 where a != b.", torch.ne)
gt = comparison("gt", "GT", "1 where a > b.", torch.gt)
ge = comparison("ge", "GE", "1 where a >= b.", torch.ge)
lt = comparison("lt", "LT", "1 where a < b.", torch.lt)
le = comparison("le", "LE", "1 where a <= b.", torch.le)
logical_and = comparison("logical_and", "LOGICAL_AND", "1 where both are not 0.", torch.logical_and, **FLAGS)
logical_or = comparison("logical_or", "LOGICAL_OR", "1 where one is not 0.", torch.logical_or, **FLAGS)
logical_xor = comparison("logical_xor", "LOGICAL_XOR", "1 where exactly one is not 0.", torch.logical_xor, **FLAGS)
squared_difference = comparison("squared_difference", "SQUARED_DIFFERENCE", "(a - b)^2.", "squared_difference", **FLAGS)
logaddexp = comparison("logaddexp", "LOGADDEXP", "log(exp(a) + exp(b)).", torch.logaddexp, **FLOAT_PAIRS)
logaddexp2 = comparison("logaddexp2", "LOGADDEXP2", "log2(2 ** a + 2 ** b).", torch.logaddexp2, **FLOAT_PAIRS)
ldexp = comparison("ldexp", "LDEXP", "a * 2 ** b.", "ldexp", **FLOAT_PAIRS)
xlogy = comparison("xlogy", "XLOGY", "a * log(b).", torch.xlogy, **FLOAT_PAIRS)


def rounded_quotient(mode: str):
    """The quotient as `div` leaves it, then an op of its own that rounds it to a whole number."""

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        n, between = numerics.now(), "float32" if dtype == "float32" else "bfloat16"
        return n.unary(mode, n.div(x, y, between, a_dtype, b_dtype), dtype)

    return compute


@op("ttnn.div", "ttnn.divide")
def div(
    input_tensor_a, input_tensor_b=None, *, value=None, fast_and_approximate_mode: bool | None = None,
    rounding_mode=None,
    dtype: DataType | None = None, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None,
    sub_device_id=None,
) -> Tensor:  # fmt: skip
    """a / b. Two int32 tensors give float32.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32; see the first line
    Source    recorded contract, op `ttnn.div`
    """
    if rounding_mode not in (None, "trunc", "floor"):
        raise DeviceRejects("Incorrect rounding mode (expected None, 'trunc', or 'floor')")
    b = value if input_tensor_b is None else input_tensor_b
    function = from_numerics("div")
    if rounding_mode is not None:
        if any(isinstance(v, Tensor) and v.dtype in INTEGERS for v in (input_tensor_a, b)):
            raise NotEmulated(f"ttnn.div of integers with rounding_mode={rounding_mode!r} has no model in the emulator")
        function = rounded_quotient(rounding_mode)
    else:
        function = OTHER_UNIT.get(("div", fast_and_approximate_mode), function)
    return run(
        "ttnn.div", "DIV", function, WIDE, floats_mix_with_all, quotient, input_tensor_a, b, dtype, memory_config,
        output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations, integral=False,
    )  # fmt: skip


divide_ = in_place(
    "divide",
    "DIV",
    "a / b.",
    "div",
    compute=from_numerics("div"),
    accepted=WIDE,
    mixed=floats_mix_with_all,
    out_dtype=quotient,
)


@op("ttnn.pow")
def pow(
    input_tensor, exponent, *, dtype: DataType | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(),
) -> Tensor:  # fmt: skip
    """x ** exponent; integers take a whole exponent that is not negative.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    floats, both the same; integers but uint8 with a number
    Source    recorded contract, op `ttnn.pow`
    """
    x = input_tensor
    if not isinstance(exponent, Tensor) and isinstance(x, Tensor):
        e = number("ttnn.pow", exponent)
        kind = "POWER_ITERATIVE" if e == int(e) and e >= 0 else "POWER"
        if x.dtype in INTEGERS and x.dtype is not uint8:
            if e != int(e):
                raise DeviceRejects(f"pow: {cpp(x.dtype)} input requires an integral exponent, got {e:g}")
            if e < 0:
                raise DeviceRejects(f"pow: integers to negative integer powers are not allowed, got {e:g}")
            if x.layout is not Layout.TILE:
                raise DeviceRejects(f"pow_int: input must be in TILE layout, got {cpp(x.layout)}")
        return apply_unary(
            "ttnn.pow", "pow", kind, INTEGERS - {uint8}, x, memory_config, output_tensor,
            {"exponent": int(e) if x.dtype in INTEGERS else e},
        )  # fmt: skip
    base = x if isinstance(x, Tensor) else exponent
    if isinstance(base, Tensor) and base.dtype in (uint32, int32, uint16):
        raise DeviceRejects(
            f"Input tensor A dtype {cpp(base.dtype)} is not supported for binary operation POWER: tensor "
            "exponents are not "
            "supported for integer inputs, use a scalar integer exponent"
        )
    return run(
        "ttnn.pow", "POWER", plain(torch.pow), FLOATS, alike, first_dtype, x, exponent, dtype, memory_config,
        output_tensor,
        activations, input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip


def extremum(name: str, kind: str, doc: str, function):
    """The op `ttnn.<name>` of a tensor and a tensor of the same dtype or a number."""
    full, compute = f"ttnn.{name}", plain(function)

    @op(full)
    def call(
        input_tensor_a: Tensor, input_tensor_b=None, *, input_b=None, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(),
    ) -> Tensor:  # fmt: skip
        b = input_b if input_tensor_b is None else input_tensor_b
        if not isinstance(b, Tensor) and input_tensor_a.dtype in (uint16, uint8):
            kind_ = f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(input_tensor_a.dtype)}"
            raise DeviceRejects(kind_)
        return run(
            full, kind, compute, WIDE, alike, first_dtype, input_tensor_a, b, dtype, memory_config, output_tensor,
            activations,
            input_tensor_a_activations, input_tensor_b_activations, integral=False,
        )  # fmt: skip

    call.__doc__ = documented(doc, WIDE, alike, first_dtype)
    return call


maximum = extremum("maximum", "MAXIMUM", "The larger of a and b.", torch.maximum)
minimum = extremum("minimum", "MINIMUM", "The smaller of a and b.", torch.minimum)
WHOLE = frozenset((int32, uint32, uint16))


def whole(name: str, kind: str, doc: str, function):
    """The op `ttnn.<name>` of integer tensors, bit by bit."""
    full = f"ttnn.{name}"

    @op(full)
    def call(
        input_tensor_a: Tensor, input_tensor_b=None, *, input_b=None, memory_config: MemoryConfig | None = None,
        output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(),
        input_tensor_b_activations=(),
        sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        b = input_b if input_tensor_b is None else input_tensor_b
        if not isinstance(b, Tensor):
            if not isinstance(b, int):
                raise TypeError(
                    f"{full}(): incompatible function arguments.\n  got    {describe(b)} where an int is wanted"
                )
            if input_tensor_a.dtype in FLOATS:
                raise DeviceRejects(
                    f"Unsupported input dtype for bitwise/shift op_type BinaryOpType::{kind}: expected Int32, "
                    "UInt32, or UInt16."
                )
        return run(
            full, kind, plain(function), WHOLE, alike, first_dtype, input_tensor_a, b,
            None,
            memory_config, output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations,
        )  # fmt: skip

    call.__doc__ = documented(doc, WHOLE, alike, first_dtype)
    return call


bitwise_and = whole("bitwise_and", "BITWISE_AND", "a and b, bit by bit.", torch.bitwise_and)
bitwise_or = whole("bitwise_or", "BITWISE_OR", "a or b, bit by bit.", torch.bitwise_or)
bitwise_xor = whole("bitwise_xor", "BITWISE_XOR", "a exclusive-or b, bit by bit.", torch.bitwise_xor)
bitwise_left_shift = whole("bitwise_left_shift", "LEFT_SHIFT", "a * 2^b.", torch.bitwise_left_shift)
bitwise_right_shift = whole("bitwise_right_shift", "RIGHT_SHIFT", "a / 2^b, rounded down.", torch.bitwise_right_shift)
