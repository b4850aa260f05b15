"""Other shapes: reshape, view, squeeze and unsqueeze."""

from __future__ import annotations

import builtins
import math
from functools import lru_cache

import numpy as np

from ...chips import Chip
from ...dtypes import BLOCK_FORMATS, TILE_LAYOUT, bfloat16, cpp
from ...errors import DeviceRejects, NotEmulated
from ...launch import keep, launch, output_memory, same, view
from ...memory import BufferType, MemoryConfig, extent, named_by_extent, over_same_cores
from ...numerics.rows import HELD
from ...op import op
from ...shape import TILE, Shape, round_up, tile_padded
from ...tensor import Tensor, padded, spec
from ...warning import warn
from .moving import FACE, RESHAPE_DTYPES, RESHAPED, allocated, filled_to, integers, moving, on_host, page_bytes


def resolved(shape: tuple[int, ...], volume: int) -> Shape:
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
    if memory_config is None and old.shard_spec and len(old.shard_spec.grid.ranges()) > 1:
        memory = MemoryConfig(buffer_type=old.buffer_type)  # ttnn 0.81.1, over cores that are no rectangle
    if memory.is_sharded():
        if 0 in shape:
            raise NotEmulated(f"a reshape of {x.spec}, which has no elements, is not modelled for sharded tensors")
        inside = padded(shape, x.layout, None)
        if memory_config is None or memory.shard_spec is None:
            memory = over_same_cores(memory if memory.shard_spec else old, inside, x.layout)
        _warn_of_padding(memory, inside)
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
        program = ("reshape", dtype, _flat(x.spec.shape), old, _flat(shape), memory)
        keep(x.buffer.device, program, BufferType.DRAM, tile_map_bytes(x.spec.shape, shape, x.buffer.device.chip))
    return out


def _flat(shape: Shape) -> tuple[int, ...]:
    """What the library's program knows of a shape: all batches as one (ttnn 0.81.1, memory of pairs of reshapes)."""
    rows, columns = (1, 1, *shape)[-2:]
    return math.prod(shape[:-2]), rows, columns


