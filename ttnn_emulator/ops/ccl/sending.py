"""What chips send whole: to all the others of their group, each its own or one chip's."""

from __future__ import annotations

import torch

from ...device import MeshCoordinate
from ...dtypes import BLOCK_FORMATS, Layout
from ...errors import DeviceRejects, NotEmulated
from ...fabric import FabricConfig
from ...launch import keep, launch, on_device, output_memory
from ...memory import BufferType, MemoryConfig, pages_of
from ...mesh import Topology
from ...op import op, refuse_unmodelled
from ...semaphore import SEMAPHORE_BYTES
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

#: The most bytes that the fabric carries at once, in whole pages.
PACKET = 4096


def _packets(x: Tensor):
    """What the chip that sends hands to the one that receives: the pages of the tensor in packets."""
    pages, page = pages_of(x.spec.padded_shape, x.dtype, x.layout, x.buffer.device.chip.dram)
    packets = -(-pages // (PACKET // page)) if page <= PACKET else pages * -(-page // PACKET)
    elements = min(PACKET, page * (PACKET // page or 1)) // x.element_size()
    return spec((packets, elements), x.dtype, x.layout, x.spec.memory_config)


@op("ttnn.point_to_point")
def point_to_point(
    input_tensor: Tensor, sender_coord: MeshCoordinate, receiver_coord: MeshCoordinate, *,
    output_tensor: Tensor | None = None, intermediate_tensor: Tensor | None = None,
    topology: Topology = Topology.Linear,
) -> Tensor:  # fmt: skip
    """The tensor of one chip on another one.

    Shapes    any; kept
    Dtypes    all but block formats; kept
    Layout    any, in pages of whole 16 bytes
    Raises    chips outside the mesh; a route round a corner on a fabric of one dim; an output of another spec
    Differs   on the other chips a new result was not written: it reads as zeros here
    Source    ttnn 0.81.1, asked on n300: results, memory, refusals; on larger meshes its mock cluster ends the process
    """
    name, x = "ttnn.point_to_point", on_device(input_tensor)
    for which, at in (("sender", sender_coord), ("receiver", receiver_coord)):
        if not isinstance(at, MeshCoordinate):
            raise TypeError(f"{name}(): incompatible function arguments.\n  got    {which}_coord = {at!r}")
    device = x.buffer.device
    for which, (row, column) in (("sender", sender_coord), ("receiver", receiver_coord)):
        if row >= device.shape[0] or column >= device.shape[1]:
            raise DeviceRejects(f"Mesh device must contain {which} coordinate device")
    if x.dtype in BLOCK_FORMATS:
        raise ValueError("datum for bfp2, bfp4, bfp8 is invalid")
    if x.is_sharded():
        raise NotEmulated(f"{name} of shards has no model in the emulator: ttnn.sharded_to_interleaved first")
    if x.layout is Layout.ROW_MAJOR and x.spec.shape[-1] * x.element_size() % 16:
        raise DeviceRejects("Tensor page size must be 16 byte aligned")
    made = x.spec
    if output_tensor is not None and on_device(output_tensor).spec != made:
        raise DeviceRejects(
            f"Optional sparse output token tensor spec {output_tensor.spec} does not match the computed spec {made}"
        )
    source, target = (row * device.shape[1] + column for row, column in (sender_coord, receiver_coord))
    if source != target:
        fabric_of(x)
        flat = device.fabric in (FabricConfig.FABRIC_1D, FabricConfig.FABRIC_1D_RING)
        if flat and sender_coord[0] != receiver_coord[0] and sender_coord[1] != receiver_coord[1]:
            raise DeviceRejects(f"Routing coordinates {sender_coord} and {receiver_coord} invalid for 1D fabric")

    def compute(values, before=None):
        empty = torch.zeros_like(values[source])
        return [values[source] if chip == target else before[chip] if before else empty for chip in range(len(values))]

    between = () if intermediate_tensor is not None or source == target else (_packets(x),)
    out = launch(
        name, (x, output_tensor), made, compute, topology=x.topology, collective=True, into=output_tensor,
        through=between,
    )  # fmt: skip
    if source != target:
        given = output_tensor is not None, intermediate_tensor is not None
        keep(device, (name, source, target, given, made), BufferType.L1, SEMAPHORE_BYTES)
    return out


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
