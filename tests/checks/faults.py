"""Faults that bring-ups really have, each planted in a clean one.

A fault is a context manager that takes `build(hf_model, device, max_seq_len)` and gives back a build whose model has
the fault; what it replaces in blocks or in ttnn is put back at the end. FAULTS says for each which small checkpoint and
system show it, at which point it must be found, and a word that the reason must hold.
"""

import copy
import dataclasses
from contextlib import contextmanager
from types import MethodType

import torch
import ttnn

from bringup.blocks import Precision, RMSNorm
from bringup.blocks.parallel import Heads
from bringup.blocks.rope import Rope, RopeTables

CHECKPOINTS = {
    "tiny-llama": "meta-llama/Llama-3.2-1B",
    "tiny-allam": "humain-ai/ALLaM-7B-Instruct-preview",
    "tiny-afm": "arcee-ai/AFM-4.5B",
    "tiny-mistral": "mistralai/Mistral-7B-Instruct-v0.3",
}
FAULTS = []


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    plant: object
    point: str  # as Profile.first prints it
    phase: str
    words: str  # in the reason
    checkpoint: str
    system: str
    before: bool  # shows only in a model that has run a longer prompt before
    prompt: int  # tokens of the prompt
    item: str | None  # of the checklist, which fails and names it, where a test asks it


def fault(
    point,
    words,
    phase="prefill",
    checkpoint="tiny-llama",
    system="n150",
    before=False,
    prompt=45,
    item="decode_modules",
):
    def register(plant):
        name = plant.__name__
        FAULTS.append(Fault(name, contextmanager(plant), point, phase, words, checkpoint, system, before, prompt, item))
        return plant

    return register


