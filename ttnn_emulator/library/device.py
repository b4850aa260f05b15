"""ttnn.device: what a program asks about its devices, sub-devices, and the calls that only a board can honour."""

from __future__ import annotations

from ..chips import Arch, machine
from ..device import MeshDevice
from ..machine import get_arch_name
from ..subdevice import SubDevice, SubDeviceId, SubDeviceManagerId

__all__ = [
    "get_arch_name", "is_blackhole", "is_wormhole_b0", "SubDevice", "SubDeviceId", "SubDeviceManagerId",
    "ReadDeviceProfiler", "DEFAULT_L1_SMALL_SIZE", "DEFAULT_TRACE_REGION_SIZE", "get_l1_alignment",
    "get_dram_alignment", "get_max_worker_l1_unreserved_size", "dump_device_memory_state", "DumpDeviceMemoryState",
    "EnableMemoryReports", "DisableMemoryReports", "ClearKernelCache", "GetPCIeDeviceID",
]  # fmt: skip

DEFAULT_L1_SMALL_SIZE = DEFAULT_TRACE_REGION_SIZE = 0  # ttnn 0.81.1, asked


def is_blackhole(device: MeshDevice | None = None) -> bool:
    return _arch(device) is Arch.BLACKHOLE


def is_wormhole_b0(device: MeshDevice | None = None) -> bool:
    return _arch(device) is Arch.WORMHOLE_B0


def _arch(device):
    return machine().chip.arch if device is None else device.arch()


def get_l1_alignment() -> int:
    return machine().chip.l1.page_alignment


def get_dram_alignment() -> int:
    return machine().chip.dram.page_alignment


def get_max_worker_l1_unreserved_size() -> int:
    """Bytes of a core's L1 that are not the firmware's."""
    return machine().chip.l1_unreserved


def ReadDeviceProfiler(device, *args, **kwargs) -> None:
    """Nothing: there is no profiler to read. `bringup plan` and `bringup run --log` predict times."""


def dump_device_memory_state(device, prefix: str = "") -> None:
    """Nothing is written; `ttnn.get_memory_view` tells what a report would."""


DumpDeviceMemoryState = dump_device_memory_state


def EnableMemoryReports() -> None:
    """Nothing: the emulator writes no memory reports."""


def DisableMemoryReports() -> None:
    """Nothing: the emulator writes no memory reports."""


def ClearKernelCache() -> None:
    """Nothing: the emulator has no kernels on disk."""


def GetPCIeDeviceID(device_id: int) -> int:
    """The chip with a PCIe link through which a chip is reached; chips with a link are their own."""
    return device_id if device_id in machine().pcie_ids else machine().pcie_ids[0]
