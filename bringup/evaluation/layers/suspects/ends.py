"""The token table and the head; and what any point may have instead."""

import torch

from bringup.evaluation.layers.activations import FFNS, MIXERS, place, record_reference, split
from bringup.evaluation.layers.declared import BLOCK_FORMATS
from bringup.evaluation.layers.device_activations import text_of
from bringup.evaluation.layers.suspects import reading
from bringup.evaluation.layers.suspects.case import COARSE, rounded
from bringup.evaluation.layers.suspects.weights import orders

NOISE = 0.004  # a bfloat16 rounding: a read-off number closer to 1 than this is 1


def factor(case):
    c = reading.factor(case.got, case.want)
    if abs(c - 1) > NOISE:
        yield f"HF's value times {reading.named(case, c)}", c * case.want


def any_point(case):
    """A vector added, a factor for each column, a coarser format, another position, another point's value."""
    want = case.want
    for dtype in BLOCK_FORMATS:
        for grid in case.grids(dtype):
            yield f"HF's value rounded to {dtype}", grid(want), COARSE
    yield from zeros(case)
    yield from _in_parts(case)
    yield from _elsewhere(case)
    yield from _positions(case)
    if len(case.rows) >= 4:
        yield from _vectors(case)


def _in_parts(case):
    """A factor of some heads or chips alone."""
    counts = [("chip", case.chips)] if case.chips > 1 else []
    counts += [("head", case.got.shape[1] // case.head_dim)] if case.of_heads else []
    for one, n in counts:
        if n < 2 or case.got.shape[1] % n:
            continue
        got, want = (t.unflatten(1, (n, -1)) for t in (case.got, case.want))
        c = (got * want).sum((0, 2)) / want.square().sum((0, 2)).clamp(min=1e-30)
        other = ((c - 1).abs() > NOISE).nonzero().flatten().tolist()
        if other and len(other) < n and float((c[other] - c[other[0]]).abs().max()) < 2 * NOISE:
            words = f"HF's value times {reading.named(case, float(c[other[0]]))} in {reading.ranges(other, one)} alone"
            yield words, (want * c[None, :, None]).flatten(1)


def _elsewhere(case):
    """Another point's value: a step left out, or a name that means another thing."""
    near = [case.layer, case.layer - 1, case.layer + 1] if case.layer is not None else [None, -1]
    last = len(case.hf.model.layers) - 1
    for name in sorted(case.own.points, key=lambda n: split(n)[0] != case.layer):
        layer, point = split(name)
        value = case.own.points[name]
        if place(name) >= place(case.name) or value.shape != (len(case.device.ids), case.got.shape[1]):
            continue
        if layer in near or (case.layer is None and layer == last):
            where = "" if layer == case.layer else f"layer {layer}'s " if layer is not None else ""
            yield f"the value of {where}{point}", value


def _positions(case):
    pool = case.own.points[case.name]
    index, apart = reading.nearest_rows(case.got, pool)
    if case.point == "embed_tokens" or not bool((index != case.rows).any()) or not float(apart.median()) < 0.2:
        return
    yield f"HF's value {reading.described(case.rows, index, case.device.decode_from)}", pool[index]
    there = apart < 0.2  # the first and the last may be of positions that are not judged
    if int(there.sum()) >= max(4, len(there) - 2):
        rows, index = case.rows[there], index[there]
        yield f"HF's value {reading.described(rows, index, case.device.decode_from)}", pool[index], rows


def zeros(case, one="column"):
    """HF's value with nothing in some columns."""
    empty = case.got.norm(dim=0) < 1e-6 * case.want.norm(dim=0)
    if bool(empty.any()) and not bool(empty.all()):
        where = reading.ranges(empty.nonzero().flatten().tolist(), one)
        yield f"HF's value with zeros in {where}", case.want.masked_fill(empty[None], 0.0)


def _vectors(case):
    """One vector added at every position, or one factor for every column: a bias or a norm's weight."""
    got, want = case.got, case.want
    added = (got - want).mean(0)
    yield f"HF's value plus the same vector at every position: {_like(case, added, 'bias')}", want + added
    by_column = (got * want).sum(0) / want.square().sum(0).clamp(min=1e-30)
    yield f"HF's value with every column times its own factor: {_like(case, by_column, 'norm')}", want * by_column
    by_row = (got * want).sum(1) / want.square().sum(1).clamp(min=1e-30)
    yield "HF's value with every position times its own factor", want * by_row[:, None]


def _like(case, vector, kind):
    """Which of HF's vectors it is."""
    for name, p in case.hf.named_parameters():
        if p.dim() != 1 or p.shape != vector.shape or kind not in name:
            continue
        p, short = p.detach().float(), name.removeprefix("model.").removesuffix(".weight")
        for words, value in (("", p), ("-", -p), ("1 / ", 1 / p), ("1 + ", 1 + p)):
            if float((value - vector).norm()) < 0.05 * float(vector.norm()):
                return f"{words}{short}"
        times = float(vector @ p) / max(float(p @ p), 1e-30)
        if kind == "bias" and float((times * p - vector).norm()) < 0.05 * float(vector.norm()):
            chips = (
                f", once for each of {case.chips} chips" if case.chips > 1 and abs(times - case.chips) < 0.05 else ""
            )
            return f"{times:.3g} times {short}{chips}"
    return "no vector that HF has"


def embedding(case):
    table = case.hf.get_input_embeddings().weight.detach()
    ids = torch.tensor(case.device.ids)
    head = case.hf.get_output_embeddings()
    if head is not None and head.weight is not case.hf.get_input_embeddings().weight:
        yield "the rows of lm_head in the place of embed_tokens", head.weight.detach()[ids].float()
    rows = table[ids].float()
    for eps in (0.0, 1e-6, 1e-5):
        yield "the embeddings, normalised", rows * (rows.square().mean(-1, keepdim=True) + eps).rsqrt(), 0.02
    for by in (1, -1, 2, -2):
        moved = ids + by
        there = (moved >= 0) & (moved < len(table))
        yield f"the embedding of token id {by:+d}", table[moved.clamp(0, len(table) - 1)].float() * there[:, None]
    for by in (1, -1):
        yield f"the embedding of the token at position p {by:+d}", table[ids.roll(-by)].float()
    for n in sorted(set(case.others_behind.values())) if case.decode else ():
        theirs = table[torch.tensor(text_of(case.device.ids, n))].float()
        yield f"the embedding of the token of another user, {reading.whose(case.others_behind, n)}", theirs
    if len(table) < 1 << 16:  # which tokens they are
        index, apart = reading.nearest_rows(case.got, table)
        if float(apart.max()) < 0.05:
            yield from _same_token(case, ids, index, table)
            pairs = [(int(a), int(b)) for a, b in zip(ids[case.rows], index, strict=True) if a != b]
            yield f"the embedding of other token ids: {_ids(dict(pairs))}", table[index].float()
    for words, value in orders(table[ids].float().T, case.chips):
        if "rows" in words:
            yield f"the table {words.replace('rows', 'columns')}", value.T


def _same_token(case, ids, index, table):
    """The same token at every step: which one, of this text or of the one before."""
    token = int(index[0])
    if not case.decode or len(index) < 2 or bool((index != token).any()):
        return
    start, earlier = case.device.decode_from, case.device.earlier
    if int(ids[start]) == token:
        of = "the first step"
    elif earlier and earlier[-1] == token:
        of = "the last step of the text before"
    elif int(ids[start - 1]) == token:
        of = "the prompt's end"
    else:
        return
    value = table[token].float().expand(len(index), -1)
    yield f"the embedding of one token, {token}, in every step, that of {of}: the buffer is not written again", value


def _ids(taken):
    """{id: the one that it is taken for} in words."""
    instead = set(taken.values())
    if len(taken) > 1 and len(instead) == 1 and min(taken) > min(instead):
        return f"all of them above {min(instead)} (from {min(taken)} on) are taken for {min(instead)}"
    return ", ".join(f"{a} as {b}" for a, b in list(taken.items())[:8]) + ", ..." * (len(taken) > 8)


def head(case):
    weight = case.hf.get_output_embeddings().weight.detach().float()
    bias = getattr(case.hf.get_output_embeddings(), "bias", None)
    x = case.any("model.norm")[case.rows]
    table = case.hf.get_input_embeddings().weight
    if table is not case.hf.get_output_embeddings().weight and table.shape == weight.shape:
        words = "the logits with embed_tokens for the head, as if tied: HF's lm_head has its own weight"
        yield words, x @ table.float().T
    for dtype in BLOCK_FORMATS:
        yield f"HF's value with lm_head rounded to {dtype}", x @ rounded(weight, dtype).T
    if bias is not None:
        yield "the logits without the head's bias", x @ weight.T
    yield "the logits of the residual stream, not normalised", case.before()[case.rows] @ weight.T
    norm = case.modules["model.norm"]
    yield "the logits of a state that is normalised twice", norm(x) @ weight.T
    for name in ("self_attn.residual", *MIXERS, *FFNS):
        full = f"model.layers.{len(case.hf.model.layers) - 1}.{name}"
        if full in case.own.points:
            yield f"the logits of the last layer's {name}, normalised", norm(case.any(full)[case.rows]) @ weight.T
    cap = getattr(case.config, "final_logit_softcapping", None)
    for value in (cap, 30.0, 15.0, 50.0):
        if value:
            words, x = f"the logits through tanh, capped at {value:g}", case.want
            yield words, value * torch.tanh(x / value)
            inner = (x.bfloat16() * torch.tensor(1 / value).bfloat16()).tanh()  # in steps, each rounded
            yield words, (inner * value).float()
    yield "the logarithm of the softmax of the logits, not the logits", case.want.log_softmax(-1)
    yield "the softmax of the logits, not the logits", case.want.softmax(-1)
    yield from zeros(case, "token")
    for words, value in orders(case.want.T, case.chips):
        if "rows" in words:
            words = words.replace("with its rows ", "").replace("rows", "tokens")
            yield f"HF's logits with the vocabulary {words}", value.T
    if case.want.shape[1] <= 4096:
        index, apart = reading.nearest_rows(case.got.T, case.want.T)
        if float(apart.median()) < 0.1:
            wrong = [i for i, j in enumerate(index.tolist()) if i != j]
            said = ", ".join(f"{i} is HF's {int(index[i])}" for i in wrong[:4])
            yield f"HF's logits with the vocabulary in another order: token {said}", case.want[:, index]


def what_was_left(case, which):
    """Rows of the cache that an earlier prompt wrote: HF's keys or values of that text."""
    earlier = case.device.earlier
    if not earlier:
        return
    padded = [*earlier, *[0] * (-len(earlier) % 32)]  # a prompt's padding is written too
    before = record_reference(case.hf, padded, len(padded)).points[case.name]
    pool = torch.cat([case.own.points[case.name], before])
    index, _ = reading.nearest_rows(case.got, pool)
    empty = case.got.norm(dim=1) < 1e-6 * case.want.norm(dim=1)
    old = (index >= len(case.device.ids)) & ~empty
    if bool(old.any()):
        value = torch.where(old[:, None], pool[index], case.want).masked_fill(empty[:, None], 0.0)
        where = "" if bool(old.all()) else f" at {reading.ranges(case.rows[old].tolist(), 'position')}"
        yield f"what an earlier prompt left in the cache{where}: {which} of this one were not written there", value
    if bool(empty.any()):
        value = torch.where(empty[:, None], case.got, case.want)
        where = reading.ranges(case.rows[empty].tolist(), "position")
        yield f"the cache with nothing (zeros) at {where}", value
