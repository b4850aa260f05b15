"""Where a device first leaves its HF model: every point of every layer compared, inherited errors told from own ones.

Plain figures compare the device with HF in float32, beside HF in bfloat16: they grow from layer to layer, because every
point inherits the errors before it. The verdict looks at each point's own error instead. The HF model is run again with
every module given the device's own input (`record_reference(given=...)`), once in float32 and once as the model file
says it computes: bfloat16 activations, weights and cache in their declared formats. The second run's distance from the
first is what the format explains; a point that is several times farther away has a fault of its own.
"""

from dataclasses import dataclass, field

from bringup.evaluation.layers.activations import record_reference, split
from bringup.evaluation.layers.declared import cache_format, formats, weights_as
from bringup.evaluation.layers.device_activations import record_device
from bringup.evaluation.layers.verdict import (
    APPROXIMATE_EXP,
    COARSE_FLOOR,
    MARGIN,
    PHASES,
    Divergence,
    figures,
    floor,
    own_error,
    ratio,
    why,
)


@dataclass
class Profile:
    """The comparison of all points. `first` prints as "layer 3, self_attn.k_rope"; None where nothing diverges."""

    points: list
    depth: str
    first: "Divergence | None" = None
    ids: list = field(default_factory=list)
    decode_from: int = 0
    notes: list = field(default_factory=list)  # differences that are made up for, and do no harm
    rebased: bool = False  # the residual stream is one of them: no block takes or gives what HF's does

    def as_dict(self):
        return {
            "points": self.points,
            "first_divergence": self.first and self.first.as_dict(),
            "depth": self.depth,
            "prefill_tokens": self.decode_from,
            "decode_tokens": len(self.ids) - self.decode_from,
            "notes": self.notes,
        }


def profile(model, hf_model, ids, decode_from, precision=None, user=0, earlier=()):
    """Run the device and the HF model over one sequence of token ids, `decode_from` of them as a prompt.

    `precision` is what the model file declares (bringup.blocks.Precision): the formats of its weights and cache. With
    `user` the device runs as many users as it takes to see that one, each at another position. `earlier` are tokens
    that may still be in the cache, in the place of those of the text that runs before.
    """
    device = record_device(model, ids, decode_from, user)
    device.earlier = list(earlier) or device.earlier
    return judge(hf_model, device, precision, model)


def judge(hf_model, device, precision=None, model=None):
    """The profile of a recorded device. With the device's `model` the reason can name the formats of its weights."""
    import torch

    from bringup.checkpoints.compute_dtype import computing_in
    from bringup.evaluation.layers import compensated, facts, left_out, suspects

    run = (device.ids, device.decode_from)

    def in_formats(only=None):
        with computing_in(hf_model, torch.bfloat16), weights_as(hf_model, precision):
            return record_reference(hf_model, *run, given=device, cache_format=cache_format(precision), only=only)

    explained = in_formats()
    with computing_in(hf_model, torch.bfloat16):
        bf16 = record_reference(hf_model, *run)
    with computing_in(hf_model, torch.float32):
        fp32 = record_reference(hf_model, *run)
        own = record_reference(hf_model, *run, given=device)
    found = compare(fp32, bf16, device, own=(own, explained), floor=floor(precision))
    anchored = in_formats(compensated.ANCHORS) if found.first else None
    with computing_in(hf_model, torch.float32):
        if anchored:
            compensated.sift(found, hf_model, device, anchored, floor(precision))
            if compensated.sift_whole(found, hf_model, device, fp32, bf16):
                return found
        stated = facts.differing(hf_model, device, model, precision)
        if found.first and (place := left_out.find(hf_model, device, own, found.first)):
            found.first = place
        elif found.first:
            held = formats(model, found.first.layer, found.first.point, precision)
            reason = suspects.explain(hf_model, device, own, found.first, model)
            said = {fact.rule: fact.words for fact in reversed(stated) if fact.at(found.first)}.values()
            found.first.why = "; ".join(dict.fromkeys(filter(None, (found.first.why, reason, held, *said))))
        else:
            found.first = next((fact.divergence() for fact in stated if fact.wrong or _unmade(fact, found)), None)
    return found


def compare(fp32, bf16, device, own=None, floor=COARSE_FLOOR):
    """The profile of recorded activations. `own`: the two runs on the device's inputs; without them a point is judged
    with all that it inherited."""
    exact, explained = own or (fp32, bf16)
    points, first = [], None
    for phase in PHASES:
        for name in device.names():
            if name not in fp32.points or fp32.points[name].shape != device.points[name].shape:
                continue
            rows = _rows(device, name, phase)
            if not len(rows):
                continue
            layer, point = split(name)
            values = device.points[name][rows]
            row = {"layer": layer, "point": point, "phase": phase, **figures(values, fp32.points[name][rows])}
            row["bf16"] = figures(bf16.points[name][rows], fp32.points[name][rows])
            row["ratio"] = ratio(row["rel_l2"], row["bf16"]["rel_l2"])
            approximation = APPROXIMATE_EXP if point == "self_attn" or device.depth != "submodules" else 0.0
            exact_values, explained_values = exact.points[name][rows], explained.points[name][rows]
            row["own"] = verdict = own_error(
                values, exact_values, explained_values, rows, MARGIN[device.depth], floor, approximation
            )
            verdict["chips_apart"] = apart = device.spread.get((name, phase))
            verdict["ok"] = verdict["ok"] and (apart or 0.0) <= verdict["bound"]
            points.append(row)
            if not verdict["ok"] and first is None:
                first = Divergence(layer, point, phase, why(verdict), verdict)
    return Profile(points, device.depth, first, device.ids, device.decode_from)


def _unmade(fact, profile):
    """A scale that is not HF's, of queries and keys that are: nothing makes up for it."""
    layer, _ = split(fact.module)
    of = [p["own"] for p in profile.points if p["layer"] == layer and p["point"].endswith("_rope")]
    return fact.rule.alone and bool(of) and all(own["ok"] and not own.get("compensated") for own in of)


def _rows(device, name, phase):
    import torch

    rows = torch.arange(len(device.ids))[device.rows(phase)]
    known = device.known.get(name)
    return rows if known is None else rows[known[rows]]
