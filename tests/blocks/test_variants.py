"""Blocks of what families differ in, each against HF's own code or plain torch."""

import sys

import pytest
import torch
import ttnn

from bringup.blocks import Mesh, Precision, Rotation
from bringup.blocks.norm import CutRMSNorm, HeadNorm, LayerNorm, UnitOffsetLayerNorm, UnitOffsetRMSNorm
from bringup.blocks.rope import head_width, of_hf
from bringup.blocks.weights import columns
from tests.blocks.common import as_good_as_bf16, in_bf16, through
from tests.new.families import config

PRECISION = Precision.of(ttnn.bfloat16)


@pytest.mark.parametrize(
    ("family", "rotation"),
    [
        ("llama", Rotation()),
        ("cohere", Rotation(interleaved=True)),
        ("helium", Rotation(interleaved=True)),
        ("glm", Rotation(part=0.5, interleaved=True)),
        ("nemotron", Rotation(part=0.5)),
    ],
)
@pytest.mark.parametrize("head_dim", [32, 80, 96, 128])
def test_halves_of_a_head_in_another_order_are_hfs_rotation(family, rotation, head_dim):
    """In torch: what the device's op computes of reordered and padded heads, put back, is HF's."""
    from transformers import AutoModelForCausalLM

    asked = config(family, head_dim=head_dim, num_hidden_layers=1)
    with torch.device("meta"):
        rotary = AutoModelForCausalLM.from_config(asked).model.rotary_emb
    rotary = type(rotary)(config=asked)
    apply = sys.modules[type(rotary).__module__].apply_rotary_pos_emb
    x = torch.randn(1, 2, 50, head_dim, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary(x, torch.arange(50)[None])
    order = rotation.order(head_dim)
    assert len(order) == head_width(head_dim)
    left, right = columns(x, order, 3).chunk(2, -1)
    tables = rotation.spread(cos[0], head_dim, 1.0), rotation.spread(sin[0], head_dim, 0.0)
    turned = torch.cat((left, right), -1) * tables[0] + torch.cat((-right, left), -1) * tables[1]
    assert torch.allclose(of_hf(turned, order), apply(x, x, cos, sin)[0], atol=1e-5)


@pytest.mark.parametrize(("block", "offset"), [(LayerNorm, 0.0), (UnitOffsetLayerNorm, 1.0), (UnitOffsetRMSNorm, 1.0)])
@torch.no_grad()
def test_norms_of_the_hidden_state(device, block, offset):
    mesh, x = Mesh(device), through(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) * 3, ttnn.bfloat16)
    hf = torch.nn.RMSNorm(256, eps=1e-5) if block is UnitOffsetRMSNorm else torch.nn.LayerNorm(256, eps=1e-5)
    for parameter in hf.parameters():
        parameter.copy_(through(torch.rand(1, 256, generator=torch.Generator().manual_seed(1)) + 0.5, ttnn.bfloat16)[0])
    got = ttnn.to_torch(block(hf, 1e-5, mesh, PRECISION)(mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)))
    hf.weight += offset
    assert as_good_as_bf16(got.float()[0, 0], hf(x), in_bf16(hf, x))


@torch.no_grad()
def test_a_norm_of_padded_heads_is_that_of_their_own_columns(device):
    mesh, order = Mesh(device), Rotation(part=0.75).order(96)
    x = through(torch.randn(4, 64, 96, generator=torch.Generator().manual_seed(0)).flatten(0, 1), ttnn.bfloat16)
    hf = torch.nn.RMSNorm(96, eps=1e-3)
    hf.weight.copy_(through(torch.rand(1, 96, generator=torch.Generator().manual_seed(1)) + 0.5, ttnn.bfloat16)[0])
    heads = columns(x, order, 1).view(1, 4, 64, 128)
    got = HeadNorm(hf, order, mesh, PRECISION)(mesh.put(heads, ttnn.bfloat16, ttnn.TILE_LAYOUT))
    assert as_good_as_bf16(of_hf(ttnn.to_torch(got).float(), order).flatten(0, 2), hf(x), in_bf16(hf, x))


@torch.no_grad()
def test_a_norm_over_all_heads_is_one_of_the_whole_width_on_any_mesh(mesh_device):
    mesh, size = Mesh(mesh_device), 256 * 8
    x = through(torch.randn(32, size, generator=torch.Generator().manual_seed(0)), ttnn.bfloat16)
    hf = torch.nn.RMSNorm(size, eps=1e-5)
    hf.weight.copy_(through(torch.rand(1, size, generator=torch.Generator().manual_seed(1)) + 0.5, ttnn.bfloat16)[0])
    given = mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT, shard_dim=3 if mesh.tensor_ways > 1 else None)
    got = mesh.get(CutRMSNorm(hf.weight, size, 1e-5, mesh, PRECISION)(given))[0].float()
    assert as_good_as_bf16(got, hf(x), in_bf16(hf, x), mesh.chips)
