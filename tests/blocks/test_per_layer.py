"""Blocks of Gemma-4 against HF's modules, in fp32: keys of a layer before, norms of values, inputs of each layer.

Heads of 512 are those that its full layers have, hidden 1536 and inputs of 256 those of its smallest model.
"""

import pytest
import torch
import ttnn
from transformers import AutoConfig

from bringup.blocks import Attention, LayerScalar, Mesh, PerLayerInputs, PerLayerProjection, Precision, RopeTables
from bringup.blocks.cache import Blocks, Rows
from bringup.blocks.generate import Step
from bringup.blocks.shared_attention import SharedAttention
from bringup.new import small
from bringup.new.small import APPROXIMATE_EXP, as_good_as_bf16, in_bf16, through
from tests.blocks.test_layers import put, replicated

PRECISION = Precision.of(ttnn.bfloat16)
LENGTH = 64


def model_of(hidden=256, inputs=32, global_head_dim=512, heads=8):
    """HF's of two types of layers, each with keys of its own twice, the second ones' shared."""
    config = AutoConfig.for_model(
        "gemma4_text", hidden_size=hidden, intermediate_size=64, num_hidden_layers=6, num_attention_heads=heads,
        num_key_value_heads=2, head_dim=32, global_head_dim=global_head_dim, num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 3, vocab_size=100, vocab_size_per_layer_input=100,
        hidden_size_per_layer_input=inputs, sliding_window=16, initializer_range=0.08,
    )  # fmt: skip
    fields = {k: v for k, v in config.to_dict().items() if k not in small.NO_PART}
    return small.as_stored(small.hf_model(fields), ttnn.bfloat16)


def rows(n, width, seed=1):
    return through(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), ttnn.bfloat16)


@pytest.mark.parametrize("kind", ["prompt", "step"])
@torch.no_grad()
def test_inputs_of_layers_at_true_width(device, kind):
    mesh, hf = Mesh(device), model_of(1536, 256)
    tokens = torch.randint(0, 100, (1, 64 if kind == "prompt" else 32), generator=torch.Generator().manual_seed(2))
    decoder = hf.model
    x = through(decoder.embed_tokens(tokens)[0], ttnn.bfloat16)
    block = PerLayerInputs(decoder, hf.config.rms_norm_eps, mesh, PRECISION)
    got = torch.stack([replicated(each) for each in block(mesh.put(tokens.int(), ttnn.uint32), put(x, mesh))], 1)
    want = decoder.project_per_layer_inputs(x[None], decoder.get_per_layer_inputs(tokens))[0]
    rough = decoder.to(torch.bfloat16)
    yardstick = rough.project_per_layer_inputs(x[None].bfloat16(), rough.get_per_layer_inputs(tokens))[0]
    for i in range(6):
        assert as_good_as_bf16(got[:, i], want[:, i], yardstick[:, i])


@torch.no_grad()
def test_what_a_layer_makes_of_its_input_at_true_width(device):
    mesh, hf = Mesh(device), model_of(1536, 256)
    layer, x, given = hf.model.layers[1], rows(32, 1536), rows(32, 256, 2)
    block = PerLayerProjection(layer, mesh, PRECISION, activation="gelu_pytorch_tanh")

    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.act, self.projection = layer.per_layer_input_gate, layer.act_fn, layer.per_layer_projection

        def forward(self, x, given):
            return self.projection(self.act(self.gate(x)) * given)

    got = replicated(block(put(x, mesh), put(given, mesh)))
    assert as_good_as_bf16(got, Part()(x, given), in_bf16(Part(), x, given))
    scaled = replicated(LayerScalar(layer.layer_scalar, mesh)(put(x, mesh)))
    assert float(layer.layer_scalar) != 1
    assert torch.equal(scaled, (x * layer.layer_scalar).bfloat16().float())


def hf_attention(hf, x, layers):
    """HF's attention of some layers of one type over x [S, hidden], one after the other on keys that they share."""
    kind = hf.config.layer_types[layers[0]]
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
    if kind == "sliding_attention":
        mask += torch.full((len(x), len(x)), float("-inf")).tril(-hf.config.sliding_window)

    def run(model, x):
        tables = model.rotary_emb(x[None], torch.arange(len(x))[None], kind)
        given = {"position_embeddings": tables, "attention_mask": mask[None, None].to(x.dtype), "shared_kv_states": {}}
        return [model.layers[i].self_attn(x[None], **given)[0][0].float() for i in layers]

    exact = run(hf.model, x)
    rough = run(hf.model.to(torch.bfloat16), x.bfloat16())
    hf.model.to(torch.float32)
    return exact, rough


