"""Model files for transformers 4 get their old names; files for 5 and transformers itself never see any of it."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from bringup import backends
from bringup.backends import model_files
from bringup.checkpoints import old_names
from bringup.errors import ModelFailed

backends.activate("emulator")
ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests/foreign/llama_for_transformers_4.py"
SIZES = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             vocab_size=64, max_position_embeddings=512)  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def hf_model(kind="llama", **fields):
    fields = SIZES | {"head_dim": 32} | fields
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type=kind, **fields)).eval()


def test_the_shipped_files_need_none():
    files = sorted(ROOT.glob("models/*/*/*/functional/model.py"))
    assert len(files) >= 12
    assert not any(old_names.read_by(path) for path in files)


@pytest.mark.parametrize("scaling", [None, LLAMA3, YARN], ids=["plain", "llama3", "yarn"])
def test_a_file_for_transformers_4_reads_what_version_4_had(scaling, capsys):
    model = hf_model(rope_parameters={"rope_theta": 5000.0, **(scaling or {"rope_type": "default"})})
    file = model_files.load_model_file(FOREIGN)
    with backends.open_system("n150") as device:
        built = model_files.build(file, model, device, 64)
    assert "written for transformers 4" in capsys.readouterr().err
    assert (built.read.rope_theta, built.heads) == (5000.0, 2)
    assert built.read.rope_scaling == scaling
    rotary = model.model.rotary_emb  # HF's own
    torch.testing.assert_close(built.inv_freq, rotary.inv_freq)
    assert built.factor == pytest.approx(rotary.attention_scaling)
    assert issubclass(built.other_class, transformers.AutoModelForImageTextToText)


def test_nothing_is_patched():
    model = hf_model()
    made = old_names.stand_in(model)
    assert made.config.rope_scaling is None
    assert isinstance(made, type(model))
    assert isinstance(made.config, type(model.config))
    assert made.lm_head.weight is model.lm_head.weight
    assert not hasattr(model.config, "rope_theta")
    assert not hasattr(type(model.config), "rope_theta")
    assert not hasattr(model.model.layers[0].self_attn, "num_heads")
    assert not hasattr(transformers, "AutoModelForVision2Seq")
    assert "default" not in transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        assert torch.equal(made(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["llama", "gpt_oss", "qwen3", "gemma3_text"])
def test_a_configuration_that_answers_to_old_names_makes_the_model_of_its_kind(kind):
    """Classes of transformers 5 have a `__getattribute__` of their own; it is not taken for ours."""
    config = AutoConfig.for_model(model_type=kind, **SIZES, head_dim=32)
    old = old_names._old_config(config)
    assert type(old_names._new_config(old)) is type(config)
    assert old_names._new_config(config) is config


def test_layers_of_several_rotations():
    rope = {
        k: {"rope_type": "default", "rope_theta": t} for k, t in (("sliding_attention", 1e4), ("full_attention", 1e6))
    }
    config = old_names.stand_in(hf_model("gemma3_text", rope_parameters=rope)).config
    assert (config.rope_theta, config.rope_local_base_freq, config.sliding_window_pattern) == (1e6, 1e4, 6)


def test_experts_have_their_old_names():
    model = hf_model("mixtral", num_local_experts=2)
    weights = old_names.stand_in(model).state_dict()
    gate, up = model.model.layers[1].mlp.experts.gate_up_proj[1].chunk(2)
    assert torch.equal(weights["model.layers.1.block_sparse_moe.experts.1.w1.weight"], gate)
    assert torch.equal(weights["model.layers.1.block_sparse_moe.experts.1.w3.weight"], up)
    assert "model.layers.9.block_sparse_moe.gate.weight" not in weights
    assert set(weights) == set(model.state_dict())


@pytest.mark.parametrize(
    "line",
    [
        "from transformers import TFLlamaModel",
        "from transformers.models.llama.modeling_llama import LlamaSdpaAttention",
    ],
)
def test_what_cannot_be_answered_says_what_to_install(tmp_path, line):
    (tmp_path / "model.py").write_text(line + "\n")
    with pytest.raises(ModelFailed, match="written for transformers < 5"):
        model_files.load_model_file(tmp_path / "model.py")
