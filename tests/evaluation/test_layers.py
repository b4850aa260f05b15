"""The first-divergence finder records what HF computes, tells own errors from inherited ones, leaves nothing behind.

That it names real faults, and finds none where there are none, is in tests/checks/test_planted_faults.py.
"""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints import known

backends.activate("emulator")

import ttnn  # noqa: E402  (the backend's)

from bringup.cli import main  # noqa: E402  (needs ttnn)
from bringup.evaluation import layers  # noqa: E402
from bringup.evaluation.layers.activations import place, split  # noqa: E402
from bringup.report import sections  # noqa: E402
from tests.blocks.common import PLAIN, load_model_file, small_hf_model  # noqa: E402
from tests.checks import faults  # noqa: E402

ROOT = Path(__file__).parents[2]
IDS = torch.randint(3, 500, (40,), generator=torch.Generator().manual_seed(3)).tolist()
LLAMA = "meta-llama/Llama-3.2-1B"


@pytest.fixture(scope="module")
def hf_model():
    return with_weights_in(small_hf_model("Llama-3.2-1B"), torch.bfloat16)


def with_weights_in(hf_model, dtype):
    """As from_pretrained leaves it: the rotary frequencies, a buffer, stay in float32."""
    for p in hf_model.parameters():
        p.data = p.data.to(dtype)
    return hf_model


@pytest.fixture(scope="module")
def built(hf_model):
    """A clean model on one chip."""
    file = load_model_file(f"{LLAMA}/n150")
    with backends.open_system("n150") as device:
        yield file.build_model(hf_model, device, 64), file.PRECISION


def in_dtype(hf_model, dtype, **kwargs):
    return layers.record_reference(with_weights_in(copy.deepcopy(hf_model), dtype), IDS, 33, **kwargs)


# -- the HF side ------------------------------------------------------------------------------------------------------

KINDS = {
    "llama": dict(head_dim=32),
    "mistral": dict(head_dim=32, sliding_window=None),
    "arcee": dict(head_dim=32, hidden_act="relu2"),
    "qwen2": {},
    "qwen3": dict(head_dim=32),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_is_recorded_of_hf_is_what_hf_returns(kind):
    config = AutoConfig.for_model(
        kind, num_hidden_layers=2, hidden_size=128, intermediate_size=96, vocab_size=500, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters=PLAIN, **KINDS[kind],
    )  # fmt: skip
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    out = hf(torch.tensor([IDS]), output_hidden_states=True, use_cache=True)
    found = layers.record_reference(hf, IDS, 33)
    names = ["model.embed_tokens", "model.layers.0.mlp.residual", "model.norm"]
    for name, want in zip([*names, "lm_head"], [*out.hidden_states, out.logits], strict=True):
        torch.testing.assert_close(found.points[name], want[0], msg=lambda text, name=name: f"{name}: {text}")
    for i, layer in enumerate(out.past_key_values.layers):  # HF's own cache: keys after RoPE, values
        for point, value in (("k_rope", layer.keys), ("k_cache", layer.keys), ("v_cache", layer.values)):
            want = value[0].transpose(0, 1).flatten(1)
            torch.testing.assert_close(found.points[f"model.layers.{i}.self_attn.{point}"], want)
    x = found.points
    torch.testing.assert_close(
        x["model.layers.1.self_attn.residual"], x["model.layers.0.mlp.residual"] + x["model.layers.1.self_attn"]
    )
    assert found.names()[:3] == [
        "model.embed_tokens",
        "model.layers.0.input_layernorm",
        "model.layers.0.self_attn.q_rope",
    ]
    assert found.names()[-2:] == ["model.norm", "lm_head"]
    assert len(found.names()) == 2 * 10 + 3


def test_names_and_their_order():
    assert split("model.layers.12.self_attn.k_rope") == (12, "self_attn.k_rope")
    assert split("model.norm") == (None, "norm")
    assert place("model.layers.2.mlp") < place("model.layers.10.input_layernorm") < place("model.norm")


def test_hf_is_left_as_it_was(hf_model, built):
    from transformers.models.llama import modeling_llama

    model, precision = built
    rope = modeling_llama.apply_rotary_pos_emb
    before = {name: p.clone() for name, p in hf_model.named_parameters()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in (*hf_model.modules(), *model.modules())]
    layers.profile(model, hf_model, IDS, 33, precision)
    with pytest.raises(IndexError):  # an id outside the vocabulary, in the middle of a recording
        layers.record_reference(hf_model, [100_000], 1)
    assert modeling_llama.apply_rotary_pos_emb is rope
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in (*hf_model.modules(), *model.modules())]
    assert hf_model.lm_head.weight is hf_model.model.embed_tokens.weight  # tied, also after rounding the head
    for name, p in hf_model.named_parameters():
        assert p.dtype == before[name].dtype
        assert torch.equal(p, before[name])


