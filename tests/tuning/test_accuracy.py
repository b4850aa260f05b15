"""`bringup accuracy`: rows of choices by system and numerics, intervals paired by position, a page, kept points."""

import argparse
import json
from pathlib import Path

import pytest

from bringup.errors import BadInput
from bringup.tuning import accuracy, accuracy_page

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
TINY = ROOT / "checkpoints/tiny-llama"
CHOICES = "as shipped;the library's defaults;MLP bfp4"


def run(folder, *words, choices=CHOICES):
    parser = argparse.ArgumentParser()
    accuracy.add_arguments(parser)
    fixed = ["--model", TINY, "--cache_dir", folder / "cache", "--out", folder / "out", "--max_new_tokens", 24]
    fixed += ["--choices", choices, "--text_file", ROOT / "prompts/prose.txt"]
    accuracy.run(parser.parse_args([str(w) for w in (MODEL, *fixed, *words)]))
    return json.loads((folder / "out" / "accuracy.json").read_text())


@pytest.fixture(autouse=True)
def _as_before():
    """The command sets numerics and the machine for its process."""
    from ttnn_emulator import chips, numerics

    mode, system = numerics.mode(), chips.machine().name
    yield
    numerics.set_mode(mode)
    chips.use(system)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture(scope="module")
def record(folder):
    return run(folder, "--numerics", "fast", "--document", str(folder / "page.md"))


def named(record, choice, system="n150", one_pass=True):
    (row,) = (r for r in record["rows"] if (r["choice"], r["system"], r["one_pass"]) == (choice, system, one_pass))
    return row


def test_coarse_choices_are_farther_and_surely_so(record):
    for system in ("n150", "p150"):
        base, coarse = named(record, "as shipped", system), named(record, "MLP bfp4", system)
        assert base["n"] == 24
        assert coarse["kl_mean"] > 3 * base["kl_mean"]
        assert coarse["kl_change"][1] > 0, "the interval is above zero"
        assert "kl_change" not in base, "nothing differs from itself"
        assert coarse["kl_change"][0] == pytest.approx(coarse["kl_mean"] - base["kl_mean"])
        low, high = base["kl_interval"]
        assert low < base["kl_mean"] < high
        assert base["bf16"]["kl_mean"] > 0


def test_the_shipped_row_comes_token_by_token_too(record):
    steps, whole = named(record, "as shipped", one_pass=False), named(record, "as shipped")
    assert steps["n"] == whole["n"]
    assert steps["kl_mean"] != whole["kl_mean"], "decode attention is another kernel"
    assert steps["kl_mean"] < 4 * whole["kl_mean"]


def test_the_page(folder, record):
    page = (folder / "page.md").read_text()
    assert "## n150, `fast` numerics" in page
    assert "## p150, `fast` numerics" in page
    for row in record["rows"]:
        assert f"{row['kl_mean']:.2e}" in page
    clear = page.split("Surely (95 %)")[1].split("##")[0]
    assert "MLP bfp4" in clear
    assert "Llama-3.2-1B | 87 | 79" in page
    assert str(ROOT) not in page.replace(str(MODEL), "").replace(str(ROOT / "prompts"), "")


def test_what_is_there_is_not_run_again(folder, record, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "measure", None)
    assert run(folder, "--numerics", "fast")["rows"] == record["rows"]
    assert "7 are there already" in capsys.readouterr().out


def test_exact_runs_what_is_marked(folder, monkeypatch):
    ran = []
    monkeypatch.setattr(accuracy, "measure", lambda common, point: ran.append(common.numerics) or {"refused": "test"})
    record = run(folder, "--numerics", "exact", "--systems", "p150", choices="as shipped;LoFi")
    assert ran == ["exact", "exact"], "as shipped both ways, LoFi not at all"
    assert all("kl_change" not in r for r in record["rows"])
    assert "refused: test" in "\n".join(accuracy_page.table(record["rows"]))
    assert accuracy_page.page(record)


def test_kept_runs_nothing_and_says_what_is_missing(folder, record, monkeypatch):
    monkeypatch.setattr(accuracy, "measure", None)
    page = folder / "kept.md"
    found = run(folder, "--numerics", "fast,exact", "--systems", "n150", "--kept", "--document", page)
    assert found["rows"] == [r for r in record["rows"] if r["system"] == "n150"]
    assert len(found["missing"]) == 3, "all of `exact`"
    assert "not been run yet" in page.read_text()
    with pytest.raises(BadInput, match="no row is there"):
        run(folder, "--numerics", "exact", "--systems", "n150", "--kept", choices="HiFi4")


@pytest.mark.parametrize(
    "words", [("--systems", "n151"), ("--numerics", "slow"), ("--choices", "as shipped;x"), ("--systems", ",")]
)
def test_values_that_do_not_exist(folder, words):
    with pytest.raises(BadInput, match="has no such value"):
        run(folder, *words)
