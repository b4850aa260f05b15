"""`bringup run` and `bringup pytest`: the program's own argv, output, exit code and traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import torch
import ttnn

print(__name__, sys.argv[1:], ttnn.__name__)
device = ttnn.open_device(device_id=0)
x = ttnn.from_torch(torch.ones(32, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
print(int(ttnn.to_torch(ttnn.add(x, x)).sum()))
ttnn.close_device(device)
if sys.argv[1] == "raise":
    raise KeyError("its own")
sys.exit(sys.argv[1])
"""


def bringup(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bringup.cli", *map(str, words)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_a_script_has_its_own_words_and_exit_code(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = bringup("run", "--log", "ops.json", "program.py", "why not", "--log", "its own", cwd=tmp_path)
    assert done.stdout.splitlines() == ["__main__ ['why not', '--log', 'its own'] ttnn_emulator", "4096"]
    assert done.returncode == 1  # sys.exit of a text
    assert "why not" in done.stderr
    assert "Traceback" not in done.stderr
    assert "ttnn: emulator" in done.stderr
    log = json.loads((tmp_path / "ops.json").read_text())
    assert [call["op"] for call in log["calls"]] == ["ttnn.from_torch", "ttnn.add", "ttnn.to_torch"]
    assert log["calls"][1]["line"].endswith("program.py:9")
    assert log["peak"]["dram"] == 2 * 12 * 2048  # two tensors, each a page in every bank
    assert {row["op"] for row in log["ops"]} == {"ttnn.from_torch", "ttnn.add", "ttnn.to_torch"}
    assert "ttnn.add" in done.stderr


def test_a_module_s_traceback_starts_at_its_own_first_line(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "program.py").write_text(PROGRAM)
    done = bringup("run", "package.program", "raise", cwd=tmp_path)
    assert done.returncode == 1
    trace = done.stderr[done.stderr.index("Traceback") :].splitlines()
    assert "program.py" in trace[1]
    assert trace[-1] == "KeyError: 'its own'"


def test_folders_of_its_own_that_are_called_as_ours(tmp_path):
    """A folder `tests` without __init__.py, as in the vendor's repository, and this project's clone on the path."""
    for name in ("tests", "models"):
        (tmp_path / name / "mine").mkdir(parents=True)
        (tmp_path / name / "mine" / "here.py").write_text(f"WHERE = {name!r}")
    program = "import ttnn\nfrom tests.mine.here import WHERE as a\nfrom models.mine.here import WHERE as b\n"
    (tmp_path / "program.py").write_text(program + "print(a, b)")
    assert bringup("run", "program.py", cwd=tmp_path).stdout == "tests models\n"
    (tmp_path / "test_mine.py").write_text(program + "def test_it():\n    assert (a, b) == ('tests', 'models')")
    done = bringup("pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_what_is_no_program_is_said(tmp_path):
    for name, words in (("nowhere.py", "no module that can be run"), ("a/b.py", "no such program")):
        done = bringup("run", name, cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert words in done.stderr


def test_pytest_files_find_a_ttnn(tmp_path):
    (tmp_path / "test_theirs.py").write_text(
        "import ttnn\n\ndef test_it():\n    assert ttnn.add\n\ndef test_fails():\n    assert 0\n"
    )
    done = bringup("pytest", "--system", "n300", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
