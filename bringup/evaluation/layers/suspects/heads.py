"""Keys and values as the cache has them, and heads in another order."""

import torch

from bringup.evaluation.layers.activations import record_reference
from bringup.evaluation.layers.device_activations import text_of
from bringup.evaluation.layers.suspects import reading, weights
from bringup.evaluation.layers.suspects.ends import what_was_left

FEWEST = 4  # rows that say by how much all are moved
MATCH = 0.25  # relative: a head, or a column, that is nearer than this is that one


def cache(case):
    which = case.point[-7]  # k or v
    if getattr(case.attention, "is_kv_shared_layer", False):
        yield from _of_a_layer_before(case, "keys" if which == "k" else "values")
        return
    right = case.own.points[case.name]
    keys = case.own.extras[case.layer]["k"].float().transpose(1, 2).flatten(2)[0]
    values = case.own.points[case.prefix + "self_attn.v_cache"]
    start = case.device.decode_from if case.decode else 0
    for by in (1, -1, 2, -2):
        moved = right.roll(by, 0)
        edge = slice(start, start + by) if by > 0 else slice(by, None)
        moved[edge] = case.device.points[case.name][edge]
        late = "late" if by > 0 else "early"
        yield f"the cache with every {which} written {'one position' if abs(by) == 1 else '2 positions'} {late}", moved
    yield from _late(case, which)
    yield from _tables(case)
    yield from what_was_left(case, "keys" if which == "k" else "values")
    yield from _of_another_layer(case, "keys" if which == "k" else "values")
    yield from _of_another_user(case, "keys" if which == "k" else "values")
    if which == "k":
        yield "k before RoPE", keys
        yield "v: keys and values are swapped", values
    else:
        if case.has("self_attn.v_norm"):
            by = "v_proj" if case.has("self_attn.v_proj") else "k_proj"
            own = weights.linear(case, f"self_attn.{by}")
            plain = weights.apply(case.into_attention(), own.weight, own.bias)
            yield f"{by} of the layer's input, without v_norm", plain
        yield "k before RoPE: keys and values are swapped", keys
        yield "k after RoPE: keys and values are swapped", case.value("self_attn.k_rope")
        if case.has("self_attn.v_proj"):
            yield from _value_weights(case)


def _late(case, which):
    """Written some positions late, or early: how many is read off."""
    pool, rows = case.own.points[case.name], case.rows
    index, apart = reading.nearest_rows(case.got, pool)
    there = apart < MATCH
    by = rows[there] - index[there]
    if int(there.sum()) < FEWEST or bool((by != by[0]).any()) or abs(int(by[0])) <= 2:
        return
    inside = (rows - by[0] >= 0) & (rows - by[0] < len(pool))
    if int((inside & ~there).sum()) > 1:
        return
    value = case.got.clone()  # what it has where nothing was written is not known
    value[there] = pool[index[there]]
    words = f"the cache with every {which} written {abs(int(by[0]))} positions {'late' if by[0] > 0 else 'early'}"
    yield words, value


