"""An HF model in another dtype than its weights: against a copy of it that was cast whole."""

import copy

import pytest
import torch

from bringup.checkpoints import compute_dtype
from bringup.checkpoints.compute_dtype import computing_in
from bringup.errors import BringupError
from tests.evaluation import tiny

IDS = torch.tensor([[1, 17, 33, 200, 5]])


@pytest.mark.parametrize(("kept", "other"), [("bfloat16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("block", [100, 1 << 20])
def test_the_logits_are_those_of_the_model_cast_whole(monkeypatch, kept, other, block):
    monkeypatch.setattr(compute_dtype, "BLOCK", block)  # 100: one or two rows of a weight at a time
    model, dtype = tiny.hf_model(getattr(torch, kept)), getattr(torch, other)
    whole = copy.deepcopy(model).to(dtype)
    whole.model.rotary_emb = model.model.rotary_emb  # HF keeps its frequencies in float32, `.to` does not
    with torch.inference_mode(), computing_in(model, dtype):
        logits = model(IDS).logits
        expected = whole(IDS).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, expected, atol=1e-5 if other == "float32" else 0.05, rtol=0)


@pytest.mark.parametrize(("kept", "other"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_model_is_as_it_was_afterwards(kept, other):
    model = tiny.hf_model(getattr(torch, kept))
    before = {name: (p.detach().clone(), p.data_ptr()) for name, p in model.named_parameters()}
    frequencies, logits = model.model.rotary_emb.inv_freq.clone(), model(IDS).logits
    with pytest.raises(ZeroDivisionError), computing_in(model, getattr(torch, other)):
        raise ZeroDivisionError
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0]), name
        assert p.data_ptr() == before[name][1], name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert torch.equal(model(IDS).logits, logits)


def test_biases():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 48).bfloat16(), torch.randn(3, 64)
    expected = x @ layer.weight.float().T + layer.bias.float()
    with computing_in(layer, torch.float32):
        torch.testing.assert_close(layer(x), expected)


def test_what_cannot_be_streamed_and_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(compute_dtype, "free_bytes", lambda: 100)
    with pytest.raises(BringupError, match="(?s)float32 needs.*--hf-dtype bfloat16"):
        with computing_in(tiny.hf_model(torch.bfloat16), torch.float32):  # its norms are more than 100 bytes
            pass
