"""Element-wise ops: unary functions, arithmetic of two tensors or a tensor and a number."""

from __future__ import annotations

import enum

from .. import numerics
from ..dtypes import INTEGERS, NAME, cpp
from ..errors import DeviceRejects
from ..memory import MemoryConfig
from ..op import launch, on_device, op, output_memory, refuse_unmodelled
from ..tensor import Tensor, spec


def unary(name: str, doc: str, integers=()):
    """The op `ttnn.<name>`: one value in, one out; `integers` are the integer dtypes that it takes."""
    kind = name.upper()

    @op(f"ttnn.{name}")
    def call(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None) -> Tensor:
        x = on_device(input_tensor)
        if x.dtype in INTEGERS and x.dtype not in integers:
            raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(x.dtype)}")
        refuse_unmodelled(f"ttnn.{name}", output_tensor=output_tensor)
        out = spec(x.shape, x.dtype, x.layout, output_memory(x, memory_config))
        dtype = NAME[x.dtype]
        return launch(f"ttnn.{name}", (x,), out, lambda v: numerics.now().unary(name, v, dtype), flops=x.volume())

    call.__doc__ = doc
    return call


silu = unary("silu", "x * sigmoid(x).")
relu = unary("relu", "max(x, 0).")
