"""Unary ops with rules of their own: softcap, xielu, logit, prelu, and what looks at bits."""

from __future__ import annotations

import math

import torch

from ... import numerics
from ...dtypes import FLOATS, INTEGERS, NAME, DataType, bfloat8_b, bfloat16, cpp, float32, int32, uint16, uint32
from ...errors import DeviceRejects, NotEmulated
from ...launch import finish, on_device
from ...memory import MemoryConfig
from ...numerics import rounding
from ...numerics.rows import EACH
from ...op import op
from ...oplog import describe
from ...tensor import Tensor
from ..core.sharding import result, unary_memory
from ..data_movement.reshape import reshape
from .elementwise import multiply
from .ternary import where
from .unary import NONE, UNARY_OPS, apply_unary, check_preallocated

BITWISE = frozenset((int32, uint32))


@op("ttnn.softcap")
def softcap(
    input_tensor: Tensor, beta: float, *, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """beta * tanh(x / beta), on Blackhole only.

    Shapes    any; kept
    Dtypes    bfloat16, bfloat8_b; kept unless output_tensor has another
    Numerics  tanh by its polynomial, one rounding after the last product
    Raises    on Wormhole; for beta 0
    Source    ttnn 0.81.1: asked dtype by dtype on n150 and p150; the kernel's steps, not recorded on a chip
    """
    check_softcap(on_device(input_tensor), beta)
    return apply_unary(
        "ttnn.softcap", "softcap", "SOFTCAP", NONE, input_tensor, memory_config, output_tensor, {"beta": beta}
    )


def check_softcap(x: Tensor, beta: float) -> None:
    """What the library refuses of softcap."""
    chip = x.buffer.device.chip
    if x.dtype in INTEGERS:
        raise DeviceRejects(f"Unary: UnaryOpType::SOFTCAP does not support integer input dtype {cpp(x.dtype)}")
    if "SOFTCAP" in chip.missing:
        raise DeviceRejects(
            f"Unary: SOFTCAP is implemented for Blackhole only, got arch {chip.name}",
            "multiply by 1 / beta, ttnn.tanh, multiply by beta",
        )
    if x.dtype not in (bfloat16, bfloat8_b):
        raise DeviceRejects(f"Unary: SOFTCAP supports BFLOAT16 and BFLOAT8_B inputs, got dtype {cpp(x.dtype)}")
    if not beta:
        raise DeviceRejects("Unary: SOFTCAP requires a non-zero beta")


@op("ttnn.logit")
def logit(
    input_tensor: Tensor, *, eps: float | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """log(x / (1 - x)), of x clamped to [eps, 1 - eps] where eps is given.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b; kept unless output_tensor has another
    Numerics  the clamped value in the dtype, the difference and the quotient rounded, then log
    Source    ttnn 0.81.1: asked dtype by dtype; the steps of `logit_kernel.cpp`, not recorded on a chip
    """
    x = on_device(input_tensor)
    if x.dtype in INTEGERS:
        raise DeviceRejects(f"Unary: UnaryOpType::LOGIT does not support integer input dtype {cpp(x.dtype)}")
    if output_tensor is not None:
        check_preallocated(x, x.dtype, on_device(output_tensor))
    out = result(x.spec.shape, x.dtype, x.layout, unary_memory(x, memory_config))
    own, made = NAME[x.dtype], NAME[x.dtype if output_tensor is None else output_tensor.dtype]
    between = "float32" if float32 in (x.dtype, out.dtype) else "bfloat16"

    def compute(v):
        n = numerics.now()
        if eps is not None:
            v = n.unary("clamp", v, own, min=eps, max=1 - eps)
        rest = n.typecast(1.0 - v.float(), "float32", between)
        return n.unary("log", n.div(v, rest, between, own, between), made)

    return finish("ttnn.logit", (x,), out, compute, output_tensor, flops=4 * x.volume(), rows=EACH)


@op("ttnn.bitwise_not")
def bitwise_not(
    input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """Every bit the other way.

    Shapes    any; kept
    Dtypes    int32, uint32; kept (of floats the library takes the bits of their destination, which are not emulated)
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    x = on_device(input_tensor)
    if x.dtype in FLOATS:
        raise NotEmulated(f"ttnn.bitwise_not of {cpp(x.dtype)} has no model in the emulator: bitcast to an integer")
    return apply_unary("ttnn.bitwise_not", "bitwise_not", "BITWISE_NOT", BITWISE, x, memory_config, output_tensor)


#: Bits by what holds them here, to and from int64.
_TO_BITS = {
    bfloat16: lambda v: v.contiguous().view(torch.int16).to(torch.int64) & 0xFFFF,
    float32: lambda v: v.contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF,
}
_FROM_BITS = {
    bfloat16: lambda b: rounding.cast_integer(b, "int32").to(torch.int16).view(torch.bfloat16),
    float32: lambda b: rounding.cast_integer(b, "int32").view(torch.float32),
}
_OF_BITS = {16: (bfloat16, uint16), 32: (float32, int32, uint32)}


@op("ttnn.bitcast")
def bitcast(
    input_tensor: Tensor, dtype: DataType, *, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The same bits as another dtype.

    Shapes    any; kept
    Dtypes    bfloat16 and uint16; float32, int32 and uint32; any to itself (the library takes other pairs too, and
              what comes out is not documented: not emulated)
    Source    ttnn 0.81.1: asked pair by pair
    """
    x = on_device(input_tensor)
    if output_tensor is not None:
        check_preallocated(x, dtype, on_device(output_tensor))
    alike = any(x.dtype in kinds and dtype in kinds for kinds in _OF_BITS.values()) or dtype is x.dtype
    if not alike or (output_tensor is not None and output_tensor.dtype is not dtype):
        raise NotEmulated(
            f"ttnn.bitcast of {cpp(x.dtype)} to {cpp(dtype)} has no model in the emulator: "
            "bfloat16 and uint16, or two of float32, int32 and uint32"
        )
    out = result(x.spec.shape, dtype, x.layout, unary_memory(x, memory_config))

    given = x.dtype  # a trace keeps what compute closes over

    def compute(v):
        if dtype is given:
            return v
        bits = _TO_BITS[given](v) if given in _TO_BITS else v.to(torch.int64)
        return _FROM_BITS[dtype](bits) if dtype in _FROM_BITS else rounding.cast_integer(bits, NAME[dtype])

    return finish("ttnn.bitcast", (x,), out, compute, output_tensor, flops=x.volume(), rows=EACH)


@op("ttnn.prelu")
def prelu(input_tensor_a: Tensor, weight, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """x, or weight * x below 0; the weight a number, a list of one, or a tensor of one for each channel (dim 1).

    Shapes    rank 2 or more with a tensor: of its elements there are as many as channels, or one
    Dtypes    floats; with a tensor int32 too; kept
    Numerics  with a tensor the product is stored, then chosen
    Source    ttnn 0.81.1: asked form by form; the steps by graph capture
    """
    name, x = "ttnn.prelu", on_device(input_tensor_a)
    if isinstance(weight, (list, tuple)) and len(weight) == 1:
        weight = weight[0]
    if isinstance(weight, (int, float)):
        return apply_unary(name, "prelu", "PRELU_SFPU", NONE, x, memory_config, None, {"weight": float(weight)})
    if not isinstance(weight, Tensor):
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    weight = {describe(weight)}")
    shape = x.spec.shape
    if len(shape) < 2:
        raise DeviceRejects(f"ShapeBase[] index out of range. 1 not in [-4, {len(shape)})")
    many = math.prod(on_device(weight).spec.shape)
    if many not in (1, shape[1]):
        raise DeviceRejects(
            f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {many} and channel size "
            f"= {shape[1]}."
        )
    by_channel = (1, shape[1], *(1,) * (len(shape) - 2))
    if many > 1 and len(shape) > 2 and tuple(weight.spec.shape) != by_channel:
        weight = reshape(weight, by_channel)
    below = UNARY_OPS["ltz"](x, memory_config=memory_config)
    return where(below, multiply(x, weight, memory_config=memory_config), x, memory_config=memory_config)
