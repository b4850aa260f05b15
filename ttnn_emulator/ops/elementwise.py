"""Element-wise ops of two or three operands: arithmetic, comparisons and logic on tensors and numbers."""

from __future__ import annotations

import torch

from .. import numerics
from ..dtypes import (
    BLOCK_FORMATS,
    FLOATS,
    INTEGERS,
    NAME,
    DataType,
    Layout,
    bfloat4_b,
    bfloat16,
    cpp,
    float32,
    int32,
    uint8,
    uint16,
    uint32,
)
from ..errors import DeviceRejects, NotEmulated
from ..memory import MemoryConfig
from ..names import library_names
from ..numerics import rounding
from ..numerics.rows import EACH
from ..op import describe, op
from ..tensor import Tensor
from .sharding import binary_memory, result
from .unary import activation, apply_unary, finish, fused

BUT_BYTES = FLOATS | {uint32, int32, uint16}
WIDE = FLOATS | {uint32, int32}
ANY = FLOATS | INTEGERS


# ---------------------------------------------------------------- operands


def check_subtiles(a, b) -> None:
    """Refuses last two dims that differ and are not 1; vectors have no tiles to speak of."""
    if a != b and max(len(a), len(b)) > 1:
        for i in (1, 2):
            p, q = a[-i] if len(a) >= i else 1, b[-i] if len(b) >= i else 1
            if p != q and p != 1 and q != 1:
                hint = "the last two dims must be equal, or 1 in one operand"
                raise DeviceRejects("Invalid subtile broadcast type", hint)


def broadcast(a, b):
    """The shape of the result of two shapes: leading dims as numpy, the last two only 1 against n."""
    if a == b:
        return a
    check_subtiles(a, b)
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    for i, (p, q) in enumerate(zip(left, right, strict=True)):
        if p != q and p != 1 and q != 1:
            raise DeviceRejects(
                f"Broadcasting rule violation at dimension index {i - rank} (output rank {rank}), dim a: {p}, "
                f"dim b: {q}"
            )
    return tuple(q if p == 1 else p for p, q in zip(left, right, strict=True))


def operand(x, label: str) -> Tensor:
    """A tensor on the device, or the refusal in the words of the binary ops."""
    if x.buffer is None:
        raise DeviceRejects(f"Input tensor {label} must be on device, got storage type: StorageType::HOST")
    if not x.buffer.alive:
        raise DeviceRejects(f"Input Tensor {label} is not allocated", "it was deallocated earlier")
    return x


def number(name: str, value):
    """A Python number from a number or anything with a single item; other things are a TypeError."""
    if isinstance(value, (int, float)):
        return value
    if (hasattr(value, "item") and getattr(value, "size", 1) in (1, torch.Size([1]), torch.Size([]))) or (
        isinstance(value, torch.Tensor) and value.numel() == 1
    ):
        return value.item()
    raise TypeError(
        f"{name}(): incompatible function arguments.\n  got    {describe(value)} where a tensor or a number is wanted"
    )


def check_activations(name: str, *lists) -> None:
    for given in lists:
        if not isinstance(given, (list, tuple)) or any(isinstance(v, str) for v in given):
            raise TypeError(
                f"{name}(): incompatible function arguments.\n  got    activations = {describe(given)}\n"
                "  want   a list of ttnn.UnaryOpType or ttnn.UnaryWithParam"
            )


def check_dtypes(kind: str, a: DataType, b: DataType, accepted, mixed, shapes=None) -> None:
    """Refuses what the binary op `kind` does not take: dtypes outside `accepted`, then pairs that are not `mixed`."""
    for label, dtype in (("A", a), ("B", b)):
        if dtype not in accepted:
            raise DeviceRejects(
                f"Input tensor {label} dtype {cpp(dtype)} is not supported for binary operation BinaryOpType::{kind}"
            )
    if shapes is not None:
        check_subtiles(*shapes)
    if not mixed(a, b):
        if accepted is ANY:  # comparisons read bytes as uint16
            a, b = (uint16 if d is uint8 else d for d in (a, b))
        raise DeviceRejects(
            f"Mixed dtype is not supported for binary operation BinaryOpType::{kind}, dtype A: {cpp(a)}, "
            f"dtype B: {cpp(b)}"
        )


def alike(a, b) -> bool:
    return a is b


