"""What a planted fault is, and what several of them need."""

import dataclasses
from contextlib import contextmanager

import torch
import ttnn

from tests.checks.faults import replaced

PLANTED = []
Q, K, K_CACHE, V_CACHE = "self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache"


@dataclasses.dataclass(frozen=True)
class Planted:
    name: str
    plant: object
    points: tuple[str, ...]  # where it may be found, as the finder prints a place
    phase: str | None  # in which it shows first; None: in either
    cause: str  # what is wrong, in words
    named: str  # a pattern of the reasons that name this cause, and of no others
    checkpoint: str
    system: str


def planted(checkpoint, points, cause, named, phase="prefill", layer=0, system="n150"):
    """`points` are of `layer`, or of the model where it is None."""
    points = (points,) if isinstance(points, str) else points
    points = points if layer is None else tuple(f"layer {layer}, {point}" for point in points)

    def register(plant):
        name = plant.__name__
        PLANTED.append(Planted(name, contextmanager(plant), points, phase, cause, named, checkpoint, system))
        return plant

    return register


def of_layers(change):
    """A change of a model, HF's or the device's: `change` done to each of its layers."""
    return lambda model: [change(layer) for layer in model.model.layers]


@contextmanager
def attention_replaced(make):
    """Both attention ops of ttnn, of a prompt and of a decode step, are what `make` makes of them."""
    with (
        replaced(ttnn.transformer, "scaled_dot_product_attention", make),
        replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make),
    ):
        yield


def with_hf(build, change):
    """The build with `change(model, hf_model)` done to its model."""

    def altered(hf_model, device, max_seq_len):
        model = build(hf_model, device, max_seq_len)
        change(model, hf_model)
        return model

    return altered


def rotated_by(model, angles):
    """The model rotates by these angles [length, head_dim / 2]."""
    angles, put = torch.cat([angles, angles], dim=-1), model.mesh.put
    cos, sin = angles.cos(), angles.sin()
    model.rope.prompt = [put(table[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT) for table in (cos, sin)]
    model.rope.by_position = [put(table, ttnn.bfloat16) for table in (cos, sin)]