def _warn_of_padding(memory: MemoryConfig, inside) -> None:
    """The library's warning of shards that are four times what each core has to hold, or more."""
    cores = memory.shard_spec.num_cores()
    for axis, letter, unit, other in ((0, "h", "rows", "WIDTH"), (1, "w", "cols", "HEIGHT")):
        whole, shard = extent(inside)[axis], memory.shard_spec.shape[axis]
        share = -(-whole // cores)
        if memory.memory_layout.name.startswith(("BLOCK", other)) or shard // share < 4:
            continue
        warn(
            f"ttnn.reshape: {cpp(memory.memory_layout)} output per-core shard ({shard} {unit}) is {shard // share}x "
            f"its per-core data slice ({share} {unit}) for phys_{letter}={whole} on {cores} cores. Per-core L1 is "
            "dominated by padding; consider a smaller core grid or INTERLEAVED."
        )


def through_bfloat16(x: Tensor, made) -> tuple:
    """What an op casts block formats to, and back from, where its kernel moves bfloat16 only.

    Source    ttnn 0.81.1, buffers seen by its graph capture
    """
    if x.dtype not in BLOCK_FORMATS:
        return ()
    return tuple(spec(s.shape, bfloat16, s.layout, s.memory_config) for s in (x.spec, made))


@lru_cache(maxsize=4096)
def tile_map_bytes(old: Shape, new: Shape, chip: Chip) -> int:
    """Bytes in each DRAM bank of the table by which a reshape in TILE moves data: a page per tile of the result.

    A segment is a run of elements, row by row inside a tile of the result, that stays contiguous in both tiles, whose
    elements lie in 16x16 faces. With P tiles to draw from and at most M segments from one of them, a page has room for
    the largest P * M of all tiles, in blocks of 16.

    Source    ttnn 0.81.1, allocated bytes of 137 random reshapes on Wormhole, 22 on Blackhole
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
    page = round_up(16 * (16 * blocks + 2 * rest), chip.dram.page_alignment)
    tiles = tile_padded(new).volume() // TILE**2
    return round_up(-(-tiles // chip.dram.count) * page, chip.buffer_alignment)


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
    return reshaped("ttnn.reshape", x, resolved(wanted, x.spec.shape.volume()), memory_config)


def _reshaped_inside(x: Tensor, shape: Shape, inside: Shape, memory_config) -> Tensor:
    """A reshape of the padded volume, of which `shape` is then in view."""
    allocated(x)
    if inside.volume() != x.spec.padded_shape.volume():
        raise DeviceRejects("Invalid arguments to reshape", f"{x.spec.padded_shape} does not fill {inside}")
    outer = x.spec.padded_shape

    def compute(v):
        v = filled_to(v, outer).reshape(inside)
        return v[tuple(builtins.slice(0, n) for n in shape)].contiguous()

    if x.buffer is None:
        return on_host(x, shape, compute)
    made = spec(shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.reshape", (x,), made, moving(compute, x.dtype))


@op("ttnn.experimental.view")
def experimental_view(input_tensor: Tensor, *dims, shape=None, N=None, C=None, H=None, W=None) -> Tensor:
    """`ttnn.view`, of a shape or of four dims.

    Shapes    as ttnn.view
    Dtypes    as ttnn.view
    Differs   the library changes the last dim too, where the memory is large enough; here NotEmulated
    Source    ttnn 0.81.1, asked
    """
    named = tuple(n for n in (N, C, H, W) if n is not None)
    new = shape if shape is not None else dims[0] if len(dims) == 1 and not named else dims + named
    try:
        return view_(input_tensor, new)
    except DeviceRejects as error:
        raise NotEmulated(f"ttnn.experimental.view: {error}; ttnn.reshape copies where a view cannot be") from None


@op("ttnn.view")
def view_(input_tensor: Tensor, shape) -> Tensor:
    """Another shape on the same memory.

    Shapes    [...] -> [...] of the same volume, the last dim kept in TILE
    Dtypes    bfloat16 (recorded)
    Raises    where the last dim would change, or in TILE the one before it, unless both are multiples of 32
    Source    recorded contract, op `ttnn.view`
    """
    x = allocated(input_tensor)
    if x.buffer is None:
        raise DeviceRejects("View requires the tensor be stored on device, use reshape instead")
    new = resolved(integers("ttnn.view", "shape", shape), x.spec.shape.volume())
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
    """Without the dims of size 1 that are named (all of them by default); a named dim of another size stays.

    Shapes    the dim `dim`, of size 1, goes
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.squeeze`
    """
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
    """With a dim of size 1 put in at `dim`.

    Shapes    a dim of size 1 comes at `dim`
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.unsqueeze`
    """
    rank = len(input_tensor.spec.shape)
    at = dim + rank + 1 if dim < 0 else dim
    if not 0 <= at <= rank:
        raise DeviceRejects(f"Dimension out of range (expected to be in range of [{-rank - 1},{rank}], but got {dim})")
    shape = input_tensor.spec.shape
    return reshaped("ttnn.reshape", input_tensor, Shape(shape[:at] + (1,) + shape[at:]))


@op("ttnn.unsqueeze_to_4D")
def unsqueeze_to_4D(tensor: Tensor) -> Tensor:
    """With leading ones up to rank 4.

    Shapes    rank up to 4 -> rank 4, with leading ones
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.unsqueeze_to_4D`
    """
    if len(tensor.spec.shape) > 4:
        raise DeviceRejects("Tensor rank is greater than 4")
    return reshaped("ttnn.reshape", tensor, tensor.spec.shape.to_rank(4))


@op("ttnn.reshape_on_device")
def reshape_on_device(
    input_tensor: Tensor, W: int, Z: int, Y: int, X: int, *, memory_config: MemoryConfig | None = None
) -> Tensor:
    """ttnn.reshape to four dims, one of which may be -1.

    Shapes    any of the same volume -> [W, Z, Y, X]
    Dtypes    as ttnn.reshape
    Source    ttnn 0.81.1, asked
    """
    return reshaped(
        "ttnn.reshape", allocated(input_tensor), resolved((W, Z, Y, X), input_tensor.spec.shape.volume()),
        memory_config,
    )  # fmt: skip
