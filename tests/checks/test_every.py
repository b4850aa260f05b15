"""`bringup check --all`: every model file of a folder, one table, and nothing lost with one that fails."""

import json
import shutil

import pytest

from bringup import cli
from bringup.checks import every
from bringup.errors import BadInput
from bringup.files import PROJECT

LLAMA = PROJECT / "models/meta-llama/Llama-3.2-1B/n150"


@pytest.fixture
def folder(tmp_path):
    """Two model files that run, one that raises, and one whose checkpoint is nowhere."""
    models = tmp_path / "models"
    alone = shutil.ignore_patterns("optimized")
    for system in ("n150", "n300"):
        shutil.copytree(LLAMA.parent / system, models / "meta-llama/Llama-3.2-1B" / system, ignore=alone)
    shutil.copytree(LLAMA, models / "meta-llama/Llama-3.2-1B/t3000", ignore=alone)
    (models / "meta-llama/Llama-3.2-1B/t3000/functional/model.py").write_text(
        "MESH_SHAPE = (2, 4)\ndef build_model(hf_model, tt_device, max_seq_len):\n    raise ValueError('half')\n"
    )
    shutil.copytree(LLAMA, models / "nobody/Nothing/n150", ignore=alone)
    return models


def test_one_table_and_what_is_done_is_not_done_again(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out, found = tmp_path / "out", tmp_path / "all.json"
    words = ["check", str(folder), "--all", "--items", "decode_modules", "--quick", "--jobs", "2"]
    words += ["--out", str(out), "--json", str(found), "--cache_dir", str(tmp_path / "cache")]
    assert cli.main(words) == 1
    text = capsys.readouterr().out
    rows = {tuple(row["model_py"].split("/")[-5:-2]): row for row in json.loads(found.read_text())["checks"]}
    verdicts = {names[1:]: row["verdict"] for names, row in rows.items()}
    assert verdicts == {
        ("Llama-3.2-1B", "n150"): "pass",
        ("Llama-3.2-1B", "n300"): "pass",
        ("Llama-3.2-1B", "t3000"): "fail",
        ("Nothing", "n150"): every.NOT_RUN,
    }
    assert "model.py:3: ValueError" in rows["meta-llama", "Llama-3.2-1B", "t3000"]["why"]
    assert "nobody/Nothing" in rows["nobody", "Nothing", "n150"]["why"]
    assert rows["meta-llama", "Llama-3.2-1B", "n150"]["checkpoint"] == "checkpoints/tiny-llama"
    assert "4 model files: 2 pass, 1 fail, 1 not run" in text
    assert (out / "Llama-3.2-1B-n300" / "report.html").is_file()

    points = {path: path.stat().st_mtime_ns for path in (out / "points").iterdir()}
    assert cli.main(words) == 1
    assert "3 are there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "points").iterdir()} == points


def test_the_shipped_files_have_their_checkpoints():
    shipped = every.model_files_of(PROJECT / "models")
    assert len(shipped) >= 12
    measured = [path for path in shipped if every.checkpoint_of(path)]
    results = [json.loads(path.read_text()) for path in (PROJECT / "results").glob("*.json")]
    assert len(measured) == sum((PROJECT / result["checkpoint"]).exists() for result in results)
    assert len(every.model_files_of(PROJECT / "models", "n300")) < len(shipped)


def test_what_it_does_not_take(tmp_path):
    with pytest.raises(BadInput, match="no model files of p150"):
        every.model_files_of(tmp_path, "p150")
    assert cli.main(["check", "--all", "--write"]) == 2
    assert cli.main(["check"]) == 2
