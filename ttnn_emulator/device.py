"""Devices: one Wormhole chip, or a mesh of them, with an allocator for each kind of memory."""

from __future__ import annotations

import enum
from typing import NamedTuple

from .errors import DeviceRejects
from .grid import CoreCoord, CoreGrid, CoreRange, CoreRangeSet
from .memory import BANK_BYTES, BANKS, GRID, Allocator, BufferType
from .shape import round_up


class MeshShape(tuple):
    """(rows, columns) of a mesh."""

    __slots__ = ()

    def __new__(cls, *dims):
        dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
        return super().__new__(cls, (int(d) for d in dims))

    def mesh_size(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def dims(self) -> int:
        return len(self)

    def __repr__(self) -> str:
        return f"MeshShape([{', '.join(map(str, self))}])"

    __str__ = __repr__


class MeshCoordinate(tuple):
    """A chip's place in a mesh."""

    __slots__ = ()

    def __new__(cls, *dims):
        dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
        return super().__new__(cls, (int(d) for d in dims))

    def __repr__(self) -> str:
        return f"MeshCoordinate([{', '.join(map(str, self))}])"


class FabricConfig(enum.Enum):
    DISABLED = 0
    FABRIC_1D = 1
    FABRIC_1D_RING = 2
    FABRIC_2D = 3
    FABRIC_2D_TORUS_X = 4
    FABRIC_2D_TORUS_Y = 5
    FABRIC_2D_TORUS_XY = 6
    FABRIC_2D_DYNAMIC = 7
    CUSTOM = 8


class Arch(enum.Enum):
    WORMHOLE_B0 = 2


class MemoryView(NamedTuple):
    """Bytes per bank of one kind of memory on one chip, as `ttnn.get_memory_view` reports them."""

    num_banks: int
    total_bytes_per_bank: int
    total_bytes_allocated_per_bank: int
    total_bytes_free_per_bank: int
    largest_contiguous_bytes_free_per_bank: int


class MeshDevice:
    """A mesh of Wormhole chips; `open_device` gives a 1x1 one.

    Every chip allocates alike, so one allocator per kind of memory stands for all of them.
    """

    def __init__(self, shape: MeshShape, device_ids=None, trace_region_size=0, l1_small_size=0, num_command_queues=1):
        self.shape = shape
        self.chips = shape.mesh_size()
        self.device_ids = list(device_ids) if device_ids else list(range(self.chips))
        self.trace_region_size, self.l1_small_size = trace_region_size, l1_small_size
        self.num_command_queues = num_command_queues
        self.is_open = True
        # The trace region is cut off DRAM in steps of 8192 bytes a bank (ttnn 0.81.1, memory view at open).
        dram = BANK_BYTES[BufferType.DRAM] - round_up(-(-trace_region_size // BANKS[BufferType.DRAM]), 8192)
        l1 = BANK_BYTES[BufferType.L1] - round_up(l1_small_size, 32)
        self.allocators = {
            BufferType.DRAM: Allocator(BufferType.DRAM, dram),
            BufferType.L1: Allocator(BufferType.L1, l1),
        }
        self.capture = None  # the trace being captured
        self.traces: dict[int, object] = {}
        self._program_cache = True

    # -- what a program asks of its device
    def get_num_devices(self) -> int:
        return self.chips

    def get_device_ids(self) -> list[int]:
        return list(self.device_ids)

    def id(self) -> int:
        return self.device_ids[0] if self.chips == 1 else 0

    def arch(self) -> Arch:
        return Arch.WORMHOLE_B0

    def compute_with_storage_grid_size(self) -> CoreCoord:
        return CoreCoord(*GRID)

    def logical_grid_size(self) -> CoreCoord:
        return CoreCoord(*GRID)

    def dram_grid_size(self) -> CoreCoord:
        return CoreCoord(BANKS[BufferType.DRAM], 1)

    @property
    def core_grid(self) -> CoreGrid:
        return CoreGrid(x=GRID[0], y=GRID[1])

    def worker_core_grid(self) -> CoreRangeSet:
        return CoreRangeSet([CoreRange((0, 0), (GRID[0] - 1, GRID[1] - 1))])

    def enable_program_cache(self) -> None:
        self._program_cache = True

    def disable_and_clear_program_cache(self) -> None:
        self._program_cache = False

    def clear_program_cache(self) -> None:
        pass

    def num_program_cache_entries(self) -> int:
        return 0

    # -- memory
    def memory(self) -> dict:
        """Bytes per chip: total, allocated, peak and largest free block of DRAM and of L1."""
        return {
            kind.name.lower(): {
                "total": a.bank_bytes * a.banks,
                "allocated": a.allocated * a.banks,
                "peak": a.peak * a.banks,
                "largest_free": a.largest_free * a.banks,
            }
            for kind, a in self.allocators.items()
        }

    def reset_peak(self) -> None:
        for a in self.allocators.values():
            a.peak = a.allocated

    def __repr__(self) -> str:
        rows_cols = "x".join(map(str, self.shape))
        return f"MeshDevice({rows_cols} grid, {self.chips} devices)"


_open: list[MeshDevice] = []
_default: MeshDevice | None = None
_fabric = FabricConfig.DISABLED


def set_fabric_config(config: FabricConfig, *args, **kwargs) -> None:
    """Chooses how chips talk; before a mesh is opened, and DISABLED after it is closed."""
    global _fabric
    _fabric = config


def get_fabric_config() -> FabricConfig:
    return _fabric


def get_num_devices() -> int:
    """Chips of the largest system the emulator stands for (T3000)."""
    return 8


def get_device_ids() -> list[int]:
    return list(range(get_num_devices()))


def open_device(
    *, device_id: int = 0, l1_small_size: int = 0, trace_region_size: int = 0, num_command_queues: int = 1,
    dispatch_core_config=None, worker_l1_size: int = 0,
) -> MeshDevice:  # fmt: skip
    """Opens one chip, as a 1x1 mesh."""
    if not isinstance(device_id, int) or not 0 <= device_id < get_num_devices():
        raise DeviceRejects(f"Device index {device_id} out of range: chips 0 to {get_num_devices() - 1} are emulated")
    device = MeshDevice(MeshShape(1, 1), [device_id], trace_region_size, l1_small_size, num_command_queues)
    _open.append(device)
    return device


def open_mesh_device(
    mesh_shape=None, l1_small_size: int = 0, trace_region_size: int = 0, num_command_queues: int = 1,
    dispatch_core_config=None, offset=None, physical_device_ids=(), worker_l1_size: int = 0,
) -> MeshDevice:  # fmt: skip
    """Opens a mesh of up to eight chips."""
    shape = MeshShape(mesh_shape) if mesh_shape is not None else MeshShape(1, 1)
    if shape.mesh_size() > get_num_devices():
        raise DeviceRejects(
            f"Requested mesh {shape} is too big for the system: it has {get_num_devices()} devices",
            "the largest system emulated is T3000: MeshShape(2, 4) or MeshShape(1, 8)",
        )
    device = MeshDevice(shape, physical_device_ids, trace_region_size, l1_small_size, num_command_queues)
    _open.append(device)
    return device


def close_device(device: MeshDevice) -> None:
    """Closes a device; its tensors are gone with it."""
    global _default
    device.is_open = False
    device.traces.clear()
    if device in _open:
        _open.remove(device)
    if device is _default:
        _default = None


close_mesh_device = close_device


def SetDefaultDevice(device: MeshDevice) -> None:
    global _default
    _default = device


def GetDefaultDevice() -> MeshDevice | None:
    return _default


def get_memory_view(device: MeshDevice, buffer_type: BufferType = BufferType.DRAM) -> MemoryView:
    a = device.allocators[buffer_type]
    return MemoryView(a.banks, a.bank_bytes, a.allocated, a.free, a.largest_free)


def synchronize_device(device: MeshDevice, cq_id=None, sub_device_ids=()) -> None:
    """Waits for the device; the emulator has nothing in flight."""


def open_devices() -> list[MeshDevice]:
    return list(_open)
