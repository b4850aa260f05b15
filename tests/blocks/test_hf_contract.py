"""What programs written for HF causal LMs rely on: logits, losses, hidden states, masks and positions of forward; kept
caches, batches and the modes of generate(). Each is as HF has it, or is refused in words that say why."""

import copy
import pickle
import re

import pytest
import torch
from transformers import DynamicCache, StoppingCriteriaList

from tests.blocks.common import relative_l2
from tests.blocks.small_llama import DECODE, MAX, TOLERANCE, prompt


def batch(lengths, side):
    """ids and mask of prompts of these lengths, padded on one side."""
    ids, mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long), torch.zeros(len(lengths), max(lengths))
    for u, n in enumerate(lengths):
        where = slice(max(lengths) - n, None) if side == "left" else slice(0, n)
        ids[u, where], mask[u, where] = prompt(n, seed=u)[0], 1
    return ids, mask.long()


@torch.no_grad()
def test_logits_of_every_position_unless_asked_otherwise(model, hf):
    ids = prompt(40)
    want = hf(ids).logits
    everything = model(ids).logits
    assert relative_l2(everything, want) < TOLERANCE
    for keep in (1, 3, 40):
        assert torch.equal(model(ids, logits_to_keep=keep).logits, everything[:, -keep:])
    some = torch.tensor([0, 5, 39])
    assert torch.equal(model(ids, logits_to_keep=some).logits, everything[:, some])
    cache = model(ids[:, :30]).past_key_values
    assert relative_l2(model(ids[:, 30:], past_key_values=cache).logits, want[:, 30:]) < DECODE


@torch.no_grad()
@pytest.mark.parametrize("side", [None, "right"])
def test_a_loss_for_labels(model, hf, side):
    ids, mask = (prompt(40), None) if side is None else batch([40, 23, 7], side)
    labels = ids.clone() if mask is None else ids.masked_fill(mask == 0, -100)
    labels[0, 3] = -100
    want = hf(ids, attention_mask=mask, labels=labels).loss
    out = model(ids, attention_mask=mask, labels=labels)
    assert out.logits.shape == (*ids.shape, 500)
    assert out.loss.shape == ()
    assert abs(out.loss - want) < 0.01 * want
    twice = model(ids, attention_mask=mask, labels=labels, num_items_in_batch=10).loss
    assert abs(twice - hf(ids, attention_mask=mask, labels=labels, num_items_in_batch=10).loss) < 0.01 * twice


@torch.no_grad()
def test_labels_that_padding_would_predict_are_refused(model):
    ids, mask = batch([6, 3], "left")
    with pytest.raises(ValueError, match="label after column 2 of user 1 would be predicted by padding: -100 there"):
        model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
    with pytest.raises(ValueError, match=re.escape("labels must be like input_ids [1, 4], not [1, 5]")):
        model(prompt(4), labels=prompt(5))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states(model, hf, side):
    ids, mask = batch([40, 23], side)
    want = hf(ids, attention_mask=mask, output_hidden_states=True)
    got = model(ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1)
    assert len(got.hidden_states) == len(want.hidden_states) == hf.config.num_hidden_layers + 1
    assert got.logits.shape == (2, 1, 500)
    for ours, theirs in zip(got.hidden_states, want.hidden_states, strict=True):
        assert ours.shape == theirs.shape
        assert relative_l2(ours[mask.bool()], theirs[mask.bool()]) < TOLERANCE
    assert model(ids, attention_mask=mask).hidden_states is None
    out = model(ids[:, :30] if side == "right" else ids)
    after = model(prompt(2, users=2), past_key_values=out.past_key_values, output_hidden_states=True)
    assert [h.shape for h in after.hidden_states] == [(2, 2, 256)] * 3


@torch.no_grad()
def test_a_tuple_instead_of_an_output(model):
    ids = prompt(5)
    logits, cache = model(ids, return_dict=False)
    assert torch.equal(logits, model(ids).logits)
    assert cache.get_seq_length() == 5
    loss, logits, *_ = model(ids, return_dict=False, labels=ids)
    assert loss.dim() == 0
    assert model(ids, use_cache=False, return_dict=False)[1:] == ()
    assert model(ids, use_cache=False).past_key_values is None


