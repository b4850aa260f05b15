"""Where the device first leaves HF: asked once, for the record, and named by every item that fails."""

import dataclasses
import re

from bringup.checks.outcome import FAIL, PASS, Outcome
from bringup.evaluation.consistency import USERS
from bringup.evaluation.layers.activations import split
from bringup.evaluation.lines import ranges

PROFILE_TOKENS = 24  # of the text that is watched as another user
DECODED = ("decode, token by token", "the end of the cache")  # questions whose positions are reached in decode


def first_divergence(context, phase=None):
    """(place, why) of the first point that diverges, as ("layer 3, self_attn.k_rope", "..."); (None, None) for none.

    With `phase`, "prefill" or "decode", only a divergence that shows first in that phase counts.
    """
    if not context.values:
        return None, None
    profile = context.profile
    first = profile.first
    if first is None or phase not in (None, first.phase):
        return None, None
    return str(first), f"{first.why} ({first.phase})"


def point_of(block):
    """The (layer, point) that a block of HF's name is, the last None of a whole layer: products before the rotation
    count as what comes out of it, keys and values as the cache."""
    layer, point = split(block)
    if layer is None:
        whole = re.fullmatch(r"layers\.(\d+)", point)
        return (int(whole[1]), None) if whole else (None, point)
    return layer, re.sub(r"\.(keys|values)$", lambda part: f".{part[1][0]}_cache", point).replace("_proj", "_rope")


def made_up_for(context, block):
    """Does the profile show that what this block is not is made up for in the model as a whole?"""
    if context.profile.first is not None or context.profile.rebased:
        return context.profile.rebased
    layer, point = point_of(block)
    rows = [p for p in context.profile.points if p["layer"] == layer and point in (None, p["point"])]
    return any(p["own"].get("compensated") for p in rows)


def lead(context, outcome, results=(), watched=()):
    """The outcome; where it is a fail, its summary becomes the first place that diverges from HF. Where none does in
    the tokens that are watched, those are watched at which the questions of `results` fail, or that `watched` names."""
    if outcome.status != FAIL:
        return outcome
    place, why = first_divergence(context)
    if place is None:
        place, why = _farther(context, results)
    for at in watched if place is None and context.values else ():
        if (found := context.profile_at(**at).first) is not None:
            place, why = str(found), f"{found.why} ({found.phase}{_as(**at)})"
            break
    if place is None:
        return outcome
    return dataclasses.replace(outcome, summary=f"{place}: {why}", evidence=[outcome.summary, *outcome.evidence])


def _as(tokens, user=0):
    return f", as user {user} of {USERS}" if user else f", after {tokens} tokens"


def _farther(context, results):
    """The first divergence where a consistency question fails: after more tokens, or as another user."""
    for result in results if context.values else ():
        if result.ok is not False:
            continue
        figures = result.figures
        if figures.get("users"):
            user = next(filter(None, figures["users"]), 0)  # the first is alone, where it is watched
            found = context.profile_at(PROFILE_TOKENS, user=user).first
            who = (
                f", seen by {ranges(figures['users'], 'user')}"
                if len(figures["users"]) < figures.get("of", USERS)
                else ""
            )
            if found is not None:
                return str(found), f"{found.why} ({found.phase}){who}"
        if figures.get("instead"):
            after = ", ".join(f"{p} tokens are HF's after {q}" for p, q in list(figures["instead"].items())[:4])
            return "lm_head", f"the logits of another position are taken: after {after} ({result.name})"
        each = zip(figures.get("positions", ()), figures.get("rel_l2_each", ()), strict=True)
        far = [tokens for tokens, error in each if not error <= figures["bound_each"]]
        if far:
            found = context.profile_at(far[0], prompt=not result.name.startswith(DECODED)).first
            if found is not None:
                return str(found), f"{found.why} ({found.phase}, after {far[0]} tokens)"
    return None, None


def judge(context, outcome, phase, results=()):
    """The same, and a pass becomes a fail where a point diverges in `phase`."""
    if outcome.status != PASS:
        return lead(context, outcome, results)
    place, why = first_divergence(context, phase)
    evidence = outcome.evidence + looked_at(context.profile)
    if place is None:
        return dataclasses.replace(outcome, evidence=evidence)
    return Outcome(FAIL, f"{place}: {why}", evidence)


def looked_at(profile):
    """A line on what was looked at, for the evidence."""
    if profile.depth == "logits":
        return ["the file's parts have no names: only its logits were compared, position by position"]
    if profile.first is not None:
        return []
    if profile.notes:
        return [*profile.notes, *_nearest(profile)]
    return _nearest(profile)


def _nearest(profile):
    judged = [p for p in profile.points if p["own"]["explained"] and not p["own"].get("compensated")]
    worst = max(judged, key=lambda p: p["own"]["rel_l2"] / p["own"]["bound"])
    where = worst["point"] if worst["layer"] is None else f"layer {worst['layer']}, {worst['point']}"
    return [
        f"{len(profile.points)} points from layer to layer ({profile.depth}): none diverges; nearest to its bound is "
        f"{where} in {worst['phase']}, {worst['own']['rel_l2']:.4f} of {worst['own']['bound']:.4f}"
    ]