def floats_mix(a, b) -> bool:
    return a is b or (a in FLOATS and b in FLOATS)


def floats_mix_with_all(a, b) -> bool:
    return a is b or (a in FLOATS and b in WIDE) or (b in FLOATS and a in WIDE)


def bytes_mix(a, b) -> bool:
    return floats_mix(a, b) or {a, b} == {uint8, uint16}


def check_scalar(kind: str, dtype: DataType, value) -> None:
    """Refuses a fraction as the operand of a 32-bit integer tensor."""
    if dtype in (uint32, int32) and float(value) != int(value):
        raise DeviceRejects(
            f"Binary operation BinaryOpType::{kind} with a {cpp(dtype)} tensor cannot represent the scalar "
            f"{value:g}: only a "
            f"finite integer within the range of {cpp(dtype)} survives"
        )


# ---------------------------------------------------------------- what comes out


def first_dtype(kind, a, b):
    """The dtype of the first operand."""
    return a


def float_of_two(kind, a, b):
    """A float operand beside an integer makes the result float; block formats become bfloat16."""
    if a in INTEGERS and b in FLOATS:
        return bfloat16 if b in BLOCK_FORMATS else b
    return a


def quotient(kind, a, b):
    if a in INTEGERS and b in INTEGERS:
        if a is not int32:
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a)} is not supported for binary operation BinaryOpType::{kind}"
            )
        if b is not int32:
            raise DeviceRejects(
                f"Input tensor B dtype {cpp(b)} is not supported for binary operation BinaryOpType::{kind}"
            )
        return float32
    return float_of_two(kind, a, b)


def wide_flag(kind, a, b):
    """Comparisons of bytes come as uint16."""
    return uint16 if a is uint8 else a


def _plain(function):
    """A compute from a torch function of two float32 values (a number stays a number), rounded once to the dtype."""

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        whole = not x.is_floating_point() and not (torch.is_tensor(y) and y.is_floating_point())
        x = x.to(torch.int64 if whole else torch.float32)
        if torch.is_tensor(y):
            y = y.to(x.dtype)
        else:
            y = torch.tensor(rounding.scalar(y) if a_dtype == "bfloat16" else y, dtype=x.dtype, device=x.device)
        z = function(x, y)
        if dtype not in rounding.FLOATS:
            return rounding.cast_integer(z, dtype)
        if dtype in rounding.BLOCK_FORMATS:
            return rounding.pack(z.to(torch.float32), dtype)
        return z.to(rounding.HELD_AS[dtype])

    return compute


def _from_numerics(name):
    return lambda x, y, dtype, a_dtype=None, b_dtype=None: getattr(numerics.now(), name)(x, y, dtype, a_dtype, b_dtype)


def _on_matrix_unit(x, y, dtype, a_dtype=None, b_dtype=None):
    """x * y on the matrix unit, as the numerics multiply block formats."""
    y = y if torch.is_tensor(y) else torch.full_like(x, y)
    return numerics.now().mul(x, y, dtype, "bfloat8_b", b_dtype)


#: What `fast_and_approximate_mode` chooses where it is not the default: (op, mode) -> computation.
#: Source: ttnn 0.81.1, BINARY_OP and BINARY_SFPU_OP of the kernels that it builds.
_OTHER_UNIT = {
    ("add", False): _plain(torch.add), ("subtract", False): _plain(torch.sub), ("multiply", True): _on_matrix_unit,
}  # fmt: skip


def _fused(acts):
    """Fused activations as [(function, keywords)]."""
    return [fused(activation(a)) for a in acts]


def _apply(acts, v, dtype):
    for name, params in acts:
        v = numerics.now().unary(name, v, dtype, **params)
    return v


def compute_of(function, made: str, first: str, second: str | None, on_a, on_b, after, scalar=None, reverse=False):
    """The values of a binary op: activations on the operands, the function, activations on the result."""
    if not (on_a or on_b or after):
        if second is not None:
            return lambda x, y: function(x, y, made, first, second)
        if not reverse:
            return lambda x: function(x, scalar, made, first)
    between = "float32" if made == "float32" else "bfloat16" if made in rounding.FLOATS else made

    def compute(x, y=scalar):
        x = _apply(on_a, x, first)
        if second is not None:
            y = _apply(on_b, y, second)
        elif reverse:
            x, y = torch.full_like(x, y), x
        if not after:
            return function(x, y, made, first, second or first)
        z = _apply(after, function(x, y, between, first, second or first), between)
        return rounding.pack(z, made) if made in rounding.BLOCK_FORMATS else z

    return compute


