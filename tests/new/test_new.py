"""`bringup new`: what it writes works without editing and is clean; what it refuses, and why."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest
from transformers import AutoConfig

from bringup import backends, cli
from bringup.backends.model_files import import_file
from bringup.checkpoints import sources
from bringup.errors import BadInput
from bringup.files import PROJECT
from bringup.new import command, covered, small, source
from tests.new import families

SYSTEMS = ("n150", "n300", "t3000")
# A sample of model x system that has every feature on one chip and on several; two heads plans that do not divide.
WRITTEN = [
    ("Qwen/Qwen3-0.6B", "n150"),
    ("Qwen/Qwen3-0.6B", "t3000"),
    ("Qwen/Qwen2.5-0.5B-Instruct", "n300"),
    ("Qwen/Qwen2.5-0.5B-Instruct", "t3000"),
    ("Qwen/Qwen2.5-7B-Instruct", "n150"),
    ("tiiuae/Falcon3-1B-Base", "n150"),
    ("tiiuae/Falcon3-1B-Base", "n300"),
]


def new(*arguments):
    return cli.main(["new", *map(str, arguments)])


@pytest.fixture(scope="module", autouse=True)
def emulator():
    backends.activate("emulator")


@pytest.mark.parametrize(("hf_id", "system"), WRITTEN)
def test_what_is_written_works_without_editing(tmp_path, capsys, hf_id, system):
    assert new(hf_id, "--system", system, "--out", tmp_path) == 0
    assert "run whole by shapes" in capsys.readouterr().out
    (test,) = tmp_path.glob("tests/models/test_*.py")
    import_file(test).test_prompts_and_decode_are_hfs()
    (model_py,) = tmp_path.glob(f"models/{hf_id}/{system}/functional/model.py")
    ruff = shutil.which("ruff") or f"{sys.prefix}/bin/ruff"
    config = PROJECT / "pyproject.toml"
    for step in (["check", "-q"], ["format", "--check", "-q"]):
        subprocess.run([ruff, *step, "--no-cache", "--config", config, model_py, test], check=True)
    notes = (model_py.parent / "MODEL_BRINGUP.md").read_text()
    assert f"`{sources.load_config(sources.find_source(hf_id, random_weights=True)).architectures[0]}`" in notes


def test_the_test_that_is_written_can_fail(tmp_path):
    """Without the norm of q the small model is another one."""
    new("Qwen/Qwen3-0.6B", "--out", tmp_path)
    (test,) = tmp_path.glob("tests/models/test_*.py")
    model_py = tmp_path / "models/Qwen/Qwen3-0.6B/n150/functional/model.py"
    text = model_py.read_text()
    after = "        self.post_attention"
    assert after in text
    model_py.write_text(text.replace(after, "        self.self_attn.q_norm = torch.nn.Identity()\n" + after))
    with pytest.raises(AssertionError, match="relative L2"):
        import_file(test).test_prompts_and_decode_are_hfs()


def test_it_is_in_the_style_of_the_files_written_by_hand(tmp_path):
    """Llama-3.2-1B and Mistral-7B come out as they are in models/, but for prose, weight dtype and what is required."""
    for hf_id, system in (("meta-llama/Llama-3.2-1B", "n150"), ("mistralai/Mistral-7B-Instruct-v0.3", "t3000")):
        new(hf_id, "--system", system, "--out", tmp_path)
        written, by_hand = (
            ast.parse((root / "models" / hf_id / system / "functional" / "model.py").read_text())
            for root in (tmp_path, PROJECT)
        )
        for one in (written, by_hand):
            one.body = [node for node in one.body if not _says(node, "WEIGHT_DTYPE") and not _says(node, "Config")][1:]
        assert ast.dump(written) == ast.dump(by_hand)


def _says(node, name):
    target = node.targets[0].id if isinstance(node, ast.Assign) else getattr(node, "name", None)
    return target == name


def test_a_second_system_delegates_to_the_first(tmp_path, capsys):
    new("Qwen/Qwen3-0.6B", "--system", "n150", "--out", tmp_path)
    new("Qwen/Qwen3-0.6B", "--system", "n300", "--out", tmp_path)
    folder = tmp_path / "models/Qwen/Qwen3-0.6B"
    text = (folder / "n300/functional/model.py").read_text()
    assert 'delegate(__file__, "n150")' in text
    assert "8 query and 4 KV heads" in text
    import_file(tmp_path / "tests/models/test_qwen3_0_6b_n300.py").test_prompts_and_decode_are_hfs()
    assert new("Qwen/Qwen3-0.6B", "--system", "n300", "--out", tmp_path) == 2
    assert "already there" in capsys.readouterr().err
    assert new("Qwen/Qwen3-0.6B", "--system", "n300", "--out", tmp_path, "--force") == 0


def test_from_a_directory_or_a_file(tmp_path, capsys):
    sizes = {"hidden_size": 512, "head_dim": 64, "intermediate_size": 1024, "vocab_size": 1000, "num_hidden_layers": 2}
    config = AutoConfig.for_model("qwen3", num_attention_heads=8, num_key_value_heads=2, **sizes)
    config.save_pretrained(tmp_path / "checkpoint")
    assert new(tmp_path / "checkpoint", "--out", tmp_path) == 2
    assert "--id ORG/NAME" in capsys.readouterr().err
    assert new(tmp_path / "checkpoint" / "config.json", "--id", "me/mine", "--out", tmp_path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["covered"]
    assert result["dtype"] == "bfloat16"
    text = (tmp_path / "models/me/mine/n150/functional/model.py").read_text()
    assert "hf_model.lm_head.weight" in text
    assert new("no/such-model-anywhere", "--out", tmp_path) == 2
    assert new(tmp_path / "nothing", "--out", tmp_path) == 2


def words(config):
    return " | ".join(str(gap) for gap in covered.gaps(config))


LACKING = {
    "olmo": ({"clip_qkv": 0.5}, ["values are not v_proj(x)", "clip_qkv = 0.5: HF's logits move"]),
    "diffllama": ({}, ["goes through more than o_proj"]),
    "doge": ({}, ["model.layers.0.input_residual", "is no sum of the stream and the parts before it"]),
    "nanochat": ({}, ["what goes into the first layer is not a row of the token table times a number"]),
    "qwen3": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantization_config: quant_method gptq"]),
    "gpt2": ({}, ["a model file of its own"]),
    "llama": ({"hidden_size": 200, "num_attention_heads": 10}, ["hidden_size = 200 is no multiple of 32"]),
}


@pytest.mark.parametrize("model_type", LACKING)
def test_what_no_block_covers_is_named(model_type):
    fields, expected = LACKING[model_type]
    found = words(AutoConfig.for_model(model_type, **fields))
    for text in expected:
        assert text in found


def test_a_file_that_cuts_no_window_refuses_what_one_would_leave_out():
    """A model file whose Config does not read the window was written where it leaves nothing out."""
    from bringup.blocks.config import check_window  # it imports ttnn

    config = AutoConfig.for_model("mistral", sliding_window=4096)
    check_window(object(), config, 4096)
    with pytest.raises(ValueError, match="max_seq_len = 4097 is longer than sliding_window = 4096"):
        check_window(object(), config, 4097)


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_sizes_of_heads_that_work(tmp_path, head_dim):
    sizes = {"hidden_size": 8 * head_dim, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = AutoConfig.for_model("llama", num_key_value_heads=2, head_dim=head_dim, vocab_size=512, **sizes)
    assert not covered.gaps(config)
    config.save_pretrained(tmp_path / "c")
    assert new(tmp_path / "c", "--id", "a/b", "--out", tmp_path) == 0


def test_a_multimodal_configuration_is_looked_at_whole():
    found = words(AutoConfig.for_model("gemma3"))
    assert "is multimodal" in found
    assert len(covered.gaps(AutoConfig.for_model("gemma3"))) == 1  # the text model has none


def test_a_refusal_writes_nothing_and_numbers_what_is_missing(tmp_path, capsys):
    AutoConfig.for_model("diffllama").save_pretrained(tmp_path / "other")
    assert new(tmp_path / "other", "--id", "some/other", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "nothing was written" in error
    assert "\n  1. " in error
    assert "needed: " in error
    assert not (tmp_path / "out").exists()


def test_a_model_too_large_names_a_system_that_holds_it(tmp_path):
    config = AutoConfig.for_model("llama", num_hidden_layers=80, hidden_size=8192, intermediate_size=28672,
                                  num_attention_heads=32, num_key_value_heads=8, head_dim=128)  # fmt: skip
    config.save_pretrained(tmp_path / "large")
    args = [tmp_path / "large", "--id", "some/large", "--out", tmp_path]
    with pytest.raises(BadInput, match="--system t3000"):
        command.run(_parsed(*args, "--system", "n150"))


def _parsed(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(map(str, arguments)))


def test_of_a_model_that_cannot_be_tried_every_part_without_a_block_is_named():
    """Gemma-3n: streams side by side, low-rank layers, keys by layer, inputs of each layer."""
    sizes = dict(hidden_size=256, intermediate_size=512, vocab_size=500, vocab_size_per_layer_input=500)
    config = AutoConfig.for_model("gemma3n_text", **sizes, num_hidden_layers=10, num_kv_shared_layers=4)
    found = "\n".join(map(str, covered.gaps(config)))
    for name in ("model.embed_tokens_per_layer", "altup", "laurel", "per_layer_input_gate"):
        assert name in found
    assert "self_attn.v_norm in layers 0-5" in found
    assert re.search(r"k_proj \[\d+, 256\].* in layers 0-5 ", found)  # layers 6-9 have the keys of others


def test_gemma_4_s_experts_are_named():
    sizes = dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=8, head_dim=32, global_head_dim=64)
    experts = dict(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=64)
    found = [gap.what for gap in covered.gaps(AutoConfig.for_model("gemma4_text", **sizes, **experts))]
    assert [what.partition(" ")[0] for what in found] == ["router", "experts"]


def test_a_part_that_some_layers_lack_is_told_once_and_only_of_itself():
    """Jamba's mixers and mixtures stand in turns with attention and MLPs: none of them is a part of self_attn."""
    found = [str(gap) for gap in covered.gaps(AutoConfig.for_model("jamba"))]
    assert sum("mamba" in gap for gap in found) == 1
    assert len("\n".join(found)) < 4000


