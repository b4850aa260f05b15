"""The HF-facing model: prompts, decode, batches, padding, generate(), traces, and what is refused."""

import pytest
import torch

from bringup import backends
from tests.blocks.common import load_model_file, relative_l2
from tests.blocks.small_llama import DECODE, FILE, MAX, TOLERANCE, prompt


def padded(lengths, side, seed=0):
    """Prompts of these lengths in one batch, and their attention mask."""
    width, rows = max(lengths), [prompt(n, seed=seed + i)[0] for i, n in enumerate(lengths)]
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for u, row in enumerate(rows):
        where = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[u, where], mask[u, where] = row, 1
    return rows, ids, mask


def alone(model, row, steps):
    return model.generate(row[None], max_new_tokens=steps, do_sample=False, eos_token_id=None)[0, len(row) :]


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2, 31, 32, 33, 100])
def test_prompt_and_decode_against_hf(model, hf, tokens):
    ids = prompt(tokens + 3)
    want = hf(ids).logits
    everything = model(ids[:, :tokens], logits_to_keep=0)
    assert relative_l2(everything.logits, want[:, :tokens]) < TOLERANCE
    last = model(ids[:, :tokens], logits_to_keep=1)
    assert torch.equal(last.logits, everything.logits[:, -1:]), "one position is the same as that position of all"
    cache = last.past_key_values
    for i in range(tokens, tokens + 3):
        got = model(ids[:, i : i + 1], past_key_values=cache).logits
        assert got.shape == (1, 1, 500)
        assert relative_l2(got[0, 0], want[0, i]) < DECODE, f"position {i}"


@torch.no_grad()
def test_a_prompt_through_decode_token_by_token(model):
    ids = prompt(34)
    by_prompt = model(ids, logits_to_keep=0).logits
    by_decode = model(ids, past_key_values=model.empty_cache(), logits_to_keep=0).logits
    assert relative_l2(by_decode, by_prompt) < DECODE


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_user_of_a_batch_gets_what_it_gets_alone(model, side):
    rows, ids, mask = padded([5, 40, 1, 33], side)
    out = model(ids, attention_mask=mask, logits_to_keep=1)
    every = model(ids, attention_mask=mask).logits
    for u, row in enumerate(rows):
        one = model(row[None], logits_to_keep=0).logits[0]
        assert relative_l2(out.logits[u, 0], one[-1]) < 1e-6
        assert relative_l2(every[u][mask[u].bool()], one) < 1e-6
        assert not every[u][~mask[u].bool()].any(), "no logits where there is no token"


@pytest.mark.parametrize("users", [4, 32])
def test_generate_on_a_batch_is_generate_alone(model, users):
    rows, ids, mask = padded([5, 40, 1, 33, 17, 64, 32, 31][:users] * (users // 8 or 1), "left")
    got = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=None)
    got = got[:, ids.shape[1] :]
    for u in range(min(users, 5)):
        assert torch.equal(got[u], alone(model, rows[u], 6)), f"user {u}"


def test_generate_writes_what_hf_writes_where_hf_is_decided(model, hf):
    ids = prompt(12, seed=5)
    got = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None)[0, 12:]
    with torch.no_grad():
        logits = hf(torch.cat([ids[0], got])[None]).logits[0, 11:-1]
    top2 = logits.topk(2).values
    decided = (top2[:, 0] - top2[:, 1]) > 2 * 2**0.5 * DECODE * logits.std(dim=1)  # two deviations of a difference
    assert decided.sum() >= 10
    assert torch.equal(got[decided], logits.argmax(dim=1)[decided])


def test_sampling_follows_the_seed(model):
    ids = prompt(8)
    draw = lambda seed: (torch.manual_seed(seed), model.generate(ids, max_new_tokens=8, do_sample=True))[1]  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1)[:, :12], draw(2)[:, :12])


@torch.no_grad()
def test_a_second_prompt_sees_nothing_of_the_first(model):
    short, long = prompt(3, seed=7), prompt(100, seed=8)
    before = model(short)
    first = [before.logits, model(short[:, :1], past_key_values=before.past_key_values).logits]
    model(long)
    model.reset()
    again = model(short)
    assert torch.equal(again.logits, first[0])
    assert torch.equal(model(short[:, :1], past_key_values=again.past_key_values).logits, first[1])


