"""The search of an optimised file's choices: its sums against brute force, its bound, its files, and real trials."""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bringup.errors import BadInput
from bringup.files import write_json
from bringup.tuning import candidates, trials, tune

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/meta-llama/Llama-3.2-1B/n150/optimized/model.py"
TINY = ROOT / "checkpoints/tiny-llama"
#: Where the searches begin, whatever is shipped: all in bfloat8_b, in the banks, with products in HiFi3.
BEGIN = json.loads(MODEL.with_name("choices.json").read_text()) | {
    "weights": dict.fromkeys(candidates.GROUPS, "bfloat8_b"),
    "cache": "bfloat8_b",
    "fidelity": dict.fromkeys(itertools.chain(*candidates.GROUPS.values()), "HiFi3"),
    "sharded": [*itertools.chain(*candidates.GROUPS.values())],
    "sdpa": "HiFi3",
    "cores": 32,
    "inner": 32,
}
BITS = {"bfloat16": 16, "bfloat8_b": 8.5, "bfloat4_b": 4.5}
PHASES = {"HiFi3": 3, "HiFi2": 2, "LoFi": 1}
SIZES = {"attention": 3, "up": 8, "mlp": 4, "head": 6}


def parse(*words):
    parser = argparse.ArgumentParser()
    tune.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


def run(out, *words, model=MODEL):
    fixed = ["--model", TINY, "--max_new_tokens", 8, "--cache_dir", out.parent / "cache", "--out", out]
    return tune.run(parse(model, *fixed, *words))


# The candidates -------------------------------------------------------------------------------------------------------


def test_the_front_is_what_brute_force_finds():
    seconds = {"a": {1: 0.0, 2: -1.0, 3: -3.0}, "b": {"x": 0.0, "y": -2.0}, "c": {0: 0.0, 9: 5.0}}
    loss = {"a": {1: 0.0, 2: 0.5, 3: 0.6}, "b": {"x": 0.0, "y": 1.0, "z": 0.1}, "c": {0: 0.0, 9: 0.0}}
    every = [
        (sum(seconds[p][v] for p, v in zip(seconds, values)), sum(loss[p][v] for p, v in zip(seconds, values)), values)
        for values in itertools.product(*seconds.values())
    ]
    best = {
        values for s, k, values in every
        if not any(s2 <= s and k2 <= k and (s2, k2) != (s, k) for s2, k2, _ in every)
    }  # fmt: skip
    found = candidates.front(seconds, loss)
    assert {tuple(chosen.values()) for chosen, *_ in found} == best
    assert [s for _, s, _ in found] == sorted(s for _, s, _ in found)


def test_neighbours_and_structures_differ_from_where_they_begin_and_are_choices():
    from bringup import backends

    backends.activate("emulator")
    from bringup.blocks.optimized import Choices

    near = [*candidates.neighbours(BEGIN), *candidates.structures(BEGIN, 64, 2), candidates.finest(BEGIN)]
    keys = [candidates.key(data) for data in near]
    assert candidates.key(BEGIN) not in keys
    assert len(set(keys)) == len(keys)
    for data in near:
        assert Choices.of_data(data).as_data() == data
    assert {data["asynchronous"] for data in candidates.structures(BEGIN, 64, 1)} == {BEGIN["asynchronous"]}
    assert max(data["cores"] for data in candidates.structures(BEGIN, 110, 1)) == 110


# The search, with costs that are known --------------------------------------------------------------------------------


def cost(data):
    """Seconds of a step: the longer of bytes and phases; weights in the banks lose unless the fidelity is low."""
    total = 0
    for group, size in SIZES.items():
        for product in candidates.GROUPS[group]:
            banked = product in data["sharded"]
            phases = PHASES[data["fidelity"][product]]
            total += size * max(BITS[data["weights"][group]] * (0.5 if banked else 1), phases * (8 if banked else 3))
    return (total + abs(data["cores"] - 16) / 8 + (data["cache"] == "bfloat16") + PHASES[data["sdpa"]] / 8) * 1e-4


