"""Faults that the finder was not written for are found where they are and named, and never called something else.

Harmless changes raise no alarm.
"""

import re
from pathlib import Path

import pytest

from bringup import backends, checks
from bringup.evaluation.run import Job, Settings

backends.activate("emulator")

from tests.checks.faults import CHECKPOINTS  # noqa: E402  (needs ttnn)
from tests.checks.planted import PLANTED, qwen2  # noqa: E402
from tests.checks.rewritten import HARMLESS  # noqa: E402

ROOT = Path(__file__).parents[2]
ITEMS = [name for name in checks.checklist.NAMES if name != "multi_device"]
# how the parts of a reason begin that state no cause
MEASURED = r"relative L2|worst at position|PCC|only (in|from)|no value of"


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module")
def tiny_qwen2(tmp_path_factory):
    """(model.py, checkpoint)."""
    into = tmp_path_factory.mktemp("qwen2")
    return qwen2.model_file(into), qwen2.checkpoint(into / "tiny-qwen2")


@pytest.fixture
def check(request, cache_dir):
    """check(change): the record of `bringup check --quick`, without other meshes."""

    def run(change):
        if change.checkpoint == "tiny-qwen2":
            model_py, checkpoint = request.getfixturevalue("tiny_qwen2")
        else:
            model_py = ROOT / "models" / CHECKPOINTS[change.checkpoint] / change.system / "functional" / "model.py"
            checkpoint = ROOT / "checkpoints" / change.checkpoint
        settings = Settings(str(model_py), str(checkpoint), max_new_tokens=48, min_new_tokens=48, cache_dir=cache_dir)
        job = Job(settings)
        with change.plant(job.model_file.module.build_model) as build:
            return checks.run(job, quick=True, items=ITEMS, build=build)

    return run


def of_a_point(summary):
    """A block that the summary names by HF's name, as the point of a layer: keys and values are its caches."""
    block = re.match(r"model\.layers\.(\d+)\.(\S+) (prefill|decode) [^:]*: ", summary)
    if block is None:
        return summary
    layer, name, phase = block.groups()
    name = re.sub(r"\.(keys|values)$", lambda part: f".{part[1][0]}_cache", name)
    return f"layer {layer}, {name}: {summary[block.end() :]} ({phase})"


@pytest.mark.slow
@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_found_where_it_is_and_not_taken_for_another(fault, check):
    failed = [item["summary"] for item in check(fault)["items"] if item["status"] == "fail"]
    assert failed, f"{fault.cause}: not found"
    first = of_a_point(failed[0])
    assert first.startswith(tuple(f"{point}:" for point in fault.points)), f"{fault.cause}: taken for one at {first}"
    assert fault.phase is None or f"({fault.phase})" in first, f"{fault.cause}: {first}"
    reason = first.partition(": ")[2]
    causes = [part for part in reason.split("; ") if not re.match(MEASURED, part)]
    assert causes, f"{fault.cause}: found and not named"
    assert re.search(fault.named, "; ".join(causes), re.IGNORECASE), f"{fault.cause}, is called {causes}"


@pytest.mark.slow
@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.name)
def test_no_alarm_at_a_harmless_change(change, check):
    record = check(change)
    assert [item["summary"] for item in record["items"] if item["status"] == "fail"] == []
    assert record["layers"]["first_divergence"] is None
