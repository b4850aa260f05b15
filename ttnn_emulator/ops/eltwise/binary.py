"""One binary op, from its checks to its result: what the ops of two operands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ... import numerics
from ...chips import Chip
from ...config import UnaryOpType
from ...dtypes import (
    BLOCK_FORMATS,
    FLOATS,
    INTEGERS,
    NAME,
    DataType,
    Layout,
    bfloat16,
    cpp,
    float32,
    int32,
    listed,
    uint8,
    uint16,
    uint32,
)
from ...errors import DeviceRejects
from ...launch import Plans, finish, launch
from ...numerics import rounding
from ...numerics.rows import EACH
from ...op import described
from ...oplog import describe
from ...tensor import Tensor
from ..core.sharding import binary_memory, result, unspecified
from .fused import activation, fused

BUT_BYTES = FLOATS | {uint32, int32, uint16}
WIDE = FLOATS | {uint32, int32}
ANY = FLOATS | INTEGERS


# ---------------------------------------------------------------- operands


def check_subtiles(a, b) -> None:
    """Refuses last two dims of which some differ and none is 1; vectors have no tiles to speak of."""
    if a != b and max(len(a), len(b)) > 1:
        pairs = [(a[-i] if len(a) >= i else 1, b[-i] if len(b) >= i else 1) for i in (1, 2)]
        if any(p != q for p, q in pairs) and all(n != 1 for pair in pairs for n in pair):
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
    """Both the same."""
    return a is b


def floats_mix(a, b) -> bool:
    """Both the same, or any two floats."""
    return a is b or (a in FLOATS and b in FLOATS)


def floats_mix_with_all(a, b) -> bool:
    """Both the same, or a float with anything."""
    return a is b or (a in FLOATS and b in WIDE) or (b in FLOATS and a in WIDE)


def bytes_mix(a, b) -> bool:
    """Both the same, any two floats, or uint8 with uint16."""
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
    """float32 of two int32, else as the floats among the two say."""
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


class Rule(NamedTuple):
    """What a binary op takes, and what comes out."""

    accepted: frozenset
    mixed: Callable  # (dtype, dtype) -> whether the two go together
    makes: Callable  # (kind, dtype, dtype) -> the dtype of the result


FLOAT_PAIRS = Rule(FLOATS, alike, first_dtype)
PAIRS = Rule(WIDE, alike, first_dtype)
WHOLE = Rule(frozenset((int32, uint32, uint16)), alike, first_dtype)
SUMS = Rule(BUT_BYTES, floats_mix, first_dtype)
PRODUCTS = Rule(BUT_BYTES, floats_mix_with_all, float_of_two)
QUOTIENTS = Rule(WIDE, floats_mix_with_all, quotient)
COMPARED = Rule(ANY, bytes_mix, wide_flag)


def documented(doc: str, rule: Rule) -> str:
    """The docstring of a binary op."""
    return described(
        doc, Shapes="two that broadcast (the last two dims only 1 against n), or a tensor and a number",
        Dtypes=f"{listed(rule.accepted)}. {rule.mixed.__doc__}", Makes=rule.makes.__doc__ or "",
        Source="ttnn 0.81.1: recorded contract; dtypes asked one by one",
    )  # fmt: skip


def plain(function):
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


def from_numerics(name):
    return lambda x, y, dtype, a_dtype=None, b_dtype=None: getattr(numerics.now(), name)(x, y, dtype, a_dtype, b_dtype)


#: What `fast_and_approximate_mode` chooses where it is not the default: (kind of op, mode) -> computation.
#: Source: ttnn 0.81.1, BINARY_OP and BINARY_SFPU_OP of the kernels that it builds.
OTHER_UNIT = {
    ("ADD", False): plain(torch.add), ("SUB", False): plain(torch.sub),
    ("MUL", True): from_numerics("mul_on_fpu"), ("DIV", True): from_numerics("div_fast"),
}  # fmt: skip


def _fused(acts, chip: Chip):
    """Fused activations as [(function, keywords)]."""
    return [fused(activation(act), chip) for act in acts]


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


NoneType = type(None)
_PLANS = Plans()


def run(
    name, kind, function, rule: Rule, a, b, dtype=None, memory_config=None, output_tensor=None, activations=(),
    on_a=(), on_b=(), integral=True, commutes=False,
):  # fmt: skip
    """One binary op, from its checks to its result."""
    key = None
    # Shards that are left open are the grid's, which the key does not have.
    left_open = memory_config is not None and unspecified(memory_config)
    if type(a) is Tensor and type(b) is Tensor and output_tensor is None and not left_open:
        acts = () if activations == on_a == on_b == () else (*activations, None, *on_a, None, *on_b)
        if not acts or all(type(f) in (UnaryOpType, NoneType) for f in acts):
            key = (name, function, a.spec, b.spec, dtype, memory_config, acts)
            if (plan := _PLANS.get(key)) is not None:
                operand(a, "A"), operand(b, "B")
                out, compute, flops = plan
                return launch(name, (a, b), out, compute, flops=flops, rows=EACH)
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
        natural = rule.makes(kind, a.dtype, b.dtype)
        check_dtypes(kind, a.dtype, b.dtype, rule.accepted, rule.mixed, (a.spec.shape, b.spec.shape))
        shape = broadcast(a.spec.shape, b.spec.shape)
    else:
        b = number(name, b)
        if a.buffer is not None and not a.buffer.alive:
            raise DeviceRejects("Input Tensor is not allocated", "it was deallocated earlier")
        operand(a, "A")
        shape = a.spec.shape
        if a.dtype not in rule.accepted:
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a.dtype)} is not supported for binary operation BinaryOpType::{kind}"
            )
        natural = scalar_dtype(kind, rule.makes, a.dtype, b)
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
    acts = (_fused(acts, a.buffer.device.chip) for acts in (on_a, on_b, activations))
    second = NAME[b.dtype] if two else None
    compute = compute_of(function, made, first, second, *acts, None if two else b, reverse)
    flops = _PLANS.remember(key, (out, compute, out.shape.volume()))[2]
    return finish(name, (a, b) if two else (a,), out, compute, output_tensor, flops=flops, rows=EACH)


def scalar_dtype(kind, makes, a: DataType, value) -> DataType:
    """The result's dtype for a tensor and a number: a float beside an integer may make it float32."""
    if a not in INTEGERS or (a is uint16 and makes is not wide_flag and kind != "DIV"):
        return a
    if makes is quotient:
        if a is uint16 or (a is uint32 and isinstance(value, int)):
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a)} is not supported for binary operation BinaryOpType::{kind}"
            )
        return float32
    if makes is float_of_two and isinstance(value, float):
        return float32
    return makes(kind, a, a)
