"""Parts of a tensor: slice, split and chunk."""

from __future__ import annotations

import builtins

from ...dtypes import TILE_LAYOUT, Layout, bfloat4_b, bfloat8_b, bfloat16
from ...errors import DeviceRejects
from ...launch import launch, on_device, output_memory, same
from ...memory import MemoryConfig, over_same_cores
from ...op import op, refuse_unmodelled
from ...shape import TILE, Shape, round_up
from ...tensor import Tensor, padded, spec
from .moving import ONLY_TILE, TILIZED, allocated, axis, device_tensor, filled_to, integers


def _bounds(x: Tensor, starts, ends, steps) -> tuple[list[int], list[int], bool]:
    """Starts and ends counted from the front and checked as the library does; whether the slice goes through rows."""
    rank = len(x.spec.shape)
    if len(starts) != rank:
        raise DeviceRejects(f"Input rank {rank} and begins {len(starts)} must have the same size")
    if len(starts) != len(ends):
        raise DeviceRejects(f"Start {len(starts)} and end {len(ends)} must have the same size")
    if len(steps) != len(starts):
        raise DeviceRejects(f"Step {len(steps)} must have the same size as start {len(starts)} and end")
    if 0 in steps:
        raise DeviceRejects("A step of 0 selects nothing", "the library divides by it and dies")
    starts = [b + n if b < 0 else b for b, n in zip(starts, x.spec.shape)]
    ends = [e + n if e < 0 else e for e, n in zip(ends, x.spec.shape)]
    for b, e in zip(starts, ends):
        if (b + (1 << 32) if b < 0 else b) > (e + (1 << 32) if e < 0 else e):
            first = b + (1 << 32) if b < 0 else b
            raise DeviceRejects(f"End {e} must be greater than or equal to start {first}")
        if e < 0:
            raise DeviceRejects(
                "MeshBuffer must be large enough to hold the tensor.", f"end {e} lies before the tensor"
            )
    tiled = x.layout is TILE_LAYOUT
    through_rows = tiled and (
        rank < 2 or builtins.any(s != 1 for s in steps) or builtins.any(b % TILE for b in starts[-2:])
    )
    limits = (
        x.spec.shape if through_rows else x.spec.padded_shape[-rank:] if rank else ()
    )  # a vector is padded to rank 2
    empty = builtins.any(b == e for b, e in zip(starts, ends))
    for d, (b, e, n) in enumerate(zip(starts, ends, limits)):
        if b >= n and not empty:
            raise DeviceRejects(f"Slice start[{d}] ({b}) must be less than input tensor shape[{d}] ({n})")
        last = round_up(e, TILE) if tiled and not through_rows and d >= rank - 2 else e
        if last > n and not empty:
            raise DeviceRejects(f"Ends {last} must be less than or equal to the shape of the tensor {n}")
    return starts, ends, through_rows


