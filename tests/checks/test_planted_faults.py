"""Each planted fault is caught where it is, and named. A clean model passes.

First by the first-divergence finder on its own, then by the checklist: the item that fails says which fault it is.
"""

import re
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch

from bringup import backends, checks
from bringup.backends import model_files
from bringup.checkpoints import sources
from bringup.evaluation.run import Job, Settings

backends.activate("emulator")

from bringup.evaluation import consistency, layers  # noqa: E402  (needs ttnn)
from tests.checks import kinds  # noqa: E402
from tests.checks.faults import CHECKPOINTS, FAULTS  # noqa: E402
from tests.checks.planted import PLANTED, others  # noqa: E402
from tests.checks.quick import quick_first  # noqa: E402
from tests.checks.rewritten import HARMLESS  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_is_passed_over")

ROOT = Path(__file__).parents[2]
CACHE_LENGTH = 128
STEPS = 7  # tokens after the prompt
QUICK = {  # of kinds.KINDS and HARMLESS: one of each mechanism that is not in FAULTS
    "keys_of_another_layer",
    "values_of_one_head_negative",
    "positions_wrap",
    "heads_reshaped",
    "half_of_attention",
    "hidden_state_in_bfloat4_b",
    "epsilon_left_out",
    "metas_order_throughout",
    "norm_weights_in_the_next_product",
    "attention_subtracted",
    "residual_stream_twice_as_large",
    "scale_of_one_head",
    "gate_and_up_exchanged_on_one_chip",
    "gate_clamped",
    "output_weight_in_bfloat8_b",
    "residual_added_in_bfloat8_b",
    "layers_in_another_order",
}
ALONE = [fault for fault in PLANTED if fault.plant.__wrapped__.__module__ == others.__name__]
NEEDS_MORE = {"user_31_in_the_row_of_user_0", "last_row_of_a_padded_prompt", "biases_of_k_and_v_exchanged"}


@cache
def files(checkpoint, system):
    """The model file, the HF model (which nothing here changes) and the ids of a text."""
    path = ROOT / "models" / CHECKPOINTS[checkpoint] / system / "functional" / "model.py"
    source = sources.find_source(str(ROOT / "checkpoints" / checkpoint))
    ids = sources.load_tokenizer(source)((ROOT / "prompts" / "long.txt").read_text())["input_ids"]
    return model_files.load_model_file(path, system), sources.load_hf_model(source), ids


