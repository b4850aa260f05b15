"""A sweep of a tiny checkpoint: what is done is kept, what is refused is a row, and nothing beats the front."""

import argparse
import json
import shutil
from pathlib import Path

import pytest

from bringup.errors import BadInput
from bringup.tuning import results as sweep_results
from bringup.tuning import sweep
from ttnn_emulator import numerics

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
TINY = ROOT / "checkpoints/tiny-llama"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


def run(folder, *words, out="out", model=MODEL):
    parser = argparse.ArgumentParser()
    sweep.add_arguments(parser)
    fixed = ["--model", TINY, "--max_new_tokens", 3, "--cache_dir", folder / "cache", "--out", folder / out]
    fixed += ["--attention", "bf16", "--head", "bf16", "--fidelity", "HiFi4", "--destination", "fp32"]
    sweep.run(parser.parse_args([str(w) for w in (model, *fixed, *words)]))
    return json.loads((folder / out / "sweep.json").read_text())["rows"]


def test_points_accuracy_speed_memory_and_a_picture(folder, capsys):
    rows = run(folder, "--mlp", "bf16,bfp4")
    fine, coarse = rows
    assert (fine["mlp"], coarse["mlp"]) == ("bf16", "bfp4")
    assert coarse["accuracy"]["kl_mean"] > 3 * fine["accuracy"]["kl_mean"]
    assert coarse["predicted"]["tokens_per_second_per_user"] > fine["predicted"]["tokens_per_second_per_user"]
    assert coarse["weights_bytes"] < fine["weights_bytes"]
    assert fine["pareto"]
    assert coarse["pareto"]
    assert (folder / "out" / "sweep.svg").read_text().lstrip().startswith("<?xml")
    assert (folder / "out" / "sweep.png").stat().st_size > 5000
    assert "predicted" in capsys.readouterr().out


def test_an_interrupted_sweep_runs_only_what_is_missing(folder, monkeypatch, capsys):
    real, ran = sweep.measure, []

    def measure(common, point):
        ran.append(point.mlp)
        if point.mlp == "bfp8" and len(ran) == 2:
            raise KeyboardInterrupt
        return real(common, point)

    monkeypatch.setattr(sweep, "measure", measure)
    words = ("--mlp", "bf16,bfp8,bfp4")
    with pytest.raises(KeyboardInterrupt):
        run(folder, *words, out="interrupted")
    assert ran == ["bf16", "bfp8"]
    files = list((folder / "interrupted" / "points").iterdir())
    assert len(files) == 1, "the point that was running left nothing behind"
    before = files[0].stat().st_mtime_ns

    rows = run(folder, *words, out="interrupted")
    assert ran == ["bf16", "bfp8", "bfp8", "bfp4"]
    assert len(rows) == 3
    assert files[0].stat().st_mtime_ns == before
    assert "1 points are there already" in capsys.readouterr().out
    run(folder, *words, out="interrupted")
    assert len(ran) == 4, "nothing is left to do"


def test_other_settings_are_other_points(folder, monkeypatch):
    ran = []
    monkeypatch.setattr(sweep, "measure", lambda common, point: ran.append(point) or {"refused": "for this test"})
    run(folder, "--mlp", "bfp8", out="settings")
    run(folder, "--mlp", "bfp8", "--max_new_tokens", 4, out="settings")
    run(folder, "--mlp", "bfp8", out="settings")
    assert len(ran) == 2


def test_other_code_is_another_point(folder, tmp_path, monkeypatch):
    """Also where the file only delegates, and what it delegates to has changed."""
    ran = []
    monkeypatch.setattr(sweep, "measure", lambda common, point: ran.append(point) or {"refused": "for this test"})
    copied = tmp_path / "models" / "meta-llama" / "Llama-3.2-1B"
    shutil.copytree(MODEL.parents[2], copied)
    words = ("--mlp", "bfp8")
    for _ in range(2):
        run(folder, *words, out="code", model=copied / "n300" / "functional" / "model.py")
    assert len(ran) == 1
    with (copied / "n150" / "functional" / "model.py").open("a") as file:
        file.write("# another line\n")
    run(folder, *words, out="code", model=copied / "n300" / "functional" / "model.py")
    assert len(ran) == 2
    with numerics.use("exact"):  # as TTNN_EMULATOR_NUMERICS does
        run(folder, *words, out="code", model=copied / "n300" / "functional" / "model.py")
    assert len(ran) == 3


def test_a_model_that_is_not_known_is_planned_as_the_checkpoint_says(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(MODEL.parents[2], tmp_path / "models" / "me" / "mine")
    (row,) = run(folder, "--mlp", "bfp8", model=tmp_path / "models/me/mine/n150/functional/model.py", out="mine")
    assert "refused" not in row, row
    assert row["weights_bytes"] < 10e6, "the tiny checkpoint's, not a true Llama's"


def test_what_does_not_fit_is_a_row_with_the_reason(folder, capsys):
    path = ROOT / "models/humain-ai/ALLaM-7B-Instruct-preview/n150/functional/model.py"
    rows = run(folder, "--model", ROOT / "checkpoints/tiny-allam", "--mlp", "bf16", out="large", model=path)
    assert "does not fit" in rows[0]["refused"]
    assert rows[0]["pareto"] is False
    assert "refused: bf16 bf16 bf16 HiFi4 fp32" in capsys.readouterr().out
    assert not (folder / "large" / "sweep.svg").exists()


def test_two_processes_find_what_one_finds(folder):
    alone, both = run(folder, "--mlp", "bf16,bfp4"), run(folder, "--mlp", "bf16,bfp4", "--jobs", 2, out="both")
    for row in (*alone, *both):
        row.pop("seconds")
    assert alone == both


@pytest.mark.parametrize("words", [("--fidelity", "HiFi5"), ("--mlp", "bfp2"), ("--destination", "fp16")])
def test_values_that_do_not_exist(folder, words):
    with pytest.raises(BadInput):
        run(folder, *words)


def test_the_librarys_own_settings_are_one_point_whatever_the_destination(folder, monkeypatch):
    monkeypatch.setattr(sweep, "measure", lambda common, point: {"refused": sweep.settings_of(point)["linear"] or "no"})
    rows = run(folder, "--mlp", "bf16", "--fidelity", "library", "--destination", "fp32,bf16", out="library")
    assert [(r["fidelity"], r["destination"], r["refused"]) for r in rows] == [("library", "-", "no")]


def test_a_file_with_one_precision_cannot_be_swept(folder):
    with pytest.raises(BadInput, match="one precision"):
        run(folder, model=ROOT / "tests/evaluation/files/wrapped_hf.py")


def test_the_front():
    def row(speed, kl):
        return {"predicted": {"tokens_per_second_per_user": speed}, "accuracy": {"kl_mean": kl}}

    rows = [row(10, 1e-4), row(20, 1e-3), row(15, 1e-3), row(20, 1e-3), row(30, 1e-2), {"refused": "no"}]
    sweep_results.mark_pareto(rows)
    assert [r["pareto"] for r in rows] == [True, True, False, True, True, False]
