"""A file is there whole or not at all, and leaves nothing beside it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bringup import files
from bringup.errors import BadInput
from bringup.files import writable, written_whole

BRINGUP = Path(files.__file__).parent


def test_what_is_interrupted_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "note.txt"
    with written_whole(path) as partial:
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert [p.read_text() for p in path.parent.iterdir()] == ["first"]


def interrupted(path):
    with written_whole(path) as partial:
        partial.write_text("sec")
        raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    taken = tmp_path / "note.txt"
    taken.write_text("")
    assert writable(None) is None
    assert writable(tmp_path / "new" / "a.json").parent.is_dir()
    assert writable(tmp_path / "folder", folder=True).is_dir()
    for path, folder in [(taken / "a.json", False), (taken, True), (tmp_path, False)]:
        with pytest.raises(BadInput, match="cannot write"):
            writable(path, folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_is_bad_input_and_nothing_is_lost(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="cannot write /dev/full\n.*No space left"):
        files.write("/dev/full", "text")
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BadInput, match="No space left"):
        files.write_json(path, {"a": float("nan")})
    assert [p.read_text() for p in tmp_path.iterdir()] == [before]


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path):
    (tmp_path / "there").mkdir()
    kept, link = tmp_path / "there" / "kept.txt", tmp_path / "link.txt"
    kept.write_text("before")
    kept.chmod(0o640)
    link.symlink_to(kept)
    files.write(link, "after \udcff")
    assert link.is_symlink()
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("after \\udcff", 0o640)
    assert len(list(kept.parent.iterdir())) == 1


def test_a_pipe_is_written_as_it_is():
    code = "from bringup.files import write; print('first', flush=True); write('/dev/stdout', 'second')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=BRINGUP.parent, check=True)
    assert done.stdout == "first\nsecond"


def test_several_files_are_all_there_or_none(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("before")
    contents = {kept: "after", tmp_path / "a" / "b" / "new.txt": "text", tmp_path / "kept.txt" / "below": "no folder"}
    with pytest.raises(BadInput, match="cannot write"):
        files.write_all(contents)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("kept.txt", "before")]
    assert files.write_all({kept: "after", tmp_path / "a" / "new.txt": "text"}) == [kept, tmp_path / "a" / "new.txt"]


def test_what_is_killed_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "before")
    code = """
import os, signal, sys
from bringup.files import written_whole
with written_whole(sys.argv[1]) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=BRINGUP.parent, check=False)
    assert done.returncode == -9
    assert path.read_text() == "before"


WRITES = ("write_text", "write_bytes", "savefig", "save_file", "save_pretrained", "dump", "tofile")
#: What runs in a folder of its own that nobody else reads: the mock cluster's set-up, and answers of child processes.
PRIVATE = {"backends/mock.py", "backends/verify.py", "backends/library_log.py", "bench/command.py"}
PRIVATE |= {"bench/parts.py", "checkpoints/dequantised.py"}


def test_nothing_is_written_but_through_files():
    """Calls that write a file in place, by name; `partial` is what `written_whole` yields."""
    found = []
    for path in sorted(BRINGUP.rglob("*.py")):
        name = path.relative_to(BRINGUP).as_posix()
        if name == "files.py" or name in PRIVATE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            text = ast.unparse(node)
            called = text.partition("(")[0].rpartition(".")[2]
            writes = called in WRITES
            if called == "open" and any(f"'{mode}" in text for mode in "wax"):
                writes = True
            if writes and "partial" not in text and "(out, format='svg'" not in text:
                found.append(f"{name}: {text[:80]}")
    assert not found


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_output_that_cannot_be_written_is_said():
    code = "from bringup.errors import guarded; import sys; sys.exit(guarded(print, 'a figure'))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                              cwd=BRINGUP.parent, env=os.environ)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("name", ["model.py", "model.safetensors", "config.json", "tokenizer_config.json", "a.gguf"])
def test_a_result_does_not_go_over_a_program_or_a_checkpoint(tmp_path, name):
    from bringup import files
    from bringup.errors import BadInput

    (tmp_path / name).write_text("whole")
    with pytest.raises(BadInput, match="a program, or a file of a checkpoint"):
        files.writable(tmp_path / name)
    assert (tmp_path / name).read_text() == "whole"
    (tmp_path / "result.json").write_text("{}")
    assert files.writable(tmp_path / "result.json").exists()
