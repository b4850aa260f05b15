"""all_reduce_async: sums over chips that wait on the caller's semaphores."""

from __future__ import annotations

from ...device import MeshDevice
from ...dtypes import TILE_BYTES, DataType, Layout
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device, output_memory
from ...library.enumerations import ReduceType
from ...memory import L1_MEMORY_CONFIG, MemoryConfig, TensorMemoryLayout
from ...mesh import Topology
from ...op import op
from ...overloads import overloaded
from ...semaphore import GlobalSemaphore
from ...shape import TILE
from ...tensor import Tensor, spec
from ..core.placing import to_memory_config
from .asynchronous import gather_into, reduce_scatter_minimal_async
from .ccl import all_reduce
from .groups import (
    check_axis,
    check_links,
    divided,
    each_group,
    fabric_of,
    gathered_topology,
    reduced_topology,
    summed,
    unsigned_axis,
    ways_of,
)

NAME = "ttnn.experimental.all_reduce_async"
_MOVED = "GlobalSemaphore is in a moved-from state."


def _summed(
    x: Tensor, axis: int | None, barriers, of_scatter, of_gather, math_op, memory_config, topology, num_links,
    gather_asks_for_axis: bool,
) -> Tensor:  # fmt: skip
    device = fabric_of(x)
    check_axis(device, axis, num_links, topology)
    if not isinstance(math_op, ReduceType):
        raise TypeError(f"{NAME}(): incompatible function arguments.\n  got    math_op = {math_op!r}")
    if math_op is not ReduceType.Sum:
        raise NotEmulated(
            f"{NAME}: {math_op}; the library takes it, and none of the steps that it then runs is told of it"
        )
    if len(barriers) < 2:
        raise DeviceRejects(_MOVED, f"want two barrier semaphores, got {len(barriers)}")
    memory, dim = output_memory(x, memory_config), divided(x.spec, ways_of(device, axis))
    if x.is_sharded() or memory.is_sharded():
        if not (x.is_sharded() and memory.is_sharded()):
            raise NotEmulated(f"{NAME} from {x.spec.memory_config} to {memory} has no model in the emulator")
        flat = to_memory_config(x, L1_MEMORY_CONFIG)
        made = _summed(
            flat, axis, barriers, of_scatter, of_gather, math_op, None, topology, num_links, gather_asks_for_axis
        )
        return to_memory_config(made, memory)
    if x.layout is not Layout.TILE or dim is None:
        return _reduced(x, axis, memory, num_links, topology)
    part = reduce_scatter_minimal_async(
        x, None, dim, list(of_scatter), barrier_semaphore=barriers[0], num_links=num_links, memory_config=memory,
        topology=topology, cluster_axis=axis,
    )  # fmt: skip
    if gather_asks_for_axis and axis is None:
        raise DeviceRejects("Cluster axis is required for all gather")
    return gather_into(
        part, None, dim, list(of_gather), num_links=num_links, memory_config=memory, topology=topology,
        cluster_axis=axis, barrier_semaphore=barriers[1],
    )  # fmt: skip


def _reduced(x: Tensor, axis: int | None, memory: MemoryConfig | None, num_links: int | None, topology) -> Tensor:
    made = all_reduce(x, cluster_axis=axis, memory_config=memory, num_links=num_links, topology=topology)
    if axis is None:  # in one go, where all_reduce takes one axis after the other
        made.topology = gathered_topology(x, made.buffer.device, None, 0)
    return made


def _of_mesh(
    input_tensor: Tensor, num_devices: int, barrier_semaphores, rs_global_semaphores, ag_global_semaphores, math_op, *,
    memory_config: MemoryConfig | None = None, topology: Topology = Topology.Linear, num_links: int | None = None,
    subdevice_id=None,
) -> Tensor:  # fmt: skip
    """The sum over the chips of a group, on every one of them.

    Over the whole mesh (`num_devices` is not looked at), along a cluster axis, or along one with the caller's buffer
    for the pieces of all chips. Without all three kinds of semaphores the second is `ttnn.all_reduce`.

    Shapes    any; kept. With a buffer [..., M, N] width-sharded in L1, the buffer's shards as large as the result's of
              all chips together
    Dtypes    as `ttnn.all_reduce`; kept, or `dtype` with a buffer
    Numerics  as `ttnn.all_reduce`
    Raises    as its steps, a reduce_scatter and an all_gather; with a buffer an odd number of chips, other than
              width-sharded tensors, a buffer that is too small
    Differs   as `ttnn.all_reduce`; a buffer keeps what was in it; links, cores and the topology change no value
    Source    ttnn 0.81.1 on n300, t3000 and t3000_1x8: its steps seen by its graph capture, refusals asked one by one
    """
    return _summed(
        input_tensor, None, barrier_semaphores, rs_global_semaphores, ag_global_semaphores, math_op, memory_config,
        topology, num_links, False,
    )  # fmt: skip


