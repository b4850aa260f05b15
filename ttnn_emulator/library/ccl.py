"""ttnn.operations.ccl and the fabric's questions: how many links there are, and which way round a collective can go.

Source    ttnn 0.81.1, asked on n300, t3000 (meshes 2x4, 1x8, 1x4, 2x2, 1x3), p300, p300x2, p150x4 and p150x8
"""

from __future__ import annotations

from ..chips import machine
from ..device import MeshDevice
from ..errors import DeviceRejects
from ..fabric import FabricConfig, get_fabric_config
from ..mesh import Topology
from ..tensor import Tensor
from .enumerations import MoEActivationFunction

__all__ = [
    "MoEActivationFunction", "get_num_links", "get_usable_topology", "get_tt_fabric_max_payload_size_bytes",
    "get_tt_fabric_packet_header_size_bytes",
]  # fmt: skip

_SPEAK_NOT = "Trying to get un-initialized fabric context"


def get_num_links(mesh_device: MeshDevice, cluster_axis: int | None = None) -> int:
    """The links between neighbours that collectives can use; 1 where there is no fabric or no neighbour."""
    along = [n for axis, n in enumerate(mesh_device.shape) if cluster_axis in (None, axis)]
    if mesh_device.fabric is FabricConfig.DISABLED or max(along) == 1:
        return 1
    system = machine()
    rows, columns = system.machine_shape
    return system.links - (len(system.pcie_ids) < rows * columns)  # chips without PCIe are dispatched to over one


def get_usable_topology(tensor: Tensor, topology: Topology | None = None, cluster_axis: int | None = None) -> Topology:
    """Ring where it is asked for (by default where the fabric is one) and the chips make one; else Linear."""
    device = tensor.device()
    if topology is None:
        _asked_of_fabric(device)
        topology = Topology.Ring if device.fabric is FabricConfig.FABRIC_1D_RING else Topology.Linear
    if topology is not Topology.Ring:
        return topology
    rows, columns = device.shape
    if cluster_axis is None:
        return Topology.Ring if 1 in (rows, columns) and device.chips != 2 else Topology.Linear
    height, width = machine().machine_shape
    whole = device.shape[cluster_axis] == height * width > 2
    return Topology.Ring if whole else Topology.Linear


def _asked_of_fabric(device=None) -> None:

    if (get_fabric_config() if device is None else device.fabric) is FabricConfig.DISABLED:
        raise DeviceRejects(_SPEAK_NOT, "call ttnn.set_fabric_config(...) before the mesh is opened")


def get_tt_fabric_max_payload_size_bytes() -> int:
    """Bytes that one packet of the fabric carries."""
    _asked_of_fabric()
    return 4352


def get_tt_fabric_packet_header_size_bytes() -> int:
    """Bytes of a packet's header."""
    _asked_of_fabric()
    return 48
