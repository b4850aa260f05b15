"""Other weights in the place of the one expected: another layer's or module's, transposed, in another order, rounded.

`instead(case, path)` yields (words, weight, bias) for the linear layer of that name in the layer of the case.
"""

import torch

from bringup.evaluation.layers.declared import BLOCK_FORMATS
from bringup.evaluation.layers.suspects.case import rounded

SHARES = (2, 4, 8, 32)  # chips that may have been meant


def linear(case, path, layer=None):
    return case.modules[f"model.layers.{case.layer if layer is None else layer}.{path}"]


def apply(x, weight, bias):
    out = x @ weight.float().T
    return out if bias is None else out + bias.float()


def instead(case, path):
    own = linear(case, path)
    weight, bias = own.weight.detach().float(), own.bias
    name = path.rpartition(".")[2]
    yield from _bias(case, path, name, weight, bias)
    for dtype in BLOCK_FORMATS:
        yield f"HF's value with {name} rounded to {dtype}", rounded(weight, dtype), bias
    yield from _others(case, path, name, weight, bias)
    yield from ((f"HF's value with {name} {words}", w, bias) for words, w in orders(weight, case.chips))


def _bias(case, path, name, weight, bias):
    if bias is None:
        return
    yield f"HF's value with the bias of {name} left out", weight, None
    yield f"HF's value with the bias of {name} added twice", weight, 2 * bias.detach()
    yield f"HF's value with the bias of {name} subtracted", weight, -bias.detach()
    if name in ("q_proj", "k_proj", "v_proj") and case.head_dim % 2 == 0 and len(bias) % case.head_dim == 0:
        heads = bias.detach().unflatten(0, (-1, 2, case.head_dim // 2))
        pairs = bias.detach().unflatten(0, (-1, case.head_dim // 2, 2))
        turned = (
            ("Meta's order, its weight in HF's", heads),
            ("HF's order made out of Meta's, which it is not in", pairs),
        )
        for words, value in turned:
            yield f"HF's value with the bias of {name} in {words}", weight, value.transpose(1, 2).flatten()
    for words, value in orders(bias.detach()[:, None], case.chips):
        if "rows" in words:
            yield f"HF's value with the bias of {name} {words.replace('rows', 'values')}", weight, value[:, 0]
    if case.chips > 1:
        yield f"HF's value with the bias of {name} added once on each of {case.chips} chips", weight, case.chips * bias
    for other in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        if other == name:
            continue
        module = case.modules.get(case.prefix + path.rpartition(".")[0] + "." + other)
        theirs = getattr(module, "bias", None)
        if theirs is not None and theirs.shape == bias.shape:
            yield f"HF's value with the bias of {other} in {name}", weight, theirs.detach()
    for layer in range(len(case.hf.model.layers)):
        if layer != case.layer:
            theirs = linear(case, path, layer).bias
            if theirs is not None and theirs.shape == bias.shape:
                yield f"HF's value with the bias of layer {layer}'s {name}", weight, theirs.detach()


def _others(case, path, name, weight, bias):
    """HF's own other matrices of that shape, or of the transposed one."""
    if weight.shape[0] == weight.shape[1]:
        yield f"HF's value with {name} not transposed (it is square, and is taken for its transpose)", weight.T, bias
    else:
        yield (
            f"HF's value with {name} transposed wrongly: its numbers read in the other shape",
            weight.T.contiguous().view(weight.shape),
            bias,
        )
    for n, module in case.modules.items():
        if not isinstance(module, torch.nn.Linear) or n == case.prefix + path:
            continue
        layer, part = n.removeprefix("model.layers.").split(".", 1) if n.startswith("model.layers.") else (None, n)
        if layer != str(case.layer) and part != path:
            continue  # another layer's other module: too many to try
        what = f"the weight of layer {layer}'s {part}" if layer != str(case.layer) else f"the weight of {part}"
        theirs = module.weight.detach()
        if theirs.shape == weight.shape:
            yield f"HF's value with {what} in the place of {name}", theirs, bias
        if theirs.T.shape == weight.shape and layer == str(case.layer):
            yield f"HF's value with {what}, transposed, in the place of {name}", theirs.T, bias


def orders(weight, chips=1):
    """(words, weight) with rows (outputs) or columns (inputs) in another order of blocks or of neighbours."""
    for dim, what in ((0, "rows"), (1, "columns")):
        n = weight.shape[dim]
        for shares in dict.fromkeys((chips, *SHARES)) if chips > 1 else (2,):
            if shares < 2 or n % shares:
                continue
            block = n // shares
            who = f"cut for {shares} chips" if chips > 1 else "in halves"
            for by in range(1, shares) if shares <= 8 else ():
                moved = weight.roll(by * block, dim)
                yield (
                    f"{who} with the {what} of the share {by} before" if shares > 2
                    else f"{who}, each in the place of the other ({what})",
                    moved,
                )  # fmt: skip
            blocks = weight.unflatten(dim, (shares, block))
            if shares > 2:
                yield f"{who}, its shares of {what} in reverse", blocks.flip(dim).flatten(dim, dim + 1)
            yield (
                f"with its {what} dealt out in turn over {shares} shares, not in blocks",
                weight.unflatten(dim, (block, shares)).transpose(dim, dim + 1).flatten(dim, dim + 1),
            )
            yield (
                f"with its {what} in blocks over {shares} shares, where they are dealt out in turn",
                blocks.transpose(dim, dim + 1).flatten(dim, dim + 1),
            )
        yield f"with its {what} in reverse", weight.flip(dim)
        for by in (1, -1):
            yield f"with its {what} shifted by {by:+d}", weight.roll(by, dim)


def fused(parts, groups, chips=1):
    """Rows of several matrices, [out, in] each, stored in one way and read in the other: (words, the parts so read)."""
    sizes = [len(p) for p in parts]
    if groups < 2 or any(n % groups for n in sizes):
        return
    whole = torch.cat(parts).unflatten(0, (groups, -1))
    cut = whole.split([n // groups for n in sizes], dim=1)
    chips = f": cut plainly for {groups} chips, each of which wants its part of every matrix" if groups == chips else ""
    yield (
        f"the fused rows stored matrix by matrix and read as if for each of {groups} groups{chips}",
        [p.flatten(0, 1) for p in cut],
    )
    by_group = torch.cat([p.unflatten(0, (groups, -1)) for p in parts], dim=1)
    yield (
        f"the fused rows stored for each of {groups} groups and read as if each matrix were in one piece",
        by_group.flatten(0, 1).split(sizes),
    )
