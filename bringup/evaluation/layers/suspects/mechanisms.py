"""MECHANISMS: what may have gone wrong at which point; `explain` tries each and names the one that fits."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from bringup.evaluation import pcc
from bringup.evaluation.layers.activations import FFNS, ORDER
from bringup.evaluation.layers.suspects import (
    attention,
    ends,
    heads,
    linear,
    mixtures,
    mlp,
    norms,
    parts,
    per_layer,
    residuals,
    rotation,
    steps,
    variants,
)
from bringup.evaluation.layers.suspects.case import REMAINS, Case

Q, K, K_CACHE, V_CACHE = "self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache"
# What an HF model that is built in another way raises where a mechanism looks for a part of it.
DOES_NOT_APPLY = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
AS_GOOD = 1.3  # a suspect that leaves no more than this times the best one's rest, and comes first, is named
PARTS_BETTER = 0.5  # of the rest: what one in some parts alone must leave to be named in the place of one everywhere


class Mechanism(NamedTuple):
    """`values(case)` yields (words, value [positions, width] of all positions or of the judged ones). A third item is
    the positions at which alone it would show, or the share of the error that noise may leave."""

    points: tuple
    values: Callable


NORMS = tuple(point for point in ORDER if "norm" in point)

MECHANISMS = (
    Mechanism((*NORMS, "norm"), variants.norm),
    Mechanism((Q, K), variants.rotation),
    Mechanism(("self_attn",), variants.attention),
    Mechanism(("embed_tokens",), variants.embedding),
    Mechanism(("lm_head",), variants.head),
    Mechanism(("input_layernorm", "post_attention_layernorm", "norm"), norms.norm),
    Mechanism((Q, K), rotation.rotation),
    Mechanism((K_CACHE, V_CACHE), heads.cache),
    Mechanism((K_CACHE,), rotation.rotation),
    Mechanism((Q, K, K_CACHE, V_CACHE), heads.order),
    Mechanism(("self_attn",), attention.attention),
    Mechanism(("per_layer_projection",), per_layer.projection),
    Mechanism(("mlp.residual",), per_layer.residual),
    Mechanism(("self_attn.residual", "mlp.residual"), residuals.residual),
    Mechanism(("mlp",), mlp.mlp),
    Mechanism(FFNS, mixtures.mixture),
    Mechanism(("linear_attn",), linear.linear_attention),
    Mechanism(("embed_tokens",), ends.embedding),
    Mechanism(("lm_head",), ends.head),
)
STEPS = (ends.factor, steps.steps)  # asked where none of these fits: HF's own code, changed in one place
AT_ANY_POINT = (ends.any_point,)  # asked where none of the others fits: they say less of the cause


@torch.no_grad()
def explain(hf_model, device, own, divergence, model=None):
    """What the device computed instead at the point of `divergence`, in words with the number, and in which parts it
    differs; None for no idea."""
    case = Case(hf_model, device, own, divergence, model)
    if not bool(case.got.isfinite().all()):
        return None
    if float(case.got.norm()) == 0.0:
        return "it is all zeros"
    where = parts.concentrated(case)
    cause = _cause(case)
    if cause is None and case.point == "lm_head":  # a rearranged vocabulary
        cause = pcc.explain(case.want, case.got, ("position", "token of the vocabulary"))
    return "; ".join(filter(None, (cause, where))) or None


def _cause(case):
    own = [m.values for m in MECHANISMS if case.point in m.points]
    return _best(case, (parts.empty,)) or _best(case, own) or _best(case, STEPS) or _best(case, AT_ANY_POINT)


def _best(case, mechanisms):
    whole, partly, at_some = [], [], []
    for words, value, *more in _suspects(case, mechanisms):
        if more and isinstance(more[0], torch.Tensor):
            left = _left_at(case, value, more[0])
            at_some += [(left, words)] * (left is not None)
            continue
        value = case.at_rows(value)
        if value.shape != case.got.shape:
            continue
        left = case.left(value, *more)
        if left is not None:
            whole.append((left, words))
            continue
        for some, mixed in parts.mixtures(case, value):
            left = case.left(mixed)
            if left is not None:
                partly.append((left, f"{words}, {some}"))
    best, some = _first_good(whole or at_some), _first_good(partly)
    if some and (best is None or some[0] < PARTS_BETTER * best[0]):
        best = some
    return f"it is {best[1]} ({best[0]:.2g} from that)" if best else None


def _left_at(case, value, rows):
    got, want = case.device.points[case.name][rows], case.own.points[case.name][rows]
    left = float((value - got).norm() / got.norm())
    return left if left <= case.bound and left < REMAINS * float((want - got).norm() / got.norm()) else None


def _first_good(found):
    best = min((left for left, _ in found), default=None)
    return next(((left, words) for left, words in found if left <= AS_GOOD * best + 1e-9), None)


def _suspects(case, mechanisms):
    for mechanism in mechanisms:
        try:
            yield from mechanism(case)
        except DOES_NOT_APPLY:
            continue
