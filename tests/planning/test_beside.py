"""Predictions beside published rows: which files, which rows, and what the table says of them."""

import json

import pytest

from bringup.planning import beside

LLAMA = "meta-llama/Llama-3.2-1B"


def test_every_optimised_file_is_found_with_the_functional_one_beside_it():
    found = beside.files()
    assert (LLAMA, "n150") in found
    assert all(path.is_file() for of in found.values() for path in of.values())
    assert {kind for of in found.values() for kind in of} == set(beside.KINDS)


def test_a_published_row_is_that_of_the_kind_or_none():
    assert beside.published(LLAMA, "n150", "optimized")["tps"] == 64.8
    assert beside.published(LLAMA, "n150", "functional")["tps"] == 39.5
    assert beside.published(LLAMA, "p150", "optimized") is None


@pytest.fixture
def known(monkeypatch):
    speeds = {"functional": 20.0, "optimized": 97.2}

    def predicted(path):
        return {"tps": speeds[path.parent.name], "ttft_ms": 12.5, "bound_tps": 194.4}

    monkeypatch.setattr(beside, "predicted", predicted)


def test_the_table_sets_predicted_beside_published(known):
    lines = beside.table()
    (row,) = [line.split(" | ") for line in lines if f"{LLAMA} | n150" in line]
    assert row[2:] == ["20.0, 12 ms", "97.2, 12 ms", "194.4", "39.5, 34 ms", "64.8, 22 ms", "1.50", "50% |"]
    (factor, *_), *_ = beside.farthest(beside.rows(), 1)
    ratios = [
        max(r["predicted"][k]["tps"] / r["published"][k]["tps"], r["published"][k]["tps"] / r["predicted"][k]["tps"])
        for r in beside.rows() for k in beside.KINDS if r["published"][k]
    ]  # fmt: skip
    assert max(factor, 1 / factor) == pytest.approx(max(ratios))


def test_the_bars_and_the_reasons_are_said_of_the_rows(known):
    """97.2 t/s/u and 12.5 ms everywhere, of 194.4: the least factor is that of the fastest published row."""
    found = beside.rows()
    fastest = max(row["published"]["optimized"]["tps"] for row in found if row["published"]["optimized"])
    factors, times, shares = beside.bars(found)
    assert f"at least {97.2 / fastest:.2f} ({LLAMA} n150)" in factors
    assert times.endswith("is longer of none.")
    assert shares.count(" 50.0%") == 2
    of = {(row["model"], row["system"]): row for row in found}
    assert "all_reduce" not in beside.why(of[LLAMA, "n150"], "optimized")
    assert beside.why(of[LLAMA, "n300"], "optimized").startswith("theirs sums over the chips")
    assert "one chip" in beside.why(of["humain-ai/ALLaM-7B-Instruct-preview", "n300"], "optimized")
    assert all(beside.why(row, kind) for _, row, kind in beside.farthest(found))


def test_the_prompt_is_that_of_the_published_row():
    assert beside.prompt_of(LLAMA, "n150", "optimized") == 55
    assert beside.prompt_of(LLAMA, "t3000", "functional") == 55  # the other kind's
    assert beside.prompt_of(LLAMA, "p150", "optimized") == beside.PROMPT


def test_models_table_has_both_files_and_the_published_row(known, tmp_path, monkeypatch):
    from bringup.files import PROJECT
    from bringup.report import models

    result = json.loads((PROJECT / "results/tiny-llama-n150.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(result))
    other = result["model_py"].replace("functional", "optimized")
    (tmp_path / "b.json").write_text(json.dumps(result | {"model_py": other}))
    models.predict(tmp_path)
    first, second = models.read(tmp_path)
    assert first["true_size"]["label"] == "predicted"
    lines = [line for line in models.render([first, second]).splitlines() if f"| {LLAMA} |" in line]
    assert "| n150 | functional |" in lines[0]
    assert lines[0].endswith("| 20.0, 12 ms | 39.5, 34 ms |")
    assert "| n150 | optimized |" in lines[1]
    assert lines[1].endswith("| 97.2, 12 ms | 64.8, 22 ms |")


def test_a_real_file_is_predicted_and_one_of_no_known_model_is_not(tmp_path):
    found = beside.predicted(beside.files()[LLAMA, "n150"]["optimized"])
    assert 0 < found["tps"] < found["bound_tps"]
    assert found["ttft_ms"] > 0
    (tmp_path / "model.py").write_text("def build_model(hf_model, tt_device, max_seq_len): ...\n")
    assert beside.predicted(tmp_path / "model.py") is None
