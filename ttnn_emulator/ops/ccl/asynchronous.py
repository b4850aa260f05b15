"""Collectives that wait on the caller's semaphores and may write into the caller's buffers.

What does not go by whole tiles the library hands to `ttnn.all_gather` and `ttnn.reduce_scatter`, and so is it here.
"""

from __future__ import annotations

import math

import torch

from ...chips import systems
from ...device import MeshDevice
from ...dtypes import TILE_BYTES, DataType, Layout, cpp
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord
from ...launch import launch, output_memory, scratch
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...mesh import Topology
from ...numerics.rows import Slices
from ...op import op
from ...overloads import overloaded
from ...semaphore import GlobalSemaphore
from ...shape import TILE
from ...tensor import Tensor, TensorSpec, spec
from ..matmul.matmul import linear
from .ccl import gathered, reduce_scatter
from .groups import (
    check_axis,
    check_links,
    check_route,
    each_group,
    fabric_of,
    gathered_topology,
    is_line,
    makes_ring,
    scattered_topology,
    summed,
    unsigned_axis,
    ways_of,
)

_ROWS = Slices((-2,), -2)
GATHER = "ttnn.experimental.all_gather_async"
SCATTER = "ttnn.experimental.reduce_scatter_minimal_async"


def _semaphores(name: str, given) -> list:
    """A semaphore or a list of them, as a list."""
    given = [given] if isinstance(given, GlobalSemaphore) else given
    if not isinstance(given, (list, tuple)) or not all(isinstance(s, GlobalSemaphore) for s in given):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    multi_device_global_semaphore = {given!r}\n"
            "  want   what ttnn.create_global_semaphore returns, or a list of such"
        )
    return list(given)


def _check_group(device, axis: int | None, num_links: int | None, topology: Topology, name: str) -> None:
    """The axis, and that there are chips along it."""
    check_axis(device, axis, num_links, topology, links_first=True)
    if ways_of(device, axis) == 1 and name:
        raise DeviceRejects(f"{name} op will only work for num_devices > 1, but has 1")


def _gather(
    x: Tensor, dim: int, semaphores, output: Tensor | None, memory_config, topology, cluster_axis, num_links,
    use_broadcast, of_mesh: bool,
) -> Tensor:  # fmt: skip
    unsigned_axis(GATHER, cluster_axis)
    semaphores = _semaphores(GATHER, semaphores)
    if dim is None:
        raise TypeError(f"{GATHER}(): incompatible function arguments.\n  missing dim: int")
    device, rank = fabric_of(x), len(x.spec.shape)
    _check_group(device, cluster_axis, num_links, topology, "" if of_mesh else "all_gather_async")
    dim = dim + rank if dim < 0 else dim
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension input should be in between -{rank} and {rank - 1}, but has {dim}")
    dim %= rank
    if x.layout is not Layout.TILE or (dim >= rank - 2 and x.spec.shape[dim] % TILE):
        return gathered(x, dim, cluster_axis, memory_config)
    if len(semaphores) != 2 and not use_broadcast:
        raise DeviceRejects("Default implementation requires 2 semaphores", f"there are {len(semaphores)}")
    if num_links is not None and num_links < 1:
        raise DeviceRejects(f"Error, num_links should be more than 0 but has {num_links}")
    memory = output_memory(x, memory_config)
    ways = ways_of(device, cluster_axis)
    shape = list(x.spec.shape)
    shape[dim] *= ways
    made = spec(shape, x.dtype, x.layout, memory)
    if output is not None:
        if output.dtype is not x.dtype:
            raise DeviceRejects(
                f"Error, Output tensor dtype should be same as input tensor dtype but has {cpp(output.dtype)}"
            )
        if output.spec.memory_config != memory:
            raise DeviceRejects(
                "Error, Output tensor memory config should be same as output_mem_config but has "
                f"{output.spec.memory_config}"
            )
        if output.spec.shape != made.shape:
            raise NotEmulated(
                f"{GATHER}: the library does not ask whether the persistent buffer {output.spec} has room for {made}"
            )
    if ways == 1:
        raise DeviceRejects("DEBUG: forward_coord or backward_coord is null", "there is one chip along this axis")
    check_links(device, cluster_axis, num_links)
    if cluster_axis is None:
        check_route(device, topology)

    def gather(values):
        return [torch.cat(values, dim)] * ways

    return launch(
        GATHER, (x,), made, each_group(device, cluster_axis, gather), into=output, collective=True,
        topology=gathered_topology(x, device, cluster_axis, dim), rows=_ROWS if dim != rank - 2 else None,
    )  # fmt: skip


