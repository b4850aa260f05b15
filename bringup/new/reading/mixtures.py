"""Which mixture of experts a module of HF is: the block's formula in torch with each routing, against what it gave."""

import itertools

from bringup.new.traits import Part

SAME = 1e-4  # relative L2 of two float32 computations of the same thing
#: Fields of configurations that say the same.
TOP_K = ("num_experts_per_tok", "experts_per_token", "moe_topk")
SCALES = ("routed_scaling_factor", "router_scaling_factor", "moe_routed_scaling_factor", "route_scale")
NORMALISED = ("norm_topk_prob", "route_norm")


def is_mixture(module):
    return hasattr(module, "experts") and hasattr(module.experts, "down_proj")


def read(hf_moe, name, x, out, config, traits):
    """The `Part` of a mixture that took x and gave `out`; None, with a gap in `traits`, where no block computes it."""
    where = type(hf_moe).__name__
    experts = experts_of(hf_moe)
    ways = itertools.product((False, True) if shared(hf_moe) else (False,), _routings(hf_moe, config))
    same = lambda averaged, routing: _far(mixture(hf_moe, x, routing, experts, averaged=averaged), out) < SAME  # noqa: E731
    try:
        found = next(((averaged, *given) for averaged, given in ways if same(averaged, given[0])), None)
    except (AttributeError, RuntimeError) as error:
        traits.lacks(f"{name}: {error}", where, "experts that `blocks.moe` has")
        return None
    if found is None:
        traits.lacks(f"{name} is no mixture that the blocks compute", where, "a router, or experts, as HF has them")
        return None
    averaged, routing, source, words = found
    count = hf_moe.experts.down_proj.shape[0]
    said = f"{routing.top_k} of {count} experts by {words}"
    if shared(hf_moe):
        said += ", and the mean with one shared by all" if averaged else ", and one shared by all"
    traits.words["mlp"] = f"a mixture: {said}"
    traits.sources["mixture"] = f"{where}, run on random values: {said}"
    keywords = (("experts", experts),) if experts != "Experts" else ()
    needs = ("Routing", *(value for _, value in keywords))
    keywords += (("averaged", "True"),) if averaged else ()
    return Part(
        "MixtureOfExperts",
        (f"hf_layer.{name}", source, "mesh", "precision"),
        keywords,
        needs,
    )


def _routings(hf_moe, config):
    """(routing, its source, words) that the fields allow, plainest first."""
    from bringup.blocks.router import Routing

    field = lambda names: next((n for n in names if getattr(config, n, None) is not None), None)  # noqa: E731
    top_k, scaled, declared = field(TOP_K), field(SCALES), field(NORMALISED)
    groups = (getattr(config, "n_group", None) or 1, getattr(config, "topk_group", None) or 1)
    scales = [(1.0, ())] + ([(getattr(config, scaled), (f"scale=config.{scaled}",))] if scaled else [])
    grouped = [((1, 1), ())]
    grouped += [(groups, ("groups=config.n_group", "top_groups=config.topk_group"))] if groups[0] > 1 else []
    for scores, normalised, scale, group in itertools.product(("softmax", "sigmoid"), (True, False), scales, grouped):
        if declared and normalised != getattr(config, declared):
            continue
        routing = Routing(getattr(config, top_k), scores, normalised, scale[0], *group[0])
        arguments = [f"config.{top_k}"] + ['scores="sigmoid"'] * (scores == "sigmoid")
        if declared:
            arguments.append(f"normalised=config.{declared}")
        elif not normalised:
            arguments.append("normalised=False")
        words = "the softmax over them" if (scores, normalised) == ("softmax", True) else scores
        yield routing, f"Routing({', '.join([*arguments, *scale[1], *group[1]])})", words


def routing(hf_moe, x, config):
    """The `Routing` with which the block computes what HF's mixture gives of x; None where there is none."""
    import torch

    with torch.no_grad():
        out = hf_moe(x[None])
    out = (out[0] if isinstance(out, tuple) else out).view_as(x)
    found = (given[0] for given in _routings(hf_moe, config))
    return next((r for r in found if _far(mixture(hf_moe, x, r, experts_of(hf_moe)), out) < SAME), None)


