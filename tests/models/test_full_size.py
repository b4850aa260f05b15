"""Every model file at full size by shapes alone: no weights, no values, and the chip's memory as it would be."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import ttnn_emulator
from bringup import backends
from bringup.loading import CONFIGS
from tests.blocks.common import load_model_file
from tests.models.test_small import FILES


def meta_model(org, name):
    """The HF model of the true configuration on the meta device."""
    config = AutoConfig.for_model(**json.loads((CONFIGS / f"{org}--{name}.json").read_text()))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


@pytest.mark.parametrize("file", FILES)
def test_prompts_and_decode_are_legal_and_fit(file):
    org, name, system = file.split("/")
    module, hf = load_model_file(file), meta_model(org, name)
    longest = module.MAX_SEQ_LEN
    with ttnn_emulator.spec_only(), backends.open_system(system) as device:
        model = module.build_model(hf, device, longest)
        built = backends.memory(device)
        assert built["dram"]["allocated"] < built["dram"]["total"]
        first = prompt_and_decode(model, hf, device, longest)
        assert prompt_and_decode(model, hf, device, longest) == first, "prompts and steps leave nothing behind"


def prompt_and_decode(model, hf, device, longest):
    """Bytes in use afterwards: the first time those of the programs are new."""
    for tokens in (18, 141, longest - 1):
        out = model(torch.zeros(1, tokens, dtype=torch.long))
        assert out.logits.shape == (1, 1, hf.config.vocab_size)
        out = model(torch.zeros(1, 1, dtype=torch.long), past_key_values=out.past_key_values)
        assert out.logits.shape == (1, 1, hf.config.vocab_size)
    memory = backends.memory(device)
    return memory["dram"]["allocated"], memory["l1"]["allocated"]
