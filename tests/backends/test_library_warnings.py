"""The library's warnings where commands repeat them: on the screen at the end, in a check, in a sweep, in doctor."""

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import ttnn_emulator as ttnn
from bringup import backends

backends.activate("emulator")

from bringup.backends import doctor, library_warnings  # noqa: E402
from bringup.blocks.precision import Precision, compute_config  # noqa: E402
from bringup.checks import checklist  # noqa: E402
from bringup.checks.outcome import Outcome  # noqa: E402
from bringup.tuning import results  # noqa: E402

HIFI4 = (
    "On Wormhole with fp32 accumulation, output accuracy can be worse with HiFi4 than HiFi3 due to a hardware bug. "
    "Prefer using HiFi3 with fp32 accumulation on Wormhole."
)


def product(device, fidelity="HiFi4"):
    x = ttnn.from_torch(torch.zeros(32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    return ttnn.matmul(x, x, compute_kernel_config=compute_config(fidelity))


def test_the_defaults_give_none(device):
    precision = Precision.of(ttnn.bfloat16)
    for config in (precision.linear, precision.norm, precision.sdpa):
        assert config.math_fidelity is ttnn.MathFidelity.HiFi3
        assert config.fp32_dest_acc_en
    with library_warnings.collected() as found:
        product(device, "HiFi3")
    assert found == []


def test_they_are_collected_by_the_innermost(device):
    with library_warnings.collected() as outer, library_warnings.collected() as inner:
        product(device)
        product(device)
    assert (outer, inner) == ([], [HIFI4])


PROGRAM = """
import torch
from bringup import backends
backends.activate("emulator", "n150")
import ttnn
from bringup.blocks.precision import compute_config
with backends.open_system("n150") as device:
    x = ttnn.from_torch(torch.zeros(32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    ttnn.matmul(x, x, compute_kernel_config=compute_config("HiFi4"))
    ttnn.matmul(x, x, compute_kernel_config=compute_config("HiFi4"))
print("the last line")
"""


def test_a_command_tells_them_at_its_end_on_stderr():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == "the last line\n"
    assert done.stderr.splitlines() == [f"warning from the library: {HIFI4}"]


def test_they_are_read_from_the_log_of_the_wheel():
    log = f"""2026-11-27 17:35:56.634 | warning  |          Device | Currently using mock cluster (tt_cluster.cpp:258)
2026-11-27 17:36:02.444 | critical |          Always | TT_FATAL: no (assert.hpp:104)
2026-11-27 17:36:03.000 | warning  |              Op | {HIFI4} (compute_kernel_config.cpp:66)
2026-11-27 17:36:04.000 | warning  |              Op | {HIFI4} (compute_kernel_config.cpp:66)
not a line of it"""
    assert library_warnings.read(log.splitlines()) == [HIFI4]


def test_a_check_has_them_as_evidence_once(device, monkeypatch):
    def ask(context):
        product(device)
        return Outcome("pass", "fine", ["a figure"])

    class Context:
        broken, records = None, {}
        job = SimpleNamespace(model_file=SimpleNamespace(path=None))
        __enter__, __exit__ = (lambda self: self), (lambda self, *_: None)
        facts = found = dict
        hf_alone = lambda self: None  # noqa: E731

    items = [checklist.Item(name, name, ask) for name in ("first", "second")]
    monkeypatch.setattr(checklist, "Context", lambda *args, **kwargs: Context())
    monkeypatch.setattr(checklist, "chosen", lambda names, model_py: items)
    first, second = checklist.run(None)["items"]
    assert first["evidence"] == ["a figure", f"warning: the library: {HIFI4}"]
    assert second["evidence"] == ["a figure"]


def test_a_sweep_names_the_points(capsys):
    row = {"fidelity": "HiFi4", "destination": "fp32", "warnings": [HIFI4], "weights_bytes": 1, "pareto": True}
    row |= {"predicted": {"tokens_per_second_per_user": 1.0, "ttft_seconds": 1.0}}
    row |= {"accuracy": {"kl_mean": 1.0, "rel_l2": 1.0, "top1": 1.0, "top5": 1.0}}
    results.show([row, row | {"fidelity": "HiFi3", "warnings": []}], ("fidelity", "destination"))
    assert f"warning from the library, HiFi4-fp32: {HIFI4}" in capsys.readouterr().out


def test_doctor_names_the_erratum(capsys):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    doctor.run(parser.parse_args(["--backend", "emulator", "--offline"]))
    said = " ".join(capsys.readouterr().out.split())
    assert "Wormhole, HiFi4 with an fp32 destination: single elements of a product are off" in said


@pytest.fixture
def device():
    opened = ttnn.open_device(device_id=0)
    yield opened
    ttnn.close_device(opened)
