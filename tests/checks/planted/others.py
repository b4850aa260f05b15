"""Faults of further kinds, whose truths were written before what the finder says of them was seen."""

import copy
from types import MethodType

import torch
import ttnn

from bringup.blocks import Embedding, GatedMLP
from bringup.blocks.cache import RowCache
from bringup.blocks.generate import CausalLM
from bringup.blocks.weights import LMHead
from tests.checks.faults import of_hf, of_model, on_host, replaced
from tests.checks.planted.core import (
    K_CACHE,
    V_CACHE,
    Q,
    attention_replaced,
    of_layers,
    planted,
    rotated_by,
    with_hf,
)


def decode_of_other_rows(build, turned):
    """The build whose decode attention reads `turned(keys)` and `turned(values)`."""

    def make(original):
        return lambda q, k, v, **kwargs: original(q, turned(k), turned(v), **kwargs)

    with replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make):
        yield build


def of_layer(build, index, forward):
    """The build whose layer runs `forward(self, x, step)`."""

    def change(model):
        layer = model.model.layers[index]
        layer.forward = MethodType(forward, layer)

    return of_model(build, change)


# -- attention --------------------------------------------------------------------------------------------------------


@planted(
    "tiny-mistral",
    "self_attn",
    "a decode step reads the next group's KV head; a prompt its own",
    r"KV head|group",
    phase="decode",
)
def decode_reads_the_next_kv_head(build):
    yield from decode_of_other_rows(build, lambda x: ttnn.concat([x[:, 1:], x[:, :1]], dim=1))


@planted("tiny-llama", "self_attn", "the scores of head 2 are 1.3 times as large", r"head 2\b")
def scale_of_one_head(build):
    def make(original):
        dim = 2 if original.__name__.endswith("decode") else 1

        def attend(q, k, v, **kwargs):
            factor = torch.ones(4)
            factor[2] = 1.3
            factor = factor.reshape([4 if d == dim else 1 for d in range(4)])
            return original(on_host(q, lambda x: x * factor), k, v, **kwargs)

        return attend

    with attention_replaced(make):
        yield build


@planted(
    "tiny-allam",
    "self_attn",
    "a decode step sees its tile's positions to the end, not only those up to its own",
    r"mask|sees|too many|no key|not written|beyond",
    phase="decode",
)
def decode_sees_to_the_tiles_end(build):
    def make(original):
        def attend(q, k, v, *, cur_pos_tensor, **kwargs):
            at = on_host(cur_pos_tensor, lambda x: torch.where(x < 0, x, x | 31))
            return original(q, k, v, cur_pos_tensor=at, **kwargs)

        return attend

    with replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make):
        yield build


@planted("tiny-llama", K_CACHE, "the keys are cached before the rotation", r"rotat|before RoPE", layer=0)
def keys_cached_before_the_rotation(build):
    def change(model):
        for layer in model.model.layers:
            attention, rope, cache = layer.self_attn, layer.self_attn.k_rope, layer.self_attn.cache

            def forward(x, step, attention=attention, rope=rope):
                attention.raw = ttnn.clone(x)
                return type(rope).forward(rope, x, step)

            def fill(k, v, step, attention=attention, cache=cache):
                return RowCache.fill(cache, attention.raw, v, step)

            rope.forward, cache.fill = forward, fill

    yield of_model(build, change)


@planted(
    "tiny-llama",
    (V_CACHE, K_CACHE, "self_attn"),
    "user 31 reads the keys and values of user 0",
    r"user 0\b",
    phase="decode",
)
def user_31_in_the_row_of_user_0(build):
    yield from decode_of_other_rows(build, lambda x: ttnn.concat([x[:31], x[:1]], dim=0))


@planted("tiny-mistral", Q, "theta is max_position_embeddings, 4,096, in the place of 1,000,000", r"theta")
def theta_of_another_field(build):
    def change(model, hf_model):
        frequencies = hf_model.config.max_position_embeddings ** -(torch.arange(0, 32, 2) / 32)
        rotated_by(model, torch.arange(model.cache_len)[:, None] * frequencies)

    yield with_hf(build, change)


@planted("tiny-qwen2", (Q, "self_attn.k_rope", V_CACHE), "k has the bias of v, and v that of k", r"bias")
def biases_of_k_and_v_exchanged(build):
    def change(layer):
        k, v = layer.self_attn.k_proj, layer.self_attn.v_proj
        k.bias, v.bias = v.bias, k.bias

    yield of_hf(build, of_layers(change))


# -- weights and their formats ----------------------------------------------------------------------------------------


def _as_bfloat4_b(weight):
    return ttnn.to_torch(ttnn.from_torch(weight, dtype=ttnn.bfloat4_b, layout=ttnn.TILE_LAYOUT))


@planted("tiny-mistral", "mlp", "down_proj was rounded to bfloat4_b before it was stored as bfloat16", r"bfloat4_b")
def weight_quantised_before(build):
    def change(layer):
        weight = layer.mlp.down_proj.weight
        weight.copy_(_as_bfloat4_b(weight.T.float().contiguous()).T)

    yield of_hf(build, of_layers(change))


