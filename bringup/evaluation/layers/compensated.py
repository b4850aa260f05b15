"""Differences that do no harm: q and k in another basis, heads in another order throughout, a scale in the weights.

A block is what adds to the residual stream, or the last norm and the head. Where a point inside it is not HF's, and yet
the block as a whole gives what HF gives on the same input, something else in the block makes up for it. That is shown,
not assumed: HF with the device's value at that point alone must come out somewhere else.
"""

from typing import NamedTuple

import torch

from bringup.evaluation.layers.activations import ORDER, record_reference
from bringup.evaluation.layers.verdict import APPROXIMATE_EXP, MARGIN, PHASES, Divergence, own_error, why

OF_BF16 = 3.0  # times HF in bfloat16 at its worst position: logits that are HF's
HARM = 3.0  # times the bound of the block: what the point alone would have to do to it for the rest to make up for it


MARGIN_OF_SCORES, FLOOR_OF_SCORES = 2.0, 0.005  # of q times k, as for the points: times what the format explains


SUM = "mlp.residual"


class _Anchors:
    """The residual stream: all points between which a block computes by itself."""

    def __contains__(self, name):
        return name == "model.embed_tokens" or name.endswith(".residual")


ANCHORS = _Anchors()
_ATTENTION = ORDER.index("self_attn.residual")
BLOCKS = {  # what adds to the stream, by the stream's point after it
    "self_attn.residual": ORDER[:_ATTENTION],
    "mlp.residual": ORDER[_ATTENTION + 1 : -1],
    "lm_head": ("norm", "lm_head"),
}


class _Verdict(NamedTuple):
    """Of a block in a phase: does its part agree with HF's, how far is it, would it with the one point alone wrong."""

    agrees: bool
    error: float
    harm: bool


def sift(profile, hf_model, device, anchored, floor):
    """Takes what is made up for out of the profile's failures, with a note for each block; `anchored` is HF in the
    declared formats, given the device's residual stream alone. HF computes in float32."""
    blocks = _failing(profile)
    if not blocks:
        return
    run = (hf_model, device.ids, device.decode_from)
    right = record_reference(*run, given=device, only=ANCHORS)
    alone = {_name(layer, rows[0]["point"]) for (layer, _), rows in blocks.items()}
    wrong = record_reference(*run, given=device, only=_Union(alone))
    for (layer, end), rows in blocks.items():
        verdicts = [v for phase in PHASES if (v := _block(device, right, anchored, wrong, layer, end, phase, floor))]
        agrees = verdicts and all(v.agrees for v in verdicts) and any(v.harm for v in verdicts)
        if agrees and _same_scores(device, right, anchored, layer, {row["point"] for row in rows}):
            after = [row for row in profile.points if (row["layer"], row["point"]) == (layer, end)]
            for row in rows + [row for row in after if not row["own"]["ok"]]:
                row["own"]["ok"], row["own"]["compensated"] = True, True
            _excuse_the_sum(
                profile, layer, lambda phase, at=layer: _block(device, right, anchored, wrong, at, SUM, phase, floor)
            )
            where = "" if layer is None else f"layer {layer}, "
            names = ", ".join(dict.fromkeys(row["point"] for row in rows))
            profile.notes.append(
                f"{where}{names}: not HF's, and made up for: what {_said(end)} agrees "
                f"({max(v.error for v in verdicts):.2g} from HF's)"
            )
    failing = next((row for row in profile.points if not row["own"]["ok"]), None)
    first = profile.first
    if failing is None:
        profile.first = None
    elif (failing["layer"], failing["point"], failing["phase"]) != (first.layer, first.point, first.phase):
        own = failing["own"]
        profile.first = Divergence(failing["layer"], failing["point"], failing["phase"], why(own), own)


def sift_whole(profile, hf_model, device, fp32, bf16):
    """Takes all failures out, and tells so, where the logits are HF's all the same: the stream is in another basis
    throughout, and no setting of a module is comparable."""
    first = profile.first
    if first is None or (first.verdict or {}).get("rel_l2") is None:
        return False
    only = {_name(first.layer, first.point)}
    harmed = record_reference(hf_model, device.ids, device.decode_from, given=device, only=only).points["lm_head"]
    got, want, narrow = (a.points["lm_head"] for a in (device, fp32, bf16))
    known = device.known.get("lm_head")
    if got.shape != want.shape or not bool(got.isfinite().all()) or (known is not None and not bool(known.all())):
        return False
    bound = OF_BF16 * _far(narrow, want)
    if not _far(got, want) <= bound or not _far(harmed, want) > HARM * bound:
        return False
    failing = [row for row in profile.points if not row["own"]["ok"]]
    for row in failing:
        row["own"]["ok"], row["own"]["compensated"] = True, True
    said = _name(first.layer, first.point).removeprefix("model.")
    more = f" and {len(failing) - 1} points more" if len(failing) > 1 else ""
    profile.notes.append(f"{said}{more}: not HF's, and made up for: the logits agree ({_far(got, want):.2g} from HF's)")
    profile.first, profile.rebased = None, True
    return True