def run(
    name, kind, function, accepted, mixed, out_dtype, a, b, dtype=None, memory_config=None, output_tensor=None,
    activations=(),
    on_a=(), on_b=(), integral=True, commutes=False,
):  # fmt: skip
    """One binary op, from its checks to its result."""
    check_activations(name, activations, on_a, on_b)
    reverse = False
    if not isinstance(a, Tensor):
        a, b, reverse = b, number(name, a), True
        if not isinstance(a, Tensor):
            raise TypeError(
                f"{name}(): incompatible function arguments.\n  got    two numbers\n  want   at least one tensor"
            )
        if commutes:
            reverse = False
    two = isinstance(b, Tensor)
    if output_tensor is not None and a.layout is Layout.ROW_MAJOR and not (two and b.layout is Layout.TILE):
        raise DeviceRejects(
            "Optional output tensor with Row Major input is not supported right now for Elementwise operations"
        )
    if two:
        operand(a, "A"), operand(b, "B")
        natural = out_dtype(kind, a.dtype, b.dtype)
        check_dtypes(kind, a.dtype, b.dtype, accepted, mixed, (a.spec.shape, b.spec.shape))
        shape = broadcast(a.spec.shape, b.spec.shape)
    else:
        b = number(name, b)
        if a.buffer is not None and not a.buffer.alive:
            raise DeviceRejects("Input Tensor is not allocated", "it was deallocated earlier")
        operand(a, "A")
        shape = a.spec.shape
        if a.dtype not in accepted:
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a.dtype)} is not supported for binary operation BinaryOpType::{kind}"
            )
        natural = scalar_dtype(kind, out_dtype, a.dtype, b)
        if integral and natural in INTEGERS:
            check_scalar(kind, a.dtype, b)
    if output_tensor is not None:
        if dtype is not None and dtype is not output_tensor.dtype:
            raise DeviceRejects("If both output dtype and output tensor are provided, their dtypes should match")
        if output_tensor.spec.shape != tuple(shape):
            raise DeviceRejects(
                f"Shape of Output tensor {output_tensor.spec.shape} provided does not match the broadcasted output "
                f"shape Shape([{', '.join(map(str, shape))}])"
            )
        if output_tensor.buffer is None:
            raise DeviceRejects("Device Operations expect device tensors as inputs")
        dtype = output_tensor.dtype
    other = b if two else None
    layout = a.layout if other is None or a.layout is b.layout else Layout.TILE
    if output_tensor is None:
        out = result(shape, dtype or natural, layout, binary_memory(a, other, shape, memory_config))
    else:
        out = output_tensor.spec
    made, first = NAME[out.dtype], NAME[a.dtype]
    compute = compute_of(
        function, made, first, NAME[b.dtype] if two else None, _fused(on_a), _fused(on_b), _fused(activations),
        None if two else b, reverse,
    )  # fmt: skip
    return finish(name, (a, b) if two else (a,), out, compute, output_tensor, flops=out.shape.volume(), rows=EACH)


def scalar_dtype(kind, out_dtype, a: DataType, value) -> DataType:
    """The result's dtype for a tensor and a number: a float beside an integer may make it float32."""
    if a not in INTEGERS or (a is uint16 and out_dtype is not wide_flag and kind != "DIV"):
        return a
    if out_dtype is quotient:
        if a is uint16 or (a is uint32 and isinstance(value, int)):
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a)} is not supported for binary operation BinaryOpType::{kind}"
            )
        return float32
    if out_dtype is float_of_two and isinstance(value, float):
        return float32
    return out_dtype(kind, a, a)


# ---------------------------------------------------------------- the ops


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
            full, kind, _OTHER_UNIT.get((name, fast_and_approximate_mode), compute), accepted, mixed, out_dtype,
            input_tensor_a,
            input_tensor_b, dtype, memory_config, output_tensor, activations, input_tensor_a_activations,
            input_tensor_b_activations, commutes=commutes,
        )  # fmt: skip

    call.__doc__ = doc
    in_place(name, kind, doc, *aliases, compute=compute, accepted=accepted, mixed=mixed, out_dtype=out_dtype)
    return call


