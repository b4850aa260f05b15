"""`bringup doctor` on made-up machines: what it finds, what it says to do, and its exit code."""

import json
import re

import pytest

from bringup import cli
from bringup.backends import doctor, host, mock
from bringup.checkpoints import hub
from bringup.errors import BringupError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing of Tenstorrent's; its root folder, to put things in."""
    monkeypatch.setattr(host, "ROOT", tmp_path)
    for name in ("TT_VISIBLE_DEVICES", "TT_METAL_SIMULATOR", "BRINGUP_BACKEND", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home/hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/cache"))
    monkeypatch.setattr(mock, "wheel", no_wheel)
    monkeypatch.setattr(hub, "require_hub", lambda seconds: None)
    (tmp_path / "home").mkdir()
    return tmp_path


def no_wheel():
    raise BringupError("no ttnn package", hint="pip install 'ttnn-bringup[ttnn]'")


def put(root, **files):
    for path, text in files.items():
        path = root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def plug(root, *types):
    """Boards with their driver and huge pages."""
    put(root, **{"sys/module/tenstorrent/version": "2.3.0\n"})
    pages = "sys/kernel/mm/hugepages/hugepages-1048576kB"
    put(root, **{f"{pages}/nr_hugepages": f"{len(types)}\n", f"{pages}/free_hugepages": "0\n"})
    for n, kind in enumerate(types):
        put(root, **{f"dev/tenstorrent/{n}": "", f"sys/class/tenstorrent/tenstorrent!{n}/tt_card_type": kind + "\n"})


def install(root, monkeypatch):
    """A wheel with its compiler, on a Python that it is made for."""
    package = root / "site-packages/ttnn"
    put(package, **{"tt_metal/sfpi-version": "sfpi_version='7.1.0'\nsfpi_build='5'\n", f"runtime/sfpi/{host.SFPI}": ""})
    monkeypatch.setattr(mock, "wheel", lambda: ("0.81.1", package))
    monkeypatch.setattr(doctor.sys, "version_info", (3, 12, 1))


def examine(capsys, *options):
    """{name: check}, exit code, and what people read."""
    code = cli.main(["doctor", "--json", *options])
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] == (code == 0)
    cli.main(["doctor", *options])
    return {c["name"]: c for c in found["checks"]}, code, capsys.readouterr().out


def test_the_emulator_needs_no_board(machine, capsys):
    checks, code, text = examine(capsys, "--backend", "emulator")
    assert code == 0
    assert {checks[n]["state"] for n in ("board", "driver", "SFPI", "ttnn wheel", "huge pages")} == {"absent"}
    assert text.rstrip().endswith("emulator: ready")
    assert not list((machine / "home").iterdir()), "it only looks"


def test_a_bare_machine_lacks_what_silicon_needs(machine, capsys):
    checks, code, text = examine(capsys, "--backend", "silicon", "--system", "t3000")
    assert code == 1
    missing = {name for name, c in checks.items() if c["state"] == "missing"}
    assert missing >= {"ttnn wheel", "SFPI", "board", "driver", "huge pages", "mesh"}
    assert all(checks[name]["mend"] for name in missing)
    assert "pip install 'ttnn-bringup[ttnn]'" in text
    assert re.search(r"^silicon: missing .*board", text, re.MULTILINE)


def test_a_complete_machine_is_ready(machine, capsys, monkeypatch):
    install(machine, monkeypatch)
    plug(machine, "n300", "n300", "n300", "n300")
    checks, code, _ = examine(capsys, "--backend", "silicon", "--system", "t3000")
    assert code == 0, [c for c in checks.values() if c["state"] == "missing"]
    assert checks["mesh"]["found"].startswith("8 chips on 4 boards")
    assert checks["SFPI"]["found"].endswith("the wheel wants 7.1.0[5]")
    assert checks["driver"]["found"] == "tt-kmd 2.3.0"


