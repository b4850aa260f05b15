"""Mixtures of experts against the HF modules they stand for, in fp32, on one, two and eight chips."""

import pytest
import torch
import ttnn
from transformers import AutoConfig, AutoModelForCausalLM

from bringup.blocks import Mesh, Precision
from bringup.blocks.moe import ClampedExperts, Experts, MixtureOfExperts, program
from bringup.blocks.router import Router, Routing
from bringup.new.small import as_good_as_bf16, in_bf16, through
from tests.blocks.test_layers import put, replicated

PRECISION = Precision.of(ttnn.bfloat16)
SMALL = {
    "num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 96, "moe_intermediate_size": 96,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 64, "initializer_range": 0.08,
}  # fmt: skip
GROUPED = {
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "n_shared_experts": 1,
    "first_k_dense_replace": 0, "routed_scaling_factor": 1.5, "norm_topk_prob": True,
}  # fmt: skip
# The fields of each family, its routing, and its experts.
FAMILIES = {
    "qwen2_moe": (
        {"num_experts": 8, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 160, "norm_topk_prob": False},
        Routing(2, normalised=False),
    ),
    "qwen3_moe": ({"num_experts": 12, "num_experts_per_tok": 4, "norm_topk_prob": True}, Routing(4)),
    "mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, Routing(2)),
    "gpt_oss": ({"num_local_experts": 8, "num_experts_per_tok": 4}, Routing(4)),
    "glm4_moe": (GROUPED, Routing(4, "sigmoid", True, 1.5, 4, 2)),
}


def moe_of(family, **changes):
    """HF's block of random weights on bfloat16's grid, with biases that count."""
    fields = {**SMALL, **FAMILIES[family][0], **changes}
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields), dtype=torch.float32).eval()
    moe = hf.model.layers[0].mlp
    with torch.no_grad():
        for name, w in [*moe.named_parameters(), *moe.named_buffers()]:
            if "bias" in name:
                w.normal_().mul_(0.3)
            w.copy_(through(w[None] if w.dim() == 1 else w, ttnn.bfloat16).view_as(w))
    return moe


def of_hf(moe, x):
    """HF in fp32 and in bfloat16; gpt-oss gives its scores as well."""
    first = lambda y: (y[0] if isinstance(y, tuple) else y)[0]  # noqa: E731
    return first(moe(x[None])), first(in_bf16(moe, x[None]))


def rows(n, hidden, seed=1):
    return through(2 * torch.randn(n, hidden, generator=torch.Generator().manual_seed(seed)), ttnn.bfloat16)


def block_of(family, moe, mesh):
    return MixtureOfExperts(
        moe, FAMILIES[family][1], mesh, PRECISION, ClampedExperts if family == "gpt_oss" else Experts
    )


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_hfs(mesh_device, family):
    moe, x, mesh = moe_of(family), rows(64, 256), Mesh(mesh_device)
    got = replicated(block_of(family, moe, mesh)(put(x, mesh)))
    assert as_good_as_bf16(got, *of_hf(moe, x), mesh.chips)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("qwen3_moe", {"hidden_size": 2048, "moe_intermediate_size": 768}),  # Qwen3-30B-A3B
        ("gpt_oss", {"hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 6}),  # gpt-oss-20b
    ],
)
def test_it_is_hfs_at_true_width_of_few_experts(device, family, sizes):
    moe, mesh = moe_of(family, initializer_range=0.02, **sizes), Mesh(device)
    x = rows(32, sizes["hidden_size"])
    assert as_good_as_bf16(replicated(block_of(family, moe, mesh)(put(x, mesh))), *of_hf(moe, x))


@torch.no_grad()
def test_a_prompt_in_pieces_is_the_prompt(device):
    moe, x, mesh = moe_of("qwen3_moe"), rows(160, 256), Mesh(device)
    block = block_of("qwen3_moe", moe, mesh)
    whole = replicated(block(put(x, mesh)))
    block.experts.piece = 64
    assert torch.equal(replicated(block(put(x, mesh))), whole)


@torch.no_grad()
def test_what_a_skipped_product_leaves_does_not_count(device, monkeypatch):
    moe, x, mesh = moe_of("gpt_oss"), rows(1, 256).expand(32, -1), Mesh(device)  # all rows choose the same experts
    block = block_of("gpt_oss", moe, mesh)
    want, products = replicated(block(put(x, mesh))), ttnn.sparse_matmul

    def leaves_nan(a, b, *, sparsity, **kwargs):
        y = ttnn.to_torch(products(a, b, sparsity=sparsity, **kwargs))
        skipped = ttnn.to_torch(sparsity).flatten() == 0
        assert skipped.sum() == 4
        y[..., skipped, :, :] = float("nan")
        return ttnn.from_torch(y, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)

    monkeypatch.setattr(ttnn, "sparse_matmul", leaves_nan)
    assert torch.equal(replicated(block(put(x, mesh))), want)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_router_chooses_and_weighs_as_hf(device, family):
    moe, x, mesh = moe_of(family), rows(256, 256, seed=3), Mesh(device)
    hf = getattr(moe, "gate", None) or moe.router
    _, weight, at = hf(x)
    want = torch.zeros(256, hf.weight.shape[0]).scatter(1, at, weight.float())
    got = replicated(Router(moe, FAMILIES[family][1], mesh, PRECISION)(put(x, mesh)))
    assert torch.equal(got != 0, want != 0)
    assert torch.allclose(got, want, rtol=0.02), (got - want).abs().max()


@pytest.mark.parametrize(("width", "cores"), [(32, 1), (96, 3), (768, 24), (2048, 64), (2880, 30), (4096, 64)])
def test_the_blocks_of_a_sparse_product_fill_a_rectangle(width, cores):
    config = program(32, 2048, width)
    across, down = config.compute_with_storage_grid_size
    assert across * down == cores
    assert cores * config.per_core_N * 32 >= width > (cores - 1) * config.per_core_N * 32
