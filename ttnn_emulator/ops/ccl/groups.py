"""What collectives share: which chips exchange with one another, what comes out, what is refused, what it takes in L1.

A group is the chips that take part together: the whole mesh, or, with a cluster axis, those that differ only in their
row (axis 0) or column (axis 1). Chips that hold the same tensors are computed once and share the result.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch

from ...chips import systems
from ...dtypes import BLOCK_FORMATS, FLOATS, NAME, TILE_BYTES, DataType, Layout, bfloat16
from ...errors import DeviceRejects
from ...fabric import FabricConfig
from ...grid import CoreCoord, CoreRange, CoreRangeSet
from ...launch import keep, on_device, scratch
from ...memory import (
    DRAM_MEMORY_CONFIG,
    L1_MEMORY_CONFIG,
    BufferType,
    MemoryConfig,
    ShardOrientation,
    ShardSpec,
    TensorMemoryLayout,
)
from ...mesh import Topology
from ...numerics.rounding import cast_integer, pack
from ...semaphore import SEMAPHORE_BYTES
from ...shape import TILE
from ...tensor import PlacementReplicate, PlacementShard, Tensor, TensorSpec, TensorTopology, spec
from ...warning import SEMAPHORES_IN_L1, warn

#: Ethernet channels between two neighbouring chips (recorded contract: the refusal of more links).
LINKS = 2


# ---------------------------------------------------------------- groups and topologies
@lru_cache(maxsize=64)
def groups(shape: tuple, axis: int | None) -> tuple[tuple[int, ...], ...]:
    """The chips of every group, in mesh order; chips are numbered row by row."""
    rows, columns = shape
    if axis is None:
        return (tuple(range(rows * columns)),)
    if axis == 0:
        return tuple(tuple(r * columns + c for r in range(rows)) for c in range(columns))
    return tuple(tuple(r * columns + c for c in range(columns)) for r in range(rows))


def same_dim(placement, dim: int, rank: int) -> bool:
    return isinstance(placement, PlacementShard) and placement.dim % rank == dim % rank


def is_flat(t: Tensor, device) -> bool:
    """Whether the tensor is spread over the flattened mesh (one axis) rather than over rows and columns."""
    return len(t.topology.placements()) == 1


def both_axes(t: Tensor) -> list:
    """One placement for the rows and one for the columns."""
    placements = t.topology.placements()
    return placements * 2 if len(placements) == 1 else placements


def is_line(device) -> bool:
    return 1 in device.shape


def makes_ring(device, axis: int | None, topology) -> bool:
    """Whether a collective that is asked for a ring goes round one (Source: ttnn 0.81.1 on n300 and t3000)."""
    return topology is Topology.Ring and axis is None and is_line(device) and device.chips > 2


def gathered_topology(t: Tensor, device, axis: int | None, dim: int) -> TensorTopology:
    """All replicated, or replicated along the cluster axis (recorded contract; the rest asked of ttnn 0.81.1)."""
    whole, flat = PlacementReplicate(), is_flat(t, device)
    if is_line(device) and flat:
        return TensorTopology((device.chips,), (whole,))
    if axis is None:
        return TensorTopology((device.chips,), (whole,)) if flat else TensorTopology(device.shape, (whole, whole))
    if flat and axis == 0 and same_dim(t.topology.placements()[0], dim, len(t.spec.shape)):
        return t.topology  # the library leaves a flat sharding on the gathered dim as it was
    placements = both_axes(t)
    placements = [whole, placements[1]] if axis == 0 else [placements[0], whole]
    return TensorTopology(device.shape, placements)


def reduced_topology(t: Tensor, device, axis: int | None) -> TensorTopology:
    whole = PlacementReplicate()
    if is_line(device) and is_flat(t, device):
        return TensorTopology((device.chips,), (whole,))
    placements = [p if axis is not None and axis != i else whole for i, p in enumerate(both_axes(t))]
    return TensorTopology(device.shape, placements)


def scattered_topology(t: Tensor, device, axis: int | None, dim: int) -> TensorTopology:
    """Sharded on `dim` along the axes that take part; a dim that both axes would cut is one flat sharding."""
    cut, rank = PlacementShard(dim), len(t.spec.shape)
    if is_flat(t, device) and (axis is None or is_line(device)):
        return TensorTopology((device.chips,), (cut,))
    rows, columns = both_axes(t)
    if axis in (None, 0) and not same_dim(columns, dim, rank):
        rows = cut
    if axis in (None, 1):
        columns = cut
    if isinstance(rows, PlacementShard) and same_dim(columns, rows.dim, rank):
        return TensorTopology((device.chips,), (columns,))
    return TensorTopology(device.shape, (rows, columns))


# ---------------------------------------------------------------- checks
def fabric_of(t: Tensor, topology: Topology | None = None, num_links: int | None = None, axis: int | None = None):
    """The device of a collective's operand; without a fabric there is nothing to send over.

    Where topology and links are both given, the library does not ask the fabric, and meets the single chip first.
    """
    device = on_device(t).buffer.device
    if device.fabric is FabricConfig.DISABLED:
        if device.chips == 1 and topology is not None and num_links is not None:
            check_axis(device, axis, num_links, topology)
            if topology is Topology.Ring and axis is None:
                raise DeviceRejects("reduce_scatter_minimal_async ring implementation doesn't support odd ring size")
            raise DeviceRejects(
                "DEBUG: forward_coord or backward_coord is null", "a collective needs more than one chip"
            )
        raise DeviceRejects(
            "Trying to get un-initialized fabric context",
            "ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_1D) before the mesh is opened"
            if device.chips > 1
            else "a collective needs more than one chip",
        )
    return device


def unsigned_axis(name: str, axis: int | None) -> None:
    """The binding takes no negative axis."""
    if axis is not None and axis < 0:
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    cluster_axis = {axis}\n  want   0 or 1")


def check_axis(
    device, axis: int | None, num_links: int | None, topology: Topology | None, links_first: bool = False
) -> None:
    """An axis that the mesh does not have: which check meets it first depends on the op and on what else was given.

    Source    ttnn 0.81.1 on n300 and t3000, with both fabrics: each topology with and without `num_links`
    """
    if axis is None or axis < len(device.shape):
        return
    ring = topology is Topology.Ring or (topology is None and device.fabric is FabricConfig.FABRIC_1D_RING)
    if num_links is None and (links_first or not ring):
        raise DeviceRejects(f"Invalid cluster axis {axis}. Must be 0 or 1")
    if ring:
        raise DeviceRejects(f"ShapeBase[] index out of range. {axis} not in [-4, {len(device.shape)})")
    raise DeviceRejects(f"cluster axis {axis} is out of range for mesh shape rank {len(device.shape)}")


def check_links(device, axis: int | None, num_links: int | None, neighbour: int | None = None) -> None:
    if num_links is not None and num_links < 1:
        raise DeviceRejects("num_links must be greater than 0")
    if num_links is None or num_links <= LINKS:
        return
    neighbour = neighbour or (device.shape[1] if axis == 0 else 1)
    raise DeviceRejects(
        f"Requested link index {LINKS} is out of bounds. "
        f"{LINKS} ethernet channels available to forward b/w src (M0, D0) "
        f"and dst (M0, D{neighbour})"
    )


def check_route(device, topology) -> None:
    """A one-dimensional fabric forwards between neighbours alone: over a whole mesh the chips are one line in mesh
    order, a ring where they are so laid.

    Source    ttnn 0.81.1 on t3000 (1x4, 1x8, 2x4, 4x2) and p150x4 (2x2), with FABRIC_1D, FABRIC_1D_RING and FABRIC_2D
    """
    if not device.fabric.name.startswith("FABRIC_1D"):
        return
    rows = systems.machine().chip_ids
    at = {chip: (r, c) for r, row in enumerate(rows) for c, chip in enumerate(row)}
    places = [at[chip] for chip in device.device_ids]
    pairs = list(pairwise(places))
    ring = makes_ring(device, None, topology)
    if ring:
        pairs.insert(0, (places[0], places[-1]))
    for a, b in pairs:
        if abs(a[0] - b[0]) + abs(a[1] - b[1]) != 1:
            source, target = (r * len(rows[0]) + c for r, c in (a, b))
            raise DeviceRejects(
                f"Could not find any forwarding direction from src (M0, D{source}) to dst (M0, D{target})",
                f"no neighbours for {device.fabric}: name a cluster_axis"
                + (", Topology.Linear" if ring else "")
                + " or open the mesh with FABRIC_2D",
            )


def ways_of(device, axis: int | None) -> int:
    return device.chips if axis is None else device.shape[axis]


def each_group(device, axis: int | None, compute):
    """A collective's compute: `compute(values of a group)` -> one value per member; once for equal groups."""
    members = groups(tuple(device.shape), axis)

    def run(values):
        out, done = [None] * device.chips, {}
        for group in members:
            mine = [values[chip] for chip in group]
            key = tuple(map(id, mine))
            if key not in done:
                done[key] = compute(mine)
            for chip, value in zip(group, done[key]):
                out[chip] = value
        return out

    return run


