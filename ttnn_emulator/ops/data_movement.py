"""Data movement: other shapes, other orders, parts, and several tensors in one. Values are moved, never computed.

Contents are held in logical shape and padding counts as zero, so padding that a call brings into view (a slice to the
padded end, a reshape with a padded shape) reads as zeros here; a device reads what its kernels left there.
"""

from __future__ import annotations

import builtins
import math
from functools import lru_cache

import numpy as np
import torch

from ..dtypes import (
    BLOCK_FORMATS,
    ELEMENT_BYTES,
    INTEGERS,
    NAME,
    TILE_LAYOUT,
    DataType,
    Layout,
    bfloat4_b,
    bfloat8_b,
    bfloat16,
    cpp,
    float32,
)  # fmt: skip
from ..errors import DeviceRejects, NotEmulated
from ..grid import num_cores_to_corerangeset
from ..memory import (
    ALIGNMENT,
    BANKS,
    GRID,
    BufferType,
    MemoryConfig,
    ShardSpec,
    TensorMemoryLayout,
    extent,
    named_by_extent,
    over_same_cores,
    with_shards,
)  # fmt: skip
from ..numerics import rounding
from ..numerics.rows import HELD
from ..op import (
    keep,
    launch,
    on_device,
    op,
    output_memory,
    refuse_unmodelled,
    run_into,
    same,
    unmodelled,
    update,
    view,
)  # fmt: skip
from ..shape import TILE, Shape, round_up, tile_padded
from ..tensor import Tensor, padded, spec

ONLY_TILE = "Only TILE layout is supported for BFLOAT8_B dtype!"
#: What the tilize-with-padding and the reshape kernels take.
TILIZED = frozenset((DataType.BFLOAT16, DataType.FLOAT32, DataType.UINT32, DataType.INT32, DataType.UINT16))
RESHAPED = TILIZED - {DataType.UINT16}
RESHAPE_DTYPES = "Can only work with bfloat16/float32 or int32/uint32 tensors"
#: A tile is stored as four faces of 16x16.
FACE = 16


def integers(name: str, argument: str, values) -> tuple[int, ...]:
    """A sequence of integers, or the library's TypeError."""
    try:
        out = tuple(values)
        if builtins.all(isinstance(v, int) or hasattr(v, "__index__") for v in out):
            return tuple(int(v) for v in out)
    except TypeError:
        pass
    raise TypeError(f"{name}(): incompatible function arguments.\n  got    {argument} = {values!r:.120}")


def axis(dim: int, rank: int) -> int:
    """A dim counted from the front, or the refusal of one that is not there."""
    at = dim + rank if dim < 0 else dim
    if not 0 <= at < rank:
        shown = at + (1 << 64) if at < 0 else at
        raise DeviceRejects(
            f"Index is out of bounds for the rank, should be between 0 and {rank - 1} however is {shown}"
        )
    return at


def allocated(x: Tensor) -> Tensor:
    """The tensor, or the refusal of a freed one; host tensors pass."""
    if not x.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    return x


def device_tensor(x: Tensor) -> Tensor:
    """The tensor, or the refusal that every device operation has for a host tensor or a freed one."""
    if x.buffer is None:
        raise DeviceRejects("Device Operations expect device tensors as inputs", "ttnn.to_device(tensor, device)")
    if not x.buffer.alive:
        raise DeviceRejects("Input Tensor is not allocated", "it was deallocated earlier")
    return x


def on_host(x: Tensor, shape, function, dtype=None, layout=None) -> Tensor:
    """`function` on the values of a host tensor, pieces that are one computed once."""
    done = {id(v): v for v in x.host}
    done = {i: function(v) for i, v in done.items()}
    made = spec(tuple(shape), dtype or x.dtype, layout or x.layout, None)
    return Tensor(made, host=[done[id(v)] for v in x.host], topology=x.topology)


def page_bytes(x: Tensor, memory: MemoryConfig) -> int:
    """Bytes of one row of a row-major shard; a tile counts as aligned."""
    return 0 if x.layout is TILE_LAYOUT else memory.shard_spec.shape[1] * ELEMENT_BYTES[x.dtype]


def moving(function, dtype: DataType):
    """A compute that only moves values; block formats get their shared exponents anew, as the packer writes them."""
    if dtype not in BLOCK_FORMATS:
        return function
    name = NAME[dtype]
    return lambda *values: rounding.pack(function(*values), name)


