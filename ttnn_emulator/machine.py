"""The machine: what it has, its devices opened and closed."""

from __future__ import annotations

import contextlib

from .chips import machine
from .chips.systems import VARIABLE
from .device import MESH_IDS, OPEN, MemoryView, MeshDevice, MeshShape
from .errors import DeviceRejects
from .memory import BufferType

_default: MeshDevice | None = None


def get_num_devices() -> int:
    rows, columns = machine().machine_shape
    return rows * columns


def get_device_ids() -> list[int]:
    return list(range(get_num_devices()))


def get_num_pcie_devices() -> int:
    """Chips with a PCIe link of their own."""
    return len(machine().pcie_ids)


def get_pcie_device_ids() -> list[int]:
    return list(machine().pcie_ids)


def get_arch_name() -> str:
    return machine().chip.name


GetNumAvailableDevices, GetNumPCIeDevices = get_num_devices, get_num_pcie_devices


def open_device(
    *, device_id: int = 0, l1_small_size: int = 0, trace_region_size: int = 0, num_command_queues: int = 1,
    dispatch_core_config=None, worker_l1_size: int = 0,
) -> MeshDevice:  # fmt: skip
    """Opens one chip, as a 1x1 mesh."""
    _check_ids([device_id])
    next(MESH_IDS)  # the library opens the system's mesh first, and makes the chip a submesh of it
    device = MeshDevice(
        MeshShape(1, 1), [device_id], machine().chip, trace_region_size, l1_small_size, num_command_queues
    )
    OPEN.add(device)
    return device


def open_mesh_device(
    mesh_shape=None, l1_small_size: int = 0, trace_region_size: int = 0, num_command_queues: int = 1,
    dispatch_core_config=None, offset=None, physical_device_ids=(), worker_l1_size: int = 0,
) -> MeshDevice:  # fmt: skip
    """Opens a mesh of the machine's chips, by default all of them.

    Raises    DeviceRejects where the machine has no such mesh
    Source    ttnn 0.81.1 on n150, n300 and T3000
    """
    system = machine()
    shape = MeshShape(mesh_shape if mesh_shape is not None else system.machine_shape)
    if shape.dims() != 2:
        raise DeviceRejects("MeshDeviceViewImpl is not 2D!", f"got {shape}")
    if physical_device_ids:
        _check_ids(physical_device_ids)
    else:
        physical_device_ids = system.placed(shape, tuple(offset or (0, 0)))
    device = MeshDevice(shape, physical_device_ids, system.chip, trace_region_size, l1_small_size, num_command_queues)
    OPEN.add(device)
    return device


def _check_ids(device_ids) -> None:
    """Refuses chips that the machine does not have."""
    for chip in device_ids:
        if chip not in get_device_ids():
            raise DeviceRejects(
                f"Chip to board mapping for chip {chip} not found.",
                f"{machine().name} has chips {get_device_ids()}; {VARIABLE} names another machine",
            )


def close_device(device: MeshDevice) -> None:
    """Closes a device, and twice as well. Its tensors keep what the host knows of them; no op takes them.

    Source    ttnn 0.81.1, asked of the library
    """
    for submesh in device.submeshes:
        close_device(submesh)
    device.is_open, device.capture = False, None
    device.traces.clear()
    device.later.clear()
    device.written.clear()
    OPEN.discard(device)


close_mesh_device = close_device


def SetDefaultDevice(device: MeshDevice) -> None:
    global _default
    _default = device


def GetDefaultDevice() -> MeshDevice | None:
    return _default


def get_memory_view(device: MeshDevice, buffer_type: BufferType = BufferType.DRAM) -> MemoryView:
    device.check_open()
    a = device.allocators[buffer_type]
    return MemoryView(a.banks, a.bank_bytes, a.allocated, a.free, a.largest_free)


def synchronize_device(device: MeshDevice, cq_id=None, sub_device_ids=()) -> None:
    """Waits for the device; the emulator has nothing in flight. Afterwards all queues see all writes."""
    if device.is_open:  # else nothing is in flight, says the library as well
        device.queue(cq_id)
    device.written.clear()


@contextlib.contextmanager
def command_queue(cq_id):
    """Calls inside go to this queue unless they say otherwise."""
    before = [(device, device.default_queue) for device in OPEN]
    for device, _ in before:
        device.default_queue = device.queue(cq_id)
    try:
        yield
    finally:
        for device, queue in before:
            device.default_queue = queue


@contextlib.contextmanager
def manage_device(device_id: int):
    """An open chip inside, closed after."""
    device = open_device(device_id=device_id)
    try:
        yield device
    finally:
        close_device(device)


@contextlib.contextmanager
def create_mesh_device(*args, **kwargs):
    """An open mesh inside, closed after."""
    device = open_mesh_device(*args, **kwargs)
    try:
        yield device
    finally:
        close_device(device)


def open_devices() -> list[MeshDevice]:
    return list(OPEN)
