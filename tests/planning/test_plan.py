"""`bringup plan`: what it says is plain data, its mistakes are said, and the document is current."""

import argparse
import json
from pathlib import Path

import pytest

from bringup.errors import BadInput
from bringup.planning import command, docs
from bringup.planning.calibration import stored
from bringup.planning.plan import every_system, find_config, plan

ROOT = Path(__file__).resolve().parents[2]
LLAMA = "meta-llama/Llama-3.2-1B"
TINY_QWEN = dict(
    model_type="qwen3", hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, vocab_size=512, max_position_embeddings=2048, tie_word_embeddings=True,
)  # fmt: skip
TINY_MIXTURE = dict(
    model_type="mixtral", hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=512, max_position_embeddings=2048, num_local_experts=4,
    quantization_config={"quant_method": "fp8"},
)  # fmt: skip


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.run(parser.parse_args([str(w) for w in words]))


def written(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_a_known_model(tmp_path, capsys):
    run(LLAMA, "--system", "n300", "--users", 8, "--context", 2048, "--json", tmp_path / "plan.json")
    said, result = capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text())
    assert "32 rows of cache" in said
    assert "smallest system that holds it: n150" in said
    assert result["chip"]["fits"] == "unpaged"
    assert result["run"]["counted"] == pytest.approx(result["run"]["allocated"], rel=0.01)
    assert result["run"]["activations"]["prefill"] > 0
    assert [p["label"] for p in result["predicted"].values()] == ["predicted"] * 3
    assert [(r["system"], r["weights"]) for r in result["table"]] == [
        (s, w) for s in ("n150", "n300", "t3000") for w in ("bf16", "bfp8", "bfp4")
    ]
    for system in ("n150", "n300", "t3000"):
        bounds = [r["predicted"]["traced"]["weights_bound_tps"] for r in result["table"] if r["system"] == system]
        assert bounds == sorted(bounds), "fewer bytes, a higher bound"


def test_a_configuration_that_blocks_cover_runs_by_shapes(tmp_path):
    _, config = find_config(str(written(tmp_path, TINY_QWEN)))
    result = plan(config, "n150", context=512, table=False)
    assert result["wiring"] == "blocks"
    assert result["run"]["counted"] == pytest.approx(result["run"]["allocated"], rel=0.01)
    assert result["predicted"]["untraced"]["tokens_per_second_per_user"] > 0


def test_one_that_they_do_not_is_counted_from_shapes_alone(tmp_path, capsys):
    run(written(tmp_path, TINY_MIXTURE), "--system", "n150", "--json", tmp_path / "plan.json")
    result = json.loads((tmp_path / "plan.json").read_text())
    assert result["wiring"] == "shapes alone"
    assert result["predicted"] is None
    assert "fp8" in " ".join(result["gaps"])
    assert "Counted from shapes alone, no speed predicted" in capsys.readouterr().out
    experts = 2 * 4 * 3 * 512 * 1024 * 2  # layers, experts, matrices, bfloat16
    assert result["chip"]["weights"]["mlp"] == pytest.approx(experts, rel=0.02)


def test_a_model_that_fits_nowhere_near_is_told_so(capsys):
    run("mistralai/Mistral-7B-Instruct-v0.3", "--system", "n150", "--weights", "bf16")
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "smallest system that holds it: n300" in said
    assert "The model file was refused when run by shapes" in said


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("no-such-model",),
        (LLAMA, "--weights", "fp8"),
        (LLAMA, "--users", 33),
        (LLAMA, "--context", 200000),
        (LLAMA, "--context", 64, "--prompt", 64),
    ],
)
def test_mistakes_are_said(words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((BadInput, SystemExit)):  # by argparse, where the option itself is out of range
        run(*words)


def test_the_document_is_current():
    """bringup plan --docs writes it."""
    text = (ROOT / "docs" / "planning.md").read_text()
    assert all(str(figure) in text for figure in docs.figures(stored()).values())
    assert docs.TEMPLATE.read_text().partition("## Sweeps")[2].strip() in text, (
        "text of the page stands in its template"
    )
    for names in docs.FAMILIES:
        assert docs.section(LLAMA, names) in text


def test_predicted_speeds_say_how_far_off_they_were():
    from bringup.planning import show

    result = {"system": "p150", "predicted": {"untraced": {}}, "chips": 1, "wiring": "blocks", "run": None, "gaps": []}
    result |= {"longest_context": {}, "uncounted": []}
    assert "t/s/u on blackhole" in show.notes(result)[0]
    assert "t/s/u on wormhole_b0" in show.notes(result | {"system": "n150"})[0]


def test_without_a_system_every_machine_is_a_row(tmp_path, capsys):
    run(written(tmp_path, TINY_QWEN), "--context", 512, "--json", tmp_path / "plan.json")
    said, result = capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text())
    names = ["n150", "n300", "p100", "p150", "p300", "t3000", "p300x2", "p150x4", "p150x8"]
    assert [r["system"] for r in result["systems"]] == names
    assert all(r["fits"] == "unpaged" and r["predicted"] and r["weights"] == "bf16" for r in result["systems"])
    assert "Smallest system that holds it: n150." in said
    assert "t/s/u on blackhole" in said
    assert "no call of the library was recorded on p100, p150x4, p150x8" in said


def test_weights_are_the_widest_that_fit_and_what_does_not_fit_is_told(monkeypatch):
    from bringup.planning.show import remarks
    from bringup.planning.wiring import Wiring

    monkeypatch.setattr(Wiring, "find", classmethod(lambda cls, *args: cls("shapes alone")))  # bytes only
    _, config = find_config("mistralai/Mistral-7B-Instruct-v0.3")
    result = every_system(config)
    found = {r["system"]: (r["weights"], r["fits"]) for r in result["systems"]}
    assert found["n150"] == ("bfp8", "unpaged")
    assert found["n300"] == found["p150"] == ("bf16", "unpaged")
    wide = every_system(config, weights="bf16")
    assert (wide["systems"][0]["fits"], wide["smallest_system"]) == (None, "n300")
    assert "Smallest system that holds it: n300." in list(remarks(wide))
    huge = every_system(config, weights="bf16", users=32, context=32768)
    assert huge["smallest_system"] == "p150x8"
