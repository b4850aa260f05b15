"""What the buffers of a program take of L1: they start at the first usable address; tensors lie from the other end on.

Source    ttnn 0.81.1, its refusals
"""

from __future__ import annotations

from ...chips import Chip
from ...device import MeshDevice
from ...errors import DeviceRejects
from ...grid import CoreRange
from ...memory import BufferType


def buffers_end(chip: Chip, size: int, where: CoreRange, hint: str) -> int:
    """Where buffers of `size` bytes a core end, or the refusal of what passes the end of L1."""
    end = chip.l1.base + size
    if end > chip.l1_end:
        raise DeviceRejects(
            f"Statically allocated dataflow buffers on core range {where} grow to {end} B which is beyond max L1 size "
            f"of {chip.l1_end} B",
            hint,
        )
    return end


def check_room(device: MeshDevice, end: int, where: CoreRange, hint: str) -> None:
    """Refuses buffers that end in tensors that are in L1 now."""
    base, free = device.chip.l1.base, device.allocators[BufferType.L1].free_blocks
    lowest = free[0][0] + free[0][1] if free and free[0][0] == base else base
    if end > lowest:
        raise DeviceRejects(
            f"Statically allocated dataflow buffers clash with L1 buffers on core range {where}. L1 buffer allocated "
            f"at {lowest} and static dataflow buffer region ends at {end}",
            f"free tensors in L1 before, or {hint}",
        )