# -- own errors and inherited ones ------------------------------------------------------------------------------------


def as_device(recorded, name, change, rows=slice(None)):
    """A device that computes as HF in bfloat16, with one point changed, and all that follows from it."""
    recorded = copy.deepcopy(recorded)
    recorded.points[name][rows] = change(recorded.points[name][rows])
    return recorded


def test_an_error_is_named_where_it_is_made_and_not_where_it_is_inherited(hf_model):
    """Layer 0's MLP is 5 % off; everything after it is computed by HF in bfloat16 on what came out."""
    name = "model.layers.0.mlp"
    wrong = as_device(in_dtype(hf_model, torch.bfloat16), name, lambda x: 1.05 * x)
    only_this = SimpleNamespace(points={name: wrong.points[name]}, known={})
    after = in_dtype(hf_model, torch.bfloat16, given=only_this)
    after.points[name] = wrong.points[name]
    found = layers.judge(hf_model, after)
    assert str(found.first) == "layer 0, mlp"
    bad = [(row["layer"], row["point"]) for row in found.points if not row["own"]["ok"]]
    assert set(bad) == {(0, "mlp")}, bad
    inherited = next(row for row in found.points if (row["layer"], row["point"]) == (0, "mlp.residual"))
    assert inherited["ratio"] > 2  # it is off, and not by its own doing


def test_one_wrong_position_is_seen_and_said(hf_model):
    name = "model.layers.1.self_attn.q_rope"
    wrong = as_device(in_dtype(hf_model, torch.bfloat16), name, lambda x: 1.06 * x, slice(31, 32))
    found = layers.judge(hf_model, wrong)
    first = next(row for row in found.points if not row["own"]["ok"])
    assert (first["layer"], first["point"], first["own"]["worst_position"]) == (1, "self_attn.q_rope", 31)
    assert "worst at position 31" in found.first.why


def test_not_a_number_is_named(hf_model):
    name = "model.layers.1.mlp"
    wrong = as_device(in_dtype(hf_model, torch.bfloat16), name, lambda x: x * float("nan"), slice(35, 36))
    found = layers.judge(hf_model, wrong)
    assert (str(found.first), found.first.phase) == ("layer 1, mlp", "decode")
    assert "not finite, first at position 35" in found.first.why
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_nan_of_one_step_is_named_there_though_it_spreads(hf_model):
    """From layer 0's MLP into the cache and all that follows; the prompt, which came before, was right."""
    name = "model.layers.0.mlp"
    clean = in_dtype(hf_model, torch.bfloat16)
    device = copy.deepcopy(clean)
    for point in device.names()[device.names().index(name) :]:
        device.points[point][35] = float("nan")
    found = layers.judge(hf_model, device)
    assert (str(found.first), found.first.phase) == ("layer 0, mlp", "decode")
    assert "not finite, first at position 35" in found.first.why
    assert all(row["own"]["ok"] for row in found.points if row["phase"] == "prefill")
    json.dumps(found.as_dict(), allow_nan=False)
    assert sections.worst(found.as_dict())[0]["point"] == "mlp"  # the report shows it


def test_chips_that_differ_are_named_though_the_first_is_right(hf_model):
    device = in_dtype(hf_model, torch.bfloat16)
    device.spread["model.layers.0.self_attn", "prefill"] = 0.5
    found = layers.judge(hf_model, device)
    assert str(found.first) == "layer 0, self_attn"
    assert "the chips hold different values (0.5 apart)" in found.first.why