@contextmanager
def replaced(owner, name, make):
    """owner.name is make(what it was) inside the block."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def in_place(build, owner, **others):
    """The build, where `owner` has another function by that name."""
    ((name, other),) = others.items()
    with replaced(owner, name, lambda original: other):
        yield build


def of_hf(build, change):
    """The build from an HF model that `change` has altered: a checkpoint read wrongly."""

    def altered(hf_model, device, max_seq_len):
        hf_model = copy.deepcopy(hf_model)
        with torch.no_grad():
            change(hf_model)
        return build(hf_model, device, max_seq_len)

    return altered


def of_model(build, change):
    """The build with `change` done to its model."""

    def altered(hf_model, device, max_seq_len):
        model = build(hf_model, device, max_seq_len)
        change(model)
        return model

    return altered


def on_host(x, change):
    """A device tensor with its values changed by a function on torch tensors; the same shape, layout and place."""
    value = ttnn.to_torch(x)
    value = change(value if value.is_floating_point() else value.to(torch.int32))
    changed = ttnn.from_torch(value, dtype=x.dtype, layout=x.layout, device=x.device())
    return ttnn.to_memory_config(changed, x.memory_config())


# -- RoPE -------------------------------------------------------------------------------------------------------------


@fault("layer 0, self_attn.q_rope", "Meta's layout")
def rope_in_metas_layout(build):
    """Adjacent dims are rotated as pairs."""

    def make(original):
        def forward(self, x, step):
            def mixed(value):  # from Meta's order to HF's
                return torch.cat([value[..., 0::2], value[..., 1::2]], dim=-1)

            def back(value):
                return torch.stack(value.chunk(2, dim=-1), dim=-1).flatten(-2)

            return on_host(original(self, on_host(x, mixed), step), back)

        return forward

    with replaced(Rope, "forward", make):
        yield build


@fault("layer 0, self_attn.q_rope", "Meta's order", item=None)
def weights_in_metas_order(build):
    """The rows of q and k are those of Meta's checkpoint, the rotation is HF's."""

    def change(hf_model):
        head_dim = hf_model.config.head_dim
        for layer in hf_model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                rows = linear.weight.unflatten(0, (-1, 2, head_dim // 2))
                linear.weight.copy_(rows.transpose(1, 2).flatten(0, 2))

    yield of_hf(build, change)


@fault("layer 0, self_attn.q_rope", "the llama3 scaling is left out")
def llama3_scaling_left_out(build):
    def make(original):
        def init(self, hf_rotary, hf_config, *rest):
            hf_config = copy.deepcopy(hf_config)
            theta = hf_config.rope_parameters["rope_theta"]
            hf_config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
            original(self, hf_rotary, hf_config, *rest)

        return init

    with replaced(RopeTables, "__init__", make):
        yield build


@fault("layer 0, self_attn.q_rope", "without the attention factor", checkpoint="tiny-afm", item=None)
def yarn_attention_factor_left_out(build):
    def change(model):
        rope, factor = model.rope, model.attention_factor
        rope.prompt = [on_host(t, lambda x: x / factor) for t in rope.prompt]
        rope.by_position = [on_host(t, lambda x: x / factor) for t in rope.by_position]

    def with_factor(hf_model, device, max_seq_len):
        model = build(hf_model, device, max_seq_len)
        model.attention_factor = hf_model.model.rotary_emb.attention_scaling
        return model

    yield of_model(with_factor, change)


@fault("layer 0, self_attn.q_rope", "for position p +1", phase="decode", item=None)
def rotated_one_position_on_in_decode(build):
    def make(original):
        def look_up(self, positions):
            last = self.by_position[0].shape[0] - 1
            return original(self, on_host(positions, lambda x: (x + 1).clamp(max=last)))

        return look_up

    with replaced(RopeTables, "look_up", make):
        yield build


# -- attention --------------------------------------------------------------------------------------------------------


@fault("layer 0, self_attn.k_rope", "v_proj in the place of k_proj", checkpoint="tiny-mistral")
def keys_and_values_swapped(build):
    def change(hf_model):
        for layer in hf_model.model.layers:
            attention = layer.self_attn
            attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj

    yield of_hf(build, change)


@fault("layer 0, self_attn", "without the scale")
def attention_without_scale(build):
    def make(original):
        return lambda *args, **kwargs: original(*args, **{**kwargs, "scale": 1.0})

    with (
        replaced(ttnn.transformer, "scaled_dot_product_attention", make),
        replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make),
    ):
        yield build


def _decode_mask_moved(build, change):
    """Attention up to the positions `change(at, last of a row)`; the device would read what lies behind a row."""

    def make(original):
        def attend(q, k, v, *, cur_pos_tensor, **kwargs):
            last = k.shape[-2] - 1
            moved = on_host(cur_pos_tensor, lambda at: torch.where(at < 0, at, change(at, last)))
            return original(q, k, v, cur_pos_tensor=moved, **kwargs)

        return attend

    with replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make):
        yield build


@fault("layer 0, self_attn", "misses a token's own key", phase="decode")
def decode_mask_one_short(build):
    yield from _decode_mask_moved(build, lambda at, last: (at - 1).clamp(0, last))


@fault("layer 0, self_attn", "one position too many", phase="decode", checkpoint="tiny-allam", item=None)
def decode_mask_one_long(build):
    yield from _decode_mask_moved(build, lambda at, last: (at + 1).clamp(0, last))


@fault(
    "layer 0, self_attn", "without a causal mask", prompt=64, item=None
)  # whole tiles: no padding that could be seen too
def prompt_without_causal_mask(build):
    def make(original):
        return lambda *args, **kwargs: original(*args, **{**kwargs, "is_causal": False})

    with replaced(ttnn.transformer, "scaled_dot_product_attention", make):
        yield build


@fault("layer 0, self_attn.k_cache", "one position late", phase="decode")
def cache_written_one_position_late(build):
    def make(original):
        def update(cache, x, *, update_idxs_tensor, **kwargs):
            last = cache.shape[-2] - 1  # a row's end: the device would write over what lies behind it
            late = on_host(update_idxs_tensor, lambda at: torch.where(at < 0, at, (at + 1).clamp(max=last)))
            return original(cache, x, update_idxs_tensor=late, **kwargs)

        return update

    with replaced(ttnn.experimental, "paged_update_cache", make):
        yield build


@fault("layer 0, self_attn", "what an earlier prompt left", phase="decode", before=True)
def stale_cache_after_reset(build):
    """A decode step attends to all that was ever written, not to what the present prompt has written."""
    longest = 0

    def to_the_longest(at, last):
        nonlocal longest
        longest = max(longest, int(at.max()))
        return torch.full_like(at, longest)

    yield from _decode_mask_moved(build, to_the_longest)


# -- several chips ----------------------------------------------------------------------------------------------------


@fault("layer 0, self_attn", "heads in the wrong order", system="n300")
def query_heads_dealt_out_in_turn(build):
    """Query heads go to the chips in turn; the KV heads they belong to go to the chips in blocks."""

    def make(original):
        def over(chips, n_heads, n_kv_heads):
            heads = original.__func__(Heads, chips, n_heads, n_kv_heads)
            turns = tuple(tuple(range(chip, n_heads, chips)) for chip in range(chips))
            return dataclasses.replace(heads, query=turns)

        return over

    with replaced(Heads, "over", lambda original: staticmethod(make(original))):
        yield build


@fault("layer 0, self_attn.q_rope", "each in the place of the other", system="n300", item=None)
def query_heads_of_the_other_chip(build):
    """The rows of q_proj are cut for the chips in the wrong order."""

    def change(hf_model):
        for layer in hf_model.model.layers:
            weight = layer.self_attn.q_proj.weight
            weight.copy_(weight.roll(len(weight) // 2, 0))

    yield of_hf(build, change)


@fault("layer 0, self_attn", "o_proj", system="n300", item=None)
def output_heads_of_the_other_chip(build):
    """The columns of o_proj are cut for the chips in the wrong order."""

    def change(hf_model):
        for layer in hf_model.model.layers:
            weight = layer.self_attn.o_proj.weight
            weight.copy_(weight.roll(weight.shape[1] // 2, 1))

    yield of_hf(build, change)


@fault("layer 0, mlp", "chips hold different values", system="n300")
def all_reduce_left_out_after_down_proj(build):
    def change(model):
        for layer in model.model.layers:
            layer.mlp.mesh = copy.copy(model.mesh)
            layer.mlp.mesh.all_reduce = lambda x: x

    yield of_model(build, change)


# -- the layer --------------------------------------------------------------------------------------------------------


def _layer_forward(attention_residual, mlp_residual):
    def forward(self, x, step):
        y = self.self_attn(self.input_layernorm(x), step)
        x = ttnn.add(x, y) if attention_residual else y
        y = self.mlp(self.post_attention_layernorm(x))
        return ttnn.add(x, y) if mlp_residual else y

    return forward


@fault("layer 1, self_attn.residual", "the residual is not added", item="prefill")
def attention_residual_missing(build):
    def change(model):
        layer = model.model.layers[1]
        layer.forward = MethodType(_layer_forward(False, True), layer)

    yield of_model(build, change)


@fault("layer 1, mlp.residual", "the residual is not added", checkpoint="tiny-afm", item=None)
def mlp_residual_missing(build):
    def change(model):
        layer = model.model.layers[1]
        layer.forward = MethodType(_layer_forward(True, False), layer)

    yield of_model(build, change)


@fault("layer 0, input_layernorm", "epsilon 0.001")
def epsilon_of_a_thousandth(build):
    def change(model):
        for module in model.modules():
            if isinstance(module, RMSNorm):
                module.eps = 1e-3

    yield of_model(build, change)


# -- left out ---------------------------------------------------------------------------------------------------------


@fault("norm", "did not run (the device model has it, and does not call it)", item="full_decode")
def final_norm_left_out(build):
    def change(model):
        model.logits = MethodType(lambda self, x: self.lm_head(x), model)

    yield of_model(build, change)


@fault("layer 2", "did not run (the device model has 2 layers, HF 3)", item="prefill")
def last_layer_missing(build):
    def change(model):
        del model.model.layers[-1]

    yield of_model(build, change)


# -- formats ----------------------------------------------------------------------------------------------------------


@fault("layer 0, self_attn.q_rope", "bfloat4_b", checkpoint="tiny-mistral")
def weights_in_bfloat4_b(build):
    """All of them, where the file says bfloat8_b."""

    def narrow(hf_model, device, max_seq_len):
        return build(hf_model, device, max_seq_len, precision=Precision.of(ttnn.bfloat4_b))

    yield narrow


@fault("layer 1, mlp", "down_proj is bfloat4_b", checkpoint="tiny-allam", item=None)
def one_weight_in_bfloat4_b(build):
    def change(model):
        mlp = model.model.layers[1].mlp
        mlp.down_proj = ttnn.typecast(mlp.down_proj, ttnn.bfloat4_b)

    yield of_model(build, change)
