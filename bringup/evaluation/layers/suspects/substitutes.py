"""Weights in the place of those that HF's code takes: of any module, whatever it is called and however it is stored."""

import itertools
from contextlib import contextmanager

import torch

from bringup.evaluation.layers.declared import BLOCK_FORMATS, through
from bringup.evaluation.layers.suspects.case import COARSE
from bringup.evaluation.layers.suspects.weights import orders

DIMS = {2: ("rows", "columns"), 3: ("experts", "rows", "columns")}
OTHERS = 64  # parameters of one shape that are tried


def weights(run, budget):
    """(words, value) with each weight between the points another one."""
    named = {id(p): n for n, p in run.hf.named_parameters()}
    used = {}
    for call in run.calls.values():
        for x in (*call.args, *call.kwargs.values()):
            if id(x) in named:
                used[named[id(x)]] = x
    for name, own in used.items():
        for words, value in instead(run, name, own):
            if not budget.spend():
                return
            with _data(own, value):
                yield f"HF's value with {words}", run.value()


def exchanged(run, budget):
    """(words, value) with two weights of one module, or of two beside each other, in each other's place."""
    named = {id(p): n for n, p in run.hf.named_parameters()}
    used = {}
    for call in run.calls.values():
        used |= {named[id(x)]: x for x in (*call.args, *call.kwargs.values()) if id(x) in named}
    for (one, a), (other, b) in itertools.combinations(used.items(), 2):
        kind = one.rpartition(".")[2]
        if a.shape != b.shape or kind != other.rpartition(".")[2]:
            continue
        if not budget.spend():
            return
        names = (n.removeprefix(run.case.prefix).removesuffix(".weight") for n in (one, other))
        theirs = b.detach().clone()
        with _data(b, a.detach().clone()), _data(a, theirs):
            yield f"HF's value with {' and '.join(names)} in each other's place", run.value()


def instead(run, name, own):
    """(words, tensor of the same shape)"""
    case, short = run.case, name.removeprefix("model.").removesuffix(".weight")
    weight = own.detach()
    mine = short.removeprefix(case.prefix.removeprefix("model."))
    others = [(n, p) for n, p in run.hf.named_parameters() if p is not own and p.shape == weight.shape]
    others.sort(key=lambda item: (not item[0].startswith(case.prefix), item[0].rpartition(".layers.")[2]))
    for n, p in others[:OTHERS]:
        theirs = n.removeprefix("model.").removesuffix(".weight").removeprefix(case.prefix.removeprefix("model."))
        yield f"the weight of {theirs} in the place of {mine}", p.detach()
    if weight.dim() == 1:
        yield f"1 + {mine} in the place of {mine}", 1 + weight
        yield f"{mine} - 1 in the place of {mine}", weight - 1
        yield f"{mine} twice (squared)", weight.square()
        yield f"1 / {mine} in the place of {mine}", 1 / weight
        yield f"{mine} left out: ones in its place", torch.ones_like(weight)
    yield f"zeros in the place of {mine}", torch.zeros_like(weight)
    if weight.dim() > 1 and weight.shape[-1] == weight.shape[-2]:
        yield f"{mine} not transposed (it is square, and is taken for its transpose)", weight.transpose(-1, -2)
    elif weight.dim() > 1:
        read = weight.transpose(-1, -2).contiguous().view(weight.shape)
        yield f"{mine} transposed wrongly: its numbers read in the other shape", read
    yield from _shares(case, mine, weight)
    yield from _halves(mine, weight)
    if weight.dim() <= 2:
        for words, value in orders(weight if weight.dim() == 2 else weight[:, None], case.chips):
            yield f"{mine} {words}", value.view(weight.shape)
    yield from _groups(case, mine, weight)


def _shares(case, mine, weight):
    """A chip with the share of another, or with none."""
    chips = case.chips
    for dim, what in enumerate(DIMS.get(weight.dim(), ("values",))):
        if chips < 2 or weight.shape[dim] % chips:
            continue
        shares = list(weight.chunk(chips, dim))
        for i in range(chips):
            yield f"share {i} of {mine}'s {what} on every chip: the same on all", torch.cat([shares[i]] * chips, dim)
            for j in range(chips):
                changed = [*shares[:i], shares[j] if i != j else torch.zeros_like(shares[i]), *shares[i + 1 :]]
                words = f"chip {j}'s share of {mine} ({what}) on chip {i}" if i != j else (
                    f"nothing in chip {i}'s share of {mine} ({what})")  # fmt: skip
                yield words, torch.cat(changed, dim)


