"""The choice of a backend, made once per process before the model file is loaded, and the devices it opens."""

import argparse
import glob
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass

from bringup.backends import library_warnings, systems
from bringup.errors import BadInput, BringupError

NAMES = ("silicon", "emulator", "mock", "simulator")
TORCH_DEVICE, MACHINE = "TTNN_EMULATOR_TORCH_DEVICE", "TTNN_EMULATOR_SYSTEM"
ACTIVE = None  # the Activation of this process


@dataclass(frozen=True)
class Activation:
    """What was chosen, why, and how it describes itself. `values`: do its tensors hold values at all?"""

    name: str
    reason: str
    detail: str

    @property
    def values(self):
        return self.name != "mock"

    @property
    def emulated(self):
        """Are times taken on this backend the host's and not a device's?"""
        return self.name != "silicon"

    def __str__(self):
        return f"ttnn: {self.name} ({self.reason}; {self.detail})"


def choose(name=None):
    """The backend's name and the reason: the argument, then BRINGUP_BACKEND, then a board, then the emulator."""
    if name is None and os.environ.get("BRINGUP_BACKEND"):
        name, reason = os.environ["BRINGUP_BACKEND"], "BRINGUP_BACKEND"
    elif name is not None:
        reason = "as asked"
    elif not glob.glob("/dev/tenstorrent/*"):
        name, reason = "emulator", "no /dev/tenstorrent"
    elif importlib.util.find_spec("ttnn") is None:
        name, reason = "emulator", "/dev/tenstorrent is there, but no ttnn package is installed"
    else:
        name, reason = "silicon", "/dev/tenstorrent"
    if name not in NAMES:
        raise BadInput("unknown backend", got=f"{name!r} ({reason})", want="one of " + ", ".join(NAMES))
    return name, reason


def activate(name=None, system=None, numerics=None):
    """Make `import ttnn` resolve to the chosen backend for the rest of the process, and return its `Activation`.

    A second call returns the first one's result, and refuses to switch. `numerics` ("fast", "exact") is the emulator's.
    Without a `system` the emulator is the machine that `TTNN_EMULATOR_SYSTEM` names, or an n150.
    """
    global ACTIVE
    if ACTIVE is not None:
        if name is not None and name != ACTIVE.name:
            raise BringupError(
                "the backend is decided once per process", got=f"{name} after {ACTIVE.name}", hint="start a new process"
            )
        _set_numerics(ACTIVE.name, numerics)
        return ACTIVE
    name, reason = choose(name)
    if "ttnn" in sys.modules:
        raise BringupError(
            "ttnn was imported before a backend was chosen",
            got=getattr(sys.modules["ttnn"], "__file__", "a module without a file"),
            hint="call bringup.backends.activate() first",
        )
    _set_numerics(name, numerics)
    detail = {"emulator": _emulator, "mock": _mock, "simulator": _simulator, "silicon": _silicon}[name](
        systems.get(system or (name == "emulator" and os.environ.get(MACHINE)) or "n150")
    )
    ACTIVE = Activation(name, reason, detail)
    return ACTIVE


def _set_numerics(name, numerics):
    if numerics is None:
        return
    if name != "emulator":
        raise BadInput("--numerics is the emulator's", got=f"{numerics} with backend {name}", hint="leave it out")
    import ttnn_emulator.numerics

    ttnn_emulator.numerics.set_mode(numerics)


def _emulator(system):
    import ttnn_emulator.numerics
    from bringup import __version__
    from ttnn_emulator import chips, torch_device

    try:
        device = torch_device.choose(os.environ.get(TORCH_DEVICE) or "cpu")
    except ValueError as e:
        problem, why = str(e).split(": ", 1)
        raise BadInput(f"no {problem}", got=why, want="--torch-device cpu, or a GPU that torch sees") from None
    chips.use(system.name)
    sys.modules["ttnn"] = ttnn_emulator
    sys.meta_path.insert(0, _Submodules(ttnn_emulator))
    library_warnings.hold()
    where = "" if device.type == "cpu" else f" on {device}"
    return f"ttnn_emulator {__version__}, {ttnn_emulator.numerics.mode()} numerics{where}"


def _mock(system):
    _require_wheel("mock")
    from bringup.backends import mock

    mock.setup(system.name)
    return f"ttnn {_import_wheel()} on a mock {system.name}, no values"


def _simulator(system):
    library = os.environ.get("TT_METAL_SIMULATOR")
    if not library or not os.path.exists(library):
        raise BadInput(
            "the simulator backend runs on a libttsim",
            got=f"TT_METAL_SIMULATOR={library or ''}",
            want="the path of libttsim.so, with its soc_descriptor.yaml beside it",
        )
    if system.chips > 1:
        raise BadInput("the simulator is one chip", got=system, want="--system n150")
    _require_wheel("simulator")
    _require_sfpi("simulator")
    os.environ.setdefault("TT_METAL_SLOW_DISPATCH_MODE", "1")  # libttsim has no fast dispatch
    return f"ttnn {_import_wheel()} on {library}"