def _padded_to(value: torch.Tensor, shape) -> torch.Tensor:
    """The value with zeros behind it in every dim, up to `shape`."""
    if tuple(value.shape) == tuple(shape):
        return value
    out = value.new_zeros(tuple(shape))
    out[tuple(builtins.slice(0, n) for n in value.shape)] = value
    return out


# ---------------------------------------------------------------- reshape
def _resolved(shape: tuple[int, ...], volume: int) -> Shape:
    """The shape with its -1 worked out."""
    known, unknown = 1, 0
    for n in shape:
        if n == -1:
            unknown += 1
        else:
            known *= n
    if unknown > 1:
        used = "".join(f"{n}," for n in shape)
        raise DeviceRejects(f"Shape cannot have more than 1 elements that is set to -1! Shape used: ({used})")
    if (volume % known if known else volume) if unknown else known != volume:
        raise DeviceRejects("Invalid arguments to reshape", f"{volume} elements do not fit {list(shape)}")
    return Shape(volume // known if n == -1 and known else 0 if n == -1 else n for n in shape)


def _is_view(x: Tensor, shape: Shape) -> bool:
    """Whether a reshape is only another way to read the same memory: whole rows, and whole tiles of them."""
    old = x.spec.shape
    if (old[-1] if old else 1) != (shape[-1] if shape else 1):
        return False
    if x.layout is not TILE_LAYOUT:
        return True
    rows, new = old[-2] if len(old) > 1 else 1, shape[-2] if len(shape) > 1 else 1
    return rows == new or (rows % TILE == 0 and new % TILE == 0)


def reshaped(name: str, x: Tensor, shape: Shape, memory_config: MemoryConfig | None = None) -> Tensor:
    """Another shape of the same volume: the tensor itself, a view of its memory, or a new tensor."""
    allocated(x)
    if x.buffer is None:
        return same(x) if shape == x.spec.shape else on_host(x, shape, lambda v: v.reshape(shape))
    old = x.spec.memory_config
    memory = memory_config or old
    if memory == old:
        if shape == x.spec.shape:
            return same(x)
        if _is_view(x, shape):
            if x.layout is not TILE_LAYOUT and x.spec.padded_shape != x.spec.shape and x.shape:
                raise NotEmulated(f"a reshape of {x.spec}, whose rows are padded to whole shards, is not modelled")
            return view(x, spec(shape, x.dtype, x.layout, old))
    if x.dtype not in RESHAPED and x.dtype not in BLOCK_FORMATS:
        raise DeviceRejects(RESHAPE_DTYPES)
    if memory.is_sharded():
        if 0 in shape:
            raise NotEmulated(f"a reshape of {x.spec}, which has no elements, is not modelled for sharded tensors")
        inside = padded(shape, x.layout, None)
        if memory_config is None or memory.shard_spec is None:
            memory = over_same_cores(memory if memory.shard_spec else old, inside, x.layout)
        memory = named_by_extent(memory, inside)
        if page_bytes(x, memory) % 16:
            raise DeviceRejects("Shard page size must be aligned to 16B for L1 Tensor")
    made = spec(shape, x.dtype, x.layout, memory)
    out = launch(
        name, (x,), made, moving(lambda v: v.reshape(shape), x.dtype), through=through_bfloat16(x, made),
        rows=None if x.dtype in BLOCK_FORMATS else HELD,
    )  # fmt: skip
    if x.layout is TILE_LAYOUT and 0 not in shape:
        dtype = bfloat16 if x.dtype in BLOCK_FORMATS else x.dtype
        program = ("reshape", dtype, x.spec.shape, old, shape, memory)
        keep(x.buffer.device, program, BufferType.DRAM, tile_map_bytes(x.spec.shape, shape))
    return out


def through_bfloat16(x: Tensor, made) -> tuple:
    """What an op casts block formats to, and back from, where its kernel moves bfloat16 only.

    Source    ttnn 0.81.1, buffers seen by its graph capture
    """
    if x.dtype not in BLOCK_FORMATS:
        return ()
    return tuple(spec(s.shape, bfloat16, s.layout, s.memory_config) for s in (x.spec, made))


@lru_cache(maxsize=4096)
def tile_map_bytes(old: Shape, new: Shape) -> int:
    """Bytes in each DRAM bank of the table by which a reshape in TILE moves data: a page per tile of the result.

    A segment is a run of elements, row by row inside a tile of the result, that stays contiguous in both tiles, whose
    elements lie in 16x16 faces. With P tiles to draw from and at most M segments from one of them, a page has room for
    the largest P * M of all tiles, in blocks of 16.

    Source    ttnn 0.81.1, allocated bytes of 137 random reshapes
    """
    chunk = math.gcd(FACE, old[-1] if old else 1, new[-1] if new else 1)  # never cut by a face or a row
    # The pattern repeats with whole rows of tiles on both sides.
    period = math.lcm(*(_tile_rows(s) for s in (old, new)))
    at = np.arange(0, min(old.volume(), period), chunk)
    (tile, inside), (into, within) = _place(old, at), _place(new, at)
    order = np.argsort(into, kind="stable")
    tile, inside, into, within = tile[order], inside[order], into[order], within[order]
    starts = np.ones(len(at), bool)
    same_tiles = (tile[1:] == tile[:-1]) & (into[1:] == into[:-1])
    starts[1:] = ~(same_tiles & (inside[1:] == inside[:-1] + chunk) & (within[1:] == within[:-1] + chunk))
    pairs, segments = np.unique(np.stack([into[starts], tile[starts]]), axis=1, return_counts=True)
    sources, most = np.bincount(pairs[0]), np.zeros(pairs[0].max() + 1, int)
    np.maximum.at(most, pairs[0], segments)
    blocks, rest = divmod(int((sources * most).max()), 16)
    page = 16 * (16 * blocks + 2 * rest)
    tiles = tile_padded(new).volume() // TILE**2
    return round_up(-(-tiles // BANKS[BufferType.DRAM]) * page, ALIGNMENT)


def _tile_rows(shape: Shape) -> int:
    """Elements after which the tiles of a shape begin anew in the same way."""
    rows, columns = (1, 1, *shape)[-2:]
    return columns * (TILE if rows % TILE == 0 or shape.volume() == rows * columns else rows)


def _place(shape: Shape, at):
    """(tile, element in the tile's faces) of elements counted in logical order."""
    rows, columns = (1, 1, *shape)[-2:]
    matrix, inside = np.divmod(at, rows * columns)
    row, column = np.divmod(inside, columns)
    tile = (matrix * -(-rows // TILE) + row // TILE) * -(-columns // TILE) + column // TILE
    row, column = row % TILE, column % TILE
    face = row // FACE * 2 + column // FACE
    return tile, face * FACE**2 + row % FACE * FACE + column % FACE


@op("ttnn.reshape")
def reshape(
    input_tensor: Tensor, shape=None, padded_shape=None, *, logical_shape=None,
    memory_config: MemoryConfig | None = None,
    pad_value=None, reshape_tile_mode=None, sub_core_grids=None, skip_padding_fill: bool = False,
) -> Tensor:  # fmt: skip
    """Another shape of the same volume; one dim may be -1.

    Shapes    with `padded_shape`, the logical volume may change inside it: padding that comes into view is zero
    Dtypes    bfloat16, float32, int32, uint32 and block formats; others only where no data moves
    Layout    kept; shards are cut anew over the same cores where data moves
    Raises    another volume; a freed tensor
    Differs   `pad_value` fills padding, not held here; `reshape_tile_mode` and `sub_core_grids` change no value
    Source    recorded contract, op `ttnn.reshape`; ttnn 0.81.1, buffer addresses of results
    """
    wanted = integers("ttnn.reshape", "shape", shape if logical_shape is None else logical_shape)
    x = input_tensor
    if padded_shape is not None:
        inside = integers("ttnn.reshape", "padded_shape", padded_shape)
        if -1 not in wanted and math.prod(wanted) != x.spec.shape.volume():
            return _reshaped_inside(x, Shape(wanted), Shape(inside), memory_config)
    return reshaped("ttnn.reshape", x, _resolved(wanted, x.spec.shape.volume()), memory_config)


def _reshaped_inside(x: Tensor, shape: Shape, inside: Shape, memory_config) -> Tensor:
    """A reshape of the padded volume, of which `shape` is then in view."""
    allocated(x)
    if inside.volume() != x.spec.padded_shape.volume():
        raise DeviceRejects("Invalid arguments to reshape", f"{x.spec.padded_shape} does not fill {inside}")
    outer = x.spec.padded_shape

    def compute(v):
        v = _padded_to(v, outer).reshape(inside)
        return v[tuple(builtins.slice(0, n) for n in shape)].contiguous()

    if x.buffer is None:
        return on_host(x, shape, compute)
    made = spec(shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.reshape", (x,), made, moving(compute, x.dtype))


@op("ttnn.view", "ttnn.experimental.view")
def view_(input_tensor: Tensor, shape) -> Tensor:
    """Another shape on the same memory.

    Raises    where the last dim would change, or in TILE the one before it, unless both are multiples of 32
    Source    recorded contract, op `ttnn.view`
    """
    x = allocated(input_tensor)
    if x.buffer is None:
        raise DeviceRejects("View requires the tensor be stored on device, use reshape instead")
    new = _resolved(integers("ttnn.view", "shape", shape), x.spec.shape.volume())
    old = x.spec.shape
    if (old[-1] if old else 1) != (new[-1] if new else 1):
        raise DeviceRejects(
            f"The last dimension can not change in view, attempting to change last dimension from "
            f"{old[-1]} to {new[-1]}, "
            "use reshape instead"
        )
    if new != old and not _is_view(x, new):
        rows = (old[-2] if len(old) > 1 else 1), (new[-2] if len(new) > 1 else 1)
        raise DeviceRejects(
            f"Invalid second last dims for TILED reshape, from {rows[0]} to {rows[1]}, use reshape instead"
        )
    return same(x) if new == old else view(x, spec(new, x.dtype, x.layout, x.spec.memory_config))


@op("ttnn.squeeze")
def squeeze(input_tensor: Tensor, dim=None) -> Tensor:
    """Without the dims of size 1 that are named (all of them by default); a named dim of another size stays."""
    x, rank = input_tensor, len(input_tensor.spec.shape)
    if dim is None:
        gone = {d for d, n in enumerate(x.spec.shape) if n == 1}
    else:
        dims, gone = (dim,) if isinstance(dim, int) else integers("ttnn.squeeze", "dim", dim), set()
        for d in dims:
            at = d + rank if d < 0 else d
            if not 0 <= at < rank:
                raise DeviceRejects(
                    f"Dimension out of range (expected to be in range of [{-rank},{rank - 1}], but got {d})"
                )
            if x.spec.shape[at] == 1:
                gone.add(at)
    return reshaped("ttnn.reshape", x, Shape(n for d, n in enumerate(x.spec.shape) if d not in gone))


@op("ttnn.unsqueeze")
def unsqueeze(input_tensor: Tensor, dim: int) -> Tensor:
    """With a dim of size 1 put in at `dim`."""
    rank = len(input_tensor.spec.shape)
    at = dim + rank + 1 if dim < 0 else dim
    if not 0 <= at <= rank:
        raise DeviceRejects(f"Dimension out of range (expected to be in range of [{-rank - 1},{rank}], but got {dim})")
    shape = input_tensor.spec.shape
    return reshaped("ttnn.reshape", input_tensor, Shape(shape[:at] + (1,) + shape[at:]))


@op("ttnn.unsqueeze_to_4D")
def unsqueeze_to_4D(tensor: Tensor) -> Tensor:
    """With leading ones up to rank 4."""
    if len(tensor.spec.shape) > 4:
        raise DeviceRejects("Tensor rank is greater than 4")
    return reshaped("ttnn.reshape", tensor, tensor.spec.shape.to_rank(4))


# ---------------------------------------------------------------- order
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


# ---------------------------------------------------------------- parts
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
    for d, (e, n) in enumerate(zip(ends, limits)):
        last = round_up(e, TILE) if tiled and not through_rows and d >= rank - 2 else e
        if last > n:
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
        return launch(name, (x,), made, lambda v: _padded_to(v, within)[cut].contiguous(), through=through)
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
    update("ttnn.copy", on_device(output_tensor), (result,), lambda target, v: target.copy_(v))
    return same(output_tensor)


@op("ttnn.split")
def split(input_tensor: Tensor, split_size, dim: int = 0, *, memory_config: MemoryConfig | None = None) -> list:
    """Parts of `split_size` along `dim` (the last may be smaller), or of the sizes listed. Always copies.

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
    """Equal parts along `dim`, as many as said or fewer; the last is smaller where the size does not divide."""
    if chunks <= 0:
        raise DeviceRejects("Number of chunks must be greater than zero")
    x = input_tensor
    at = axis(dim, len(x.spec.shape))
    if chunks == 1:
        return [same(allocated(x))]
    return split(x, max(1, -(-x.spec.shape[at] // chunks)), at)


# ---------------------------------------------------------------- more
@op("ttnn.concat")
def concat(
    tensors, dim: int = 0, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    groups: int = 1,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """Tensors behind one another along `dim`.

    Layout    that of the first; DRAM interleaved unless `memory_config` is given, wherever the operands are
    Dtypes    all the same; bfloat8_b that must be untilized (unaligned along a tile dim) comes out as bfloat16
    Raises    other ranks, dims or dtypes; some sharded and some not; bfloat4_b that must be untilized
    Source    recorded contract, op `ttnn.concat`
    """
    if isinstance(tensors, Tensor):  # the library takes a tensor for the sequence of its rows
        tensors = [tensors[i] for i in range(tensors.shape[0])]
    tensors = list(tensors)
    if not builtins.all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(
            "ttnn.concat(): incompatible function arguments.\n  got    something else than tensors in the list"
        )
    if not tensors:
        raise DeviceRejects("ttnn.concat: expected a non-empty list of Tensors!")
    if output_tensor is not None:
        raise DeviceRejects("optional output tensor currently unsupported!")
    first = tensors[0]
    rank = len(first.spec.shape)
    at = axis(dim, rank)
    memory = memory_config or MemoryConfig()
    if len(tensors) == 1 and memory == first.memory_config():
        return same(device_tensor(first))
    if groups != 1:
        refuse_unmodelled("ttnn.concat", groups=groups)
    for t in tensors[1:]:
        if len(t.spec.shape) != rank:
            _ranks_differ(first, t)
        if builtins.any(a != b for d, (a, b) in enumerate(zip(first.spec.shape, t.spec.shape)) if d != at):
            raise DeviceRejects(
                "All dimensions must be the same size except for the dimension along which the contenation is "
                "taking place."
            )
    for t in tensors:
        device_tensor(t)
    for t in tensors[1:]:
        if t.dtype is not first.dtype:
            raise DeviceRejects("All Tensors should have same dtypes.")
        if t.is_sharded() != first.is_sharded():
            raise DeviceRejects("All tensors must be sharded or all must be interleaved")
        tiled = first.layout is TILE_LAYOUT and t.is_sharded()
        if tiled and t.spec.memory_config.shard_spec.grid != first.spec.memory_config.shard_spec.grid:
            raise DeviceRejects("Sharded tensors must have the same grid.")
    dtype = first.dtype
    if (
        len(tensors) > 1
        and first.layout is TILE_LAYOUT
        and at >= rank - 2
        and builtins.any(t.spec.shape[at] % TILE for t in tensors)
    ):
        if dtype in (bfloat4_b, DataType.UINT8):
            raise DeviceRejects(ONLY_TILE if dtype is bfloat4_b else TILIZE_DTYPES)
        dtype = bfloat16 if dtype is bfloat8_b else dtype
    shape = list(first.spec.shape)
    shape[at] = sum(t.spec.shape[at] for t in tensors)
    made = spec(tuple(shape), dtype, first.layout, memory)
    return launch("ttnn.concat", tensors, made, lambda *values: torch.cat(values, at))


def _ranks_differ(first: Tensor, other: Tensor):
    """The refusal of tensors of several ranks: the library reads the shorter shape past its end."""
    rank = len(other.spec.shape)
    if len(first.spec.shape) < rank:
        raise DeviceRejects(
            "All dimensions must be the same size except for the dimension along which the contenation is taking place."
        )
    raise DeviceRejects(
        f"ShapeBase[] index out of range. {rank} not in [-4, {rank})",
        f"ranks {len(first.spec.shape)} and {rank} differ",
    )


@op("ttnn.stack")
def stack(input_tensors, dim: int) -> Tensor:
    """Tensors of one shape along a new dim."""
    tensors = list(input_tensors)
    if not tensors:
        raise DeviceRejects("Stack expects at least one tensor")
    at = dim + len(tensors[0].spec.shape) + 1 if dim < 0 else dim
    return concat([unsqueeze(t, dim) for t in tensors], at)


@op("ttnn.pad")
def pad(
    input_tensor: Tensor, padding=None, value=None, fill=None, *, output_padded_shape=None, input_tensor_start=None,
    use_multicore: bool = True, memory_config: MemoryConfig | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """With `value` put in front of and behind each dim: pairs for the last dims, or an output shape and a start.

    Layout    TILE only behind; inside the tiles that are there already, on the same memory
    Raises    front padding in TILE; more pairs than dims
    Source    recorded contract, op `ttnn.pad`
    """
    x = input_tensor
    if (
        output_padded_shape is None
        and padding is not None
        and not isinstance(padding, Tensor)
        and len(padding)
        and isinstance(padding[0], int)
    ):
        output_padded_shape, input_tensor_start, value = padding, value, fill
    rank = len(x.spec.shape)
    if output_padded_shape is not None:
        outer = integers("ttnn.pad", "output_padded_shape", output_padded_shape)
        start = integers("ttnn.pad", "input_tensor_start", input_tensor_start)
        if x.layout is not TILE_LAYOUT and builtins.any(n + s > o for n, s, o in zip(x.spec.shape, start, outer)):
            raise DeviceRejects("Output size cannot fit input with offset")
        pairs = [(s, o - n - s) for n, s, o in zip(x.spec.shape, start, outer)]
    else:
        pairs = [] if padding is None else [integers("ttnn.pad", "padding", p) for p in padding]
        if padding is None or builtins.any(len(p) != 2 or min(p) < 0 for p in pairs):
            raise TypeError(f"ttnn.pad(): incompatible function arguments.\n  got    padding = {padding!r:.100}")
        if len(pairs) > rank:
            raise DeviceRejects("ttnn.pad: padding len can't be larger than input tensor rank")
        pairs = [(0, 0)] * (rank - len(pairs)) + pairs
    if not isinstance(value, (int, float)):
        raise TypeError(f"ttnn.pad(): incompatible function arguments.\n  got    value = {value!r:.100}")
    tiled = x.layout is TILE_LAYOUT
    allocated(x)
    if builtins.all(p == (0, 0) for p in pairs):
        return same(x)
    shape = Shape(n + front + back for n, (front, back) in zip(x.spec.shape, pairs))
    flat = [n for p in reversed(pairs) for n in p]

    def compute(v):
        return torch.nn.functional.pad(v, flat, value=value)

    if x.buffer is None:
        raise NotEmulated("ttnn.pad of a host tensor, which pads only what is not in view, is not modelled")
    if tiled and builtins.any(front for front, _ in pairs):
        raise DeviceRejects("ttnn.pad: on device tile padding does not support front padding")
    memory = output_memory(x, memory_config)
    if tiled and x.dtype is DataType.UINT8:
        raise DeviceRejects(f"Unsupported datatype {cpp(x.dtype)}")
    if tiled and tile_padded(shape) == x.spec.padded_shape and x.dtype not in BLOCK_FORMATS:
        return refilled(x, spec(shape, x.dtype, x.layout, x.spec.memory_config), compute)
    if not tiled and x.dtype is DataType.UINT8:
        raise DeviceRejects("Cannot pad RM tensor with specified format")
    if tiled and x.dtype is bfloat4_b and tile_padded(shape) != x.spec.padded_shape:
        raise DeviceRejects("Cannot pad tilized tensor with specified format")
    if tiled and rank == 1:
        raise DeviceRejects(
            "MeshBuffer must be large enough to hold the tensor.", "the library pads no vector to more tiles"
        )
    if memory_config is None and memory.memory_layout is TensorMemoryLayout.HEIGHT_SHARDED:
        memory = with_shards(memory, (memory.shard_spec.shape[0], extent(padded(shape, x.layout, None))[1]))
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.pad", (x,), made, moving(compute, x.dtype))


def refilled(x: Tensor, made, compute) -> Tensor:
    """A tensor on the memory of `x` that shows part of its padding; what is written to one does not reach the other."""
    out = view(x, made)
    out.buffer.store = out.buffer
    run_into((x,), out, compute)
    return out


@op("ttnn.repeat")
def repeat(
    input_tensor: Tensor,
    repeat_dims,
    *,
    memory_config: MemoryConfig | None = None,
    optional_output_tensor: Tensor | None = None,
) -> Tensor:
    """Copies behind one another along each dim; fewer numbers than dims count from the last, more add dims in front.

    Source    recorded contract, op `ttnn.repeat`
    """
    times = integers("ttnn.repeat", "repeat_dims", repeat_dims)
    if builtins.any(t < 0 for t in times):
        raise TypeError(f"ttnn.repeat(): incompatible function arguments.\n  got    repeat_dims = {list(times)}")
    refuse_unmodelled("ttnn.repeat", optional_output_tensor=optional_output_tensor)
    x = device_tensor(input_tensor)
    rank = max(len(times), len(x.spec.shape))
    times = (1,) * (rank - len(times)) + times
    old = Shape((1,) * (rank - len(x.spec.shape)) + x.spec.shape)
    if builtins.all(t == 1 for t in times) and memory_config in (None, x.spec.memory_config):
        return reshaped("ttnn.reshape", x, old)
    shape = Shape(n * t for n, t in zip(old, times))
    inside = tile_padded(old)
    moved = inside != old and (
        rank > 4 or builtins.any(t != 1 and n != i for t, n, i in zip(times[-2:], old[-2:], inside[-2:]))
    )
    if x.layout is TILE_LAYOUT and moved and x.dtype in (bfloat4_b, DataType.UINT8):
        raise DeviceRejects(ONLY_TILE if x.dtype is bfloat4_b else TILIZE_DTYPES)
    memory = output_memory(x, memory_config)
    if memory_config is None and memory.is_sharded():
        memory = _repeated_shards(memory, padded(shape, x.layout, None), x.layout)
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.repeat", (x,), made, moving(lambda v: v.repeat(times), x.dtype))


def _repeated_shards(memory: MemoryConfig, inside: Shape, layout) -> MemoryConfig:
    """Height sharded in TILE: a core for every row of tiles. What the library chooses otherwise is not modelled."""
    rows, columns = extent(inside)
    cores = rows // TILE
    if (
        memory.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED
        or layout is not TILE_LAYOUT
        or cores > GRID[0] * GRID[1]
    ):
        raise NotEmulated(
            "ttnn.repeat: where this sharded result is placed by default is not modelled; say memory_config="
        )
    shards = ShardSpec(num_cores_to_corerangeset(cores, GRID, True), (TILE, columns), memory.shard_spec.orientation)
    return MemoryConfig(memory.memory_layout, memory.buffer_type, shards)


@op("ttnn.repeat_interleave")
def repeat_interleave(
    input_tensor: Tensor, repeats: int, dim: int, *, memory_config: MemoryConfig | None = None
) -> Tensor:
    """Each slice along `dim` repeated in place. A sharded operand gives DRAM interleaved.

    Source    recorded contract, op `ttnn.repeat_interleave`
    """
    x = input_tensor
    at = axis(dim, len(x.spec.shape))
    if repeats <= 0:
        raise DeviceRejects("ttnn.concat: expected a non-empty list of Tensors!")
    if len(x.spec.shape) == 1:  # goes through a reshape
        if x.dtype not in RESHAPED and x.dtype not in BLOCK_FORMATS:
            raise DeviceRejects(RESHAPE_DTYPES)
    elif repeats == 1 and memory_config in (None, x.spec.memory_config):
        return same(allocated(x))
    device_tensor(x)
    memory = memory_config or (MemoryConfig() if x.is_sharded() else x.spec.memory_config)
    shape = Shape(n * repeats if d == at else n for d, n in enumerate(x.spec.shape))
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.repeat_interleave", (x,), made, moving(lambda v: v.repeat_interleave(repeats, at), x.dtype))


@op("ttnn.expand")
def expand(input_tensor: Tensor, output_shape, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Dims of size 1 repeated to the size asked; -1 keeps a dim."""
    x, wanted = input_tensor, integers("ttnn.expand", "output_shape", output_shape)
    if len(wanted) < len(x.spec.shape):
        raise DeviceRejects("Output rank must be >= input rank for expand")
    old = (1,) * (len(wanted) - len(x.spec.shape)) + tuple(x.spec.shape)
    if builtins.any(w not in (-1, n) and n != 1 for n, w in zip(old, wanted)):
        raise DeviceRejects(
            "Only size 1 dimensions can be expanded in the output shape", f"{x.spec.shape} to {list(wanted)}"
        )
    return repeat(x, [1 if w in (-1, n) else w for n, w in zip(old, wanted)], memory_config=memory_config)


@op("ttnn.gather")
def gather(
    input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, memory_config: MemoryConfig | None = None,
    out: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """out[i][j] = input[i][index[i][j]] for the last dim, and alike for the others.

    Source    recorded contract, op `ttnn.gather`
    """
    refuse_unmodelled("ttnn.gather", sparse_grad=sparse_grad, out=out)
    x = device_tensor(input)
    device_tensor(index)
    if not -len(x.spec.shape) <= dim < len(x.spec.shape):
        raise DeviceRejects(f"gather: dim {dim} is out of range for tensor rank {len(x.spec.shape)}")
    at = dim % len(x.spec.shape)
    if len(index.spec.shape) != len(x.spec.shape):
        raise DeviceRejects(
            "Input and index tensor must have the same number of dimensions. "
            f"Got input dim: {len(x.spec.shape)} and index dim: {len(index.spec.shape)}"
        )
    if index.layout is not x.layout:
        raise DeviceRejects(
            f"Input tensor and index tensor must have the same layout. Got input layout: {cpp(x.layout)} and index "
            f"layout: {cpp(index.layout)}"
        )
    if index.dtype not in (DataType.UINT32, DataType.UINT16):
        raise DeviceRejects(f"gather_codegen: index tensor must be of type UINT32 or UINT16. Got: {cpp(index.dtype)}")
    for d, (n, of) in enumerate(zip(index.spec.shape, x.spec.shape)):
        if d != at and n > of:
            raise DeviceRejects(f"Ends {n} must be less than or equal to the shape of the tensor {of}")
    made = spec(index.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.gather", (x, index), made, moving(lambda v, i: torch.gather(v, at, i.long()), x.dtype))


@op("ttnn.scatter")
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, memory_config: MemoryConfig | None = None,
    reduce: str | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """A copy of `input` with out[i][index[i][j]] = src[i][j] for the last dim, and alike for the others.

    Source    recorded contract, op `ttnn.scatter`
    """
    refuse_unmodelled("ttnn.scatter", reduce=reduce)
    x, at = device_tensor(input), axis(dim, len(input.spec.shape))
    device_tensor(index), device_tensor(src)
    if index.dtype not in INTEGERS:
        raise DeviceRejects(f"index_dtype is not integer, it is {index.dtype.name}.")
    for what, t in (("input", x), ("source", src)):
        if t.dtype is float32 and t.layout is TILE_LAYOUT:
            raise DeviceRejects(
                f"Scatter doesn't work for fp32 tiled tensors yet (see to_layout issue #) - {what} tensor is "
                f"{cpp(t.dtype)} {cpp(t.layout)}."
            )
    if src.dtype is not x.dtype:
        raise DeviceRejects(
            f"input_dtype differs from src_dtype (input_dtype: {x.dtype.name}, src_dtype: {src.dtype.name})."
        )
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch(
        "ttnn.scatter", (x, index, src), made, moving(lambda v, i, s: v.scatter(at, i.long(), s.to(v.dtype)), x.dtype)
    )


def _triangle(name: str, doc: str, function):
    @op(name)
    def call(input_tensor: Tensor, *, diagonal: int = 0, memory_config: MemoryConfig | None = None) -> Tensor:
        x = device_tensor(input_tensor)
        inside = tile_padded(x.spec.shape)
        if x.layout is not TILE_LAYOUT and inside != x.spec.shape:
            raise DeviceRejects(
                f"to_layout: Converting layout to Layout::TILE implicitly changed physical shape from "
                f"{extent(x.spec.shape)} to {extent(inside)} due to alignment constraints. This is currently "
                "unsupported. Please "
                "pad the tensor explicitly before conversion."
            )
        made = spec(x.spec.shape, x.dtype, TILE_LAYOUT, output_memory(x, memory_config))
        return launch(name, (x,), made, moving(lambda v: function(v, diagonal), x.dtype))

    call.__doc__ = doc
    return call


tril = _triangle("ttnn.tril", "What is on and below a diagonal, zero above it.", torch.tril)
triu = _triangle("ttnn.triu", "What is on and above a diagonal, zero below it.", torch.triu)


@op("ttnn.roll")
def roll(input_tensor: Tensor, shifts, dim=None, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Values shifted along dims, those that fall off the end coming in at the front."""
    x = device_tensor(input_tensor)
    shifts = (shifts,) if isinstance(shifts, int) else integers("ttnn.roll", "shifts", shifts)
    dims = None if dim is None else (dim,) if isinstance(dim, int) else integers("ttnn.roll", "dim", dim)
    rank = len(x.spec.shape)
    if dims is not None and len(dims) != len(shifts):
        raise DeviceRejects(f"Roll expects shifts {len(shifts)} and dims {len(dims)} to have the same length")
    for d in dims or ():
        if not -rank <= d < rank:
            raise DeviceRejects(
                f"Invalid dimension index {d}. The dimension must be within the range [{-rank}, {rank - 1}]."
            )
    if x.dtype in BLOCK_FORMATS:  # it cuts and concatenates, and an unaligned cut comes out as bfloat16
        raise DeviceRejects("All Tensors should have same dtypes.")
    if builtins.all(s == 0 for s in shifts) and memory_config is None:
        return same(x)
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.roll", (x,), made, moving(lambda v: torch.roll(v, shifts, dims), x.dtype))
