"""Where HF's values are read off, of families whose parts stand in another order than Llama's."""

import torch
from transformers import AutoModelForCausalLM

from bringup.evaluation.layers.activations import record_reference
from tests.new import families


@torch.no_grad()
def test_the_cache_holds_keys_behind_a_norm_that_follows_the_rotation():
    """Hunyuan's: what turned is normed, and then cached."""
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(families.config("hunyuan_v1_dense"), dtype=torch.float32).eval()
    norm = hf.model.layers[0].self_attn.key_layernorm
    norm.weight.copy_(1 + torch.rand_like(norm.weight))
    found = record_reference(hf, list(range(3, 12)), 9).points
    turned, cached = (found[f"model.layers.0.self_attn.{name}"] for name in ("k_rope", "k_cache"))
    assert not torch.allclose(turned, cached)
    assert torch.allclose(norm(turned.unflatten(1, (-1, 32))).flatten(1), cached, atol=1e-6)


@torch.no_grad()
def test_the_cache_holds_what_turned_where_norms_stand_before_it():
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(families.config("qwen3", head_dim=32), dtype=torch.float32).eval()
    found = record_reference(hf, list(range(3, 12)), 9).points
    assert torch.equal(*(found[f"model.layers.0.self_attn.{name}"] for name in ("k_rope", "k_cache")))
