"""An HF model in the device's place agrees with itself; models that forget, leak or run late do not."""

import pytest
import torch
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from bringup.backends import model_files
from bringup.evaluation import consistency
from bringup.evaluation.consistency import CHECKS, Probe, Text
from tests.evaluation.tiny import hf_model as tiny

LENGTH = 136
IDS = list(range(5, 100))


@pytest.fixture(scope="module")
def hf():
    return tiny()


@pytest.fixture(scope="module")
def text(hf):
    return Text.through(hf, IDS, LENGTH)


class Device(torch.nn.Module, GenerationMixin):
    """HF behind the contract of a model file; subclasses spoil it."""

    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, hf):
        super().__init__()
        self.hf, self.config, self.generation_config = hf, hf.config, hf.generation_config

    def forward(self, input_ids, past_key_values=None, attention_mask=None, use_cache=None, **kwargs):
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        input_ids, attention_mask = self.spoil(input_ids, attention_mask, seen)
        out = self.hf(input_ids, attention_mask=attention_mask, past_key_values=past_key_values, use_cache=True)
        return CausalLMOutputWithPast(logits=self.change(out.logits[:, -1:], seen), past_key_values=out.past_key_values)

    def spoil(self, input_ids, attention_mask, seen):
        return input_ids, attention_mask

    def change(self, logits, seen):
        return logits


for name, answer in model_files.GENERATE_ASKS.items():  # as `model_files.build` does
    setattr(Device, name, answer)


class WrongAt64(Device):
    def change(self, logits, seen):
        return logits.roll(1, -1) if seen == 64 else logits


class PromptsLoseTheirFirstToken(Device):
    def spoil(self, input_ids, attention_mask, seen):
        return (input_ids, attention_mask) if seen or input_ids.shape[1] < 2 else (input_ids.clone().fill_(7), None)


class Remembers(Device):
    """The longest prompt so far still shows."""

    longest = 0

    def change(self, logits, seen):
        self.longest = max(self.longest, seen)
        return logits + 0.001 * (self.longest > 100) * logits.flip(-1)


class UsersLeak(Device):
    def spoil(self, input_ids, attention_mask, seen):
        return input_ids[:1].expand_as(input_ids), attention_mask


class OneUser(Device):
    def spoil(self, input_ids, attention_mask, seen):
        assert len(input_ids) == 1, "one prompt at a time"
        return input_ids, attention_mask


class NoSeed(Device):
    calls = 0

    def change(self, logits, seen):
        self.calls += 1
        return logits.roll(self.calls, -1)


def asked(device, text, *names):
    probe = Probe(device, text, LENGTH, deterministic=True)
    return {name: CHECKS[name](probe) for name in names}


def test_hf_agrees_with_itself(hf):
    results = consistency.run(Device(hf), hf, IDS, LENGTH, deterministic=True)
    assert [r.ok for r in results] == [True] * len(CHECKS), [r for r in results if not r.ok]
    for r in results[:5]:
        assert r.figures["rel_l2"] < 1e-4
        assert r.figures["same_prediction"] == len(r.figures["positions"])


@pytest.mark.parametrize(
    ("device", "fails", "words"),
    [
        (WrongAt64, "decode", "far off at 65 tokens"),
        (WrongAt64, "prefill_against_decode", "the two ways differ at 65 tokens"),
        (PromptsLoseTheirFirstToken, "prompt_lengths", "times HF's own bfloat16 error"),
        (PromptsLoseTheirFirstToken, "cache_end", "times HF's own bfloat16 error"),
        (Remembers, "second_prompt", "after a longer prompt the same prompt gives other logits"),
        (UsersLeak, "batch", "user 1 (prompt of 33) differs at step 0"),
        (NoSeed, "same_seed", "they differ from token"),
    ],
)
def test_what_is_wrong_is_said(hf, text, device, fails, words):
    result = asked(device(hf), text, fails)[fails]
    assert result.ok is False
    assert words in result.detail


def test_decode_is_not_blamed_for_prompts(hf, text):
    assert asked(PromptsLoseTheirFirstToken(hf), text, "decode")["decode"].ok


def test_a_file_for_one_user_is_not_asked_for_a_batch(hf, text):
    result = asked(OneUser(hf), text, "batch")["batch"]
    assert result.ok is None
    assert "one prompt at a time" in result.detail


class NoMask(Device):
    def forward(self, input_ids, past_key_values=None, use_cache=None, **kwargs):
        return super().forward(input_ids, past_key_values)


def test_a_file_without_a_mask_is_not_given_one(hf, text):
    results = asked(NoMask(hf), text, "batch", "same_seed")
    assert (results["batch"].ok, results["same_seed"].ok) == (None, True)
    assert "takes no attention_mask" in results["batch"].detail


def test_without_values_nothing_is_judged(hf, text):
    probe = Probe(WrongAt64(hf), text, LENGTH, values=False)
    assert all(CHECKS[name](probe).ok is None for name in CHECKS)


def test_logits_of_nothing_are_compared_by_what_others_are():
    """A token whose embedding is zeros (a padding token that begins a text) has logits of zeros, on both sides."""
    want = torch.cat((torch.zeros(1, 8), torch.ones(9, 8)))
    assert consistency.distances(want, want).tolist() == [0.0] * 10
    assert consistency.distances(want, want + 0.1)[0] > 50
    assert consistency.distances(want[:1], want[:1]).tolist() == [0.0]