# ---------------------------------------------------------------- arithmetic
def summed(values: list[torch.Tensor], dtype) -> torch.Tensor:
    """The sum of the chips' values as a line of chips adds them: one after the other, rounded to `dtype` at each step.

    Numerics  bfloat16: RNA of each fp32 sum, which equals the matrix unit's addition in 99 % of the cases; block
              formats: packed at each step
    """
    if dtype is bfloat16:
        total = values[0].to(torch.float32, copy=True)
        bits = total.view(torch.int32)
        for v in values[1:]:
            total += v
            bits.add_(0x8000).bitwise_and_(-0x10000)
        return total.to(torch.bfloat16)
    total = values[0]
    for v in values[1:]:
        total = (
            pack(total.to(torch.float32) + v.to(torch.float32), NAME[dtype]) if dtype in BLOCK_FORMATS else total + v
        )
    return total if dtype in FLOATS else cast_integer(total, NAME[dtype])


def summed_over(values: list[torch.Tensor], device, axis: int | None, dtype) -> torch.Tensor:
    """The sum of a group: of the whole mesh over the rows first, then over the columns, as the library does."""
    rows, columns = device.shape
    if axis is None and rows > 1 and columns > 1:
        values = [summed(values[c::columns], dtype) for c in range(columns)]
    return summed(values, dtype)