def test_gaps_can_be_asked_for_in_a_process_that_has_chosen_no_backend():
    code = (
        "from transformers import LlamaConfig; from bringup.new import covered; "
        "print(covered.gaps(LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, "
        "num_attention_heads=4, num_key_value_heads=2, vocab_size=1024)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, timeout=300)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr[-2000:]


def test_a_size_that_nobody_knows_is_named_and_not_built(monkeypatch):
    """Llama-4 had its experts at their true size in the small model: 14 GB, and minutes."""
    config = AutoConfig.for_model("llama4_text")
    monkeypatch.setattr(small, "MOST_WEIGHTS", 1000)
    (gap,) = [str(gap) for gap in covered.gaps(config) if "no small model" in str(gap)]
    assert re.search(r"[\d,]{5,} weights with small sizes in its fields; the largest is model\.\S+ \[\d+, \d+", gap)


def test_weights_that_hf_leaves_at_zero_are_random_in_the_small_model():
    """AFMoE's router: with zeros a softmax over its scores is what a sigmoid of them is."""
    model = small.hf_model(small.fields(families.config("afmoe"), 4))
    assert all(weight.any() for weight in model.parameters())


def test_layers_are_told_apart_by_the_field_that_is_about_them():
    """Not by num_shared_experts = 1, which happens to be the number of dense layers."""
    config = families.config("hy_v3")
    traits = covered.look(config)[0]
    lines = source.parts(traits, config)[0]
    at = lines.index('if config.mlp_layer_types[i] == "dense":')
    assert lines[at + 1].startswith("    self.mlp = GatedMLP(")
