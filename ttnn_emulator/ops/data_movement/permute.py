"""Other orders of dims: permute and transpose."""

from __future__ import annotations

import math

from ...dtypes import TILE_LAYOUT
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, output_memory, same, unmodelled
from ...memory import MemoryConfig, TensorMemoryLayout, extent, with_shards
from ...op import op
from ...shape import TILE, Shape
from ...tensor import Tensor, padded, spec
from .moving import axis, device_tensor, integers, moving
from .reshape import through_bfloat16


def _permuted_memory(x: Tensor, dims: tuple[int, ...], inside: Shape) -> MemoryConfig:
    """Where a permuted sharded tensor goes when the call does not say.

    Source    ttnn 0.81.1, 90 permutations of sharded tensors on the mock cluster
    """
    memory, rank = x.spec.memory_config, len(dims)
    if not memory.is_sharded():
        return memory
    plain = MemoryConfig(buffer_type=memory.buffer_type)
    kind, shard, cores = memory.memory_layout, memory.shard_spec.shape, memory.shard_spec.num_cores()
    (rows, columns), unit = extent(inside), TILE if x.layout is TILE_LAYOUT else 1
    matrices = math.prod(x.spec.padded_shape[:-2])
    if dims == (*range(rank - 2), rank - 1, rank - 2):
        if kind is TensorMemoryLayout.HEIGHT_SHARDED and matrices > 1:
            whole = shard[0] // x.spec.padded_shape[-2]
            return with_shards(memory, (whole * inside[-2], columns)) if whole else plain
        if kind is TensorMemoryLayout.HEIGHT_SHARDED:
            return with_shards(memory, shard[::-1], TensorMemoryLayout.WIDTH_SHARDED)
        return plain if kind is TensorMemoryLayout.WIDTH_SHARDED else with_shards(memory, shard[::-1])
    if kind is TensorMemoryLayout.HEIGHT_SHARDED and (dims[-1] == rank - 1 or matrices > 1):
        return with_shards(memory, (rows // cores, columns)) if rows % (cores * unit) == 0 else plain
    if dims[-1] == rank - 1:
        down = 1 if kind is TensorMemoryLayout.WIDTH_SHARDED else memory.shard_spec.grid.bounding_box().grid_size().y
        return with_shards(memory, (rows // down, shard[1])) if rows % (down * unit) == 0 else plain
    if kind is TensorMemoryLayout.WIDTH_SHARDED:
        return plain
    raise NotEmulated(
        f"{list(dims)} of {x.spec}: where the result is placed by default is not modelled; say memory_config="
    )


def _permuted(name: str, x: Tensor, dims: tuple[int, ...], memory_config: MemoryConfig | None) -> Tensor:
    shape = Shape(x.spec.shape[d] for d in dims)
    moved = [d for d in dims if x.spec.shape[d] != 1]
    in_tile = dims[-2:] == tuple(range(len(dims)))[-2:] or x.layout is not TILE_LAYOUT
    still = dims == tuple(range(len(dims))) or (in_tile and moved == sorted(moved) and shape == x.spec.shape)
    if still and (memory_config is None or memory_config == x.spec.memory_config):
        return same(x)
    if still and name == "ttnn.transpose":
        clone_memory(x, memory_config)
    memory = memory_config or _permuted_memory(x, dims, padded(shape, x.layout, None))
    made = spec(shape, x.dtype, x.layout, memory)
    inside = set(dims[-2:]) == set(range(len(dims))[-2:])
    through = () if inside else through_bfloat16(x, made)
    return launch(name, (x,), made, moving(lambda v: v.permute(dims).contiguous(), x.dtype), through=through)


def clone_memory(x: Tensor, memory: MemoryConfig) -> None:
    """Refuses a copy into a memory config that the library's clone does not write."""
    old = x.spec.memory_config
    if memory.is_sharded() != old.is_sharded():
        raise DeviceRejects(
            "Clone: mixed sharded/interleaved layout not currently supported. Both input and output must have the "
            "same layout."
        )
    if memory.memory_layout is not old.memory_layout:
        raise DeviceRejects("Clone: input and output must have the same memory layout when both are sharded")


@op("ttnn.permute")
def permute(
    input_tensor: Tensor, dims, *unnamed, memory_config: MemoryConfig | None = None, pad_value: float = 0.0
) -> Tensor:
    """The dims in another order.

    Shapes    dims in the order of `dims`
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32 (recorded)
    Source    recorded contract, op `ttnn.permute`
    """
    x, dims = input_tensor, integers("ttnn.permute", "dims", dims)
    rank = len(x.spec.shape)
    if len(dims) != rank:
        raise DeviceRejects(
            "The number of dimensions in the tensor input does not match the length of the desired ordering",
            f"{rank} dims, and {list(dims)}",
        )
    if x.buffer is None:
        raise DeviceRejects("Tensor must already be on device")
    dims = tuple(axis(d, rank) for d in dims)
    device_tensor(x)
    if len(set(dims)) != rank:
        return _permuted_twice(x, dims, memory_config)
    return _permuted("ttnn.permute", x, dims, memory_config)


def _permuted_twice(x: Tensor, dims, memory_config) -> Tensor:
    """An order that names a dim twice: the library takes it, and what it computes is not modelled."""
    shape = Shape(x.spec.shape[d] for d in dims)
    return unmodelled((x,), spec(shape, x.dtype, x.layout, output_memory(x, memory_config)))


@op("ttnn.transpose")
def transpose(
    input_tensor: Tensor,
    dim1: int,
    dim2: int,
    *unnamed,
    memory_config: MemoryConfig | None = None,
    pad_value: float = 0.0,
) -> Tensor:
    """Two dims swapped.

    Shapes    dims `dim1` and `dim2` swapped
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.transpose`
    """
    x, rank = input_tensor, len(input_tensor.spec.shape)
    a, b = axis(dim1, rank), axis(dim2, rank)
    if rank < 2:
        raise DeviceRejects("Can't convert shape rank", f"a transpose wants two dims, and {x.spec.shape} has {rank}")
    device_tensor(x)
    dims = list(range(rank))
    dims[a], dims[b] = b, a
    return _permuted("ttnn.transpose", x, tuple(dims), memory_config)