def test_without_runs_on_the_devices_inputs_the_plain_errors_are_judged(hf_model):
    fp32, bf16 = in_dtype(hf_model, torch.float32), in_dtype(hf_model, torch.bfloat16)
    assert layers.compare(fp32, bf16, bf16).first is None
    wrong = as_device(bf16, "model.layers.1.self_attn", torch.negative)
    assert str(layers.compare(fp32, bf16, wrong).first) == "layer 1, self_attn"


def test_figures_are_numpys():
    generator = torch.Generator().manual_seed(0)
    want = torch.randn(7, 33, generator=generator) + 2
    got = want + 0.1 * torch.randn(7, 33, generator=generator)
    x, y = got.numpy().astype(np.float64).ravel(), want.numpy().astype(np.float64).ravel()
    found = layers.figures(got, want)
    assert found["pcc"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["rel_l2"] == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y))
    assert found["max_error"] == pytest.approx(np.abs(x - y).max())
    assert found["bias"] == pytest.approx((x - y).mean())
    assert layers.figures(want, want) == {"pcc": pytest.approx(1.0), "rel_l2": 0.0, "max_error": 0.0, "bias": 0.0}


# -- the device side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "prompt"), [(1, 1), (3, 1), (33, 33), (40, 31), (40, 32)])
def test_any_split_into_prompt_and_steps(hf_model, built, length, prompt):
    model, precision = built
    found = layers.profile(model, hf_model, IDS[:length], prompt, precision)
    assert found.first is None, found.first.why
    phases = [row["phase"] for row in found.points]
    assert phases.count("prefill") == 23
    assert phases.count("decode") == (23 if length > prompt else 0)


def test_the_model_goes_on_as_before(hf_model, built):
    """Watching changes nothing: the same logits to the last bit."""
    model, precision = built
    before = model(torch.tensor([IDS]), logits_to_keep=0).logits
    layers.profile(model, hf_model, IDS, 33, precision)
    assert torch.equal(model(torch.tensor([IDS]), logits_to_keep=0).logits, before)


def test_data_parallel_watches_the_first_user(hf_model):
    file = load_model_file(f"{LLAMA}/n300")
    with backends.open_system("n300") as device:
        model = file.build_model(hf_model, device, 64, data_parallel=True)
        found = layers.profile(model, hf_model, IDS, 33, file.PRECISION)
    assert found.first is None, found.first.why
    assert {row["point"] for row in found.points} >= {"self_attn.k_cache", "self_attn.v_cache"}


def test_llama3_scaling_left_out_shows_at_the_true_models_frequencies():
    """Llama-3.2-1B scales wavelengths of more than 2048 positions only: at 64 tokens a part of a small angle."""
    rope = dict(known.known_config("meta-llama/Llama-3.2-1B").rope_parameters)
    assert rope["rope_type"] == "llama3"
    hf = with_weights_in(
        small_hf_model("Llama-3.2-1B", rope_parameters=rope, max_position_embeddings=131072), torch.bfloat16
    )
    ids = (IDS + IDS)[:64]
    file = load_model_file(f"{LLAMA}/n150")
    plant = next(fault.plant for fault in faults.FAULTS if fault.name == "llama3_scaling_left_out")
    with backends.open_system("n150") as device:
        assert layers.profile(file.build_model(hf, device, 96), hf, ids, 60, file.PRECISION).first is None
        with plant(file.build_model) as build:
            found = layers.profile(build(hf, device, 96), hf, ids, 60, file.PRECISION)
    assert str(found.first) == "layer 0, self_attn.q_rope"
    assert "the llama3 scaling is left out" in found.first.why


# -- files that know nothing of bringup.blocks ------------------------------------------------------------------------


class Foreign(torch.nn.Module):
    """HF in bfloat16 under names of its own; `wrong` layers double what they add."""

    def __init__(self, hf_model, hidden_states=True, wrong=()):
        super().__init__()
        self.net, self.hidden_states = copy.deepcopy(hf_model), hidden_states
        for i in wrong:
            self.net.model.layers[i].mlp.register_forward_hook(lambda _, args, out: 2 * out)

    def forward(self, input_ids, past_key_values=None, output_hidden_states=False, use_cache=True):
        return self.net(
            input_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states and self.hidden_states,
        )