def pages(mesh, cache, prompt):
    """Blocks of users 0, 1 and 3: their numbers from 1 on."""
    if isinstance(cache, Rows):
        return None
    cache.open(mesh)
    cache.draw({0: LENGTH, 1: LENGTH, 3: LENGTH})
    cache.upload()
    return cache.of_step() if prompt is None else cache.of_prompt(prompt, 0, LENGTH)


@pytest.mark.parametrize(
    "cache", [Rows(LENGTH), pytest.param(Blocks(LENGTH, 5), marks=pytest.mark.slow)], ids=["rows", "blocks"]
)
@pytest.mark.parametrize("kind", ["full_attention", pytest.param("sliding_attention", marks=pytest.mark.slow)])
@torch.no_grad()
def test_attention_over_the_keys_of_a_layer_before(mesh_device, cache, kind):
    """Prompts of three users, then a token of each at another position; layers 2 or 3 have the keys of 4 or 5."""
    mesh, hf = Mesh(mesh_device), model_of()
    layers = [i for i in (2, 3, 4, 5) if hf.config.layer_types[i] == kind]
    tables = RopeTables(hf.model.rotary_emb, hf.config, LENGTH, mesh, layer_type=kind)
    more = {"scale": 1.0, "layer_type": kind, "window": 16 if kind == "sliding_attention" else None}
    blocks = [
        block(hf.model.layers[i].self_attn, hf.config.per_layer_config[i], cache, mesh, PRECISION, **more)
        for block, i in zip((Attention, SharedAttention), layers, strict=True)
    ]
    assert blocks[0].cache is blocks[1].cache
    users = {0: 40, 1: 63, 3: 1}  # row in the cache: tokens before the next one
    xs = {row: rows(before + 1, 256, seed=row) for row, before in users.items()}
    wants = {row: hf_attention(hf, x, layers) for row, x in xs.items()}
    for row, before in users.items():
        prompt = torch.zeros(LENGTH, 256)
        prompt[:before] = xs[row][:before]
        step = Step(False, None, None, row=row, by_type={kind: tables.prompt}, pages=pages(mesh, cache, row))
        for block, exact, rough in zip(blocks, *wants[row], strict=True):
            got = replicated(block(put(prompt, mesh), step))[:before]
            assert as_good_as_bf16(got, exact[:before], rough[:before], mesh.chips)
    token, positions = torch.zeros(32, 256), torch.full((32,), -1, dtype=torch.int32)
    for row, before in users.items():
        token[row], positions[row] = xs[row][-1], before
    turned = tables.look_up(mesh.put(positions.clamp(min=0)[None], ttnn.uint32))
    given = {"positions": mesh.put(positions, ttnn.int32), "pages": pages(mesh, cache, None)}
    step = Step(True, None, None, by_type={kind: turned}, **given)
    for n, block in enumerate(blocks):
        got = replicated(block(put(token, mesh), step))
        for row in users:
            exact, rough = (want[n][-1] for want in wants[row])
            assert as_good_as_bf16(got[row], exact, rough, mesh.chips, APPROXIMATE_EXP)


def test_what_has_keys_of_its_own_is_not_read_as_sharing_and_the_other_way_round(device):
    mesh, hf, cache = Mesh(device), model_of(), Rows(LENGTH)
    given = hf.config.per_layer_config[0], cache, mesh, PRECISION
    with pytest.raises(ValueError, match="no layer before is of type sliding_attention"):
        SharedAttention(hf.model.layers[4].self_attn, *given, layer_type="sliding_attention")
    with pytest.raises(ValueError, match="HF's has a k_proj of its own"):
        SharedAttention(hf.model.layers[0].self_attn, *given, layer_type="sliding_attention")
    with pytest.raises(ValueError, match="HF's has no k_proj"):
        Attention(hf.model.layers[4].self_attn, *given, layer_type="sliding_attention")
