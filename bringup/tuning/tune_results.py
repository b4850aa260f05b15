"""What a search of `bringup tune` has found, as plain data, in words and as a picture."""

import json

from bringup.errors import shown
from bringup.files import written_whole
from bringup.report import plots
from bringup.tuning import candidates
from bringup.tuning.sweep import PROMPT
from bringup.tuning.trials import ANSWER, FUNCTIONAL, seconds


def record(lab, found, start, bound, took):
    """tune.json."""
    points = rows(lab)
    chosen = found.chosen and candidates.key(found.chosen)
    for row in points:
        row["chosen"] = candidates.key(row["choices"]) == chosen
        row["holds"] = row["accuracy"]["top1"] >= found.functional["fast"]["top1"] - bound / 100
        row["shipped"] = candidates.key(row["choices"]) == candidates.key(start)
    return {
        "format": 1, "label": "predicted", "model_py": shown(lab.common.model_py), "system": lab.common.system,
        "checkpoint": lab.common.model, "text": shown(lab.common.text_file), "prompt": PROMPT, "answer": ANSWER,
        "bound_top1": bound, "functional": found.functional, "shipped": start, "chosen": found.chosen,
        "final": found.final, "turned_down": [{"choices": data, "why": why} for data, why in found.turned_down],
        "points": points, "timed": len(lab.asked["time"]), "refused": refused(lab), "seconds": took,
        "finished": not lab.late(),
    }  # fmt: skip


def rows(lab):
    """A row for each candidate of which both time and accuracy are known; `pareto`: no other is faster and closer."""
    found = []
    for name, accuracy in lab.asked["fast"].items():
        timed = lab.asked["time"].get(name)
        if name != FUNCTIONAL and timed and "refused" not in {**timed, **accuracy}:
            found.append({"choices": json.loads(name), "prompt_seconds": timed["prompt"],
                          "step_seconds": timed["step"], "seconds": seconds(timed), "accuracy": accuracy})  # fmt: skip
    found.sort(key=lambda row: (row["seconds"], row["accuracy"]["kl_mean"]))
    least = float("inf")
    for row in found:
        row["pareto"] = row["accuracy"]["kl_mean"] < least
        least = min(least, row["accuracy"]["kl_mean"])
    return found


def refused(lab):
    """{why: how many candidates}, by the first two lines."""
    counted: dict = {}
    for kind in ("time", "full", "fast", "exact"):
        for result in lab.asked[kind].values():
            if "refused" in result:
                why = " ".join(line.strip() for line in result["refused"].splitlines()[:2])
                counted[why] = counted.get(why, 0) + 1
    return counted


def said(found):
    """Lines for people."""
    functional = found["functional"]["fast"]
    lines = [f"{found['timed']} candidates timed, {len(found['points'])} with accuracy, {found['seconds']:.0f} s"]
    lines += [f"refused, {n} candidates: {why}" for why, n in found["refused"].items()]
    lines.append(f"functional: {_accuracy(functional)}")
    for name in ("shipped", "chosen"):
        for row in (row for row in found["points"] if row[name]):
            speed = f"predicted {1 / row['step_seconds']:.1f} t/s/u, TTFT {1e3 * row['prompt_seconds']:.1f} ms"
            outside = ", which is not within the bound" * (not row["holds"])
            lines.append(f"{name}: {speed}; {_accuracy(row['accuracy'])}{outside}")
    if not found["finished"]:
        lines.append("the budget was spent before the search was through: the same command with more goes on")
    if found["chosen"] is None:
        return [*lines, f"nothing is within {found['bound_top1']:g} points of the functional file's top-1"]
    exact = found["final"]["exact"]
    lines.append(f"chosen, exact numerics: {_accuracy(exact)}; functional {_accuracy(found['functional']['exact'])}")
    return [*lines, json.dumps(found["chosen"])]


def _accuracy(accuracy):
    if "refused" in accuracy:
        return f"refused: {accuracy['refused'].splitlines()[0]}"
    return f"top-1 {accuracy['top1']:.1%} of {accuracy['n']}, mean KL {accuracy['kl_mean']:.2e}"


def draw(found, out):
    """The picture of speed against closeness as SVG and PNG; nothing where no point has both."""
    points = found["points"]
    if not points:
        return []
    from matplotlib.figure import Figure

    def at(row):
        return 1 / row["step_seconds"], row["accuracy"]["kl_mean"]

    def some(wanted, text=""):
        return [(*at(row), text) for row in points if wanted(row)]

    groups = [
        ("candidates", some(lambda r: not r["pareto"]), plots.SKY, "o"),
        ("nothing is both faster and closer", some(lambda r: r["pareto"]), plots.BLUE, "o"),
        ("as shipped", some(lambda r: r["shipped"], "shipped"), plots.ORANGE, "s"),
        ("chosen", some(lambda r: r["chosen"], "chosen"), plots.GREEN, "D"),
    ]
    figure = Figure(figsize=(8, 5), layout="constrained")
    names = "predicted tokens per second and user, traced, token chosen on the device"
    front = sorted(at(row) for row in points if row["pareto"])
    drawn = [group for group in groups if group[1]]
    plots.scatter(drawn, names, "mean KL divergence from HF (emulated)", front, log=(False, True))(figure, narrow=False)
    figure.axes[0].set_title(f"{found['model_py']}, {found['checkpoint'] or ''}", fontsize=9)
    pictures = [out / "tune.svg", out / "tune.png"]
    for path in pictures:
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=150, format=path.suffix[1:])
    return pictures
