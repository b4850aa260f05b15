"""Collectives over the chips of a mesh: all_gather, all_reduce, reduce_scatter.

A group is the chips that take part together: the whole mesh, or, with a cluster axis, those that differ only in their
row (axis 0) or column (axis 1). Chips that hold the same tensors are computed once and share the result.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ...device import FabricConfig
from ...dtypes import BLOCK_FORMATS, FLOATS, NAME, Layout, bfloat16
from ...errors import DeviceRejects
from ...memory import DRAM_MEMORY_CONFIG, BufferType, MemoryConfig
from ...mesh import Topology
from ...numerics.rounding import cast_integer, pack
from ...numerics.rows import EACH, Slices
from ...op import keep, launch, on_device, op, output_memory, refuse_unmodelled, scratch, unmodelled
from ...shape import TILE
from ...tensor import PlacementReplicate, PlacementShard, Tensor, TensorSpec, TensorTopology, spec

#: Ethernet channels between two neighbouring chips (recorded contract: the refusal of more links).
LINKS = 2
#: What a global semaphore takes in a bank of L1 (ttnn 0.81.1, allocated bytes): 16 bytes, in units of 32.
SEMAPHORE_BYTES = 32
_ROWS = Slices((-2,), -2)


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


def _same_dim(placement, dim: int, rank: int) -> bool:
    return isinstance(placement, PlacementShard) and placement.dim % rank == dim % rank


def _flat(t: Tensor, device) -> bool:
    """Whether the tensor is spread over the flattened mesh (one axis) rather than over rows and columns."""
    return len(t.topology.placements()) == 1


def _two(t: Tensor) -> list:
    """One placement for the rows and one for the columns."""
    placements = t.topology.placements()
    return placements * 2 if len(placements) == 1 else placements


def _is_line(device) -> bool:
    return 1 in device.shape


def _gathered_topology(t: Tensor, device, axis: int | None, dim: int) -> TensorTopology:
    """All replicated, or replicated along the cluster axis (recorded contract; the rest asked of ttnn 0.81.1)."""
    whole, flat = PlacementReplicate(), _flat(t, device)
    if _is_line(device) and flat:
        return TensorTopology((device.chips,), (whole,))
    if axis is None:
        return TensorTopology((device.chips,), (whole,)) if flat else TensorTopology(device.shape, (whole, whole))
    if flat and axis == 0 and _same_dim(t.topology.placements()[0], dim, len(t.spec.shape)):
        return t.topology  # the library leaves a flat sharding on the gathered dim as it was
    placements = _two(t)
    placements = [whole, placements[1]] if axis == 0 else [placements[0], whole]
    return TensorTopology(device.shape, placements)


def _reduced_topology(t: Tensor, device, axis: int | None) -> TensorTopology:
    whole = PlacementReplicate()
    if _is_line(device) and _flat(t, device):
        return TensorTopology((device.chips,), (whole,))
    placements = [p if axis is not None and axis != i else whole for i, p in enumerate(_two(t))]
    return TensorTopology(device.shape, placements)


def _scattered_topology(t: Tensor, device, axis: int | None, dim: int) -> TensorTopology:
    """Sharded on `dim` along the axes that take part; a dim that both axes would cut is one flat sharding."""
    cut, rank = PlacementShard(dim), len(t.spec.shape)
    if _flat(t, device) and (axis is None or _is_line(device)):
        return TensorTopology((device.chips,), (cut,))
    rows, columns = _two(t)
    if axis in (None, 0) and not _same_dim(columns, dim, rank):
        rows = cut
    if axis in (None, 1):
        columns = cut
    if isinstance(rows, PlacementShard) and _same_dim(columns, rows.dim, rank):
        return TensorTopology((device.chips,), (columns,))
    return TensorTopology(device.shape, (rows, columns))


# ---------------------------------------------------------------- checks
def _fabric(t: Tensor, topology: Topology | None = None, num_links: int | None = None):
    """The device of a collective's operand; without a fabric there is nothing to send over.

    Where topology and links are both given, the library does not ask the fabric, and meets the single chip first.
    """
    device = on_device(t).buffer.device
    if device.fabric is FabricConfig.DISABLED:
        if device.chips == 1 and topology is not None and num_links is not None:
            if topology is Topology.Ring:
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


def _unsigned(name: str, axis: int | None) -> None:
    """The binding takes no negative axis."""
    if axis is not None and axis < 0:
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    cluster_axis = {axis}\n  want   0 or 1")


def _check_axis(device, axis: int | None, num_links: int | None, topology: Topology | None) -> None:
    """An axis that the mesh does not have: which check meets it first depends on what else was given."""
    if axis is None or axis < len(device.shape):
        return
    if num_links is None:
        raise DeviceRejects(f"Invalid cluster axis {axis}. Must be 0 or 1")
    if topology is Topology.Ring:
        raise DeviceRejects(f"ShapeBase[] index out of range. {axis} not in [-4, {len(device.shape)})")
    raise DeviceRejects(f"cluster axis {axis} is out of range for mesh shape rank {len(device.shape)}")


def _check_links(device, axis: int | None, num_links: int | None) -> None:
    if num_links is not None and num_links < 1:
        raise DeviceRejects("num_links must be greater than 0")
    if num_links is None or num_links <= LINKS:
        return
    neighbour = device.shape[1] if axis == 0 else 1
    raise DeviceRejects(
        f"Requested link index {LINKS} is out of bounds. "
        f"{LINKS} ethernet channels available to forward b/w src (M0, D0) "
        f"and dst (M0, D{neighbour})"
    )


def _ways(device, axis: int | None) -> int:
    return device.chips if axis is None else device.shape[axis]


def _each_group(device, axis: int | None, compute):
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


# ---------------------------------------------------------------- ops
@op("ttnn.all_gather")
def all_gather(
    input_tensor: Tensor, dim: int, *, cluster_axis: int | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, subdevice_id=None, sub_core_grids=None, num_links: int | None = None,
    topology: Topology | None = None, chunks_per_sync: int | None = None, num_workers_per_link: int | None = None,
    num_buffers_per_channel: int | None = None, use_l1_small_for_semaphores: bool = False,
) -> Tensor:  # fmt: skip
    """The pieces of all chips of a group side by side on `dim`, on every one of them.

    Shapes    [..., n, ...] -> [..., n * chips of the group, ...]
    Numerics  moves values
    Raises    no fabric, one chip, an axis or a dim that is not there
    Differs   `num_links`, `topology` and the tuning arguments change no value here, and no time
    Source    recorded contract, op `ttnn.all_gather`
    """
    _unsigned("ttnn.all_gather", cluster_axis)
    x = on_device(input_tensor)
    device = _fabric(x)
    refuse_unmodelled("ttnn.all_gather", output_tensor=output_tensor, subdevice_id=subdevice_id)
    rank = len(x.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Invalid gather dim {dim} for {rank}D input tensor")
    if cluster_axis is not None and cluster_axis >= len(device.shape):
        raise DeviceRejects(f"ShapeBase[] index out of range. {cluster_axis} not in [-4, {len(device.shape)})")
    ways, dim = _ways(device, cluster_axis), dim % rank
    if ways == 1:
        if dim >= rank - 2 and x.spec.shape[dim] != x.spec.padded_shape[dim]:
            raise DeviceRejects(
                "all_broadcast op will only work for num_devices > 1, but has 1, shape: "
                f"{x.topology.distribution_shape()}"
            )
        raise DeviceRejects("all_gather collective will only work for num_devices > 1, got 1")
    memory = output_memory(x, memory_config)
    shape = list(x.spec.shape)
    shape[dim] *= ways

    def gather(values):
        return [torch.cat(values, dim)] * ways

    made = spec(shape, x.dtype, x.layout, memory)
    # What is not whole tiles along `dim`: all chips' tensors on each, put together (rows after they were untilized).
    apart = x.layout is Layout.TILE and dim >= rank - 2 and x.spec.shape[dim] % TILE != 0 and not memory.is_sharded()
    through = [x.spec] * ways if apart else []
    if apart and dim == rank - 2:
        through += [spec(s, x.dtype, Layout.ROW_MAJOR, memory) for s in (*[x.spec.shape] * ways, shape)]
    out = launch(
        "ttnn.all_gather", (x,), made, _each_group(device, cluster_axis, gather),
        topology=_gathered_topology(x, device, cluster_axis, dim), collective=True, through=through,
        rows=_ROWS if dim != rank - 2 else None,
    )  # fmt: skip
    if apart:
        for a in _axes(device, cluster_axis):
            _keep_semaphores(device, "all_broadcast", a, x.spec, x.spec)
    else:
        _keep_semaphores(device, "all_gather", cluster_axis, x.spec, made)
    return out


@op("ttnn.all_reduce")
def all_reduce(
    input_tensor: Tensor, *, cluster_axis: int | None = None, subdevice_id=None,
    memory_config: MemoryConfig | None = None,
    num_links: int | None = None, topology: Topology | None = None,
) -> Tensor:  # fmt: skip
    """The sum over the chips of a group, on every one of them.

    Numerics  added chip by chip, over the whole mesh first along axis 0 and then along axis 1; rounded
              to the tensor's dtype at each step
    Raises    no fabric, one chip, an axis that is not there, more links than there are
    Differs   the device cuts the tensor into slices that start on different chips, so that its order of addition, and
              with it the last bit, varies along the tensor; all chips agree there as here
    Source    recorded contract, op `ttnn.all_reduce`
    """
    _unsigned("ttnn.all_reduce", cluster_axis)
    x = on_device(input_tensor)
    device = _fabric(x, topology, num_links)
    refuse_unmodelled("ttnn.all_reduce", subdevice_id=subdevice_id)
    _check_axis(device, cluster_axis, num_links, topology)
    ways = _ways(device, cluster_axis)
    if ways == 1:
        if x.spec.shape[-1] != x.spec.padded_shape[-1]:
            raise DeviceRejects(
                "all_broadcast op will only work for num_devices > 1, but has 1, shape: "
                f"{x.topology.distribution_shape()}"
            )
        raise DeviceRejects("DEBUG: forward_coord or backward_coord is null", "there is one chip along this axis")
    _check_links(device, cluster_axis, num_links)
    memory = output_memory(x, memory_config)
    dtype = x.dtype

    def reduce(values):
        return [summed_over(values, device, cluster_axis, dtype)] * ways

    made = spec(x.spec.shape, dtype, x.layout, memory)
    axes = [] if x.is_sharded() or memory.is_sharded() else _axes(device, cluster_axis)  # of shards: not known
    if axes:
        _reduce_memory(device, axes[0], x.spec, made)
    with scratch(device, *[made] * (len(axes) - 1)):  # the sum over the rows, which is then summed over the columns
        for a in axes[1:]:
            _reduce_memory(device, a, made, made)
        return launch(
            "ttnn.all_reduce", (x,), made, _each_group(device, cluster_axis, reduce),
            topology=_reduced_topology(x, device, cluster_axis), collective=True, flops=(ways - 1) * x.volume(),
            rows=EACH,
        )  # fmt: skip


def _axes(device, axis: int | None) -> list[int]:
    """The mesh axes along which a sum is taken, one after the other."""
    return [a for a in ((0, 1) if axis is None else (axis,)) if device.shape[a] > 1]


def _reduce_memory(device, axis: int, x: TensorSpec, made: TensorSpec) -> None:
    """The memory of an all_reduce along one axis beside its result: as a reduce_scatter of the width and an all_gather
    of the parts, or where the width has no whole tiles for every chip, as the sum of all chips' tensors side by side.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture
    """
    ways = device.shape[axis]
    if x.padded_shape[-1] // TILE % ways == 0:
        part = spec((*x.shape[:-1], x.shape[-1] // ways), made.dtype, made.layout, made.memory_config)
        with scratch(device, part):
            _scatter_memory(device, axis, x, part)
            with scratch(device, made):
                _keep_semaphores(device, "all_gather", axis, part, made)
        return
    with scratch(device, *[made] * ways):
        _keep_semaphores(device, "all_broadcast", axis, x, made)
        stacked = spec((ways, *x.shape[-3:]), made.dtype, made.layout, made.memory_config)
        with scratch(device, stacked):
            pass
    wide = (spec(s.shape, bfloat16, s.layout, s.memory_config) for s in (stacked, made) if s.dtype in BLOCK_FORMATS)
    with scratch(device, stacked, *wide, made):
        pass


def _scatter_memory(device, axis: int | None, x: TensorSpec, part: TensorSpec) -> None:
    """What a reduce_scatter holds beside its result: its input's tiles twice, always in DRAM; and its semaphores."""
    with scratch(device, spec((2, *x.padded_shape), x.dtype, x.layout, DRAM_MEMORY_CONFIG)):
        _keep_semaphores(device, "reduce_scatter", axis, x, part)


