"""Where the device first leaves HF: asked once, for the record, and named by every item that fails."""

import dataclasses

from bringup.checks.outcome import FAIL, PASS, Outcome


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


def lead(context, outcome):
    """The outcome; where it is a fail, its summary becomes the first place that diverges from HF."""
    if outcome.status != FAIL:
        return outcome
    place, why = first_divergence(context)
    if place is None:
        return outcome
    return dataclasses.replace(outcome, summary=f"{place}: {why}", evidence=[outcome.summary, *outcome.evidence])


def judge(context, outcome, phase):
    """The same, and a pass becomes a fail where a point diverges in `phase`."""
    if outcome.status != PASS:
        return lead(context, outcome)
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
    judged = [p for p in profile.points if p["own"]["explained"]]
    worst = max(judged, key=lambda p: p["own"]["rel_l2"] / p["own"]["bound"])
    where = worst["point"] if worst["layer"] is None else f"layer {worst['layer']}, {worst['point']}"
    return [
        f"{len(profile.points)} points from layer to layer ({profile.depth}): none diverges; nearest to its bound is "
        f"{where} in {worst['phase']}, {worst['own']['rel_l2']:.4f} of {worst['own']['bound']:.4f}"
    ]
