"""Every recorded call of the library, made on the emulator."""

import pytest

from tests.contract import score


@pytest.fixture(scope="module")
def scores():
    return {system: score.score(system) for system in score.SYSTEMS}


def test_the_record_is_whole(scores):
    cases = sum(map(len, scores.values()))
    assert cases == 7427 + 1352 + 8255  # of 7,436, 1,362 and 8,265: the others need more than their arguments


@pytest.mark.parametrize("system", score.SYSTEMS)
def test_every_call_agrees_or_is_a_known_disagreement(system, scores):
    reasons = score.known()
    wrong = [(case, what) for case, what in scores[system] if what is not None and case["id"] not in reasons]
    assert not wrong, f"{len(wrong)} unknown disagreements:\n" + "\n".join(
        f"  {case['id']} {case['op']}: {what.splitlines()[0][:200]}" for case, what in wrong[:40]
    )


def test_known_disagreements_still_disagree(scores):
    disagreeing = {case["id"] for found in scores.values() for case, what in found if what is not None}
    assert not sorted(set(score.known()) - disagreeing), "these agree now: take them out of known.json"


def test_no_call_that_the_library_refuses_is_accepted(scores):
    wrong = [
        (case["id"], case["op"])
        for found in scores.values()
        for case, what in found
        if what is not None and what.startswith("accepted") and score.FIRST.match(case["op"])
    ]
    assert not wrong


def test_the_document_is_current(scores):
    assert score.DOCUMENT.read_text() == score.document(scores), "python -m tests.contract.score --write"
