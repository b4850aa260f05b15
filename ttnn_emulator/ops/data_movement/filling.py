"""Values by place or by what is looked for: broadcast_to, index_fill, isin, nonzero."""

from __future__ import annotations

import torch

from ...dtypes import (
    BLOCK_FORMATS,
    ROW_MAJOR_LAYOUT,
    TILE_LAYOUT,
    Layout,
    bfloat16,
    cpp,
    float32,
    int32,
    uint32,
)
from ...errors import DeviceRejects, NotEmulated
from ...launch import check_places, finish, launch, on_device, output_memory
from ...memory import MemoryConfig
from ...op import op, refuse_unmodelled
from ...oplog import describe
from ...shape import Shape
from ...tensor import Tensor, spec
from .moving import integers


@op("ttnn.experimental.broadcast_to")
def broadcast_to(
    input: Tensor, output_shape, *, memory_config: MemoryConfig | None = None, output: Tensor | None = None
) -> Tensor:
    """The tensor with its dims of 1 repeated up to a shape of at most four dims.

    Shapes    new dims in front
    Dtypes    all; kept
    Layout    TILE
    Raises    a dim that is neither 1 nor the wanted one; fewer dims than the tensor has
    Source    ttnn 0.81.1, asked dtype by dtype
    """
    name, x = "ttnn.experimental.broadcast_to", on_device(input)
    shape, own = tuple(integers(name, "output_shape", output_shape)), tuple(x.spec.shape)
    if max(len(shape), len(own)) > 4:
        raise DeviceRejects(
            f"Tensor shape and broadcast size {Shape(own)}({len(own)}) {Shape(shape)}({len(shape)}) must be at most 4D"
        )
    if len(shape) < len(own):
        raise DeviceRejects(
            f"Input tensor shape {Shape(own)}({len(own)}) must be at least as large as the broadcast shape "
            f"{Shape(shape)}({len(shape)}), which it is not"
        )
    for d in range(1, len(own) + 1):
        if own[-d] not in (1, shape[-d]):
            raise DeviceRejects(
                f"Input dimension -{d} (size {own[-d]}) cannot be broadcast to output dimension -{d} (size {shape[-d]})"
            )
    if x.layout is not TILE_LAYOUT:
        raise DeviceRejects(
            f"bcast_to: Invalid tensor memory layout {cpp(x.layout)}. Input tensor layout must be TILE."
        )
    out = spec(shape, x.dtype, x.layout, output_memory(x, memory_config))
    return finish(name, (x,), out, lambda v: v.expand(shape).contiguous(), output)


@op("ttnn.index_fill")
def index_fill(input: Tensor, dim: int, index: Tensor, value, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """The tensor with one number at the places along a dim that a vector of indices names.

    Shapes    any; index [n]
    Dtypes    bfloat16, float32 with a float; int32 with an int; index uint32
    Layout    ROW_MAJOR
    Source    ttnn 0.81.1, asked dtype by dtype
    """
    name, x = "ttnn.index_fill", on_device(input)
    if dim < 0 or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    dim={dim}, value={describe(value)}")
    if x.layout is not ROW_MAJOR_LAYOUT:
        raise DeviceRejects("Index fill: Only supporting row major layout")
    if dim >= len(x.spec.shape):
        raise DeviceRejects("Index fill: Invalid dimension")
    if len(on_device(index).spec.shape) != 1:
        raise DeviceRejects("Index fill: Index tensor must be 1D")
    if index.dtype is not uint32:
        raise DeviceRejects(f"Index fill: Index tensor must have UINT32 dtype; got {cpp(index.dtype)}")
    if x.dtype not in ((bfloat16, float32) if isinstance(value, float) else (int32,)):
        raise DeviceRejects(
            f"Index fill: Value type must match input tensor dtype. Got {cpp(x.dtype)} input dtype with "
            f"{type(value).__name__} value type"
        )
    if x.is_sharded() or (memory_config is not None and memory_config.is_sharded()):
        raise NotEmulated(f"{name} of shards has no model in the emulator: ttnn.sharded_to_interleaved first")

    def compute(v, i):
        check_places(name, i, v.shape[dim], "dim")
        return v.index_fill(dim, i.long(), value)

    return launch(name, (x, index), spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config)), compute)


@op("ttnn.experimental.isin")
def isin(
    elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """0xFFFFFFFF where an element is one of others, else 0; the other way round with `invert`.

    Shapes    any; kept
    Dtypes    bfloat16, float32, int32, uint32, both the same; uint32 comes out
    Source    ttnn 0.81.1, asked dtype by dtype
    """
    name = "ttnn.experimental.isin"
    refuse_unmodelled(name, out=out, assume_unique=assume_unique)
    x, others = on_device(elements), on_device(test_elements)
    taken = (bfloat16, float32, int32, uint32)
    if x.dtype not in taken or others.dtype not in taken:
        raise DeviceRejects("Can only work with bfloat16/float32 or int32/uint32 tensors")
    if x.dtype is not others.dtype:
        raise NotEmulated(f"{name} of {cpp(x.dtype)} among {cpp(others.dtype)} has no model in the emulator")
    yes, no = (0, 0xFFFFFFFF) if invert else (0xFFFFFFFF, 0)
    made = spec(x.spec.shape, uint32, x.layout, x.spec.memory_config)
    return launch(name, (x, others), made, lambda v, t: torch.where(torch.isin(v, t), yes, no).to(torch.int64))


@op("ttnn.nonzero")
def nonzero(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> list[Tensor]:
    """How many elements are not 0, and where they are: [the number, places], the places behind the number not set.

    Shapes    [1, 1, 1, N] -> [1, 1, 1, 8] whose first is the number, [1, 1, 1, 4 N] whose first are the places
    Dtypes    all but block formats; uint32 comes out
    Layout    ROW_MAJOR
    Differs   what a device does not write reads as 0 here
    Source    ttnn 0.81.1, asked: shapes and refusals; its documentation
    """
    name, x = "ttnn.nonzero", on_device(input_tensor)
    shape = x.spec.shape
    if len(shape) != 4:
        raise DeviceRejects(f"non_zero_indices: input must be rank-4, got rank {len(shape)}")
    if x.dtype in BLOCK_FORMATS or x.layout is not ROW_MAJOR_LAYOUT or x.volume() != shape[-1]:
        raise NotEmulated(f"{name} of {x.spec} has no model in the emulator: ROW_MAJOR [1, 1, 1, N]")
    memory = output_memory(x, memory_config)
    many, places = (spec((1, 1, 1, n), uint32, Layout.ROW_MAJOR, memory) for n in (8, 4 * shape[-1]))

    def compute(v):
        at = torch.nonzero(v.flatten()).flatten()
        count, where = (torch.zeros(s.shape, dtype=torch.int64, device=v.device) for s in (many, places))
        count[..., 0] = len(at)
        where[..., : len(at)] = at
        return count, where

    return launch(name, (x,), [many, places], compute)
