"""Rotations by other angles, or of other parts."""

import copy
from types import MethodType

import torch
import ttnn

from bringup.blocks.rope import RopeTables
from tests.checks.faults import of_model, on_host, replaced
from tests.checks.planted.core import K, Q, planted, rotated_by, with_hf


@planted("tiny-mistral", Q, "rope_theta is 10,000 in the place of 1,000,000", r"theta")
def theta_of_the_default(build):
    def make(original):
        def init(self, hf_rotary, hf_config, *rest):
            hf_config = copy.deepcopy(hf_config)
            hf_config.rope_parameters = {"rope_type": "default", "rope_theta": 10_000.0}
            original(self, hf_rotary, hf_config, *rest)

        return init

    with replaced(RopeTables, "__init__", make):
        yield build


@planted("tiny-mistral", Q, "the tables are for heads of 64, and cut to 32", r"head_dim|64")
def tables_of_another_head_dim(build):
    def change(model):
        frequencies = 1e6 ** -(torch.arange(0, 32, 2) / 64)
        rotated_by(model, torch.arange(model.cache_len)[:, None] * frequencies)

    yield of_model(build, change)


@planted("tiny-llama", Q, "the angles of the tables are computed in bfloat16", r"bfloat16|dtype|precision")
def angles_in_bfloat16(build):
    def change(model, hf_model):
        positions = torch.arange(model.cache_len, dtype=torch.bfloat16)[:, None]
        rotated_by(model, (positions * hf_model.model.rotary_emb.inv_freq.bfloat16()).float())

    yield with_hf(build, change)


@planted("tiny-allam", Q, "a prompt is rotated from position 5 on", r"\+ ?5\b|position 5|by 5")
def prompt_rotated_from_position_five(build):
    def change(model):
        model.rope.prompt = [on_host(t, lambda x: x.roll(-5, dims=-2)) for t in model.rope.prompt]

    yield of_model(build, change)


@planted("tiny-mistral", Q, "the sine has the wrong sign: rotated the other way", r"sign|other way|backward|-p\b|sin")
def rotated_the_other_way(build):
    def change(model):
        for tables in (model.rope.prompt, model.rope.by_position):
            tables[1] = on_host(tables[1], torch.neg)

    yield of_model(build, change)


@planted(
    "tiny-llama", Q, "only the first half of each head is rotated (partial_rotary_factor 0.5)", r"partial|half|only"
)
def half_of_each_head_rotated(build):
    def change(model, hf_model):
        frequencies = hf_model.model.rotary_emb.inv_freq.clone()
        frequencies[16:] = 0
        rotated_by(model, torch.arange(model.cache_len)[:, None] * frequencies[:32])
        order = torch.arange(64).unflatten(0, (4, 16))[[0, 2, 1, 3]].flatten()  # its own inverse

        def forward(rope, x, step):
            return on_host(type(rope).forward(rope, on_host(x, lambda v: v[..., order]), step), lambda v: v[..., order])

        for layer in model.model.layers:
            for rope in (layer.self_attn.q_rope, layer.self_attn.k_rope):
                rope.forward = MethodType(forward, rope)

    yield with_hf(build, change)


@planted(
    "tiny-llama", K, "the keys of layer 1 are not rotated", r"not rotated|without.*rotat|unrotated|left out", layer=1
)
def keys_not_rotated_in_one_layer(build):
    def change(model):
        model.model.layers[1].self_attn.k_rope.forward = lambda x, step: x

    yield of_model(build, change)


@planted(
    "tiny-llama",
    Q,
    "in decode the rotation stays at the first step's positions",
    r"stand|stay|first step|advance|same position",
    phase="decode",
)
def decode_position_stands_still(build):
    def change(model):
        look_up, reset, first = model.rope.look_up, model.reset, []

        def forget():
            first.clear()
            reset()

        def stale(positions):
            first.append(ttnn.to_torch(positions).to(torch.int32))
            return look_up(on_host(positions, lambda _: first[0]))

        model.reset, model.rope.look_up = forget, stale

    yield of_model(build, change)