@torch.no_grad()
def test_positions_that_are_the_tokens_own_are_taken_and_others_refused(model):
    ids, mask = batch([6, 3], "left")
    base = model(ids, attention_mask=mask).logits
    by_token = (mask.cumsum(1) - 1).clamp(min=0)
    for positions in (by_token, torch.arange(6)[None], torch.arange(6).expand(2, -1)):
        assert torch.equal(model(ids, attention_mask=mask, position_ids=positions).logits, base)
    for positions, words in (
        (torch.arange(50, 56)[None], "position_ids of user 0 must be 0, 1, 2, 3, ..., where"),
        (torch.arange(6).flip(0)[None], "not 5, 4, 3, 2, ..."),
        (torch.arange(5)[None], re.escape("must be like input_ids [2, 6], not [1, 5]")),
    ):
        with pytest.raises(ValueError, match=words):
            model(ids, attention_mask=mask, position_ids=positions)
    cache = model(ids, attention_mask=mask).past_key_values
    after = model(prompt(1, users=2), past_key_values=cache, position_ids=torch.tensor([[6], [3]]))
    assert after.logits.shape == (2, 1, 500)
    with pytest.raises(ValueError, match="position_ids of user 0 must be 7"):
        model(prompt(1, users=2), past_key_values=cache, position_ids=torch.tensor([[6], [3]]))


@torch.no_grad()
def test_a_mask_with_a_kept_cache(model):
    ids, mask = batch([6, 3], "left")
    steps = []
    for after in (None, torch.ones(2, 1, dtype=torch.long)):
        cache = model(ids, attention_mask=mask).past_key_values
        whole = None if after is None else torch.cat([mask, after], 1)
        steps.append(model(prompt(1, users=2), past_key_values=cache, attention_mask=whole).logits)
    assert torch.equal(*steps)
    one = torch.ones(2, 1, dtype=torch.long)
    cache = model(ids, attention_mask=mask).past_key_values
    for wrong, words in (
        (one, re.escape("after the 6 columns of past_key_values: [2, 7], not [2, 1]")),
        (torch.cat([mask, 0 * one], 1), "leaves out a new token"),
        (torch.cat([torch.ones_like(mask), one], 1), "leaves out other tokens than when"),
    ):
        with pytest.raises(ValueError, match=words):
            model(prompt(1, users=2), past_key_values=cache, attention_mask=wrong)


