"""One fault of each of many kinds, for the finder alone: as in `faults`, with the place and words of the reason.

Each asks for something that is read off the device's value, or for HF's other values in the place of the right one.
"""

from types import MethodType

import torch
import ttnn

from bringup.blocks import RMSNorm
from bringup.blocks.cache import RowCache
from bringup.blocks.generate import CausalLM
from bringup.blocks.rope import Rope, RopeTables
from tests.checks.faults import FAULTS, fault, of_hf, of_model, on_host, replaced
from tests.checks.planted.core import attention_replaced, of_layers, rotated_by, with_hf

KINDS = []


def kind(point, words, **where):
    """As `fault`, and kept in KINDS."""

    def register(plant):
        fault(point, words, item=None, **where)(plant)
        KINDS.append(FAULTS.pop())
        return plant

    return register


def of_one_layer(build, index, part, forward):
    """The build whose layer's `part` ("" for the layer itself) runs `forward(self, ...)`."""

    def change(model):
        module = model.model.layers[index].get_submodule(part)
        module.forward = MethodType(forward, module)

    return of_model(build, change)


# -- other weights ----------------------------------------------------------------------------------------------------


@kind("layer 1, self_attn.k_rope", "layer 0's self_attn.k_proj in the place of k_proj", checkpoint="tiny-mistral")
def keys_of_another_layer(build):
    def change(hf_model):
        first, second, *_ = hf_model.model.layers
        second.self_attn.k_proj.weight.copy_(first.self_attn.k_proj.weight)

    yield of_hf(build, change)


@kind("norm", "the weight of layers.1.post_attention_layernorm", checkpoint="tiny-allam")
def last_norm_of_a_layer(build):
    def change(hf_model):
        hf_model.model.norm.weight.copy_(hf_model.model.layers[1].post_attention_layernorm.weight)

    yield of_hf(build, change)


@kind("layer 2, self_attn.v_cache", "times -1 (the sign is wrong) in head 1 alone")
def values_of_one_head_negative(build):
    yield of_hf(build, lambda hf_model: hf_model.model.layers[2].self_attn.v_proj.weight[64:].neg_())


@kind("layer 0, self_attn", "share of head 3 missing from the sum")
def one_head_not_summed(build):
    yield of_hf(build, of_layers(lambda layer: layer.self_attn.o_proj.weight[:, 192:].zero_()))


@kind("layer 0, mlp", "share of chip 3 missing from the sum", checkpoint="tiny-mistral", system="t3000")
def one_chip_not_summed(build):
    def change(layer):
        weight = layer.mlp.down_proj.weight
        weight.unflatten(1, (8, -1))[:, 3].zero_()

    yield of_hf(build, of_layers(change))


@kind("embed_tokens", "the embedding of other token ids", checkpoint="tiny-mistral")
def token_ids_off_by_one(build):
    def change(hf_model):
        weight = hf_model.model.embed_tokens.weight
        weight.copy_(weight.roll(1, 0))

    yield of_hf(build, change)


