"""Running sums and products."""

from __future__ import annotations

import itertools

import torch

from ...dtypes import (
    NAME,
    DataType,
    Layout,
    float32,
)
from ...errors import DeviceRejects
from ...launch import finish, on_device
from ...memory import MemoryConfig
from ...numerics import rounding
from ...op import op
from ...tensor import Tensor
from ..core.sharding import result


def _one_by_one(function):
    """Running results in the values' own precision, one after the other."""

    def run(v, dim):
        parts = v.unbind(dim)
        return torch.stack(list(itertools.accumulate(parts, function)), dim)

    return run


def _compensated(v, dim):
    """Kahan's sum of float32."""
    total = lost = torch.zeros_like(v.select(dim, 0))
    sums = []
    for part in v.unbind(dim):
        y = part - lost
        t = total + y
        lost, total = (t - total) - y, t
        sums.append(t)
    return torch.stack(sums, dim)


def _accumulated(name: str, step, x: Tensor, dim: int, dtype, reverse_order: bool, out, memory_config) -> Tensor:
    x, rank = on_device(x), len(x.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"The requested accumulation axis is {dim}, while the input tensor has rank {rank}.")
    if x.layout is not Layout.TILE:
        raise DeviceRejects("The provided input tensor has a non-tile layout: ROW_MAJOR.")
    made = result(x.spec.shape, dtype or x.dtype, Layout.TILE, memory_config or x.spec.memory_config)
    kind = NAME[made.dtype if out is None else out.dtype]

    def compute(v):
        v = v.to(torch.float32 if v.is_floating_point() else torch.int64)
        v = step(v.flip(dim), dim).flip(dim) if reverse_order else step(v, dim)
        return rounding.pack(v.to(torch.float32), kind) if kind in rounding.FLOATS else rounding.cast_integer(v, kind)

    return finish(name, (x,), made, compute, out, flops=x.volume())


@op("ttnn.cumsum")
def cumsum(
    input: Tensor, dim: int, *, dtype: DataType | None = None, reverse_order: bool = False, out: Tensor | None = None,
    memory_config: MemoryConfig | None = None, disable_compensated_sum: bool = False,
) -> Tensor:  # fmt: skip
    """The running sum along `dim`; of float32 compensated.

    Shapes    any; kept
    Dtypes    all; `dtype` or the operand's comes out
    Layout    TILE
    Source    ttnn 0.81.1: recorded contract; refusals asked one by one
    """
    plain = input.dtype is not float32 or disable_compensated_sum
    step = _one_by_one(torch.add) if plain else _compensated
    return _accumulated("ttnn.cumsum", step, input, dim, dtype, reverse_order, out, memory_config)


@op("ttnn.cumprod")
def cumprod(
    input_tensor: Tensor, dim: int, *, dtype: DataType | None = None, reverse_order: bool = False,
    out: Tensor | None = None, memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """The running product along `dim`.

    Shapes    any; kept
    Dtypes    all; `dtype` or the operand's comes out
    Layout    TILE
    Source    ttnn 0.81.1: recorded contract; refusals asked one by one
    """
    step = _one_by_one(torch.mul)
    return _accumulated("ttnn.cumprod", step, input_tensor, dim, dtype, reverse_order, out, memory_config)