def test_the_mesh_found_is_held_against_the_mesh_wanted(machine, capsys, monkeypatch):
    install(machine, monkeypatch)
    plug(machine, "n300", "n150")
    checks, code, _ = examine(capsys, "--backend", "silicon", "--system", "t3000")
    assert (checks["mesh"]["state"], code) == ("missing", 1)
    assert "3 chips on 2 boards" in checks["mesh"]["found"]
    assert "--system n300" in checks["mesh"]["mend"]
    assert examine(capsys, "--backend", "silicon", "--system", "n300")[1] == 0
    monkeypatch.setenv("TT_VISIBLE_DEVICES", "1")
    checks, code, _ = examine(capsys, "--backend", "silicon", "--system", "n300")
    assert (checks["mesh"]["state"], code) == ("missing", 1)
    assert "TT_VISIBLE_DEVICES=1 hides 1" in checks["board"]["found"]


def test_a_board_without_its_driver(machine, capsys):
    put(machine, **{"sys/bus/pci/devices/0000:01:00.0/vendor": host.VENDOR + "\n"})
    checks, _, _ = examine(capsys, "--backend", "silicon")
    assert "1 on the PCI bus" in checks["board"]["found"]
    assert "tt-kmd" in checks["board"]["mend"]


def test_a_python_that_the_wheel_is_not_made_for(machine, capsys, monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 11, 7))
    assert examine(capsys, "--backend", "emulator")[0]["Python"]["state"] == "ok"
    checks, code, _ = examine(capsys, "--backend", "mock")
    assert (checks["Python"]["state"], code) == ("missing", 1)
    assert "3.10 or 3.12" in checks["Python"]["mend"]


def test_the_simulator_is_one_chip_with_a_library(machine, capsys, monkeypatch):
    install(machine, monkeypatch)
    assert examine(capsys, "--backend", "simulator")[0]["libttsim"]["state"] == "missing"
    put(machine, **{"libttsim.so": ""})
    monkeypatch.setenv("TT_METAL_SIMULATOR", str(machine / "libttsim.so"))
    assert examine(capsys, "--backend", "simulator", "--system", "n150")[1] == 0
    assert examine(capsys, "--backend", "simulator", "--system", "n300")[0]["mesh"]["state"] == "missing"


def test_disks_and_caches(machine, capsys, monkeypatch):
    class Usage:
        free = 2**30

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    checks, code, _ = examine(capsys)
    assert code == 1
    assert checks["cache disk"]["state"] == checks["HF cache"]["state"] == "missing"
    assert checks["HF cache disk"]["state"] == "absent", "the hub's checkpoints are not needed"
    assert str(machine / "home/hf/hub") in checks["HF cache"]["found"]


def test_the_hub_is_asked_briefly_and_can_be_left_out(machine, capsys, monkeypatch):
    asked = []

    def unreachable(seconds):
        asked.append(seconds)
        raise OSError("no route")

    monkeypatch.setattr(hub, "require_hub", unreachable)
    checks, code, _ = examine(capsys)
    assert (checks["hub"]["state"], code) == ("absent", 0)
    assert "no route" in checks["hub"]["found"]
    assert max(asked) <= 5
    asked.clear()
    examine(capsys, "--offline")
    assert not asked


def test_long_lines_wrap_under_their_column():
    lines = doctor.table([doctor.Check("SFPI", "missing", "word " * 30, "mend " * 30)], width=60)
    assert len(lines) > 4
    assert all(len(line) <= 60 for line in lines)
    assert all(line.startswith(" " * 13) for line in lines[1:])


def test_products_are_named_with_their_reason(machine, monkeypatch):
    from ttnn_emulator.numerics import product

    monkeypatch.setattr(product, "choice", lambda: ("fp32", "AVX2 without bf16 units"))
    found = next(c for c in doctor.examine("emulator", "asked for") if c.name == "products")
    assert (found.state, found.found) == ("ok", "fp32: AVX2 without bf16 units; TTNN_EMULATOR_PRODUCT overrides it")


def test_a_wrong_way_of_products_is_missing(machine, monkeypatch):
    from ttnn_emulator.numerics import product

    monkeypatch.setattr(product, "choice", product.choice.__wrapped__)
    monkeypatch.setenv(product.VARIABLE, "int4")
    found = next(c for c in doctor.examine("emulator", "asked for") if c.name == "products")
    assert found.state == "missing"
    assert "int4" in found.found
    assert found.mend == "unset TTNN_EMULATOR_PRODUCT"
