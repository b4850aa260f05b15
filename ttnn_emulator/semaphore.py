"""Global semaphores: words in the L1 of cores, by which the chips of a collective wait for one another."""

from __future__ import annotations

from .buffer import Buffer
from .device import MeshDevice
from .errors import DeviceRejects
from .grid import CoreRangeSet
from .memory import BufferType

#: What one takes in a bank of L1 (ttnn 0.81.1, allocated bytes): 16 bytes, in units of 32.
SEMAPHORE_BYTES = 32


class GlobalSemaphore:
    """One word on each of `cores`; its memory is free again when the last reference goes."""

    __slots__ = ("buffer",)

    def __init__(self, device: MeshDevice, cores: CoreRangeSet):
        self.buffer = Buffer(device, BufferType.L1, SEMAPHORE_BYTES, 16 * cores.num_cores(), cores.num_cores())

    def __del__(self):
        if hasattr(self, "buffer"):
            self.buffer.free()

    def __repr__(self) -> str:
        return f"GlobalSemaphore(address={self.buffer.address})"


def create_global_semaphore(
    mesh_device: MeshDevice, cores: CoreRangeSet, initial_value: int = -1, buffer_type: BufferType = BufferType.L1
) -> GlobalSemaphore:
    """A word of L1 on each of the cores, 32 bytes of every bank.

    Raises    no cores, cores that the device does not have, other memory than L1
    Differs   L1_SMALL is charged to L1; nothing waits here, so the value is not held
    Source    ttnn 0.81.1 on the mock cluster: allocated bytes and refusals
    """
    if not isinstance(mesh_device, MeshDevice) or not isinstance(cores, CoreRangeSet) or int(initial_value) < 0:
        raise TypeError(
            "create_global_semaphore(): incompatible function arguments.\n"
            f"  got    {mesh_device!r}, {cores!r}, {initial_value!r}\n"
            "  want   (mesh_device: MeshDevice, cores: CoreRangeSet, initial_value: int, buffer_type: BufferType = L1)"
        )
    if buffer_type not in (BufferType.L1, BufferType.L1_SMALL):
        raise DeviceRejects("Global semaphore can only be created for L1 buffer types")
    if buffer_type is BufferType.L1_SMALL and not mesh_device.l1_small_size:
        raise DeviceRejects(
            f"Out of Memory: Not enough space to allocate {16 * cores.num_cores()} B L1_SMALL buffer across "
            f"{cores.num_cores()} banks, where each bank needs to store 16 B, but bank size is 0 B",
            "open the device with l1_small_size",
        )
    if not cores.num_cores():
        raise DeviceRejects("CoreRangeSet must have at least one core")
    columns, rows = mesh_device.chip.grid
    for each in cores.ranges():
        if each.end.x >= columns or each.end.y >= rows:
            x, y = (each.end.x, each.start.y) if each.end.x >= columns else (each.start.x, rows)
            raise DeviceRejects(
                f"Invalid shard grid: shard core ({x}, {y}) has no L1 bank on this device, which has "
                f"{columns * rows} of them."
            )
    return GlobalSemaphore(mesh_device, cores)


def reset_global_semaphore_value(global_semaphore: GlobalSemaphore, reset_value: int) -> None:
    """Sets the word on every core; nothing waits for it here."""


def get_global_semaphore_address(global_semaphore: GlobalSemaphore) -> int:
    """Where the word is in the L1 of each core."""
    return global_semaphore.buffer.address
