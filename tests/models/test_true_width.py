"""Few layers of every model file at its true width, random weights, against HF in fp32: a prompt, then decode steps."""

import json
from functools import lru_cache

import pytest
import torch
import ttnn
from transformers import AutoConfig, AutoModelForCausalLM

from bringup import backends
from bringup.checkpoints.known import CONFIGS, known_config
from bringup.new import small
from tests.blocks.common import MODELS, load_model_file, pcc
from tests.models.test_small import ALL, FILES, with_values

TOKENS = 40  # past one tile
EXPERTS = 16  # of a mixture: more are the same again


@lru_cache(maxsize=1)  # files come in the order of their models
def one_layer(org, name):
    """A one-layer HF model in bfloat16, what its layer adds to the residual stream in fp32, and the tokens."""
    config = AutoConfig.for_model(**json.loads((CONFIGS / f"{org}--{name}.json").read_text()))
    config.num_hidden_layers, config.vocab_size = 1, 512  # the vocabulary is no part of a layer
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    hf = hf.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in hf.parameters():
            weight.fill_(1.0) if weight.dim() == 1 else weight.normal_(std=0.02, generator=generator)
        hf.tie_weights()
        ids = torch.randint(0, 512, (1, TOKENS + 1), generator=generator)
        layer = hf.model.layers[0].float()
        rotary = type(hf.model.rotary_emb)(config)
        x = hf.model.embed_tokens(ids).float()
        mask = torch.full((TOKENS + 1, TOKENS + 1), float("-inf")).triu(1)[None, None]
        y = layer(x, attention_mask=mask, position_embeddings=rotary(x, torch.arange(TOKENS + 1)[None]))
        layer.bfloat16()
    return hf, ids, (y - x)[0]


def cases():
    """Llama's layer in every run; those of the larger models, 0.1 to 0.2 billion weights each, as slow tests."""
    return with_values(f for f in FILES if "Llama" in f) + [
        pytest.param(f, marks=pytest.mark.slow) for f in FILES if "Llama" not in f
    ]


@torch.no_grad()
@pytest.mark.parametrize("file", cases())
def test_a_layer_is_hfs(file):
    org, name, system = file.split("/")
    hf, ids, want = one_layer(org, name)
    added = []
    with backends.open_system(system) as device:
        model = load_model_file(file).build_model(hf, device, 64)

        def keep(module, args, out):
            x, y = (ttnn.to_torch(ttnn.get_device_tensors(t)[0]).float()[0, 0] for t in (args[0], out))
            added.append(y - x)

        model.model.layers[0].register_forward_hook(keep)
        cache = model(ids[:, :-1], logits_to_keep=1).past_key_values
        model(ids[:, -1:], past_key_values=cache)
    prompt, step = added[0][:TOKENS], added[1][0]
    assert pcc(prompt, want[:-1]) >= 0.999
    assert pcc(step, want[-1]) >= 0.999


def few_layers(config):
    """The fields of the model with a layer of each kind, a small vocabulary, and otherwise its own sizes."""
    count, total = small.layers(config), config.num_hidden_layers
    fields = {k: v for k, v in config.to_diff_dict().items() if k not in small.NO_PART and k[0] != "_"}
    fields = {k: v[:count] if isinstance(v, list) and len(v) == total else v for k, v in fields.items()}
    fields |= {k: EXPERTS for k in ("num_experts", "num_local_experts") if fields.get(k)}
    fields |= {"num_hidden_layers": count, "vocab_size": small.VOCAB}
    fields |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {"model_type": config.model_type} | fields


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted({*ALL} - {*FILES}))
def test_a_file_that_new_wrote_is_hfs(file):
    """The test that `bringup new` writes beside it, whose model is small, at the width of the model."""
    hf_id, system = file.rsplit("/", 1)
    small.check(MODELS / file / "functional/model.py", few_layers(known_config(hf_id)), system)
