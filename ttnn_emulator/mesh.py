"""How host tensors are spread over a mesh, and put together again."""

from __future__ import annotations

import math

import torch

from .device import MeshDevice, MeshShape
from .enums import Named
from .errors import DeviceRejects, NotEmulated
from .shape import Shape
from .tensor import PlacementReplicate, PlacementShard, TensorTopology


class Topology(Named):
    """How the chips of a collective are wired."""

    Linear, Ring, Mesh, Torus = 1, 2, 3, 4


class MeshMapperConfig:
    """One placement per mesh axis."""

    def __init__(
        self, placements=None, mesh_shape_override=None, mesh_offset_override=None, *, row_dim=None, col_dim=None
    ):
        if placements is None:
            placements = [PlacementReplicate() if d is None else PlacementShard(d) for d in (row_dim, col_dim)]
        _no_offset("MeshMapperConfig", mesh_offset_override)
        self.placements, self.mesh_shape_override = list(placements), mesh_shape_override

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self.placements))
        return f"MeshMapperConfig(placements: [{listed}]{_over(self.mesh_shape_override)})"


class MeshComposerConfig:
    """The dim on which the shards of each mesh axis are concatenated."""

    def __init__(self, dims=None, mesh_shape_override=None, mesh_offset_override=None, *, row_dim=None, col_dim=None):
        _no_offset("MeshComposerConfig", mesh_offset_override)
        self.dims = [row_dim, col_dim] if dims is None else [int(d) for d in dims]
        self.mesh_shape_override = mesh_shape_override

    def __repr__(self) -> str:
        return f"MeshComposerConfig(dims: [{', '.join(map(str, self.dims))}]{_over(self.mesh_shape_override)})"


def _no_offset(name: str, offset) -> None:
    if offset is not None:
        raise NotEmulated(f"ttnn.{name}: mesh_offset_override={offset} has no model in the emulator")


def _over(shape) -> str:
    return "" if shape is None else f", mesh_shape_override={MeshShape(shape)}"


def _shape_of(mesh_device: MeshDevice, config, entries, what: str) -> MeshShape:
    """The shape of the mesh, or the one that the config names in its place: with as many axes as it has entries."""
    own = getattr(mesh_device, "shape", mesh_device)
    shape = own if config.mesh_shape_override is None else MeshShape(config.mesh_shape_override)
    if shape.mesh_size() > own.mesh_size():
        raise DeviceRejects(f"The size of the supplied mesh shape {shape} does not match the device shape size {own}")
    if len(entries) != len(shape):
        raise DeviceRejects(
            f"The number of dimensions in the mesh shape {shape} does not match the number of {what} config {config}"
        )
    return shape


def _places(mesh: MeshShape, shape: MeshShape) -> list[int]:
    """Which chips of a mesh a shape takes: a rectangle from the first chip on where it fits, else the first ones row by
    row."""
    if len(shape) != len(mesh) or any(n > m for n, m in zip(shape, mesh)):
        return list(range(shape.mesh_size()))
    return [r * mesh[1] + c for r in range(shape[0]) for c in range(shape[1])]


