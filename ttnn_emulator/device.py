"""Devices: one chip, or a mesh of them, with an allocator for each kind of memory."""

from __future__ import annotations

import itertools
import weakref
from typing import NamedTuple

from .chips import Arch, Chip, machine
from .errors import DeviceRejects, NotEmulated, untested
from .fabric import FabricConfig, get_fabric_config
from .grid import CoreCoord, CoreGrid, CoreRange, CoreRangeSet
from .memory import Allocator, BufferType
from .shape import round_up
from .subdevice import SubDevices
from .value import Value


class _Dims(tuple):
    """Numbers by axis of a mesh, given one by one or together."""

    __slots__ = ()

    def __new__(cls, *dims):
        dims = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
        return super().__new__(cls, (int(d) for d in dims))

    def __repr__(self) -> str:
        return f"{type(self).__name__}([{', '.join(map(str, self))}])"

    __str__ = __repr__


class MeshShape(_Dims):
    """(rows, columns) of a mesh."""

    __slots__ = ()

    def mesh_size(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def dims(self) -> int:
        return len(self)


class MeshCoordinate(_Dims):
    """A chip's place in a mesh."""

    __slots__ = ()

    def dims(self) -> int:
        return len(self)


class Number(Value):
    """A number of a kind of its own."""

    FIELDS = __slots__ = ("value",)

    def __init__(self, value: int):
        self.value = int(value)

    def __int__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value})"


def anything_opened() -> bool:
    """Whether a device was opened in this process."""
    return MeshDevice.any_opened


class QueueId(Number):
    """The number of a command queue; a plain int does as well."""

    __slots__ = ()
    __index__ = Number.__int__

    def __eq__(self, other) -> bool:
        return isinstance(other, (QueueId, int)) and self.value == int(other)

    __hash__ = Number.__hash__


class MeshId(Number):
    """The number of a mesh among those that a fabric joins."""

    __slots__ = ()


class FabricNodeId(Value):
    """A chip as the fabric names it: its mesh, and its number there, row by row."""

    FIELDS = __slots__ = ("mesh_id", "chip_id")

    def __init__(self, mesh_id: MeshId, chip_id: int):
        self.mesh_id, self.chip_id = mesh_id, chip_id

    def __repr__(self) -> str:
        return f"FabricNodeId(M{int(self.mesh_id)}, D{self.chip_id})"


class MemoryView(NamedTuple):
    """Bytes per bank of one kind of memory on one chip, as `ttnn.get_memory_view` reports them."""

    num_banks: int
    total_bytes_per_bank: int
    total_bytes_allocated_per_bank: int
    total_bytes_free_per_bank: int
    largest_contiguous_bytes_free_per_bank: int


class MeshDeviceView:
    """The shape of a mesh and where its chips are; all of them are local here."""

    def __init__(self, device: MeshDevice):
        self._shape = device.shape

    def shape(self) -> MeshShape:
        return self._shape

    def num_devices(self) -> int:
        return self._shape.mesh_size()

    def is_local(self, coordinate: MeshCoordinate) -> bool:
        return True


MESH_IDS = itertools.count()


