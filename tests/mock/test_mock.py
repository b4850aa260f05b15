"""The mock cluster: what is made for it, and, where the wheel is, that the real library runs on it."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bringup.backends import clusters, mock, systems, verify
from bringup.errors import BringupError

ROOT = Path(__file__).parents[2]


def has_wheel():
    try:
        mock.wheel()
    except BringupError:
        return False
    return True


# `make test-ttnn` requires the wheel: there a test that lacks it fails.
needs_wheel = pytest.mark.skipif(
    not has_wheel() and not os.environ.get("BRINGUP_REQUIRE_TTNN"),
    reason="this Python has no ttnn wheel; `make test-ttnn` finds one that may",
)


def both_sides(plan, timeout=300):
    """The plan of `verify` on the library and on the emulator; neither holds a model's memory for it."""
    results = {side: verify.run_side(side, plan, timeout=timeout) for side in ("mock", "emulator")}
    assert {side: r["peak_rss_bytes"] for side, r in results.items() if r["peak_rss_bytes"] > 4 << 30} == {}
    return results


# What is made, on any Python


def test_elf_has_two_segments_and_the_sections_the_loader_asks_for():
    elf = mock.kernel_elf()
    assert elf[:7] == b"\x7fELF\1\1\1"
    kind, machine, _, entry, segments_at, sections_at, _, header, _, segments, size, sections, names_index = (
        struct.unpack_from("<HHIIIIIHHHHHH", elf, 16)
    )
    assert (kind, machine, entry, header, segments) == (2, 243, 0x5000, 52, 2)
    assert len(elf) == sections_at + size * sections
    loads = [struct.unpack_from("<8I", elf, segments_at + 32 * k) for k in range(segments)]
    assert [(load[0], load[2]) for load in loads] == [(1, 0x5000), (1, 0xFFB00000)]
    for _, offset, _, _, length, *_ in loads:
        assert offset + length <= sections_at
    rows = [struct.unpack_from("<10I", elf, sections_at + size * k) for k in range(sections)]
    text = elf[rows[names_index][4] :]
    named = {text[row[0] : text.index(b"\0", row[0])].decode(): row for row in rows}
    assert {".text", ".rela.text", ".data", ".symtab", ".strtab"} <= set(named)
    assert named[".rela.text"][1] == 4  # a relocation section, of .text, with the symbol table it refers to
    assert rows[named[".rela.text"][7]] is named[".text"]
    assert rows[named[".rela.text"][6]] is named[".symtab"]


