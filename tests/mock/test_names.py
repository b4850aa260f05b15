"""Every public name of the library, walked in the library itself, is here, or says what to use in its place."""

import json
import subprocess
import sys

from bringup import backends
from tests.mock.test_mock import ROOT, needs_wheel
from ttnn_emulator import NotEmulated

WALK = """
import enum, json, sys, types
from bringup.backends import mock

mock.setup("n300")
import ttnn

seen, found = set(), {}


def walk(path, module):
    seen.add(id(module))
    for name in sorted(n for n in dir(module) if not n.startswith("_") or n == "_ttnn"):
        thing = getattr(module, name, None)
        full = path + "." + name
        found[full] = None
        if isinstance(thing, types.ModuleType):
            if thing.__name__.startswith("ttnn") and id(thing) not in seen:
                walk(full, thing)
        elif isinstance(thing, enum.EnumMeta):
            found[full] = {n: int(m.value) for n, m in thing.__members__.items() if isinstance(m.value, int)}
        elif isinstance(thing, type) and thing.__module__.startswith("ttnn"):
            found.update({full + "." + n: None for n in dir(thing) if not n.startswith("_")})


walk("ttnn", ttnn)
json.dump(found, open(sys.argv[1], "w"))
"""
#: Fields that instances of ours have and their classes do not.
CONFIGS = ("Config.", "Tensor.spec", "TensorToMesh.config", "Device.shape")


def answer(path: str):
    """What the emulator has at a path of the library, or NotEmulated."""
    thing = sys.modules["ttnn"]
    for part in path.split(".")[1:]:
        thing = getattr(thing, part)
    return thing


@needs_wheel
def test_every_name_of_the_library_is_here_or_not_emulated(tmp_path):
    record = tmp_path / "names.json"
    walk = subprocess.run([sys.executable, "-c", WALK, record], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert record.exists(), walk.stderr[-2000:]
    library = json.loads(record.read_text())
    assert len(library) > 7000
    backends.activate("emulator")
    unknown, other = [], []
    for path, members in library.items():
        try:
            mine = answer(path)
        except NotEmulated as error:
            assert "has no model" in str(error) or "imports it" in str(error)  # noqa: PT017
            continue
        except AttributeError:
            if not any(part in path for part in CONFIGS):
                unknown.append(path)
            continue
        if members and isinstance(getattr(mine, "__members__", None), dict | type(type.__dict__)):
            values = {n: m.value for n, m in mine.__members__.items()}
            other += [f"{path}.{n}" for n, v in members.items() if values.get(n) != v]
    assert not unknown, "\n".join(unknown)
    assert not other, "\n".join(other)
