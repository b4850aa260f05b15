"""Tiles and rows: to_layout, tilize and untilize."""

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
from ...launch import launch, output_memory, same
from ...memory import MemoryConfig, TensorMemoryLayout, extent, with_shards
from ...numerics import rounding
from ...numerics.rows import EACH
from ...op import op, refuse_unmodelled
from ...shape import TILE, Shape, tile_padded
from ...tensor import Tensor, spec
from ...warning import LEGACY_TILIZE, warn
from ..data_movement.moving import (
    ONLY_TILE,
    TILIZED,
    allocated,
    device_tensor,
    filled_to,
    integers,
    on_host,
)
from ..data_movement.slicing import TILIZE_DTYPES


def converted(x: Tensor, dtype: DataType):
    """The compute that turns values of a tensor's dtype into another's on the device; the same dtype copies."""
    if dtype is x.dtype:
        return lambda v: v
    before, after = NAME[x.dtype], NAME[dtype]
    return lambda v: rounding.typecast(v, before, after)


def tile_only(dtype: DataType, layout: Layout) -> None:
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects(ONLY_TILE)


@op("ttnn.to_layout")
def to_layout(
    tensor: Tensor, layout: Layout, dtype: DataType | None = None, memory_config: MemoryConfig | None = None,
    sub_core_grids=None, pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """The tensor in TILE or ROW_MAJOR; where it is in that layout, the tensor itself (`dtype` and memory ignored).

    Shapes    any; kept
    Dtypes    to TILE: any `dtype`; to ROW_MAJOR: only the tensor's own, and bfloat8_b comes out as bfloat16
    Raises    bfloat4_b to ROW_MAJOR; block formats to ROW_MAJOR on the host
    Source    recorded contract, op `ttnn.to_layout`
    """
    x = allocated(tensor)
    if layout is x.layout:
        for name, asked, own in (("dtype", dtype, x.dtype), ("memory_config", memory_config, x.spec.memory_config)):
            if asked is not None and own is not None and asked != own:
                warn(
                    f"ttnn::to_layout: {name} is specified but the tensor is already in the requested layout! So, the "
                    f"{name} won't be changed!"
                )
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
    padding = name != "ttnn.tilize" and x.spec.shape != made.padded_shape
    if x.is_sharded() and made.memory_config.is_sharded() and not padding:
        warn(LEGACY_TILIZE)
    return launch(name, (x,), made, converted(x, dtype), rows=EACH)


def _unpadded_shards(x: Tensor) -> MemoryConfig:
    """Width shards without the rows that are padding."""
    memory = x.spec.memory_config
    if memory.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
        return memory
    return with_shards(memory, (min(extent(x.spec.shape)[0], memory.shard_spec.shape[0]), memory.shard_spec.shape[1]))


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
    """ROW_MAJOR to TILE; width and height must be multiples of 32.

    Shapes    [..., 32m, 32n]; kept
    Dtypes    bfloat16, float32, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.tilize`
    """
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

    Shapes    [...] -> output_tensor_shape, in tiles
    Dtypes    bfloat16, float32, uint32, int32 (recorded)
    Differs   `pad_value` fills padding, which is not held here
    Source    recorded contract, op `ttnn.tilize_with_val_padding`
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
    """ROW_MAJOR to TILE, padded with zeros; a TILE tensor comes back as it is.

    Shapes    any; kept, padded to tiles inside
    Dtypes    bfloat16, float32, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.tilize_with_zero_padding`
    """
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
    """TILE to ROW_MAJOR; bfloat8_b comes out as bfloat16.

    Shapes    any; kept, with its padding
    Dtypes    bfloat16, float32, bfloat8_b, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.untilize`
    """
    x = device_tensor(input_tensor)
    if x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Can only untilize tile major data")
    return _untilized("ttnn.untilize", x, x.spec.shape, memory_config)


def _cut_shards(x: Tensor, shape: Shape) -> MemoryConfig:
    """Height shards with their share of the rows that are left; width shards with all of them."""
    memory, (before, _), (rows, columns) = x.spec.memory_config, extent(x.spec.padded_shape), extent(shape)
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
    """TILE to ROW_MAJOR, cut behind the positions given (inclusive).

    Shapes    [...] -> up to output_tensor_end, that included
    Dtypes    bfloat16, float32, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.untilize_with_unpadding`
    """
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
    """The tensor itself: what fills its padding is not held here.

    Shapes    any; kept
    Dtypes    all; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    if memory_config not in (None, input_tensor.spec.memory_config):
        refuse_unmodelled("ttnn.fill_implicit_tile_padding", memory_config=memory_config)
    return same(device_tensor(input_tensor))
