"""What a mixture of experts may have computed: other choices, other weights of them, other experts, parts left out."""

import dataclasses

import torch

from bringup.evaluation.layers.suspects import reading

FEW = 64  # experts up to which pairs of them are exchanged
READ = 32  # experts up to which it is read off whose weight each of them has
SHARES = (2, 4, 8)  # chips that may have been meant


def mixture(case):
    """HF's mixture on the device's input, with this or that done differently."""
    from bringup.new.reading import mixtures

    hf = case.module
    if hf is None or not mixtures.is_mixture(hf):
        return
    x = case.into_mlp()
    routing = mixtures.routing(hf, x, case.config)
    if routing is None:
        return
    experts = mixtures.experts_of(hf)
    run = lambda **changed: mixtures.mixture(hf, x, routing, experts, **changed)  # noqa: E731
    weight = mixtures.weights(hf, x, routing)
    yield from _narrow(hf, routing, x, run)
    yield from _of_other_scores(case, routing, x, run)
    for words, other in _routings(routing):
        yield f"the mixture {words}", mixtures.mixture(hf, x, other, experts)
    yield from _router(hf, routing, x, run)
    yield from _order(case, weight, run)
    yield from _whose(case, mixtures.each_expert(hf, x, experts), weight, run)
    yield from _parts(case, mixtures, x, experts, run)
    yield from _shares(case, weight, run)


def _routings(r):
    changed = lambda **fields: dataclasses.replace(r, **fields)  # noqa: E731
    how = "weights of the chosen sum to 1" if r.normalised else "weights of the chosen do not sum to 1"
    yield (
        f"with its router {'not ' if r.normalised else ''}normalised, where HF's {how}",
        changed(normalised=not r.normalised),
    )
    for k in range(1, r.top_k + 3):
        if k != r.top_k:
            yield f"with {k} experts a token, where HF has {r.top_k}", changed(top_k=k)
    if r.scale != 1:
        yield f"without the router's scale {r.scale:g}", changed(scale=1.0)
    if r.groups > 1:
        yield "with experts chosen among all groups", changed(groups=1, top_groups=1)
    if r.scores == "sigmoid":
        yield "with scores by a softmax, where HF has a sigmoid", changed(scores="softmax")
    else:
        yield "with scores by a sigmoid, where HF has a softmax", changed(scores="sigmoid")


def _narrow(hf, routing, x, run):
    """Scores in bfloat16: near ones become equal, or change places; of equal ones at the last place all are chosen."""
    from bringup.new.reading import mixtures

    score, by = mixtures.scores(hf, x, routing, lambda logits: logits.bfloat16().float())
    weight = score * (by >= by.topk(routing.top_k, -1)[0][..., -1:])
    weight = weight / weight.sum(-1, keepdim=True) if routing.normalised else weight
    yield (
        "the mixture with the router's scores in bfloat16, where near ones are equal",
        run(weight=weight * routing.scale),
    )


def _of_other_scores(case, routing, x, run):
    """Weights that are a softmax of more than the scores, groups by another rule, and a router that takes another value
    than the experts."""
    from bringup.new.reading import mixtures

    hf, own = case.module, mixtures.weights(case.module, x, routing)
    score, _ = mixtures.scores(hf, x, routing)
    again = score.masked_fill(own == 0, float("-inf")).softmax(-1) * routing.scale
    said = "a softmax again of scores that are a softmax" if routing.scores == "softmax" else "a softmax of the scores"
    yield f"the mixture with its weights {said}", run(weight=again)
    if routing.scale != 1:
        yield f"the mixture with the router's scale {routing.scale:g} twice", run(weight=own * routing.scale)
    if routing.groups > 1:
        other = mixtures.weights(hf, x, routing, best_of=1)
        yield "the mixture with its groups chosen by their best score, where HF adds the best two", run(weight=other)
    streams = {"the layer's input": case.before(), f"the output of {case.mixer}": case.value(case.mixer)}
    if not case.name.endswith("residual") and f"{case.prefix}self_attn.residual" in case.own.points:
        streams["the stream, not normalised"] = case.value("self_attn.residual")
    for name, value in streams.items():
        if value.shape == x.shape:
            yield f"the mixture with a router that takes {name}", run(weight=mixtures.weights(hf, value, routing))


