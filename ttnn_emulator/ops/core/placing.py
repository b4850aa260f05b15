"""Where a tensor lies: memory configs, to shards and back."""

from __future__ import annotations

from ...dtypes import (
    TILE_LAYOUT,
    DataType,
    cpp,
)  # fmt: skip
from ...errors import DeviceRejects
from ...grid import CoreCoord, CoreRangeSet, num_cores_to_corerangeset
from ...launch import launch, on_device, same
from ...memory import BufferType, MemoryConfig, ShardOrientation, ShardSpec, TensorMemoryLayout, extent
from ...numerics.rows import EACH
from ...op import op
from ...tensor import Tensor, spec
from ..data_movement.moving import (
    allocated,
    device_tensor,
    page_bytes,
)
from .layout import converted, tile_only


def moved(name: str, x: Tensor, memory: MemoryConfig, dtype: DataType | None, output_tensor=None) -> Tensor:
    if memory.is_sharded() and memory.shard_spec is None:
        raise DeviceRejects(
            "bad optional access", "the memory config has no shard spec, and this op does not choose one"
        )
    made = spec(x.spec.shape, dtype or x.dtype, x.layout, memory)
    if output_tensor is None:
        return launch(name, (x,), made, converted(x, made.dtype), rows=EACH)
    if output_tensor.spec != made:
        raise DeviceRejects(f"Output tensor must be {made}, not {output_tensor.spec}")
    launch(name, (x,), made, converted(x, made.dtype), rows=EACH, into=on_device(output_tensor))
    return same(output_tensor)


@op("ttnn.to_memory_config")
def to_memory_config(
    tensor: Tensor, memory_config: MemoryConfig, dtype: DataType | None = None, output_tensor: Tensor | None = None
) -> Tensor:
    """The tensor in another memory or sharding; where it is there already, the tensor itself (its dtype kept).

    Shapes    any; kept
    Dtypes    `dtype` converts on the way, in TILE only
    Raises    shards that do not fit; out of memory
    Source    recorded contract, op `ttnn.to_memory_config`
    """
    x = device_tensor(tensor)
    if memory_config == x.spec.memory_config:
        return same(x)
    if dtype is not None and dtype is not x.dtype:
        tile_only(dtype, x.layout)
        if x.layout is not TILE_LAYOUT:
            raise DeviceRejects("Only tile layout supports dtype conversion")
    return moved("ttnn.to_memory_config", x, memory_config, dtype, output_tensor)


@op("ttnn.interleaved_to_sharded")
def interleaved_to_sharded(
    input_tensor: Tensor, grid=None, shard_shape=None, shard_scheme=None, shard_orientation=None, output_dtype=None, *,
    sharded_memory_config: MemoryConfig | None = None, keep_l1_aligned: bool | None = False,
    preallocated_output: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """An interleaved tensor in shards: a memory config, or cores, shard shape, layout and orientation.

    Shapes    any; kept
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.interleaved_to_sharded`
    """
    x = device_tensor(input_tensor)
    memory = sharded_memory_config
    if isinstance(grid, MemoryConfig):
        memory, output_dtype = grid, shard_shape or output_dtype
    elif memory is None:
        if isinstance(grid, CoreCoord):
            rows, columns = shard_shape
            height, width = extent(x.spec.padded_shape)
            across = 1 if shard_scheme is TensorMemoryLayout.HEIGHT_SHARDED else -(-width // columns)
            down = 1 if shard_scheme is TensorMemoryLayout.WIDTH_SHARDED else -(-height // rows)
            grid = num_cores_to_corerangeset(across * down, grid, True)
        if not isinstance(grid, CoreRangeSet):
            raise TypeError(
                f"ttnn.interleaved_to_sharded(): incompatible function arguments.\n  got    grid = {grid!r:.100}\n"
                "  want   a memory config, or a CoreCoord or CoreRangeSet with shard_shape, shard_scheme, "
                "shard_orientation"
            )
        memory = _sharded_l1(
            shard_scheme, ShardSpec(grid, shard_shape, shard_orientation or ShardOrientation.ROW_MAJOR)
        )
    if x.is_sharded():
        raise DeviceRejects(
            f"Input tensor memory layout must be INTERLEAVED, but got {cpp(x.spec.memory_config.memory_layout)}"
        )
    if not memory.is_sharded():
        raise DeviceRejects("Output memory config must be sharded")
    if output_dtype not in (None, x.dtype) and x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Input tensor layout must be TILE when dtype conversion is needed")
    return moved("ttnn.interleaved_to_sharded", x, memory, output_dtype, preallocated_output)


def _sharded_l1(layout, shards) -> MemoryConfig:
    return MemoryConfig(layout, BufferType.L1, shards)


@op("ttnn.sharded_to_interleaved")
def sharded_to_interleaved(
    input_tensor: Tensor, memory_config: MemoryConfig | None = None, output_dtype: DataType | None = None
) -> Tensor:
    """A sharded tensor interleaved, in DRAM unless said; an interleaved one comes back as it is.

    Shapes    any; kept
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.sharded_to_interleaved`
    """
    x = input_tensor
    if not x.is_sharded():
        return same(allocated(x))
    device_tensor(x)
    memory = memory_config or MemoryConfig()
    if memory.is_sharded():
        raise DeviceRejects("Output memory config must be Interleaved")
    if output_dtype not in (None, x.dtype) and x.layout is not TILE_LAYOUT:
        raise DeviceRejects("If diff output type, tensor must be TILED")
    if page_bytes(x, x.spec.memory_config) % 16:
        raise DeviceRejects("Shard page size must be aligned to 16B for L1 Tensor")
    return moved("ttnn.sharded_to_interleaved", x, memory, output_dtype)


@op("ttnn.reshard")
def reshard(input_tensor: Tensor, output_memory_config: MemoryConfig, output_tensor: Tensor | None = None) -> Tensor:
    """A sharded tensor in other shards.

    Shapes    any; kept
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.reshard`
    """
    x = device_tensor(input_tensor)
    if not x.is_sharded():
        raise DeviceRejects("input must be sharded")
    if not output_memory_config.is_sharded():
        raise DeviceRejects("output must be sharded")
    for what, memory in (("Input", x.spec.memory_config), ("Output", output_memory_config)):
        if memory.shard_spec is not None and (page := page_bytes(x, memory)) % 16:
            raise DeviceRejects(
                f"{what} row-major shard width {memory.shard_spec.shape[1]} with data type {cpp(x.dtype)} gives page "
                f"size {page} bytes, which must be aligned to 16 bytes for reshard"
            )
    return moved("ttnn.reshard", x, output_memory_config, None, output_tensor)


@op("ttnn.get_memory_config")
def get_memory_config(tensor: Tensor) -> MemoryConfig | None:
    """Where the tensor is; None for a host tensor.

    Shapes    any
    Dtypes    all
    Source    recorded contract, op `ttnn.get_memory_config`
    """
    return tensor.memory_config()


@op("ttnn.is_sharded")
def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is sharded.

    Shapes    any
    Dtypes    all
    Source    recorded contract, op `ttnn.is_sharded`
    """
    return tensor.is_sharded()
