"""What chips send whole: to all the others of their group, each its own or one chip's."""

from __future__ import annotations

from ...device import MeshCoordinate
from ...errors import DeviceRejects
from ...launch import launch, output_memory
from ...memory import MemoryConfig
from ...mesh import Topology
from ...op import op, refuse_unmodelled
from ...tensor import Tensor, spec
from .groups import (
    check_axis,
    check_links,
    check_route,
    each_group,
    fabric_of,
    groups,
    is_flat,
    is_line,
    keep_semaphores,
    reduced_topology,
    unsigned_axis,
    ways_of,
)


def _group_of(name: str, x: Tensor, axis: int | None, topology, num_links: int | None):
    """The device and the number of chips in a group, what the library refuses before refused."""
    unsigned_axis(f"ttnn.{name}", axis)
    device = fabric_of(x)
    check_axis(device, axis, num_links, topology)
    ways = ways_of(device, axis)
    if ways == 1:
        raise DeviceRejects(
            f"{name} op will only work for num_devices > 1, but has 1, shape: {x.topology.distribution_shape()}"
        )
    check_links(device, axis, num_links)
    if axis is None:
        check_route(device, topology)
    return device, ways


def _each(device, axis: int | None):
    """Of the values of all chips, for every place in a group what the chips then have from there."""
    run = each_group(device, axis, lambda values: [values] * len(values))
    return lambda values: [list(nth) for nth in zip(*run(values))]


@op("ttnn.all_broadcast")
def all_broadcast(
    input_tensor: Tensor, *, cluster_axis: int | None = None, subdevice_id=None,
    memory_config: MemoryConfig | None = None, num_links: int | None = 1, topology: Topology | None = Topology.Linear,
    use_l1_small_for_semaphores: bool = False,
) -> list[Tensor]:  # fmt: skip
    """The tensors of all chips of a group, on every one of them: a list, in the order of the group.

    Shapes    any; one of each chip
    Dtypes    all; kept
    Raises    no fabric, one chip, an axis that is not there, more links than there are
    Source    ttnn 0.81.1, asked on n300 and t3000 (2x4, 1x8): shapes, memory, topologies, refusals
    """
    refuse_unmodelled(
        "ttnn.all_broadcast", subdevice_id=subdevice_id, use_l1_small_for_semaphores=use_l1_small_for_semaphores
    )
    x = input_tensor
    device, ways = _group_of("all_broadcast", x, cluster_axis, topology, num_links)
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    out = launch(
        "ttnn.all_broadcast", (x,), [made] * ways, _each(device, cluster_axis),
        topology=reduced_topology(x, device, cluster_axis), collective=True,
    )  # fmt: skip
    keep_semaphores(device, "all_broadcast", (cluster_axis, num_links), x.spec, made)
    return out


@op("ttnn.broadcast")
def broadcast(
    input_tensor: Tensor, sender_coord: MeshCoordinate, *, num_links: int | None = None,
    memory_config: MemoryConfig | None = None, topology: Topology = Topology.Linear, cluster_axis: int | None = None,
    subdevice_id=None,
) -> Tensor:  # fmt: skip
    """The tensor of one chip, on every chip of the mesh, or along an axis of the chips in its row or column.

    Shapes    any; kept
    Dtypes    all; kept
    Raises    as all_broadcast; a tensor that is not spread over a line, without a cluster axis
    Source    ttnn 0.81.1, asked on n300 and t3000 (2x4, 1x8): shapes, memory, topologies, refusals
    """
    if not isinstance(sender_coord, MeshCoordinate):
        raise TypeError(f"ttnn.broadcast(): incompatible function arguments.\n  got    sender_coord = {sender_coord!r}")
    refuse_unmodelled("ttnn.broadcast", subdevice_id=subdevice_id)
    x = input_tensor
    device, ways = _group_of("broadcast", x, cluster_axis, topology, num_links)
    if cluster_axis is None and not is_line(device) and not is_flat(x, device):
        raise DeviceRejects("broadcast op is only supported for a linear tensor topology shape")
    row, column = sender_coord
    if row >= device.shape[0] or column >= device.shape[1]:
        raise DeviceRejects(f"Coordinate {sender_coord} is out of bounds for shape {device.shape}")
    members = groups(tuple(device.shape), cluster_axis)
    place = row * device.shape[1] + column
    at = next(group.index(place) for group in members if place in group)  # each group sends from the same place
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    out = launch(
        "ttnn.broadcast", (x,), made, each_group(device, cluster_axis, lambda values: [values[at]] * ways),
        topology=reduced_topology(x, device, cluster_axis), collective=True,
    )  # fmt: skip
    keep_semaphores(device, "broadcast", (cluster_axis, num_links, sender_coord), x.spec, made)
    return out
