"""What `bringup new` writes for each family, against HF in float32: a prompt longer than the window, and 40 steps."""

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from bringup import backends, cli
from bringup.backends import model_files
from bringup.new import choices
from bringup.new.small import in_bf16, relative_l2, tempered
from tests.new.families import FAMILIES, MIXED, config

PROMPT, STEPS = 48, 40
FAR = 0.03  # relative L2 of the logits, bfloat16 weights
#: Between them: norms before, after and of all heads, unit offsets, windows, several rotations and none, parts of
#: heads and neighbours, parallel residuals, biases, factors.
FAST = ("gemma3_text", "cohere2", "olmo2", "phi", "granite")


@pytest.fixture(scope="module", autouse=True)
def emulator():
    backends.activate("emulator")


def written(model_type, tmp_path, system="n150", **more):
    """(HF's configuration, the model file)."""
    asked = config(model_type, **more)
    asked.save_pretrained(tmp_path / "hf")
    arguments = [tmp_path / "hf", "--id", f"some/{model_type}", "--system", system, "--out", tmp_path]
    assert cli.main(["new", *map(str, arguments)]) == 0
    return asked, tmp_path / "models" / "some" / model_type / system / "functional" / "model.py"


def distance(asked, model_py, system="n150", seed=0):
    """How far the logits of a prompt and of steps are from HF's in float32, whose weights are bfloat16's."""
    torch.manual_seed(seed)
    hf = tempered(AutoModelForCausalLM.from_config(asked, dtype=torch.float32).eval())
    with torch.no_grad():
        for weight in hf.parameters():
            weight.copy_(weight.bfloat16().float())
    ids = torch.randint(3, 500, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(seed + 1))
    module = model_files.load_model_file(model_py, system).module
    with torch.no_grad(), backends.open_system(system) as device:
        model = module.build_model(hf, device, 128)
        out = model(ids[:, :PROMPT], logits_to_keep=0)
        got = [out.logits]
        for i in range(PROMPT, PROMPT + STEPS):
            out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
            got.append(out.logits)
        return relative_l2(torch.cat(got, 1), hf(ids).logits)


@pytest.mark.parametrize("model_type", [pytest.param(f, marks=() if f in FAST else pytest.mark.slow) for f in FAMILIES])
def test_a_family_is_written_and_is_hfs(model_type, tmp_path):
    asked, model_py = written(model_type, tmp_path)
    assert 60 <= len(model_py.read_text().splitlines()) <= 125
    assert distance(asked, model_py) < FAR


@pytest.mark.parametrize(
    "model_type", ["gemma3_text", *(pytest.param(f, marks=pytest.mark.slow) for f in ("bitnet", "gemma4_text"))]
)
def test_on_two_chips(model_type, tmp_path):
    assert distance(*written(model_type, tmp_path, "n300"), "n300") < FAR


@pytest.mark.parametrize(
    ("model_type", "system"),
    [("gemma3_text", "p150"), ("olmo2", "p300")]
    + [pytest.param(f, "p150", marks=pytest.mark.slow) for f in FAMILIES if f != "gemma3_text"],
)
def test_on_blackhole(model_type, system, tmp_path):
    asked, model_py = written(model_type, tmp_path, system)
    assert f"Blackhole{'s' * (system != 'p150')} ({system})" in model_py.read_text()
    assert distance(asked, model_py, system) < FAR


@pytest.mark.parametrize(
    ("model_type", "head_dim"),
    [("phi3", 96), pytest.param("qwen3", 80, marks=pytest.mark.slow), pytest.param("glm", 160, marks=pytest.mark.slow)],
)
def test_heads_of_sizes_that_the_rotation_refuses_are_padded(model_type, head_dim, tmp_path):
    fields = {"head_dim": head_dim} if model_type != "phi3" else {"hidden_size": 8 * head_dim}
    assert distance(*written(model_type, tmp_path, **fields)) < FAR


@pytest.mark.slow
def test_phis_norms_of_heads(tmp_path):
    assert distance(*written("phi", tmp_path, qk_layernorm=True)) < FAR


@pytest.mark.slow
@pytest.mark.parametrize("system", ["n150", "n300"])
def test_gemma_4_without_inputs_of_layers_and_with_one_projection_for_keys_and_values(system, tmp_path):
    """As its large dense models are: KV heads differ by layer too, and no layer has another's keys."""
    fields = dict(
        attention_k_eq_v=True, num_global_key_value_heads=1, num_kv_shared_layers=0, hidden_size_per_layer_input=0
    )
    asked, model_py = written("gemma4_text", tmp_path, system, **fields)
    assert "Shared" not in model_py.read_text()
    assert distance(asked, model_py, system) < FAR


def test_what_computes_something_else_is_not_installed(tmp_path, monkeypatch, capsys):
    """Were a layer without rotation taken for one with it, the file would be held against HF before it is there."""
    from bringup.new.reading import whole

    def turned(reads):
        def read(*given):
            part = reads(*given)
            return dataclasses.replace(part, keywords=()) if part.block == "Attention" else part

        return read

    monkeypatch.setattr(whole, "PARTS", tuple((takes, turned(reads)) for takes, reads in whole.PARTS))
    config("smollm3").save_pretrained(tmp_path / "hf")
    assert cli.main(["new", str(tmp_path / "hf"), "--id", "some/model", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "computes something else than HF" in error
    assert "relative L2" in error
    assert not (tmp_path / "models").exists()


#: Of HF in bfloat16's distance, where that alone is beyond FAR: the delta rule of random weights makes much of little.
AS_BF16 = 1.5


@pytest.mark.parametrize(
    ("model_type", "system"),
    [
        pytest.param(
            f, system, marks=() if (f, system) in {("gpt_oss", "n150"), ("lfm2", "n150")} else pytest.mark.slow
        )
        for f in MIXED
        for system in ("n150", "n300", "p150")
    ],
)
def test_a_family_with_mixtures_states_or_latents_is_written_and_is_hfs(model_type, system, tmp_path):
    """With the experts that the device chose: where formats turn a score, HF goes elsewhere, and says so."""
    asked, model_py = written(model_type, tmp_path, system)
    assert 60 <= len(model_py.read_text().splitlines()) <= 125
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(asked, dtype=torch.float32).eval()
    ids = torch.randint(3, 500, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(1))
    module = model_files.load_model_file(model_py, system).module
    with torch.no_grad(), backends.open_system(system) as device:
        for weight in hf.parameters():
            if weight.dim() > 1 and not weight.any():  # AFMoE's router: every expert would be as good as any other
                weight.normal_(std=0.02)
            weight.copy_(weight.bfloat16().float())
        model = module.build_model(hf, device, 128)
        with choices.watched(model) as seen:
            out = model(ids[:, :PROMPT], logits_to_keep=0)
            got = [out.logits]
            for i in range(PROMPT, PROMPT + STEPS):
                out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
                got.append(out.logits)
        apart = choices.force(model, seen, 1, PROMPT, STEPS, hf)
        want, worst = hf(ids).logits, max(apart, default=0.0)
        error, bf16 = relative_l2(torch.cat(got, 1), want), relative_l2(in_bf16(hf, ids).logits.float(), want)
    assert error < max(FAR, AS_BF16 * bf16)
    assert worst <= choices.NEAR * error