def _gather_plain(
    input_tensor: Tensor, dim: int, multi_device_global_semaphore, *, num_links: int | None = None,
    memory_config: MemoryConfig | None = None, topology: Topology = Topology.Ring, subdevice_id=None,
    use_optimal_ccl_for_llama: bool = False, barrier_semaphore: GlobalSemaphore | None = None, sub_core_grids=None,
    num_workers_per_link: int | None = None, num_buffers_per_channel: int | None = None,
) -> Tensor:  # fmt: skip
    """The pieces of all chips of a group side by side on `dim`, on every one of them.

    Shapes    [..., n, ...] -> [..., n * chips of the group, ...]
    Dtypes    bfloat16, float32, bfloat8_b (recorded); kept
    Numerics  moves values
    Raises    as `ttnn.all_gather`; other than two semaphores; a buffer of another dtype or memory
    Differs   links, workers, buffers, cores, barriers and the topology change no value here, and no time
    Source    recorded contract, op `ttnn.experimental.all_gather_async`; ttnn 0.81.1 on n300 and t3000, its graph
    """
    return _gather(
        input_tensor, dim, multi_device_global_semaphore, None, memory_config, topology, None, num_links, False, False
    )


def gather_into(
    input_tensor: Tensor, persistent_output_buffer: Tensor | None = None, dim: int | None = None,
    multi_device_global_semaphore=None, *, num_links: int | None = None, memory_config: MemoryConfig | None = None,
    topology: Topology = Topology.Ring, subdevice_id=None, cluster_axis: int | None = None,
    use_optimal_ccl_for_llama: bool = False, use_broadcast: bool = False,
    barrier_semaphore: GlobalSemaphore | None = None, chunks_per_sync: int | None = None,
    num_workers_per_link: int | None = None, num_buffers_per_channel: int | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    return _gather(
        input_tensor, dim, multi_device_global_semaphore, persistent_output_buffer, memory_config, topology,
        cluster_axis, num_links, use_broadcast, False,
    )  # fmt: skip


def _gather_on_mesh(
    input_tensor: Tensor, dim: int, cluster_axis: int, mesh_device: MeshDevice, topology: Topology,
    multi_device_global_semaphore, *, persistent_output_tensor: Tensor | None = None, num_links: int | None = None,
    memory_config: MemoryConfig | None = None, subdevice_id=None, use_optimal_ccl_for_llama: bool = False,
    use_broadcast: bool = False, barrier_semaphore: GlobalSemaphore | None = None, sub_core_grids=None,
    num_workers_per_link: int | None = None, num_buffers_per_channel: int | None = None,
) -> Tensor:  # fmt: skip
    return _gather(
        input_tensor, dim, multi_device_global_semaphore, persistent_output_tensor, memory_config, topology,
        cluster_axis, num_links, use_broadcast, True,
    )  # fmt: skip


all_gather_async = op(GATHER)(overloaded(GATHER, _gather_plain, gather_into, _gather_on_mesh))


@op(SCATTER)
def reduce_scatter_minimal_async(
    input_tensor: Tensor, persistent_output_buffers=None, dim: int | None = None, multi_device_global_semaphore=None, *,
    barrier_semaphore: GlobalSemaphore | None = None, num_links: int | None = None,
    memory_config: MemoryConfig | None = None, intermediate_memory_config: MemoryConfig | None = None,
    topology: Topology = Topology.Ring, subdevice_id=None, cluster_axis: int | None = None,
    chunks_per_sync: int | None = None, num_workers_per_link: int | None = None,
    num_buffers_per_channel: int | None = None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """The sum over the chips of a group, of which each keeps its part of `dim`.

    `persistent_output_buffers` are [staging, result]; of one alone, or none, the op takes no notice.

    Shapes    [..., n, ...] -> [..., n / chips of the group, ...]
    Dtypes    as `ttnn.reduce_scatter`
    Numerics  as `ttnn.reduce_scatter`; over a whole mesh the chips are one line
    Raises    as `ttnn.reduce_scatter`; fewer than three semaphores
    Differs   as `ttnn.reduce_scatter`
    Source    recorded contract, op `ttnn.experimental.reduce_scatter_minimal_async`; ttnn 0.81.1 on n300 and t3000
    """
    unsigned_axis(SCATTER, cluster_axis)
    if not isinstance(multi_device_global_semaphore, (list, tuple)) or dim is None:
        raise TypeError(
            f"{SCATTER}(): incompatible function arguments.\n"
            f"  got    dim = {dim!r}, multi_device_global_semaphore = {multi_device_global_semaphore!r}\n"
            "  want   an int and a list of semaphores"
        )
    x, semaphores = input_tensor, _semaphores(SCATTER, multi_device_global_semaphore)
    device, rank = fabric_of(x), len(x.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"ShapeBase[] index out of range. {dim} not in [-4, {rank})")
    _check_group(device, cluster_axis, num_links, Topology.Linear, "reduce_scatter_minimal_async")  # whatever is given
    ways, dim = ways_of(device, cluster_axis), dim % rank
    size, memory = x.spec.shape[dim], output_memory(x, memory_config)
    if size % ways == 0 and (x.layout is not Layout.TILE or (dim >= rank - 2 and size // ways % TILE)):
        return reduce_scatter(x, dim, cluster_axis=cluster_axis, memory_config=memory_config)
    if dim >= rank - 2 and -(-size // TILE) % ways:
        raise DeviceRejects(
            f"Number of tiles at dimension {dim} must be divisible by ring_size",
            f"neither {size} nor its {-(-size // TILE)} tiles divide over {ways} chips",
        )
    if size % ways:
        if dim >= rank - 2:
            raise NotEmulated(f"{SCATTER}: {size} in whole tiles over {ways} chips has no model in the emulator")
        raise DeviceRejects(f"Dimension {dim} must be divisible by ring_size", f"{size} over {ways} chips")
    if len(semaphores) < 3:
        if not semaphores:
            raise IndexError("vector::_M_range_check: __n (which is 0) >= this->size() (which is 0)")
        raise DeviceRejects(f"Expected 3 semaphores but got {len(semaphores)}")
    _check_links_of_ring(device, cluster_axis, num_links, topology)
    if cluster_axis is None:
        check_route(device, topology)
    given = list(persistent_output_buffers or ())
    staging, output = given if len(given) == 2 else (None, None)
    dtype, shape = x.dtype, list(x.spec.shape)
    shape[dim] //= ways

    def scatter(values):
        return [part.contiguous() for part in torch.chunk(summed(values, dtype), ways, dim)]

    ring = makes_ring(device, cluster_axis, topology)
    beside = _on_the_way(x.spec, ways, intermediate_memory_config, ring)
    with scratch(device, *([] if staging is not None else beside)):
        return launch(
            SCATTER, (x,), spec(shape, dtype, x.layout, memory), each_group(device, cluster_axis, scatter),
            into=output, topology=scattered_topology(x, device, cluster_axis, dim), collective=True,
            flops=(ways - 1) * x.volume(), rows=_ROWS if dim != rank - 2 else None,
        )  # fmt: skip


def _on_the_way(x: TensorSpec, ways: int, memory: MemoryConfig | None, ring: bool) -> list[TensorSpec]:
    """What lies beside the result: the operand's tiles twice; round a ring, always in DRAM, each chip's part of each
    batch once and one chip's parts again, in pages of 8 tiles (4 of float32).

    Source    ttnn 0.81.1 on n300 and t3000 (1x4, 1x8, 2x4), buffers seen by its graph capture
    """
    memory = memory or DRAM_MEMORY_CONFIG
    if not ring:
        return [spec((2, *x.padded_shape), x.dtype, x.layout, memory)]
    *batches, rows, columns = x.padded_shape
    tiles = 4 if x.dtype is DataType.FLOAT32 else 8
    pages = math.prod(batches) * -(-(rows * columns) // (TILE * TILE * ways * tiles))
    words = tiles * TILE_BYTES[x.dtype] // 4
    return [spec((count * pages, words), DataType.UINT32, Layout.ROW_MAJOR, DRAM_MEMORY_CONFIG) for count in (ways, 1)]


def _check_links_of_ring(device, axis: int | None, num_links: int | None, topology: Topology) -> None:
    """A ring over all chips of a machine with two rows of them begins with its last chip, which is below the first."""
    height, width = systems.machine().machine_shape
    around = topology is Topology.Ring and is_line(device) and device.chips == height * width and height > 1
    check_links(device, axis, num_links, neighbour=width if around else None)


@op("ttnn.experimental.all_gather_matmul_async")
def all_gather_matmul_async(
    input_tensor: Tensor, weight_tensor: Tensor, persistent_output_buffer: Tensor | None = None, dim: int | None = None,
    multi_device_global_semaphore=None, all_gather_core_grid_offset=None, *, bias: Tensor | None = None,
    num_links: int = 1, memory_config_ag: MemoryConfig | None = None, topology: Topology = Topology.Ring,
    barrier_semaphore: GlobalSemaphore | None = None, subdevice_id=None,
    memory_config_mm: MemoryConfig | None = None, transpose_a: bool = False, transpose_b: bool = False,
    dtype: DataType | None = None, program_config=None, activation: str | None = None, compute_kernel_config=None,
    core_grid=None, chunks_per_sync: int | None = None, num_workers_per_link: int | None = None,
    num_buffers_per_channel: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """[the activations of all chips side by side on dim 3, their product with this chip's weight].

    Shapes    x [..., M, K / n] on n chips, weight [K, N] -> the gathered x and [..., M, N]
    Dtypes    as all_gather and matmul
    Raises    what `all_gather_async` and `ttnn.linear` raise; no program config; chips that make no ring; cores of
              the gathering that are the product's
    Source    recorded contract, op `ttnn.experimental.all_gather_matmul_async`; ttnn 0.81.1 on t3000 1x8 and 2x4 and
              on n300, with FABRIC_1D, FABRIC_1D_RING and FABRIC_2D
    """
    if dim is None or all_gather_core_grid_offset is None:
        raise TypeError("ttnn.experimental.all_gather_matmul_async(): incompatible function arguments.")
    x, offset = input_tensor, CoreCoord(*all_gather_core_grid_offset)
    if program_config is None:
        raise DeviceRejects("bad optional access", "it needs a program_config for the product")
    if dim != 3:
        raise DeviceRejects("AllGatherMatmulAsync requires dim=3 for the AllGather operations.", f"dim is {dim}")
    if len(x.spec.shape) != 4 or len(weight_tensor.spec.shape) != 4:
        raise DeviceRejects("AllGatherMatmulAsync requires input tensors to be of rank 4")
    device = fabric_of(x)
    ways = device.chips
    if x.spec.padded_shape[-1] * ways != weight_tensor.spec.padded_shape[-2]:
        raise DeviceRejects(
            f"Dimension K (A.shape[-1] = {x.spec.padded_shape[-1] * ways}, "
            f"B.shape[-2] = {weight_tensor.spec.padded_shape[-2]}) must match for matmul"
        )
    if len(_semaphores("ttnn.experimental.all_gather_matmul_async", multi_device_global_semaphore)) < 2:
        raise IndexError("vector::_M_range_check: __n (which is 1) >= this->size() (which is 1)")
    if not makes_ring(device, None, topology):
        raise DeviceRejects(
            "linear is not support when using fused for all-gather",
            f"topology {topology} on {device.shape}: want Topology.Ring and a line of more than two chips",
        )
    columns, rows = device.chip.grid
    if offset.x >= columns or offset.y >= rows:
        raise DeviceRejects(
            f"Core grid offset {offset} pushed 2 of the 2 selected worker cores (first: {offset}) off the worker grid; "
            "kernels cannot be placed there. Request fewer cores or use a smaller offset."
        )
    grid = CoreCoord(*program_config.compute_with_storage_grid_size)
    if offset.x < grid.x and offset.y < grid.y:
        raise DeviceRejects(
            "Invalid circular buffer index: Cannot add circular buffer at index 0, another circular buffer already "
            "exists",
            f"the gathering's cores from {offset} are among the product's {grid.x}x{grid.y}",
        )
    gathered = _gather(
        x, dim, multi_device_global_semaphore, persistent_output_buffer, memory_config_ag, topology, None, num_links,
        False, False,
    )  # fmt: skip
    product = linear(
        gathered, weight_tensor, bias=bias, transpose_a=transpose_a, transpose_b=transpose_b,
        memory_config=memory_config_mm, dtype=dtype, program_config=program_config, activation=activation,
        compute_kernel_config=compute_kernel_config,
    )  # fmt: skip
    return [gathered, product]
