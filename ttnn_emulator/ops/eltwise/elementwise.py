"""Element-wise ops of two operands: arithmetic, comparisons and logic on tensors and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ... import numerics
from ...dtypes import FLOATS, INTEGERS, DataType, Layout, cpp, int32, uint8, uint16, uint32
from ...errors import DeviceRejects, NotEmulated
from ...memory import MemoryConfig
from ...names import library_names
from ...op import op, refuse_unmodelled
from ...oplog import describe
from ...tensor import Tensor
from .binary import (
    COMPARED,
    FLOAT_PAIRS,
    OTHER_UNIT,
    PAIRS,
    PRODUCTS,
    QUOTIENTS,
    SUMS,
    WHOLE,
    Rule,
    documented,
    first_dtype,
    from_numerics,
    number,
    plain,
    quotient,
    run,
)
from .unary import apply_unary


class Row(NamedTuple):
    """A binary op: what it computes (a torch function, or by the numerics' name), what it takes and makes, what
    refusals call it (by default its name), and its other names."""

    doc: str
    function: Callable | str
    rule: Rule
    kind: str | None = None
    aliases: tuple[str, ...] = ()


def computed(function):
    """The computation of a row; a comparison of a float32 and a bfloat16 sees what the FPU subtracts."""
    if isinstance(function, str):
        return from_numerics(function)
    one_rounding = plain(function)
    if function not in (torch.eq, torch.ne, torch.gt, torch.ge, torch.lt, torch.le):
        return one_rounding

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        if torch.is_tensor(y) and {x.dtype, y.dtype} == {torch.float32, torch.bfloat16}:
            x, y = numerics.now().sub(x, y, "float32", a_dtype, b_dtype), 0
        return one_rounding(x, y, dtype, a_dtype, b_dtype)

    return compute


def arithmetic(full: str, kind: str, compute, rule: Rule):
    """An op of two tensors, or a tensor and a number in either order, that has two units to choose from."""

    def call(
        input_tensor_a, input_tensor_b, *, fast_and_approximate_mode: bool | None = None, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        return run(
            full, kind, OTHER_UNIT.get((kind, fast_and_approximate_mode), compute), rule, input_tensor_a,
            input_tensor_b, dtype, memory_config, output_tensor, activations, input_tensor_a_activations,
            input_tensor_b_activations, commutes=kind in ("ADD", "MUL"),
        )  # fmt: skip

    return call


def combination(full: str, kind: str, compute, rule: Rule):
    """An op of a tensor, and a tensor or number: comparisons, logic and what else knows one unit only."""

    def call(
        input_tensor_a: Tensor, input_tensor_b, *, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        return run(
            full, kind, compute, rule, input_tensor_a, input_tensor_b, dtype, memory_config, output_tensor,
            activations, input_tensor_a_activations, input_tensor_b_activations,
        )  # fmt: skip

    return call


def extremum(full: str, kind: str, compute, rule: Rule):
    """An op of a tensor, and a tensor of the same dtype or a number."""

    def call(
        input_tensor_a: Tensor, input_tensor_b=None, *, input_b=None, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(),
    ) -> Tensor:  # fmt: skip
        b = input_b if input_tensor_b is None else input_tensor_b
        if not isinstance(b, Tensor) and input_tensor_a.dtype in (uint16, uint8):
            called = cpp(input_tensor_a.dtype)
            raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {called}")
        return run(
            full, kind, compute, rule, input_tensor_a, b, dtype, memory_config, output_tensor, activations,
            input_tensor_a_activations, input_tensor_b_activations, integral=False,
        )  # fmt: skip

    return call


def bitwise(full: str, kind: str, compute, rule: Rule):
    """An op of integer tensors, or one and an integer, bit by bit."""

    def call(
        input_tensor_a: Tensor, input_tensor_b=None, *, input_b=None, memory_config: MemoryConfig | None = None,
        output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(),
        input_tensor_b_activations=(), sub_core_grids=None, sub_device_id=None,
    ) -> Tensor:  # fmt: skip
        b = input_b if input_tensor_b is None else input_tensor_b
        if not isinstance(b, Tensor):
            if not isinstance(b, int):
                raise TypeError(
                    f"{full}(): incompatible function arguments.\n  got    {describe(b)} where an int is wanted"
                )
            if input_tensor_a.dtype in FLOATS:
                raise DeviceRejects(
                    f"Unsupported input dtype for bitwise/shift op_type UnaryOpType::{kind}: expected Int32, "
                    "UInt32, or UInt16."
                )
            if input_tensor_a.dtype is uint8:
                called = cpp(uint8)
                raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {called}")
        return run(
            full, kind, compute, rule, input_tensor_a, b, None, memory_config, output_tensor, activations,
            input_tensor_a_activations, input_tensor_b_activations,
        )  # fmt: skip

    return call


def in_place(full: str, kind: str, compute, rule: Rule):
    """As `ttnn.<name>`, written into the first operand, which comes back."""

    def into(a, b, activations, on_a, on_b, fast):
        if not isinstance(a, Tensor):
            raise TypeError(f"{full}(): incompatible function arguments.\n  got    {describe(a)} as the first operand")
        function = OTHER_UNIT.get((kind, fast), compute)
        return run(full, kind, function, rule, a, b, None, None, a, activations, on_a, on_b)

    if kind in ("ADD", "SUB"):

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
                input_a, input_b, activations, input_tensor_a_activations, input_tensor_b_activations,
                fast_and_approximate_mode,
            )  # fmt: skip

    return call


#: The op `ttnn.<name>` for each, by the form of its call.
BINARY = {
    arithmetic: {
        "add": Row("a + b.", "add", SUMS),
        "subtract": Row("a - b.", "sub", SUMS, "SUB", ("sub",)),
        "multiply": Row("a * b.", "mul", PRODUCTS, "MUL", ("mul",)),
    },
    combination: {
        "rsub": Row("b - a.", "rsub", SUMS),
        "eq": Row("1 where a == b.", torch.eq, COMPARED),
        "ne": Row("1 where a != b.", torch.ne, COMPARED),
        "gt": Row("1 where a > b.", torch.gt, COMPARED),
        "ge": Row("1 where a >= b.", torch.ge, COMPARED),
        "lt": Row("1 where a < b.", torch.lt, COMPARED),
        "le": Row("1 where a <= b.", torch.le, COMPARED),
        "logical_and": Row("1 where both are not 0.", torch.logical_and, SUMS),
        "logical_or": Row("1 where one is not 0.", torch.logical_or, SUMS),
        "logical_xor": Row("1 where exactly one is not 0.", torch.logical_xor, SUMS),
        "squared_difference": Row("(a - b)^2.", "squared_difference", SUMS),
        "logaddexp": Row("log(exp(a) + exp(b)).", torch.logaddexp, FLOAT_PAIRS),
        "logaddexp2": Row("log2(2 ** a + 2 ** b).", torch.logaddexp2, FLOAT_PAIRS),
        "ldexp": Row("a * 2 ** b.", "ldexp", FLOAT_PAIRS),
        "xlogy": Row("a * log(b).", torch.xlogy, FLOAT_PAIRS),
    },
    extremum: {
        "maximum": Row("The larger of a and b.", torch.maximum, PAIRS),
        "minimum": Row("The smaller of a and b.", torch.minimum, PAIRS),
    },
    bitwise: {
        "bitwise_and": Row("a and b, bit by bit.", torch.bitwise_and, WHOLE),
        "bitwise_or": Row("a or b, bit by bit.", torch.bitwise_or, WHOLE),
        "bitwise_xor": Row("a exclusive-or b, bit by bit.", torch.bitwise_xor, WHOLE),
        "bitwise_left_shift": Row("a * 2^b.", torch.bitwise_left_shift, WHOLE, "LEFT_SHIFT"),
        "bitwise_right_shift": Row("a / 2^b, rounded down.", torch.bitwise_right_shift, WHOLE, "RIGHT_SHIFT"),
    },
}


def in_integers(kind, a, b):
    """Division in place has no integer result."""
    natural = quotient(kind, a, b)
    if a is int32 and b is int32:
        raise DeviceRejects("For integer division, supported output dtype is FLOAT32")
    return natural


#: Those that have a form in place too, `ttnn.<name>_`.
IN_PLACE = {
    name: row
    for form in (arithmetic, combination)
    for name, row in BINARY[form].items()
    if f"{name}_" in library_names()["ttnn"]
} | {"divide": Row("a / b.", "div", QUOTIENTS._replace(makes=in_integers), "DIV", ("div",))}


def _reversed(plain):
    """rsub's own keywords: another name for a number, and a choice of unit of which only the default is modelled."""

    def call(
        input_tensor_a: Tensor, input_tensor_b=None, *, input_b=None, dtype: DataType | None = None,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
        input_tensor_a_activations=(), input_tensor_b_activations=(), fast_and_approximate_mode: bool | None = True,
    ) -> Tensor:  # fmt: skip
        refuse_unmodelled("ttnn.rsub", fast_and_approximate_mode=None if fast_and_approximate_mode else "False")
        return plain(
            input_tensor_a, input_b if input_tensor_b is None else input_tensor_b, dtype=dtype,
            memory_config=memory_config, output_tensor=output_tensor, activations=activations,
            input_tensor_a_activations=input_tensor_a_activations,
            input_tensor_b_activations=input_tensor_b_activations,
        )  # fmt: skip

    return call


def binary(form, name: str, row: Row):
    """The op of a row of the tables."""
    into, rule = form is in_place, row.rule
    full, *aliases = (f"ttnn.{n}{'_' * into}" for n in (name, *row.aliases))
    call = form(full, row.kind or name.upper(), computed(row.function), rule)
    if name == "rsub" and not into:
        call = _reversed(call)
    call.__doc__ = documented(
        f"{row.doc} Written into the first operand." if into else row.doc,
        rule._replace(makes=first_dtype) if into else rule,
    )
    one_unit = into and name in BINARY[combination] and name != "rsub"
    return op(full, *aliases, lacks=("fast_and_approximate_mode",) if one_unit else ())(call)


OPS = {name: binary(form, name, row) for form, table in BINARY.items() for name, row in table.items()}
for _name, _row in IN_PLACE.items():
    binary(in_place, _name, _row)
add, multiply, maximum, minimum = (OPS[name] for name in ("add", "multiply", "maximum", "minimum"))


def rounded_quotient(mode: str):
    """The quotient as `div` leaves it, then an op of its own that rounds it to a whole number."""

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        n = numerics.now()
        return n.unary(mode, n.div(x, y, dtype, a_dtype, b_dtype), dtype)

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
        function = OTHER_UNIT.get(("DIV", fast_and_approximate_mode), function)
    return run(
        "ttnn.div", "DIV", function, QUOTIENTS, input_tensor_a, b, dtype, memory_config, output_tensor,
        activations, input_tensor_a_activations, input_tensor_b_activations, integral=False,
    )  # fmt: skip


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
        "ttnn.pow", "POWER", plain(torch.pow), FLOAT_PAIRS, x, exponent, dtype, memory_config, output_tensor,
        activations, input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip
