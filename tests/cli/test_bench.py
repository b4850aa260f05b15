"""The verdicts and the page of `bringup bench`, from figures made up here; contenders that take turns; the small
measurements beside the models."""

import argparse
import json

import pytest

from bringup import cli
from bringup.bench import command as bench
from bringup.bench import parts as bench_parts
from bringup.bench.contenders import Contender, Job, Order
from bringup.errors import BringupError


def taken(prefill, decode):
    return {"prefill": prefill, "decode": decode}


@pytest.fixture
def result():
    parts = {
        "conversion_gb_per_second": 7.2, "ttnn_conversion_gb_per_second": 3.6, "ttnn_conversion": "recorded: somewhere",
        "op_overhead_microseconds": {"ttnn.add": 14.0, "ttnn.silu": 8.0}, "eval_help_seconds": 0.04,
        "demo_seconds": 9.0, "demo_gib": 0.5,
        "exact_macs_per_second_per_core": {"LoFi, bf16 destination": 1.2e10},
    }  # fmt: skip
    one = {
        "hf_bf16": taken([4.0, 1.0, 4.0], [0.4, 0.4, 0.4]), "hf_fp32": taken([2.0, 2.0, 2.0], [0.2, 0.2, 0.5]),
        "n150": taken([2.2, 1.5, 3.0], [0.1, 0.1, 0.2]),
    }  # fmt: skip
    many = {k: taken(v["prefill"], [2 * s for s in v["decode"]]) for k, v in one.items()}
    kinds = {k: {"load_seconds": 1, "peak_rss_bytes": 2**30} for k in one}
    limits = {"ATEN_CPU_CAPABILITY": "avx2"}
    result = {
        "machine": {
            "processor": "a processor", "cores": 2, "torch": "2", "threads": 1, "class": "AVX2", "products": "fp32",
            "why": "AVX2 without bf16 units", "limits": limits,
        },
        "repeats": 3, "layers": 2, "seed": 0, "clock": "wall", "load_average": [0.1, 0.2], "parts": parts,
        "groups": {"n150": {"model": "org/model", "layers": 2, "jobs": {"128": one, "32 users": many},
                            "contenders": kinds}},
    }  # fmt: skip
    return result | bench.figures(result)


def test_ratios_are_the_median_over_turns_of_the_faster_hf(result):
    assert result["n150 128 prefill"] == pytest.approx(1.5)  # 2.2/2, 1.5/1, 3/2
    assert result["n150 128 prefill spread"] == pytest.approx([1.1, 1.5])
    assert result["n150 128 decode"] == pytest.approx(0.5)
    assert "n150 32 users prefill" not in result  # the prompt is run once


def test_every_target_that_was_measured_is_judged(result):
    judged = {what: (value, target, met) for what, value, target, met in bench.judged(result)}
    assert judged["a prompt of 128, of HF's"] == ("1.50x (1.10x to 1.50x)", "<= 1.20x", False)
    assert judged["a decode step of one user, of HF's"] == ("0.50x (0.50x to 0.50x)", "<= 0.70x", True)
    assert judged["bfloat16 weights to bfloat8_b, of the ttnn wheel's own speed"] == ("2.0x", ">= 3.0x", False)
    assert "a prompt of 1024, of HF's" not in judged
    names = {f"{g} {j} {p}" for g, group in bench.GROUPS.items() for j in group.jobs for p in ("prefill", "decode")}
    assert {name for name, *_ in bench.TARGETS if " " in name} <= names


def test_eight_chips_are_compared_with_one(result):
    times = {"n150": taken([1.0], [0.1]), "t3000": taken([1.5], [0.1])}
    result["groups"] = {"t3000": {"jobs": {"128": times}}}
    found = bench.figures(result)
    assert (found["t3000 128 prefill"], found["t3000 128 decode"]) == (1.5, 1)


