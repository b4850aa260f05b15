"""A sample of the recorded calls through the real library: the record and the mock cluster here are right."""

import json

import pytest

from bringup.backends import mock
from tests.mock import contract
from tests.mock.test_mock import ROOT, needs_wheel

SYSTEMS = ("n150", "n300", "t3000", "t3000_1x8", "p150")
SCRIPT = """
import json, sys
from bringup.backends import mock
system = sys.argv[1]
mock.setup(system)
import ttnn
from tests.mock import contract
device = mock.open_system(system)
calls, agreed = contract.Calls(ttnn, device), 0
for case in contract.sample(system):
    print("CASE", case["id"], case["op"], flush=True)
    found = calls.disagreement(case)
    agreed += found is None
    if found is not None:
        print("WRONG", json.dumps([case["id"], case["op"], found]), flush=True)
mock.close_system(system, device)
print("AGREED", agreed)
"""


def test_every_op_of_the_record_is_in_the_sample():
    sample = contract.sample("n150")
    assert len({c["op"] for c in sample}) > 130
    assert {"out", "error"} <= {key for c in sample for key in c}
    assert all(map(contract.sample, SYSTEMS))


@needs_wheel
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_library_still_answers_as_recorded(system, tmp_path):
    done = mock.run_child(["-c", SCRIPT, system], timeout=600, variables={"PYTHONPATH": str(ROOT)})
    lines = done.output.splitlines()
    tried = [line for line in lines if line.startswith("CASE ")]
    assert done.code == 0, f"{done.describe()} after {tried[-1:]}\n" + "\n".join(lines[-5:])
    wrong = [json.loads(line.removeprefix("WRONG ")) for line in lines if line.startswith("WRONG ")]
    assert not wrong, "\n".join(f"{op} ({case}): {what}" for case, op, what in wrong)
    assert lines[-1] == f"AGREED {len(contract.sample(system))}"