REFUSED = {
    "inputs_embeds": ({"inputs_embeds": torch.zeros(1, 4, 256)}, "inputs_embeds is not taken: the token table is on"),
    "output_attentions": ({"output_attentions": True}, "output_attentions is not taken: the attention kernel keeps"),
    "typo": ({"atention_mask": torch.ones(1, 4)}, "atention_mask is not taken: forward has no such argument"),
    "a cache of HF": ({"past_key_values": DynamicCache()}, "those that this model returned.*not DynamicCache"),
    "a 4D mask": ({"attention_mask": torch.ones(1, 1, 4, 4)}, re.escape("[1, 4], not [1, 1, 4, 4]")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_forward_refuses(model, case):
    given, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        model(prompt(4), **given)


@torch.no_grad()
def test_a_cache_is_changed_in_place_cropped_and_not_copied(model, hf):
    ids, a, b = prompt(20), prompt(1, seed=1), prompt(1, seed=2)
    cache = model(ids).past_key_values
    want = hf(torch.cat([ids, a, b], 1)).logits[0]
    assert relative_l2(model(a, past_key_values=cache).logits[0, 0], want[-2]) < DECODE
    assert relative_l2(model(b, past_key_values=cache).logits[0, 0], want[-1]) < DECODE, "as HF: b comes after a"
    cache.crop(-2)
    assert relative_l2(model(b, past_key_values=cache).logits[0, 0], hf(torch.cat([ids, b], 1)).logits[0, -1]) < DECODE
    for refused in (
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        lambda c: c.batch_repeat_interleave(2),
        lambda c: c.reset(),
    ):
        with pytest.raises(ValueError, match="the keys and values are on the device"):
            refused(cache)
    with pytest.raises(ValueError, match="would keep no token or padding"):
        cache.crop(-21)


def greedy(model, ids, **kwargs):
    return model.generate(ids, do_sample=False, eos_token_id=None, **({"max_new_tokens": 6} | kwargs))


@pytest.mark.parametrize("new_only", [False, True])
@pytest.mark.parametrize("users", [1, 3])
def test_a_second_turn_with_a_kept_cache(model, hf, users, new_only):
    """The turns after the first get the whole conversation, or its new tokens with the whole mask."""
    ids = prompt(9, users=users)
    out = greedy(model, ids, return_dict_in_generate=True)
    conversation, cache = out.sequences, out.past_key_values
    for turn in range(2):
        conversation = torch.cat([conversation, prompt(4, users=users, seed=turn + 5)], 1)
        given = conversation[:, cache.get_seq_length() :] if new_only else conversation
        mask = torch.ones_like(conversation)
        asked = {"return_dict_in_generate": True, "output_logits": True}
        out = greedy(model, given, past_key_values=cache, attention_mask=mask, **asked)
        got, cache = out.sequences[:, given.shape[1] :], out.past_key_values
        conversation = torch.cat([conversation, got], 1)
        held = conversation.shape[1] - 1
        assert cache.get_seq_length() == held
    kept, want = torch.stack(out.logits, 1), hf(conversation).logits[:, -7:-1]
    assert torch.equal(kept.argmax(-1), got)
    for user in range(users):
        assert relative_l2(kept[user], want[user]) < DECODE


def test_a_second_turn_of_padded_prompts(model):
    ids, mask = batch([12, 5], "left")
    out = greedy(model, ids, attention_mask=mask, return_dict_in_generate=True)
    more = torch.cat([out.sequences, prompt(3, users=2, seed=9)], 1)
    whole = torch.cat([mask, torch.ones(2, 9, dtype=torch.long)], 1)
    got = greedy(model, more, attention_mask=whole, past_key_values=out.past_key_values)
    assert got.shape == (2, 12 + 6 + 3 + 6)
    with pytest.raises(ValueError, match="past_key_values hold 26 tokens, input_ids has 26: none is new"):
        greedy(model, got[:, :26], attention_mask=torch.ones(2, 26).long(), past_key_values=out.past_key_values)


def test_without_a_cache_it_writes_the_same(model):
    ids = prompt(9)
    assert torch.equal(greedy(model, ids, use_cache=False)[:, :10], greedy(model, ids)[:, :10])


def test_only_the_last_position_is_computed_for_generate(model, monkeypatch):
    rows, plain = [], model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: rows.append(hidden.shape[-2]) or plain(hidden))
    greedy(model, prompt(100), max_new_tokens=2)
    assert rows == [32, 32], "one tile of the prompt, and a step"


def test_scores_and_hidden_states_of_generate(model):
    ids = prompt(9)
    asked = {"return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True}
    out = greedy(model, ids, max_new_tokens=3, **asked)
    assert torch.equal(torch.stack(out.logits, 1).argmax(-1), out.sequences[:, 9:])
    assert [states[-1].shape for states in out.hidden_states] == [(1, 9, 256), (1, 1, 256), (1, 1, 256)]


def test_lengths_and_ends(model):
    ids = prompt(9)
    whole = greedy(model, ids)
    assert torch.equal(greedy(model, ids, max_length=12, max_new_tokens=None), whole[:, :12])
    end = int(whole[0, 11])
    stopped = model.generate(ids, do_sample=False, max_new_tokens=6, eos_token_id=end)[0].tolist()
    assert stopped == whole[0, : whole[0, 9:].tolist().index(end) + 10].tolist()
    by_rule = StoppingCriteriaList([lambda seen, scores: torch.tensor([seen.shape[1] >= 11])])
    assert torch.equal(greedy(model, ids, stopping_criteria=by_rule), whole[:, :11])
    for given, words in (
        ({"max_new_tokens": MAX + 1}, f"the cache is full: {MAX} tokens of max_seq_len {MAX}"),
        ({"max_length": 9, "max_new_tokens": None}, "`max_length` is set to 9"),
    ):
        with pytest.raises(ValueError, match=words):
            greedy(model, ids, **given)


REFUSED_MODES = {
    "beams": ({"num_beams": 2}, "beam search would move users"),
    "assistant": ({"assistant_model": True}, "assisted generation is not supported with stateful models"),
    "prompt lookup": ({"prompt_lookup_num_tokens": 2}, "assisted generation is not supported with stateful models"),
    "guidance": ({"guidance_scale": 1.5}, "the device holds one set of users at a time"),
    "embeddings": ({"inputs_embeds": torch.zeros(1, 4, 256)}, "inputs_embeds|forwarding implemented"),
    "typo": ({"max_new_token": 3}, "max_new_token"),
    "a cache of HF": ({"past_key_values": DynamicCache()}, "not DynamicCache"),
    "another's cache": ({"past_key_values": "other"}, "of an earlier prompt"),
    "attentions": ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions"),
}


@pytest.mark.parametrize("case", REFUSED_MODES)
def test_what_generate_refuses(model, hf, case):
    given, words = REFUSED_MODES[case]
    given = dict(given)
    if "assistant_model" in given:
        given["assistant_model"] = hf
    if given.get("past_key_values") == "other":
        given["past_key_values"] = model(prompt(3)).past_key_values
        model(prompt(3))
    with pytest.raises((ValueError, TypeError), match=words):
        greedy(model, prompt(4), **given)
    assert greedy(model, prompt(4)).shape == (1, 10), "and it goes on"


def test_several_sequences_of_one_prompt(model):
    torch.manual_seed(0)
    out = model.generate(prompt(7), do_sample=True, num_return_sequences=3, max_new_tokens=4, eos_token_id=None)
    assert out.shape == (3, 11)
    with pytest.raises(ValueError, match="33 users; a decode step has room for 32"):
        model.generate(prompt(7), do_sample=True, num_return_sequences=33, max_new_tokens=4)
