"""Faults of what families differ in, planted in files that `bringup new` wrote: the finder says where and what."""

import pytest
import torch

from bringup import backends
from bringup.backends import model_files

backends.activate("emulator")

import ttnn  # noqa: E402

from bringup.blocks import NoRope, Rope  # noqa: E402
from bringup.evaluation import layers  # noqa: E402
from bringup.new import small  # noqa: E402
from tests.new.families import config  # noqa: E402
from tests.new.test_families import written  # noqa: E402

PROMPT, TOKENS = 33, 36  # beyond the window
CAPS = {"gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 2.0}}  # that random weights reach


def each(change):
    """A fault of every layer."""
    return lambda model: [change(layer) for layer in model.model.layers]


def window(by):
    return each(lambda layer: layer.self_attn.sdpa.update(sliding_window_size=16 + by))


def named(name, value):
    return each(lambda layer: setattr(layer, name, value))


def skipped(name):
    return each(lambda layer: setattr(layer, name, torch.nn.Identity()))


def rotated(rope):
    def plant(layer):
        layer.self_attn.q_rope, layer.self_attn.k_rope = rope(), rope()

    return each(plant)


def of_sliding_layers(layer):
    for rope in (layer.self_attn.q_rope, layer.self_attn.k_rope):
        rope.layer_type = "sliding_attention"


def offset(layer):
    layer.input_layernorm.weight = ttnn.subtract(layer.input_layernorm.weight, 1.0)


def bare_logits(model):
    model.logits = lambda x: model.lm_head(model.model.norm(x))


def whole_heads_turned(model):
    """All of a head turns, where HF turns a part."""
    rope, head_dim = model.rope, model.model.layers[0].self_attn.head_dim
    angles = torch.arange(model.cache_len)[:, None] / 10000 ** (torch.arange(0, head_dim, 2) / head_dim)
    tables = [torch.cat((t, t), 1) for t in (angles.cos(), angles.sin())]
    rope.prompt = [model.mesh.put(t[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT) for t in tables]
    rope.by_position = [model.mesh.put(t, ttnn.bfloat16) for t in tables]


def input_of_the_layer_before(model):
    """Each layer has the input of the one before it, the first its own."""
    own = model.model.per_layer_inputs.forward
    model.model.per_layer_inputs.forward = lambda *args: [own(*args)[max(0, i - 1)] for i in range(6)]


def keys_of_the_first(model):
    """The first layer that reads another's keys reads those of the first one of its type."""
    first, *_, last = (layer.self_attn for layer in model.model.layers[:5:2])
    last.cache = first.cache


FAULTS = {
    "all of a head turned": ("stablelm", whole_heads_turned, "self_attn", "their norm or rotation is another"),
    "window off by one": ("gemma3_text", window(1), "self_attn",
                          "sees a window of the last 17 positions, HF has a window of 16"),
    "window left out": ("gemma3_text", each(lambda a: a.self_attn.sdpa.pop("sliding_window_size", 0)), "self_attn",
                        "sees all positions, HF has a window of 16"),
    "post-norm skipped": ("gemma3_text", skipped("post_feedforward_layernorm"),
                          "post_feedforward_layernorm", "post_feedforward_layernorm is skipped"),
    "unit offset forgotten": ("gemma3_text", each(offset), "input_layernorm",
                              "x / rms(x) times the weight, where HF has x / rms(x) times 1 + weight"),
    "scale of the head's size": ("gemma3_text", each(lambda a: a.self_attn.sdpa.pop("scale")), "self_attn",
                                 "scaled by 0.1768"),
    "another layer type's rotation": ("gemma3_text", each(of_sliding_layers), "self_attn.q_rope",
                                      "by the tables of sliding_attention, in a layer of full_attention"),
    "token table not scaled": ("gemma3_text", lambda m: setattr(m.model.embed_tokens, "scale", None), "embed_tokens",
                               "without their scale, 16"),
    "another activation": ("gemma3_text", each(lambda a: setattr(a.mlp, "activation", [ttnn.UnaryOpType.SILU])), "mlp",
                           "silu"),
    "residual multiplier left out": ("granite", named("residual_multiplier", 1.0), "self_attn.residual",
                                     "residual_multiplier, 0.22 is left out"),
    "embedding multiplier left out": ("granite", lambda m: setattr(m.model, "embedding_multiplier", 1.0),
                                      "self_attn.residual", "embedding_multiplier, 12 is left out"),
    "logits not scaled": ("granite", bare_logits, "lm_head", "logits_scaling, 8, is left out"),
    "logits not capped": ("gemma2", bare_logits, "lm_head", "the cap of the logits is left out"),
    "scores not capped": ("gemma2", each(lambda a: setattr(a.self_attn, "cap", 1e4)), "self_attn",
                          "without the cap of its scores, 2"),
    "rotated where nothing turns": ("smollm3", rotated(Rope), "self_attn", "HF rotates neither in layer 3"),
    "nothing turned": ("smollm3", rotated(NoRope), "self_attn.q_rope", "q without rotation"),
    "head's bias left out": ("phi", lambda m: setattr(m.lm_head, "bias", None), "lm_head", "without the head's bias"),
    "bias of o left out": ("phi", each(lambda a: setattr(a.self_attn, "o_bias", None)), "self_attn", "dense.bias"),
    "keys of another layer": ("gemma4_text", keys_of_the_first, "self_attn.k_cache",
                              "the keys of layer 0, where HF shares those of layer 2"),
    "values not normed": ("gemma4_text", each(lambda a: setattr(a.self_attn, "v_norm", torch.nn.Identity())),
                          "self_attn.v_cache", "v_proj of the layer's input, without v_norm"),
    "inputs of layers not scaled": ("gemma4_text", lambda m: setattr(m.model.per_layer_inputs, "scale", 1.0),
                                    "per_layer_projection", "without the scale of their sum, 0.7071"),
    "another layer's input": ("gemma4_text", input_of_the_layer_before, "per_layer_projection",
                              "with the input of layer 0 in the place of its own"),
    "layer scalar left out": ("gemma4_text", skipped("layer_scalar"), "mlp.residual", "without its layer_scalar"),
    "norm after attention skipped": ("olmo2", skipped("post_attention_layernorm"),
                                     "post_attention_layernorm", "post_attention_layernorm is skipped"),
}  # fmt: skip
FAST = ("window off by one", "post-norm skipped", "residual multiplier left out")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Family -> its model file, written once."""
    found = {}

    def of(family):
        if family not in found:
            found[family] = written(family, tmp_path_factory.mktemp(family), **CAPS.get(family, {}))[1]
        return found[family]

    return of


def profile(family, model_py, plant):
    asked = config(family, **CAPS.get(family, {}))
    asked.initializer_range = 0.08
    known = type(asked)().to_dict()
    fields = {k: v for k, v in asked.to_diff_dict().items() if k in known and k not in small.NO_PART}
    module = model_files.load_model_file(model_py, "n150").module
    hf = small.as_stored(small.hf_model({"model_type": family} | fields), module.PRECISION.mlp)
    ids = torch.randint(3, 500, (TOKENS,), generator=torch.Generator().manual_seed(5)).tolist()
    with torch.no_grad(), backends.open_system("n150") as device:
        model = module.build_model(hf, device, 64)
        plant(model)
        return layers.profile(model, hf, ids, PROMPT, layers.precision_of(module))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in FAULTS])
def test_it_is_found_where_it_is_and_named(name, files):
    family, plant, point, words = FAULTS[name]
    first = profile(family, files(family), plant).first
    assert first is not None
    assert first.point == point
    assert words in first.why


CLEAN = ("gemma3_text", "gemma4_text", "granite", "gemma2", "smollm3", "olmo2", "phi", "cohere2")


@pytest.mark.parametrize("family", [pytest.param(f, marks=[pytest.mark.slow] * (f != "gemma3_text")) for f in CLEAN])
def test_no_alarm_where_nothing_is_wrong(family, files):
    assert profile(family, files(family), lambda model: None).first is None
