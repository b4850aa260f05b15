"""Which ttnn a process gets, and that devices are closed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bringup import backends
from bringup.backends import choice, systems
from bringup.errors import BadInput, BringupError


def python(code, **env):
    environment = {k: v for k, v in os.environ.items() if k != "BRINGUP_BACKEND"} | env
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


# -- the choice -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_board(monkeypatch):
    monkeypatch.delenv("BRINGUP_BACKEND", raising=False)
    monkeypatch.setattr(choice.glob, "glob", lambda pattern: [])


@pytest.fixture
def board(no_board, monkeypatch):
    monkeypatch.setattr(choice.glob, "glob", lambda pattern: ["/dev/tenstorrent/0"])
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: object())


def test_without_a_board_the_emulator(no_board):
    assert backends.choose() == ("emulator", "no /dev/tenstorrent")


def test_with_a_board_silicon(board):
    assert backends.choose() == ("silicon", "/dev/tenstorrent")


def test_a_board_without_the_wheel(board, monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    name, reason = backends.choose()
    assert name == "emulator"
    assert "no ttnn package" in reason


def test_the_environment_is_heard_and_the_argument_first(board, monkeypatch):
    monkeypatch.setenv("BRINGUP_BACKEND", "mock")
    assert backends.choose() == ("mock", "BRINGUP_BACKEND")
    assert backends.choose("emulator") == ("emulator", "as asked")


def test_unknown_backends_are_refused(no_board, monkeypatch):
    with pytest.raises(BadInput, match="(?s)'cuda'.*silicon, emulator, mock, simulator"):
        backends.choose("cuda")
    monkeypatch.setenv("BRINGUP_BACKEND", "cuda")
    with pytest.raises(BadInput, match="BRINGUP_BACKEND"):
        backends.choose()


# -- the emulator as ttnn ---------------------------------------------------------------------------------------------


def test_the_line_says_which_and_why():
    done = python("from bringup import backends; print(backends.activate('emulator'))")
    assert done.stdout.startswith("ttnn: emulator (as asked; ttnn_emulator "), done.stderr
    assert done.stdout.rstrip().endswith("fast numerics)")


def test_numerics_are_chosen_and_said():
    done = python("from bringup import backends; print(backends.activate('emulator', numerics='exact'))")
    assert "exact numerics" in done.stdout, done.stderr


def test_submodules_are_the_emulators_own():
    code = """
from bringup import backends
backends.activate("emulator")
import ttnn, ttnn_emulator
import ttnn.experimental
import ttnn.transformer as transformer
from ttnn.experimental import paged_update_cache
assert ttnn is ttnn_emulator
assert ttnn.experimental is ttnn_emulator.experimental
assert transformer is ttnn_emulator.transformer
assert paged_update_cache is ttnn_emulator.experimental.paged_update_cache
try:
    import ttnn.no_such_thing
except ModuleNotFoundError as error:
    print(error)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "ttnn.no_such_thing" in done.stdout


def test_no_module_is_loaded_twice():
    code = """
import sys
from bringup import backends
backends.activate("emulator")
import ttnn.device, ttnn_emulator.device
assert ttnn.device is ttnn_emulator.device
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_it_is_decided_once():
    code = """
from bringup import backends
from bringup.errors import BringupError
a = backends.activate("emulator")
assert backends.activate() is a and backends.activate("emulator") is a
try:
    backends.activate("silicon")
except BringupError as error:
    print(error)
"""
    done = python(code)
    assert "once per process" in done.stdout, done.stderr


def test_a_ttnn_that_was_there_first_is_not_replaced():
    code = """
import sys, types
sys.modules["ttnn"] = types.ModuleType("ttnn")
from bringup import backends
from bringup.errors import BringupError
try:
    backends.activate("emulator")
except BringupError as error:
    print(error)
