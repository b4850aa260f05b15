"""The commands as a user runs them: subprocesses, their exit codes, and what they say. No traceback, ever."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bringup import cli
from bringup.checks import command
from bringup.errors import BadInput, guarded, shown
from tests.evaluation import tiny

ROOT = Path(__file__).resolve().parents[2]
WRAPPED = tiny.FILES / "wrapped_hf.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, prompt ids and a cache of references, shared by the module."""
    folder = tmp_path_factory.mktemp("cli")
    tiny.save(folder / "checkpoint")
    (folder / "ids.txt").write_text("1, 17, 33, 200, 5")
    (folder / "bad_ids.txt").write_text("1 2 x")
    (folder / "far_ids.txt").write_text("1 2 9999")
    return folder


def call(*args, **env):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env
    environment.pop("BRINGUP_BACKEND", None)
    words = [sys.executable, *map(str, args)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=300)


def options(folder):
    return ["--model", folder / "checkpoint", "--prompt_ids_file", folder / "ids.txt", "--cache_dir", folder / "cache"]


@pytest.mark.parametrize(
    "script", ["eval.py", "demo.py", "scripts/run_eval.py", "-mbringup.cli", "-mbringup.cli bench"]
)
def test_help(script):
    done = call(*script.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("module", ["eval", "demo", "bringup.evaluation.run_eval", *cli.COMMANDS.values()])
def test_help_imports_nothing_heavy_and_answers_at_once(module):
    code = f"import argparse, sys, time, {module} as m\nf = getattr(m, 'add_arguments', None)\n"
    code += "f and f(argparse.ArgumentParser())\n"
    heavy = "sorted({'torch', 'transformers', 'numpy', 'rich', 'matplotlib', 'ttnn_emulator'} & set(sys.modules))"
    done = call("-c", code + f"print({heavy}, time.process_time() < 0.5)")
    assert done.stdout.strip() == "[] True", done.stderr


def test_eval_prints_the_figures_and_writes_them(folder):
    args = ["eval.py", WRAPPED, *options(folder), "--max_new_tokens", 8, "--json", folder / "out" / "result.json"]
    done = call(*args)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ttnn: emulator (")
    assert "Top-1 accuracy: 100.00% (1.0000)" in lines
    assert "Top-5 accuracy: 100.00% (1.0000)" in lines
    assert "DRAM per chip" in done.stdout
    last = json.loads(lines[-1])
    assert (last["top1"], last["n"], last["system"], last["prompt_tokens"]) == (1.0, 8, "n150", 5)
    kept = json.loads((folder / "out" / "result.json").read_text())
    assert len(kept.pop("positions")) == len(kept["bf16"].pop("positions")) == 8
    assert kept == last
    assert last["bf16"]["rel_l2"] == pytest.approx(last["rel_l2"], rel=0.3)  # this device is HF in bf16
    assert last["peak_rss_bytes"] > 1 << 27
    again = call(*args)
    assert json.loads(again.stdout.splitlines()[-1])["reference"]["cached"] is True
    assert "from the cache" in again.stdout


def test_prompt_through_decode(folder):
    done = call("eval.py", WRAPPED, *options(folder), "--max_new_tokens", 4, "--prefill_decode")
    assert "Top-1 accuracy: 100.00% (1.0000)" in done.stdout, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["prefill"] == "token by token"


def test_demo_streams_and_says_that_its_times_are_emulated(folder):
    places = ["--out", folder / "demo", "--json", folder / "demo.json"]
    done = call("demo.py", WRAPPED, *options(folder), "--max_new_tokens", 6, "--eval", *places)
    assert done.returncode == 0, done.stderr
    assert re.search(r"TTFT \d+ ms, [\d.]+ t/s/u \(emulated", done.stdout)
    assert "the first 6 of 6 tokens are the HF model's own" in done.stdout
    rows = {line[:11].strip(): line[11:] for line in done.stdout.splitlines() if line[10:11] == " "}
    assert rows["accuracy"].startswith("top-1 100.0 %")
    assert rows["next"] == f"bringup check {shown(WRAPPED)} --model {folder / 'checkpoint'}"
    assert len(json.loads((folder / "demo.json").read_text())["token_ids"]) == 6
    assert json.loads((folder / "demo" / "check.json").read_text())["accuracy"]["top1"] == 1.0
    assert "</html>" in (folder / "demo" / "report.html").read_text()


def test_demo_samples(folder):
    words = ["demo.py", WRAPPED, *options(folder), "--max_new_tokens", 12, "--temperature", 5]
    first, second = (call(*words, "--seed", seed).stdout.partition("TTFT")[0] for seed in (1, 2))
    assert first != second


def test_the_first_run_is_a_screenful_and_no_recitation(folder):
    """`bringup demo` without arguments, in a folder where nothing is."""
    words = [sys.executable, "-m", "bringup.cli", "demo", "--json", folder / "first.json"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 24
    assert "{" not in done.stdout
    assert {"accuracy", "speed", "memory", "report", "next"} <= {s.partition(" ")[0] for s in done.stdout.splitlines()}
    assert (folder / "reports" / "demo" / "report.html").is_file()
    found = json.loads((folder / "first.json").read_text())
    assert found["n"] == 100
    assert found["top5"] == 1.0
    assert found["perplexity_reference"] > 1.2  # what it was trained on has 1.08 (checkpoints/tiny-llama/README.md)


@pytest.mark.parametrize("mode", ["tt", "hf"])
def test_run_eval_ends_with_its_metrics(folder, mode):
    done = call(
        *["scripts/run_eval.py", "--mode", mode, "--hf-model", "org/name", "--model-py", WRAPPED],
        *["--model-dir", folder / "checkpoint", "--prefill-len", 20, "--decode-len", 6, "--batch", 2, "--trace", 0],
        *["--cache-dir", folder / "cache"],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1].removeprefix("YT_METRICS="))
    assert (
        found
        | {
            **dict(mode=mode, trace=False, top1=1.0, top5=1.0, prefill_len=20, decode_len=6),
            **dict(max_seq_len=256, batch=2, total=6),
        }
        == found
    )


def test_run_eval_takes_its_system_from_the_environment(folder):
    done = call("scripts/run_eval.py", "--mode", "tt", "--hf-model", "org/name", YT_SYSTEM="n300")
    assert done.returncode == 2
    assert "models/org/name/n300/functional/model.py" in done.stderr


BAD = [
    # what is wrong, the arguments of eval.py, the exit code, the message
    ("missing file", ["nowhere/model.py"], 2, "no such model file"),
    ("unknown system", [WRAPPED, "--system", "p250"], 2, "unknown system.*'p250'.*n150, n300, t3000"),
    ("no checkpoint named", [WRAPPED], 2, "which checkpoint"),
    ("no such checkpoint", [WRAPPED, "--model", "./nowhere"], 2, "no such checkpoint directory"),
    ("hub is away", [WRAPPED, "--model", "org/name"], 2, "cannot get org/name.*--model DIR"),
    ("nothing to generate", [WRAPPED, "--max_new_tokens", "0"], 2, "at least 1"),
    ("min above max", [WRAPPED, "--max_new_tokens", "2", "--min_new_tokens", "3"], 2, "out of range"),
    ("no place for the figures", [WRAPPED, "OPTIONS", "--json", "/dev/null/a.json"], 2, "cannot write /dev"),
    ("too many users", [WRAPPED, "--batch", "33"], 2, "1 to 32"),
    ("no build_model", [tiny.FILES / "no_build_model.py", "OPTIONS"], 2, "has no build_model.*make_model"),
    ("another mesh", [tiny.FILES / "for_two_chips.py", "OPTIONS"], 2, "another mesh.*--system n300"),
    ("prompt too long", [WRAPPED, "OPTIONS", "--max_seq_len", "8"], 2, "do not fit the cache.*--max_seq_len 128"),
    ("cache too long", [WRAPPED, "OPTIONS", "--max_seq_len", "1024"], 2, "no positions.*<= 512"),
    ("empty prompt", [WRAPPED, "MODEL", "--prompt_ids_file", "/dev/null"], 2, "the prompt is empty"),
    ("no tokenizer", [WRAPPED, "MODEL", "--prompt", "text"], 2, "no tokenizer.*--prompt_ids_file"),
    ("two prompts", [WRAPPED, "OPTIONS", "--prompt", "text"], 2, "one prompt"),
    ("no number", [WRAPPED, "MODEL", "--prompt_ids_file", "bad_ids.txt"], 2, "invalid literal.*'x'"),
    ("outside the vocabulary", [WRAPPED, "MODEL", "--prompt_ids_file", "far_ids.txt"], 2, "9999.*0 to 255"),
    ("unknown configuration", [WRAPPED, "--model", "org/name", "--random-weights"], 2, "no configuration is kept"),
    ("no traced decode", [WRAPPED, "OPTIONS", "--trace"], 2, "wrapped_hf.py has no traced decode"),
    ("other numerics", [WRAPPED, "OPTIONS", "--numerics", "double"], 2, "invalid choice"),
    (
        "fails on import",
        [tiny.FILES / "fails_on_import.py", "OPTIONS"],
        1,
        r"import.py:3: ModuleNotFoundError while load",
    ),
    (
        "fails in forward",
        [tiny.FILES / "fails_in_forward.py", "OPTIONS"],
        1,
        r"forward.py:8: RuntimeError .*device said no",
    ),
]


# All of them in one process, for the imports take seconds. BRINGUP_TRACEBACK is not set: what escapes is a failure.
IN_ONE_PROCESS = """
import contextlib, io, json, sys, traceback
import eval
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["eval.py", *words]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = eval.main()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            code = traceback.format_exc()
    answers.append([code, err.getvalue()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(folder):
    """The exit code and message of every case of BAD."""
    known = {"OPTIONS": options(folder), "MODEL": ["--model", folder / "checkpoint"]}

    def written_out(word):
        return known.get(str(word), [folder / word if str(word).endswith("ids.txt") else word])

    lines = [[str(w) for word in words for w in written_out(word)] for _, words, _, _ in BAD]
    done = call("-c", IN_ONE_PROCESS, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    return dict(zip([b[0] for b in BAD], json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("case", "code", "text"), [(b[0], b[2], b[3]) for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_explained(answers, case, code, text):
    found, message = answers[case]
    assert found == code, found
    assert re.search(text, message, re.S), message


def test_a_file_that_cannot_be_opened_is_named(monkeypatch, capsys):
    monkeypatch.delenv("BRINGUP_TRACEBACK", raising=False)
    assert guarded(open, "/dev/null/a.json", "w") == 2
    assert capsys.readouterr().err == "error: /dev/null/a.json: Not a directory\n"


@pytest.mark.parametrize("words", [["nowhere/model.py"], [WRAPPED, "--max_new_tokens", "0"]])
def test_no_traceback(words):
    done = call("eval.py", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_traceback_is_there_for_who_wants_it(folder):
    done = call("eval.py", "nowhere.py", BRINGUP_TRACEBACK="1")
    assert "Traceback" in done.stderr


def test_bringup_alone_prints_the_journeys():
    done = call("-m", "bringup.cli")
    assert done.returncode == 0
    named = set(re.findall(r"bringup ([a-z]+)", done.stdout))
    assert {"demo", "plan", "new", "check", "verify", "layers", "doctor", "run"} <= named <= set(cli.COMMANDS)
    assert max(map(len, done.stdout.splitlines())) < 80


@pytest.mark.parametrize(
    ("problem", "next_"),
    [
        ("no such model file\n  got    a.py", "bringup new HF_ID_OR_CONFIG --id ORG/NAME"),
        ("a.py:3: TypeError while building the model", "BRINGUP_TRACEBACK=1 bringup demo a.py --max_new_tokens 2"),
        ("a.py is for another mesh\n  hint   --system n300", "bringup check a.py --system n300"),
        ("which checkpoint?", "bringup check a.py --model DIR"),
        ("something else", "bringup check --help"),
    ],
)
def test_an_error_of_check_ends_with_what_to_type_next(problem, next_):
    args = argparse.Namespace(model_py="a.py", model=None, random_weights=False, system=None)
    assert command.next_command(args, problem) == next_
    assert str(BadInput(problem).followed_by(next_)).splitlines()[-1] == f"  next   {next_}"


def test_models_table(folder):
    results = folder / "results"
    done = call("eval.py", WRAPPED, *options(folder), "--max_new_tokens", 8, "--json", results / "a.json")
    assert done.returncode == 0, done.stderr
    words = ["-m", "bringup.cli", "models", "--results", results, "--out", folder / "MODELS.md"]
    assert [call(*words, *check).returncode for check in (["--check"], [], ["--check"])] == [1, 0, 0]
    text = (folder / "MODELS.md").read_text()
    assert "emulator, fast |" in text
    assert "100.0 % (68 to 100)" in text
    (results / "b.json").write_text("{}")
    done = call(*words)
    assert done.returncode == 2
    assert "b.json" in done.stderr


def test_bench_refuses_before_it_loads_anything():
    done = call("-m", "bringup.cli", "bench", "--groups", "hf_fp8")
    assert done.returncode == 2
    assert "hf_fp8" in done.stderr
