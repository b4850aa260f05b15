"""The HF model drives the tests of what drives a model: a full forward pass says what every step must give."""

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutputWithPast

from bringup.checkpoints import reference, session, sources
from bringup.errors import ModelFailed
from bringup.evaluation import teacher_forcing
from tests.evaluation import tiny

PROMPT = [1, 17, 33, 200, 5]


@pytest.fixture(scope="module")
def model():
    return tiny.hf_model()


@pytest.fixture(scope="module")
def continuation(model):
    return session.greedy(model, PROMPT, 12)


def test_greedy_is_generate(model, continuation):
    tokens, _ = continuation
    text = model.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert tokens == text[0, len(PROMPT) :].tolist()
    assert len(set(tokens)) > 2, "the tiny model says one thing only: the test would not see a shifted token"


@pytest.mark.parametrize("prefill_decode", [False, True])
def test_steps_are_those_of_one_forward_pass(model, continuation, prefill_decode):
    tokens, _ = continuation
    logits, session = teacher_forcing.run(model, PROMPT, tokens, prefill_decode=prefill_decode)
    with torch.inference_mode():
        whole = model(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 : -1]
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)
    assert len(session.seconds) == (len(PROMPT) if prefill_decode else 1) + len(tokens) - 1


def test_one_pass_gives_the_logits_of_the_steps(model, continuation):
    tokens, steps = continuation
    logits, session = teacher_forcing.run(model, PROMPT, tokens, one_pass=True)
    torch.testing.assert_close(logits, steps, atol=1e-4, rtol=1e-4)
    assert (len(session.seconds), session.seen) == (1, len(PROMPT) + len(tokens) - 1)
    with pytest.raises(ModelFailed, match="logits of too few positions"):
        teacher_forcing.run(OnlyTheLast(), PROMPT, tokens, one_pass=True)


def test_forced_tokens_need_not_be_the_models_own(model):
    tokens = [7, 8, 9, 10]
    logits, _ = teacher_forcing.run(model, PROMPT, tokens)
    with torch.inference_mode():
        whole = model(torch.tensor([PROMPT + tokens])).logits[0, len(PROMPT) - 1 : -1]
    torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


def test_batch(model, continuation):
    tokens, alone = continuation
    logits, _ = teacher_forcing.run(model, PROMPT, tokens, batch=3)
    torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)


class OnlyTheLast(torch.nn.Module):
    def forward(self, input_ids, past_key_values=None):
        return CausalLMOutputWithPast(logits=torch.zeros(1, 1, 256))


class Scripted(torch.nn.Module):
    """Returns what it was given, one tensor per call; takes nothing but the contract's arguments."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = list(outputs)

    def forward(self, input_ids, past_key_values):
        return CausalLMOutputWithPast(logits=self.outputs.pop(0), past_key_values="state")


def test_forward_with_few_arguments_and_flat_logits():
    logits, _ = teacher_forcing.run(Scripted(torch.ones(1, 1, 4), torch.zeros(1, 4)), [1], [2, 3])
    assert logits.tolist() == [[1] * 4, [0] * 4]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_named(value):
    with pytest.raises(ModelFailed, match="nan or inf at step 1"):
        teacher_forcing.run(Scripted(torch.ones(1, 1, 4), torch.full((1, 1, 4), value)), [1], [2, 3])


def test_users_that_disagree_are_named():
    with pytest.raises(ModelFailed, match="different predictions at step 0"):
        teacher_forcing.run(Scripted(torch.eye(2)[:, None]), [1], [2], batch=2)


def test_unreadable_logits():
    with pytest.raises(ModelFailed, match="want +\\[1, 1 or 1, vocabulary\\]"):
        teacher_forcing.run(Scripted(torch.ones(2, 1, 4)), [1], [2])


def test_min_new_tokens_forbids_the_end():
    end = torch.tensor([[[0.0, 0.0, 9.0, 1.0]]])
    tokens, logits = session.greedy(Scripted(end, end, end), [1], 3, eos=(2,), min_new_tokens=1)
    assert tokens == [3, 2]
    assert logits[0, 2] == float("-inf")
    assert logits[1, 2] == 9


# -- the cached reference ---------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    return sources.find_source(str(tiny.save(tmp_path / "checkpoint")))


def get(source, tmp_path, load, prompt=PROMPT, n=6, **options):
    return reference.get(source, prompt, n, cache_dir=tmp_path / "cache", load=load, **options)


def never():
    raise AssertionError("the HF model was loaded though the reference is in the cache")


def test_second_reference_does_not_load_the_model(checkpoint, tmp_path):
    first = get(checkpoint, tmp_path, lambda: sources.load_hf_model(checkpoint))
    second = get(checkpoint, tmp_path, never)
    assert (first.cached, second.cached) == (False, True)
    assert first.tokens == second.tokens
    assert torch.equal(first.logits, second.logits)
    assert first.logits.dtype == torch.float32


@pytest.mark.parametrize("change", [{"prompt": [1, 2]}, {"n": 7}, {"dtype": "bfloat16"}, {"eos": (2,)}])
def test_the_key_holds_what_the_reference_depends_on(checkpoint, tmp_path, change):
    get(checkpoint, tmp_path, lambda: sources.load_hf_model(checkpoint))
    with pytest.raises(AssertionError, match="was loaded"):
        get(checkpoint, tmp_path, never, **change)


def test_other_weights_are_another_reference(checkpoint, tmp_path):
    get(checkpoint, tmp_path, lambda: sources.load_hf_model(checkpoint))
    tiny.save(checkpoint.directory, seed=1)
    with pytest.raises(AssertionError, match="was loaded"):
        get(checkpoint, tmp_path, never)


def test_an_interrupted_reference_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("safetensors.torch.save_file", lambda tensors, path, **_: (path.write_bytes(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        get(checkpoint, tmp_path, lambda: sources.load_hf_model(checkpoint))
    monkeypatch.undo()
    assert not get(checkpoint, tmp_path, lambda: sources.load_hf_model(checkpoint)).cached