@kind("lm_head", "cut for 2 chips, each in the place of the other (tokens)", checkpoint="tiny-mistral", system="n300")
def vocabulary_of_the_other_chip(build):
    def change(hf_model):
        weight = hf_model.lm_head.weight
        weight.copy_(weight.roll(len(weight) // 2, 0))

    yield of_hf(build, change)


# -- rotations --------------------------------------------------------------------------------------------------------


@kind("layer 0, self_attn.q_rope", "at 1 / 2 of HF's frequencies", checkpoint="tiny-allam")
def positions_interpolated(build):
    def change(model, hf_model):
        rotated_by(model, torch.arange(model.cache_len)[:, None] / 2 * hf_model.model.rotary_emb.inv_freq)

    yield with_hf(build, change)


@kind("layer 0, self_attn.q_rope", "position p mod 32: it wraps at 32", checkpoint="tiny-allam")
def positions_wrap(build):
    def change(model, hf_model):
        rotated_by(model, (torch.arange(model.cache_len) % 32)[:, None] * hf_model.model.rotary_emb.inv_freq)

    yield with_hf(build, change)


@kind("layer 0, self_attn.k_rope", "rotated twice", checkpoint="tiny-mistral")
def keys_rotated_twice(build):
    def forward(self, x, step):
        return Rope.forward(self, Rope.forward(self, x, step), step)

    def change(model):
        for layer in model.model.layers:
            layer.self_attn.k_rope.forward = MethodType(forward, layer.self_attn.k_rope)

    yield of_model(build, change)


@kind("layer 0, self_attn.q_rope", "as if for position 2 p", phase="decode")
def positions_doubled_in_decode(build):
    def make(original):
        def look_up(self, positions):
            last = self.by_position[0].shape[0] - 1
            return original(self, on_host(positions, lambda x: (2 * x).clamp(max=last)))

        return look_up

    with replaced(RopeTables, "look_up", make):
        yield build


# -- attention --------------------------------------------------------------------------------------------------------


@kind("layer 0, self_attn", "sees the last 32 positions only: a window")
def prompt_sees_a_window(build):
    def make(original):
        return lambda *args, **kwargs: original(*args, **kwargs, sliding_window_size=32)

    with replaced(ttnn.transformer, "scaled_dot_product_attention", make):
        yield build


@kind("layer 0, self_attn", "takes the mean of the values", checkpoint="tiny-mistral")
def scores_without_weight(build):
    with attention_replaced(lambda original: lambda *args, **kwargs: original(*args, **kwargs, scale=1e-6)):
        yield build


@kind("layer 0, self_attn", "reshaped, not transposed")
def heads_reshaped(build):
    def make(original):
        def concat(x, **kwargs):
            _, heads, length, head_dim = tuple(x.shape)

            def mixed(value):
                by_head = value.reshape(length, heads, head_dim).transpose(0, 1)
                return by_head.reshape(1, 1, length, heads * head_dim)

            return on_host(original(x, **kwargs), mixed)

        return concat

    with replaced(ttnn.experimental, "nlp_concat_heads", make):
        yield build


@kind("layer 0, self_attn.v_cache", "every v written one position late")
def values_one_position_late(build):
    def make(original):
        return lambda self, k, v, step: original(self, k, on_host(v, lambda x: x.roll(1, 2)), step)

    with replaced(RowCache, "fill", make):
        yield build


# -- the layer --------------------------------------------------------------------------------------------------------


@kind("layer 1, mlp", "x squared in the place of relu2", checkpoint="tiny-afm")
def relu_left_out(build):
    def forward(self, x):
        up = ttnn.linear(x, self.up_proj, compute_kernel_config=self.compute)
        return self.mesh.all_reduce(ttnn.linear(ttnn.mul(up, up), self.down_proj, compute_kernel_config=self.compute))

    yield of_one_layer(build, 1, "mlp", forward)


@kind("layer 1, mlp", "hidden state rounded to bfloat4_b")
def hidden_state_in_bfloat4_b(build):
    def forward(self, x):
        at = {"compute_kernel_config": self.compute}
        gate, up = ttnn.linear(x, self.gate_proj, **at), ttnn.linear(x, self.up_proj, **at)
        inner = ttnn.mul(gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU])
        inner = ttnn.typecast(ttnn.typecast(inner, ttnn.bfloat4_b), ttnn.bfloat16)
        return self.mesh.all_reduce(ttnn.linear(inner, self.down_proj, **at))

    yield of_one_layer(build, 1, "mlp", forward)


@kind("layer 1, self_attn.residual", "0.5 (a half")
def half_of_attention(build):
    def forward(self, x, step):
        x = ttnn.add(x, ttnn.mul(self.self_attn(self.input_layernorm(x), step), 0.5))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))

    yield of_one_layer(build, 1, "", forward)


@kind("layer 0, input_layernorm", "the mean square of each of 2 shares", system="n300")
def norm_of_a_chips_share(build):
    def forward(self, x):
        width, at = x.shape[-1] // 2, {"epsilon": self.eps, "compute_kernel_config": self.compute}
        halves = zip(ttnn.split(x, width, 3), ttnn.split(self.weight, width, 3), strict=True)
        return ttnn.concat([ttnn.rms_norm(part, weight=weight, **at) for part, weight in halves], dim=-1)

    with replaced(RMSNorm, "forward", lambda original: forward):
        yield build


# -- what no value shows ----------------------------------------------------------------------------------------------


@kind("layer 0, post_attention_layernorm", "epsilon 1e-12, the op's default, HF has 1e-05")
def epsilon_left_out(build):
    def forward(self, x):
        return ttnn.rms_norm(x, weight=self.weight, compute_kernel_config=self.compute)

    yield of_one_layer(build, 0, "post_attention_layernorm", forward)


def users_16_to_31_at_others_positions(build):
    """Rotated for the positions of users 0 to 15; no layer is to blame, and user 0 is right."""

    def make(original):
        def inputs(self, tokens, positions):
            tokens, at, rotation = original(self, tokens, positions)
            places = rotation[0].clone()
            places[..., 16:] = places[..., :16]
            return tokens, at, (places, rotation[1])

        return inputs

    with replaced(CausalLM, "_host_inputs", make):
        yield build