def sliced(name: str, x: Tensor, starts, ends, steps=None, memory_config=None) -> Tensor:
    """The part of a tensor from `starts` to `ends`, by `steps`."""
    rank = len(x.spec.shape)
    steps = steps or (1,) * rank
    from_front = builtins.all(b >= 0 for b in starts)  # a negative start makes the library copy even the whole
    starts, ends, through_rows = _bounds(x, starts, ends, steps)
    shape = Shape(max(0, -(-(e - b) // s)) for b, e, s in zip(starts, ends, steps))
    strided = builtins.any(s != 1 for s in steps)
    old = x.spec.memory_config
    if shape == x.spec.shape and not strided and from_front and (memory_config is None or memory_config == old):
        return same(allocated(x))
    device_tensor(x)
    dtype = x.dtype
    if through_rows:  # untilized, cut and tilized again
        if dtype is bfloat4_b:
            raise DeviceRejects(ONLY_TILE)
        if strided and dtype is bfloat8_b:
            raise DeviceRejects("Strided slice is not supported for BFLOAT8 tensors")
        if dtype not in TILIZED and dtype is not bfloat8_b:
            raise DeviceRejects(TILIZE_DTYPES)
        dtype = bfloat16 if dtype is bfloat8_b else dtype
    memory = memory_config or old
    if memory_config is None and memory.is_sharded() and 0 not in shape:
        layout = Layout.ROW_MAJOR if through_rows else x.layout
        memory = over_same_cores(memory, padded(shape, layout, None), layout)
    made = spec(shape, dtype, x.layout, memory)
    through = [_rows(s, dtype, memory) for s in (x.spec.shape, shape)] if through_rows else ()
    cut = tuple(builtins.slice(b, e, s) for b, e, s in zip(starts, ends, steps))
    if builtins.any(s < 0 for s in steps):
        return launch(name, (x,), made, lambda v: v.new_zeros(tuple(shape)))
    outside = builtins.any(e > n for e, n in zip(ends, x.spec.shape))
    if outside:
        within = Shape(max(e, n) for e, n in zip(ends, x.spec.shape))
        return launch(name, (x,), made, lambda v: filled_to(v, within)[cut].contiguous(), through=through)
    return launch(name, (x,), made, lambda v: v[cut], through=through)


def _rows(shape, dtype, memory: MemoryConfig):
    """An untilized step on the way to a result in `memory`; of sharded ones no sizes are known."""
    return spec(shape, dtype, Layout.ROW_MAJOR, memory if memory.interleaved else MemoryConfig())


#: What `tilize_with_val_padding` says of a dtype that it does not take.
TILIZE_DTYPES = "Can only tilize bfloat16/float32 or int32/uint32/uint16 or fp8_e4m3 tensors"


@op("ttnn.slice")
def slice(
    input_tensor: Tensor, slice_start=None, slice_end=None, slice_step=None, *, starts=None, ends=None, steps=None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, pad_value=None, slice_dim=None,
    num_devices=None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The part from start to end (exclusive), negative positions counted from the back.

    Shapes    [...] -> (ends - starts) / steps by dim
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32 (recorded)
    Layout    kept; a TILE start inside a tile goes through ROW_MAJOR, and bfloat8_b then comes out as bfloat16
    Raises    bfloat4_b that would go through ROW_MAJOR; ends behind the padded shape
    Source    recorded contract, op `ttnn.slice`
    """
    first, last, step = (
        (a if b is None else b) for a, b in ((slice_start, starts), (slice_end, ends), (slice_step, steps))
    )
    refuse_unmodelled("ttnn.slice", slice_dim=slice_dim, num_devices=num_devices)
    if isinstance(first, Tensor) or isinstance(last, Tensor):
        raise DeviceRejects("slice_dim and num_devices must be provided for device-only tensor args slice")
    first, last = integers("ttnn.slice", "slice_start", first), integers("ttnn.slice", "slice_end", last)
    step = None if step is None else integers("ttnn.slice", "slice_step", step)
    out = sliced("ttnn.slice", input_tensor, first, last, step, memory_config or _memory_of(output_tensor))
    return _into(out, output_tensor)


def _memory_of(tensor: Tensor | None) -> MemoryConfig | None:
    return None if tensor is None else tensor.spec.memory_config


def _into(result: Tensor, output_tensor: Tensor | None) -> Tensor:
    """The result written into the tensor that the call named."""
    if output_tensor is None:
        return result
    if output_tensor.spec != result.spec:
        raise DeviceRejects(f"Output tensor must be {result.spec}, not {output_tensor.spec}")
    launch("ttnn.copy", (result,), result.spec, lambda v: v, into=on_device(output_tensor))
    return same(output_tensor)


@op("ttnn.split")
def split(input_tensor: Tensor, split_size, dim: int = 0, *, memory_config: MemoryConfig | None = None) -> list:
    """Parts of `split_size` along `dim` (the last may be smaller), or of the sizes listed. Always copies.

    Shapes    [...] -> parts of the given size along `dim`; the last may be smaller
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.split`
    """
    x = device_tensor(input_tensor)
    at = axis(dim, len(x.spec.shape))
    n = x.spec.shape[at]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise DeviceRejects(f"split_size must be greater than 0, but got: {split_size}")
        sizes = [min(split_size, n - start) for start in range(0, n, split_size)]
    else:
        sizes = list(integers("ttnn.split", "split_size", split_size))
        if (rest := n - sum(sizes)) != 0:
            how = f"under-cover it by {rest}" if rest > 0 else f"over-cover it by {-rest}"
            listed = ", ".join(map(str, sizes))
            raise DeviceRejects(
                f"split_sizes must sum exactly to the size of dimension {at} ({n}), but sizes {{{listed}}} {how}"
            )
    if len(sizes) == 1:
        made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
        return [launch("ttnn.split", (x,), made, lambda v: v)]
    parts, start = [], 0
    for size in sizes:
        first, last = [0] * len(x.spec.shape), list(x.spec.shape)
        first[at], last[at] = start, start + size
        parts.append(sliced("ttnn.slice", x, first, last, None, memory_config))
        start += size
    return parts


@op("ttnn.chunk")
def chunk(input_tensor: Tensor, chunks: int, dim: int) -> list:
    """Equal parts along `dim`, as many as said or fewer; the last is smaller where the size does not divide.

    Shapes    [...] -> up to `chunks` equal parts along `dim`; the last may be smaller
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.chunk`
    """
    if chunks <= 0:
        raise DeviceRejects("Number of chunks must be greater than zero")
    x = input_tensor
    at = axis(dim, len(x.spec.shape))
    if chunks == 1:
        return [same(allocated(x))]
    return split(x, max(1, -(-x.spec.shape[at] // chunks)), at)