class MeshDevice(SubDevices):
    """A mesh of chips; `open_device` gives a 1x1 one.

    Every chip allocates alike, so one allocator per kind of memory stands for all of them.
    """

    any_opened = False  # in this process

    def __init__(
        self, shape: MeshShape, device_ids, chip: Chip, trace_region_size=0, l1_small_size=0, num_command_queues=1
    ):
        SubDevices.__init__(self)
        self.shape = shape
        self.chips, self.device_ids = shape.mesh_size(), list(device_ids)
        self.chip = chip  # what each of them is
        self.trace_region_size, self.l1_small_size = trace_region_size, l1_small_size
        self.num_command_queues = num_command_queues
        self.mesh_id = next(MESH_IDS)
        MeshDevice.any_opened = True
        # As it was when the mesh was opened.
        self.fabric = get_fabric_config() if self.chips > 1 else FabricConfig.DISABLED
        self.is_open = True
        if not machine().recorded:
            untested(f"calls on {machine().name}: recorded on other {chip.family} systems")
        trace_bytes = round_up(-(-trace_region_size // self.chip.dram.count), self.chip.trace_region_step)
        small_bytes = round_up(l1_small_size, self.chip.buffer_alignment)
        self.allocators = {
            BufferType.DRAM: Allocator(BufferType.DRAM, self.chip, trace_bytes),
            BufferType.L1: Allocator(BufferType.L1, self.chip, small_bytes),
        }
        self.submeshes: list[MeshDevice] = []
        self.capture = None  # the trace being captured
        self.traces: dict[int, object] = {}
        self.later: dict[int, object] = {}  # buffers allocated since the first of them was captured
        self.next_trace = 0
        self.programs: set = set()  # what has run: (op, specs in, specs out)
        self.kept: dict[tuple, list] = {}  # the buffers that programs hold for as long as they are cached
        self.generators: dict[int, object] = {}  # by user, what draws on the device go on from
        self.program_cache = self.new_programs = True  # whether programs are kept; whether new ones may run
        # Order between queues: host writes are numbered; `order` is the last write of a queue that another one has
        # waited for.
        self.default_queue = self.writes = 0
        self.events = [0] * num_command_queues
        self.recorded: dict[tuple[int, int], int] = {}  # (queue, event) -> writes so far
        self.order: dict[tuple[int, int], int] = {}  # (waiting queue, queue waited for) -> writes so far
        self.written: dict[int, tuple] = {}  # buffer -> (it, queue, number of the write)

    def sfpu_eps(self) -> float:
        return 1.1920899822825959e-07  # ttnn 0.81.1 on n300, t3000 and p150, these three

    def sfpu_inf(self) -> float:
        return 1.7013999693950742e38

    def sfpu_nan(self) -> float:
        return 7.0039998997052e19

    # -- command queues
    def queue(self, cq_id=None) -> int:
        """The number of a command queue.

        Raises    DeviceRejects where the device was opened with fewer
        """
        queue = self.default_queue if cq_id is None else int(cq_id)
        if not self.is_open:  # ttnn 0.81.1: no queue of it is left
            raise DeviceRejects(f"cq_id {queue} is out of range", "the device is closed")
        if not 0 <= queue < self.num_command_queues:
            raise DeviceRejects(
                f"cq_id {queue} is out of range",
                f"open the device with num_command_queues={queue + 1}, not {self.num_command_queues}",
            )
        return queue

    def check_open(self) -> None:
        """Raises the library's refusal of programs, and of what asks for memory, on a device that was closed."""
        if not self.is_open:
            raise DeviceRejects(
                f"SubDeviceManagerTracker is not initialized on MeshDevice {self.mesh_id}. This MeshDevice contains "
                "only remote devices (no local devices on this host). Operations requiring local device access cannot "
                "be performed on remote-only MeshDevices. Use is_remote_only() to check before calling this method.",
                "the device is closed",
            )

    def transfer(self, what: str, cq_id=None) -> int:
        """The queue of a host read or write.

        Raises    DeviceRejects inside a trace capture
        """
        if self.capture is not None:
            raise DeviceRejects(f"{what} are not supported during trace capture.", "do it before begin_trace_capture")
        return self.queue(cq_id)

    def wrote(self, buffer, queue: int) -> None:
        """Notes a host write into a buffer that ops on another queue may read."""
        if self.num_command_queues > 1:
            self.writes += 1
            self.written[id(buffer)] = (buffer, queue, self.writes)

    def waited(self, queue: int, event) -> None:
        self.order[queue, event.mesh_cq_id] = self.recorded.get((event.mesh_cq_id, event.id), 0)

    def check_order(self, buffers, queue: int) -> None:
        """Raises NotEmulated where a queue reads what another one wrote without having waited for it."""
        if not self.written:
            return
        for buffer in buffers:
            held, writer, number = self.written.get(id(buffer), (None, queue, 0))
            if held is buffer and writer != queue and self.order.get((queue, writer), 0) < number:
                raise NotEmulated(
                    f"queue {queue} reads a tensor that queue {writer} has written, and does not wait for it: a "
                    "device may "
                    f"run them in either order. event = record_event(device, {writer}); wait_for_event({queue}, event)"
                )

    # -- what a program asks of its device
    def get_num_devices(self) -> int:
        return self.chips

    def get_device_ids(self) -> list[int]:
        return list(self.device_ids)

    def get_device_id(self, coordinate) -> int:
        """The physical id of the chip at a coordinate."""
        row, column = coordinate
        rows, columns = self.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise DeviceRejects(f"Coordinate {MeshCoordinate(coordinate)} is not in the mesh {self.shape}")
        return self.device_ids[row * columns + column]

    def get_view(self) -> MeshDeviceView:
        return MeshDeviceView(self)

    def get_system_mesh_id(self) -> int:
        return 0

    def get_submeshes(self) -> list[MeshDevice]:
        return list(self.submeshes)

    def create_submesh(self, submesh_shape, offset=None) -> MeshDevice:
        """Some of the chips as a mesh of their own, with allocators of its own.

        Differs   on the device the memory is the parent's: what parent and submesh allocate may overlap there
        """
        rows, columns = MeshShape(submesh_shape)
        top, left = (0, 0) if offset is None else tuple(offset)
        if rows < 1 or columns < 1 or top + rows > self.shape[0] or left + columns > self.shape[1]:
            at = "std::nullopt" if offset is None else MeshCoordinate(top, left)
            raise DeviceRejects(
                f"Submesh shape {MeshShape(submesh_shape)} and offset {at} does not fit within parent mesh "
                f"({self.shape})."
            )
        ids = [self.get_device_id((r, c)) for r in range(top, top + rows) for c in range(left, left + columns)]
        sub = MeshDevice(
            MeshShape(rows, columns),
            ids,
            self.chip,
            self.trace_region_size,
            self.l1_small_size,
            self.num_command_queues,
        )
        self.submeshes.append(sub)
        OPEN.add(sub)
        return sub

    def create_submeshes(self, submesh_shape) -> list[MeshDevice]:
        """The whole mesh cut into submeshes of one shape, row by row."""
        rows, columns = MeshShape(submesh_shape)
        for axis, size in enumerate((rows, columns)):
            if self.shape[axis] % size:
                raise DeviceRejects(
                    f"Shape {self.shape} is not divisible by submesh shape {MeshShape(submesh_shape)} along dimension "
                    f"{axis}"
                )
        return [
            self.create_submesh((rows, columns), (r, c))
            for r in range(0, self.shape[0], rows)
            for c in range(0, self.shape[1], columns)
        ]

    def reshape(self, new_shape: MeshShape) -> None:
        """The same chips as a mesh of another shape; a line goes round the mesh that it was.

        Raises    for another number of chips; NotEmulated where tensors lie on chips that change places
        Source    ttnn 0.81.1, shapes and ids asked on n300 and T3000
        """
        if not isinstance(new_shape, MeshShape):
            raise TypeError(f"reshape(): incompatible function arguments.\n  got    {new_shape!r}, want a MeshShape")
        if new_shape.mesh_size() != self.chips or new_shape.dims() != 2:
            raise DeviceRejects("New shape must have the same number of devices as current shape")
        (rows, columns), ids = self.shape, self.device_ids
        if 1 not in new_shape and new_shape != self.shape:
            if self.chips != machine().chips:
                raise NotEmulated(f"a part of {machine().name} reshaped to {new_shape} has no model in the emulator")
            ids = machine().placed(new_shape)
        elif 1 in new_shape and 1 not in self.shape:
            grid = [ids[r * columns : (r + 1) * columns] for r in range(rows)]
            ids = grid[0] + [row[-1] for row in grid[1:-1]] + grid[-1][::-1] + [row[0] for row in grid[-2:0:-1]]
            if len(ids) != self.chips:
                raise NotEmulated(f"{self.shape} reshaped to {new_shape}, has no ring of all its chips")
        if ids != self.device_ids and any(a.allocated for a in self.allocators.values()):
            raise NotEmulated(
                f"{self.shape} reshaped to {new_shape} gives chips other places, and tensors lie on them: which shard "
                "is then whose has no model in the emulator. Reshape the mesh before the first tensor"
            )
        self.shape, self.device_ids = new_shape, ids

    def get_fabric_node_id(self, coordinate) -> FabricNodeId:
        row, column = coordinate
        if row >= self.shape[0] or column >= self.shape[1]:
            raise DeviceRejects(f"Coordinate {MeshCoordinate(coordinate)} not found in mesh {self.shape}")
        at = [chip for row in machine().chip_ids for chip in row]
        return FabricNodeId(MeshId(0), at.index(self.get_device_id(coordinate)))

    def worker_core_from_logical_core(self, logical_core) -> CoreCoord:
        """Where programs of a chip find a worker core: the same on every chip, whichever rows are switched off."""
        x, y = logical_core
        if not (x < self.chip.grid[0] and y < self.chip.grid[1]):
            raise DeviceRejects(f"No core coordinate found at location: ({x}, {y}, TENSIX, LOGICAL)")
        return CoreCoord(self.chip.worker_columns[x], self.chip.worker_row + y)

    def logical_core_from_worker_core(self, physical_core) -> CoreCoord:
        x, y = physical_core
        columns, y = self.chip.worker_columns[: self.chip.grid[0]], y - self.chip.worker_row
        if x not in columns or not 0 <= y < self.chip.grid[1]:
            raise DeviceRejects(f"No core coordinate found at location: ({x}, {physical_core[1]}, TENSIX, TRANSLATED)")
        return CoreCoord(columns.index(x), y)

    def set_program_cache_misses_allowed(self, allowed: bool) -> None:
        """Whether programs that have not run yet may run."""
        self.new_programs = allowed

    def quiesce_devices(self) -> None:
        pass

    def id(self) -> int:
        """The number of this mesh, which messages name; not a chip's."""
        return self.mesh_id

    def arch(self) -> Arch:
        return self.chip.arch

    def compute_with_storage_grid_size(self) -> CoreCoord:
        return CoreCoord(*self.chip.grid)

    def dram_grid_size(self) -> CoreCoord:
        return CoreCoord(self.chip.dram.count, 1)

    @property
    def core_grid(self) -> CoreGrid:
        x, y = self.chip.grid
        return CoreGrid(x=x, y=y)

    def worker_core_grid(self) -> CoreRangeSet:
        x, y = self.chip.grid
        return CoreRangeSet([CoreRange((0, 0), (x - 1, y - 1))])

    def enable_program_cache(self) -> None:
        self.program_cache = True

    def disable_and_clear_program_cache(self) -> None:
        self.program_cache = False
        self.clear_program_cache()

    def clear_program_cache(self) -> None:
        self.programs.clear()
        for buffers in self.kept.values():
            for buffer in buffers:
                buffer.free()
        self.kept.clear()

    def num_program_cache_entries(self) -> int:
        """Programs that have run: one per op and specs of its operands and results."""
        return len(self.programs) if self.program_cache else 0

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


OPEN: weakref.WeakSet[MeshDevice] = weakref.WeakSet()  # one that nothing leads to any more is gone, closed or not
