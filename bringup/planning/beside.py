"""Predictions of functional and optimised model files at true size, beside the rows that others have published."""

import math
from functools import lru_cache

from bringup.backends import model_files, systems
from bringup.files import PROJECT

KINDS = ("functional", "optimized")
CONTEXT, PROMPT = 256, 128  # of the run by shapes; a prompt as long as the published row's, where there is one


def files():
    """{(HF id, system): {kind: path}} of the models that have an optimised file."""
    found = {}
    for path in sorted((PROJECT / "models").glob("*/*/*/optimized/model.py")):
        of = {kind: path.parents[1] / kind / path.name for kind in KINDS}
        if of["functional"].is_file():
            found[f"{path.parts[-5]}/{path.parts[-4]}", path.parts[-3]] = of
    order = {name: n for n, name in enumerate(systems.NAMES)}
    return dict(sorted(found.items(), key=lambda each: (each[0][0], order[each[0][1]])))


@lru_cache(maxsize=64)
def predicted(path):
    """{"tps", "ttft_ms", "bound_tps"} of a file with the known configuration of its path: traced, and with the next
    token chosen on the device, as far as it can; None where the path names no known model."""
    from bringup import backends
    from bringup.checkpoints import known
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import TOKEN_ON_DEVICE, speeds

    backends.activate("emulator")
    file = model_files.describe(path)
    if file.hf_id not in known.known_ids():
        return None
    system, prompt = systems.get(file.system), prompt_of(file.hf_id, *file.path.parts[-3:-1])
    found = spec_run(file.path, known.known_config(file.hf_id), system, max_seq_len=CONTEXT, prompt=prompt)
    ways = speeds(found, system, context=prompt + 32)
    best = ways[TOKEN_ON_DEVICE] if found.replayed is not None else ways["traced"]
    figures = {"tps": best.tokens_per_second_per_user, "ttft_ms": 1e3 * best.ttft_seconds}
    return figures | {"bound_tps": best.weights_bound_tps}


def published(hf_id, system, kind):
    """The row that others have published of a file of that kind, or None."""
    from bringup.planning import calibration

    asked = {"model": hf_id, "system": system, "kind": kind}
    rows = [*calibration.published(), *calibration.beside()]
    return next((row for row in rows if asked.items() <= row.items()), None)


def prompt_of(hf_id, system, kind):
    """Tokens of the prompt with which a file of that kind was published, else one of the other kind."""
    rows = (published(hf_id, system, each) for each in (kind, *KINDS))
    return next((row["prompt"] for row in rows if row and "prompt" in row), PROMPT)


def rows():
    """A dict for each file of `files`: its predictions, the published rows, and how they compare."""
    found = []
    for (hf_id, system), of in files().items():
        row = {"model": hf_id, "system": system, "predicted": {kind: predicted(path) for kind, path in of.items()}}
        row["published"] = {kind: published(hf_id, system, kind) for kind in KINDS}
        found.append(row)
    return found


def cells(figures):
    """t/s/u and TTFT of a prediction or of a published row as text."""
    if figures is None:
        return ""
    ttft = "" if figures["ttft_ms"] is None else f", {figures['ttft_ms']:.0f} ms"
    return f"{figures['tps']:.1f}{ttft}"


def table():
    """Lines of a markdown table: predicted and published speeds of each optimised file."""
    names = ["model", "system", "functional", "optimised", "weights alone", "published functional",
             "published optimised", "optimised / published", "of weights alone"]  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows():
        own, others = row["predicted"], row["published"]
        new, theirs = own["optimized"], others["optimized"]
        ratio = f"{new['tps'] / theirs['tps']:.2f}" if theirs else ""
        share = f"{new['tps'] / new['bound_tps']:.0%}"
        figures = [cells(own["functional"]), cells(new), f"{new['bound_tps']:.1f}"]
        figures += [cells(others[kind]) for kind in KINDS] + [ratio, share]
        lines.append("| " + " | ".join([row["model"], row["system"], *figures]) + " |")
    return lines


def farthest(found, most=3):
    """The files whose prediction is farthest from the published row of their kind: (factor, row, kind)."""
    pairs = [
        (row["predicted"][kind]["tps"] / row["published"][kind]["tps"], row, kind)
        for row in found
        for kind in KINDS
        if row["published"][kind]
    ]
    return sorted(pairs, key=lambda each: -abs(math.log(each[0])))[:most]


def why(row, kind):
    """Why the prediction of a file is far from the published row of its kind: what theirs does otherwise."""
    theirs = row["published"][kind]
    if "note" in theirs:
        return f"the published row was {theirs['note']}"
    if kind == "functional":
        return "theirs starts every program from the host, ours is counted as replayed from a trace"
    found = []
    if "weights" not in theirs:
        found.append("their weights are interleaved over the banks, ours lie side by side there as choices.json says")
    if systems.get(row["system"]).chips > 1:
        found.insert(0, "theirs sums over the chips with the library's plain all_reduce, ours with an asynchronous one")
    if "token" not in theirs:
        found.append("theirs reads logits on the host at each token")
    return "; ".join(found)


def bars(found):
    """Sentences: how the optimised files stand to 1.3 times the published t/s/u, its TTFT, and 70 % of the bound."""
    pairs = [(row, row["predicted"]["optimized"], row["published"]["optimized"]) for row in found]
    pairs = [each for each in pairs if each[2]]
    name = lambda row: f"{row['model']} {row['system']}"  # noqa: E731
    factor, least = min((own["tps"] / theirs["tps"], name(row)) for row, own, theirs in pairs)
    yield f"Optimised over published t/s/u, aimed at 1.3 times: at least {factor:.2f} ({least})."
    slower = [
        f"{name(row)} {own['ttft_ms']:.1f} ms, published {theirs['ttft_ms']:.1f}"
        for row, own, theirs in pairs
        if own["ttft_ms"] > theirs["ttft_ms"]
    ]
    yield f"TTFT, aimed at no longer than published, is longer of {'; '.join(slower) or 'none'}."
    large = [
        (row, row["predicted"]["optimized"])
        for row in found
        if row["system"] == systems.NAMES[0] and "7B" in row["model"]
    ]
    shares = [f"{name(row)} {own['tps'] / own['bound_tps']:.1%}" for row, own in large]
    yield f"Of what weights alone allow, aimed at 70 % of the 7B models on n150: {', '.join(shares)}."
