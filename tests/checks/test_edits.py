"""Edits of model files and blocks: each fault is found where it is and named, nothing is said of harmless ones.

The faults were written down before the finder was asked about any. They are edits of source, so that they come with
what a hand really changes: a paged cache, a prompt in chunks, a router, a state, another family's layer.
"""

import re

import pytest

from bringup import backends

backends.activate("emulator")

from tests.checks import edits, edits_again, edits_planted  # noqa: E402
from tests.checks.quick import quick_first  # noqa: E402
from tests.new.families import FAMILIES, MIXED  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_is_passed_over")

QUICK = {
    "attends_before_the_cache_is_written",
    "q_bias_in_metas_order",
    "approximate_exp",
    "latent_norm_left_out",
    "state_stays",
    "b_and_c_exchanged",
    "halves_where_neighbours_turn",
    "paged_in_chunks",
    "declared_in_hifi2",
}
QUICK_FAMILIES = {"dots1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return edits.Files(tmp_path_factory.mktemp("edits"))


@pytest.mark.parametrize("edit", quick_first([*edits_planted.EDITS, *edits_again.EDITS], QUICK))
def test_found_where_it_is_and_named(edit, files):
    found = edits.first(edit, files)
    assert found is not None, f"{edit.cause}: not found"
    assert str(found) in edit.places, f"{edit.cause}: taken for one at {found}: {found.why}"
    assert edit.phase in (None, found.phase), f"{edit.cause}: {found.phase}"
    assert re.search(edit.named, found.why), f"{edit.cause}, is called {found.why}"


@pytest.mark.parametrize("edit", quick_first(edits_planted.HARMLESS, QUICK))
def test_no_alarm_at_a_harmless_change(edit, files):
    found = edits.first(edit, files)
    assert found is None, f"{found}: {found.why}"


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=() if f in QUICK_FAMILIES else pytest.mark.slow) for f in FAMILIES | MIXED]
)
def test_no_alarm_in_a_clean_file(family, files):
    found = edits.first(edits.Edit("clean", edits.NEW + family, ()), files)
    assert found is None, f"{found}: {found.why}"