@planted(
    "tiny-llama", "self_attn", "o_proj of layer 1 is bfloat8_b, the file says bfloat16", r"o_proj.*bfloat8_b", layer=1
)
def output_weight_in_bfloat8_b(build):
    def change(model):
        attention = model.model.layers[1].self_attn
        attention.o_proj = ttnn.typecast(attention.o_proj, ttnn.bfloat8_b)

    yield of_model(build, change)


@planted(
    "tiny-llama",
    "lm_head",
    "the head is a copy of the token table before its last 256 rows were there",
    r"768|rows|tokens?\b",
    layer=None,
)
def head_of_an_older_table(build):
    def make(original):
        def init(self, weight, mesh, precision):
            weight = weight.detach().clone()
            weight[768:] = 0
            original(self, weight, mesh, precision)

        return init

    with replaced(LMHead, "__init__", make):
        yield build


# -- the layer --------------------------------------------------------------------------------------------------------


@planted("tiny-allam", "input_layernorm", "the norm is applied twice", r"twice", layer=1)
def norm_applied_twice(build):
    def change(model):
        norm = model.model.layers[1].input_layernorm
        norm.forward = lambda x: type(norm).forward(norm, type(norm).forward(norm, x))

    yield of_model(build, change)


@planted(
    "tiny-llama",
    "mlp",
    "chip 1 has gate_proj and up_proj in each other's place",
    r"chip 1\b.*(gate|up)|(gate|up).*chip 1\b",
    system="n300",
)
def gate_and_up_exchanged_on_one_chip(build):
    def change(layer):
        gate, up = layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight
        kept = gate[256:].clone()
        gate[256:] = up[256:]
        up[256:] = kept

    yield of_hf(build, of_layers(change))


@planted("tiny-mistral", "mlp", "the gate is held to at most 0.5 before SiLU", r"clamp|limit|0\.5|at most")
def gate_clamped(build):
    def forward(self, x):
        gate = ttnn.clamp(ttnn.linear(x, self.gate_proj, compute_kernel_config=self.compute), max=0.5)
        up = ttnn.linear(x, self.up_proj, compute_kernel_config=self.compute)
        return self.down(ttnn.mul(ttnn.silu(gate), up))

    with replaced(GatedMLP, "forward", lambda original: forward):
        yield build


@planted("tiny-llama", "mlp.residual", "the MLP's residual is added in bfloat8_b", r"bfloat8_b", layer=1)
def residual_added_in_bfloat8_b(build):
    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        low = ttnn.add(x, self.mlp(self.post_attention_layernorm(x)), dtype=ttnn.bfloat8_b)
        return ttnn.typecast(low, ttnn.bfloat16)

    yield of_layer(build, 1, forward)


@planted("tiny-mistral", "self_attn.residual", "attention is multiplied by 0.22 before it is added", r"0\.22", layer=1)
def residual_multiplier(build):
    def forward(self, x, step):
        x = ttnn.add(x, ttnn.mul(self.self_attn(self.input_layernorm(x), step), 0.22))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))

    yield of_layer(build, 1, forward)


@planted("tiny-llama", "input_layernorm", "layers 1 and 2 run in each other's place", r"layers?[. ]2", layer=1)
def layers_in_another_order(build):
    def change(hf_model):
        first, second, third = hf_model.model.layers
        hf_model.model.layers = torch.nn.ModuleList([first, third, second])

    yield of_hf(build, change)


@planted("tiny-mistral", "self_attn", "the chips' sums of o_proj are added in bfloat8_b", r"bfloat8_b", system="n300")
def reduced_in_bfloat8_b(build):
    def change(model):
        for layer in model.model.layers:
            mesh = copy.copy(model.mesh)
            mesh.all_reduce = lambda x: ttnn.typecast(
                model.mesh.all_reduce(ttnn.typecast(x, ttnn.bfloat8_b)), ttnn.bfloat16
            )
            layer.self_attn.mesh = mesh

    yield of_model(build, change)


# -- the ends ---------------------------------------------------------------------------------------------------------


@planted("tiny-mistral", "embed_tokens", "token ids above 511 are read as 511", r"51[12]|ids", layer=None)
def token_ids_clamped(build):
    def make(original):
        return lambda self, tokens: original(self, on_host(tokens, lambda x: x.clamp(max=511)))

    with replaced(Embedding, "forward", make):
        yield build


@planted("tiny-llama", "lm_head", "the logits are 30 tanh(x / 30), as in Gemma 2", r"tanh|soft ?cap", layer=None)
def logits_capped(build):
    def make(original):
        return lambda self, x: ttnn.mul(ttnn.tanh(ttnn.mul(original(self, x), 1 / 30)), 30.0)

    with replaced(LMHead, "forward", make):
        yield build


@planted(
    "tiny-allam",
    ("lm_head", "logits"),
    "where a prompt is padded to a tile its last logits are those of the position before",
    r"another position|one position|position before|last (row|position|token)|early|late",
    phase=None,
    layer=None,
)
def last_row_of_a_padded_prompt(build):
    def make(original):
        def prompt_row(self, prompts, row, keep):
            found = original(self, prompts, row, keep)
            if keep == 1 and len(prompts[0]) % 32:
                return [[x.roll(1, 0) if len(x) > 1 else x for x in each] for each in found]
            return found

        return prompt_row

    with replaced(CausalLM, "_prompt_row", make):
        yield build
