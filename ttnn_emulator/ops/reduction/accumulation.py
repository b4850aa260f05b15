"""Running sums and products."""

from __future__ import annotations

import torch

from ...dtypes import (
    NAME,
    DataType,
    Layout,
)
from ...errors import DeviceRejects
from ...launch import finish, on_device
from ...memory import MemoryConfig
from ...numerics import rounding
from ...op import described, op
from ...tensor import Tensor
from ..core.sharding import result


def accumulated(name: str, doc: str, function):
    """The op `ttnn.<name>`: running results along one dim."""

    @op(f"ttnn.{name}")
    def call(
        input: Tensor, dim: int, *, dtype: DataType | None = None, reverse_order: bool = False,
        out: Tensor | None = None,
        memory_config: MemoryConfig | None = None, disable_compensated_sum: bool = False,
    ) -> Tensor:  # fmt: skip
        x, rank = on_device(input), len(input.spec.shape)
        if not -rank <= dim < rank:
            raise DeviceRejects(f"The requested accumulation axis is {dim}, while the input tensor has rank {rank}.")
        if x.layout is not Layout.TILE:
            raise DeviceRejects("The provided input tensor has a non-tile layout: ROW_MAJOR.")
        made = result(x.spec.shape, dtype or x.dtype, Layout.TILE, memory_config or x.spec.memory_config)
        kind = NAME[made.dtype if out is None else out.dtype]

        def compute(v):
            v = v.to(torch.float32 if v.is_floating_point() else torch.int64)
            v = function(v.flip(dim), dim).flip(dim) if reverse_order else function(v, dim)
            return (
                rounding.pack(v.to(torch.float32), kind) if kind in rounding.FLOATS else rounding.cast_integer(v, kind)
            )

        return finish(f"ttnn.{name}", (x,), made, compute, out, flops=x.volume())

    call.__doc__ = described(
        doc, Shapes="any; kept", Dtypes="all; `dtype` or the operand's comes out",
        Layout="TILE", Source="ttnn 0.81.1: recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


cumsum = accumulated("cumsum", "The running sum along `dim`.", torch.cumsum)
cumprod = accumulated("cumprod", "The running product along `dim`.", torch.cumprod)
