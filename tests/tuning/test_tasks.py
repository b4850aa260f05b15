"""`bringup tasks`: lm_eval's three kinds of questions on HF and the device, paired by question, and kept."""

import argparse
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="pip install 'ttnn-bringup[tasks]'")

from transformers import AutoModelForCausalLM, AutoTokenizer

from bringup.errors import BadInput
from bringup.evaluation import tasks as driver
from bringup.tuning import tasks

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
TINY = ROOT / "checkpoints/tiny-llama"
OURS = ROOT / "tests/evaluation/tasks"


def run(folder, *words):
    parser = argparse.ArgumentParser()
    tasks.add_arguments(parser)
    fixed = ["--model", TINY, "--include", OURS, "--cache_dir", folder / "cache", "--out", folder / "out"]
    tasks.run(parser.parse_args([str(w) for w in (MODEL, *fixed, *words)]))
    return json.loads((folder / "out" / "tasks.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def result(folder):
    return run(folder, "--tasks", "continues,writes,reads")


@pytest.fixture(scope="module")
def hf():
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32), AutoTokenizer.from_pretrained(TINY)


def log_likelihood(hf, context, continuation):
    """By a plain forward pass over the whole text."""
    model, tokenizer = hf
    ids, start = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(rows[i - 1, ids[i]]) for i in range(start, len(ids)))


def test_the_three_kinds_of_question_on_both(result):
    assert result["tasks"].keys() == {"continues", "writes", "reads"}
    row = result["tasks"]["continues"]["metrics"]["acc,none"]
    assert row["hf"][0] >= 4 / 6, "the checkpoint knows its text"
    assert abs(row["difference"][0]) <= 1 / 6
    assert row["difference"][1] < row["difference"][0] < row["difference"][2]
    reads = result["tasks"]["reads"]["metrics"]["bits_per_byte,none"]
    assert reads["hf"][0] != reads["device"][0]
    assert reads["device"][0] == pytest.approx(reads["hf"][0], rel=0.01)
    assert reads["difference"] is None


def test_the_right_answer_is_the_likelier_one(hf, result, folder):
    questions = __import__("runpy").run_path(str(OURS / "questions.py"))["SENTENCES"]
    right = [max(choices, key=lambda c: log_likelihood(hf, text, c)) == choices[i] for text, choices, i in questions]
    assert result["tasks"]["continues"]["metrics"]["acc,none"]["hf"][0] == pytest.approx(sum(right) / len(right))


def test_the_three_methods_answer_as_lm_evals_own_hf_model(hf):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def ask(lm, method, *arguments):
        requests = [Instance(request_type=method, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]
        return getattr(lm, method)(requests, disable_tqdm=True)

    model, tokenizer = hf
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, max_length=64, batch_size=1, device="cpu")
    ours = driver.Backend(model, tokenizer, 64)
    pairs = [("A list is a", " mutable sequence"), ("Return a new ", "list"), ("", "A tuple"), ("A list", " banana")]
    for (got, greedy), (want, theirs_greedy) in zip(
        ask(ours, "loglikelihood", *pairs), ask(theirs, "loglikelihood", *pairs), strict=True
    ):
        assert got == pytest.approx(want, abs=1e-3)
        assert greedy == theirs_greedy
    texts = [("A list is a mutable sequence. " * 20,), ("Short.",)]  # the first takes several windows
    want = ask(theirs, "loglikelihood_rolling", *texts)
    assert ask(ours, "loglikelihood_rolling", *texts) == pytest.approx(want, abs=1e-2)
    asked = [("A tuple is an immutable", {"until": stops, "max_gen_toks": 12, "do_sample": False})
             for stops in (["."], [" "], ["\n"])]  # fmt: skip
    assert ask(ours, "generate_until", *asked) == ask(theirs, "generate_until", *asked)


def test_long_contexts_lose_their_begin_and_are_counted(hf):
    model, tokenizer = hf
    backend = driver.Backend(model, tokenizer, 32)
    ids = tokenizer("A list is a mutable sequence. " * 20)["input_ids"]
    score, _ = backend._score(ids[:-2], ids[-2:])
    assert backend.cut == 1
    assert score == driver.Backend(model, tokenizer, 32)._score(ids[-33:-2], ids[-2:])[0]
    with pytest.raises(BadInput, match="longer than the cache"):
        backend._score(ids[:1], ids[1:])


def test_what_is_there_is_not_run_again(folder, result, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "measure", None)
    assert run(folder, "--tasks", "continues,writes,reads") == result
    assert "6 of 6 runs are there already" in capsys.readouterr().out


def test_an_interrupted_task_goes_on_at_its_question(folder, monkeypatch):
    asked, real = [], driver.Backend._score

    def score(self, context, continuation):
        asked.append((context, continuation))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return real(self, context, continuation)

    monkeypatch.setattr(driver.Backend, "_score", score)
    words = ("--tasks", "continues", "--limit", "3", "--out", folder / "interrupted")
    with pytest.raises(KeyboardInterrupt):
        run(folder, *words)
    run(folder, *words)
    assert len(asked) == 5 + (9 - 4) + 9, "four answers of HF's nine were kept; the device answers its nine"
    assert (folder / "interrupted" / "tasks.json").is_file()


def test_a_sampled_task_an_unknown_one_and_no_values(folder, hf):
    with pytest.raises(BadInput, match=r"no such task(.|\n)*nosuch"):
        run(folder, "--tasks", "continues,nosuch")
    with pytest.raises(BadInput, match="--include is no folder"):
        run(folder, "--tasks", "continues", "--include", folder / "nowhere")
    with pytest.raises(BadInput, match="which tasks"):
        run(folder, "--tasks", ",")
    request = type("Request", (), {"args": ("A", {"do_sample": True, "temperature": 1.0})})()
    with pytest.raises(BadInput, match="samples its answers"):
        driver.Backend(*hf, 64).generate_until([request])
