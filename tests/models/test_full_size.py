"""Every model file at full size by shapes alone: no weights, no values, and the chip's memory as it would be."""

import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import ttnn_emulator
from bringup import backends
from bringup.blocks import Precision, read_config
from bringup.blocks.cache import Blocks
from bringup.blocks.memory import cache_bytes, prompt_bytes, weight_bytes
from bringup.checkpoints.known import CONFIGS
from tests.blocks.common import load_model_file
from tests.models.test_small import FILES


def meta_model(org, name):
    """The HF model of the true configuration on the meta device."""
    config = AutoConfig.for_model(**json.loads((CONFIGS / f"{org}--{name}.json").read_text()))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def written_out(module):
    """The model file that one delegates to."""
    return written_out(module.FULL) if hasattr(module, "FULL") else module


@pytest.mark.parametrize("file", FILES)
def test_prompts_and_decode_are_legal_and_fit(file):
    """And the count before loading is what loading takes."""
    org, name, system = file.split("/")
    module, hf = load_model_file(file), meta_model(org, name)
    longest = module.MAX_SEQ_LEN
    with ttnn_emulator.spec_only(), backends.open_system(system) as device:
        model = module.build_model(hf, device, longest)
        built = backends.memory(device)
        assert built["dram"]["allocated"] < built["dram"]["total"]
        config = read_config(written_out(module).Config, hf.config)
        counted = weight_bytes(hf, model.mesh, module.PRECISION)
        counted += model.cache_len * cache_bytes(config, model.mesh, module.PRECISION)
        # Heads of zeros, whole tiles, rotary tables and the small inputs are not counted.
        assert 0 <= built["dram"]["allocated"] / counted - 1 < 0.03
        first = prompt_and_decode(model, hf, device, longest)
        assert prompt_and_decode(model, hf, device, longest) == first, "prompts and steps leave nothing behind"


def prompt_and_decode(model, hf, device, longest):
    """Bytes in use afterwards: the first time those of the programs are new."""
    for tokens in (18, 141, longest - 1):
        out = model(torch.zeros(1, tokens, dtype=torch.long), logits_to_keep=1)
        assert out.logits.shape == (1, 1, hf.config.vocab_size)
        out = model(torch.zeros(1, 1, dtype=torch.long), past_key_values=out.past_key_values)
        assert out.logits.shape == (1, 1, hf.config.vocab_size)
    memory = backends.memory(device)
    return memory["dram"]["allocated"], memory["l1"]["allocated"]


def test_a_model_that_does_not_fit_says_so_before_loading():
    module = load_model_file("mistralai/Mistral-7B-Instruct-v0.3/n150")
    hf = meta_model("mistralai", "Mistral-7B-Instruct-v0.3")
    with ttnn_emulator.spec_only(), backends.open_system("n150") as device:
        empty = backends.memory(device)["dram"]["allocated"]
        bf16 = Precision.of(ttnn_emulator.bfloat16)
        with pytest.raises(
            ValueError, match=r"(?s)does not fit: 14.9\d GB .*12.87 GB there.*bfloat8_b would be 7.8\d GB"
        ):
            module.build_model(hf, device, 1024, precision=bf16)
        with pytest.raises(ValueError, match=r"max_seq_len up to about (\d+) fits") as refused:
            module.build_model(hf, device, 65536)
        longest = int(re.search(r"about (\d+)", str(refused.value))[1])
        assert backends.memory(device)["dram"]["allocated"] == empty
        assert isinstance(module.build_model(hf, device, longest).cache, Blocks)
    with ttnn_emulator.spec_only(), backends.open_system("n150") as device, pytest.raises(ValueError, match="not fit"):
        module.build_model(hf, device, longest + 1024)
    with ttnn_emulator.spec_only(), backends.open_system("t3000") as mesh:
        module.build_model(hf, mesh, 1024, precision=bf16)


@pytest.mark.parametrize("system", ["n150", "n300", "t3000"])
def test_131072_tokens_of_llama_are_legal_and_fit(system):
    """A prompt that fills the context but one runs in chunks, and the last position is decoded."""
    module, hf = load_model_file(f"meta-llama/Llama-3.2-1B/{system}"), meta_model("meta-llama", "Llama-3.2-1B")
    with ttnn_emulator.spec_only(), backends.open_system(system) as device:
        model = module.build_model(hf, device, 131072)
        assert isinstance(model.cache, Blocks)
        assert model.cache.count > 131072 // 64
        out = model(torch.zeros(1, 131071, dtype=torch.long), logits_to_keep=1)
        out = model(torch.zeros(1, 1, dtype=torch.long), past_key_values=out.past_key_values)
        assert out.logits.shape == (1, 1, 128256)
        model.cache.clear()
        users = (model.cache.count - 1) // (131072 // 64)
        model.cache.draw(dict.fromkeys(range(users), 131072))
        with pytest.raises(ValueError, match="paged cache is full: 1 users need 2048 more"):
            model.cache.draw({users: 131072})


@pytest.mark.parametrize("file", FILES)
def test_what_is_set_aside_for_a_prompt_is_what_it_needs(file):
    rows = 2048
    org, name, system = file.split("/")
    module, hf = load_model_file(file), meta_model(org, name)
    config = read_config(written_out(module).Config, hf.config)
    with ttnn_emulator.spec_only(), backends.open_system(system) as device:
        model = module.build_model(hf, device, rows)
        dram = next(a for kind, a in device.allocators.items() if kind.name == "DRAM")
        before = dram.allocated
        dram.peak = before
        out = model(torch.zeros(1, rows - 1, dtype=torch.long), logits_to_keep=1)
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=out.past_key_values)
        needed = (dram.peak - before) * dram.banks
        chunk = min(rows, model.cache.prompt_chunk or rows)
        set_aside = prompt_bytes(hf, config, chunk, model.mesh)
        assert 0.7 * set_aside - 20e6 < needed <= set_aside
