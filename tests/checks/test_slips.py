"""Slips of the hand, whose truths were written first: found, placed, and named, by mechanisms and not from a list.

Where the finder has no list of what may be wrong, it runs HF's own code with one step or one weight changed
(`suspects.steps`, `suspects.substitutes`).
"""

import re
from functools import cache

import pytest
import torch

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints import sources

backends.activate("emulator")

from bringup.evaluation import layers  # noqa: E402  (needs ttnn)
from tests.checks import slips  # noqa: E402
from tests.checks.quick import quick_first  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_is_passed_over")

STEPS = 7
QUICK = {
    "hard_silu",
    "one_share_of_up_on_both_chips",
    "attention_without_compute_config",
    "tokens_of_the_next_user",
    "up_of_the_stream",
    "hidden_state_in_float32",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """files(slip): the model file, the HF model and ids of a text."""
    into = tmp_path_factory.mktemp("slips")

    @cache
    def of(model, system):
        source = sources.find_source(str(slips.checkpoint(model, into)))
        ids = sources.load_tokenizer(source)((slips.ROOT / "prompts" / "long.txt").read_text())["input_ids"]
        file = model_files.load_model_file(slips.model_file(model, system), system)
        return file, sources.load_hf_model(source), ids

    return lambda slip: of(slip.model, slip.system)


def first(slip, files):
    file, hf_model, ids = files(slip)
    precision = layers.precision_of(file.module)
    with backends.open_system(slip.system) as device, slip.plant(file.module.build_model) as build, torch.no_grad():
        model = build(hf_model, device, 128)
        return layers.profile(model, hf_model, ids[: slip.prompt + STEPS], slip.prompt, precision, slip.user).first


@pytest.mark.parametrize("slip", quick_first(slips.SLIPS, QUICK))
def test_found_where_it_is_and_named(slip, files):
    found = first(slip, files)
    assert found is not None, f"{slip.cause}: not found"
    assert str(found) in slip.points, f"{slip.cause}: taken for one at {found}: {found.why}"
    assert slip.phase in (None, found.phase), f"{slip.cause}: {found.phase}"
    assert re.search(slip.named, found.why), f"{slip.cause}, is called {found.why}"


@pytest.mark.parametrize("change", quick_first(slips.HARMLESS, QUICK))
def test_no_alarm_at_a_harmless_change(change, files):
    found = first(change, files)
    assert found is None, f"{found}: {found.why}"
