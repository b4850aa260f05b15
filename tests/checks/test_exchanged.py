"""Two tensors of a checkpoint in each other's place: HF and the device share that, and `check` names them."""

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from bringup.checkpoints import sources
from bringup.checks import exchanged
from bringup.evaluation import texts
from bringup.files import PROJECT

TINY = PROJECT / "checkpoints" / "tiny-mistral"
LAYER = "model.layers.{}.".format


def asked(folder, cache):
    source = sources.find_source(str(folder))
    model, tokenizer = sources.load_hf_model(source, cache_dir=cache), sources.load_tokenizer(source)

    def given_text(path):
        return texts.given_text(path, tokenizer, 100, config=model.config)

    job = SimpleNamespace(tokenizer=tokenizer, source=source, given_text=given_text)
    return exchanged.find(SimpleNamespace(job=job, hf=model))


def test_a_clean_checkpoint_is_not_suspected(tmp_path):
    assert asked(TINY, tmp_path) is None


@pytest.mark.parametrize("pairs", [5, 60, 400])
def test_false_alarms_are_as_rare_as_is_said(pairs):
    """Places of 150 tokens that an exchange changes, but makes neither better nor worse: heavy tails, no mean."""
    checkpoints, generator = 12_000 // pairs, torch.Generator().manual_seed(pairs)
    before, after = (torch.rand(checkpoints, pairs, 150, generator=generator) ** 4 * 6 for _ in range(2))
    alarms = sum(any(exchanged.beyond_chance(b, pairs) for b in each) for each in before - after)
    rate = exchanged.FALSE_ALARMS
    assert alarms <= checkpoints * rate + 3 * math.sqrt(checkpoints * rate * (1 - rate))
    assert exchanged.beyond_chance(torch.full((150,), 0.4) + torch.randn(150, generator=generator) * 0.3, pairs)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (LAYER(0) + "mlp.down_proj.weight", LAYER(1) + "mlp.down_proj.weight"),
        (LAYER(0) + "self_attn.k_proj.weight", LAYER(0) + "self_attn.v_proj.weight"),
    ],
)
def test_two_that_are_exchanged_are_named(tmp_path, a, b):
    import shutil

    folder = shutil.copytree(TINY, tmp_path / "c")
    tensors = load_file(folder / "model.safetensors")
    tensors[a], tensors[b] = tensors[b], tensors[a]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    names, place, mended = asked(folder, tmp_path / "cache")
    assert set(names) == {a, b}
    assert mended < place