def test_hidden_states_of_a_foreign_file(hf_model):
    found = layers.profile(Foreign(hf_model), hf_model, IDS, 33)
    assert (found.depth, found.first) == ("hidden_states", None)
    points = [(row["layer"], row["point"]) for row in found.points if row["phase"] == "decode"]
    assert points == [(None, "embed_tokens"), (0, "mlp.residual"), (None, "norm"), (None, "lm_head")]
    found = layers.profile(Foreign(hf_model, wrong=[0]), hf_model, IDS, 33)
    assert str(found.first) == "layer 0, mlp.residual"
    found = layers.profile(Foreign(hf_model, wrong=[1]), hf_model, IDS, 33)
    assert str(found.first) == "norm"  # HF gives the last layer's output after the norm


def test_logits_are_what_is_left(hf_model):
    found = layers.profile(Foreign(hf_model, hidden_states=False), hf_model, IDS, 33)
    assert (found.depth, found.first) == ("logits", None)
    found = layers.profile(Foreign(hf_model, hidden_states=False, wrong=[1]), hf_model, IDS, 33)
    assert (str(found.first), found.first.layer, found.first.phase) == ("lm_head", None, "prefill")


# -- what did not run -------------------------------------------------------------------------------------------------


def with_logits(hf_model, make, seen=IDS):
    """The profile of a clean model with other logits(x): make(model)."""
    file = load_model_file(f"{LLAMA}/n150")
    with backends.open_system("n150") as device:
        model = file.build_model(hf_model, device, 64)
        model.logits = make(model)
        return layers.profile(model, hf_model, seen, 33, file.PRECISION)


def test_a_norm_without_a_name_is_named_only_where_it_is_missing(hf_model):
    """Called past its hooks it does not run as a module: that alone is no fault, and no reason of another one."""
    assert with_logits(hf_model, lambda m: lambda x: m.lm_head(m.model.norm.forward(x))).first is None
    found = with_logits(hf_model, lambda m: lambda x: m.lm_head(ttnn.multiply(m.model.norm.forward(x), -1.0)))
    assert str(found.first) == "lm_head"
    found = with_logits(hf_model, lambda m: lambda x: m.lm_head(x))
    assert (str(found.first), found.first.phase) == ("norm", "prefill")
    assert found.first.as_dict()["why"].startswith("did not run (the device model has it, and does not call it)")


def test_a_norm_that_only_decode_leaves_out(hf_model):
    found = with_logits(hf_model, lambda m: lambda x: m.lm_head(x if m._live.lengths[0] else m.model.norm(x)))
    assert (str(found.first), found.first.phase) == ("norm", "decode")


def test_what_is_not_called_in_a_layer(hf_model):
    file = load_model_file(f"{LLAMA}/n150")
    with backends.open_system("n150") as device:
        model = file.build_model(hf_model, device, 64)
        layer = model.model.layers[1]
        layer.forward = lambda x, step: ttnn.add(x, layer.mlp(layer.post_attention_layernorm(x)))
        first = layers.profile(model, hf_model, IDS, 33, file.PRECISION).first
    assert str(first) == "layer 1, input_layernorm"
    assert first.why.startswith(
        "did not run, nor did layer 1, self_attn (the device model has it, and does not call it)"
    )


def test_a_moved_vocabulary_is_said(hf_model):
    def moved(model):
        return lambda x: faults.on_host(model.lm_head(model.model.norm(x)), lambda y: y.roll(1, -1))

    found = with_logits(hf_model, moved)
    assert str(found.first) == "lm_head"
    assert "the vocabulary shifted by +1" in found.first.why


# -- the command ------------------------------------------------------------------------------------------------------


def layers_command(model_py, *words):
    return main(["layers", str(model_py), "--model", str(ROOT / "checkpoints" / "tiny-llama"), *words])


def test_the_command_prints_a_table_and_a_verdict(tmp_path, capsys):
    path = tmp_path / "profile.json"
    model_py = ROOT / "models" / LLAMA / "n150" / "functional" / "model.py"
    assert layers_command(model_py, "--tokens", "20", "--decode", "2", "--all", "--json", str(path)) == 0
    text = capsys.readouterr().out
    assert "No point diverges." in text
    assert max(map(len, text.splitlines()[3:])) < 120
    kept = json.loads(path.read_text())
    assert (kept["depth"], kept["first_divergence"], kept["prefill_tokens"], kept["decode_tokens"]) == (
        "submodules", None, 20, 2,
    )  # fmt: skip
    assert len(kept["points"]) == 2 * 33
    assert text.count("post_attention_layernorm") == 6
    row = next(p for p in kept["points"] if p["point"] == "self_attn.k_rope")
    assert {"layer", "point", "phase", "pcc", "rel_l2", "max_error", "bias", "bf16", "ratio", "own"} <= set(row)


