"""Sub-devices: sets of a device's cores that programs may have to themselves. They change no value and no address."""

from __future__ import annotations

from .errors import DeviceRejects, NotEmulated
from .grid import CoreRange, CoreRangeSet
from .value import Value


class _Number(Value):
    """A number of its own kind."""

    FIELDS = __slots__ = ("number",)

    def __init__(self, id: int):
        self.number = int(id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.number})"


class SubDeviceId(_Number):
    """Which sub-device of the manager that is loaded."""


class SubDeviceManagerId(_Number):
    """Which set of sub-devices; 0 is the default one, the whole device."""


class SubDevice:
    """Cores that programs may have to themselves: a list with one set of worker cores."""

    def __init__(self, cores):
        if isinstance(cores, CoreRangeSet) or not all(isinstance(c, CoreRangeSet) for c in cores):
            raise TypeError(
                "__init__(): incompatible function arguments. The following argument types are supported:\n"
                "    1. __init__(self, cores: collections.abc.Sequence[ttnn._ttnn.tensor.CoreRangeSet]) -> None"
            )
        self.cores = list(cores)


class SubDevices:
    """What a device does about its sub-devices.

    Differs   all cores stay where they are for ops: which of them an op is told to use is not compared with these sets
    Source    ttnn 0.81.1, asked: what is refused and in which words; loading a set could not be asked without a board
    """

    def __init__(self):
        self.managers: dict[int, int] = {0: 1}  # manager -> how many sub-devices it has
        self.loaded, self.next_manager = 0, 1

    def create_sub_device_manager(self, sub_devices, local_l1_size: int = 0) -> SubDeviceManagerId:
        """A set of sub-devices to be loaded."""
        if not sub_devices:
            raise DeviceRejects("sub_device_ids to stall must not be empty")
        taken: set = set()
        grid = CoreRange((0, 0), (self.chip.grid[0] - 1, self.chip.grid[1] - 1))
        for each in sub_devices:
            cores = {c for s in each.cores for c in s.cores()}
            if not all(grid.contains(c) for c in cores):
                raise DeviceRejects(
                    f"Tensix cores {each.cores[0]} specified in sub device must be within device grid {grid}"
                )
            if taken & cores:
                raise DeviceRejects("SubDevices specified for SubDeviceManager intersect")
            taken |= cores
        if local_l1_size:
            raise NotEmulated(f"sub-devices with {local_l1_size} bytes of L1 of their own are not modelled")
        made, self.next_manager = self.next_manager, self.next_manager + 1
        self.managers[made] = len(sub_devices)
        return SubDeviceManagerId(made)

    def load_sub_device_manager(self, sub_device_manager_id: SubDeviceManagerId) -> None:
        self.loaded = self._manager(sub_device_manager_id)

    def clear_loaded_sub_device_manager(self) -> None:
        self.loaded = 0

    def remove_sub_device_manager(self, sub_device_manager_id: SubDeviceManagerId) -> None:
        number = self._manager(sub_device_manager_id)
        if number == self.loaded:
            raise DeviceRejects("Cannot remove active sub-device manager", "clear_loaded_sub_device_manager() first")
        del self.managers[number]

    def _manager(self, manager: SubDeviceManagerId) -> int:
        if manager.number not in self.managers:
            raise DeviceRejects("SubDevice manager does not exist", f"it is {manager}, of {sorted(self.managers)}")
        return manager.number

    def set_sub_device_stall_group(self, sub_device_ids) -> None:
        """Which sub-devices a program waits for; ops run one after another here anyway."""
        if not sub_device_ids:
            raise DeviceRejects("sub_device_ids to stall must not be empty")
        for each in sub_device_ids:
            if each.number >= self.managers[self.loaded]:
                raise DeviceRejects(f"SubDevice index {each.number} out of bounds {self.managers[self.loaded]}")

    def reset_sub_device_stall_group(self) -> None:
        """All of them again."""