class TensorToMesh:
    """Cuts a host tensor into one piece per chip: `shape` and one placement for each of its axes."""

    def __init__(self, device: MeshDevice, shape, placements):
        self.device, self.topology = device, TensorTopology(shape, placements)

    def split(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """One tensor when every chip gets the same, else one per chip in row-major order; fewer than there are chips
        where a single axis is cut on a dim that is shorter than it (the chips behind get nothing).

        Raises    DeviceRejects where a dim does not exist, is used twice or does not divide
        """
        shape, placements = self.topology.distribution_shape(), self.topology.placements()
        if shape.mesh_size() < getattr(self.device, "chips", 1):
            raise NotEmulated(f"a mapper for {shape} leaves chips of {self.device} without a tensor: no model of that")
        shards = [(axis, p.dim) for axis, p in enumerate(placements) if isinstance(p, PlacementShard)]
        if not shards:
            return [tensor]
        dims = [d % tensor.dim() if -tensor.dim() <= d < tensor.dim() else d for _, d in shards]
        if any(not 0 <= d < tensor.dim() for d in dims):
            listed = ", ".join(str(d) for _, d in shards)
            raise DeviceRejects(f"Invalid dimension index; got dims: {{{listed}}}, tensor dimension: {tensor.dim()}")
        if len(set(dims)) != len(dims):
            raise DeviceRejects("dims must be unique")
        if shape.dims() > 1:
            chips = math.prod(shape[axis] for axis, _ in shards)
            chunks = math.prod(len(tensor.chunk(shape[axis], d)) for (axis, _), d in zip(shards, dims))
            if chunks != chips:
                raise DeviceRejects(
                    f"ND sharding requires the number of chunks {chunks} to match the mesh dimension size {chips}"
                )
        pieces = [tensor]
        for axis, n in enumerate(shape):
            cut = next((d for (a, _), d in zip(shards, dims) if a == axis), None)
            # What several chips share is cut once, so that they go on sharing it.
            parts = {
                id(p): [p] * n if cut is None else self._cut(p, cut, n) for p in {id(p): p for p in pieces}.values()
            }
            pieces = [part for p in pieces for part in parts[id(p)]]
        return pieces

    def _cut(self, tensor: torch.Tensor, dim: int, n: int) -> list[torch.Tensor]:
        parts = list(torch.chunk(tensor, n, dim))
        odd = next((p for p in parts if p.shape != parts[0].shape), None)
        if odd is not None:
            raise DeviceRejects(
                f"Shard shape mismatch: expected {Shape(parts[0].shape)} but got {Shape(odd.shape)}",
                f"dimension {dim} of size {tensor.shape[dim]} does not divide over {n} chips",
            )
        return parts


def ReplicateTensorToMesh(mesh_device: MeshDevice) -> TensorToMesh:
    """Every chip gets the whole tensor."""
    return TensorToMesh(mesh_device, (mesh_device.chips,), (PlacementReplicate(),))


def ShardTensorToMesh(mesh_device: MeshDevice, dim: int) -> TensorToMesh:
    """Cut on `dim` over the flattened mesh."""
    return TensorToMesh(mesh_device, (mesh_device.chips,), (PlacementShard(dim),))


def _fits(mesh_device: MeshDevice, mesh_shape) -> None:
    if MeshShape(mesh_shape).mesh_size() > mesh_device.chips:
        raise DeviceRejects(
            f"The size of the supplied mesh shape {MeshShape(mesh_shape)} does not match the device shape size "
            f"{mesh_device.shape}"
        )


def ShardTensor2dMesh(mesh_device: MeshDevice, mesh_shape, dims) -> TensorToMesh:
    """Cut on dims[0] over the rows and dims[1] over the columns; None replicates along that axis."""
    _fits(mesh_device, mesh_shape)
    placements = [PlacementReplicate() if d is None else PlacementShard(d) for d in dims]
    return TensorToMesh(mesh_device, mesh_shape, placements)


def create_mesh_mapper(mesh_device: MeshDevice, config: MeshMapperConfig) -> TensorToMesh:
    """One placement per axis of the mesh, or of the shape that the config names in its place.

    Source    ttnn 0.81.1, asked on n150 and n300
    """
    shape = _shape_of(mesh_device, config, config.placements, "placements in the")
    return TensorToMesh(mesh_device, shape, config.placements)


def replicate_tensor_to_mesh_mapper(mesh_device: MeshDevice) -> TensorToMesh:
    """`ReplicateTensorToMesh` under its other name."""
    return ReplicateTensorToMesh(mesh_device)


def shard_tensor_to_mesh_mapper(mesh_device: MeshDevice, dim: int) -> TensorToMesh:
    """`ShardTensorToMesh` under its other name."""
    return ShardTensorToMesh(mesh_device, dim)


class MeshToTensor:
    """Concatenates the pieces of all chips: `shape` of the mesh and one dim for each of its axes."""

    def __init__(self, device: MeshDevice, shape, dims):
        self.device, self.shape, self.dims = device, MeshShape(shape), list(dims)

    def join(self, pieces: list[torch.Tensor]) -> torch.Tensor:
        """The whole tensor, from one piece per chip in row-major order; replicated pieces are concatenated too.

        Raises    DeviceRejects where two axes of the mesh have one dim, or a dim is not there
        """
        if len(pieces) > 1 and len(set(self.dims)) != len(self.dims):
            raise DeviceRejects("dims must be unique")
        if self.shape.mesh_size() < len(pieces) == self.device.chips:
            pieces = [pieces[place] for place in _places(self.device.shape, self.shape)]
        rank = pieces[0].dim()
        if any(not -rank <= d < rank for d in self.dims):
            raise DeviceRejects(
                f"Invalid dimension index; got dims: {{{', '.join(map(str, self.dims))}}}, tensor dimension: {rank}"
            )
        for n, dim in zip(reversed(self.shape), reversed(self.dims)):
            pieces = [torch.cat(pieces[i : i + n], dim) for i in range(0, len(pieces), n)]
        return pieces[0]


def ConcatMeshToTensor(mesh_device: MeshDevice, dim: int) -> MeshToTensor:
    return MeshToTensor(mesh_device, (mesh_device.chips,), (dim,))


def concat_mesh_to_tensor_composer(mesh_device: MeshDevice, dim: int) -> MeshToTensor:
    """`ConcatMeshToTensor` under its other name."""
    return ConcatMeshToTensor(mesh_device, dim)


def ConcatMesh2dToTensor(mesh_device: MeshDevice, mesh_shape, dims) -> MeshToTensor:
    if any(d is None for d in dims):
        raise TypeError("__init__(): incompatible function arguments. The following argument types are supported:")
    _fits(mesh_device, mesh_shape)
    return MeshToTensor(mesh_device, mesh_shape, dims)


def create_mesh_composer(mesh_device: MeshDevice, config: MeshComposerConfig) -> MeshToTensor:
    """One dim per axis of the mesh, or of the shape that the config names in its place; chips beyond it are left out.

    Source    ttnn 0.81.1, asked on n150 and n300
    """
    return MeshToTensor(mesh_device, _shape_of(mesh_device, config, config.dims, "dimensions in the"), config.dims)
