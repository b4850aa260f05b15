"""The module tests pass a clean model on one chip and on a mesh, and name the block whose weights are other ones."""

import copy

import pytest
import torch

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints.known import known_config
from bringup.evaluation import modules, state_modules
from bringup.files import PROJECT as ROOT

backends.activate("emulator")

import ttnn  # noqa: E402

from bringup.new import small  # noqa: E402
from tests.blocks.common import small_hf_model  # noqa: E402

NAME = "ALLaM-7B-Instruct-preview"
FILE = ROOT / "models" / "humain-ai" / NAME


@pytest.fixture(scope="module")
def hf():
    return small_hf_model(NAME)


def built(hf, device, system):
    file = model_files.load_model_file(FILE / system / "functional" / "model.py")
    return file.module.build_model(hf, device, 128)


@pytest.mark.parametrize("system", ["n150", "n300"])
def test_a_clean_model_passes(hf, system):
    with backends.open_system(system) as device:
        results = modules.run(built(hf, device, system), hf, layer=1)
    assert all(r.ok for r in results), "\n".join(map(str, results))
    names = [(r.name.removeprefix("model.layers.1"), r.phase) for r in results]
    parts = ["", ".input_layernorm", ".post_attention_layernorm", ".mlp", ".self_attn"]
    parts += [f".self_attn.{n}" for n in ("q_proj", "k_proj", "q_rope", "k_rope", "keys", "values")]
    for phase in ("decode", "prefill"):
        assert {n for n, p in names if p == phase} == {*parts, "model.norm", "lm_head"}
    assert all(r.bound == (0.99 if r.name.endswith(("self_attn", "mlp", ".1")) else 0.999) for r in results)
    heads = [r.shape for r in results if r.name.endswith("q_rope") and r.phase == "decode"]
    assert heads == [[32, 8, 1, 32]]  # 32 users, 8 heads, whichever chip they are on


def test_another_weight_is_found_where_it_is(hf):
    other = copy.deepcopy(hf)
    attention, norm = other.model.layers[0].self_attn, other.model.layers[0].post_attention_layernorm
    with torch.no_grad():
        weight = attention.k_proj.weight.unflatten(0, (8, 32))
        attention.k_proj.weight.copy_(weight[[1, 0, 3, 2, 5, 4, 7, 6]].flatten(0, 1))
        norm.weight.mul_(1.5)
    with backends.open_system("n150") as device:
        results = modules.run(built(other, device, "n150"), hf)
    wrong = {r.name.removeprefix("model.layers.0.") for r in results if not r.ok}
    assert {"self_attn.k_proj", "self_attn.keys", "post_attention_layernorm"} <= wrong
    assert not wrong & {"self_attn.q_proj", "self_attn.k_rope", "self_attn.values", "input_layernorm", "mlp", "lm_head"}
    hints = {r.name.removeprefix("model.layers.0."): r.hint for r in results}
    assert (
        "heads are in another order: head 0 has what is head 1's, head 1 has what is head 0's, head 2 has what is"
        in hints["self_attn.k_proj"]
    )
    # PCC does not see a factor: the distance that its bar stands for does
    factor = next(r for r in results if r.name.endswith("post_attention_layernorm"))
    assert factor.pcc > 0.999
    assert not factor.ok
    assert factor.hint.startswith(("actual is 1.49", "actual is 1.5"))


def test_without_values_the_calls_are_made(hf):
    with backends.open_system("n150") as device:
        results = modules.run(built(hf, device, "n150"), hf, values=False)
    assert results
    assert all(r.ok is None and r.pcc is None for r in results)


@pytest.fixture(scope="module")
def hybrid():
    config = known_config("Qwen/Qwen3.5-0.8B")
    return small.as_stored(small.hf_model(small.fields(config, small.layers(config))), ttnn.bfloat16)


def with_states(hf, device, system):
    file = model_files.load_model_file(ROOT / f"models/Qwen/Qwen3.5-0.8B/{system}/functional/model.py")
    return file.module.build_model(hf, device, 128)


@pytest.mark.parametrize("system", ["n150", "n300"])
def test_layers_with_states_pass(hybrid, system):
    """Beside layers with keys, of which one is tried as well."""
    with backends.open_system(system) as device:
        model = with_states(hybrid, device, system)
        assert modules.made_of_blocks(model) == (True, None)
        assert modules.first_of_each_kind(model) == [3, 0]
        results = state_modules.of_layer(model, hybrid)
    assert all(r.ok for r in results), "\n".join(map(str, results))
    names = ["", ".input_layernorm", ".post_attention_layernorm", ".linear_attn", ".mlp"]
    for phase in ("decode", "prefill"):
        assert {r.name.removeprefix("model.layers.0") for r in results if r.phase == phase} == set(names)


def test_a_state_that_decays_otherwise_is_found(hybrid):
    """In a step, and in a prompt."""
    other = copy.deepcopy(hybrid)
    decay = other.model.layers[0].linear_attn.A_log
    with torch.no_grad():
        decay.sub_(3)
    with backends.open_system("n150") as device:
        results = state_modules.of_layer(with_states(other, device, "n150"), hybrid)
    wrong = {(r.name.removeprefix("model.layers.0."), r.phase) for r in results if not r.ok}
    assert {("linear_attn", "decode"), ("linear_attn", "prefill")} <= wrong
    assert not {name for name, _ in wrong} & {"input_layernorm", "post_attention_layernorm", "mlp"}


def test_without_values_states_are_moved_on(hybrid):
    with backends.open_system("n150") as device:
        results = state_modules.of_layer(with_states(hybrid, device, "n150"), hybrid, values=False)
    assert len(results) == 10
    assert all(r.ok is None and r.pcc is None for r in results)


def test_a_foreign_model_is_not_opened_up(hf):
    usable, why = modules.made_of_blocks(hf)
    assert not usable
    assert "bringup.blocks" in why