def _halves(mine, weight):
    """Two matrices in one: taken as blocks where they are neighbours, or as neighbours where they are blocks; and in
    each other's place."""
    for dim, what in enumerate(DIMS.get(weight.dim(), ())):
        if weight.shape[dim] % 2:
            continue
        x = weight.movedim(dim, 0)
        ways = {
            "taken as even and odd ones (interleaved), where HF has two blocks": torch.cat((x[0::2], x[1::2])),
            "taken as two blocks, where HF has them interleaved": torch.stack(x.chunk(2), 1).flatten(0, 1),
            "of its two halves each in the place of the other": torch.cat(x.chunk(2)[::-1]),
            "of its even and odd ones each in the place of the other": torch.stack((x[1::2], x[0::2]), 1).flatten(0, 1),
        }
        for words, value in ways.items():
            yield f"the {what} of {mine} {words}", value.movedim(0, dim)


def _groups(case, mine, weight):
    """Rows of heads in another order: by the groups of KV heads, or by dims."""
    if weight.dim() != 2 or case.layer is None or not hasattr(case.hf.model.layers[case.layer], "self_attn"):
        return
    head_dim = getattr(case.attention, "head_dim", None)
    kv = getattr(case.config, "num_key_value_heads", 1)
    for dim, what in enumerate(DIMS[2]):
        n = weight.shape[dim]
        if not head_dim or n % head_dim or n == head_dim:
            continue
        x, heads = weight.movedim(dim, 0), n // head_dim
        ways = {"with a head's dims outermost": x.unflatten(0, (heads, head_dim)).transpose(0, 1)}
        ways["read as if a head's dims were outermost"] = x.unflatten(0, (head_dim, heads)).transpose(0, 1)
        if kv > 1 and heads % kv == 0:
            ways[f"with its heads dealt out in turn over {kv} groups"] = (
                x.unflatten(0, (heads // kv, kv, head_dim)).transpose(0, 1))  # fmt: skip
            ways[f"read as if its heads were dealt out in turn over {kv} groups"] = (
                x.unflatten(0, (kv, heads // kv, head_dim)).transpose(0, 1))  # fmt: skip
        for words, value in ways.items():
            yield f"the {what} of {mine} {words}", value.reshape(x.shape).movedim(0, dim)
        sizes = [case.config.num_attention_heads * head_dim, kv * head_dim, kv * head_dim]
        if dim == 0 and n == sum(sizes) and kv > 1:
            q, k, v = (part.unflatten(0, (kv, -1)) for part in x.split(sizes))
            yield f"the rows of {mine} stored by KV group, and cut as q, k, v", torch.cat((q, k, v), 1).flatten(0, 1)
            whole = x.unflatten(0, (kv, -1)).split([s // kv for s in sizes], 1)
            yield f"the rows of {mine} cut by KV group, stored as q, k, v", torch.cat([p.flatten(0, 1) for p in whole])
            for words, order in (
                ("q, v, k", (0, 2, 1)),
                ("k, q, v", (1, 0, 2)),
                ("v, k, q", (2, 1, 0)),
                ("k, v, q", (1, 2, 0)),
            ):
                parts = x.split(sizes)
                yield (
                    f"the rows of {mine} cut as q, k, v where they stand as {words}",
                    torch.cat([parts[i] for i in order]),
                )


def formats(run, case, budget):
    """Weights, and what calls give, in a coarser format."""
    named = {id(p): n for n, p in run.hf.named_parameters()}
    used = {named[id(x)]: x for call in run.calls.values() for x in call.args if id(x) in named}
    for dtype in BLOCK_FORMATS:
        for name, own in used.items():
            if own.dim() == 2:
                if not budget.spend():
                    return
                import ttnn

                value = through(own.detach().float().T, getattr(ttnn, dtype)).T
                with _data(own, value):
                    yield (
                        f"HF's value with {name.removeprefix(case.prefix).removesuffix('.weight')} rounded to {dtype}",
                        run.value(),
                    )
        before = None
        for i, call in run.groups:
            if not isinstance(call.out, torch.Tensor) or call.out is before or call.out.dim() < 3:
                continue
            before = call.out
            for grid in case.grids(dtype):
                if not budget.spend():
                    return
                coarse = lambda f, a, k, o, grid=grid: grid(o.contiguous())  # noqa: E731
                yield f"HF's value with {dtype} for the result of {call.words}", run.value(i, coarse), COARSE


@contextmanager
def _data(parameter, value):
    kept = parameter.data
    parameter.data = value.to(kept.dtype).contiguous()
    try:
        yield
    finally:
        parameter.data = kept
