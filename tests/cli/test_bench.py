"""The verdicts and the page of `bringup bench`, from figures made up here; the small measurements beside the models."""

import pytest

from bringup.bench import command as bench
from bringup.bench import parts as bench_parts

RUN = {"prefill_seconds": 0.5, "prefill_spread": [0.4, 0.6], "decode_seconds": 0.1, "decode_spread": [0.08, 0.2]}


@pytest.fixture
def result():
    parts = {
        "conversion_gb_per_second": 7.2, "ttnn_conversion_gb_per_second": 3.6, "ttnn_conversion": "recorded: somewhere",
        "op_overhead_microseconds": {"ttnn.add": 14.0, "ttnn.silu": 8.0}, "eval_help_seconds": 0.04,
        "exact_macs_per_second_per_core": {"LoFi, bf16 destination": 1.2e10},
    }  # fmt: skip
    result = {
        "model": "org/model", "system": "n150", "machine": "two cores", "prefill": 128, "decode": 16, "repeats": 3,
        "load_average": 0.1, "load_average_after": 0.2, "parts": parts,
        "hf_bf16": RUN | {"peak_rss_bytes": 2**30}, "emulator": RUN | {"decode_seconds": 0.12, "peak_rss_bytes": 2**31},
    }  # fmt: skip
    return result | bench.ratios(result)


def test_every_target_is_judged(result):
    judged = {what: (value, target, met) for what, value, target, met in bench.judged(result)}
    assert len(judged) == len(bench.TARGETS)
    assert judged["a decode step, of HF's in bf16"] == ("1.20x", "<= 1.00x", False)
    assert judged["a prompt, of HF's in bf16"] == ("1.00x", "<= 2.00x", True)
    assert judged["bfloat16 weights to bfloat8_b, of the ttnn wheel's own speed"] == ("2.0x", ">= 3.0x", False)
    assert result["decode_vs_hf_bf16_best"] == 1


def test_what_was_not_run_is_not_judged(result):
    del result["decode_vs_hf_bf16"]
    assert len(list(bench.judged(result))) == len(bench.TARGETS) - 1


def test_the_page_shows_what_was_measured(result):
    page = bench.document(result)
    assert "| a decode step, of HF's in bf16 | <= 1.00x | 1.20x | **no** |" in page
    assert "| emulator | 0.500 s | 0.400 s | 0.1200 s | 0.0800 s | 2.00 GiB |" in page
    assert "the ttnn wheel 3.60 GB/s (recorded: somewhere)" in page
    assert "`ttnn.add` 14 us, `ttnn.silu` 8 us." in page
    assert "| LoFi, bf16 destination | 12.0 |" in page


def test_without_the_wheel_the_recorded_speed_is_said_to_be_recorded(monkeypatch):
    monkeypatch.setenv("BRINGUP_TTNN_PYTHON", "/no/such/python")
    assert bench_parts.library_conversion_rate() == (bench_parts.TTNN_GB_PER_SECOND, bench_parts.TTNN_SOURCE)


def test_the_shortest_run_counts():
    times = iter([0.03, 0.001, 0.02, 0.02, *[0.02] * 50])

    def run():
        import time

        time.sleep(next(times))

    assert bench_parts.best(run, seconds=0.05) < 0.02