def _far(x, want):
    """Relative L2 of the worst position."""
    return float(((x - want).norm(dim=1) / want.norm(dim=1).clamp(min=1e-30)).max())


def _excuse_the_sum(profile, layer, verdict):
    """The layer's output has HF's sum of what the device's attention gave; where that was made up for, it is judged as
    what the MLP adds is."""
    for row in profile.points:
        if (row["layer"], row["point"]) == (layer, SUM) and not row["own"]["ok"] and layer is not None:
            found = verdict(row["phase"])
            if found is not None and found.agrees:
                row["own"]["ok"], row["own"]["compensated"] = True, True


def _same_scores(device, right, anchored, layer, points):
    """Where q or k are not HF's: do they have HF's products, in whatever order of heads and to a factor? A softmax
    hides much: wrong frequencies in both turn neighbours by nearly the same, and show in what is far away alone."""
    names = [_name(layer, f"self_attn.{part}_rope") for part in "qk"]
    if not points & {"self_attn.q_rope", "self_attn.k_rope"}:
        return True
    if layer not in right.extras or any(name not in a.points for name in names for a in (device, right, anchored)):
        return False
    heads = [right.extras[layer][part].shape[1] for part in "qk"]

    def scores(recorded):
        q, k = (
            recorded.points[name].unflatten(1, (n, -1)).transpose(0, 1) for name, n in zip(names, heads, strict=True)
        )
        k = k.repeat_interleave(len(q) // len(k), 0)
        return (q @ k.transpose(1, 2)).tril().flatten(1)

    got, want, noisy = map(scores, (device, right, anchored))
    nearest = torch.nn.functional.normalize(got, dim=1) @ torch.nn.functional.normalize(want, dim=1).T
    matched = want[nearest.argmax(dim=1)]
    factor = (got * matched).sum() / matched.square().sum()
    noise = float((noisy - want).norm() / want.norm())
    apart = float((got - factor * matched).norm() / (factor * matched).norm())
    return apart <= MARGIN_OF_SCORES * noise + FLOOR_OF_SCORES


def _failing(profile):
    """The failing points of each block in which an inner point fails: {(layer, end): rows}"""
    found = {}
    for row in profile.points:
        if row["own"]["ok"] or row["own"]["rel_l2"] is None:
            continue
        for end, inner in BLOCKS.items():
            if row["point"] in inner:
                found.setdefault((row["layer"], end), []).append(row)
    return found


class _Union:
    """The anchors and some more."""

    def __init__(self, more):
        self.more = more

    def __contains__(self, name):
        return name in ANCHORS or name in self.more


def _block(device, right, anchored, wrong, layer, end, phase, floor):
    """Whether the block's own part is HF's in a phase; None where nothing was seen of it."""
    name = _name(layer, end)
    if name not in device.points or name not in right.points:
        return None
    rows = torch.arange(len(device.ids))[device.rows(phase)]
    known = device.known.get(name)
    rows = rows if known is None else rows[known[rows]]
    if not len(rows) or device.points[name].shape != right.points[name].shape:
        return None
    stream = _stream(device, layer, end)
    if stream is None:
        return None
    before = 0 if end == "lm_head" else device.points[stream][rows]
    got, want, noisy, harmed = (a.points[name][rows] - before for a in (device, right, anchored, wrong))
    if end != "lm_head":  # the sum is rounded as the stream is large, not as the branch is
        floor *= max(1.0, float(device.points[name][rows].norm() / want.norm().clamp(min=1e-30)))
    verdict = own_error(got, want, noisy, rows, MARGIN["submodules"], floor, APPROXIMATE_EXP * (end != "mlp.residual"))
    agrees = verdict["ok"] and (device.spread.get((name, phase)) or 0.0) <= verdict["bound"]
    harm = float((harmed - want).norm() / want.norm())
    return _Verdict(agrees, verdict["rel_l2"], harm > HARM * verdict["bound"])


def _stream(device, layer, end):
    """The anchor before a block."""
    if end == "lm_head":
        return "model.embed_tokens"
    if end == "mlp.residual":
        name = f"model.layers.{layer}.self_attn.residual"
    else:
        name = f"model.layers.{layer - 1}.mlp.residual" if layer else "model.embed_tokens"
    return name if name in device.points else None


def _name(layer, point):
    if layer is not None:
        return f"model.layers.{layer}.{point}"
    return point if point == "lm_head" else f"model.{point}"


def _said(end):
    return {"lm_head": "the head gives", "mlp.residual": "the MLP adds"}.get(end, "attention adds")
