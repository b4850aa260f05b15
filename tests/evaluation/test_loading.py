"""Model files, checkpoints, and random weights."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import bringup
from bringup.backends import model_files
from bringup.checkpoints import known, random_weights, sources
from bringup.errors import BadInput, ModelFailed
from tests.evaluation import tiny

PARAMETERS = {  # as published, in billions
    "meta-llama/Llama-3.2-1B": 1.236,
    "humain-ai/ALLaM-7B-Instruct-preview": 7.001,
    "arcee-ai/AFM-4.5B": 4.619,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
    "Qwen/Qwen3-0.6B": 0.596,  # each tied matrix once
    "Qwen/Qwen2.5-0.5B-Instruct": 0.494,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "tiiuae/Falcon3-1B-Base": 1.669,
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.2-3B-Instruct": 3.213,
    "meta-llama/Llama-3.3-70B-Instruct": 70.554,
    "Qwen/Qwen2.5-32B-Instruct": 32.764,
    "Qwen/Qwen3-32B": 32.762,
    "openai/gpt-oss-20b": 20.915,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1345,
    "HuggingFaceTB/SmolLM3-3B": 3.075,
    "Qwen/Qwen3-30B-A3B": 30.532,
    "Qwen/Qwen3.5-0.8B": 0.752,  # its text model
    "allenai/OLMo-2-0425-1B": 1.485,
    "google/gemma-3-1b-it": 0.9999,
    "microsoft/Phi-4-mini-instruct": 3.836,
}


def test_a_configuration_is_kept_for_every_model():
    models = Path(bringup.__file__).parents[1] / "models"
    shipped = {"/".join(path.parts[-5:-3]) for path in models.glob("*/*/*/functional/model.py")}
    assert len(shipped) >= 4
    assert shipped <= set(known.known_ids())


@pytest.mark.parametrize("hf_id", known.known_ids())
def test_kept_configurations_have_the_published_size(hf_id):
    config = sources.load_config(sources.find_source(hf_id, random_weights=True))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(PARAMETERS[hf_id], abs=5e-4)


def test_random_weights_are_deterministic_and_whole():
    config = tiny.hf_model().config
    a, b, c = (random_weights.model(config, seed, torch.float32) for seed in (0, 0, 1))
    for (name, x), (_, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(x, y), name
        assert bool(x.isfinite().all()), name
    assert not torch.equal(a.lm_head.weight, c.lm_head.weight)
    assert a.lm_head.weight is a.model.embed_tokens.weight
    ids = torch.tensor([[1, 2, 3]])
    made = AutoModelForCausalLM.from_config(config).eval()
    made.load_state_dict(a.state_dict())
    assert torch.equal(made(ids).logits, a(ids).logits), "what is no parameter differs from a model made the usual way"


def test_random_weights_are_the_same_in_every_dtype():
    config = tiny.hf_model().config
    narrow, wide = random_weights.model(config, 0, torch.bfloat16), random_weights.model(config, 0, torch.float32)
    for x, y in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert torch.equal(x.float(), y)


@pytest.mark.parametrize("system", ["n150", "t3000"])
def test_the_path_says_the_model_and_the_system(tmp_path, system):
    path = tmp_path / "models" / "org" / "A-model-1.0" / system / "functional" / "model.py"
    path.parent.mkdir(parents=True)
    path.write_text("")
    found = model_files.describe(path)
    assert (found.hf_id, found.system) == ("org/A-model-1.0", system)
    assert model_files.describe(path.parent).path == path
    other = tmp_path / "model.py"
    other.write_text("")
    assert (model_files.describe(other).hf_id, model_files.describe(other).system) == (None, None)


@pytest.mark.parametrize(
    ("file", "error", "text"),
    [
        ("missing.py", BadInput, "no such model file"),
        ("no_build_model.py", BadInput, "(?s)has no build_model.*it has make_model"),
        ("fails_on_import.py", ModelFailed, r"(?s)fails_on_import.py:3: ModuleNotFoundError.*no_such_package"),
        ("for_two_chips.py", BadInput, "(?s)MESH_SHAPE = \\(1, 2\\), and n150.*--system n300"),
    ],
)
def test_files_that_cannot_be_used(file, error, text):
    with pytest.raises(error, match=text):
        model_files.load_model_file(tiny.FILES / file, "n150")


def test_a_syntax_error_names_its_line(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("x = 1\ndef build_model(:\n")
    with pytest.raises(ModelFailed, match="model.py:2: SyntaxError"):
        model_files.load_model_file(path)


def test_a_file_is_loaded_once(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("def build_model(hf_model, tt_device, max_seq_len): pass\n")
    assert model_files.load_model_file(path).module is model_files.load_model_file(path).module


def test_build_model_must_return_a_model(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("def build_model(hf_model, tt_device, max_seq_len): return 3\n")
    with pytest.raises(BadInput, match="(?s)returned no model.*int"):
        model_files.build(model_files.load_model_file(path), None, None, 32)


@pytest.mark.parametrize("name", ["./nowhere", "no/such/dir", "nowhere"])
def test_a_checkpoint_that_is_not_there(name):
    with pytest.raises(BadInput, match="no such checkpoint directory"):
        sources.find_source(name)


def test_a_directory_that_is_no_checkpoint(tmp_path):
    with pytest.raises(BadInput, match="not a checkpoint directory"):
        sources.find_source(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    source = sources.find_source(str(tmp_path))
    with pytest.raises(BadInput, match="the checkpoint has no weights"):
        sources.load_hf_model(source)


def test_without_a_hub_it_fails_fast_and_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    with pytest.raises(BadInput, match="(?s)cannot get meta-llama/Llama-3.2-1B.*--model DIR.*--random-weights"):
        sources.find_source("meta-llama/Llama-3.2-1B")


def test_random_weights_need_a_kept_configuration():
    with pytest.raises(BadInput, match="(?s)no configuration.*meta-llama/Llama-3.2-1B"):
        sources.find_source("org/unknown", random_weights=True)


def test_a_sliced_prompt_meets_the_head_as_rows(tmp_path):
    """[1, 1, H] with the strides of [1, S, H] makes torch copy the head's weight; the logits are the same."""
    model = sources.load_hf_model(sources.find_source(str(tiny.save(tmp_path / "checkpoint"))))
    seen = []
    model.lm_head.register_forward_pre_hook(lambda head, arguments: seen.append(arguments[0]))
    ids = torch.tensor([[1, 2, 3, 4]])
    last, whole = model(ids, logits_to_keep=1).logits, model(ids).logits
    assert seen[0].stride() == (64, 64, 1)
    torch.testing.assert_close(last, whole[:, -1:], atol=0.02, rtol=0.02)  # bfloat16 logits of size 1
