"""The paged cache against the unpaged one, and against HF where a prompt runs in chunks; the pool's accounts."""

import pytest
import torch
import ttnn

from bringup import backends
from bringup.blocks import generate
from bringup.blocks.cache import BLOCK, Blocks, Rows
from bringup.blocks.parallel import Mesh
from tests.blocks.common import as_stored, load_model_file, relative_l2, small_hf_model
from tests.blocks.test_generate import DECODE, FILE, TOLERANCE, padded, prompt

MAX = 192  # three blocks a user


@pytest.fixture(scope="module")
def hf():
    return as_stored(small_hf_model("Llama-3.2-1B"), ttnn.bfloat16)


@pytest.fixture
def build(hf, monkeypatch):
    """build(device, cache, ...): the model with that cache, whatever would fit."""

    def build(device, cache, max_seq_len=MAX, **options):
        monkeypatch.setattr(generate, "check_fits", lambda *args: cache)
        return load_model_file(FILE).build_model(hf, device, max_seq_len, **options)

    return build


@torch.no_grad()
def run(model, users, side="left", steps=4):
    """Logits of a batch of prompts and of the steps after it, across the end of a block."""
    _, ids, mask = padded(users, side)
    out = model(ids, attention_mask=mask, logits_to_keep=0)
    logits = [out.logits[mask.bool()]]
    for i in range(steps):
        tokens = prompt(1, len(users), seed=50 + i)
        out = model(tokens, past_key_values=out.past_key_values)
        logits.append(out.logits[:, 0])
    return logits


@pytest.mark.parametrize(
    ("precision_cache", "longest"), [(ttnn.bfloat16, MAX), (ttnn.bfloat16, 256), (ttnn.bfloat8_b, MAX)], ids=str
)
def test_paged_is_unpaged_bit_for_bit(build, precision_cache, longest):
    """A prompt that runs in one chunk, and decode, do the same arithmetic; blocks come in another order than users."""
    from bringup.blocks import Precision

    precision = Precision.of(ttnn.bfloat16, cache=precision_cache)
    users = [63, 5, 64, 1, 126, 65]
    with backends.open_system("n150") as device:
        rows = run(build(device, Rows(longest), longest, precision=precision), users)
        paged = build(device, Blocks(longest, 13), longest, precision=precision)
        run(paged, [100, 30])  # other users had the blocks before
        for want, got in zip(rows, run(paged, users), strict=True):
            assert torch.equal(got, want)


def test_paged_is_unpaged_on_every_mesh_and_in_data_parallel(build, mesh_device):
    chips = mesh_device.get_num_devices()
    users = [63, 5, 64, 1, 126]
    for options, pool in (({}, 20), ({"data_parallel": True}, 12)):
        rows = run(build(mesh_device, Rows(MAX), **options), users, "right")
        paged = run(build(mesh_device, Blocks(MAX, pool), **options), users, "right")
        for want, got in zip(rows, paged, strict=True):
            assert torch.equal(got, want), f"{chips} chips, {options}"


@torch.no_grad()
@pytest.mark.parametrize("tokens", [64, 127, 129, 300])
def test_a_prompt_in_chunks_is_hfs(build, hf, monkeypatch, tokens):
    """Chunks of 64: each attends to all before it. The next token is decoded over what the chunks have written."""
    monkeypatch.setattr(Blocks, "prompt_chunk", 64)
    ids = prompt(tokens + 2, seed=9)
    want = hf(ids).logits
    with backends.open_system("n150") as device:
        model = build(device, Blocks(384, 8), 384)
        everything = model(ids[:, :tokens], logits_to_keep=0)
        assert relative_l2(everything.logits, want[:, :tokens]) < TOLERANCE
        out = model(ids[:, :tokens], logits_to_keep=1)
        assert torch.equal(out.logits, everything.logits[:, -1:])
        for i in range(tokens, tokens + 2):
            out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
            assert relative_l2(out.logits[0, 0], want[0, i]) < DECODE


@torch.no_grad()
def test_a_full_pool_is_refused_before_anything_is_written(build):
    with backends.open_system("n150") as device:
        model = build(device, Blocks(MAX, 1 + 4))
        _, ids, mask = padded([64, 65, 64, 1], "left")
        with pytest.raises(ValueError, match="4 users need 5 more blocks of 64 positions, 4 of 4 are free"):
            model(ids, attention_mask=mask)
        out = model(ids[:3], attention_mask=mask[:3])  # 1 + 2 + 1 blocks
        step = prompt(1, 3)
        with pytest.raises(ValueError, match="3 users need 2 more blocks of 64 positions, 0 of 4 are free"):
            model(step, past_key_values=out.past_key_values)
        assert out.past_key_values.lengths == [64, 65, 64]
        out = model(ids[:1], attention_mask=mask[:1])  # a new prompt has the whole pool again
        assert model(step[:1], past_key_values=out.past_key_values).logits.shape == (1, 1, 500)


def test_blocks_are_each_drawn_once_and_block_0_is_nobodys(device):
    pool = Blocks(MAX, 8)
    pool.open(Mesh(device))
    pool.draw({0: 64, 5: 65})
    pool.draw({0: 65, 5: 66, 7: 1})
    drawn = [block for row in pool.table.tolist() for block in row if block]
    assert pool.held[0] == 2
    assert pool.held[5] == 2
    assert pool.held[7] == 1
    assert len(drawn) == len(set(drawn)) == 5
    pool.upload()
    assert torch.equal(ttnn.to_torch(pool.device_table), pool.table)
    pool.clear()
    assert len(pool.free[0]) == 7
    assert not pool.table.any()


def test_the_same_table_serves_all_layers_and_a_step_makes_no_host_tensor(build, monkeypatch):
    with backends.open_system("n150") as device:
        model = build(device, Blocks(MAX, 8))
        model(prompt(60))
        model.step()
        for name in ("from_torch", "to_torch", "copy_host_to_device_tensor"):
            monkeypatch.setattr(ttnn, name, lambda *args, **kwargs: pytest.fail("a step reads nothing of the host"))
        model.step()


@torch.no_grad()
@pytest.mark.parametrize("system", ["n150", "t3000"])
@pytest.mark.parametrize("cache", ["rows", "blocks"])
def test_a_traced_step_is_bit_equal_whatever_prompts_come_between(build, system, cache):
    """Blocks are drawn during the replays, and prompts of new lengths run between them."""
    with backends.open_system(system, trace_region_size=16 << 20) as device:
        model = build(device, Rows(MAX) if cache == "rows" else Blocks(MAX, 12))
        results, captured = [], []
        for traced in (False, True):
            model.traced, steps = traced, []
            for length in (20, 62, 126, 33, 20):
                steps += run(model, [length, 7], steps=4)
                captured.append(model._traces.get("step"))
            results.append(torch.cat(steps))
        model.release_trace()
    assert torch.equal(*results)
    assert captured[:5] == [None] * 5
    assert None not in captured[5:]
    assert captured[8][0] == captured[9][0], "a prompt that ran before leaves the captured step as it is"


def test_blocks_hold_positions_of_one_user_each():
    with pytest.raises(AssertionError):
        Blocks(BLOCK + 1, 4)