def in_place(name, kind, doc, *aliases, compute, accepted, mixed, out_dtype):
    """The op `ttnn.<name>_`: as `ttnn.<name>`, written into the first operand, which comes back."""
    full = f"ttnn.{name}_"
    out_dtype = in_integers if kind == "DIV" else out_dtype

    def into(a, b, activations, on_a, on_b, fast):
        if not isinstance(a, Tensor):
            raise TypeError(f"{full}(): incompatible function arguments.\n  got    {describe(a)} as the first operand")
        function = _OTHER_UNIT.get((name, fast), compute)
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

    call.__doc__ = f"{doc} Written into the first operand."
    return op(full, *(f"ttnn.{a}_" for a in aliases))(call)


def in_integers(kind, a, b):
    """Division in place has no integer result."""
    natural = quotient(kind, a, b)
    if a is int32 and b is int32:
        raise DeviceRejects("For integer division, supported output dtype is FLOAT32")
    return natural


def comparison(name, kind, doc, function, accepted=ANY, mixed=bytes_mix, out_dtype=wide_flag):
    """The op `ttnn.<name>` of a tensor and a tensor or number: 1 where it holds, else 0; and in place."""
    full, compute = f"ttnn.{name}", _plain(function)

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

    call.__doc__ = doc
    if f"{name}_" in library_names()["ttnn"]:
        in_place(name, kind, doc, compute=compute, accepted=accepted, mixed=mixed, out_dtype=out_dtype)
    return call


FLOAT_PAIRS = dict(accepted=FLOATS, mixed=alike, out_dtype=first_dtype)
FLAGS = dict(accepted=BUT_BYTES, mixed=floats_mix, out_dtype=first_dtype)

add = arithmetic("add", "ADD", "a + b.", compute=_from_numerics("add"))
subtract = arithmetic("subtract", "SUB", "a - b.", "sub", compute=_from_numerics("sub"))
multiply = arithmetic(
    "multiply", "MUL", "a * b.", "mul", compute=_from_numerics("mul"), mixed=floats_mix_with_all, out_dtype=float_of_two
)
rsub = comparison("rsub", "RSUB", "b - a.", lambda a, b: b - a, **FLAGS)
eq = comparison("eq", "EQ", "1 where a == b.", torch.eq)
ne = comparison("ne", "NE", "1 where a != b.", torch.ne)
gt = comparison("gt", "GT", "1 where a > b.", torch.gt)
ge = comparison("ge", "GE", "1 where a >= b.", torch.ge)
lt = comparison("lt", "LT", "1 where a < b.", torch.lt)
le = comparison("le", "LE", "1 where a <= b.", torch.le)
logical_and = comparison("logical_and", "LOGICAL_AND", "1 where both are not 0.", torch.logical_and, **FLAGS)
logical_or = comparison("logical_or", "LOGICAL_OR", "1 where one is not 0.", torch.logical_or, **FLAGS)
logical_xor = comparison("logical_xor", "LOGICAL_XOR", "1 where exactly one is not 0.", torch.logical_xor, **FLAGS)
squared_difference = comparison(
    "squared_difference", "SQUARED_DIFFERENCE", "(a - b)^2.", lambda a, b: (a - b).square(), **FLAGS
)
logaddexp = comparison("logaddexp", "LOGADDEXP", "log(exp(a) + exp(b)).", torch.logaddexp, **FLOAT_PAIRS)
logaddexp2 = comparison("logaddexp2", "LOGADDEXP2", "log2(2 ** a + 2 ** b).", torch.logaddexp2, **FLOAT_PAIRS)
ldexp = comparison("ldexp", "LDEXP", "a * 2 ** b.", lambda a, b: a * torch.exp2(b), **FLOAT_PAIRS)
xlogy = comparison("xlogy", "XLOGY", "a * log(b).", torch.xlogy, **FLOAT_PAIRS)