def _keep_semaphores(device, name: str, axis: int | None, x: TensorSpec, out: TensorSpec) -> None:
    """Every new program of a collective takes semaphores in L1.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture
    """
    count = 4 if name == "reduce_scatter" else 2
    keep(device, (name, axis, x, out), BufferType.L1, *[SEMAPHORE_BYTES] * count)


def _parts(x: Tensor, dim: int, ways: list[int]) -> list[int]:
    """The size of a chip's part after each axis, or the refusal of one that does not divide."""
    rank, size, sizes = len(x.spec.shape), x.spec.shape[dim], []
    for n in ways:
        if size % n:
            if x.layout is not Layout.TILE and dim == rank - 1:
                raise DeviceRejects("reduce_scatter currently requires aligned pages", f"{size} over {n} chips")
            if x.layout is not Layout.TILE or dim < rank - 2:
                raise DeviceRejects(f"Dimension {dim} must be divisible by ring_size", f"{size} over {n} chips")
            if -(-size // TILE) % n:
                raise DeviceRejects(
                    f"Number of tiles at dimension {dim} must be divisible by ring_size",
                    f"neither {size} nor its {-(-size // TILE)} tiles divide over {n} chips",
                )
        size //= n
        sizes.append(size)
    return sizes


@op("ttnn.reduce_scatter")
def reduce_scatter(
    input_tensor: Tensor, dim: int, *, cluster_axis: int | None = None, subdevice_id=None,
    memory_config: MemoryConfig | None = None, intermediate_memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, num_links: int | None = None, topology: Topology | None = None,
    chunks_per_sync: int | None = None, num_workers_per_link: int | None = None,
    num_buffers_per_channel: int | None = None,
    compute_kernel_config=None, use_l1_small_for_semaphores: bool = False,
) -> Tensor:  # fmt: skip
    """The sum over the chips of a group, of which each keeps its part of `dim`.

    Shapes    [..., n, ...] -> [..., n / chips of the group, ...]
    Numerics  as `all_reduce`
    Raises    no fabric, one chip, a dim of which neither the size nor (of the last two) the tiles divide
    Differs   where only the tiles divide, the result has no contents
    Source    recorded contract, op `ttnn.reduce_scatter`
    """
    _unsigned("ttnn.reduce_scatter", cluster_axis)
    x = on_device(input_tensor)
    device = _fabric(x, topology, num_links)
    refuse_unmodelled("ttnn.reduce_scatter", output_tensor=output_tensor, subdevice_id=subdevice_id)
    rank = len(x.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Index is out of bounds for the rank, should be between 0 and {rank - 1} however is {dim}")
    _check_axis(device, cluster_axis, num_links, topology)
    ways, dim = _ways(device, cluster_axis), dim % rank
    if ways == 1:
        raise DeviceRejects("DEBUG: forward_coord or backward_coord is null", "there is one chip along this axis")
    _check_links(device, cluster_axis, num_links)
    axes = _axes(device, cluster_axis)
    sizes = _parts(x, dim, [device.shape[a] for a in axes])
    memory = output_memory(x, memory_config)
    shape, dtype = list(x.spec.shape), x.dtype
    shape[dim] = sizes[-1]
    if (
        shape[dim] * ways != x.spec.shape[dim]
    ):  # whole tiles are dealt, which are not the rows that the result speaks of
        return unmodelled((x,), spec(shape, dtype, x.layout, memory))

    def scatter(values):
        return [part.contiguous() for part in torch.chunk(summed_over(values, device, cluster_axis, dtype), ways, dim)]

    first = list(x.spec.shape)
    first[dim] = sizes[0]
    shards = x.is_sharded() or memory.is_sharded()  # what the steps between take then is not known
    steps = [spec(first, dtype, x.layout, memory)] if len(axes) > 1 and not shards else []
    with scratch(device, *steps):
        if steps:
            _scatter_memory(device, axes[0], x.spec, steps[0])
        out = launch(
            "ttnn.reduce_scatter", (x,), spec(shape, dtype, x.layout, memory), _each_group(device, cluster_axis,
            scatter),
            topology=_scattered_topology(x, device, cluster_axis, dim), collective=True, flops=(ways - 1) * x.volume(),
            rows=_ROWS if dim != rank - 2 else None,
        )  # fmt: skip
        if not shards:
            _scatter_memory(device, axes[-1], (steps or [x.spec])[0], out.spec)
    return out
