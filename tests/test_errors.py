"""What a user reads when something is wrong: one message, the right exit code, nothing that steers the terminal."""

import os
from pathlib import Path

import pytest

from bringup import arguments
from bringup.backends import model_files
from bringup.errors import BadInput, ModelFailed, blame, guarded, printable, shown


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BadInput("no", got=1, want=2, hint="3"), 2, "error: no\n  got    1\n  want   2\n  hint   3\n"),
        (BadInput("a \x1b[31mred\x1b[0m \u202eword"), 2, "error: a \\x1b[31mred\\x1b[0m \\u202eword\n"),
        (ModelFailed("model.py:1"), 1, "error: model.py:1\n"),
        (FileNotFoundError(2, "No such file", "a.txt"), 2, "error: a.txt: No such file\n"),
        (KeyError("x"), 1, "KeyError: 'x'\n  hint   BRINGUP_TRACEBACK=1"),
        (RecursionError("too deep"), 1, "RecursionError: too deep"),
        (SystemExit(0), 1, "it ends the process, with exit code 0, and there is no result"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_is_raised_is_told(capsys, monkeypatch, error, code, text):
    monkeypatch.delenv("BRINGUP_TRACEBACK", raising=False)
    assert guarded(raising, error) == code
    assert text in capsys.readouterr().err


def test_the_end_of_the_process_is_no_success(capsys):
    assert guarded(lambda: os._exit(0)) == 1
    assert "ends the process" in capsys.readouterr().err
    child = os.fork()
    if child == 0:
        os._exit(7)  # outside `guarded`, and of another process inside
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


LEAVES = ["import sys; sys.exit(0)", "import os; os._exit(0)", "quit()", "raise SystemExit", "exit('words')"]


@pytest.mark.parametrize("statement", LEAVES)
@pytest.mark.parametrize("place", ["", "def build_model(hf_model, tt_device, max_seq_len):\n    "])
def test_a_model_file_that_ends_the_process_has_failed(tmp_path, capsys, place, statement):
    path = tmp_path / "model.py"
    path.write_text(f"{place}{statement}\n")

    def run():
        model_files.build(model_files.load_model_file(path), None, None, 32)

    assert guarded(run) == 1
    assert f"model.py:{2 if place else 1}: SystemExit while " in capsys.readouterr().err


def test_long_lines_are_cut_and_paths_survive(tmp_path):
    assert len(str(BadInput("x" * 10**6))) < 1100
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert shown(loop).endswith("loop")
    assert shown("a\x07b\udcff") == "a\\x07b\\udcff"
    assert printable("Grüße, 世界\tund\n👩\u200d💻") == "Grüße, 世界\tund\n👩\u200d💻"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (arguments.positive, ["1", " 7 "], ["0", "-1", "", "1.5", "nan", "x", "1e3", "9" * 30]),
        (arguments.natural, ["0"], ["-1", "", "²"]),
        (arguments.users, ["1", "32"], ["0", "33"]),
        (arguments.seed, ["0", str(2**63 - 1)], ["-1", str(2**63), str(2**64)]),
        (arguments.number(0, 1000), ["0", "0.7"], ["-1", "nan", "inf", "x", ""]),
        (arguments.number(0, 1, low_itself=False), ["1", "1e-3"], ["0", "1.01", "-0"]),
        (arguments.name, ["a"], ["", "  ", "\udcff"]),
        (arguments.text, ["", "Grüße"], ["\udcff"]),
        (arguments.folder, ["", "~/x", "/x"], ["~nosuchuser/x"]),
    ],
)
def test_types_of_options(kind, good, bad):
    parser = arguments.Parser()
    parser.add_argument("--x", type=kind)
    for word in good:
        parser.parse_args([f"--x={word}"])
    for word in bad:
        with pytest.raises(SystemExit) as stop:
            parser.parse_args([f"--x={word}"])
        assert stop.value.code == 2


def test_a_folder_that_a_model_file_goes_into_is_left_again(tmp_path, monkeypatch):
    """Else a relative --json lands there, and weights that are read as they are used are not found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with blame("model.py", "building the model"):
        os.chdir("elsewhere")
    assert Path.cwd() == tmp_path
    (tmp_path / "model.py").write_text("import os; os.chdir('elsewhere')")
    model_files.import_file(tmp_path / "model.py")
    assert Path.cwd() == tmp_path
