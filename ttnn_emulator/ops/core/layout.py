"""Layouts, memory and dtypes: the same values held another way."""

from __future__ import annotations

from ...dtypes import (
    BLOCK_FORMATS,
    NAME,
    ROW_MAJOR_LAYOUT,
    TILE_LAYOUT,
    DataType,
    Layout,
    bfloat4_b,
    bfloat8_b,
    bfloat16,
    cpp,
)  # fmt: skip
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord, CoreRangeSet, num_cores_to_corerangeset
from ...launch import launch, on_device, output_memory, same, update
from ...memory import BufferType, MemoryConfig, ShardOrientation, ShardSpec, TensorMemoryLayout, extent, with_shards
from ...numerics import rounding
from ...numerics.rows import EACH
from ...op import op, refuse_unmodelled
from ...shape import TILE, Shape, tile_padded
from ...tensor import Tensor, padded, spec
from ..data_movement.moving import (
    ONLY_TILE,
    TILIZED,
    allocated,
    device_tensor,
    filled_to,
    integers,
    on_host,
    page_bytes,
)
from ..data_movement.permute import clone_memory
from ..data_movement.slicing import TILIZE_DTYPES
from .creation import host_cast


def converted(x: Tensor, dtype: DataType):
    """The compute that turns values of a tensor's dtype into another's on the device; the same dtype copies."""
    if dtype is x.dtype:
        return lambda v: v
    before, after = NAME[x.dtype], NAME[dtype]
    return lambda v: rounding.typecast(v, before, after)


def _tile_only(dtype: DataType, layout: Layout) -> None:
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects(ONLY_TILE)