"""
    assert "imported before a backend was chosen" in python(code).stdout


def test_the_simulator_needs_its_library():
    with pytest.raises(BadInput, match="libttsim"):
        choice._simulator(systems.get("n150"))


# -- devices ----------------------------------------------------------------------------------------------------------


class FakeTTNN(SimpleNamespace):
    """Writes down what is opened and closed."""

    def __init__(self):
        super().__init__(calls=[], FabricConfig=SimpleNamespace(FABRIC_1D="1D", FABRIC_2D="2D", DISABLED="off"))

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, *args, *kwargs.items()))
            return args if name == "MeshShape" else name

        return call


@pytest.fixture
def ttnn(monkeypatch):
    fake = FakeTTNN()
    monkeypatch.setitem(sys.modules, "ttnn", fake)
    monkeypatch.setattr(choice, "ACTIVE", backends.Activation("emulator", "test", "fake"))
    return fake


@pytest.mark.parametrize("fails", [False, True])
def test_one_chip_is_closed_again(ttnn, fails):
    try:
        with backends.open_system("n150", device_id=3):
            assert not fails
    except AssertionError:
        pass
    assert ttnn.calls == [("open_device", ("device_id", 3)), ("close_device", "open_device")]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("name", "shape", "fabric"), [("n300", (1, 2), "1D"), ("t3000", (2, 4), "2D"), ("t3000_1x8", (1, 8), "1D")]
)
def test_a_mesh_is_closed_again_and_its_fabric_disabled(ttnn, name, shape, fabric, fails):
    try:
        with backends.open_system(name):
            assert not fails
    except AssertionError:
        pass
    assert ttnn.calls == [
        ("set_fabric_config", fabric),
        ("MeshShape", *shape),
        ("open_mesh_device", shape),
        ("close_mesh_device", "open_mesh_device"),
        ("set_fabric_config", "off"),
    ]


def test_a_device_needs_a_backend(monkeypatch):
    monkeypatch.setattr(choice, "ACTIVE", None)
    with pytest.raises(BringupError, match="no backend is active"), backends.open_system("n150"):
        pass


# -- systems ----------------------------------------------------------------------------------------------------------


def test_systems():
    assert tuple(systems.SYSTEMS) == systems.NAMES
    chips = {s.name: s.chips for s in systems.SYSTEMS.values() if s.chips > 1}
    assert chips == {
        "n300": 2, "t3000": 8, "t3000_1x8": 8, "p300": 2, "p300x2": 4, "p300x2_2x2": 4, "p150x4": 4, "p150x8": 8
    }  # fmt: skip
    for system in systems.SYSTEMS.values():
        assert system.chip.cores == system.chip.l1.count
        columns, rows = system.chip.grid
        assert sorted(system.chip.core_of_bank) == [(x, y) for x in range(columns) for y in range(rows)]
        assert system.chip.l1.base + system.chip.l1.bytes == system.chip.l1_end
    assert systems.get("n150").chip.dram_bytes == 12 * 1_072_693_184


def test_systems_of_the_same_chips():
    assert systems.alike("n300") == ["n150", "n300", "t3000"]
    assert systems.alike("p150x8") == ["p150", "p300", "p300x2"]


def test_an_unknown_system_names_the_known():
    with pytest.raises(BadInput, match="(?s)'p250'.*n150, n300, t3000"):
        systems.get("p250")


# -- a board and the simulator, up to where hardware would be touched --------------------------------------------------


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """A process with a fake wheel, a fake machine, and no backend yet; the fake and the machine's root."""
    from bringup.backends import host, mock

    fake = FakeTTNN()
    package = tmp_path / "ttnn"
    (package / "tt_metal").mkdir(parents=True)
    (package / "tt_metal/sfpi-version").write_text("sfpi_version='1.0'\nsfpi_build='2'\n")
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setattr(mock, "wheel", lambda: ("0.81.1", package))
    monkeypatch.setattr(choice, "ACTIVE", None)
    monkeypatch.setattr(choice, "_require_wheel", lambda name: None)

    def imported():
        monkeypatch.setitem(sys.modules, "ttnn", fake)
        return "0.81.1"

    monkeypatch.setattr(choice, "_import_wheel", imported)
    monkeypatch.delitem(sys.modules, "ttnn", raising=False)
    for name in ("TT_VISIBLE_DEVICES", "TT_METAL_SIMULATOR", "TT_METAL_SLOW_DISPATCH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return SimpleNamespace(calls=fake.calls, root=tmp_path)


def plug(root, *types):
    for n, kind in enumerate(types):
        for path, text in ((f"dev/tenstorrent/{n}", ""), (f"sys/class/tenstorrent/tenstorrent!{n}/tt_card_type", kind)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)


@pytest.mark.parametrize("fails", [False, True])
def test_silicon_opens_the_mesh_of_the_system_and_closes_it(wheel, fails):
    plug(wheel.root, *["n300"] * 4)
    active = backends.activate("silicon", "t3000")
    assert "0: n300" in str(active)
    assert not active.emulated
    try:
        with backends.open_system("t3000", trace_region_size=8):
            assert not fails
    except AssertionError:
        pass
    assert wheel.calls == [
        ("set_fabric_config", "2D"),
        ("MeshShape", 2, 4),
        ("open_mesh_device", (2, 4), ("trace_region_size", 8)),
        ("close_mesh_device", "open_mesh_device"),
        ("set_fabric_config", "off"),
    ]


def test_a_fabric_is_reset_also_when_the_mesh_does_not_open_or_close(wheel, monkeypatch):
    plug(wheel.root, "n300")
    backends.activate("silicon", "n300")

    def broken(*args, **kwargs):
        raise RuntimeError("broken")

    for name in ("open_mesh_device", "close_mesh_device"):
        wheel.calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["ttnn"], name, broken, raising=False)
            with pytest.raises((RuntimeError, BadInput), match="broken"), backends.open_system("n300"):
                pass
        assert wheel.calls[-1] == ("set_fabric_config", "off")


def test_silicon_counts_the_visible_chips(wheel, monkeypatch):
    plug(wheel.root, "n300", "n150")
    monkeypatch.setenv("TT_VISIBLE_DEVICES", "1")
    with pytest.raises(BadInput, match=r"(?s)n300.*1 on boards 1: n150 \(TT_VISIBLE_DEVICES=1\).*bringup doctor"):
        backends.activate("silicon", "n300")
    assert "TT_VISIBLE_DEVICES=1" in str(backends.activate("silicon", "n150"))
    assert not wheel.calls, "nothing is opened before it is asked for"


def test_the_simulator_dispatches_slowly_on_one_chip(wheel, monkeypatch):
    library = wheel.root / "libttsim.so"
    library.write_text("")
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(library))
    monkeypatch.setenv("TT_METAL_SLOW_DISPATCH_MODE", "1")  # so that it is taken back afterwards
    del os.environ["TT_METAL_SLOW_DISPATCH_MODE"]
    with pytest.raises(BadInput, match=r"(?s)one chip.*n300.*--system n150"):
        backends.activate("simulator", "n300")
    with pytest.raises(BadInput, match=r"SFPI 1.0\[2\]"):
        backends.activate("simulator", "n150")
    compiler = wheel.root / "opt/tenstorrent/sfpi/compiler/bin/riscv-tt-elf-g++"
    compiler.parent.mkdir(parents=True)
    compiler.write_text("")
    assert str(library) in str(backends.activate("simulator", "n150"))
    assert os.environ["TT_METAL_SLOW_DISPATCH_MODE"] == "1"
    with backends.open_system("n150"):
        pass
    assert wheel.calls == [("open_device", ("device_id", 0)), ("close_device", "open_device")]