# ---------------------------------------------------------------- memory
def axes_of(device, axis: int | None) -> list[int]:
    """The mesh axes along which a sum is taken, one after the other."""
    return [a for a in ((0, 1) if axis is None else (axis,)) if device.shape[a] > 1]


def reduce_memory(device, axis: int, x: TensorSpec, made: TensorSpec, topology=None) -> None:
    """The memory of an all_reduce along one axis beside its result: as a reduce_scatter and an all_gather of the parts,
    or where no dim divides over the chips, as the sum of all chips' tensors side by side in DRAM.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture; on p300x2, nine shapes
    """
    ways = device.shape[axis]
    dim = divided(x, ways)
    if dim is not None:
        shape = (n // ways if i == dim else n for i, n in enumerate(x.shape))
        part = spec(tuple(shape), made.dtype, made.layout, made.memory_config)
        with scratch(device, part):
            around, direct = goes_round(device, axis, topology), is_direct(device, axis, topology, part)
            scatter_memory(device, axis, x, part, around, direct)
            with scratch(device, made):
                keep_semaphores(device, "all_gather", axis, part, made)
        return
    with scratch(device, *[made] * ways):
        keep_semaphores(device, "all_broadcast", axis, x, made)
        stacked = spec((ways, *x.shape[-3:]), made.dtype, made.layout, DRAM_MEMORY_CONFIG)
        with scratch(device, stacked):
            pass
    wide = (spec(s.shape, bfloat16, s.layout, s.memory_config) for s in (stacked, made) if s.dtype in BLOCK_FORMATS)
    with scratch(device, stacked, *wide, made):
        pass


def divided(x: TensorSpec, ways: int) -> int | None:
    """The last dim that chips can share in whole tiles, or before the last two in whole numbers."""
    last = len(x.shape) - 1
    for dim in range(last, -1, -1):
        size = x.padded_shape[dim] if dim == last else x.shape[dim]
        if size % (ways * (TILE if dim >= last - 1 else 1)) == 0:
            return dim
    return None


def goes_round(device, axis: int | None, topology) -> bool:
    """Whether a plain collective goes round a fabric that is a ring: it does unless it is asked for a line."""
    ring = device.fabric is FabricConfig.FABRIC_1D_RING and is_line(device) and ways_of(device, axis) > 2
    return ring and topology in (None, Topology.Ring)


#: The largest result of a chip that a reduce_scatter round a fabric that is a ring takes through L1, not through DRAM.
DIRECT_BYTES = 1 << 16


def is_direct(device, axis: int | None, topology, part: TensorSpec) -> bool:
    size = part.padded_shape.volume() // (TILE * TILE) * TILE_BYTES[part.dtype]
    return goes_round(device, axis, topology) and part.layout is Layout.TILE and size <= DIRECT_BYTES


def scatter_memory(
    device, axis: int | None, x: TensorSpec, part: TensorSpec, ring: bool = False, direct: bool = False
) -> None:
    """What a reduce_scatter holds beside its result, and its semaphores: its input's tiles twice, round a ring once,
    always in DRAM; or `direct`, in L1, two rounds of pages of 8 tiles (4 of float32): all of them on each core, or in
    banks where a chip's result has more than two pages.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture; direct: t3000_1x8, 38 calls
    """
    if not direct:
        with scratch(device, spec((1 if ring else 2, *x.padded_shape), x.dtype, x.layout, DRAM_MEMORY_CONFIG)):
            keep_semaphores(device, "reduce_scatter", axis, x, part)
        return
    of_page = 4 if x.dtype is DataType.FLOAT32 else 8
    own = -(-part.padded_shape.volume() // (TILE * TILE * of_page))
    pages, words = 2 * ways_of(device, axis) * own, of_page * TILE_BYTES[x.dtype] // 4
    memory = L1_MEMORY_CONFIG
    if own <= 2:
        columns, rows = device.chip.grid
        cores = CoreRangeSet({CoreRange(CoreCoord(0, 0), CoreCoord(columns - 1, rows - 1))})
        shards = ShardSpec(cores, (pages, words), ShardOrientation.ROW_MAJOR)
        memory, pages = MemoryConfig(TensorMemoryLayout.HEIGHT_SHARDED, BufferType.L1, shards), pages * columns * rows
    with scratch(device, spec((pages, words), DataType.UINT32, Layout.ROW_MAJOR, memory)):
        keep_semaphores(device, "reduce_scatter_direct", axis, x, part)


WARNED = ("all_gather", "all_broadcast")  # the programs that the library warns of semaphores in


def keep_semaphores(device, name: str, axis, x: TensorSpec, out: TensorSpec) -> None:
    """Every new program of a collective takes semaphores in L1; `axis` is what tells programs apart beside the specs.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture
    """
    count = {"reduce_scatter": 4, "reduce_scatter_direct": 12}.get(name, 2)
    program = (name, axis, x, out)
    if name in WARNED and program not in device.kept and not device.l1_small_size:
        warn(SEMAPHORES_IN_L1)
    keep(device, program, BufferType.L1, *[SEMAPHORE_BYTES] * count)