@pytest.fixture(autouse=True)
def _one_thread():
    """The products of a tiny model take less time than threads need to meet."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("fault", quick_first(kinds.KINDS, QUICK))
def test_the_finder_names_what_it_reads_off(fault):
    test_the_finder_names_it(fault)


@pytest.mark.parametrize("fault", quick_first((fault for fault in ALONE if fault.name not in NEEDS_MORE), QUICK))
def test_the_finder_names_what_it_was_not_made_for(fault):
    file, hf_model, ids = files(fault.checkpoint, fault.system)
    with backends.open_system(fault.system) as device, fault.plant(file.module.build_model) as build:
        model = build(hf_model, device, CACHE_LENGTH)
        found = layers.profile(model, hf_model, ids[: 45 + STEPS], 45, file.module.PRECISION).first
    assert found is not None, f"{fault.cause}: not found"
    assert str(found) in fault.points, f"{fault.cause}: taken for one at {found}"
    assert re.search(fault.named, found.why, re.IGNORECASE), f"{fault.cause}, is called {found.why}"


@pytest.mark.parametrize("change", quick_first(HARMLESS, QUICK))
def test_what_is_made_up_for_is_no_divergence(change):
    file, hf_model, ids = files(change.checkpoint, change.system)
    with backends.open_system(change.system) as device, change.plant(file.module.build_model) as build:
        model = build(hf_model, device, CACHE_LENGTH)
        found = layers.profile(model, hf_model, ids[: 45 + STEPS], 45, file.module.PRECISION)
    assert found.first is None, f"{found.first}: {found.first.why}"


def test_a_fault_that_some_users_alone_see_is_found_and_placed():
    file, hf_model, ids = files("tiny-llama", "n150")
    late = contextmanager(kinds.users_16_to_31_at_others_positions)
    with backends.open_system("n150") as device, late(file.module.build_model) as build:
        model = build(hf_model, device, CACHE_LENGTH)
        text = consistency.Text.through(hf_model, ids[:90], CACHE_LENGTH)
        asked = consistency.Probe(model, text, CACHE_LENGTH).users()
        assert asked.ok is False
        assert asked.detail.startswith("users 16 to 31 of 32 differ from HF from decode step 1 on")
        assert layers.profile(model, hf_model, ids[:28], 24, file.module.PRECISION).first is None
        found = layers.profile(model, hf_model, ids[:28], 24, file.module.PRECISION, user=16).first
    assert (str(found), found.phase) == ("layer 0, self_attn.q_rope", "decode")
    assert "rotated for position p -" in found.why


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_finder_names_it(fault):
    file, hf_model, ids = files(fault.checkpoint, fault.system)
    with backends.open_system(fault.system) as device, fault.plant(file.module.build_model) as build:
        model = build(hf_model, device, CACHE_LENGTH)
        if fault.before:
            after = model(torch.tensor([ids[79::-1]])).past_key_values
            model(torch.tensor([ids[:1]]), past_key_values=after)
        found = layers.profile(model, hf_model, ids[: fault.prompt + STEPS], fault.prompt, file.module.PRECISION)
    assert found.first is not None, f"{fault.name} is not seen"
    where, why = (str(found.first), found.first.phase), found.first.why
    assert where == (fault.point, fault.phase), f"{fault.name} is taken for one at {where}: {why}"
    assert fault.words in why, f"{fault.name} is found, and not named: {why}"


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("references"))


def checked(checkpoint, system, cache_dir, items, plant=None):
    """The record of `bringup check --quick`, of some items only."""
    model_py = ROOT / "models" / CHECKPOINTS[checkpoint] / system / "functional" / "model.py"
    settings = Settings(
        str(model_py), model=str(ROOT / "checkpoints" / checkpoint), max_new_tokens=16, cache_dir=cache_dir
    )
    job = Job(settings)
    with (plant or nullcontext)(job.model_file.module.build_model) as build:
        return checks.run(job, quick=True, items=items, build=build)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.item], ids=lambda fault: fault.name)
def test_the_checklist_names_it(fault, cache_dir):
    check = checked(fault.checkpoint, fault.system, cache_dir, [fault.item], fault.plant)
    (item,) = check["items"]
    assert (check["verdict"], item["status"]) == ("fail", "fail"), item
    assert item["summary"].startswith(fault.point + ": "), item["summary"]
    assert fault.words in item["summary"]
    first = check["layers"]["first_divergence"]
    assert (first["phase"], fault.point.endswith(first["point"])) == (fault.phase, True)


def test_the_checklist_passes_a_clean_model(cache_dir):
    check = checked("tiny-llama", "n300", cache_dir, ["decode_modules", "full_decode", "prefill"])
    assert [item["status"] for item in check["items"]] == ["pass"] * 3, check["items"]
    assert check["layers"]["first_divergence"] is None


@pytest.mark.parametrize("system", ["n150", "n300", "t3000"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_nothing_is_found_in_a_clean_model(checkpoint, system):
    file, hf_model, ids = files(checkpoint, system)
    with backends.open_system(system) as device:
        model = file.module.build_model(hf_model, device, CACHE_LENGTH)
        found = layers.profile(model, hf_model, ids[:52], 45, file.module.PRECISION)
    assert found.first is None, f"{found.first}: {found.first.why}"
    assert found.depth == "submodules"
    nearest = max(row["own"]["rel_l2"] / row["own"]["bound"] for row in found.points)
    assert nearest < 0.6, f"a clean point is at {nearest:.2f} of its bound: the next text may be taken for a fault"


def test_the_plants_are_pulled_out_again():
    file, hf_model, ids = files("tiny-llama", "n150")
    for fault in FAULTS:
        with fault.plant(file.module.build_model):
            pass
    with backends.open_system("n150") as device:
        model = file.module.build_model(hf_model, device, CACHE_LENGTH)
        assert layers.profile(model, hf_model, ids[:40], 33, file.module.PRECISION).first is None
