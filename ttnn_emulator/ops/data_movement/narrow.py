"""narrow: a part of a tensor that stays where it is."""

from __future__ import annotations

import math

from ...dtypes import TILE_LAYOUT
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreRange, CoreRangeSet, corerange_to_cores
from ...launch import on_device, refilled
from ...memory import BufferType, MemoryConfig, ShardOrientation, ShardSpec, extent, pages_of
from ...op import op
from ...shape import TILE
from ...tensor import Tensor, spec
from ..core.sharding import BLOCK, HEIGHT


@op("ttnn.narrow")
def narrow(input_tensor: Tensor, dim: int, start: int, length: int) -> Tensor:
    """What lies from `start` on along a dim, `length` long, in the memory of the tensor.

    Shapes    DRAM: along the first dim that is not 1, from a page in the first bank on; L1: sharded, whole shards or a
              part of one; in TILE whole tiles
    Dtypes    all; kept
    Raises    host tensors; interleaved L1; what is no range of pages or shards
    Differs   while both are there neither is written to: NotEmulated
    Source    ttnn 0.81.1, asked: ranges, shards that come out, refusals
    """
    x = input_tensor
    if x.buffer is None:
        raise DeviceRejects("NarrowOperation currently only supports DEVICE tensors, got StorageType::HOST")
    on_device(x)
    rank, whole = len(x.spec.shape), x.spec.padded_shape
    at = dim + rank if dim < 0 else dim
    if not 0 <= at < rank:
        raise DeviceRejects(
            f"Index is out of bounds for the rank, should be between 0 and {rank - 1} however is {at % (1 << 64)}"
        )
    size = whole[at]
    first = start + size if start < 0 else start
    if not 0 <= first < size:
        raise DeviceRejects(f"Narrow start index {first % (1 << 32)} out of bounds for dimension {at} with size {size}")
    if length <= 0 or first + length > size:
        raise DeviceRejects(
            f"Narrow length {length} out of bounds for dimension {at} with start index {first} and size {size}"
        )
    if x.layout is TILE_LAYOUT and at >= rank - 2:
        side = "height" if at == rank - 2 else "width"
        if first % TILE or length % TILE:
            raise DeviceRejects(
                f"Narrowing on {side} for TILE layout requires start and length to be multiples of "
                f"TILE_{side.upper()} (32), got start {first} and length {length}"
            )
    memory, address = x.spec.memory_config, x.buffer.address
    if memory.is_sharded() and memory.buffer_type is BufferType.L1:
        memory = _shards(x, at, first, length)
    elif memory.is_sharded() or memory.buffer_type is BufferType.L1:
        raise DeviceRejects(
            "Narrowing for the given tensor configuration is not yet implemented.Supported: DRAM INTERLEAVED tensors "
            "on first non-trivial dimension, L1 sharded tensors with restrictions."
        )
    else:
        address += _offset(x, at, first)
    shape = list(x.spec.shape)
    shape[at] = min(length, shape[at] - first)
    made = spec(shape, x.dtype, x.layout, memory)
    out = refilled(x, made, lambda v: v.narrow(at, first, shape[at]))
    out.buffer.address = address
    return out


def _offset(x: Tensor, at: int, first: int) -> int:
    """Bytes in each bank before the part begins."""
    whole, banks = x.spec.padded_shape, x.buffer.device.chip.dram
    if any(n != 1 for n in whole[:at]):
        raise DeviceRejects(
            f"Narrowing on dimension {at} for DRAM INTERLEAVED tensors requires all preceding dimensions to be trivial "
            f"(size 1). Got non-trivial dimensions before dimension {at}."
        )
    pages, page = pages_of(whole, x.dtype, x.layout, banks)
    before = pages * first // whole[at]
    if before % banks.count:
        raise DeviceRejects("Start page ID must be aligned with number of banks for INTERLEAVED DRAM buffer")
    return before // banks.count * page


def _shards(x: Tensor, at: int, first: int, length: int) -> MemoryConfig:
    """Where the part of a sharded tensor lies."""
    memory = x.spec.memory_config
    shard, rank = memory.shard_spec, len(x.spec.shape)
    if memory.memory_layout is BLOCK or at < rank - 2 or math.prod(x.spec.shape[:-2]) != 1:
        raise NotEmulated(f"ttnn.narrow of {x.spec} along dim {at} has no model in the emulator: use ttnn.slice")
    across = at == rank - 1
    unit = shard.shape[across]
    if first % unit == length % unit == 0:
        cut = unit
    elif first // unit == (first + length - 1) // unit and not across:
        cut = length
    else:
        side = "last" if across else "non-last"
        raise DeviceRejects(
            f"Narrowing on {side} dimension for L1 sharded tensor only supports full shards or splitting within "
            f"single shard. Got start {first} and length {length} with shard shape {tuple(shard.shape)}"
        )
    grid = shard.grid
    if (memory.memory_layout is HEIGHT) is not across and unit < extent(x.spec.padded_shape)[across]:
        cores = corerange_to_cores(grid, row_wise=shard.orientation is ShardOrientation.ROW_MAJOR)
        grid = CoreRangeSet([]).merge(
            CoreRangeSet([CoreRange(c, c) for c in cores[first // unit : -(-(first + length) // unit)]])
        )
    made = (shard.shape[0], cut) if across else (cut, shard.shape[1])
    return MemoryConfig(memory.memory_layout, memory.buffer_type, ShardSpec(grid, made, shard.orientation))