@op("ttnn.div", "ttnn.divide")
def div(
    input_tensor_a, input_tensor_b=None, *, value=None, fast_and_approximate_mode: bool | None = None,
    rounding_mode=None,
    dtype: DataType | None = None, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None,
    sub_device_id=None,
) -> Tensor:  # fmt: skip
    """a / b. Two int32 tensors give float32."""
    if rounding_mode not in (None, "trunc", "floor"):
        raise DeviceRejects("Incorrect rounding mode (expected None, 'trunc', or 'floor')")
    b = value if input_tensor_b is None else input_tensor_b
    function = _from_numerics("div")
    if rounding_mode is not None:
        if any(isinstance(v, Tensor) and v.dtype in INTEGERS for v in (input_tensor_a, b)):
            raise NotEmulated(f"ttnn.div of integers with rounding_mode={rounding_mode!r} has no model in the emulator")
        function = _plain(lambda x, y: torch.div(x, y, rounding_mode=rounding_mode))
    return run(
        "ttnn.div", "DIV", function, WIDE, floats_mix_with_all, quotient, input_tensor_a, b, dtype, memory_config,
        output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations, integral=False,
    )  # fmt: skip


divide_ = in_place(
    "divide",
    "DIV",
    "a / b.",
    "div",
    compute=_from_numerics("div"),
    accepted=WIDE,
    mixed=floats_mix_with_all,
    out_dtype=quotient,
)


@op("ttnn.pow")
def pow(
    input_tensor, exponent, *, dtype: DataType | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(),
) -> Tensor:  # fmt: skip
    """x ** exponent; integers take a whole exponent that is not negative."""
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
        "ttnn.pow", "POWER", _plain(torch.pow), FLOATS, alike, first_dtype, x, exponent, dtype, memory_config,
        output_tensor,
        activations, input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip


def extremum(name: str, kind: str, doc: str, function):
    """The op `ttnn.<name>` of a tensor and a tensor of the same dtype or a number."""
    full, compute = f"ttnn.{name}", _plain(function)

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

    call.__doc__ = doc
    return call


maximum = extremum("maximum", "MAXIMUM", "The larger of a and b.", torch.maximum)
minimum = extremum("minimum", "MINIMUM", "The smaller of a and b.", torch.minimum)


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
            full, kind, _plain(function), frozenset((int32, uint32, uint16)), alike, first_dtype, input_tensor_a, b,
            None,
            memory_config, output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations,
        )  # fmt: skip

    call.__doc__ = doc
    return call


bitwise_and = whole("bitwise_and", "BITWISE_AND", "a and b, bit by bit.", torch.bitwise_and)
bitwise_or = whole("bitwise_or", "BITWISE_OR", "a or b, bit by bit.", torch.bitwise_or)
bitwise_xor = whole("bitwise_xor", "BITWISE_XOR", "a exclusive-or b, bit by bit.", torch.bitwise_xor)
bitwise_left_shift = whole("bitwise_left_shift", "LEFT_SHIFT", "a * 2^b.", torch.bitwise_left_shift)
bitwise_right_shift = whole("bitwise_right_shift", "RIGHT_SHIFT", "a / 2^b, rounded down.", torch.bitwise_right_shift)


# ---------------------------------------------------------------- three operands


def _tiled(*tensors: Tensor) -> None:
    for t in tensors:
        if t.layout is not Layout.TILE and not t.is_sharded():
            raise DeviceRejects(
                "Ternary operation requires tensor to be in Tile layout when working with non-sharded input tensor. "
                f"Input tensor layout: {t.layout.value}"
            )


def _broadcast_three(name: str, a: Tensor, b: Tensor, c: Tensor):
    try:
        return broadcast(broadcast(a.spec.shape, b.spec.shape), c.spec.shape)
    except DeviceRejects:
        raise DeviceRejects(
            f"{name}: shapes {a.spec.shape}, {b.spec.shape} and {c.spec.shape} do not broadcast in a pattern the "
            "ternary kernel supports"
        ) from None


