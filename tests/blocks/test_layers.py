"""Each block against the HF module it stands for, in fp32, on one, two and eight chips.

Weights are put on the device's grid before HF computes, so that what may differ is the computation: its error has to be
of the size that HF's own bfloat16 has.
"""

import pytest
import torch
import ttnn

from bringup.blocks import Attention, Embedding, GatedMLP, Mesh, Precision, Relu2MLP, RMSNorm, RopeTables
from bringup.blocks.cache import Rows
from bringup.blocks.generate import Step
from tests.blocks.common import APPROXIMATE_EXP, as_good_as_bf16, as_stored, in_bf16, small_hf_model, through

PRECISION = Precision.of(ttnn.bfloat16)


@pytest.fixture(params=["Llama-3.2-1B", "ALLaM-7B-Instruct-preview", "AFM-4.5B", "Mistral-7B-Instruct-v0.3"])
def hf(request):
    return as_stored(small_hf_model(request.param, num_hidden_layers=1), ttnn.bfloat16)


def put(x, mesh):
    return mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)


def replicated(x):
    """A replicated result; every chip must have the same."""
    copies = [ttnn.to_torch(t).float()[0, 0] for t in ttnn.get_device_tensors(x)]
    assert all(torch.equal(c, copies[0]) for c in copies)
    return copies[0]


def random_rows(rows, hf, seed=1):
    return through(
        torch.randn(rows, hf.config.hidden_size, generator=torch.Generator().manual_seed(seed)), ttnn.bfloat16
    )


@torch.no_grad()
def test_embedding(mesh_device):
    mesh, hf = Mesh(mesh_device), small_hf_model("Llama-3.2-1B", num_hidden_layers=1)
    tokens = torch.randint(0, 500, (1, 32), dtype=torch.int32)
    got = replicated(Embedding(hf.model.embed_tokens, mesh)(mesh.put(tokens, ttnn.uint32)))
    assert torch.equal(got, hf.model.embed_tokens(tokens.long())[0].bfloat16().float())


@torch.no_grad()
def test_rms_norm(mesh_device, hf):
    mesh, x = Mesh(mesh_device), random_rows(64, hf) * 3
    block = RMSNorm(hf.model.norm, hf.config.rms_norm_eps, mesh, PRECISION)
    assert as_good_as_bf16(replicated(block(put(x, mesh))), hf.model.norm(x), in_bf16(hf.model.norm, x))


@torch.no_grad()
def test_mlp(mesh_device, hf):
    mesh, x = Mesh(mesh_device), random_rows(32, hf)
    block = (Relu2MLP if hf.config.hidden_act == "relu2" else GatedMLP)(hf.model.layers[0].mlp, mesh, PRECISION)
    hf_mlp = hf.model.layers[0].mlp
    assert as_good_as_bf16(replicated(block(put(x, mesh))), hf_mlp(x), in_bf16(hf_mlp, x), mesh.chips)


def hf_attention(hf, x):
    """HF's attention layer over x [S, hidden], causal: in fp32 and in bfloat16."""
    layer = hf.model.layers[0].self_attn
    position = hf.model.rotary_emb(x[None], torch.arange(len(x))[None])
    mask = torch.full((len(x), len(x)), float("-inf")).triu(1)[None, None]
    inputs = {"position_embeddings": position, "attention_mask": mask}
    return layer(x[None], **inputs)[0][0], in_bf16(layer, x[None], **inputs)[0][0]


@torch.no_grad()
def test_attention_of_a_prompt_then_of_one_token_for_each_user(mesh_device, hf):
    mesh, length = Mesh(mesh_device), 96
    tables = RopeTables(hf.model.rotary_emb, hf.config, length, mesh)
    block = Attention(hf.model.layers[0].self_attn, hf.config, Rows(length), mesh, PRECISION)
    users = {0: 40, 1: 64, 3: 1}  # row in the cache: tokens before the next one
    xs = {row: random_rows(before + 1, hf, seed=row) for row, before in users.items()}
    wants = {row: hf_attention(hf, x) for row, x in xs.items()}

    for row, before in users.items():
        prompt = torch.zeros(-(-before // 32) * 32, hf.config.hidden_size)
        prompt[:before] = xs[row][:before]
        got = replicated(block(put(prompt, mesh), Step(False, *tables.prompt, row=row)))[:before]
        assert as_good_as_bf16(got, wants[row][0][:before], wants[row][1][:before], mesh.chips)

    step_in = torch.zeros(32, hf.config.hidden_size)
    positions = torch.full((32,), -1, dtype=torch.int32)
    for row, before in users.items():
        step_in[row], positions[row] = xs[row][-1], before
    cos, sin = tables.look_up(mesh.put(positions.clamp(min=0)[None], ttnn.uint32))
    step = Step(True, cos, sin, positions=mesh.put(positions, ttnn.int32))
    out = block(put(step_in, mesh), step)
    assert not out.is_sharded(), "what the heads' places decide ends with them: sums over chips keep other buffers"
    got = replicated(out)
    for row in users:
        assert as_good_as_bf16(got[row], wants[row][0][-1], wants[row][1][-1], mesh.chips, APPROXIMATE_EXP)


@torch.no_grad()
def test_queries_and_keys_after_rope_can_be_hooked(device):
    hf = small_hf_model("Llama-3.2-1B", num_hidden_layers=1)
    mesh = Mesh(device)
    block = Attention(hf.model.layers[0].self_attn, hf.config, Rows(32), mesh, PRECISION)
    seen = {}
    for name in ("q_rope", "k_rope"):
        block.get_submodule(name).register_forward_hook(lambda m, a, out, n=name: seen.update({n: ttnn.to_torch(out)}))
    tables = RopeTables(hf.model.rotary_emb, hf.config, 32, mesh)
    block(put(random_rows(32, hf), mesh), Step(False, *tables.prompt, row=0))
    assert seen["q_rope"].shape == (1, 8, 32, 64)
    assert seen["k_rope"].shape == (1, 2, 32, 64)


def test_rope_tables_are_hfs_also_for_a_model_on_the_meta_device(device, hf):
    cos, sin = hf.model.rotary_emb(torch.zeros(1), torch.arange(64)[None])
    with torch.device("meta"):
        empty = type(hf)(hf.config)
    tables = RopeTables(empty.model.rotary_emb, hf.config, 64, Mesh(device))
    for got, want in zip(tables.prompt + tables.by_position, [cos, sin, cos, sin], strict=True):
        assert torch.equal(ttnn.to_torch(got).float().reshape(64, -1), want[0].bfloat16().float())
