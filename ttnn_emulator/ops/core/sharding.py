"""Where results go when the call does not say it in full: shard specs that ops choose themselves.

Source    ttnn 0.81.1, output configs of element-wise ops and matmuls asked for shapes, layouts and grids
"""

from __future__ import annotations

from functools import lru_cache

from ...dtypes import BLOCK_FORMATS, DataType, Layout
from ...errors import DeviceRejects
from ...grid import CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ...memory import BufferType, MemoryConfig, ShardSpec, TensorMemoryLayout, extent
from ...shape import TILE
from ...tensor import Tensor, TensorSpec, padded, spec

HEIGHT, WIDTH, BLOCK = (
    TensorMemoryLayout.HEIGHT_SHARDED, TensorMemoryLayout.WIDTH_SHARDED, TensorMemoryLayout.BLOCK_SHARDED,
)  # fmt: skip


def result(shape, dtype: DataType, layout: Layout, memory_config: MemoryConfig) -> TensorSpec:
    """The spec of a result; block formats exist in tiles only."""
    if layout is Layout.ROW_MAJOR and dtype in BLOCK_FORMATS:
        raise DeviceRejects("Only TILE layout is supported for BFLOAT8_B dtype!")
    return spec(shape, dtype, layout, memory_config)


@lru_cache(maxsize=4096)
def spread(
    shape, kind: TensorMemoryLayout, buffer_type: BufferType, layout: Layout, core_grid: tuple[int, int]
) -> MemoryConfig:
    """`kind` over as many cores as share the tiles (or the elements) evenly rounded up, row by row from the first."""
    gx, gy = core_grid
    height, width = extent(padded(shape, layout, None))
    unit = TILE if layout is Layout.TILE else 1
    rows, columns = height // unit, width // unit
    if kind is BLOCK:
        down, across = -(-rows // gy), -(-columns // gx)
        grid = CoreRangeSet([CoreRange((0, 0), (-(-columns // across) - 1, -(-rows // down) - 1))])
        return MemoryConfig(kind, buffer_type, ShardSpec(grid, (down * unit, across * unit)))
    tiles = rows if kind is HEIGHT else columns
    each = -(-tiles // (gx * gy))
    grid = num_cores_to_corerangeset(-(-tiles // each), core_grid, row_wise=True)
    shard = (each * unit, width) if kind is HEIGHT else (height, each * unit)
    return MemoryConfig(kind, buffer_type, ShardSpec(grid, shard))


@lru_cache(maxsize=4096)
def rescaled(memory_config: MemoryConfig, own, shape) -> MemoryConfig:
    """A sharded config of a tensor of padded shape `own` for a result of padded shape `shape` on the same cores."""
    (h, w), (height, width) = extent(own), extent(shape)
    s = memory_config.shard_spec
    if s is None or (h, w) == (height, width):
        return memory_config
    shard = (s.shape[0] * height // h, s.shape[1] * width // w)
    return MemoryConfig(memory_config.memory_layout, memory_config.buffer_type, ShardSpec(s.grid, shard, s.orientation))


def unspecified(memory_config: MemoryConfig | None) -> bool:
    """Whether a config asks for shards and does not say which."""
    return memory_config is not None and memory_config.is_sharded() and memory_config.shard_spec is None


def unary_memory(x: Tensor, memory_config: MemoryConfig | None) -> MemoryConfig:
    """Where the result of a unary op goes: as asked; shards that were left open are the operand's, or a spread."""
    own = x.spec.memory_config
    if memory_config is None:
        return own
    if not unspecified(memory_config):
        return memory_config
    if own.is_sharded():
        return MemoryConfig(memory_config.memory_layout, memory_config.buffer_type, own.shard_spec)
    return spread(
        x.spec.shape, memory_config.memory_layout, memory_config.buffer_type, x.layout, x.buffer.device.chip.grid
    )


def binary_memory(a: Tensor, b: Tensor | None, shape, memory_config: MemoryConfig | None) -> MemoryConfig:
    """Where the result of a binary op of shape `shape` goes.

    As asked. Else like the sharded operand on more cores (the first of equals), its shards scaled by the broadcast;
    a first operand in interleaved L1 keeps the result there. Shards that were left open are the first operand's.
    """
    if memory_config is not None and not unspecified(memory_config):
        return memory_config
    if b is None:
        return unary_memory(a, memory_config)
    like, own, other = a, a.spec.memory_config, b.spec.memory_config
    if own.is_sharded():
        if memory_config is None and other.is_sharded() and other.shard_spec.num_cores() > own.shard_spec.num_cores():
            like = b
    elif other.is_sharded() and (own.buffer_type is BufferType.DRAM or memory_config is not None):
        like = b
    own = like.spec.memory_config
    if own.is_sharded():
        return rescaled(own, like.spec.padded_shape, padded(shape, like.layout, None))
    if memory_config is None:
        return own
    layout = like.layout if b.layout is like.layout else Layout.TILE
    return spread(shape, memory_config.memory_layout, memory_config.buffer_type, layout, a.buffer.device.chip.grid)
