"""What attention may have computed: another scale or mask, other keys, heads in another order, another o_proj."""

import torch

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.declared import BLOCK_FORMATS, cut
from bringup.evaluation.layers.suspects import held, reading, weights
from bringup.evaluation.layers.suspects.case import COARSE, distance
from bringup.evaluation.layers.suspects.mlp import LOFI, sums

LSTSQ = 512  # query heads times KV heads (or heads): beyond that their order is not read off
SAME = 0.01  # relative: HF's attention, and its formula
SCALES = torch.logspace(-2.5, 2.5, 81)  # of HF's


class Attended:
    """The device's q, k, v [heads, n, head_dim], and what HF makes of them."""

    def __init__(self, case):
        self.case, self.module = case, case.module
        self.q, self.k, self.v = (case.by_head(case.value("self_attn." + p)) for p in ("q_rope", "k_cache", "v_cache"))
        self.scale, self.cap = self.module.scaling, getattr(case.config, "attn_logit_softcapping", None)
        self.n, self.group = self.q.shape[1], len(self.q) // len(self.k)
        self.pairs = [i // self.group for i in range(len(self.q))]
        self.causal = torch.ones(self.n, self.n, dtype=torch.bool).tril()
        self.window = hf_layers.window(self.module, case.config)
        if self.window:
            self.causal = self.causal.triu(1 - self.window)
        self.weight, self.bias = self.module.o_proj.weight.detach().float(), self.module.o_proj.bias

    def heads(self, mask=None, scale=None, pairs=None, q=None, k=None, v=None, sinks="HF's", cap="HF's"):
        pairs = self.pairs if pairs is None else pairs
        q, k, v = self.q if q is None else q, self.k if k is None else k, self.v if v is None else v
        mask = self.causal if mask is None else mask
        if isinstance(sinks, str):
            own = getattr(self.module, "sinks", None)
            sinks = None if own is None else own.detach().float()[:, None, None]
        return attend(q, k[pairs], v[pairs], mask, self.scale if scale is None else scale, sinks,
                      self.cap if isinstance(cap, str) else cap)  # fmt: skip

    def attend(self, q, k, v, mask, scale):
        return attend(q, k, v, mask, scale, cap=self.cap)

    def out(self, heads):
        return weights.apply(heads.transpose(0, 1).flatten(1), self.weight, self.bias)

    def by_head(self, heads):
        """What each head adds to the output: [heads, n, hidden]"""
        slots = self.weight.unflatten(1, (len(self.q), -1))  # [hidden, head, head_dim]
        return torch.einsum("hnd,ohd->hno", heads, slots)


def attend(q, k, v, mask, scale, sinks=None, cap=None):
    """[heads, n, head_dim] each, mask [n, m]; sinks [heads, 1, 1]: a score without a value"""
    scores = q @ k.transpose(1, 2) * scale
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is None:
        return scores.softmax(-1) @ v
    shares = torch.cat((scores, sinks.expand(-1, scores.shape[1], 1)), -1).softmax(-1)
    return shares[..., :-1] @ v


def attention(case):
    if not case.has("self_attn.o_proj") or case.layer not in case.own.extras or case.is_latent:
        return
    a = Attended(case)
    right = a.heads()
    taken = all(case.is_seen(f"self_attn.{part}") for part in ("q_rope", "k_cache", "v_cache"))
    if taken and distance(a.out(right), case.own.points[case.name]) > SAME:
        return  # HF does more than that with its heads
    words = (
        "attention of the queries and keys that the device has, which are not HF's: their norm or rotation is another"
    )
    yield words, a.out(right)  # where HF's were not seen, as its heads are cut before they turn
    for mechanism in (_scales, _masks, _keys):
        for words, heads, *slack in mechanism(a):
            if slack and isinstance(slack[0], torch.Tensor):  # the rows at which alone it is known
                yield f"attention {words}", a.out(heads)[slack[0]], *slack
                continue
            yield f"attention {words}", a.out(heads), *slack
            yield from _in_some_heads(a, words, right, heads)
    if case.decode and case.model is not None:
        yield from held.attention(a)
    yield from _sinks(a)
    yield from _orders(a, right)
    yield from _output(a, right)


def _sinks(a):
    """A score of each head without a key: what HF has where the heads without it are not right."""
    sinks = getattr(a.module, "sinks", None)
    if sinks is None:
        return
    sinks = sinks.detach().float()[:, None, None]
    others = {
        "without its sinks": None,
        "with its sinks scaled like scores": sinks * a.scale,
        "with its sinks divided by the scale": sinks / a.scale,
        "with its sinks negative": -sinks,
    }
    for words, value in others.items():
        yield f"attention {words}", a.out(a.heads(sinks=value))


def _scales(a):
    yield "without the scale 1/sqrt(head_dim)", a.heads(scale=1.0)
    default = a.q.shape[2] ** -0.5
    if abs(default - a.scale) > 0.02 * a.scale:
        words = f"scaled by {default:.4g} (1 / sqrt(head_dim), the op's default), where HF has {a.scale:.4g}"
        yield words, a.heads(scale=default)
    q, k, v = a.q[:, a.case.rows], a.k[a.pairs], a.v[a.pairs]
    mask = a.causal[a.case.rows]

    def miss(by):
        heads = a.attend(q, k, v, mask, a.scale * by)
        return distance(weights.apply(heads.transpose(0, 1).flatten(1), a.weight, a.bias), a.case.got)

    best = float(min(SCALES, key=lambda by: miss(float(by))))
    step = float(SCALES[1] / SCALES[0])
    for _ in range(6):
        step **= 0.4
        best = min((best / step**2, best / step, best, best * step, best * step**2), key=miss)
    if abs(best - 1) > 0.02:
        yield f"scaled by {_scale(a, a.scale * best)}, where HF has {a.scale:.4g}", a.heads(scale=a.scale * best)
    yield from _scale_of_one_head(a, mask)
    if a.cap is not None:
        yield f"without the cap of its scores, {a.cap:g}", a.heads(cap=None)
    for value in (30.0, 50.0):
        if value != a.cap:
            yield f"with its scores through tanh, capped at {value:g}", a.heads(cap=value)


def _scale_of_one_head(a, mask):
    """One head alone with another scale: which head, and how much of HF's, would explain the value best."""
    rows, right = a.case.rows, a.heads()
    q, k, v = a.q[:, rows], a.k[a.pairs], a.v[a.pairs]
    base = a.by_head(right[:, rows])
    rest = a.case.got - base.sum(0) - (0 if a.bias is None else a.bias.float())

    def missed(by):
        return (rest - a.by_head(a.attend(q, k, v, mask, a.scale * by)) + base).flatten(1).norm(dim=1)

    step = float(SCALES[1] / SCALES[0])
    table = torch.stack([missed(float(by)) for by in SCALES])
    at, head = divmod(int(table.argmin()), len(right))
    best = float(SCALES[at])
    for _ in range(6):
        step **= 0.4
        near = (best / step**2, best / step, best, best * step, best * step**2)
        best = min(near, key=lambda by: float(missed(by)[head]))
    if len(right) > 1 and abs(best - 1) > 0.02:
        heads = right.clone()
        heads[head] = a.heads(scale=a.scale * best)[head]
        yield f"scaled by {_scale(a, a.scale * best)} in head {head} alone, where HF has {a.scale:.4g}", heads


def _scale(a, scale):
    c, hd = a.case.config, a.q.shape[2]
    factor = getattr(hf_layers.rotary_of(a.case.hf.model), "attention_scaling", 1.0)
    known = {
        "1: none": 1.0,
        "1 / head_dim": 1 / hd,
        "1 / sqrt(hidden_size)": c.hidden_size**-0.5,
        f"1 / sqrt({c.hidden_size // len(a.q)}), hidden_size / heads": (c.hidden_size / len(a.q)) ** -0.5,
        "1 / sqrt(2 * head_dim)": (2 * hd) ** -0.5,
        "1 / sqrt(head_dim / 2)": (hd / 2) ** -0.5,
        "sqrt(head_dim): it divides where it should multiply": hd**0.5,
        "1 / sqrt(the number of heads)": len(a.q) ** -0.5,
        "HF's scale twice": a.scale**2,
        "HF's scale times 2": 2 * a.scale,
        "HF's scale / 2": a.scale / 2,
        "head_dim ** -0.25": hd**-0.25,
    }
    if factor != 1.0:
        known |= {
            "HF's scale times the attention factor of the rotation": a.scale * factor,
            "HF's scale times the attention factor of the rotation squared: that factor is there twice": a.scale
            * factor**2,
            "HF's scale / the attention factor of the rotation": a.scale / factor,
        }
    names = [name for name, value in known.items() if abs(scale - value) < 0.01 * value]
    return f"{scale:.4g}" + (f" ({names[0]})" if names else "")


def _masks(a):
    """Who sees whom; what is open (a window's size, how many keys too many) is read off."""
    n, case = a.n, a.case
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    itself = a.causal & ((i != j) | (i == 0))
    yield "that misses a token's own key: the causal mask is off by one", a.heads(mask=itself)
    if not case.decode:
        for by in (1, 2, 4, 8):
            more = "one position too many: the causal mask is off by one" if by == 1 else f"{by} positions too many"
            yield f"that sees {more}", a.heads(mask=a.causal | (j <= i + by) & (j < case.device.decode_from))
        yield "without a causal mask", a.heads(mask=a.causal | (j < case.device.decode_from))
        if (size := case.chunk) and size < case.device.decode_from:
            words = f"that takes each chunk of {size} for a prompt's first: its position {size} sees position 0 alone"
            yield words, a.heads(mask=j <= i % size)
        for size in (16, 32, 64):
            whole = a.causal | (j // size <= i // size) & (j < case.device.decode_from)
            rows = torch.arange(case.device.decode_from // size * size)  # what the padding beyond has is not known
            if len(rows):
                words = f"that sees to the end of its tile of {size}: the mask is by whole tiles"
                yield words, a.heads(mask=whole), rows
        yield "with the causal mask transposed", a.heads(mask=(j >= i))
        for pad in sorted({-n % 32 or 32, 32, 64}):
            yield (
                f"that sees {pad} keys of zeros too: padding is not masked",
                _with_zeros(a, a.causal | (j < case.device.decode_from), pad),
            )
            yield f"that sees {pad} keys of zeros too, though it is causal", _with_zeros(a, a.causal, pad)
    for n in sorted(set(case.others_behind.values())) if case.decode else ():
        words = f"that sees no farther than position p {-n:+d}, {reading.whose(case.others_behind, n)}"
        yield words, a.heads(mask=a.causal & ((j <= i - n) | (i < case.device.decode_from)))
    last = int(case.rows[-1])
    for words, sees in (("sees the last {} positions only: a window", i - j), ("sees the first {} positions only", j)):
        best = None
        for size in range(1, last + 2):
            heads = _at_rows(a, (j <= i) & ((sees < size) | (i == 0)))
            miss = distance(a.out(heads), case.got)
            best = min(best, (miss, size)) if best else (miss, size)
        if best and best[1] != a.window:
            size = best[1]
            has = f", where HF has a window of {a.window}" if a.window else ""
            said = words.format(size) if size <= last else "sees all positions"
            yield f"that {said}{has}", a.heads(mask=(j <= i) & ((sees < size) | (i == 0)))
    for size in (16, 32, 64):
        if last >= size:
            yield f"in blocks of {size} that do not see each other", a.heads(mask=a.causal & (i // size == j // size))
            most = a.causal & (j < (i + 1) // size * size) | (i < size) & a.causal
            yield f"that sees whole blocks of {size} keys only", a.heads(mask=most)
    start = case.device.decode_from
    if case.decode:
        only = a.causal & ((j >= start) | (i < start))
        yield "that does not see the prompt: only what was decoded", a.heads(mask=only)
        prompt = a.causal & ((j < start) | (i < start))
        yield "that does not see what was decoded: the prompt only", a.heads(mask=prompt)
    else:
        not_first = a.causal & ((j > 0) | (i == 0))
        yield "that does not see the first position", a.heads(mask=not_first)


def _at_rows(a, mask):
    return a.attend(a.q[:, a.case.rows], a.k[a.pairs], a.v[a.pairs], mask[a.case.rows], a.scale)


def _with_zeros(a, mask, pad):
    scores = (a.q @ a.k[a.pairs].transpose(1, 2) * a.scale).masked_fill(~mask, float("-inf"))
    scores = torch.cat([scores, torch.zeros(*scores.shape[:2], pad)], dim=-1)
    return scores.softmax(-1)[..., : a.n] @ a.v[a.pairs]


def _keys(a):
    """Other queries, keys or values than those that the points before show."""
    case = a.case
    extras = case.own.extras[case.layer]
    plain_q = extras["q"].float()[0]
    yield "of queries before rotation", a.heads(q=plain_q)
    if "k" in extras:  # a layer may have those of another
        plain_k = extras["k"].float()[0]
        yield "of keys before rotation", a.heads(k=plain_k)
        yield "of queries and keys before rotation", a.heads(q=plain_q, k=plain_k)
    yield "of the keys in the place of the values", a.heads(v=a.k)
    yield "with keys and values in each other's place", a.heads(k=a.v, v=a.k)
    for by in (1, -1):
        yield f"of the values at position p {by:+d}", a.heads(v=a.v.roll(-by, 1))
        yield f"of the keys at position p {by:+d}", a.heads(k=a.k.roll(-by, 1))
    for dtype in BLOCK_FORMATS:
        for grid in case.grids(dtype):
            rough = {n: grid(getattr(a, n)) for n in "qkv"}
            yield f"of keys and values rounded to {dtype}", a.heads(k=rough["k"], v=rough["v"]), COARSE
            yield f"with its heads rounded to {dtype} before o_proj", grid(a.heads()), COARSE
            for n, name in (("q", "queries"), ("k", "keys"), ("v", "values")):
                yield f"of {name} rounded to {dtype}", a.heads(**{n: rough[n]}), COARSE
    scores = a.q @ a.k[a.pairs].transpose(1, 2) * a.scale
    seen = scores.masked_fill(~a.causal, float("-inf"))
    yield "without its softmax's sum: exp(scores) is not divided", seen.exp() @ a.v[a.pairs]
    yield "with the mask after the softmax: the sum has hidden keys too", scores.softmax(-1) * a.causal @ a.v[a.pairs]
    yield "without softmax", (scores * a.causal) @ a.v[a.pairs]
    even = a.causal / a.causal.sum(-1, keepdim=True)
    yield "that takes the mean of the values: the scores have no weight", even.expand_as(scores) @ a.v[a.pairs]


def _in_some_heads(a, words, right, wrong):
    """The same in some heads alone: which, by least squares."""
    rows = a.case.rows
    base, step = a.by_head(right[:, rows]), a.by_head((wrong - right)[:, rows])
    basis = step.double().flatten(1)
    rest = (a.case.got - weights.apply(right[:, rows].transpose(0, 1).flatten(1), a.weight, a.bias)).double().flatten()
    gram = basis @ basis.T
    size = gram.diagonal()
    if float(size.min()) <= 1e-6 * float(size.max()):
        return
    share = torch.linalg.solve(gram + 1e-6 * size.mean() * torch.eye(len(gram), dtype=torch.double), basis @ rest)
    some = share > 0.5
    if bool(some.any()) and not bool(some.all()):
        value = base.sum(0) + step[some].sum(0) + (0 if a.bias is None else a.bias)
        yield f"attention {words}, in {reading.ranges(some.nonzero().flatten().tolist(), 'head')} alone", value


def _orders(a, right):
    """Heads that meet others: by the usual rules, then read off."""
    n, kv = len(a.q), len(a.k)
    if a.group > 1:
        yield (
            "attention with its heads in the wrong order: query head i reads KV head i % n, not i // group",
            a.out(a.heads(pairs=[i % kv for i in range(n)])),
        )
        yield "attention of every query head with KV head 0", a.out(a.heads(pairs=[0] * n))
    outermost = right.transpose(0, 1).transpose(1, 2).flatten(1)
    yield (
        "attention with a head's dims outermost: [head_dim, heads] in the place of [heads, head_dim]",
        weights.apply(outermost, a.weight, a.bias),
    )
    yield from _reshaped(a, right)
    if n * max(n, kv) > LSTSQ:
        return
    rows, group = a.case.rows, a.group
    slots = a.weight.unflatten(1, (n, -1))
    expand = lambda x, i: x[[i]].expand(n, -1, -1)  # noqa: E731
    mask, q = a.causal[rows], a.q[:, rows]
    read = torch.stack([a.attend(q, expand(a.k, i), expand(a.v, i), mask, a.scale) for i in range(kv)])
    by_pair = torch.einsum("jird,oid->ijro", read, slots)  # query head i on KV head j
    by_slot = torch.einsum("ird,osd->siro", right[:, rows], slots)  # query head i in slot s
    options = (
        (by_pair, [i // group for i in range(n)], "query head {} reads KV head {}"),
        (by_slot, list(range(n)), "the columns of o_proj for head {} meet head {}"),
    )
    rest = a.case.got if a.bias is None else a.case.got - a.bias.float()
    for table, own, say in options:
        matrix = table.flatten(2).flatten(0, 1)
        gram = matrix @ matrix.T
        gram += 1e-6 * matrix.square().mean() * torch.eye(len(gram))
        times = torch.linalg.lstsq(gram, matrix @ rest.flatten()[:, None]).solution
        choice = times[:, 0].unflatten(0, table.shape[:2]).argmax(dim=1).tolist()
        wrong = [(i, j) for i, j in enumerate(choice) if j != own[i]]
        if wrong:
            value = sum(table[i, j] for i, j in enumerate(choice)) + (0 if a.bias is None else a.bias)
            said = ", ".join(say.format(i, j) for i, j in wrong[:4]) + " ..." * (len(wrong) > 4)
            yield f"attention with its heads in the wrong order: {said}", value


def _reshaped(a, right):
    """Heads [heads, n, head_dim] read as [n, heads * head_dim]: of a prompt, as far as its padding does not matter."""
    case, n = a.case, a.case.device.decode_from
    if case.decode:
        return
    padded = torch.full((len(right), n + -n % 32, right.shape[2]), float("nan"))
    padded[:, :n] = right[:, :n]
    value = weights.apply(padded.reshape(padded.shape[1], -1)[:n], a.weight, a.bias)
    rows = value.isfinite().all(1).nonzero().flatten()
    words = "attention with its heads put side by side without moving them back: reshaped, not transposed"
    if len(rows) > 1:
        yield words, value[rows], rows


def _output(a, right):
    """Other weights in o_proj; heads or chips that are missing from the sum."""
    case, flat = a.case, right.transpose(0, 1).flatten(1)
    for words, weight, bias in weights.instead(case, "self_attn.o_proj"):
        if weight.shape == a.weight.shape:
            yield words, weights.apply(flat, weight, bias)
    each = a.by_head(right[:, case.rows])
    if case.chips > 1 and len(each) % case.chips == 0:
        yield from sums(case, list(each.unflatten(0, (case.chips, -1)).sum(1)), "chip")
    yield from sums(case, list(each), "head")
    given = case.into_attention()
    if given.shape == a.out(right).shape:
        yield "attention times the sigmoid of its input: its output is gated", a.out(right) * given.sigmoid()
        yield "attention times the SiLU of its input: its output is gated", a.out(right) * given * given.sigmoid()
    for layer, other in enumerate(case.hf.model.layers):
        if layer != case.layer and hasattr(other.self_attn, "o_proj"):
            yield (
                f"HF's value with the weight of layer {layer}'s o_proj in the place of o_proj",
                weights.apply(flat, other.self_attn.o_proj.weight.detach(), a.bias),
            )
    yield "attention plus its own input: the residual is added inside", a.out(right) + case.into_attention()
    yield "attention plus the residual: it is added inside", a.out(right) + case.before()
    yield (
        "attention with o_proj in LoFi: the low bits of the operands are cut off",
        weights.apply(cut(flat, LOFI[1]), cut(a.weight, LOFI[0]), a.bias),
    )
