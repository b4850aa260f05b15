"""Where a device first leaves its HF model: every point of every layer compared, inherited errors told from own ones.

Plain figures compare the device with HF in float32, beside HF in bfloat16: they grow from layer to layer, because every
point inherits the errors before it. The verdict looks at each point's own error instead. The HF model is run again with
every module given the device's own input (`record_reference(given=...)`), once in float32 and once as the model file
says it computes: bfloat16 activations, weights and cache in their declared formats. The second run's distance from the
first is what the format explains; a point that is several times farther away has a fault of its own.
"""

import math
from dataclasses import dataclass, field

from bringup.evaluation.layers.activations import record_reference, split
from bringup.evaluation.layers.declared import cache_format, weights_as
from bringup.evaluation.layers.device_activations import record_device
from bringup.evaluation.pcc import pcc, rel_l2

# How far beyond what the format explains a point may be. Four small trained models on one, two and eight chips, in
# fast and exact numerics, on five texts, as shipped and with bfloat8_b weights and cache, stay below 0.52 of the bounds
# that follow from these numbers; with the library's default compute configs (HiFi2 products, a bfloat16 running sum)
# below 0.72. A file without named submodules says nothing of its formats, and its points sum up layers or the model.
MARGIN = {"submodules": 3.0, "hidden_states": 5.0, "logits": 8.0}
FLOOR = 0.005  # relative L2: a few roundings to bfloat16 (1.7e-3 each), where the format run happens to be exact
COARSE_FLOOR = 2 * FLOOR  # where the model file does not ask for sums in fp32, or says nothing
# Attention with an approximate exp is 2.0e-2 from fp32 attention (relative rms, ttnn 0.81.1 on the functional
# simulator). Decode attention of up to 16 query heads a chip takes it whatever is asked for, a prompt's by default.
APPROXIMATE_EXP = 0.022
PHASES = ("prefill", "decode")


@dataclass
class Profile:
    """The comparison of all points. `first` prints as "layer 3, self_attn.k_rope"; None where nothing diverges."""

    points: list
    depth: str
    first: "Divergence | None" = None
    ids: list = field(default_factory=list)
    decode_from: int = 0
    notes: list = field(default_factory=list)  # differences that are made up for, and do no harm

    def as_dict(self):
        return {
            "points": self.points,
            "first_divergence": self.first and self.first.as_dict(),
            "depth": self.depth,
            "prefill_tokens": self.decode_from,
            "decode_tokens": len(self.ids) - self.decode_from,
            "notes": self.notes,
        }


@dataclass
class Divergence:
    """A point; `point` "" is a whole layer."""

    layer: int | None
    point: str
    phase: str
    why: str
    verdict: dict | None = None  # the point's own error and its bounds

    def __str__(self):
        return ", ".join(filter(None, ("" if self.layer is None else f"layer {self.layer}", self.point)))

    def as_dict(self):
        return {"layer": self.layer, "point": self.point, "phase": self.phase, "why": self.why}


def profile(model, hf_model, ids, decode_from, precision=None, user=0):
    """Run the device and the HF model over one sequence of token ids, `decode_from` of them as a prompt.

    `precision` is what the model file declares (bringup.blocks.Precision): the formats of its weights and cache. With
    `user` the device runs as many users as it takes to see that one, each at another position.
    """
    return judge(hf_model, record_device(model, ids, decode_from, user), precision, model)


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
        stated = facts.differing(hf_model, device, model, precision)
        if found.first and (place := left_out.find(hf_model, device, own, found.first)):
            found.first = place
        elif found.first:
            formats = suspects.formats(model, found.first.layer, found.first.point, precision)
            reason = suspects.explain(hf_model, device, own, found.first, model)
            said = {fact.rule: fact.words for fact in reversed(stated) if fact.at(found.first)}.values()
            found.first.why = "; ".join(filter(None, (found.first.why, reason, formats, *said)))
        else:
            found.first = next((fact.divergence() for fact in stated if fact.wrong), None)
    return found


def floor(precision):
    """The part of a bound that does not depend on the values."""
    configs = [getattr(precision, kind, None) for kind in ("linear", "norm", "sdpa")]
    return FLOOR if all(c is not None and c.fp32_dest_acc_en for c in configs) else COARSE_FLOOR


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
            row["ratio"] = _ratio(row["rel_l2"], row["bf16"]["rel_l2"])
            approximation = APPROXIMATE_EXP if point == "self_attn" or device.depth != "submodules" else 0.0
            exact_values, explained_values = exact.points[name][rows], explained.points[name][rows]
            row["own"] = verdict = own_error(
                values, exact_values, explained_values, rows, MARGIN[device.depth], floor, approximation
            )
            verdict["chips_apart"] = apart = device.spread.get(name)
            verdict["ok"] = verdict["ok"] and (apart or 0.0) <= verdict["bound"]
            points.append(row)
            if not verdict["ok"] and first is None:
                first = Divergence(layer, point, phase, why(verdict), verdict)
    return Profile(points, device.depth, first, device.ids, device.decode_from)


def _rows(device, name, phase):
    import torch

    rows = torch.arange(len(device.ids))[device.rows(phase)]
    known = device.known.get(name)
    return rows if known is None else rows[known[rows]]


def figures(got, want):
    """PCC, relative L2, largest and mean error of `got` against `want`; None where there is no finite number."""
    error = (got.double() - want.double()).flatten()
    found = {
        "pcc": pcc(want, got),
        "rel_l2": rel_l2(want, got),
        "max_error": float(error.abs().max()),
        "bias": float(error.mean()),
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _ratio(error, yardstick):
    if error is None or not yardstick:
        return None
    return error / yardstick


def own_error(device, exact, explained, rows, margin, floor, approximation):
    """A point's own error over all positions and at its worst one, against what the format explains of each.

    Every position is judged by itself too, so that one wrong token among many shows.
    """
    error, noise = rel_l2(exact, device), rel_l2(exact, explained)
    size = exact.norm(dim=-1).clamp(min=0.1 * float(exact.norm(dim=-1).mean()))
    by_row, noise_by_row = ((x - exact).norm(dim=-1) / size for x in (device, explained))
    worst = int(by_row.nan_to_num(nan=math.inf).argmax())
    bound = margin * noise + floor + approximation
    row_bound = margin * float(noise_by_row.max()) + floor + 2 * approximation
    finite = bool(device.isfinite().all())
    return {
        "rel_l2": error if math.isfinite(error) else None,
        "explained": noise if math.isfinite(noise) else None,
        "bound": bound if math.isfinite(bound) else None,
        "ok": finite and error <= bound and float(by_row[worst]) <= row_bound,
        "worst_position": int(rows[worst]),
        "worst_rel_l2": float(by_row[worst]) if finite and math.isfinite(float(by_row[worst])) else None,
        "worst_bound": row_bound if math.isfinite(row_bound) else None,
    }


def why(own):
    """The numbers that decided."""
    if own["rel_l2"] is None:
        return f"the values are not finite, first at position {own['worst_position']}"
    times = f" ({own['rel_l2'] / own['explained']:.0f} times)" if own["explained"] else ""
    text = f"relative L2 {own['rel_l2']:.2g} from HF in float32 on the device's own input, where the format explains "
    text += f"{own['explained']:.2g}{times}; worst at position {own['worst_position']} ({own['worst_rel_l2']:.2g})"
    if (own["chips_apart"] or 0.0) > own["bound"]:
        text += f"; the chips hold different values ({own['chips_apart']:.2g} apart) where each needs the sum of all"
    return text
