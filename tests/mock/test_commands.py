"""Commands on the mock cluster as a user runs them: they go as far as calls can, and say that there are no values."""

import json
import os
import subprocess
import sys

import pytest

from tests.mock.test_mock import ROOT, has_wheel, needs_wheel

MODEL = "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"


def call(*words, **env):
    elsewhere = ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "BRINGUP_CACHE", "BRINGUP_BACKEND")
    environment = {k: v for k, v in os.environ.items() if k not in elsewhere} | env
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@needs_wheel
@pytest.mark.parametrize("script", ["eval.py", "demo.py"])
def test_every_call_is_made_and_no_accuracy_is_claimed(script, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    words = [MODEL, "--model", "checkpoints/tiny-llama", "--backend", "mock", "--max_new_tokens", "3"]
    done = call(script, *words, "--json", str(tmp_path / "result.json"), HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ttnn: mock (as asked; ttnn 0.81.1 on a mock n150, no values)")
    assert "holds no values, so" in done.stdout
    assert "accuracy:" not in done.stdout
    assert "DRAM per chip: " in done.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["backend"] == "mock"
    assert result["memory"]["dram"]["allocated"] > 0
    assert "top1" not in result
    assert {p.name for p in home.iterdir()} <= {".cache"}
    assert {p.name for p in (home / ".cache").iterdir()} <= {"ttnn-bringup", "huggingface"}


@needs_wheel
def test_verify_prints_its_stages_and_its_verdict():
    words = ["-m", "bringup.cli", "verify", MODEL, "--layers", "1", "--lengths", "31", "--steps", "2"]
    done = call(*words, "--max_seq_len", "64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mock: ttnn 0.81.1 on a mock n150, no values" in done.stdout
    assert "the emulator's log agrees with the library's" in done.stdout
    assert done.stdout.splitlines()[-1] == f"PASS  {MODEL} on n150, 1 layers"
    done = call(*words, "--max_seq_len", "64", "--json")
    assert json.loads(done.stdout)["passed"] is True


@pytest.mark.skipif(has_wheel(), reason="this Python has the wheel")
def test_without_the_wheel_commands_say_where_one_is_found(tmp_path):
    done = call("eval.py", MODEL, "--model", "checkpoints/tiny-llama", "--backend", "mock")
    assert done.returncode == 2
    assert "make test-ttnn" in done.stderr
    if not (ROOT / ".venv-ttnn").exists():
        done = call("-m", "bringup.cli", "verify", MODEL)
        assert done.returncode == 2
        assert "--python PATH" in done.stderr
