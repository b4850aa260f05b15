"""Faults whose truths were written before what the finder says of them was seen.

Layers that share a cache, users that share positions or rows, padding that stays in a state, a part of a norm's weight
on every chip, steps that do what prompts do not.
"""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints.known import known_config
from bringup.new import small

backends.activate("emulator")

import ttnn  # noqa: E402

from bringup.blocks import Rope, read_config, weights  # noqa: E402  (needs ttnn)
from bringup.evaluation import layers  # noqa: E402

ROOT = Path(__file__).parents[2]
LLAMA, GEMMA, QWEN = "meta-llama/Llama-3.2-1B/n150", "google/gemma-3-1b-it/n150", "Qwen/Qwen3.5-0.8B/n150"
PROMPT, STEPS = 41, 7  # not whole tiles
CHANGED = {
    LLAMA: {"num_hidden_layers": 3},
    GEMMA: {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    QWEN: {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
}


@cache
def files(name):
    """The model file, and a small HF model of its kind in bfloat16, as checkpoints are."""
    module = model_files.import_file(ROOT / "models" / name / "functional" / "model.py")
    config = known_config("/".join(name.split("/")[:2]))
    fields = small.fields(config, small.layers(config)) | CHANGED.get(name, {})
    hf = small.hf_model(fields)
    for p in hf.parameters():  # not the rotary frequencies
        p.data = p.data.bfloat16()
    return module, hf


def first(name, change, user=0):
    module, hf = files(name)
    precision = type(module.PRECISION).of(ttnn.bfloat16)
    ids = torch.randint(3, small.VOCAB, (PROMPT + STEPS,), generator=torch.Generator().manual_seed(1)).tolist()
    system = name.rpartition("/")[2]
    with backends.open_system(system if system == "n300" else "n150") as device, torch.inference_mode():
        model = module.build_model(hf, device, 128, precision=precision)
        change(model, hf)
        return layers.profile(model, hf, ids, PROMPT, precision, user).first


def one_cache(model, hf):
    for layer in model.model.layers:
        layer.self_attn.cache = model.model.layers[0].self_attn.cache


def users_share_a_position(model, hf):
    for layer in model.model.layers:
        kept = layer.self_attn.cache

        def attend(q, step, kept=kept, **sdpa):
            of_all = ttnn.repeat(ttnn.slice(step.positions, (0,), (1,)), (32,))
            decode = ttnn.transformer.scaled_dot_product_attention_decode
            return decode(q, kept.keys, kept.values, cur_pos_tensor=of_all, **sdpa)

        kept.attend = attend


def users_share_rows(model, hf):
    """Users 0 to 15 read what users 16 to 31 wrote."""
    for layer in model.model.layers:
        kept = layer.self_attn.cache

        def updated(k, v, step, update=kept.update, kept=kept):
            update(k, v, step)
            for x in (kept.keys, kept.values):
                late = ttnn.slice(x, (16, 0, 0, 0), tuple(x.shape))
                ttnn.copy(ttnn.concat([late, late], dim=0), x)

        kept.update = updated


def another_rows_ids(model, hf):
    table = hf.model.embed_tokens.weight.detach()
    model.model.embed_tokens.weight = model.mesh.put(
        torch.cat((torch.zeros_like(table[:1]), table[:-1])), ttnn.bfloat16
    )


def norm_after_the_sum(model, hf):
    layer = model.model.layers[1]

    def forward(x, step):
        x = layer.post_attention_layernorm(ttnn.add(x, layer.self_attn(layer.input_layernorm(x), step)))
        return ttnn.add(x, layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x))))

    layer.forward = forward


def experts(order):
    def change(model, hf):
        for layer, theirs in zip(model.model.layers, hf.model.layers, strict=True):
            own = layer.mlp.experts
            stacks = [w[order(len(w))] for w in own.split(theirs.mlp.experts)]
            own.gate_proj, own.up_proj, own.down_proj = (weights.experts(w, model.mesh, ttnn.bfloat16) for w in stacks)

    return change


def long_factors(model, hf):
    config = copy.deepcopy(hf.config)
    config.rope_parameters["short_factor"] = list(config.rope_parameters["long_factor"])
    own = read_config(files(PHI)[0].Config, hf.config)
    rope = type(model.rope)(hf.model.rotary_emb, config, model.cache_len, model.mesh, own)
    model.ropes, model.rope = {None: rope}, rope


def first_share_on_both(model, hf):
    for layer, theirs in zip(model.model.layers, hf.model.layers, strict=True):
        half = theirs.self_attn.q_norm.weight.detach().chunk(2)[0]
        layer.self_attn.q_norm.weight = weights.cut_vector(torch.cat((half, half)), model.mesh)


def turned_in_steps(model, hf):
    class InSteps(Rope):
        def forward(self, x, step):
            return super().forward(x, step) if step.is_decode else x

    attention = model.model.layers[3].self_attn
    attention.q_rope, attention.k_rope = InSteps(), InSteps()


def padding_is_text(model, hf):
    of_prompt = model.cache.states.of_prompt
    model.cache.states.of_prompt = lambda lengths, rows, row: of_prompt([rows] * len(lengths), rows, row)


MOE, PHI, OLMO = "Qwen/Qwen3-30B-A3B/t3000", "microsoft/Phi-4-mini-instruct/n150", "allenai/OLMo-2-0425-1B/n300"
FAULTS = {
    # (model file, change, the user that is watched, point, words)
    "one cache for all layers": (LLAMA, one_cache, 0, "self_attn.k_cache", "layers 0 and 2 have one cache"),
    "positions of user 0 for all": (LLAMA, users_share_a_position, 1, "self_attn", "that of users 0, 4"),
    "two users in one row": (LLAMA, users_share_rows, 1, "self_attn.k_cache", "users share rows of the cache"),
    "a table with one row more": (LLAMA, another_rows_ids, 0, "embed_tokens", "token id -1"),
    "norm after the sum in full layers": (GEMMA, norm_after_the_sum, 0, "self_attn.residual",
                                          "post_attention_layernorm comes after the residual"),
    "long factors in short prompts": (PHI, long_factors, 0, "self_attn.q_rope",
                                      "long_factor in the place of short_factor"),
    "one share of a norm on all chips": (OLMO, first_share_on_both, 0, "self_attn.q_rope", "share 0 of 2 in every"),
    "turned in steps alone": ("HuggingFaceTB/SmolLM3-3B/n150", turned_in_steps, 0, "self_attn", "of steps alone"),
    "padding in the state": (QWEN, padding_is_text, 0, "linear_attn",
                             "both its matrix and its convolution"),
}  # fmt: skip
OF_EXPERTS = {
    "dealt in turn": (lambda n: torch.arange(n).view(-1, 2).T.flatten(), "dealt out in turn over 2 shares"),
    "three in a circle": (lambda n: torch.tensor([1, 2, 0, *range(3, n)]), "expert 1 has the weight of expert 0"),
}
QUICK = ("one cache for all layers", "two users in one row", "positions of user 0 for all")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FAULTS])
def test_it_is_found_where_it_is_and_named(name):
    file, change, user, point, words = FAULTS[name]
    found = first(file, change, user)
    assert found is not None
    assert (found.point, words in found.why) == (point, True), str(found) + found.why


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_EXPERTS)
def test_experts_in_another_order(name):
    order, words = OF_EXPERTS[name]
    found = first(MOE, experts(order))
    assert (found.point, words in found.why) == ("mlp", True), found.why


@pytest.mark.parametrize("user", [0, 1])
def test_nothing_is_found_in_a_clean_one(user):
    assert first(LLAMA, lambda model, hf: None, user) is None