def _packed(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """float32 (or integer) values rounded once to a dtype."""
    if dtype in rounding.BLOCK_FORMATS:
        return rounding.pack(values, dtype)
    return values.to(rounding.HELD_AS[dtype]) if dtype in rounding.FLOATS else rounding.cast_integer(values, dtype)


@op("ttnn.where")
def where(
    predicate: Tensor, true_value, false_value, *, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """true_value where the predicate is not 0, else false_value; each a tensor or a number.

    Dtypes    that of `true_value`; with a number, tensors are of the predicate's dtype and so is the result
    """
    p, t, f = operand(predicate, "A"), true_value, false_value
    tensors = [v for v in (t, f) if isinstance(v, Tensor)]
    for v in tensors:
        operand(v, "B")
    if not tensors:
        if p.dtype in (uint16, uint8):
            raise DeviceRejects(f"Unary: UnaryOpType::WHERE_TSS does not support integer input dtype {cpp(p.dtype)}")
        shape, dtype = p.spec.shape, float32 if p.dtype in INTEGERS else p.dtype
    elif len(tensors) == 1:
        check_dtypes("WHERE_TTS" if isinstance(t, Tensor) else "WHERE_TST", p.dtype, tensors[0].dtype, WIDE, alike)
        _tiled(p, *tensors)
        shape, dtype = broadcast(p.spec.shape, tensors[0].spec.shape), p.dtype
    else:
        _tiled(p, t, f)
        shape, dtype = _broadcast_three("ttnn.where", p, t, f), t.dtype
    out = result(shape, dtype, p.layout, binary_memory(p, None, shape, memory_config))
    made = NAME[out.dtype if output_tensor is None else output_tensor.dtype]
    numbers = [None if isinstance(v, Tensor) else number("ttnn.where", v) for v in (t, f)]

    def compute(cond, *values):
        given = iter(values)
        wide = torch.float32 if made in rounding.FLOATS else torch.int64
        yes, no = (
            next(given).to(wide) if n is None else torch.tensor(n, dtype=wide, device=cond.device) for n in numbers
        )
        return _packed(torch.where(cond != 0, yes, no).expand(shape), made)

    return finish("ttnn.where", (p, *tensors), out, compute, output_tensor, flops=out.shape.volume())


def _ternary(name, function, a, b, c, value, memory_config, output_tensor) -> Tensor:
    for t, label in ((a, "A"), (b, "B"), (c, "C")):
        operand(t, label)
    shape = _broadcast_three(name, a, b, c)
    out = result(shape, a.dtype, Layout.TILE, binary_memory(a, None, shape, memory_config))
    made = NAME[out.dtype if output_tensor is None else output_tensor.dtype]

    def compute(x, y, z):
        wide = torch.float32 if made in rounding.FLOATS else torch.int64
        return _packed(function(x.to(wide), y.to(wide), z.to(wide), value), made)

    return finish(name, (a, b, c), out, compute, output_tensor, flops=3 * out.shape.volume())


@op("ttnn.addcmul")
def addcmul(
    input_a: Tensor, input_b: Tensor, input_c: Tensor, *, value: float = 1.0, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """a + value * b * c, of tensors of one dtype."""
    names = [cpp(t.dtype) for t in (input_a, input_b, input_c)]
    if len(set(names)) > 1:
        raise DeviceRejects(
            f"Addcmul TTT requires all input tensors to have the same dtype. Got input_a={names[0]}, "
            f"input_b={names[1]}, "
            f"input_c={names[2]}"
        )
    if input_a.dtype in (bfloat4_b, uint16, uint8):
        raise DeviceRejects(
            f"Addcmul supports only BFLOAT16, BFLOAT8_B, FLOAT32, INT32, and UINT32 dtypes. Got {names[0]}"
        )
    return _ternary(
        "ttnn.addcmul", lambda a, b, c, v: a + (v if v == 1 else b.new_tensor(v)) * b * c, input_a, input_b,
        input_c, value,
        memory_config, output_tensor,
    )  # fmt: skip


@op("ttnn.addcdiv")
def addcdiv(
    input_a: Tensor, input_b: Tensor, input_c: Tensor, *, value: float = 1.0, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """a + value * b / c."""
    if int32 in (input_a.dtype, input_b.dtype, input_c.dtype):
        raise DeviceRejects("Addcdiv TTT does not support INT32 inputs.")
    if input_a.dtype in INTEGERS:
        raise NotEmulated(f"ttnn.addcdiv of {cpp(input_a.dtype)} has no model in the emulator")
    return _ternary(
        "ttnn.addcdiv", lambda a, b, c, v: a + v * b / c, input_a, input_b, input_c, value, memory_config, output_tensor
    )


@op("ttnn.lerp")
def lerp(
    input: Tensor,
    end: Tensor,
    weight,
    *,
    memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:
    """input + weight * (end - input)."""
    if input.dtype in INTEGERS or end.dtype in INTEGERS:
        raise NotEmulated("ttnn.lerp of integers has no model in the emulator")
    if isinstance(weight, Tensor):
        return _ternary(
            "ttnn.lerp", lambda a, b, w, _: a + w * (b - a), input, end, weight, 1.0, memory_config, output_tensor
        )
    return _ternary(
        "ttnn.lerp", lambda a, b, _, w: a + w * (b - a), input, end, input, weight, memory_config, output_tensor
    )


@op("ttnn.mac")
def mac(input_tensor_a: Tensor, input_tensor_b, input_tensor_c, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """a * b + c; b and c tensors or numbers."""
    return add(multiply(input_tensor_a, input_tensor_b, memory_config=memory_config), input_tensor_c)


@op("ttnn.clamp")
def clamp(
    input_tensor: Tensor,
    min=None,
    max=None,
    *,
    memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:
    """min(max(x, min), max); one of the two may be left out."""
    return _clamp("ttnn.clamp", input_tensor, min, max, memory_config, output_tensor)


@op("ttnn.clip")
def clip(input_tensor: Tensor, min=None, max=None, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """min(max(x, min), max); one of the two may be left out."""
    return _clamp("ttnn.clip", input_tensor, min, max, memory_config, None)


def _clamp(name, x, low, high, memory_config, output_tensor) -> Tensor:
    if low is None and high is None:
        raise DeviceRejects("Only one of 'min' or 'max' can be None. Please provide one value")
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        y = x if low is None else maximum(x, low, memory_config=memory_config)
        return y if high is None else minimum(y, high, memory_config=memory_config, output_tensor=output_tensor)
    whole = name == "ttnn.clamp" and all(isinstance(v, int) for v in (low, high) if v is not None)
    if name == "ttnn.clamp" and low is not None and high is not None and isinstance(low, int) != isinstance(high, int):
        raise DeviceRejects("std::get: wrong index for variant", "give min and max both as int or both as float")
    dtype = float32 if x.dtype is int32 and not whole else x.dtype
    return apply_unary(
        name,
        "clamp",
        "CLAMP_TSS",
        frozenset((int32,)),
        x,
        memory_config,
        output_tensor,
        {"min": low, "max": high},
        dtype,
    )


# ---------------------------------------------------------------- gated units


def gated(name: str, kind: str, doc: str, gate: str):
    """The op `ttnn.<name>`: the first half of the last dim times `gate` of the second."""
    full = f"ttnn.{name}"

    @op(full)
    def call(input_tensor: Tensor, dim: int = -1, *, memory_config: MemoryConfig | None = None) -> Tensor:
        x = operand(input_tensor, "A")
        rank = len(x.spec.shape)
        if dim not in (-1, rank - 1):
            raise DeviceRejects(f"glu-family ops only support the last dimension, got dim={dim}")
        if rank < 4:
            raise DeviceRejects(f"ShapeBase[] index out of range. 3 not in [-4, {rank})")
        if x.spec.padded_shape[-1] % 64 or x.spec.shape[-1] != x.spec.padded_shape[-1]:
            raise DeviceRejects("Split tensor dimension should be in full tile")
        if x.dtype in INTEGERS and (kind != "RELU" or x.dtype is uint8):
            if kind == "RELU":
                raise DeviceRejects(
                    f"Input tensor A dtype {cpp(x.dtype)} is not supported for binary operation BinaryOpType::MUL"
                )
            raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(x.dtype)}")
        half, dtype = x.spec.shape[-1] // 2, NAME[x.dtype]
        out = result((*x.spec.shape[:-1], half), x.dtype, x.layout, binary_memory(x, None, x.spec.shape, memory_config))

        def compute(v):
            n = numerics.now()
            return n.mul(v[..., :half], n.unary(gate, v[..., half:], dtype), dtype, dtype, dtype)

        return finish(full, (x,), out, compute, flops=2 * out.shape.volume())

    call.__doc__ = doc
    return call


glu = gated("glu", "SIGMOID", "a * sigmoid(b), of the halves a and b of the last dim.", "sigmoid")
swiglu = gated("swiglu", "SILU", "a * silu(b), of the halves a and b of the last dim.", "silu")
geglu = gated("geglu", "GELU", "a * gelu(b), of the halves a and b of the last dim.", "gelu")
reglu = gated("reglu", "RELU", "a * relu(b), of the halves a and b of the last dim.", "relu")