def _far(got, want):
    return float((got - want).norm() / want.norm())


def experts_of(hf_moe):
    """The name of the class of `blocks.moe` that has HF's experts."""
    return "ClampedExperts" if hasattr(hf_moe.experts, "gate_up_proj_bias") else "Experts"


def mixture(
    hf_moe, x, routing, experts="Experts", weight=None, exchanged=False, biased=True, limit=None, offset=1.0,
    averaged=False,
):  # fmt: skip
    """What the blocks compute, in torch; x [.., hidden]. `weight` [rows, experts] in the place of the router's; what
    follows it is done otherwise than HF has it."""
    import torch

    rows = x.reshape(-1, x.shape[-1])
    with torch.no_grad():
        weight = weights(hf_moe, rows, routing) if weight is None else weight
        each = each_expert(hf_moe, rows, experts, exchanged, biased, limit, offset)
        out = torch.einsum("esh,se->sh", each, weight)
        if (by_all := shared(hf_moe)) is not None:
            gate = getattr(hf_moe, "shared_expert_gate", None)
            out = out + by_all(rows) * (1 if gate is None else torch.sigmoid(gate(rows)))
            out = out / 2 if averaged else out
    return out.view_as(x)


def each_expert(hf_moe, rows, experts="Experts", exchanged=False, biased=True, limit=None, offset=1.0):
    """[experts, rows, hidden]: what each expert makes of every row."""
    import torch
    from torch.nn.functional import silu

    from bringup.blocks import moe

    hf = hf_moe.experts
    with torch.no_grad():
        gate, up, down = getattr(moe, experts).split(hf)
        gate, up = (up, gate) if exchanged else (gate, up)
        g, u = (torch.einsum("sh,eoh->eso", rows, w) for w in (gate, up))
        if experts != "ClampedExperts":
            return torch.einsum("eso,eho->esh", silu(g) * u, down)
        limit, both = hf.limit if limit is None else limit, hf.gate_up_proj_bias * biased
        g = (g + both[:, None, ::2]).clamp(max=limit)
        u = (u + both[:, None, 1::2]).clamp(-limit, limit)
        inner = (u + offset) * g * torch.sigmoid(hf.alpha * g)
        return torch.einsum("eso,eho->esh", inner, down) + hf.down_proj_bias[:, None] * biased


def shared(hf_moe):
    """The MLP that all tokens go through; None."""
    from bringup.blocks.hf import named
    from bringup.blocks.router import SHARED

    return named(hf_moe, SHARED)


def scores(hf_moe, rows, routing, logits_as=lambda logits: logits, best_of=2):
    """(scores, what experts are chosen by) [rows, experts] of the block's router, in torch."""
    import torch

    from bringup.blocks.router import correction, scorer

    r, by, added = routing, scorer(hf_moe), correction(hf_moe)
    logits = logits_as(torch.nn.functional.linear(rows, by.weight, getattr(by, "bias", None)).float())
    score = logits.sigmoid() if r.scores == "sigmoid" else logits.softmax(-1)
    if r.scores == "softmax" and added is None:
        return score, logits
    by = score if added is None else score + added.flatten()
    if r.groups > 1:
        each = by.unflatten(-1, (r.groups, -1))
        best = each.topk(best_of, -1)[0].sum(-1)
        closed = best < best.topk(r.top_groups, -1)[0][..., -1:]
        by = each.masked_fill(closed[..., None], float("-inf")).flatten(-2)
    return score, by


def weights(hf_moe, rows, routing, at=None, **changed):
    """[rows, experts] of the block's router, in torch: 0 for those not chosen. `at`: those that are. `changed`: what
    `scores` takes."""
    import torch

    score, by = scores(hf_moe, rows, routing, **changed)
    at = by.topk(routing.top_k, -1)[1] if at is None else at
    weight = torch.zeros_like(score).scatter(-1, at, score.gather(-1, at))
    weight = weight / weight.sum(-1, keepdim=True) if routing.normalised else weight
    return weight * routing.scale
