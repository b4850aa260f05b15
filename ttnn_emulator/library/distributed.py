"""ttnn.distributed and ttnn._ttnn.multi_device: the machine's mesh, mappers as C++ calls them, one process."""

from __future__ import annotations

from ..chips import machine
from ..device import MeshCoordinate, MeshShape, Number, anything_opened
from ..mesh import MeshToTensor as CppMeshToTensor
from ..mesh import TensorToMesh as CppTensorToMesh

__all__ = [
    "CppMeshToTensor", "CppTensorToMesh", "MeshToTensor", "TensorToMesh", "SystemMeshDescriptor",
    "using_distributed_env", "init_distributed_context", "distributed_context_is_initialized",
    "distributed_context_get_rank", "distributed_context_get_size", "distributed_context_world_rank",
    "distributed_context_world_size", "distributed_context_barrier", "Rank", "Size",
    "visualize_mesh_device", "visualize_system_mesh", "visualize_tensor",
]  # fmt: skip

MeshToTensor, TensorToMesh = CppMeshToTensor, CppTensorToMesh


class SystemMeshDescriptor:
    """The mesh that the machine's chips make."""

    def shape(self) -> MeshShape:
        return MeshShape(*machine().machine_shape)

    local_shape = shape

    def all_local(self) -> bool:
        return True

    def is_local(self, coordinate: MeshCoordinate) -> bool:
        return True

    def get_device_id(self, coordinate: MeshCoordinate) -> int:
        row, column = coordinate
        return machine().chip_ids[row][column]


def using_distributed_env() -> bool:
    """Was the program started on several hosts? Never here."""
    return False


class Rank(Number):
    """Which of the programs that run together this one is."""

    def __str__(self) -> str:
        return str(self.value)


class Size(Rank):
    """How many programs run together."""


_initialized = False


def init_distributed_context(*args) -> None:
    """One process holds the whole mesh here: it is number 0 of 1."""
    global _initialized
    _initialized = True


def distributed_context_is_initialized() -> bool:
    return _initialized or anything_opened()


def _asked(answer):
    def ask():
        if not distributed_context_is_initialized():
            raise RuntimeError("Distributed context not initialized. Call init_distributed_context() first.")
        return answer

    return ask


distributed_context_get_rank = distributed_context_world_rank = _asked(Rank(0))
distributed_context_get_size = distributed_context_world_size = _asked(Size(1))
distributed_context_barrier = _asked(None)


def visualize_mesh_device(mesh_device, tensor=None) -> None:
    """Prints the mesh, a chip in each place."""
    rows, columns = mesh_device.shape
    ids = mesh_device.get_device_ids()
    for row in range(rows):
        print("  ".join(f"({row}, {c}): device {ids[row * columns + c]}" for c in range(columns)))


def visualize_system_mesh() -> None:
    """Prints the machine's mesh."""
    for row, ids in enumerate(machine().chip_ids):
        print("  ".join(f"({row}, {column}): device {chip}" for column, chip in enumerate(ids)))


def visualize_tensor(tensor, **_) -> None:
    """Prints the tensor's spec and how it is spread."""
    print(tensor.spec, tensor.tensor_topology())
