"""The shares of a tensor that is spread over a mesh, one by one and put together again."""

from __future__ import annotations

from ...device import MeshShape
from ...errors import DeviceRejects
from ...launch import same
from ...mesh import MeshToTensor
from ...op import op
from ...oplog import state
from ...tensor import PlacementShard, Tensor, TensorTopology, replicated, spec
from ...torch_device import on_host


@op("ttnn.get_device_tensors")
def get_device_tensors(tensor: Tensor) -> list[Tensor]:
    """One tensor per chip, in mesh order, each on the memory of the whole: freeing one frees it.

    Shapes    a tensor of n chips -> n tensors of one
    Dtypes    all; kept
    Source    recorded contract, op `ttnn.get_device_tensors`
    """
    chips = tensor.chips
    if chips == 1:
        return [same(tensor)]
    if tensor.buffer is not None:
        return [Tensor(tensor.spec, tensor.buffer, topology=tensor.topology, chip=i) for i in range(chips)]
    pieces = tensor.host * chips if len(tensor.host) == 1 else tensor.host
    return [Tensor(tensor.spec, host=[piece], topology=tensor.topology, chip=i) for i, piece in enumerate(pieces)]


@op("ttnn.combine_device_tensors")
def combine_device_tensors(*, tensors) -> Tensor:
    """The tensor that `get_device_tensors` took apart.

    Shapes    n tensors of one chip, all alike -> one of n
    Dtypes    all; kept
    Raises    DeviceRejects where the shares are of different memory, or some are missing
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    tensors = list(tensors)
    if not tensors:
        raise DeviceRejects("At least one tensor shard must be provided")
    first = tensors[0]
    if first.buffer is None:
        if len({t.spec for t in tensors}) > 1:
            raise DeviceRejects("All tensor shards must have the same tensor spec")
        whole = (
            first.topology
            if first.topology.distribution_shape().mesh_size() == len(tensors)
            else replicated(len(tensors))
        )
        return Tensor(first.spec, host=[t.host[0] for t in tensors], topology=whole)
    if any(t.buffer is not first.buffer for t in tensors):
        raise DeviceRejects(
            "Error combining tensor shards: all tensor shards must be allocated on the same mesh buffer."
        )
    if {t.chip for t in tensors} != set(range(first.buffer.device.chips)) and first.chip is not None:
        raise DeviceRejects(f"combine_device_tensors wants the share of each of {first.buffer.device.chips} chips once")
    return Tensor(first.spec, first.buffer, topology=first.topology)


@op("ttnn.aggregate_tensor")
def aggregate_tensor(tensor: Tensor, composer: MeshToTensor) -> Tensor:
    """The shares of all chips put together by a composer, as one host tensor.

    Shapes    n host tensors -> one of n shares
    Dtypes    all; kept
    Source    recorded contract, op `ttnn.aggregate_tensor`
    """
    if not isinstance(composer, MeshToTensor):
        raise TypeError(
            "aggregate_tensor(): incompatible function arguments. The following argument types are supported:\n"
            "    1. aggregate_tensor(tensor: ttnn.Tensor, composer: ttnn.CppMeshToTensor) -> ttnn.Tensor"
        )
    if not tensor.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    if tensor.buffer is not None:
        tensor.buffer.device.transfer("Reads")
    if state.spec_only and tensor.buffer is not None:
        import torch

        from ...dtypes import HELD_AS

        values = [torch.zeros(tuple(tensor.spec.shape), dtype=HELD_AS[tensor.dtype])]
    else:
        values = on_host(tensor.contents())
    whole = composer.join(values * tensor.chips if len(values) == 1 else values)
    return Tensor(spec(whole.shape, tensor.dtype, tensor.layout, None), host=[whole])


@op("ttnn.from_host_shards")
def from_host_shards(tensors, mesh_shape: MeshShape) -> Tensor:
    """A host tensor of several chips from one host tensor for each, cut along dim 0.

    Shapes    as many [..., N] as the mesh has chips -> [..., N] on each
    Dtypes    all, kept
    Raises    DeviceRejects where their number is not the mesh's, their specs differ, or one is on a device
    Source    ttnn 0.81.1, asked
    """
    tensors, n = list(tensors), mesh_shape.mesh_size()
    if len(tensors) != n:
        raise DeviceRejects("Number of tensor shards must match mesh size")
    if any(t.buffer is not None for t in tensors):
        raise DeviceRejects("All tensor shards must be on host")
    if len({t.spec for t in tensors}) > 1:
        raise DeviceRejects("All tensor shards must have the same tensor spec")
    topology = TensorTopology(MeshShape(n), [PlacementShard(0)])
    return Tensor(tensors[0].spec, host=[t.host[0] for t in tensors], topology=topology)
