"""Element-wise ops of three operands, and clamping."""

from __future__ import annotations

import torch

from ... import numerics
from ...dtypes import BLOCK_FORMATS, FLOATS, INTEGERS, NAME, Layout, bfloat4_b, cpp, float32, int32, uint8, uint16
from ...errors import DeviceRejects, NotEmulated
from ...launch import finish
from ...memory import MemoryConfig
from ...numerics import rounding, vector
from ...op import described, op, refuse_unmodelled
from ...oplog import describe
from ...tensor import Tensor
from ..core.sharding import binary_memory, result
from .binary import WIDE, alike, broadcast, check_dtypes, number, operand
from .elementwise import add, maximum, minimum, multiply
from .unary import apply_unary


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


def _cut(value, dtype: str):
    """A number as these kernels take it: in a bfloat16 destination without its lower half."""
    return vector.bf16_scale(value) if dtype in rounding.FLOATS and dtype != "float32" else value


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

    Shapes    three that broadcast; numbers for yes and no
    Dtypes    all; numbers beside integers give float32
    Source    recorded contract, op `ttnn.where`
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
    beside = tensors[0] if len(tensors) == 1 else p  # where the result goes (ttnn 0.81.1: asked, DRAM and L1)
    out = result(shape, dtype, p.layout, binary_memory(beside, None, shape, memory_config))
    made = NAME[out.dtype if output_tensor is None else output_tensor.dtype]
    numbers = [None if isinstance(v, Tensor) else _cut(number("ttnn.where", v), made) for v in (t, f)]

    def compute(cond, *values):
        given = iter(values)
        wide = torch.float32 if made in rounding.FLOATS else torch.int64
        yes, no = (
            next(given).to(wide) if n is None else torch.tensor(n, dtype=wide, device=cond.device) for n in numbers
        )
        return _packed(torch.where(cond != 0, yes, no).expand(shape), made)

    return finish("ttnn.where", (p, *tensors), out, compute, output_tensor, flops=out.shape.volume())


def _ternary(name, function, a, b, c, value, memory_config, output_tensor, packed=_packed) -> Tensor:
    for t, label in ((a, "A"), (b, "B"), (c, "C")):
        operand(t, label)
    shape = _broadcast_three(name, a, b, c)
    out = result(shape, a.dtype, Layout.TILE, binary_memory(a, None, shape, memory_config))
    made = NAME[out.dtype if output_tensor is None else output_tensor.dtype]

    def compute(x, y, z):
        wide = torch.float32 if made in rounding.FLOATS else torch.int64
        return packed(function(x.to(wide), y.to(wide), z.to(wide), value), made)

    return finish(name, (a, b, c), out, compute, output_tensor, flops=3 * out.shape.volume())


def _check_addcmul(a: Tensor, b: Tensor, c: Tensor) -> None:
    names = [cpp(t.dtype) for t in (a, b, c)]
    if len(set(names)) > 1:
        raise DeviceRejects(
            f"Addcmul TTT requires all input tensors to have the same dtype. Got input_a={names[0]}, "
            f"input_b={names[1]}, input_c={names[2]}"
        )
    if a.dtype in (bfloat4_b, uint16, uint8):
        raise DeviceRejects(
            f"Addcmul supports only BFLOAT16, BFLOAT8_B, FLOAT32, INT32, and UINT32 dtypes. Got {names[0]}"
        )


def _check_addcdiv(a: Tensor, b: Tensor, c: Tensor) -> None:
    if int32 in (a.dtype, b.dtype, c.dtype):
        raise DeviceRejects("Addcdiv TTT does not support INT32 inputs.")
    if a.dtype in INTEGERS:
        raise NotEmulated(f"ttnn.addcdiv of {cpp(a.dtype)} has no model in the emulator")


def _divided_in_steps(dtype: str):
    """addcdiv of a block format: a product, a quotient and a sum, each stored (ttnn 0.81.1, graph capture)."""

    def compute(a, b, c, value):
        if not bool(c.all()):
            raise NotEmulated(f"ttnn.addcdiv of {dtype} with zeros in its third tensor has no model in the emulator")
        n, (a, b, c) = numerics.now(), (t.to(rounding.HELD_AS[dtype]) for t in (a, b, c))
        quotient = n.div(n.mul(b, value, dtype, dtype), c, dtype, dtype, dtype)
        return n.add(a, quotient, dtype, dtype, dtype).float()

    return compute


