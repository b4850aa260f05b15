"""A whole evaluation in this process: what is interrupted goes on, what is built is watched, what is given is used."""

import argparse
import json

import pytest
import torch

from bringup import backends
from bringup.checkpoints import mapped, reference, sources
from bringup.errors import BadInput, ModelFailed, guarded
from bringup.evaluation import command, run_eval, teacher_forcing, texts, uploads
from bringup.evaluation.run import Job, Settings
from bringup.files import PROJECT as ROOT
from tests.evaluation import tiny

LLAMA = ROOT / "models" / "meta-llama" / "Llama-3.2-1B" / "n150" / "functional" / "model.py"
TINY_LLAMA = ROOT / "checkpoints" / "tiny-llama"


@pytest.fixture(scope="module", autouse=True)
def emulator():
    backends.activate("emulator")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny.save(folder / "checkpoint")
    (folder / "ids.txt").write_text("1, 17, 33, 200, 5")
    return folder


def settings(folder, file="wrapped_hf.py", **changes):
    common = dict(model=str(folder / "checkpoint"), prompt_ids_file=str(folder / "ids.txt"), max_new_tokens=6)
    return Settings(**{"model_py": str(tiny.FILES / file), "cache_dir": str(folder / "cache"), **common, **changes})


def evaluate(job):
    found = job.reference()
    with job.open_model() as (model, device):
        return job.measure(model, device, found)


def arguments(add, *words):
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args([str(word) for word in words])


# -- interrupted ------------------------------------------------------------------------------------------------------


def test_an_interrupted_device_run_keeps_the_reference(folder, tmp_path, capsys):
    words = ["--model", folder / "checkpoint", "--prompt_ids_file", folder / "ids.txt", "--cache_dir", tmp_path]
    words += ["--max_new_tokens", 4]
    assert guarded(command.run, arguments(command.add_arguments, tiny.FILES / "interrupted.py", *words)) == 130
    assert guarded(command.run, arguments(command.add_arguments, tiny.FILES / "wrapped_hf.py", *words)) == 0
    out = capsys.readouterr()
    assert "interrupted" in out.err
    assert json.loads(out.out.splitlines()[-1])["reference"]["cached"] is True


def test_an_interrupted_reference_goes_on_where_it_was(tmp_path, monkeypatch):
    source = sources.find_source(str(tiny.save(tmp_path / "checkpoint")))
    model, calls = sources.load_hf_model(source), []

    def get(cache, stop=99):
        def count(module, arguments):
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt

        calls.clear()
        hook = model.register_forward_pre_hook(count)
        try:
            return reference.get(source, [1, 17, 33], 12, cache_dir=tmp_path / cache, load=lambda: model)
        finally:
            hook.remove()

    whole = get("whole")
    assert len(calls) == 12
    monkeypatch.setattr(reference, "SECONDS_PER_PARTIAL", 0)
    with pytest.raises(KeyboardInterrupt):
        get("cache", stop=9)
    resumed = get("cache")
    assert len(calls) == 4, "eight tokens were there: one pass over them gives the ninth, and three steps the rest"
    assert resumed.tokens == whole.tokens
    torch.testing.assert_close(resumed.logits, whole.logits, atol=1e-4, rtol=1e-4)
    assert not resumed.cached
    assert [p.suffix for p in (tmp_path / "cache" / "references").iterdir()] == [".safetensors"]


# -- given texts, and HF in bf16 --------------------------------------------------------------------------------------


