"""Every model file, found by glob, with a small random checkpoint of its kind: its logits are HF's."""

import pytest
import torch

from bringup import backends
from bringup.checkpoints.known import known_config
from bringup.new import small
from tests.blocks.common import (
    APPROXIMATE_EXP,
    CONFIGS,
    MODELS,
    as_good_as_bf16,
    as_stored,
    in_bf16,
    load_model_file,
    small_hf_model,
)

ALL = sorted(str(path.relative_to(MODELS).parents[1]) for path in MODELS.glob("*/*/*/functional/model.py"))
# Those written by hand have a small model by hand.
FILES = [file for file in ALL if file.split("/")[1] in CONFIGS]


def test_there_is_a_file_for_every_model_and_system():
    systems = ("n150", "n300", "t3000", "p150", "p300", "p300x2", "p150x8")
    wanted = {(name, system) for name in CONFIGS for system in systems}
    wanted.remove(("AFM-4.5B", "p150x8"))  # its 20 heads do not divide over eight chips
    assert {tuple(name.split("/")[1:]) for name in FILES} == wanted


def with_values(files):
    """Those of several Blackholes as slow tests: `test_full_size` makes their calls by shapes."""
    quick = ("n150", "n300", "t3000", "p150")
    return [f if f.split("/")[-1] in quick else pytest.param(f, marks=pytest.mark.slow) for f in files]


@torch.no_grad()
@pytest.mark.parametrize("file", with_values(FILES))
def test_prompt_and_decode_are_hfs(file):
    _, name, system = file.split("/")
    module = load_model_file(file)
    hf = as_stored(small_hf_model(name), module.PRECISION.mlp)
    ids = torch.randint(3, 500, (2, 36), generator=torch.Generator().manual_seed(1))
    want, bf16 = hf(ids).logits, in_bf16(hf, ids).logits
    with backends.open_system(system) as device:
        assert tuple(device.shape) == module.MESH_SHAPE
        model = module.build_model(hf, device, 64)
        out = model(ids[:, :33], logits_to_keep=0)
        assert as_good_as_bf16(out.logits, want[:, :33], bf16[:, :33], model.mesh.chips)
        for i in range(33, 36):
            out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
            assert as_good_as_bf16(out.logits[:, 0], want[:, i], bf16[:, i], model.mesh.chips, APPROXIMATE_EXP)
        text = model.generate(ids[:, :5], max_new_tokens=4, do_sample=False)
        assert text.shape[0] == 2


@pytest.mark.parametrize("file", sorted({*ALL} - {*FILES}))
def test_a_file_that_new_wrote_is_hfs(file):
    """As the test that `bringup new` writes beside such a file."""
    hf_id, system = file.rsplit("/", 1)
    config = known_config(hf_id)
    small.check(MODELS / file / "functional/model.py", small.fields(config, small.layers(config)), system)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Llama-3.2-1B", {"hidden_act": "gelu"}, "hidden_act = 'gelu', covered: 'silu'"),
        ("Llama-3.2-1B", {"attention_bias": True}, "attention_bias = True, covered: False"),
        ("Llama-3.2-1B", {"tie_word_embeddings": False}, "tie_word_embeddings = False, covered: True"),
        ("Mistral-7B-Instruct-v0.3", {"sliding_window": 64}, "sliding_window = 64, covered: None"),
        ("AFM-4.5B", {"hidden_act": "silu"}, "hidden_act = 'silu', covered: 'relu2'"),
    ],
)
def test_a_config_that_a_file_was_not_written_for_is_refused(name, change, message, device):
    file = next(f for f in FILES if f.split("/")[1] == name)
    with pytest.raises(ValueError, match=message):
        load_model_file(file).build_model(small_hf_model(name, **change), device, 64)


def test_a_model_of_another_kind_is_refused_with_every_reason(device):
    with pytest.raises(ValueError, match=r"(?s)model_type = 'arcee'.*hidden_act = 'relu2'.*tie_word_embeddings"):
        load_model_file("meta-llama/Llama-3.2-1B/n150").build_model(small_hf_model("AFM-4.5B"), device, 64)
