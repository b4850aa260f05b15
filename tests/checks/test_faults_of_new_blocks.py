"""Faults of mixtures of experts, sinks and linear attention, planted in small models of the files that have them: each
is found where it is, and named; clean ones pass."""

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from bringup import backends
from bringup.backends import model_files
from bringup.new import small

backends.activate("emulator")

import ttnn  # noqa: E402

from bringup.evaluation import layers  # noqa: E402  (needs ttnn)
from tests.checks.faults import of_hf, of_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_is_passed_over")

ROOT = Path(__file__).parents[2]
PROMPT, STEPS = 45, 6
#: Name -> (the model file, what of the small model is another's).
MODELS = {
    "qwen3_moe": ("Qwen/Qwen3-30B-A3B/t3000", {}),
    "gpt_oss": ("openai/gpt-oss-20b/p150", {"swiglu_limit": 0.5}),  # which its small values reach
    "qwen3_5": ("Qwen/Qwen3.5-0.8B/n150", {}),
}


@cache
def files(name):
    """The model file's build, a small HF model of its kind in two layers or one of each kind, and its precision."""
    from bringup.checkpoints.known import known_config

    path = ROOT / "models" / MODELS[name][0] / "functional" / "model.py"
    config = known_config("/".join(MODELS[name][0].split("/")[:2]))
    fields = small.fields(config, small.layers(config)) | MODELS[name][1]
    if name == "qwen3_5":
        fields |= {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
    hf = small.as_stored(small.hf_model(fields), ttnn.bfloat16)
    module = model_files.import_file(path)
    precision = type(module.PRECISION).of(ttnn.bfloat16)
    return lambda *args: module.build_model(*args, precision=precision), hf, precision


def first(name, plant=lambda build: build):
    build, hf, precision = files(name)
    ids = torch.randint(3, small.VOCAB, (PROMPT + STEPS,), generator=torch.Generator().manual_seed(1)).tolist()
    with backends.open_system("n150") as device, torch.no_grad():
        return layers.profile(plant(build)(hf, device, 128), hf, ids, PROMPT, precision).first


def of_layer(part, change):
    """A build whose layer 0 has `change` done to its part."""
    return lambda build: of_model(build, lambda model: change(model.model.layers[0].get_submodule(part)))


def routing(**changes):
    def change(gate):
        gate.routing = dataclasses.replace(gate.routing, **changes)

    return of_layer("mlp.gate", change)


def of_experts(change):
    return lambda build: of_hf(build, lambda hf: change(hf.model.layers[0].mlp.experts))


def rolled(experts):
    for name in ("gate_up_proj", "down_proj"):
        weight = getattr(experts, name)
        weight.copy_(weight.roll(1, 0))


def exchanged(experts):
    experts.gate_up_proj.copy_(experts.gate_up_proj.roll(experts.gate_up_proj.shape[1] // 2, 1))


def without(attribute):
    def change(part):
        setattr(part, attribute, None)

    return change


def unbiased(experts):
    for name in ("gate_up_proj_bias", "down_proj_bias"):
        getattr(experts, name).zero_()


def not_clamped(experts):
    experts.limit = 1e4


def never_reset(build):
    """States are not cleared, and a prompt starts from the state that its row has."""

    def change(model):
        model.cache.states.clear = lambda: None
        part = model.model.layers[0].linear_attn
        own = type(part).forward

        def forward(x, step):
            return own(part, x, step if step.is_decode else dataclasses.replace(step, start=1))

        part.forward = forward

    return of_model(build, change)


def shifted(conv):
    """The taps of the convolution one position late."""
    own = conv.prefill

    def prefill(x, step):
        y = own(x, step)
        rows, width = tuple(y.shape)[-2:]
        zeros = ttnn.zeros((1, 1, 1, width), dtype=y.dtype, layout=ttnn.TILE_LAYOUT, device=y.device())
        return ttnn.concat([zeros, ttnn.slice(y, (0, 0, 0, 0), (1, 1, rows - 1, width))], dim=2)

    conv.prefill = prefill


def no_decay(part):
    part.decay = ttnn.mul(part.decay, 0.0)


def ungated(part):
    own = type(part).forward
    part.forward = lambda x, step: _with_silu_of_ones(own, part, x, step)


def _with_silu_of_ones(own, part, x, step):
    silu, calls = ttnn.silu, []

    def once(y, **more):  # of the convolution, then of the gate
        calls.append(y)
        return silu(y, **more) if len(calls) == 1 else ttnn.ones_like(y)

    ttnn.silu = once
    try:
        return own(part, x, step)
    finally:
        ttnn.silu = silu


#: (model, what is planted, where, the cause that is named)
FAULTS = {
    "router_not_normalised": ("qwen3_moe", routing(normalised=False), "mlp", r"router not normalised"),
    "one_expert_too_few": ("qwen3_moe", routing(top_k=3), "mlp", r"with 3 experts a token, where HF has 4"),
    "sigmoid_scores": ("qwen3_moe", routing(scores="sigmoid"), "mlp", r"scores by a sigmoid"),
    "experts_in_another_order": ("qwen3_moe", of_experts(rolled), "mlp", r"experts in another order"),
    "gate_and_up_exchanged": ("qwen3_moe", of_experts(exchanged), "mlp", r"gate and up exchanged in each expert"),
    "router_without_its_bias": ("gpt_oss", of_layer("mlp.gate", without("bias")), "mlp", r"router without its bias"),
    "experts_without_biases": ("gpt_oss", of_experts(unbiased), "mlp", r"without the biases of its experts"),
    "nothing_clamped": ("gpt_oss", of_layer("mlp.experts", not_clamped), "mlp", r"nothing clamped"),
    "sinks_left_out": (
        "gpt_oss", of_layer("self_attn", without("prompt_sinks")), "self_attn", r"attention without its sinks"),
    "state_not_reset": ("qwen3_5", never_reset, "linear_attn", r"text before.*state was reset"),
    "convolution_late": (
        "qwen3_5", of_layer("linear_attn.conv1d", shifted), "linear_attn", r"convolution 1 position late"),
    "no_decay": ("qwen3_5", of_layer("linear_attn", no_decay), "linear_attn", r"state does not decay"),
    "gate_left_out": ("qwen3_5", of_layer("linear_attn", ungated), "linear_attn", r"without its output gate"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_found_in_a_clean_model(name):
    found = first(name)
    assert found is None, f"{found}: {found.why}"


QUICK = {"router_not_normalised", "experts_in_another_order", "sinks_left_out", "state_not_reset"}


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAULTS]
)
def test_it_is_found_and_named(fault):
    name, plant, point, words = FAULTS[fault]
    found = first(name, plant)
    assert found is not None, "not found"
    assert str(found) == f"layer 0, {point}", f"taken for one at {found}: {found.why}"
    assert re.search(words, found.why), found.why