def divergence(data):
    found = 1e-4 + 1e-4 * (data["cache"] != "bfloat16") + 1e-4 * (3 - PHASES[data["sdpa"]])
    for group, products in candidates.GROUPS.items():
        found += {16: 0, 8.5: 1e-3, 4.5: 2e-2}[BITS[data["weights"][group]]]
        found += sum({3: 0, 2: 4e-4, 1: 3e-3}[PHASES[data["fidelity"][p]]] for p in products)
    return found


@pytest.fixture
def worse_in_exact():
    """How much less top-1 LoFi has with exact numerics."""
    return 0.0


@pytest.fixture
def known(monkeypatch, worse_in_exact):
    """Costs by arithmetic in the place of trials; the list of what was asked."""
    asked = []

    def write_time(common, config, name, path):
        data = json.loads(name)
        asked.append(name)
        refused = {"refused": "no such cores"} if data["cores"] == 24 else {"prompt": 0.01, "step": cost(data)}
        write_json(path, refused)

    def write_accuracy(common, config, name, path):
        kl = 1e-4 if name == trials.FUNCTIONAL else divergence(json.loads(name))
        asked.append((name, common.numerics))
        top1 = 0.99 - 4 * (kl - 1e-4) - worse_in_exact * (common.numerics == "exact" and "LoFi" in name)
        figures = dict.fromkeys(trials.FIGURES, 0.0) | {"n": 1000, "top1": top1, "kl_mean": kl}
        write_json(path, figures | {"top1_interval": [top1, top1]})

    monkeypatch.setattr(trials, "write_time", write_time)
    monkeypatch.setattr(trials, "write_full", write_time)
    monkeypatch.setattr(trials, "write_accuracy", write_accuracy)
    return asked


def fastest(bound):
    """Seconds of the fastest within the bound by brute force over the formats, each product at its better place."""
    base = candidates.changed(BEGIN, cores=16)
    tables = []
    for part, values in candidates.parts(base).items():
        products = candidates.GROUPS.get(part, ())
        for value, data in values.items():
            for product in products:
                data = min((candidates.shard(data, [product], place) for place in (True, False)), key=cost)
            values[value] = cost(data) - cost(base), divergence(data) - divergence(base)
        tables.append(values.values())
    sums = [tuple(map(sum, zip(*each))) for each in itertools.product(*tables)]
    return min(cost(base) + c for c, d in sums if 4 * (divergence(base) + d - 1e-4) <= bound / 100 + 1e-12)


@pytest.mark.parametrize("bound", [0.5, 1.0, 3.0])
def test_the_fastest_within_the_bound_is_found(known, tmp_path, capsys, bound):
    assert run(tmp_path, "--bound-top1", bound, "--write", model=_copy(tmp_path)) == 0
    chosen = json.loads((tmp_path / "choices.json").read_text())
    assert cost(chosen) <= 1.01 * fastest(bound)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert 4 * (divergence(chosen) - 1e-4) <= bound / 100
    assert chosen == record["chosen"]
    assert record["refused"]["no such cores"] > 0
    assert record["label"] == "predicted"
    assert (tmp_path / "models/o/m/n150/optimized/choices.json").read_text() == (tmp_path / "choices.json").read_text()
    assert (tmp_path / "tune.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "tune.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "chosen: predicted" in said
    assert "refused" in said


def _copy(folder):
    """The file and a functional one as of another model, where choices.json may be written."""
    place = folder / "models/o/m/n150"
    for kind in ("functional", "optimized"):
        (place / kind).mkdir(parents=True, exist_ok=True)
        (place / kind / "model.py").write_text((MODEL.parents[1] / kind / "model.py").read_text())
    (place / "optimized/choices.json").write_text(json.dumps(BEGIN))
    return place / "optimized/model.py"


def test_what_is_there_is_not_run_again(known, tmp_path, capsys):
    run(tmp_path)
    ran, first = len(known), (tmp_path / "choices.json").read_text()
    run(tmp_path, "--json")
    assert len(known) == ran
    assert (tmp_path / "choices.json").read_text() == first
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["chosen"] == json.loads(first)
    run(tmp_path, "--afresh")
    assert len(known) == 2 * ran


def test_a_spent_budget_still_ends_in_a_choice_that_holds(known, tmp_path, capsys):
    assert run(tmp_path, "--budget", 0, "--bound-top1", 5, model=_copy(tmp_path)) == 0
    assert "the budget was spent" in capsys.readouterr().out
    assert json.loads((tmp_path / "choices.json").read_text()) == BEGIN


@pytest.mark.parametrize("worse_in_exact", [0.5])
def test_one_that_fails_with_exact_numerics_is_turned_down(known, tmp_path):
    run(tmp_path, "--bound-top1", 9)
    record = json.loads((tmp_path / "tune.json").read_text())
    assert record["turned_down"]
    assert "exact numerics" in record["turned_down"][0]["why"]
    assert record["final"]["exact"]["top1"] >= record["functional"]["exact"]["top1"] - 0.09


def test_where_nothing_holds_nothing_is_written(known, tmp_path, monkeypatch, capsys):
    real = trials.write_accuracy

    def poor(common, config, name, path):
        real(common, config, name, path)
        if name != trials.FUNCTIONAL:
            write_json(path, json.loads(path.read_text()) | {"top1": 0.5})

    monkeypatch.setattr(trials, "write_accuracy", poor)
    assert run(tmp_path) == 1
    assert "nothing is within 1 points" in capsys.readouterr().out
    assert not (tmp_path / "choices.json").exists()


def test_a_functional_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="chooses nothing"):
        run(tmp_path, model=MODEL.parents[1] / "functional/model.py")