def _along_axis(
    input_tensor: Tensor, cluster_axis: int | None = None, mesh_device: MeshDevice | None = None,
    barrier_semaphores=None, rs_global_semaphores=None, ag_global_semaphores=None, math_op=None, *,
    memory_config: MemoryConfig | None = None, topology: Topology | None = Topology.Linear,
    num_links: int | None = None, subdevice_id=None,
) -> Tensor:  # fmt: skip
    unsigned_axis(NAME, cluster_axis)
    if mesh_device is None or not isinstance(math_op, ReduceType):
        raise TypeError(f"{NAME}(): incompatible function arguments.\n  want   mesh_device and math_op")
    if None in (barrier_semaphores, rs_global_semaphores, ag_global_semaphores):
        return _reduced(input_tensor, cluster_axis, memory_config, num_links, topology)
    return _summed(
        input_tensor, cluster_axis, barrier_semaphores, rs_global_semaphores, ag_global_semaphores, math_op,
        memory_config, topology or Topology.Linear, num_links, True,
    )  # fmt: skip


def _in_buffer(
    input_tensor: Tensor, buffer_tensor: Tensor, cluster_axis: int, mesh_device: MeshDevice,
    multi_device_global_semaphore: GlobalSemaphore, *, dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None, topology: Topology = Topology.Linear, num_links: int | None = None,
    subdevice_id=None, use_noc1_only: bool = False, use_optimal_ccl_for_llama: bool = False,
    fp32_dest_acc: bool = False,
) -> Tensor:  # fmt: skip
    unsigned_axis(NAME, cluster_axis)
    x, buffer = input_tensor, on_device(buffer_tensor)
    device = fabric_of(x)
    check_axis(device, cluster_axis, num_links, topology)
    ways = ways_of(device, cluster_axis)
    if ways % 2:
        raise DeviceRejects("AllReduceAsync currently only supports even number of blocks in the reduction kernel.")
    if num_links is not None and num_links < 1:
        raise DeviceRejects(f"Error, num_links should be more than 0 but has {num_links}")
    memory = output_memory(x, memory_config)
    for what, held in (("input tensor", x.spec.memory_config), ("output tensor ", memory)):
        if held.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
            raise DeviceRejects(f"Unsupported memory layout for {what}{held.memory_layout}.")
    shards = buffer.spec.memory_config
    if shards.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED or x.layout is not Layout.TILE:
        raise NotEmulated(f"{NAME} of {x.spec} with the buffer {buffer.spec} has no model in the emulator")
    need, room = _elements(memory) * ways, _elements(shards)
    if need > room:
        raise DeviceRejects(
            "The shard size for the buffer must be large enough to hold the intermediate tensor. "
            f"Require at least {need} but has {room}"
        )
    # The pieces lie in the buffer in the operand's own format.
    size, held = need // (TILE * TILE) * TILE_BYTES[x.dtype], room // (TILE * TILE) * TILE_BYTES[buffer.dtype]
    if size > held:
        raise DeviceRejects(
            f"Cannot set circular buffer size to {size}. This is larger than the associated dynamically allocated L1 "
            f"buffer bank size of {held} B"
        )
    check_links(device, cluster_axis, num_links)
    made = spec(x.spec.shape, dtype or x.dtype, x.layout, memory)

    def reduce(values):
        return [summed(values, made.dtype)] * ways

    return launch(
        NAME, (x,), made, each_group(device, cluster_axis, reduce), topology=reduced_topology(x, device, cluster_axis),
        collective=True, flops=(ways - 1) * x.volume(),
    )  # fmt: skip


def _elements(memory: MemoryConfig) -> int:
    height, width = memory.shard_spec.shape
    return height * width


all_reduce_async = op(NAME)(overloaded(NAME, _of_mesh, _along_axis, _in_buffer))
