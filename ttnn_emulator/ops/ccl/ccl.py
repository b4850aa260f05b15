"""Collectives over the chips of a mesh: all_gather, all_reduce, reduce_scatter, mesh_partition."""

from __future__ import annotations

import torch

from ...dtypes import BLOCK_FORMATS, Layout, bfloat16
from ...errors import DeviceRejects
from ...fabric import FabricConfig
from ...launch import launch, on_device, output_memory, same, scratch, unmodelled
from ...memory import MemoryConfig
from ...mesh import Topology
from ...numerics.rows import EACH, Slices
from ...op import op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor, spec
from ...warning import GATHER_DEPRECATED, warn
from .groups import (
    axes_of,
    check_axis,
    check_links,
    check_route,
    each_group,
    fabric_of,
    gathered_topology,
    goes_round,
    is_direct,
    is_line,
    keep_semaphores,
    makes_ring,
    reduce_memory,
    reduced_topology,
    scatter_memory,
    scattered_topology,
    summed_over,
    unsigned_axis,
    ways_of,
)

_ROWS = Slices((-2,), -2)


@op("ttnn.all_gather")
def all_gather(
    input_tensor: Tensor, dim: int, *, cluster_axis: int | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, subdevice_id=None, sub_core_grids=None, num_links: int | None = None,
    topology: Topology | None = None, chunks_per_sync: int | None = None, num_workers_per_link: int | None = None,
    num_buffers_per_channel: int | None = None, use_l1_small_for_semaphores: bool = False,
) -> Tensor:  # fmt: skip
    """The pieces of all chips of a group side by side on `dim`, on every one of them.

    Shapes    [..., n, ...] -> [..., n * chips of the group, ...]
    Dtypes    bfloat16, float32, bfloat8_b (recorded); kept
    Numerics  moves values
    Raises    no fabric, one chip, an axis or a dim that is not there
    Differs   `num_links`, `topology` and the tuning arguments change no value here, and no time
    Source    recorded contract, op `ttnn.all_gather`
    """
    unsigned_axis("ttnn.all_gather", cluster_axis)
    tuning = (num_links, topology, chunks_per_sync, num_workers_per_link, num_buffers_per_channel)
    if use_l1_small_for_semaphores or any(each is not None for each in tuning):
        warn(GATHER_DEPRECATED)
    x = on_device(input_tensor)
    rank, axes = len(x.spec.shape), len(x.buffer.device.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Invalid gather dim {dim} for {rank}D input tensor")
    if cluster_axis is not None and cluster_axis >= axes:
        raise DeviceRejects(f"ShapeBase[] index out of range. {cluster_axis} not in [-4, {axes})")
    device = fabric_of(x)
    refuse_unmodelled("ttnn.all_gather", output_tensor=output_tensor, subdevice_id=subdevice_id)
    one_axis = device.fabric.name.startswith("FABRIC_1D")
    if one_axis and cluster_axis is None and not is_line(device) and not _of_parts(x, dim % rank):
        raise DeviceRejects("1D fabric on a 2D mesh_device requires cluster_axis to be set")
    return gathered(x, dim % rank, cluster_axis, memory_config)


def _of_parts(x: Tensor, dim: int) -> bool:
    """Whether the chips' pieces end within a tile."""
    return x.layout is Layout.TILE and dim >= len(x.spec.shape) - 2 and x.spec.shape[dim] % TILE != 0


def gathered(x: Tensor, dim: int, cluster_axis: int | None, memory_config: MemoryConfig | None) -> Tensor:
    """An all_gather that is not asked whether the fabric has a way for it."""
    device, rank = fabric_of(x), len(x.spec.shape)
    ways = ways_of(device, cluster_axis)
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
    apart = _of_parts(x, dim) and not memory.is_sharded()
    through = [x.spec] * ways if apart else []
    if apart and dim == rank - 2:
        rows = bfloat16 if x.dtype in BLOCK_FORMATS else x.dtype
        through += [spec(s, rows, Layout.ROW_MAJOR, memory) for s in (*[x.spec.shape] * ways, shape)]
    out = launch(
        "ttnn.all_gather", (x,), made, each_group(device, cluster_axis, gather),
        topology=gathered_topology(x, device, cluster_axis, dim), collective=True, through=through,
        rows=_ROWS if dim != rank - 2 else None,
    )  # fmt: skip
    if apart:
        for a in axes_of(device, cluster_axis):
            keep_semaphores(device, "all_broadcast", a, x.spec, x.spec)
    else:
        keep_semaphores(device, "all_gather", cluster_axis, x.spec, made)
    return out


@op("ttnn.all_reduce")
def all_reduce(
    input_tensor: Tensor, *, cluster_axis: int | None = None, subdevice_id=None,
    memory_config: MemoryConfig | None = None,
    num_links: int | None = None, topology: Topology | None = None,
) -> Tensor:  # fmt: skip
    """The sum over the chips of a group, on every one of them.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Numerics  added chip by chip, over the whole mesh first along axis 0 and then along axis 1; rounded
              to the tensor's dtype at each step
    Raises    no fabric, one chip, an axis that is not there, more links than there are
    Differs   the device cuts the tensor into slices that start on different chips, so that its order of addition, and
              with it the last bit, varies along the tensor; all chips agree there as here
    Source    recorded contract, op `ttnn.all_reduce`
    """
    unsigned_axis("ttnn.all_reduce", cluster_axis)
    x = on_device(input_tensor)
    whole = x.spec.shape[-1] == x.spec.padded_shape[-1]
    # Padded columns are gathered, which asks the fabric first but for a ring along no axis of the mesh.
    asks = not whole and (topology is not Topology.Ring or cluster_axis in (0, 1))
    device = fabric_of(x, topology, None if asks else num_links, cluster_axis)
    refuse_unmodelled("ttnn.all_reduce", subdevice_id=subdevice_id)
    check_axis(device, cluster_axis, num_links, topology)
    ways = ways_of(device, cluster_axis)
    if ways == 1:
        if not whole:
            raise DeviceRejects(
                "all_broadcast op will only work for num_devices > 1, but has 1, shape: "
                f"{x.topology.distribution_shape()}"
            )
        raise DeviceRejects("DEBUG: forward_coord or backward_coord is null", "there is one chip along this axis")
    check_links(device, cluster_axis, num_links)
    memory = output_memory(x, memory_config)
    dtype = x.dtype

    def reduce(values):
        return [summed_over(values, device, cluster_axis, dtype)] * ways

    made = spec(x.spec.shape, dtype, x.layout, memory)
    axes = [] if x.is_sharded() or memory.is_sharded() else axes_of(device, cluster_axis)  # of shards: not known
    if axes:
        reduce_memory(device, axes[0], x.spec, made, topology)
    with scratch(device, *[made] * (len(axes) - 1)):  # the sum over the rows, which is then summed over the columns
        for a in axes[1:]:
            reduce_memory(device, a, made, made, topology)
        return launch(
            "ttnn.all_reduce", (x,), made, each_group(device, cluster_axis, reduce),
            topology=reduced_topology(x, device, cluster_axis), collective=True, flops=(ways - 1) * x.volume(),
            rows=EACH,
        )  # fmt: skip


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
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Numerics  as `all_reduce`
    Raises    no fabric, one chip, a dim of which neither the size nor (of the last two) the tiles divide
    Differs   where only the tiles divide, the result has no contents
    Source    recorded contract, op `ttnn.reduce_scatter`
    """
    unsigned_axis("ttnn.reduce_scatter", cluster_axis)
    x = on_device(input_tensor)
    rank = len(x.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Index is out of bounds for the rank, should be between 0 and {rank - 1} however is {dim}")
    device = fabric_of(x, topology, num_links, cluster_axis)
    refuse_unmodelled("ttnn.reduce_scatter", output_tensor=output_tensor, subdevice_id=subdevice_id)
    check_axis(device, cluster_axis, num_links, topology)
    ways, dim = ways_of(device, cluster_axis), dim % rank
    if ways == 1:
        raise DeviceRejects("DEBUG: forward_coord or backward_coord is null", "there is one chip along this axis")
    check_links(device, cluster_axis, num_links)
    axes = axes_of(device, cluster_axis)
    sizes = _parts(x, dim, [device.shape[a] for a in axes])
    memory = output_memory(x, memory_config)
    shape, dtype = list(x.spec.shape), x.dtype
    shape[dim] = sizes[-1]
    if (
        shape[dim] * ways != x.spec.shape[dim]
    ):  # whole tiles are dealt, which are not the rows that the result speaks of
        return unmodelled((x,), spec(shape, dtype, x.layout, memory))

    ring = makes_ring(device, cluster_axis, topology)
    if ring and device.fabric is FabricConfig.FABRIC_1D:
        check_route(device, topology)

    made = spec(shape, dtype, x.layout, memory)
    told = (intermediate_memory_config, chunks_per_sync, num_workers_per_link, num_buffers_per_channel)
    told = any(v is not None for v in (*told, compute_kernel_config))
    direct = not told and is_direct(device, cluster_axis, topology, made)
    if direct and num_links is not None and num_links > 1:
        raise DeviceRejects(
            f"reduce_scatter_minimal_direct num_links {num_links} must be in [1, 1] (links available on axis 1)"
        )

    def scatter(values):
        return [part.contiguous() for part in torch.chunk(summed_over(values, device, cluster_axis, dtype), ways, dim)]

    first = list(x.spec.shape)
    first[dim] = sizes[0]
    shards = x.is_sharded() or memory.is_sharded()  # what the steps between take then is not known
    steps = [spec(first, dtype, x.layout, memory)] if len(axes) > 1 and not shards else []
    with scratch(device, *steps):
        if steps:
            scatter_memory(device, axes[0], x.spec, steps[0])
        out = launch(
            "ttnn.reduce_scatter", (x,), made, each_group(device, cluster_axis, scatter),
            topology=scattered_topology(x, device, cluster_axis, dim), collective=True, flops=(ways - 1) * x.volume(),
            rows=_ROWS if dim != rank - 2 else None,
        )  # fmt: skip
        if not shards:
            around = ring or goes_round(device, cluster_axis, topology)
            scatter_memory(device, axes[-1], (steps or [x.spec])[0], out.spec, around, direct)
    return out


@op("ttnn.mesh_partition")
def mesh_partition(
    input_tensor: Tensor, dim: int, cluster_axis: int | None = None, *, memory_config: MemoryConfig | None = None
) -> Tensor:
    """Of a tensor that every chip has, each chip's part of `dim`: what all_gather puts together, apart again.

    Shapes    [..., n, ...] -> [..., n / chips of the group, ...]
    Dtypes    bfloat16, float32, bfloat8_b (recorded); kept
    Numerics  moves values
    Raises    a dim that does not divide, or of a TILE tensor not into whole tiles; an axis that is not there
    Source    recorded contract, op `ttnn.mesh_partition`; more dtypes, layouts and ranks asked of ttnn 0.81.1
    """
    unsigned_axis("ttnn.mesh_partition", cluster_axis)
    x = on_device(input_tensor)
    device, rank = x.buffer.device, len(x.spec.shape)
    if cluster_axis is not None and cluster_axis >= len(device.shape):
        raise DeviceRejects("Only support cluster axis of None, 0 or 1", f"it is {cluster_axis}")
    ways = ways_of(device, cluster_axis)
    if ways == 1:
        return same(x)
    if dim < -rank:
        raise DeviceRejects("dim must be less than the rank of the input tensor", f"dim {dim} of rank {rank}")
    if dim >= rank:
        raise DeviceRejects(f"ShapeBase[] index out of range. {dim} not in [-4, {rank})")
    dim %= rank
    if x.spec.shape[dim] % ways:
        raise DeviceRejects(f"input shape Shape({list(x.spec.shape)}) must be divisible by cluster axis size {ways}")
    shape = list(x.spec.shape)
    shape[dim] //= ways
    if x.layout is Layout.TILE and dim >= rank - 2 and shape[dim] % TILE:
        side = "width" if dim == rank - 1 else "height"
        raise DeviceRejects(
            f"Can only slice tilized tensor with {side} begin index aligned to tiles", f"parts of {shape[dim]}"
        )

    def part(values):
        return [torch.chunk(v, ways, dim)[i].contiguous() for i, v in enumerate(values)]

    return launch(
        "ttnn.mesh_partition", (x,), spec(shape, x.dtype, x.layout, output_memory(x, memory_config)),
        each_group(device, cluster_axis, part), topology=scattered_topology(x, device, cluster_axis, dim),
        collective=True, rows=_ROWS if dim != rank - 2 else None,
    )  # fmt: skip