def _silicon(system):
    _require_wheel("silicon")
    from bringup.backends import host

    boards = host.boards()
    seen = host.visible(boards)
    chips = sum(b.chips for b in seen)
    shown = ", ".join(map(str, seen)) or "none"
    visible = os.environ.get("TT_VISIBLE_DEVICES")
    shown += f" (TT_VISIBLE_DEVICES={visible})" if visible else ""
    # A board whose type the driver does not tell counts as one chip, and may have two.
    if chips < system.chips and all(b.type for b in seen):
        raise BadInput(
            f"not enough chips for {system}", got=f"{chips} on boards {shown}", hint="bringup doctor --backend silicon"
        )
    return f"ttnn {_import_wheel()}, boards {shown}"


def _require_sfpi(name):
    from bringup.backends import host, mock

    _, package = mock.wheel()
    if host.sfpi(package) is None:
        raise BadInput(
            f"the {name} backend compiles kernels, and there is no SFPI compiler",
            want=f"SFPI {mock.sfpi_version(package)} in /opt/tenstorrent/sfpi",
            hint="bringup doctor --backend " + name,
        )


def _require_wheel(name):
    if importlib.util.find_spec("ttnn") is None:
        raise BadInput(
            f"the {name} backend needs the ttnn wheel, and this Python has none",
            got=f"Python {sys.version_info[0]}.{sys.version_info[1]}, no ttnn package",
            hint="Python 3.10 or 3.12, pip install 'ttnn-bringup[ttnn]' (`make test-ttnn` makes such an environment); "
            "or --backend emulator",
        )


def _import_wheel():
    from importlib.metadata import version

    try:
        importlib.import_module("ttnn")
    except (ImportError, OSError, RuntimeError) as error:
        raise BringupError(
            f"the ttnn wheel does not import: {error}", hint="--backend emulator runs without it"
        ) from error
    return version("ttnn")


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Resolve `import ttnn.a.b` to what `ttnn.a.b` is on the emulator, so that no module of it is loaded twice."""

    def __init__(self, root):
        self.root = root

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith("ttnn.") or self._target(fullname) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def _target(self, fullname):
        tail = fullname.partition(".")[2]
        found = self.root
        for part in tail.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return None if callable(found) else found
        name = f"{self.root.__name__}.{tail}"
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "\0"):
                raise
            return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        # The import system hands out what stands in sys.modules once this returns.
        sys.modules[module.__name__] = self._target(module.__name__)


@contextmanager
def open_system(system, device_id=0, **options):
    """The open device (one chip) or mesh of `system`, closed again also when the body fails.

    `options` go to `open_device` or `open_mesh_device` (`trace_region_size`, `l1_small_size`, ...).
    """
    system = systems.get(system)
    if ACTIVE is None:
        raise BringupError("no backend is active", hint="call bringup.backends.activate() first")
    if ACTIVE.name == "mock":
        from bringup.backends import mock

        device = mock.open_system(system.name, **options)
        try:
            yield device
        finally:
            mock.close_system(system.name, device)
        return
    import ttnn

    if ACTIVE.name == "emulator":
        from ttnn_emulator import chips

        chips.use(system.name)
    if system.chips == 1:
        with _opening(f"device {device_id} of {system}"):
            device = ttnn.open_device(device_id=device_id, **options)
        try:
            yield device
        finally:
            ttnn.close_device(device)
        return
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, system.fabric))
    try:
        with _opening(system):
            mesh = ttnn.open_mesh_device(ttnn.MeshShape(*system.mesh_shape), **options)
        try:
            yield mesh
        finally:
            ttnn.close_mesh_device(mesh)
    finally:
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


@contextmanager
def _opening(what):
    """What the library says of a device that is not there, or of options that it cannot have."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        raise BadInput(f"cannot open {what}", got=str(error).strip().splitlines()[0]) from error


def memory(device):
    """Bytes per chip (the fullest one) as {"dram": {...}, "l1": {...}}, or None where the backend does not say.

    Keys: total, allocated, largest_free, and peak where it is known.
    """
    if hasattr(device, "memory"):
        return device.memory()
    import ttnn

    if not hasattr(ttnn, "get_memory_view"):
        return None
    found = {}
    for key, buffer_type in (("dram", ttnn.BufferType.DRAM), ("l1", ttnn.BufferType.L1)):
        view = ttnn.get_memory_view(device, buffer_type)
        found[key] = {
            "total": view.num_banks * view.total_bytes_per_bank,
            "allocated": view.num_banks * view.total_bytes_allocated_per_bank,
            "largest_free": view.num_banks * view.largest_contiguous_bytes_free_per_bank,
        }
    return found


class _TorchDevice(argparse.Action):
    """Kept in the environment, which processes that a command starts inherit."""

    def __call__(self, parser, namespace, value, option_string=None):
        os.environ[TORCH_DEVICE] = value
        setattr(namespace, self.dest, value)


def add_arguments(parser):
    """--backend, --numerics and --torch-device, the same on every command that runs a model."""
    parser.add_argument("--backend", choices=NAMES,
                        help="which ttnn (default: BRINGUP_BACKEND, then a board, then emulator)")  # fmt: skip
    parser.add_argument("--numerics", choices=("fast", "exact"), help="the emulator's numerics (default: fast)")
    parser.add_argument(
        "--torch-device",
        metavar="DEVICE",
        action=_TorchDevice,
        help=f"cpu, or a GPU for the emulator's arithmetic: cuda, cuda:1 (default: {TORCH_DEVICE}, then cpu)",
    )