@torch.no_grad()
def test_what_is_refused(model):
    old = model(prompt(4)).past_key_values
    model(prompt(5))
    cases = [
        ("of an earlier prompt", lambda: model(prompt(1), past_key_values=old)),
        ("at least one of each, not \\[1, 0\\]", lambda: model(prompt(0))),
        ("at least one of each, not \\[4\\]", lambda: model(prompt(4)[0])),
        ("must be a torch tensor", lambda: model([[1, 2]])),
        ("33 users; a decode step has room for 32", lambda: model(prompt(2, users=33))),
        (f"{MAX + 1} tokens does not fit max_seq_len {MAX}", lambda: model(prompt(MAX + 1))),
        ("in 0..499, not 3..500", lambda: model(torch.tensor([[3, 500]]))),
        ("prompt of user 1 is empty", lambda: model(prompt(2, users=2), attention_mask=torch.tensor([[1, 1], [0, 0]]))),
        ("has a hole: 2 ones", lambda: model(prompt(3), attention_mask=torch.tensor([[1, 0, 1]]))),
        ("attention_mask must be like", lambda: model(prompt(3), attention_mask=torch.ones(1, 4))),
        ("num_beams=1", lambda: model.generate(prompt(3), num_beams=2, max_new_tokens=2)),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="past_key_values hold 1 users, input_ids has 2"):
        model(prompt(1, users=2), past_key_values=model(prompt(2)).past_key_values)


@torch.no_grad()
def test_a_full_cache_is_refused_and_the_last_position_is_right(model, hf):
    ids = prompt(MAX, seed=3)
    cache = model(ids[:, :-1]).past_key_values
    got = model(ids[:, -1:], past_key_values=cache).logits
    assert relative_l2(got[0, 0], hf(ids).logits[0, -1]) < DECODE
    with pytest.raises(ValueError, match=f"the cache is full: {MAX} tokens of max_seq_len {MAX}"):
        model(ids[:, -1:], past_key_values=cache)


def test_max_seq_len_must_be_positive(hf, device):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        load_model_file(FILE).build_model(hf, device, 0)


@torch.no_grad()
def test_data_parallel_gives_each_chip_users_of_its_own(hf, mesh_device):
    model = load_model_file(FILE).build_model(hf, mesh_device, MAX, data_parallel=True)
    chips = mesh_device.get_num_devices()
    assert model.max_users == 32 * chips
    rows, ids, mask = padded([5, 40, 1, 33, 17], "left")
    out = model(ids, attention_mask=mask, logits_to_keep=1)
    nexts = out.logits[:, -1].argmax(dim=1, keepdim=True)
    after = model(nexts, past_key_values=out.past_key_values).logits
    for u, row in enumerate(rows):
        want = hf(torch.cat([row, nexts[u]])[None]).logits[0]
        assert relative_l2(out.logits[u, 0], want[-2]) < TOLERANCE
        assert relative_l2(after[u, 0], want[-1]) < DECODE


@torch.no_grad()
@pytest.mark.parametrize("system", ["n150", "t3000"])
def test_a_traced_step_is_bit_equal_and_survives_a_new_prompt(hf, system):
    with backends.open_system(system, trace_region_size=16 << 20) as device:
        model = load_model_file(FILE).build_model(hf, device, 64)
        results = []
        for traced in (False, True):
            model.traced = traced
            steps = []
            for ids in (prompt(20, users=2, seed=1), prompt(33, users=3, seed=2)):
                cache = model(ids[:, :16]).past_key_values
                steps += [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(16, 20)]
            results.append(torch.cat(steps))
        assert torch.equal(*results)
        model.release_trace()


def test_a_step_that_raises_leaves_no_capture_open(hf):
    with backends.open_system("n150") as device:
        model = load_model_file(FILE).build_model(hf, device, MAX)
        cache = model(prompt(8)).past_key_values
        plain, runs = model.step, []

        def second_fails():
            runs.append(1)
            if len(runs) == 2:
                raise RuntimeError("planted")
            return plain()

        model.step, model.traced = second_fails, True
        with pytest.raises(RuntimeError, match="planted"):
            model(prompt(1), past_key_values=cache)
        model.step, model.traced = plain, False
        assert model(prompt(8)).logits.isfinite().all()
