"""demo's text by the methods that published single files offer beside `forward`."""

from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, LlamaConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from bringup.backends import model_files
from bringup.evaluation.generation import generate

VOCABULARY, END = 16, 9


class Counting(torch.nn.Module, GenerationMixin):
    """Its next token is the last one plus one; it notes which of its methods were called, with how many tokens."""

    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self):
        super().__init__()
        self.config, self.generation_config = (
            LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=1),
            GenerationConfig(eos_token_id=END),
        )
        self.calls = []

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **_):
        started = past_key_values == "kept"
        return {"input_ids": input_ids[:, -1:] if started else input_ids, "past_key_values": past_key_values}

    def logits(self, name, ids, past):
        self.calls.append((name, ids.shape[1], past == "kept"))
        return torch.nn.functional.one_hot((ids + 1) % VOCABULARY, VOCABULARY).float()

    def forward(self, input_ids, past_key_values=None, **_):
        return CausalLMOutputWithPast(logits=self.logits("forward", input_ids, past_key_values), past_key_values="kept")


class QuickPrefill(Counting):
    def prefill_logits_last_device(self, input_ids, use_cache=True):
        return self.logits("prefill", input_ids, None)[:, -1], "kept"


class OwnTokens(QuickPrefill):
    def next_token_device(self, input_ids, past_key_values=None, use_cache=True):
        return int(self.logits("token", input_ids, past_key_values)[0, -1].argmax()), "kept"


@pytest.mark.parametrize(
    ("kind", "first", "later"),
    [(Counting, "forward", "forward"), (QuickPrefill, "prefill", "forward"), (OwnTokens, "token", "token")],
)
def test_the_methods_that_the_file_offers(kind, first, later, capsys):
    file = SimpleNamespace(path="model.py", build_model=lambda hf_model, device, max_seq_len: kind())
    model = model_files.build(file, None, None, 32)
    job = SimpleNamespace(
        settings=SimpleNamespace(seed=0, max_new_tokens=8), tokenizer=None, prompt_ids=[3, 4, 5], eos=(END,),
        model_file=file, activation=SimpleNamespace(emulated=True),
    )  # fmt: skip
    assert generate(job, model)["token_ids"] == [6, 7, 8, END]
    assert model.calls == [(first, 3, False)] + [(later, 1, True)] * 3
    assert "forward" not in vars(model)
    assert capsys.readouterr().out.split() == ["6", "7", "8", "9"]
    generate(job, model, temperature=0.01)  # sampled: the tokens are HF's choice
    assert model.calls[4][0] == ("prefill" if kind is OwnTokens else first)