def added_to(name: str, doc: str, dtypes: str, source: str, check, function, packed=_packed, of_blocks=None):
    """The op `ttnn.<name>`: the first tensor and what `function` makes of all three and a number, for block formats
    `of_blocks(dtype)`."""
    full = f"ttnn.{name}"

    @op(full)
    def call(
        input_a: Tensor, input_b: Tensor, input_c: Tensor, *, value: float = 1.0,
        memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        check(input_a, input_b, input_c)
        in_blocks = of_blocks is not None and input_a.dtype in BLOCK_FORMATS
        made = of_blocks(NAME[input_a.dtype]) if in_blocks else function
        return _ternary(full, made, input_a, input_b, input_c, value, memory_config, output_tensor, packed)

    call.__doc__ = described(
        doc, Shapes="three that broadcast", Dtypes=f"{dtypes}; the first's comes out", Source=source
    )
    return call


addcmul = added_to(
    "addcmul", "a + value * b * c, of tensors of one dtype.", "bfloat16, float32, bfloat8_b, uint32, int32",
    "recorded contract, op `ttnn.addcmul`", _check_addcmul,
    lambda a, b, c, v: a + (v if v == 1 else b.new_tensor(v)) * b * c, rounding.pack,  # half away from zero (recorded)
)  # fmt: skip
addcdiv = added_to(
    "addcdiv", "a + value * b / c.", "floats (integers are not emulated)",
    "ttnn 0.81.1: asked dtype by dtype; of block formats in steps, each rounded",
    _check_addcdiv, lambda a, b, c, v: a + v * b / c, of_blocks=_divided_in_steps,
)  # fmt: skip


@op("ttnn.lerp")
def lerp(
    input: Tensor,
    end: Tensor,
    weight,
    *,
    memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:
    """input + weight * (end - input).

    Shapes    three that broadcast, the weight may be a number
    Dtypes    floats (integers are not emulated); the first's comes out
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    if input.dtype in INTEGERS or end.dtype in INTEGERS:
        raise NotEmulated("ttnn.lerp of integers has no model in the emulator")
    if isinstance(weight, Tensor):
        return _ternary(
            "ttnn.lerp", lambda a, b, w, _: a + w * (b - a), input, end, weight, 1.0, memory_config, output_tensor
        )
    weight = _cut(weight, NAME[input.dtype])
    return _ternary(
        "ttnn.lerp", lambda a, b, _, w: a + w * (b - a), input, end, input, weight, memory_config, output_tensor
    )


@op("ttnn.mac")
def mac(
    input_tensor_a: Tensor, input_tensor_b=None, input_tensor_c=None, *, value=None, value1=None, value2=None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """a * b + c; b and c tensors or numbers.

    Shapes    three that broadcast
    Dtypes    floats, uint32, int32, uint16; the first's comes out
    Numerics  of three tensors of one float dtype the vector unit's multiply-add, rounded once; else a product and a sum
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    numbers = [v for v in (value1, value2, value) if v is not None]
    for which in ("b", "c"):
        if which == "b" and input_tensor_b is None and numbers:
            input_tensor_b = numbers.pop(0)
        if which == "c" and input_tensor_c is None and numbers:
            input_tensor_c = numbers.pop(0)
    given = (input_tensor_a, input_tensor_b, input_tensor_c)
    if any(v is None for v in given):
        raise TypeError(f"ttnn.mac(): incompatible function arguments.\n  got    {[describe(v) for v in given]}")
    if all(isinstance(t, Tensor) and t.dtype is input_tensor_a.dtype for t in given) and input_tensor_a.dtype in FLOATS:
        return _ternary("ttnn.mac", lambda a, b, c, _: vector.fma(a, b, c), *given, None, memory_config, output_tensor)
    refuse_unmodelled("ttnn.mac", output_tensor=output_tensor)
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
    """min(max(x, min), max); one of the two may be left out.

    Shapes    any; kept
    Dtypes    floats, int32; kept, int32 gives float32
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    return _clamp("ttnn.clamp", input_tensor, min, max, memory_config, output_tensor)


@op("ttnn.clip")
def clip(input_tensor: Tensor, min=None, max=None, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """min(max(x, min), max); one of the two may be left out.

    Shapes    any; kept
    Dtypes    as clamp
    Source    recorded contract, op `ttnn.clip`
    """
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
        {n: v if v is None else _cut(v, NAME[x.dtype]) for n, v in (("min", low), ("max", high))},
        dtype,
    )