def test_the_page_shows_what_was_measured_and_on_what(result, tmp_path):
    kept, page = tmp_path / "run.json", tmp_path / "speed.md"
    kept.write_text(json.dumps(result))
    assert cli.main(["bench", "--runs", str(kept), str(kept), "--document", str(page)]) == 0
    text = page.read_text()
    assert text.count("## AVX2, by variables") == 2
    assert "AVX2, which the variables ATEN_CPU_CAPABILITY make of it; products fp32 (AVX2 without bf16 units)" in text
    assert "| a prompt of 128, of HF's | <= 1.20x | 1.50x (1.10x to 1.50x) | **no** |" in text
    assert "| one chip | 128 | n150 | 2.200 s | 0.1000 s | 1.00 GiB |" in text
    assert "2 layers of each model" in text
    assert "the ttnn wheel 3.60 GB/s (recorded: somewhere)" in text
    assert "`ttnn.add` 14 us, `ttnn.silu` 8 us." in text
    assert "LoFi, bf16 destination 12.0 billion" in text
    assert "| `bringup demo`, the second time | < 15 s | 9 s | yes |" in text
    assert "- `bringup demo`: 9.0 s, peak memory 0.50 GiB." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--groups", "n150,n1000"], "unknown group"), (["--jobs", "5"], "unknown job"), (["--runs", "x"], "--document")],
)
def test_bad_arguments_are_refused(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_contender_that_fails_says_why():
    order = Order("n150", "org/unknown", "no/such/model.py", "n150", "fast", 1, 0, 256, "wall")
    with pytest.raises(BringupError, match="n150 failed"):
        Contender(order)


class Made:
    """A contender whose prompt takes as long as its kind says."""

    load_seconds = 0
    asked = []

    def __init__(self, order):
        self.kind = order.kind

    def turn(self, job):
        self.asked.append((self.kind, job.prefill))
        return [{"hf_bf16": 4, "hf_fp32": 1, "n150": 1}[self.kind] * job.prefill, 1.0]

    def close(self):
        return 0


def test_a_slow_hf_has_no_turn_at_longer_prompts(monkeypatch):
    monkeypatch.setattr(bench, "Contender", Made)
    args = argparse.Namespace(jobs=None, layers=1, repeats=1, seed=0, clock="wall")
    jobs = bench.compete("n150", args)["jobs"]
    assert {name: list(times) for name, times in jobs.items()} == {
        "128": ["hf_bf16", "hf_fp32", "n150"],
        "1024": ["hf_fp32", "n150"],
        "32 users": ["hf_bf16", "hf_fp32", "n150"],
    }
    assert ("hf_bf16", 1024) not in Made.asked


def test_a_command_is_timed_and_one_that_fails_says_why(monkeypatch):
    held = bytearray(2**29)  # a command's peak memory is not that of who measures it
    held[:: 2**12] = b"1" * 2**17
    monkeypatch.setattr(bench_parts, "COMMANDS", {"help": ["--version"]})
    found = bench_parts.commands("cpu")
    assert found["help_seconds"] > 0
    assert 0.001 < found["help_gib"] < 0.5
    monkeypatch.setattr(bench_parts, "COMMANDS", {"help": ["nothing"]})
    with pytest.raises(BringupError, match="bringup nothing failed"):
        bench_parts.commands()
    assert len(held) == 2**29


@pytest.mark.slow
def test_contenders_take_turns():
    model_py = bench.PROJECT / "models" / bench.LLAMA / "n150/functional/model.py"
    job, kinds = Job(2, 33, 2), ("hf_bf16", "n150")
    made = [Contender(Order(k, bench.LLAMA, str(model_py), "n150", "fast", 1, 0, 256, "cpu")) for k in kinds]
    for _ in range(2):
        for contender in made:
            seconds = contender.turn(job)
            assert len(seconds) == 3
            assert min(seconds) > 0
    assert min(contender.close() for contender in made) > 2**28


def test_without_the_wheel_the_recorded_speed_is_said_to_be_recorded(monkeypatch):
    monkeypatch.setenv("BRINGUP_TTNN_PYTHON", "/no/such/python")
    assert bench_parts.library_conversion_rate() == (bench_parts.TTNN_GB_PER_SECOND, bench_parts.TTNN_SOURCE)


def test_the_shortest_run_counts():
    times = iter([0.03, 0.001, 0.02, 0.02, *[0.02] * 50])

    def run():
        import time

        time.sleep(next(times))

    assert bench_parts.best(run, seconds=0.05) < 0.02
