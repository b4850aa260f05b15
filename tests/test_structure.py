"""The rooms of the house: what imports what, read from the source, imports inside functions included."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bringup.backends import systems

ROOT = Path(__file__).parents[1]
#: Each room of bringup may use those above it in this list, and itself.
ROOMS = ("errors", "arguments", "files", "console", "spread", "checkpoints", "blocks", "backends", "new", "planning",
         "programs", "evaluation", "report", "checks", "tuning", "bench", "cli")  # fmt: skip
MOST_LINES = 450


def modules(package):
    """Module name -> its path."""
    return {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for p in sorted((ROOT / package).rglob("*.py"))
    }


def imported(name, path, known, inside_functions):
    """The modules of `known` that a module imports."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside_functions else _on_import(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for _ in range(node.level - 1):
                base = base.rpartition(".")[0]
            base = ".".join(filter(None, (base if node.level else "", node.module)))
            for alias in node.names:
                found = f"{base}.{alias.name}"
                yield from (m for m in (found if found in known else base,) if m in known and m != name)


def _on_import(node):
    """The statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _on_import(child)


@pytest.mark.parametrize(("package", "inside_functions"), [("bringup", True), ("ttnn_emulator", False)])
def test_no_circles(package, inside_functions):
    known = modules(package)
    graph = {name: set(imported(name, path, known, inside_functions)) for name, path in known.items()}
    if not inside_functions:  # a package's __init__ collects what its modules define; they are imported through it
        graph = {n: {m for m in ms if known[m].name != "__init__.py"} for n, ms in graph.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the modules


def test_no_arrow_runs_upwards():
    known = modules("bringup")
    rank = {room: i for i, room in enumerate(ROOMS)}
    wrong = []
    for name, path in known.items():
        room = name.split(".")[1] if "." in name else None
        for target in imported(name, path, known, True):
            if room and "." in target and rank[target.split(".")[1]] > rank[room]:
                wrong.append(f"{name} -> {target}")
    assert not wrong


def test_every_room_is_in_the_list():
    assert {name.split(".")[1] for name in modules("bringup") if "." in name} == set(ROOMS)


def test_the_emulator_imports_nothing_of_bringup():
    everything = modules("ttnn_emulator") | modules("bringup")
    for name, path in modules("ttnn_emulator").items():
        assert not [m for m in imported(name, path, everything, True) if m.startswith("bringup")], name


@pytest.mark.parametrize("package", ["bringup", "ttnn_emulator"])
def test_no_file_is_longer_than_one_reads(package):
    lines = {name: len(path.read_text().splitlines()) for name, path in modules(package).items()}
    assert not {name: n for name, n in lines.items() if n > MOST_LINES}


#: Where a chip may be asked for by its name: its description, the library's own questions (`is_wormhole_b0` and
#: `is_blackhole`), and what speaks with the library or a board on a machine that is there.
MAY_ASK = ("ttnn_emulator.chips", "ttnn_emulator.library.device", "bringup.backends.clusters", "bringup.backends.mock",
           "bringup.backends.doctor", "bringup.backends.host")  # fmt: skip


@pytest.mark.parametrize("package", ["ttnn_emulator", "bringup"])
def test_only_descriptions_of_chips_name_one(package):
    """What depends on the chip is a field of its description: no other file knows a chip by name, or compares a
    system's name with one that it knows."""
    chips = {"wormhole_b0", "blackhole", "WORMHOLE_B0", "BLACKHOLE", "Wormhole", "Blackhole"}
    asks = []
    for name, path in modules(package).items():
        if not name.startswith(MAY_ASK):
            for node in ast.walk(ast.parse(path.read_text())):
                known = (isinstance(node, ast.Constant) and node.value in chips) or (
                    isinstance(node, ast.Attribute) and node.attr in chips
                )
                if isinstance(node, ast.Compare):
                    told = {c.value for part in ast.walk(node) if isinstance(c := part, ast.Constant)}
                    known = bool(told & {*systems.NAMES})
                asks += [f"{name}:{node.lineno}"] if known else []
    assert not asks
