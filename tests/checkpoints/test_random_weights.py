"""Random weights on disk are those in memory; writing them can be interrupted, and needs the room it says."""

import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bringup import cli
from bringup.checkpoints import known, mapped, random_weights, sources
from bringup.errors import BadInput
from bringup.new import small
from tests.evaluation import tiny


@pytest.fixture
def config():
    config = tiny.hf_model().config
    config.dtype = torch.bfloat16
    return config


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(random_weights, "SHARD_BYTES", 40_000)  # the tiny model has some 107 kB


def test_on_disk_they_are_those_in_memory(config, tmp_path):
    random_weights.write(config, tmp_path / "made", seed=3)
    assert len(list(tmp_path.glob("made/*.safetensors"))) > 2
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    in_memory = random_weights.model(config, seed=3)
    assert {p.dtype for p in stored.parameters()} == {torch.bfloat16}
    for (name, x), (_, y) in zip(stored.named_parameters(), in_memory.named_parameters(), strict=True):
        assert torch.equal(x, y), name
    assert stored.lm_head.weight is stored.model.embed_tokens.weight
    assert random_weights.size_bytes(config) == sum(2 * p.numel() for p in stored.parameters())


def test_their_distribution(config):
    made = random_weights.model(config, 0, torch.float32)
    small = config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
    assert made.model.layers[1].mlp.up_proj.weight.std().item() == pytest.approx(config.initializer_range, rel=0.05)
    assert made.model.layers[1].mlp.down_proj.weight.std().item() == pytest.approx(small, rel=0.05)
    first, second = (made.model.layers[i].mlp.up_proj.weight for i in (0, 1))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.05


def test_an_interrupted_run_goes_on(config, tmp_path, monkeypatch):
    whole, made = tmp_path / "whole", tmp_path / "made"
    random_weights.write(config, whole)
    save, calls = random_weights._value, []

    def failing(name, *args):
        calls.append(name)
        if "layers.1" in name:
            raise KeyboardInterrupt
        return save(name, *args)

    monkeypatch.setattr(random_weights, "_value", failing)
    with pytest.raises(KeyboardInterrupt):
        random_weights.write(config, made)
    assert not (made / "config.json").exists(), "half a checkpoint is none"
    kept = {p.name: p.stat().st_mtime_ns for p in made.glob("*.safetensors")}
    assert kept
    monkeypatch.setattr(random_weights, "_value", save)
    random_weights.write(config, made)
    for path in whole.iterdir():
        assert (made / path.name).read_bytes() == path.read_bytes(), path.name
    assert all((made / name).stat().st_mtime_ns == time for name, time in kept.items())


def test_it_does_not_write_over_anything(config, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(BadInput, match="not writing over"):
        random_weights.write(config, tmp_path)
    random_weights.write(config, tmp_path / "made", seed=0)
    with pytest.raises(BadInput, match="not writing over"):
        random_weights.write(config, tmp_path / "made", seed=1)
    random_weights.write(config, tmp_path / "made", seed=0)


def test_too_little_disk(config, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(BadInput, match="(?s)not enough disk.*free under.*BRINGUP_CACHE"):
        random_weights.write(config, tmp_path / "made")


@pytest.mark.parametrize(("id_", "first"), [("google/gemma-3-1b-it", 0.0), ("Qwen/Qwen3-0.6B", 1.0)])
def test_norms_change_nothing_in_length_whatever_hf_adds_to_them(id_, first, tmp_path):
    config = known.known_config(id_)
    config = AutoConfig.for_model(**small.fields(config, 2), dtype="bfloat16")
    random_weights.write(config, tmp_path / "made")
    for made in (random_weights.model(config), AutoModelForCausalLM.from_pretrained(tmp_path / "made")):
        layer = made.model.layers[0]
        for norm in (layer.input_layernorm, layer.self_attn.q_norm, made.model.norm):
            assert norm.weight.eq(first).all()
            x = torch.ones(1, len(norm.weight), dtype=torch.bfloat16)
            assert torch.equal(norm(x), x)


def test_the_command_takes_a_configuration(config, tmp_path, capsys):
    config.save_pretrained(tmp_path)
    assert cli.main(["random-checkpoint", str(tmp_path / "config.json"), str(tmp_path / "made"), "--seed", "2"]) == 0
    assert "seed 2; --model takes it" in capsys.readouterr().out
    source = sources.find_source(str(tmp_path / "made"))
    assert source.random, "a check asks no text of them"
    assert not sources.find_source("checkpoints/tiny-llama").random
    assert torch.equal(sources.load_hf_model(source).lm_head.weight, random_weights.model(config, 2).lm_head.weight)


def test_the_command_says_what_it_takes(tmp_path, capsys):
    assert cli.main(["random-checkpoint", "nope/x", str(tmp_path / "made")]) == 2
    said = capsys.readouterr().err
    assert "hint   give the path of its config.json" in said
    assert "--model" not in said
    (tmp_path / "config.json").write_text("{bad")
    assert cli.main(["random-checkpoint", str(tmp_path / "config.json"), str(tmp_path / "made")]) == 2
    assert "is not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_large_random_weights_are_mapped_from_the_cache(config, tmp_path, monkeypatch):
    config.save_pretrained(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "org--large.json")
    monkeypatch.setattr(known, "CONFIGS", tmp_path)
    source = sources.find_source("org/large", random_weights=True)
    cache = tmp_path / "cache"
    assert source.weight_files(cache) == []
    in_memory = sources.load_hf_model(source, cache_dir=cache)
    assert not cache.exists()
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 1000)
    stored = sources.load_hf_model(source, cache_dir=cache)
    for x, y in zip(stored.parameters(), in_memory.parameters(), strict=True):
        assert torch.equal(x, y)
    assert len(source.weight_files(cache)) > 2
    if mapped.MAPPINGS.exists():
        assert mapped.resident(source.weight_files(cache)) > 0, "HF copied the parameters out of the files"