def test_the_command_fails_with_the_place(tmp_path, capsys):
    clean = (ROOT / "models" / LLAMA / "n150" / "functional" / "model.py").read_text()
    wrong = "return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))"
    assert wrong in clean
    path = tmp_path / "model.py"
    path.write_text(clean.replace(wrong, "return self.mlp(self.post_attention_layernorm(x))"))
    assert layers_command(path, "--tokens", "20", "--decode", "2") == 1
    text = capsys.readouterr().out
    assert "First divergence: layer 0, mlp.residual (prefill)" in text
    assert "the residual is not added" in text


def test_the_command_for_a_foreign_file(capsys):
    model_files.load_model_file(ROOT / "tests" / "foreign" / "llama_by_hand.py")
    assert layers_command(ROOT / "tests" / "foreign" / "llama_by_hand.py", "--tokens", "20", "--decode", "2") == 0
    assert "only logits were compared" in capsys.readouterr().out


def test_what_cannot_be_run_is_refused(capsys):
    model_py = ROOT / "models" / LLAMA / "n150" / "functional" / "model.py"
    with pytest.raises(SystemExit, match="2"):
        layers_command(model_py, "--tokens", "0")
    assert "at least 1" in capsys.readouterr().err


def test_a_traced_model_is_watched_too(hf_model):
    """Replayed steps run no module: for the recording they run, and afterwards are captured again."""
    file = load_model_file(f"{LLAMA}/n150")
    with backends.open_system("n150") as device:
        model = file.build_model(hf_model, device, 64)
        model.traced = True
        past = model(torch.tensor([IDS])).past_key_values
        model(torch.tensor([IDS[:1]]), past_key_values=past)
        found = layers.profile(model, hf_model, IDS, 33, file.PRECISION)
        assert model.traced
    assert found.first is None, found.first.why
    assert sum(row["phase"] == "decode" for row in found.points) == 23


def test_an_attention_with_other_parts_is_named_without_a_reason():
    """Phi-3 has one matrix for q, k and v, so that HF's values of some points were not seen."""
    config = AutoConfig.for_model(
        "phi3", num_hidden_layers=2, hidden_size=64, intermediate_size=96, vocab_size=500, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    hf = with_weights_in(AutoModelForCausalLM.from_config(config).eval(), torch.bfloat16)
    name = "model.layers.1.self_attn"
    wrong = as_device(in_dtype(hf, torch.bfloat16), name, torch.negative)
    device = in_dtype(hf, torch.bfloat16, given=SimpleNamespace(points={name: wrong.points[name]}, known={}))
    device.points[name] = wrong.points[name]
    found = layers.judge(hf, device)
    assert str(found.first) == "layer 1, self_attn"


def test_an_architecture_with_other_names_is_compared_by_its_logits():
    config = AutoConfig.for_model("gpt2", n_layer=2, n_embd=64, n_head=2, vocab_size=500, n_positions=64)
    torch.manual_seed(0)
    hf = with_weights_in(AutoModelForCausalLM.from_config(config).eval(), torch.bfloat16)

    class Gpt2(Foreign):
        def __init__(self):
            super().__init__(hf, hidden_states=False)

    found = layers.profile(Gpt2(), hf, IDS, 33)
    assert (found.depth, found.first, len(found.points)) == ("logits", None, 2)


def test_zeros_are_no_divergence():
    """A prompt that is a padding token alone: its embedding is zeros, and the device has the same."""
    from bringup.evaluation.layers.verdict import own_error

    nothing = torch.zeros(1, 8)
    assert own_error(nothing, nothing, nothing, torch.arange(1), 3.0, 0.005, 0.0)["ok"]
    assert not own_error(nothing + 1, nothing, nothing, torch.arange(1), 3.0, 0.005, 0.0)["ok"]
