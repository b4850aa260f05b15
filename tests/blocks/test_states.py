"""Layers with a state in place of keys against the HF modules they stand for, in fp32, on one, two and eight chips."""

from types import SimpleNamespace

import pytest
import torch
import ttnn
from transformers import AutoConfig, AutoModelForCausalLM

from bringup import backends
from bringup.blocks import Mesh, Precision
from bringup.blocks.linear_attention import GatedDeltaNet
from bringup.blocks.state import ShortConv, States
from bringup.new.small import in_bf16, relative_l2, through
from tests.blocks.test_layers import put, replicated

PRECISION = Precision.of(ttnn.bfloat16)
SMALL = {
    "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 64, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 64, "initializer_range": 0.08,
}  # fmt: skip
RULE = {"linear_num_key_heads": 8, "linear_num_value_heads": 8, "linear_key_head_dim": 32, "linear_value_head_dim": 32}
HYBRID = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 32}
FAMILIES = {
    "qwen3_next": {**HYBRID, **RULE, "linear_num_value_heads": 16, "num_experts": 2, "moe_intermediate_size": 32,
                   "shared_expert_intermediate_size": 32},
    "qwen3_5_text": {**HYBRID, **RULE},
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_bias": True},
}  # fmt: skip
#: Twice what HF's bfloat16 is off, for single rows too: over these rows and families it is 2.7e-3 to 1.4e-2.
BOUND = 0.02


def layer_of(family, **changes):
    """HF's layer of random weights on bfloat16's grid; its norm is not 1 and its biases not 0."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SMALL, **FAMILIES[family], **changes})
    layer = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().model.layers[0]
    part = layer.conv if family == "lfm2" else layer.linear_attn
    with torch.no_grad():
        for name, w in part.named_parameters():
            if name.endswith("bias") or name == "norm.weight":
                w.uniform_(0.5, 1.5)
            w.copy_(through(w.reshape(1, -1), ttnn.bfloat16).view_as(w))
    return part


def block_of(family, part, mesh):
    states = States(mesh)
    block = (ShortConv if family == "lfm2" else GatedDeltaNet)(part, SimpleNamespace(states=states), mesh, PRECISION)
    return block, states


def prompt(block, states, x, row, mesh, start=0):
    """x [S, hidden], padded with other numbers to whole tiles, as one user's prompt or the piece of it from `start`."""
    rows = -(-len(x) // 32) * 32
    padded = torch.cat((x, torch.full((rows - len(x), x.shape[1]), 3.0)))
    step = SimpleNamespace(is_decode=False, row=row, start=start, tokens=states.of_prompt([len(x)], rows, row))
    return replicated(block(put(padded, mesh), step))[: len(x)]


def step(block, tokens, mesh):
    """tokens {row: [hidden]} as a decode step; other rows hold what nobody asked for."""
    x = torch.full((32, next(iter(tokens.values())).shape[0]), 3.0)
    for row, token in tokens.items():
        x[row] = token
    return replicated(block(put(x, mesh), SimpleNamespace(is_decode=True)))


def stream(n, seed, hidden=256):
    return through(torch.randn(n, hidden, generator=torch.Generator().manual_seed(seed)), ttnn.bfloat16)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_and_steps_are_hfs(mesh_device, family):
    part, mesh = layer_of(family), Mesh(mesh_device)
    block, states = block_of(family, part, mesh)
    users = {0: 40, 5: 64, 9: 1, 31: 2}
    xs = {row: stream(n + 3, row) for row, n in users.items()}
    want = {row: part(x[None])[0] for row, x in xs.items()}
    bf16 = {row: relative_l2(in_bf16(part, x[None])[0].float(), want[row]) for row, x in xs.items()}
    assert max(bf16.values()) < BOUND / 2
    for row, n in users.items():
        assert relative_l2(prompt(block, states, xs[row][:n], row, mesh), want[row][:n]) < BOUND
    for i in range(3):
        got = step(block, {row: xs[row][n + i] for row, n in users.items()}, mesh)
        for row, n in users.items():
            assert relative_l2(got[row], want[row][n + i]) < BOUND, (row, i)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_in_pieces_goes_on_where_it_was_and_a_new_one_starts_anew(device, family):
    part, mesh, x = layer_of(family), Mesh(device), stream(72, 1)
    block, states = block_of(family, part, mesh)
    want = part(x[None])[0]
    prompt(block, states, stream(96, 2), 3, mesh)  # of another user before
    for start, end in ((0, 32), (32, 64), (64, 70)):
        got = prompt(block, states, x[start:end], 3, mesh, start)
        assert relative_l2(got, want[start:end]) < BOUND, start
    for at in (70, 71):
        assert relative_l2(step(block, {3: x[at]}, mesh)[3], want[at]) < BOUND, at


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_cleared_states_take_a_prompt_token_by_token(device, family):
    part, mesh, x = layer_of(family), Mesh(device), stream(5, 1)
    block, states = block_of(family, part, mesh)
    prompt(block, states, stream(33, 2), 0, mesh)
    states.clear()
    got = torch.stack([step(block, {0: token}, mesh)[0] for token in x])
    assert relative_l2(got, part(x[None])[0]) < BOUND


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("qwen3_5_text", {"hidden_size": 1024, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
                          "linear_key_head_dim": 128, "linear_value_head_dim": 128}),
        ("lfm2", {"hidden_size": 1024, "conv_bias": False}),
    ],
)  # fmt: skip
def test_it_is_hfs_at_true_width(device, family, sizes):
    part, mesh, x = layer_of(family, initializer_range=0.02, **sizes), Mesh(device), stream(34, 1, 1024)
    block, states = block_of(family, part, mesh)
    want = part(x[None])[0]
    assert relative_l2(prompt(block, states, x[:33], 0, mesh), want[:33]) < BOUND
    assert relative_l2(step(block, {0: x[33]}, mesh)[0], want[33]) < BOUND


def test_heads_that_chips_do_not_share_are_refused():
    part = layer_of("qwen3_5_text", linear_num_key_heads=4, linear_num_value_heads=4)
    with backends.open_system("t3000") as device, pytest.raises(ValueError, match="4 key and 4 value heads are not"):
        block_of("qwen3_5_text", part, Mesh(device))
