"""What is said before and while something long runs."""

from types import SimpleNamespace

import pytest
import torch

from bringup import console
from bringup.checkpoints.session import Watch, layers_of
from bringup.evaluation import estimate
from bringup.evaluation.teacher_forcing import run
from tests.evaluation import tiny


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_comes_now_and_then(clock, capsys):
    with console.progress("work", 10) as advance:
        for _ in range(10):
            clock[0] += 10
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "work: 2 of 10, about 80 s left",
        "work: 4 of 10, about 60 s left",
        "work: 6 of 10, about 40 s left",
        "work: 8 of 10, about 20 s left",
    ]


def test_short_work_says_nothing(clock, capsys):
    with console.progress("work", 10) as advance:
        for _ in range(10):
            clock[0] += 1
            advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert console.duration(seconds) == text


def test_a_run_counts_the_layers_of_its_prompt_and_then_its_tokens(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, text, total):
            bars.append([text, total, 0])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __call__(self, by=1):
            bars[-1][2] += by

    monkeypatch.setattr("bringup.checkpoints.session.progress", Bar)
    model = tiny.hf_model()
    run(model, [1, 2, 3], [4, 5, 6, 7], watch=Watch("test", layers_of(model, 2)))
    assert bars == [["test, prompt, layers", 2, 2], ["test, tokens", 3, 3]]
    bars.clear()
    run(model, [1, 2, 3], [4, 5], prefill_decode=True, watch=Watch("test", layers_of(model, 2)))
    assert bars[0] == ["test, prompt, layers", 6, 6]
    assert not layers_of(model, 5)


def job(weights, **settings):
    common = dict(max_new_tokens=11, hf_dtype="float32", three_way=True, numerics=None, prefill_decode=False)
    files = [SimpleNamespace(stat=lambda: SimpleNamespace(st_size=2 * weights))]
    return SimpleNamespace(
        config=SimpleNamespace(hidden_size=64, dtype=torch.bfloat16),
        settings=SimpleNamespace(**common | settings),
        activation=SimpleNamespace(name="emulator"),
        source=SimpleNamespace(random_seed=None, weight_files=lambda cache_dir=None: files),
        prompt_ids=[1] * 100,
        given_tokens=None,
        cache_dir=None,
    )


def test_an_estimate_adds_up(monkeypatch):
    """1e9 weights; a step costs 2 s in float32 and 1 s in bfloat16, the prompt 20 s and 10 s."""
    rates = {torch.float32: (2e-9, 20e-9), torch.bfloat16: (1e-9, 10e-9)}
    monkeypatch.setattr(estimate, "rates", lambda dtype, hidden, prompt: rates[dtype])
    monkeypatch.setattr(estimate, "reading_seconds", lambda files: 0)
    text = estimate.of(job(10**9))
    assert text.startswith("about 50 s for the reference")  # 20 + 10 steps of 2, and one pass of 10 in bfloat16
    assert "4 s to build, 30 s on the emulated device" in text
    assert estimate.of(job(10**9, three_way=False)).startswith("about 40 s")
    assert estimate.of(job(10**9, hf_dtype="bfloat16")).startswith("about 20 s")
    assert f"{console.duration(1.5 * (100 + 10))} on the emulated" in estimate.of(job(10**9, prefill_decode=True))
    monkeypatch.setattr(estimate, "reading_seconds", lambda files: 7)
    assert estimate.of(job(10**9)).startswith("about 57 s for the reference (none where it is kept from before), 11 s")


def test_no_estimate_without_a_ground_for_it():
    assert estimate.of(job(10**6)) is None
    assert estimate.of(job(10**9, numerics="exact")) is None
    on_a_board = job(10**9)
    on_a_board.activation.name = "silicon"
    assert estimate.of(on_a_board) is None


def test_reading_is_sampled(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    (tmp_path / "b").write_bytes(bytes(1 << 21))
    assert 0 < estimate.reading_seconds([tmp_path / "a", tmp_path / "b"], sample_bytes=1 << 16) < 10
    assert estimate.reading_seconds([]) == 0


def test_rates_are_of_this_machine():
    step, prompt = estimate.rates(torch.float32, 256, 64)
    assert 0 < step < 1e-6
    assert 0 < prompt < 1e-5