@pytest.fixture
def compiler(tmp_path):
    script = tmp_path / "g++"
    script.write_text(mock.compiler_script("riscv-tt-elf-g++ (tenstorrent/sfpi:1.2.3[4]) 15.1.0"))
    script.chmod(0o755)

    def run(*arguments):
        return subprocess.run([script, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=True)

    return run


def test_compiler_stand_in_answers_the_version_probe(compiler):
    assert compiler("--version").stdout.strip() == "riscv-tt-elf-g++ (tenstorrent/sfpi:1.2.3[4]) 15.1.0"


def test_compiler_stand_in_compiles_and_links(compiler, tmp_path):
    compiler("-O3", "-DX='a b'", "-c", "-o", "dir name.o", "kernel.cc")
    assert (tmp_path / "dir name.o").read_bytes() == b""
    assert (tmp_path / "dir name.d").read_text() == "dir name.o:\n"
    compiler("-c", "-MF", "other.d", "-o", "k.o", "kernel.cc")
    assert (tmp_path / "other.d").read_text() == "k.o:\n"
    compiler("-Wl,--x", "-o", "k.elf", "k.o")
    assert (tmp_path / "k.elf").read_bytes() == mock.kernel_elf()
    assert not (tmp_path / "k.d").exists()


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_descriptor_links_every_neighbour_in_the_mesh(name):
    system = systems.SYSTEMS[name]
    cluster = clusters.cluster_of(system)
    links, boards = cluster.links, cluster.boards
    place = {chip: (x, y) for y, row in enumerate(system.chip_ids) for x, chip in enumerate(row)}
    assert len(place) == system.chips
    assert sorted(chip for board in boards for chip in board) == sorted(place)
    used = [(chip, channel) for pair in links for chip, channels in pair for channel in channels]
    assert len(used) == len(set(used)), "a channel is wired twice"
    joined = {frozenset((a, b)) for (a, _), (b, _) in links}
    near = {frozenset((a, b)) for a in place for b in place if _distance(place[a], place[b]) == 1}
    assert joined == near
    text = clusters.cluster_descriptor(name)
    assert text.count("chan:") == 2 * len(links) * (4 if name == "p150x4" else 2)  # of two ends each
    assert all(f"  - {chip}: {chip}\n" in text for chip in system.pcie_ids)


def _distance(a, b):
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def test_worker_rows_are_patched_for_n300_only():
    table = "\nunharvested:\n  end: [7, 6]\nnebula_x2:\n  row:\n    end: [7, 6]\n  col:\n    end: [7, 6]\n"
    assert mock._eight_rows(table, "x.yaml") == table.replace("row:\n    end: [7, 6]", "row:\n    end: [7, 7]")
    with pytest.raises(BringupError, match="table of worker cores"):
        mock._eight_rows("something: else\n", "x.yaml")


def test_without_a_wheel_the_message_names_the_pythons(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BringupError) as error:
        mock.wheel()
    assert "Python 3.10 or 3.12" in str(error.value)
    assert "ttnn-bringup[ttnn]" in str(error.value)


def test_a_child_that_is_killed_tells_its_last_call(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import json, os, signal\n"
        "json.dump({'op': 'ttnn.relu', 'call': 'ttnn.relu([1] bfloat16)', 'line': 'model.py:7'},"
        " open(os.environ['BRINGUP_JOURNAL'], 'w'))\n"
        "print('so far')\n"
        "import sys; sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    result = mock.run_child([script])
    assert result.died == "SIGSEGV"
    assert result.last_call["op"] == "ttnn.relu"
    assert "model.py:7" in result.describe()
    assert result.output == "so far\n"


def test_a_child_that_ends_by_itself(tmp_path):
    (tmp_path / "ends.py").write_text("raise SystemExit(3)")
    result = mock.run_child([tmp_path / "ends.py"])
    assert (result.code, result.died, result.last_call) == (3, None, None)


def test_a_child_that_takes_too_long(tmp_path):
    (tmp_path / "waits.py").write_text("import time; time.sleep(60)")
    with pytest.raises(BringupError, match="longer than 1 s"):
        mock.run_child([tmp_path / "waits.py"], timeout=1)


# The real library

SCRIPT = """
import json, sys
from bringup.backends import library_log, mock
name, body = sys.argv[1:]
mock.setup(name)
import torch, ttnn
device = mock.open_system(name)
try:
    def made(*shape, memory_config=ttnn.DRAM_MEMORY_CONFIG, dtype=ttnn.bfloat16):
        return ttnn.zeros(shape, dtype=dtype, layout=ttnn.TILE_LAYOUT, device=device, memory_config=memory_config)
    with library_log.record(device) as log:
        exec(body)
finally:
    mock.close_system(name, device)
print("RESULT", json.dumps({"records": log.records, "failed": log.failed, "result": globals().get("result")}))
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Run a few lines in a child on the real library; returns what it logged and its variable `result`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)

    def run(body, system="n150"):
        result = mock.run_child(["-c", SCRIPT, system, body], timeout=300)
        if result.died:
            return result
        assert result.code == 0, result.output
        line = next(line for line in result.output.splitlines() if line.startswith("RESULT "))
        return json.loads(line.removeprefix("RESULT "))

    return run


@needs_wheel
@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_ops_and_collectives_run_on_every_system(library, name):
    system = systems.SYSTEMS[name]
    body = "x = made(1, 1, 32, 512)\ny = ttnn.rms_norm(ttnn.silu(x))\n"
    body += "ttnn.all_gather(ttnn.all_reduce(y), 3)\n" if system.chips > 1 else ""
    body += """
grid = device.compute_with_storage_grid_size()
views = [ttnn.get_memory_view(device, k) for k in (ttnn.BufferType.DRAM, ttnn.BufferType.L1)]
result = [list(device.get_device_ids()), str(ttnn.cluster.get_cluster_type()), ttnn.get_arch_name(), grid.x, grid.y]
result += [n for v in views for n in (v.num_banks, v.total_bytes_per_bank)]
"""
    found = library(body, name)
    chip = system.chip
    assert found["result"] == [
        system.placed(system.mesh_shape), f"ClusterType.{system.cluster}", chip.name, *chip.grid,
        chip.dram.count, chip.dram.bytes, chip.l1.count, chip.l1.bytes,
    ]  # fmt: skip
    last = found["records"][-1]
    assert last["chips"] == system.chips
    assert last["outputs"][0]["shape"] == [1, 1, 32, 512 * system.chips]


@needs_wheel
def test_memory_in_the_log_is_the_allocators(library):
    found = library("""
views = []
def look():
    v = [ttnn.get_memory_view(device, k) for k in (ttnn.BufferType.DRAM, ttnn.BufferType.L1)]
    views.append([x.num_banks * x.total_bytes_allocated_per_bank for x in v])
kept = []
for shape in ((1, 1, 32, 64), (1, 1, 100, 33), (1, 8, 64, 128)):
    x = made(*shape); look()
    kept.append(ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG)); look()
    y = ttnn.reshape(x, (1, 1, 1, -1)); look()
    ttnn.deallocate(y); look()
    del x, y
result = views
""")
    logged = [[r["dram_bytes"], r["l1_bytes"]] for r in found["records"]]
    assert logged == found["result"]


@needs_wheel
def test_peaks_count_what_an_op_frees_again(library):
    # linear with an activation makes the product, then its activation, then frees the product.
    found = library("ttnn.linear(made(1, 1, 32, 384), made(384, 384), activation='silu')")
    product = 12 * 2048
    before, after = found["records"][-2], found["records"][-1]
    assert after["op"] == "ttnn.linear"
    assert after["dram_bytes"] - before["dram_bytes"] == product
    assert after["dram_peak"] - before["dram_bytes"] == 2 * product


@needs_wheel
def test_a_refused_call_is_kept_with_its_words(library):
    found = library("""
try:
    ttnn.linear(made(1, 1, 32, 64), made(96, 64))
except RuntimeError as error:
    result = str(error)
""")
    assert found["failed"]["op"] == "ttnn.linear"
    assert "width=64 height=96" in found["failed"]["error"]
    assert found["failed"]["call"] == ("ttnn.linear([1, 1, 32, 64] bfloat16 TILE DRAM, [96, 64] bfloat16 TILE DRAM)")


@needs_wheel
def test_an_op_on_a_freed_tensor_kills_the_process_and_is_told(library):
    died = library("x = made(1, 1, 32, 64)\nttnn.deallocate(x)\nttnn.relu(x)")
    assert died.died
    assert died.last_call["op"] == "ttnn.relu"


@needs_wheel
def test_everything_is_written_to_the_cache_and_temporary_folders(library, tmp_path, monkeypatch):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(), temporary.mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(temporary))
    library("ttnn.silu(made(1, 1, 32, 64))")
    assert {p.name for p in tmp_path.iterdir()} == {"home", "tmp"}
    assert [str(p.relative_to(home)) for p in (*home.iterdir(), *(home / ".cache").iterdir())] == [
        ".cache",
        ".cache/ttnn-bringup",
    ]
    assert not list(temporary.iterdir()), "temporary files are left behind"
    roots = list((home / ".cache/ttnn-bringup/mock").iterdir())
    assert len(roots) == 1
    note = roots[0] / "complete"
    made = note.stat().st_mtime_ns
    library("ttnn.silu(made(1, 1, 32, 64))")
    assert note.stat().st_mtime_ns == made, "the root was made again"