# ---------------------------------------------------------------- layout
@op("ttnn.to_layout")
def to_layout(
    tensor: Tensor, layout: Layout, dtype: DataType | None = None, memory_config: MemoryConfig | None = None,
    sub_core_grids=None, pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """The tensor in TILE or ROW_MAJOR; where it is in that layout, the tensor itself (`dtype` and memory ignored).

    Dtypes    to TILE: any `dtype`; to ROW_MAJOR: only the tensor's own, and bfloat8_b comes out as bfloat16
    Raises    bfloat4_b to ROW_MAJOR; block formats to ROW_MAJOR on the host
    Source    recorded contract, op `ttnn.to_layout`
    """
    x = allocated(tensor)
    if layout is x.layout:
        return same(x)
    if layout is Layout.INVALID:
        raise DeviceRejects(f"ttnn::to_layout: Unsupported layout conversion from {cpp(x.layout)} to {cpp(layout)}!")
    if x.buffer is None:
        if x.dtype in BLOCK_FORMATS:
            raise DeviceRejects("Tensor layout must be ROW_MAJOR for unpadding", "convert it with ttnn.to_dtype first")
        return on_host(x, x.spec.shape, lambda v: v, layout=layout)
    if layout is ROW_MAJOR_LAYOUT:
        if dtype is not None and dtype is not x.dtype and (x.dtype, dtype) != (bfloat8_b, bfloat16):
            raise DeviceRejects(
                "dtype cannot be different from tensor dtype when converting to ROW_MAJOR_LAYOUT on device (allowed "
                "exception: BFLOAT8_B -> BFLOAT16, which untilize handles natively)!"
            )
        return _untilized("ttnn.untilize", x, x.spec.shape, memory_config or _unpadded_shards(x))
    if x.dtype is DataType.UINT8 and tile_padded(x.spec.shape) != x.spec.shape:
        raise DeviceRejects(TILIZE_DTYPES)
    return _tilized("ttnn.tilize_with_val_padding", x, dtype or x.dtype, memory_config)


def _tilized(name: str, x: Tensor, dtype: DataType, memory_config) -> Tensor:
    made = spec(x.spec.shape, dtype, TILE_LAYOUT, output_memory(x, memory_config))
    return launch(name, (x,), made, converted(x, dtype), rows=EACH)


def _unpadded_shards(x: Tensor) -> MemoryConfig:
    """Width shards without the rows that are padding."""
    memory = x.spec.memory_config
    if memory.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
        return memory
    return with_shards(memory, (min(extent(x.shape)[0], memory.shard_spec.shape[0]), memory.shard_spec.shape[1]))


def _untilized(name: str, x: Tensor, shape, memory_config) -> Tensor:
    if x.dtype is bfloat4_b:
        raise DeviceRejects(ONLY_TILE)
    dtype = bfloat16 if x.dtype is bfloat8_b else x.dtype
    memory = output_memory(x, memory_config)
    made = spec(shape, dtype, ROW_MAJOR_LAYOUT, memory)
    if tuple(shape) == tuple(x.spec.shape):
        return launch(name, (x,), made, lambda v: v, rows=EACH)
    outer = x.spec.padded_shape
    cut = tuple(slice(0, n) for n in shape)
    return launch(name, (x,), made, lambda v: filled_to(v, outer)[cut].contiguous())


@op("ttnn.tilize")
def tilize(
    input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    use_multicore: bool = True, use_low_perf: bool = False, tile=None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """ROW_MAJOR to TILE; width and height must be multiples of 32."""
    x = device_tensor(input_tensor)
    if x.layout is not ROW_MAJOR_LAYOUT:
        raise DeviceRejects("Can only tilize row major data")
    rows, columns = extent(x.spec.padded_shape)
    if columns % TILE:
        raise DeviceRejects(f"Input tensor width ({columns}) must be divisible by tile width (32)")
    if rows % TILE or (len(x.spec.shape) > 1 and x.spec.shape[-2] % TILE):
        raise DeviceRejects(f"Input tensor height ({x.spec.shape[-2]}) must be divisible by tile height (32)")
    return _tilized("ttnn.tilize", x, dtype or x.dtype, memory_config)


@op("ttnn.tilize_with_val_padding")
def tilize_with_val_padding(
    input_tensor: Tensor, output_tensor_shape, pad_value: float, *, memory_config: MemoryConfig | None = None,
    dtype: DataType | None = None, use_multicore: bool = True, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """ROW_MAJOR to TILE, padded to the shape that is given; a TILE tensor of that shape comes back as it is.

    Differs   `pad_value` fills padding, which is not held here
    """
    x = allocated(input_tensor)
    outer = Shape(integers("ttnn.tilize_with_val_padding", "output_tensor_shape", output_tensor_shape))
    if x.layout is TILE_LAYOUT:
        if outer != x.spec.padded_shape:
            raise DeviceRejects("Can only tilize row major data")
        return same(x)
    device_tensor(x)
    if x.dtype not in TILIZED:
        raise DeviceRejects(TILIZE_DTYPES)
    if outer != tile_padded(x.spec.shape):
        refuse_unmodelled("ttnn.tilize_with_val_padding", output_tensor_shape=outer)
    return _tilized("ttnn.tilize_with_val_padding", x, dtype or x.dtype, memory_config)


@op("ttnn.tilize_with_zero_padding")
def tilize_with_zero_padding(
    input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, output_dtype: DataType | None = None,
    use_multicore: bool = True, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """ROW_MAJOR to TILE, padded with zeros; a TILE tensor comes back as it is."""
    x = allocated(input_tensor)
    if x.layout is TILE_LAYOUT:
        return same(x)
    device_tensor(x)
    if x.dtype not in TILIZED:
        raise DeviceRejects(TILIZE_DTYPES)
    return _tilized("ttnn.tilize_with_zero_padding", x, output_dtype or x.dtype, memory_config)


@op("ttnn.untilize")
def untilize(
    input_tensor: Tensor, *, memory_config: MemoryConfig | None = None, use_multicore: bool = True, sub_core_grids=None
) -> Tensor:
    """TILE to ROW_MAJOR; bfloat8_b comes out as bfloat16."""
    x = device_tensor(input_tensor)
    if x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Can only untilize tile major data")
    return _untilized("ttnn.untilize", x, x.spec.shape, memory_config)


def _cut_shards(x: Tensor, shape: Shape) -> MemoryConfig:
    """Height shards with their share of the rows that are left; width shards with all of them."""
    memory, (before, _), (rows, columns) = x.spec.memory_config, extent(x.padded_shape), extent(shape)
    shard = memory.shard_spec.shape
    if memory.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
        return with_shards(memory, (rows, shard[1]))
    if memory.memory_layout is TensorMemoryLayout.HEIGHT_SHARDED:
        return with_shards(memory, (-(-shard[0] * rows // before), columns))
    raise NotEmulated("untilize_with_unpadding of a block-sharded tensor is not modelled; say memory_config=")


@op("ttnn.untilize_with_unpadding")
def untilize_with_unpadding(
    input_tensor: Tensor, output_tensor_end, *, memory_config: MemoryConfig | None = None, use_multicore: bool = True,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """TILE to ROW_MAJOR, cut behind the positions given (inclusive)."""
    x = device_tensor(input_tensor)
    if x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Can only untilize tile major data")
    ends = integers("ttnn.untilize_with_unpadding", "output_tensor_end", output_tensor_end)
    shape = Shape(e + 1 for e in ends)
    if memory_config is None and x.is_sharded():
        memory_config = _cut_shards(x, shape)
    return _untilized("ttnn.untilize_with_unpadding", x, shape, memory_config)


@op("ttnn.fill_implicit_tile_padding")
def fill_implicit_tile_padding(
    input_tensor: Tensor, fill_value: float, *, memory_config: MemoryConfig | None = None
) -> Tensor:
    """The tensor itself: what fills its padding is not held here."""
    if memory_config not in (None, input_tensor.spec.memory_config):
        refuse_unmodelled("ttnn.fill_implicit_tile_padding", memory_config=memory_config)
    return same(device_tensor(input_tensor))


# ---------------------------------------------------------------- memory
def _moved(name: str, x: Tensor, memory: MemoryConfig, dtype: DataType | None, output_tensor=None) -> Tensor:
    if memory.is_sharded() and memory.shard_spec is None:
        raise DeviceRejects(
            "bad optional access", "the memory config has no shard spec, and this op does not choose one"
        )
    made = spec(x.spec.shape, dtype or x.dtype, x.layout, memory)
    if output_tensor is None:
        return launch(name, (x,), made, converted(x, made.dtype), rows=EACH)
    if output_tensor.spec != made:
        raise DeviceRejects(f"Output tensor must be {made}, not {output_tensor.spec}")
    compute = converted(x, made.dtype)
    update(name, on_device(output_tensor), (x,), lambda target, v: target.copy_(compute(v)))
    return same(output_tensor)


@op("ttnn.to_memory_config")
def to_memory_config(
    tensor: Tensor, memory_config: MemoryConfig, dtype: DataType | None = None, output_tensor: Tensor | None = None
) -> Tensor:
    """The tensor in another memory or sharding; where it is there already, the tensor itself (its dtype kept).

    Dtypes    `dtype` converts on the way, in TILE only
    Raises    shards that do not fit; out of memory
    Source    recorded contract, op `ttnn.to_memory_config`
    """
    x = device_tensor(tensor)
    if memory_config == x.spec.memory_config:
        return same(x)
    if dtype is not None and dtype is not x.dtype:
        _tile_only(dtype, x.layout)
        if x.layout is not TILE_LAYOUT:
            raise DeviceRejects("Only tile layout supports dtype conversion")
    return _moved("ttnn.to_memory_config", x, memory_config, dtype, output_tensor)


@op("ttnn.interleaved_to_sharded")
def interleaved_to_sharded(
    input_tensor: Tensor, grid=None, shard_shape=None, shard_scheme=None, shard_orientation=None, output_dtype=None, *,
    sharded_memory_config: MemoryConfig | None = None, keep_l1_aligned: bool | None = False,
    preallocated_output: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """An interleaved tensor in shards: a memory config, or cores, shard shape, layout and orientation.

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
    return _moved("ttnn.interleaved_to_sharded", x, memory, output_dtype, preallocated_output)


def _sharded_l1(layout, shards) -> MemoryConfig:
    return MemoryConfig(layout, BufferType.L1, shards)


@op("ttnn.sharded_to_interleaved")
def sharded_to_interleaved(
    input_tensor: Tensor, memory_config: MemoryConfig | None = None, output_dtype: DataType | None = None
) -> Tensor:
    """A sharded tensor interleaved, in DRAM unless said; an interleaved one comes back as it is.

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
    return _moved("ttnn.sharded_to_interleaved", x, memory, output_dtype)


@op("ttnn.reshard")
def reshard(input_tensor: Tensor, output_memory_config: MemoryConfig, output_tensor: Tensor | None = None) -> Tensor:
    """A sharded tensor in other shards.

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
    return _moved("ttnn.reshard", x, output_memory_config, None, output_tensor)


@op("ttnn.get_memory_config")
def get_memory_config(tensor: Tensor) -> MemoryConfig | None:
    """Where the tensor is; None for a host tensor."""
    return tensor.memory_config()


@op("ttnn.is_sharded")
def is_sharded(tensor: Tensor) -> bool:
    """Whether the tensor is sharded."""
    return tensor.is_sharded()


# ---------------------------------------------------------------- dtype and copies
@op("ttnn.typecast")
def typecast(
    input_tensor: Tensor, dtype: DataType | None = None, output_dtype: DataType | None = None, *,
    input_dtype: DataType | None = None, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The values in another dtype, rounded as the device rounds; also to the same dtype a new tensor.

    Forms     typecast(x, dtype) or typecast(x, input_dtype, output_dtype)
    Raises    block formats in ROW_MAJOR; another sharding than the operand's
    Source    recorded contract, op `ttnn.typecast`; numerics as in `numerics.rounding.typecast`
    """
    x = input_tensor
    if output_dtype is not None:
        input_dtype, dtype = input_dtype or dtype, output_dtype
    if dtype is None:
        raise TypeError("ttnn.typecast(): incompatible function arguments.\n  want   typecast(input_tensor, dtype)")
    if input_dtype is not None and input_dtype is not x.dtype:
        raise DeviceRejects("input dtype and input tensor's dtype provided should match")
    if dtype is DataType.INVALID:
        raise DeviceRejects(f"Unsupported dtype {cpp(dtype)}")
    if x.buffer is None:
        return _cast_on_host(x, dtype)
    device_tensor(x)
    if x.is_sharded() and (page := page_bytes(x, x.spec.memory_config)) % 16:
        raise DeviceRejects(
            f"Typecast operation requires sharded input tensor page size ({page} bytes) to be aligned to L1 (16 bytes)"
        )
    if output_tensor is not None:
        if output_tensor.dtype is not dtype:
            raise DeviceRejects("If both output dtype and output tensor provided dtype should match")
        return _moved("ttnn.typecast", x, output_tensor.spec.memory_config, dtype, output_tensor)
    _tile_only(dtype, x.layout)
    memory = output_memory(x, memory_config)
    if memory.memory_layout is not x.spec.memory_config.memory_layout:
        raise DeviceRejects(
            "Typecast operation requires Input and Output memory layout to match. Input layout: "
            f"{cpp(x.spec.memory_config.memory_layout)}, Output layout: {cpp(memory.memory_layout)}"
        )
    made = spec(x.spec.shape, dtype, x.layout, memory)
    return launch("ttnn.typecast", (x,), made, converted(x, dtype), flops=x.spec.shape.volume(), rows=EACH)


def _cast_on_host(x: Tensor, dtype: DataType) -> Tensor:
    """A host tensor in another dtype; block formats bring TILE with them."""
    layout = TILE_LAYOUT if dtype in BLOCK_FORMATS else x.layout
    before, after = extent(x.spec.padded_shape), extent(padded(x.spec.shape, layout, None))
    if before != after:
        raise DeviceRejects(
            f"to_dtype: Converting layout to {cpp(layout)} implicitly changed physical shape from {before} to "
            f"{after} due to alignment constraints. This is currently unsupported. Please pad the tensor explicitly "
            "before conversion."
        )
    return on_host(x, x.spec.shape, lambda v: host_cast(v, dtype), dtype, layout)


@op("ttnn.to_dtype")
def to_dtype(tensor: Tensor, dtype: DataType) -> Tensor:
    """A host tensor in another dtype; device tensors take `ttnn.typecast`."""
    if tensor.buffer is not None:
        raise DeviceRejects(
            "Expected Tensor with HostStorage, got StorageType::DEVICE", "ttnn.typecast converts on the device"
        )
    return _cast_on_host(tensor, dtype)


@op("ttnn.clone")
def clone(
    input: Tensor,
    *,
    dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None,
    compute_kernel_config=None,
) -> Tensor:
    """A copy, in another dtype or memory if said.

    Source    recorded contract, op `ttnn.clone`
    """
    x = device_tensor(input)
    if dtype not in (None, x.dtype) and x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Clone: data type conversion is only supported with tile layout")
    memory = output_memory(x, memory_config)
    clone_memory(x, memory)
    return _moved("ttnn.clone", x, memory, dtype)


@op("ttnn.assign")
def assign(
    input_tensor: Tensor, input_b: Tensor | None = None, *, memory_config: MemoryConfig | None = None,
    dtype: DataType | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy in the memory that is said, or into the tensor that is given.

    Source    recorded contract, op `ttnn.assign`
    """
    x = device_tensor(input_tensor)
    if input_b is not None:
        return _written("ttnn.assign", x, input_b)
    if output_tensor is None and memory_config is None:
        raise TypeError(
            "ttnn.assign(): incompatible function arguments.\n  want   assign(input_tensor, *, memory_config=)"
        )
    if output_tensor is not None:
        if output_tensor.spec.memory_config != memory_config:
            raise DeviceRejects(
                "Mismatched output memory config. Check to see if the preallocated output tensor has a different shard "
                "spec than the one specified in the passed-in memory config."
            )
        return _written("ttnn.assign", x, output_tensor)
    return _moved("ttnn.assign", x, memory_config, dtype)


@op("ttnn.copy")
def copy(input_a: Tensor, input_b: Tensor) -> Tensor:
    """The values of `input_a` written into `input_b`."""
    return _written("ttnn.copy", device_tensor(input_a), input_b)


def _written(name: str, x: Tensor, target: Tensor) -> Tensor:
    """The values of a tensor written into another of its shape and layout, in the other's dtype."""
    device_tensor(target)
    if x.spec.shape != target.spec.shape:
        raise DeviceRejects(f"Input tensor shape {x.spec.shape} does not match output tensor shape {target.spec.shape}")
    if x.layout is not target.layout:
        raise DeviceRejects(
            f"Input tensor layout ({cpp(x.layout)}) must equal output tensor layout ({cpp(target.layout)})"
        )
    return _moved(name, x, target.spec.memory_config, target.dtype, target)


@op("ttnn.move")
def move(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """The tensor in fresh memory, its own being freed first: closes gaps.

    Source    ttnn 0.81.1: the operand reads is_allocated False afterwards, and the result may get its address
    """
    x = device_tensor(input_tensor)
    memory = output_memory(x, memory_config)
    from ...launch import allocate
    from ...log import state

    values = None if state.spec_only else x.contents()
    made = spec(x.spec.shape, x.dtype, x.layout, memory)
    device, topology = x.buffer.device, x.topology
    if device.capture is not None:
        refuse_unmodelled("ttnn.move", inside_a_trace_capture=True)
    x.buffer.free()
    out = allocate(made, device, topology)
    out.buffer.data = values
    return out


@op("ttnn.reallocate")
def reallocate(tensor: Tensor, memory_config: MemoryConfig | None = None) -> Tensor:
    """`move`: the tensor in fresh memory, its own being freed first."""
    return move(tensor, memory_config=memory_config)
