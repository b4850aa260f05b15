"""Further harmless changes: the same function in other bases, by other cuts and other ops. HARMLESS has all."""

from contextlib import ExitStack
from types import MethodType

import ttnn

from bringup.blocks import GatedMLP
from bringup.blocks.cache import RowCache
from bringup.blocks.rope import Rope
from bringup.blocks.weights import LMHead
from tests.checks.faults import of_hf, of_model, replaced
from tests.checks.harmless import HARMLESS, each_attention, harmless

__all__ = ["HARMLESS"]

# -- other bases ------------------------------------------------------------------------------------------------------


@harmless("tiny-llama")
def attention_subtracted(build):
    """o_proj has the other sign, and the residual takes attention off."""

    def forward(self, x, step):
        x = ttnn.subtract(x, self.self_attn(self.input_layernorm(x), step))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))

    def change(model):
        for layer in model.model.layers:
            layer.forward = MethodType(forward, layer)

    yield of_model(of_hf(build, each_attention(lambda attention: attention.o_proj.weight.neg_())), change)


@harmless("tiny-mistral")
def values_four_times_as_large(build):
    def change(attention):
        attention.v_proj.weight.mul_(4)
        attention.o_proj.weight.mul_(0.25)

    yield of_hf(build, each_attention(change))


@harmless("tiny-llama")
def residual_stream_twice_as_large(build):
    """All that is added to the stream is doubled, and the norms' epsilon is four times as large."""

    def change(hf_model):
        hf_model.model.embed_tokens.weight.mul_(2)
        for layer in hf_model.model.layers:
            layer.self_attn.o_proj.weight.mul_(2)
            layer.mlp.down_proj.weight.mul_(2)

    def norms(model):
        for layer in model.model.layers:
            layer.input_layernorm.eps *= 4
            layer.post_attention_layernorm.eps *= 4
        model.model.norm.eps *= 4
        model.lm_head.weight = ttnn.mul(model.lm_head.weight, 0.5)

    yield of_model(of_hf(build, change), norms)


@harmless("tiny-allam")
def residual_stream_in_another_order(build):
    """The columns of the stream are in reverse, from the token table to the head."""

    def change(hf_model):
        def reverse(weight, dim):
            weight.copy_(weight.flip(dim))

        reverse(hf_model.model.embed_tokens.weight, 1)
        for layer in hf_model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
                reverse(linear.weight, 1)
            for linear in (attention.o_proj, mlp.down_proj):
                reverse(linear.weight, 0)
            reverse(layer.input_layernorm.weight, 0)
            reverse(layer.post_attention_layernorm.weight, 0)
        reverse(hf_model.model.norm.weight, 0)
        reverse(hf_model.lm_head.weight, 1)

    yield of_hf(build, change)


# -- other cuts and ops -----------------------------------------------------------------------------------------------


@harmless("tiny-mistral")
def mlp_in_two_halves(build):
    def forward(self, x):
        halves, half = [], self.gate_proj.shape[-1] // 2
        for start in (0, half):
            gate, up = (
                ttnn.linear(x, weight[..., start : start + half], compute_kernel_config=self.compute)
                for weight in (self.gate_proj, self.up_proj)
            )
            down = self.down_proj[:, :, start : start + half, :]
            halves.append(ttnn.linear(ttnn.mul(ttnn.silu(gate), up), down, compute_kernel_config=self.compute))
        return self.mesh.all_reduce(ttnn.add(*halves))

    with replaced(GatedMLP, "forward", lambda original: forward):
        yield build


@harmless("tiny-allam")
def rotation_in_separate_ops(build):
    """A prompt's rotation is written out: x cos + (-x2, x1) sin."""

    def make(original):
        def forward(self, x, step):
            if step.is_decode:
                return original(self, x, step)
            rows, half = x.shape[-2], x.shape[-1] // 2
            cos, sin = (table[:, :, :rows] for table in (step.cos, step.sin))
            turned = ttnn.concat([ttnn.neg(x[..., half:]), x[..., :half]], dim=-1)
            return ttnn.add(ttnn.mul(x, cos), ttnn.mul(turned, sin))

        return forward

    with replaced(Rope, "forward", make):
        yield build


@harmless("tiny-llama")
def keys_and_values_repeated(build):
    """A prompt's attention has as many KV heads as query heads."""

    def make(original):
        def attend_prompt(self, q, k, v, step, **sdpa):
            k, v = (ttnn.repeat_interleave(x, q.shape[1] // x.shape[1], dim=1) for x in (k, v))
            return original(self, q, k, v, step, **sdpa)

        return attend_prompt

    with replaced(RowCache, "attend_prompt", make):
        yield build


@harmless("tiny-llama")
def head_in_two_products(build):
    def forward(self, x):
        half = self.weight.shape[-1] // 2
        parts = self.weight[..., :half], self.weight[..., half:]
        return ttnn.concat([ttnn.linear(x, part, compute_kernel_config=self.compute) for part in parts], dim=-1)

    with ExitStack() as stack:
        stack.enter_context(replaced(LMHead, "forward", lambda original: forward))
        yield build