def _router(hf, routing, x, run):
    """The router's own parts."""
    from bringup.blocks import router
    from bringup.new.reading import mixtures

    parts = (
        (getattr(router.scorer(hf), "bias", None), "its bias"),
        (router.correction(hf), "the correction of its scores"),
    )
    for value, words in parts:
        if value is None:
            continue
        before = value.detach().clone()
        try:
            value.zero_()
            other = mixtures.weights(hf, x, routing)
        finally:
            value.copy_(before)
        yield f"the mixture with a router without {words}", run(weight=other)
    weight = mixtures.weights(hf, x, routing)
    yield (
        "the mixture with every chosen expert weighed alike",
        run(weight=(weight > 0) * (weight.sum(-1, True) / routing.top_k)),
    )


def _order(case, weight, run):
    """Experts that stand in another's place."""
    count = weight.shape[1]
    for shares in dict.fromkeys((case.chips, *SHARES)):
        if 1 < shares < count and count % shares == 0:
            dealt = torch.arange(count).view(-1, shares).T.flatten()
            for one, other, order in (("experts", "weights", dealt.argsort()), ("weights", "experts", dealt)):
                words = f"the mixture with its {one} dealt out in turn over {shares} shares, its {other} in blocks"
                yield words, run(weight=weight[:, order])
    for by in (1, -1):
        yield (
            f"the mixture with experts in another order: each has the weights of expert {by:+d}",
            run(weight=weight.roll(by, 1)),
        )
    yield "the mixture with experts in another order: from the last to the first", run(weight=weight.flip(1))
    if count % 2 == 0:
        yield "the mixture with experts in another order: its halves exchanged", run(weight=weight.roll(count // 2, 1))
    for i in range(count if count <= FEW else 0):
        for j in range(i + 1, count):
            at = list(range(count))
            at[i], at[j] = j, i
            yield f"the mixture with experts {i} and {j} exchanged", run(weight=weight[:, at])


def _whose(case, each, weight, run):
    """Whose weight each expert has, by least squares over all pairs: each [experts, rows, hidden]."""
    count, rows = weight.shape[1], case.rows
    if count > READ:
        return
    each, weight_at, own = each[:, rows], weight[rows], run(weight=torch.zeros_like(weight))[rows]
    near = torch.einsum("ish,ksh->iks", each, each)
    gram = torch.einsum("iks,sj,sl->ijkl", near, weight_at, weight_at).reshape(count**2, -1)
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram))
    told = torch.einsum("ish,sh,sj->ij", each, case.got - own, weight_at).reshape(-1, 1)
    times = torch.linalg.solve(gram, told).view(count, count)
    most, at = times.max(dim=1)
    at = torch.where(most > 0.5, at, torch.arange(count))
    if wrong := [(i, int(j)) for i, j in enumerate(at) if i != int(j)]:
        said = ", ".join(f"expert {i} has the weight of expert {j}" for i, j in wrong[:4]) + ", ..." * (len(wrong) > 4)
        yield f"the mixture with experts in another order: {said}", run(weight=weight[:, at])


def _parts(case, mixtures, x, experts, run):
    """Without what all share, its gate or the experts' biases; gate and up exchanged."""
    hf, chips = case.module, case.chips
    if (shared := mixtures.shared(hf)) is not None:
        gate = getattr(hf, "shared_expert_gate", None)
        by = 1 if gate is None else torch.sigmoid(gate(x))
        yield "the mixture without the expert that all share", run() - by * shared(x)
        if chips > 1:
            words = f"the mixture with the shared expert {chips} times, once from each of {chips} chips"
            yield f"{words}: whole on each, and summed over them", run() + (chips - 1) * by * shared(x)
        if gate is not None:
            yield "the mixture with the shared expert not gated", run() + (1 - by) * shared(x)
    yield "the mixture with gate and up exchanged in each expert", run(exchanged=True)
    if experts == "ClampedExperts":
        yield "the mixture without the biases of its experts", run(biased=False)
        yield "the mixture with nothing clamped", run(limit=float("inf"))
        yield "the mixture with up in the place of up + 1", run(offset=0.0)


def _shares(case, weight, run):
    """Chips whose experts are not in the sum."""
    chips, count = case.chips, weight.shape[1]
    for chip in range(chips if chips > 1 else 0):
        per_chip = -(-count // chips)
        left = weight.clone()
        left[:, chip * per_chip : (chip + 1) * per_chip] = 0
        yield f"the mixture without the experts of {reading.ranges([chip], 'chip')}", run(weight=left)