# Real trials ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    out = tmp_path_factory.mktemp("tune")
    words = ["--model", TINY, "--max_new_tokens", 8, "--cache_dir", out / "cache", "--out", out, "--json"]
    return tune.prepare(parse(MODEL, *words))[0]


def test_the_time_of_all_layers_is_that_of_one_and_of_one_more(lab):
    whole, (sum_of_layers,) = lab.full(BEGIN), lab.times([BEGIN], "one")
    for phase in ("prompt", "step"):
        assert sum_of_layers[phase] == pytest.approx(whole[phase], rel=1e-6)


def test_fewer_bytes_are_faster_and_farther_and_what_is_refused_is_said(lab):
    coarse = candidates.of_group(BEGIN, "up", "bfloat4_b", "LoFi")
    fine, small = lab.times([BEGIN, coarse], "two")
    assert small["step"] < fine["step"]
    near, far = lab.accuracies([candidates.finest(BEGIN), coarse], "two")
    assert far["kl_mean"] > 3 * near["kl_mean"]
    assert lab.accuracies([trials.FUNCTIONAL], "functional")[0]["n"] == 8
    none = lab.times([candidates.changed(BEGIN, cores=0)], "none")[0]
    assert "refused" in none
    assert trials.seconds(none) == float("inf")


@pytest.mark.parametrize(("system", "banks_win"), [("n150", True), ("p150", False)])
def test_where_weights_lie_better_is_the_chips_to_say(lab, tmp_path, system, banks_win):
    """By prediction: the cores beside 12 banks of Wormhole keep up with them, those beside 8 of Blackhole do not."""
    here = replace(lab.common, model_py=str(MODEL.parents[2] / system / "optimized/model.py"), system=system)
    data = json.loads(Path(here.model_py).with_name("choices.json").read_text())
    there = replace(lab, common=here, out=tmp_path, digest=system)
    every = list(data["fidelity"])
    banked, plain = there.times([candidates.shard(data, every), candidates.shard(data, every, False)], system)
    assert (banked["step"] < plain["step"]) == banks_win


def test_layers_that_differ_are_run_whole(lab):
    config = replace_layers(lab.config, ["full_attention", "sliding_attention"])
    assert not trials.alike(config)
    assert trials.alike(lab.config)
    assert trials.cut(config, 1).layer_types == ["full_attention"]


def replace_layers(config, kinds):
    data = config.to_dict() | {"num_hidden_layers": len(kinds)}
    found = type(config).from_dict(data)
    found.layer_types = kinds
    return found