def test_a_given_text_is_led_through(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "prompts" / "prose.txt").read_text()[:400])
    job = Job(Settings(str(LLAMA), str(TINY_LLAMA), text_file=str(text), max_new_tokens=8, cache_dir=str(tmp_path)))
    ids = job.tokenizer(text.read_text().strip())["input_ids"]
    assert (job.prompt_ids, job.given_tokens) == (ids[: len(ids) // 2], ids[len(ids) // 2 :][:8])
    found = job.reference()
    assert found.tokens == job.given_tokens
    hf = sources.load_hf_model(job.source).float()
    with torch.inference_mode():
        logits = hf(torch.tensor([ids])).logits[0, len(job.prompt_ids) - 1 :][:8]
    torch.testing.assert_close(found.logits, logits, atol=1e-3, rtol=1e-3)
    with job.open_model() as (model, device):
        result = job.measure(model, device, found)
    positions = result["positions"]
    assert [p["token"] for p in positions] == job.given_tokens
    assert [p["expected"] for p in positions] == logits.argmax(-1).tolist()
    assert [p["expected"] for p in positions] != job.given_tokens, "the text is no harder than the model's own"
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(job.given_tokens))
    assert result["perplexity_reference"] == pytest.approx(nll.exp().item(), rel=1e-3)
    assert result["text_file"].endswith("text.txt")


def test_one_job_measures_both_kinds_of_text(tmp_path):
    job = Job(Settings(str(LLAMA), str(TINY_LLAMA), prompt="A list is", max_new_tokens=4, cache_dir=str(tmp_path)))
    own, given = job.reference(), job.reference(text_file=ROOT / "prompts" / "prose.txt")
    assert (own.text_file, given.text_file) == (None, "prompts/prose.txt")
    assert len(given.prompt_ids) == texts.GIVEN_PROMPT_TOKENS
    assert (len(own.tokens), len(given.tokens)) == (4, 4)
    with job.open_model() as (model, device):
        results = [job.measure(model, device, found) for found in (own, given)]
    assert [r["prompt_tokens"] for r in results] == [len(job.prompt_ids), 128]
    assert results[1]["bf16"]["n"] == 4


def test_hf_in_bf16_stands_beside_the_device(folder):
    job = Job(settings(folder))
    found, result = job.reference(), evaluate(job)
    hf = tiny.hf_model(torch.bfloat16)
    logits, _ = teacher_forcing.run(hf, job.prompt_ids, found.tokens)
    distance = (logits - found.logits).norm() / found.logits.norm()
    assert result["bf16"]["rel_l2"] == pytest.approx(distance.item(), rel=0.3)  # one pass rounds elsewhere than steps
    assert result["bf16"]["rel_l2"] == pytest.approx(result["rel_l2"], rel=0.3), "this device is HF in bf16"
    assert len(result["bf16"]["positions"]) == 6
    assert Job(settings(folder, three_way=False)).reference().bf16 is None
    assert Job(settings(folder, hf_dtype="bfloat16")).reference().bf16 is None


def test_texts_that_cannot_be_used(folder, tmp_path):
    (tmp_path / "short.txt").write_text("\n")
    with pytest.raises(BadInput, match="no tokenizer for the text"):
        Job(settings(folder, prompt_ids_file=None, text_file=str(tmp_path / "short.txt")))
    with pytest.raises(BadInput, match="one prompt, please"):
        Job(settings(folder, text_file=str(tmp_path / "short.txt")))
    with pytest.raises(BadInput, match="the text is too short"):
        Job(Settings(str(LLAMA), str(TINY_LLAMA), text_file=str(tmp_path / "short.txt")))


def test_the_command_that_repeats_it(folder):
    words = Job(settings(folder, three_way=False, trace=True, hf_dtype="bfloat16")).command().split()
    parsed = vars(arguments(command.add_arguments, *words[2:]))
    assert (parsed["three_way"], parsed["trace"], parsed["hf_dtype"]) == (False, True, "bfloat16")


# -- building ---------------------------------------------------------------------------------------------------------


def test_a_foreign_build_is_watched_and_its_pages_given_back(folder, monkeypatch):
    import ttnn

    seen, released, from_torch = [], [], ttnn.from_torch

    class Bar:
        def __init__(self, text, total):
            self.total = total

        def __enter__(self):
            return lambda by=1: seen.append(by / self.total)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(uploads, "progress", Bar)
    monkeypatch.setattr(uploads, "RELEASE_BYTES", 10_000)
    release = mapped.release
    monkeypatch.setattr(mapped, "release", lambda files: released.append(release(files)))
    job, before = Job(settings(folder, "uploads.py")), mapped.rss_bytes()
    result = evaluate(job)
    assert result["top1"] == 1
    assert sum(seen) == pytest.approx(1)
    assert len(released) > 3
    assert ttnn.from_torch is from_torch
    assert result["peak_rss_bytes"] > 0.9 * before  # the kernel counts pages in batches
    assert result["seconds_build"] > 0


# -- traces -----------------------------------------------------------------------------------------------------------


def test_a_traced_run_has_the_same_figures(tmp_path, capsys):
    found = []
    for trace in (0, 1):
        words = ["--mode", "tt", "--hf-model", "meta-llama/Llama-3.2-1B", "--model-dir", TINY_LLAMA, "--trace", trace]
        words += ["--prefill-len", 20, "--decode-len", 6, "--cache-dir", tmp_path]
        run_eval.run(arguments(run_eval.add_arguments, *words))
        line = capsys.readouterr().out.splitlines()[-1]
        found.append(json.loads(line.removeprefix("YT_METRICS=")))
    untraced, traced = found
    assert (untraced["trace"], traced["trace"]) == (False, True)
    for name in ("top1", "top5", "kl_mean", "rel_l2", "perplexity_device"):
        assert untraced[name] == traced[name], name
    assert traced["memory"]["dram"]["total"] < untraced["memory"]["dram"]["total"], "the trace region is cut off"


def test_a_trace_needs_a_model_that_can_and_a_region_that_holds_it(folder):
    with pytest.raises(BadInput, match="has no traced decode"):
        evaluate(Job(settings(folder, trace=True)))
    small = dict(model_py=str(LLAMA), model=str(TINY_LLAMA), trace=True, trace_region_size=1024)
    with pytest.raises(ModelFailed, match="only 1024B is allocated"):
        evaluate(Job(settings(folder, **small)))
