"""Weights and biases of another place, or in another order."""

import torch

from tests.checks.faults import of_hf
from tests.checks.planted.core import V_CACHE, Q, of_layers, planted


@planted(
    "tiny-allam", (V_CACHE, "self_attn"), "the heads of v are in reverse order", r"v.*heads.*order|heads.*v.*order"
)
def value_heads_in_reverse(build):
    def change(layer):
        weight = layer.self_attn.v_proj.weight
        weight.copy_(weight.unflatten(0, (8, 32)).flip(0).flatten(0, 1))

    yield of_hf(build, of_layers(change))


@planted("tiny-llama", "mlp", "gate_proj and up_proj are exchanged", r"gate.*up|up.*gate|SiLU.*up")
def gate_and_up_exchanged(build):
    def change(layer):
        mlp = layer.mlp
        mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj

    yield of_hf(build, of_layers(change))


@planted("tiny-allam", "self_attn", "o_proj, which is square, is not transposed", r"o_proj.*transpos|transpos.*o_proj")
def square_output_weight_transposed(build):
    def change(layer):
        weight = layer.self_attn.o_proj.weight
        weight.copy_(weight.T.clone())

    yield of_hf(build, of_layers(change))


@planted("tiny-mistral", "mlp", "layer 1 has the MLP weights of layer 0", r"layer 0", layer=1)
def mlp_of_the_layer_before(build):
    def change(hf_model):
        hf_model.model.layers[1].mlp = hf_model.model.layers[0].mlp

    yield of_hf(build, change)


@planted(
    "tiny-llama", "self_attn", "o_proj takes heads 1 and 2 in each other's place", r"o_proj|heads? .*order", layer=1
)
def two_heads_of_o_proj_exchanged(build):
    def change(hf_model):
        weight = hf_model.model.layers[1].self_attn.o_proj.weight
        weight.copy_(weight.unflatten(1, (4, 64))[:, [0, 2, 1, 3]].flatten(1))

    yield of_hf(build, change)


@planted(
    "tiny-llama",
    Q,
    "fused rows are [q q k v] of each KV head, read as all q, all k, all v",
    r"fused|q_proj.*order|interleav",
)
def fused_rows_by_kv_head(build):
    def change(layer):
        parts = layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj
        q, k, v = (part.weight.unflatten(0, (2, -1)) for part in parts)
        rows = torch.cat([q, k, v], dim=1).flatten(0, 1)
        for part, weight in zip(parts, rows.split([256, 128, 128]), strict=True):
            part.weight.copy_(weight)

    yield of_hf(build, of_layers(change))


@planted(
    "tiny-mistral", "lm_head", "the head is tied to embed_tokens, and HF's is not", r"embed_tokens|tied", layer=None
)
def head_tied_though_it_is_not(build):
    yield of_hf(build, lambda hf_model: hf_model.lm_head.weight.copy_(hf_model.model.embed_tokens.weight))


@planted("tiny-afm", "post_attention_layernorm", "it has the weight of input_layernorm", r"input_layernorm", layer=1)
def norm_weight_of_the_other_norm(build):
    def change(hf_model):
        layer = hf_model.model.layers[1]
        layer.post_attention_layernorm.weight.copy_(layer.input_layernorm.weight)

    yield of_hf(build, change)


@planted("tiny-qwen2", Q, "the biases of q, k and v are added twice", r"bias")
def bias_added_twice(build):
    def change(layer):
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            part.bias.mul_(2)

    yield of_hf(build, of_layers(change))


@planted("tiny-qwen2", (V_CACHE, "self_attn"), "the bias of v is left out in layer 1", r"bias", layer=1)
def bias_of_v_left_out(build):
    yield of_hf(build, lambda hf_model: hf_model.model.layers[1].self_attn.v_proj.bias.zero_())
