"""What is said of one point: its figures, its own error against what the formats explain, and the first that is off."""

import math
from dataclasses import dataclass

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


def floor(precision):
    """The part of a bound that does not depend on the values."""
    configs = [getattr(precision, kind, None) for kind in ("linear", "norm", "sdpa")]
    return FLOOR if all(c is not None and c.fp32_dest_acc_en for c in configs) else COARSE_FLOOR


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


def ratio(error, yardstick):
    if error is None or not yardstick:
        return None
    return error / yardstick


def own_error(device, exact, explained, rows, margin, floor, approximation):
    """A point's own error over all positions and at its worst one, against what the format explains of each.

    Every position is judged by itself too, so that one wrong token among many shows.
    """
    error, noise = rel_l2(exact, device), rel_l2(exact, explained)
    size = exact.norm(dim=-1)
    size = size.clamp(min=max(0.1 * float(size.mean()), 1e-30))  # a padding token's embedding may be zeros alone
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
    if own["explained"] is None:
        return f"relative L2 {own['rel_l2']:.2g} from HF in float32, where HF in the file's formats is not finite"
    times = f" ({own['rel_l2'] / own['explained']:.0f} times)" if own["explained"] else ""
    text = f"relative L2 {own['rel_l2']:.2g} from HF in float32 on the device's own input, where the format explains "
    worst = "not finite" if own["worst_rel_l2"] is None else f"{own['worst_rel_l2']:.2g}"
    text += f"{own['explained']:.2g}{times}; worst at position {own['worst_position']} ({worst})"
    if (own["chips_apart"] or 0.0) > own["bound"]:
        text += f"; the chips hold different values ({own['chips_apart']:.2g} apart) where each needs the sum of all"
    return text