def _tables(case):
    """Blocks that the page table on the device has not, or others: what is read there is not judged."""
    cache, user = getattr(case.model, "cache", None), case.device.user
    on_device = getattr(cache, "device_table", None)
    if on_device is None:
        return
    theirs, own = case.model.mesh.get_users(on_device)[user], cache.table[user]
    wrong = (theirs != own).nonzero().flatten().tolist()
    if not wrong:
        return
    size, at = cache.length // len(own), torch.arange(len(case.device.ids))
    there = torch.isin(at // size, torch.tensor(wrong))
    value = torch.where(there[:, None], case.device.points[case.name], case.own.points[case.name])
    first = wrong[0]
    yield (
        f"a cache whose page table on the device is older than the host's: positions {first * size} to "
        f"{(first + 1) * size - 1} of user {user} are in block {int(own[first])}, the device has {int(theirs[first])}",
        value,
    )


def _of_another_layer(case, kept):
    """What HF has in the cache of another layer, on the device's inputs: layers that write into one."""
    for layer in range(len(case.hf.model.layers)):
        name = f"model.layers.{layer}.{case.point}"
        if layer != case.layer and name in case.own.points:
            yield f"the {kept} of layer {layer}: layers {case.layer} and {layer} have one cache", case.own.points[name]


def _of_a_layer_before(case, kept):
    """In a layer that reads another's keys: those of one that it is not to read."""
    types = case.config.layer_types
    layers = range(case.config.num_hidden_layers - case.config.num_kv_shared_layers)
    source = max(i for i in layers if types[i] == types[case.layer])
    for layer in layers:
        value = case.any(f"model.layers.{layer}.{case.point}")
        if layer != source and value.shape[1] == case.want.shape[1]:
            yield f"the {kept} of layer {layer}, where HF shares those of layer {source}", value


def _of_another_user(case, kept):
    """What HF keeps of the text of another user of the batch, which began later."""
    ids = case.device.ids
    for n in sorted(set(case.others_behind.values())):
        theirs = record_reference(case.hf, text_of(ids, n)[n:], len(ids) - n).points[case.name]
        value = torch.cat([theirs, case.device.points[case.name][len(theirs) :]])
        yield (
            f"the {kept} of another text, {reading.whose(case.others_behind, n)}: users share rows of the cache",
            value,
        )


def _value_weights(case):
    h = case.into_attention()
    own = weights.linear(case, "self_attn.v_proj")
    for words, weight, bias in weights.instead(case, "self_attn.v_proj"):
        if weight.shape == own.weight.shape:
            yield words, weights.apply(h, weight, bias)
    yield "v_proj of the residual stream, not normalised", weights.apply(case.before(), own.weight, own.bias)
    parts = [weights.linear(case, f"self_attn.{p}_proj") for p in "qkv"]
    for n in sorted({case.config.num_key_value_heads, case.chips} - {1}):
        for words, (_, _, v) in weights.fused([p.weight.detach().float() for p in parts], n, case.chips):
            yield f"v of {words}", weights.apply(h, v, own.bias)
    turned = case.own.extras[case.layer]
    v = case.by_head(case.own.points[case.name])
    cos, sin = turned["cos"].float()[0], turned["sin"].float()[0]
    if cos.shape[-1] == v.shape[-1]:
        a, b = v.chunk(2, dim=-1)
        yield "v rotated as q and k are", (v * cos + torch.cat([-b, a], -1) * sin).transpose(0, 1).flatten(1)


def order(case):
    """The heads, then a head's dims, in another order: which of HF's each of the device's is nearest to."""
    got, want = case.by_head(case.got), case.by_head(case.want)
    if case.got.shape != case.want.shape:
        return
    index, _ = reading.nearest_rows(got.flatten(1), want.flatten(1))
    if index.tolist() != list(range(len(got))):
        value = want[index].transpose(0, 1).flatten(1)
        one = "head" if case.point.endswith("q_rope") else "KV head"
        yield f"HF's value with the heads in another order: {one} {said(index.tolist())}", value
    columns, apart = reading.nearest_rows(got.transpose(0, 1).flatten(0, 1).T, want.transpose(0, 1).flatten(0, 1).T)
    if columns.tolist() != list(range(len(columns))) and float(apart.median()) < MATCH:
        value = want[..., columns].transpose(0, 1).flatten(1)
        yield f"HF's value with the dims of each head in another order: dim {said(columns.tolist())}", value
    index, apart = reading.nearest_rows(case.got.T, case.want.T)
    if index.tolist() != list(range(len(index))) and float(apart.median()) < MATCH:
        yield f"HF's value with its columns in another order: column {said(index.tolist())}", case.want[:, index]


def said(index, limit=4, one="{} is HF's {}"):
    wrong = [(i, j) for i, j in enumerate(index) if i != j]
    shown = len(wrong) if len(wrong) <= 16 and len(index) <= 16 else limit
    return ", ".join(one.format(i, j) for i, j in wrong[:shown]) + (", ..." if len(wrong) > shown else "")
