"""Configurations whose layers differ: fewer layers of each kind, and random weights with what only some have."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bringup.checkpoints import by_layer, random_weights, sources

SIZES = dict(
    hidden_size=64, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
    global_head_dim=64, vocab_size=50, vocab_size_per_layer_input=50, hidden_size_per_layer_input=32,
)  # fmt: skip
KINDS = (["sliding_attention"] * 4 + ["full_attention"]) * 7


def gemma(**more):
    given = dict(num_hidden_layers=35, num_kv_shared_layers=20, layer_types=list(KINDS)) | more
    return AutoConfig.for_model("gemma4_text", **SIZES, **given)


@pytest.mark.parametrize(
    ("layers", "which"),
    [(1, [13, 14, 15, 19]), (4, [13, 14, 15, 19]), (6, [0, 4, 13, 14, 15, 19]), (35, list(range(35)))],
)
def test_of_layers_that_share_keys_each_kind_stays(layers, which):
    config = gemma()
    found = by_layer.fewer(config, layers)
    assert by_layer.kept(config, layers) == which
    assert found.layer_types == [KINDS[i] for i in which]
    assert found.num_kv_shared_layers == sum(i >= 15 for i in which)
    assert [found.per_layer_config[i].head_dim for i in range(len(which))] == [
        64 if KINDS[i] == "full_attention" else 32 for i in which
    ]
    assert config.num_hidden_layers == 35
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(found)
    assert [hasattr(layer.self_attn, "k_proj") for layer in made.model.layers] == [i < 15 for i in which]


def test_of_others_the_first_stay():
    config = AutoConfig.for_model("gemma3_text", num_hidden_layers=12)
    assert by_layer.fewer(config, 3).layer_types == config.layer_types[:3]
    assert by_layer.fewer(config, 100).num_hidden_layers == 12


def test_a_random_checkpoint_has_the_buffers_of_hfs_files_and_scores_of_the_usual_size(tmp_path):
    config = gemma(num_hidden_layers=4, num_kv_shared_layers=2, layer_types=["sliding_attention", "full_attention"] * 2)
    random_weights.write(config, tmp_path / "checkpoint")
    found = sources.load_hf_model(sources.find_source(str(tmp_path / "checkpoint")))
    assert all(float(layer.layer_scalar) == 1 for layer in found.model.layers)
    for layer in found.model.layers:
        norm = layer.self_attn.q_norm.weight
        assert torch.equal(norm, torch.full_like(norm, layer.self_attn.head_dim**-0.5))
