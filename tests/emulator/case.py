"""What a test case of an op looks like: sample operands, an independent torch reference, or an expected refusal."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

import ttnn_emulator as ttnn
from ttnn_emulator import chips


@dataclass
class T:
    """An operand: random normal values of `shape`, or `values` as given, on the device (or the host)."""

    shape: tuple = ()
    dtype: object = ttnn.bfloat16
    layout: object = ttnn.TILE_LAYOUT
    memory_config: object = None
    values: torch.Tensor | None = None
    host: bool = False
    mapper: object = None  # device -> mesh mapper
    low: float | None = None  # uniform in [low, high) instead of normal
    high: float = 1.0

    def torch(self, generator) -> torch.Tensor:
        if self.values is not None:
            return self.values
        if self.dtype in (ttnn.uint32, ttnn.int32, ttnn.uint16, ttnn.uint8):
            return torch.randint(
                0, int(self.high) if self.high > 1 else 8, self.shape, generator=generator, dtype=torch.int32
            )
        if self.low is not None:
            return self.low + (self.high - self.low) * torch.rand(self.shape, generator=generator)
        return torch.randn(self.shape, generator=generator)

    def build(self, device, generator) -> ttnn.Tensor:
        return ttnn.from_torch(
            self.torch(generator), dtype=self.dtype, layout=self.layout, device=None if self.host else device,
            memory_config=self.memory_config, mesh_mapper=self.mapper(device) if self.mapper else None,
        )  # fmt: skip


class Device:
    """Stands for the open device among the arguments."""


class Semaphore:
    """Stands for a new global semaphore on all cores."""


@dataclass
class Case:
    """A legal call.

    reference   torch function of the operands' values (float32 for float dtypes, as read back from the device) and the
                same keywords (tensors among them too) -> expected value, or a tuple of them; None: only the checks of
                spec, grid and memory (say why in `note`)
    tolerance   relative L2 distance allowed from the reference, in `fast` numerics; 0 means equal. Derived from the
                dtype's rounding or the recorded error of the op, and named where it is not obvious
    compose     device -> composer, for results spread over a mesh
    changes     index of the operand that the op writes into: it is compared instead of the result
    """

    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    reference: object = None
    tolerance: float = 0.0
    system: str = "n150"
    compose: object = None
    changes: int | None = None
    note: str = ""


@dataclass
class Refused:
    """An illegal call: the exception and a regular expression that its text matches."""

    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    match: str = ""
    error: type = ttnn.DeviceRejects
    system: str = "n150"


def open_system(name: str, **kwargs):
    """The device or mesh of a system, on its machine."""
    system = chips.use(name)
    if system.chips == 1:
        return ttnn.open_device(device_id=0, **kwargs)
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, system.fabric))
    return ttnn.open_mesh_device(ttnn.MeshShape(*system.mesh_shape), **kwargs)


def build(value, device, generator):
    """Operands in place of their descriptions, in tuples, lists and dicts too."""
    if isinstance(value, T):
        return value.build(device, generator)
    if value is Device or isinstance(value, Device):
        return device
    if value is Semaphore:
        x, y = device.compute_with_storage_grid_size()
        cores = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(x - 1, y - 1))])
        return ttnn.create_global_semaphore(device, cores, 0)
    if isinstance(value, (list, tuple)) and not isinstance(value, ttnn.CoreCoord):
        return type(value)(build(v, device, generator) for v in value)
    if isinstance(value, dict):
        return {k: build(v, device, generator) for k, v in value.items()}
    return value


def read(value, compose=None):
    """Tensors as torch values (floats as float32), everything else as it is."""
    if isinstance(value, ttnn.Tensor):
        composer = compose(value.device()) if compose and value.device() is not None else None
        out = ttnn.to_torch(value, mesh_composer=composer)
        return out.float() if out.is_floating_point() else out.to(torch.int64)
    if isinstance(value, (list, tuple)) and not isinstance(value, ttnn.CoreCoord):
        return type(value)(read(v, compose) for v in value)
    if isinstance(value, dict):
        return {k: read(v, compose) for k, v in value.items()}
    return value


def relative_l2(got: torch.Tensor, want: torch.Tensor) -> float:
    norm = want.double().norm().item()
    distance = (got.double() - want.double()).norm().item()
    return distance / norm if norm else distance
