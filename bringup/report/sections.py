"""What each section of a check's report shows: rows for its tables, drawings for its pictures, sentences."""

import math

from bringup.evaluation.metrics import TOP1_BAR, TOP5_BAR
from bringup.report import figures, plots

ORIGINS = {
    "emulator": (
        "emulated",
        "Computed on a PC with a Wormhole's arithmetic, as far as it is known. Nothing here was measured on a board.",
    ),
    "mock": (
        "mock cluster",
        "The vendor's library on a mock cluster: its argument checks and its memory; it holds no values.",
    ),
    "simulator": ("simulated", "Computed on the vendor's functional simulator: bit-exact values, and no time."),
    "silicon": ("measured", "Measured on a board."),
}
BARS = {"top1": TOP1_BAR, "top5": TOP5_BAR}
IN_SIGHT = 0.3  # a limit is drawn where this share of it is in use
MARKS = {"pass": "✓", "fail": "✗", "skipped": "–"}
RESULTS = {True: "passed", False: "failed", None: "not asked"}
WORDS = {"pass": "passed", "fail": "failed", "skipped": "skipped"}
SPLIT = {"weights": "weights", "kv": "KV cache", "dispatch": "dispatch", "ccl": "between chips", "other": "other"}


# ---------------------------------------------------------------- the top of the page
def model(check):
    return check.get("hf_id") or check.get("model_py") or "a model"


def origin(check):
    """(one word, a sentence): where the values come from."""
    backend = check.get("backend")
    return ORIGINS.get(backend, (str(backend), ""))


def failed(check):
    """The items that failed, in the checklist's order."""
    return [item for item in check.get("items") or () if item["status"] == "fail"]


def tally(check):
    """`9 passed, 1 skipped`."""
    statuses = [item["status"] for item in check.get("items") or ()]
    parts = [f"{statuses.count(status)} {word}" for status, word in WORDS.items() if status in statuses]
    n = sum(len(warnings(item)) for item in check.get("items") or ())
    parts += [f"{n} warning{'s' * (n > 1)}"] if n else []
    return ", ".join(parts) or "no items were run"


def warnings(item):
    """What an item warns of, although it passed."""
    return [line.removeprefix("warning: ") for line in item.get("evidence") or () if line.startswith("warning: ")]


def facts(check):
    """(name, value) of what was checked."""
    weights = "random weights" if check.get("random_weights") else check.get("checkpoint")
    backend = check.get("backend") or "?"
    numerics = f", numerics {check['numerics']}" if check.get("numerics") else ""
    rows = [("Model file", check.get("model_py")), ("Weights", weights), ("System", check.get("system"))]
    rows += [("Backend", backend + numerics), ("Extent", "quick" if check.get("quick") else "full")]
    return [(name, value) for name, value in rows if value]


def tiles(check):
    """(name, figure, note): what one wants to know first."""
    accuracy, memory, predicted = (check.get(k) or {} for k in ("accuracy", "memory", "predicted"))
    dram = (memory.get("chip") or {}).get("dram")
    out = []
    for key, name in (("top1", "Top-1"), ("top5", "Top-5")):
        if key in accuracy:
            out.append((name, figures.percent(accuracy[key]), figures.span(accuracy[f"{key}_interval"])))
    if "kl_mean" in accuracy:
        bf16 = (accuracy.get("bf16") or {}).get("kl_mean")
        note = "nats, mean" if bf16 is None else f"nats, mean; HF in BF16 {figures.small(bf16)}"
        out.append(("KL divergence", figures.small(accuracy["kl_mean"]), note))
    if dram:
        used = dram.get("peak", dram["allocated"])
        share = f"{figures.percent(used / dram['total'], 2 if used < 0.01 * dram['total'] else 1)}"
        out.append(("DRAM per chip", figures.size(used), f"peak; {share} of {figures.size(dram['total'])}"))
    if predicted:
        speed = figures.small(predicted["tokens_per_second_per_user"])
        out.append(("Tokens/s/user", speed, f"{predicted.get('label', 'predicted')}; not measured"))
    return out


# ---------------------------------------------------------------- accuracy
def columns(accuracy):
    """(name, figures) of each run that was compared with the FP32 reference."""
    given = accuracy.get("given_text") or {}
    pairs = [("Device", accuracy), ("HF in BF16", accuracy.get("bf16"))]
    pairs += [("Device, given text", given), ("HF in BF16, given text", given.get("bf16"))]
    return [(name, run) for name, run in pairs if run and "top1" in run]


def comparison(accuracy):
    """[what, (figure, interval or "") per column] of the table of figures."""
    runs = [run for _, run in columns(accuracy)]

    def rate(key):
        return [(figures.percent(r[key]), figures.span(r[f"{key}_interval"])) for r in runs]

    def number(key, show=figures.small):
        return [(show(r.get(key)), "") for r in runs]

    return [
        ["Tokens compared", *number("n", figures.count)],
        ["Top-1: the best token is the reference's", *rate("top1")],
        ["Top-5: the reference's token is in its five best", *rate("top5")],
        ["Its best token is in the reference's five best", *rate("top5_of_reference")],
        ["Best token outside the reference's hundred best", *number("garbage", figures.count)],
        ["KL divergence, mean (nats)", *number("kl_mean")],
        ["KL divergence, 99th percentile", *number("kl_p99")],
        ["KL divergence, worst", *number("kl_worst")],
        ["Logits, relative L2", *number("rel_l2")],
        ["Logits, PCC", *number("pcc", figures.pcc)],
        ["Perplexity of the reference", *number("perplexity_reference", lambda v: figures.fixed(v, 4))],
        ["Perplexity", *number("perplexity_device", lambda v: figures.fixed(v, 4))],
    ]


COLOURS = {"Device": plots.BLUE, "HF in BF16": plots.ORANGE}


def _colour(name):
    return COLOURS[name.split(",")[0]]


def rates(accuracy):
    groups, low = [], 0.85
    for key, title in (("top1", "Top-1"), ("top5", "Top-5")):
        rows = [(name, run[key], run[f"{key}_interval"], _colour(name)) for name, run in columns(accuracy)]
        groups.append((title, BARS[key], rows))
        low = min(low, *(interval[0] for _, _, interval, _ in rows))
    return plots.intervals(groups, low=math.floor(20 * low) / 20)


def by_position(accuracy):
    return [(name, run["positions"]) for name, run in columns(accuracy) if run.get("positions")]


def hits(accuracy):
    return plots.strips([(name, [p["top1"] for p in positions]) for name, positions in by_position(accuracy)])


def divergence(runs):
    series = [(n, [p["kl"] for p in positions], _colour(n), "o") for n, positions in runs]
    return plots.lines(series, "position of the new token", "KL divergence (nats)")


def misses(positions):
    return [i for i, p in enumerate(positions) if not p["top1"]]


# ---------------------------------------------------------------- layers
def place(point):
    """`layer 3, self_attn.k_rope`."""
    layer = "" if point.get("layer") is None else f"layer {point['layer']}, "
    return layer + (point.get("point") or "output")


def phases(layers):
    return list(dict.fromkeys(p["phase"] for p in layers["points"]))


def profile(layers, phase):
    """Relative L2 against FP32 along the model, of the device and of HF in BF16."""
    points = [p for p in layers["points"] if p["phase"] == phase]
    device = [p["rel_l2"] for p in points]
    bf16 = [(p.get("bf16") or {}).get("rel_l2") for p in points]
    series = [("device", device, plots.BLUE, "-")]
    if any(v is not None for v in bf16):
        series.append(("HF in BF16", bf16, plots.ORANGE, "--"))
    if any("own" in p for p in points):
        series.append(("device, the point's own part", [p["own"]["rel_l2"] for p in points], plots.PURPLE, ":"))
    starts = [i for i, p in enumerate(points) if not i or p.get("layer") != points[i - 1].get("layer")]
    names = [_band(points, i) for i in starts]
    ends = [*starts[1:], len(points)]
    bands = [(a - 0.5, b - 0.5) for k, (a, b) in enumerate(zip(starts, ends)) if k % 2]
    centres = [(a + b - 1) / 2 for a, b in zip(starts, ends)]
    first, mark = layers.get("first_divergence"), None
    if first and first.get("phase") == phase:
        at = [i for i, p in enumerate(points) if (p.get("layer"), p["point"]) == (first.get("layer"), first["point"])]
        mark = (at[0], "first divergence: " + place(first).replace(", ", ",\n")) if at else None
    xlabel = "layer" if any(p.get("layer") is not None for p in points) else "point"
    return plots.lines(series, xlabel, "relative L2", floor=1e-7, mark=mark, ticks=(centres, names), bands=bands)


def _band(points, i):
    """What the picture calls the band that starts at point i: its layer, else which end of the model it is."""
    layer = points[i].get("layer")
    return str(layer) if layer is not None else "start" if i == 0 else "end"


def worst(layers, most=12):
    """The points whose own error is largest beside what is allowed; where none has one, beside the BF16 run's.

    Values that are no numbers come first.
    """

    def share(point):
        own = point.get("own")
        if not own:
            return point.get("ratio") or 0
        return math.inf if own["rel_l2"] is None or own["bound"] is None else own["rel_l2"] / own["bound"]

    return sorted(layers["points"], key=share, reverse=True)[:most]


# ---------------------------------------------------------------- memory
def shares(memory):
    """(name, bytes as text, fraction of the chip, class) of what DRAM holds at its peak, and what is free."""
    dram, groups = memory["chip"]["dram"], memory.get("groups") or {}
    parts = [("weights", groups.get("weights")), ("KV cache", groups.get("cache"))]
    parts += [("activations, at their peak", groups.get("activations_peak"))]
    parts = [(name, n) for name, n in parts if n is not None]
    peak = dram.get("peak", dram["allocated"])
    rest = peak - sum(n for _, n in parts)
    if parts and rest > 0.005 * dram["total"]:
        parts.append(("not told apart", rest))
    parts = parts or [("allocated, at its peak", peak)]
    names = ("weights", "cache", "activations", "rest")
    parts.append(("free", dram["total"] - sum(n for _, n in parts)))
    names = [*names[: len(parts) - 1], "free"]
    return [(name, figures.size(n), n / dram["total"], names[i]) for i, (name, n) in enumerate(parts)]


def limit_in_sight(memory):
    return max(s["dram"] for s in memory["timeline"]) > IN_SIGHT * memory["chip"]["dram"]["total"]


def over_time(memory, most=400):
    """DRAM of one chip from op to op, stacked; the chip's limit where it is in sight."""
    groups = memory.get("groups") or {}
    steps = _peaks(memory["timeline"], "dram", most)
    weights, cache = groups.get("weights") or 0, groups.get("cache") or 0
    total = memory["chip"]["dram"]["total"]
    unit, name = _unit(max(s["dram"] for s in steps))
    layers = [
        ("weights", [min(s["dram"], weights) / unit for s in steps], plots.BLUE),
        ("KV cache", [max(0, min(s["dram"] - weights, cache)) / unit for s in steps], plots.ORANGE),
        ("activations", [max(0, s["dram"] - weights - cache) / unit for s in steps], plots.GREEN),
    ]
    limit = (total / unit, f"limit {figures.size(total)}") if limit_in_sight(memory) else None
    calls = [s["call"] for s in steps]
    return plots.stack(calls, layers, "op call", f"DRAM of one chip ({name})", limit, _spans(steps))


def l1_over_time(memory, most=400):
    steps = _peaks(memory["timeline"], "l1", most)
    total = memory["chip"]["l1"]["total"]
    top = max(s["l1"] for s in steps)
    unit, name = _unit(top)
    limit = (total / unit, f"limit {figures.size(total)}") if top > IN_SIGHT * total else None
    layers = [("L1 tensors", [s["l1"] / unit for s in steps], plots.SKY)]
    calls = [s["call"] for s in steps]
    return plots.stack(calls, layers, "op call", f"L1 of one chip ({name})", limit, _spans(steps))


def _peaks(timeline, key, most):
    """At most about `most` steps of a timeline, each the highest of the calls it stands for, in one phase.

    A call that does not touch the device has no bytes, and is left out.
    """
    size = max(1, len(timeline) // most)
    out, bucket = [], []
    for i, step in enumerate(timeline):
        if not step["dram"]:
            continue
        if bucket and (len(bucket) == size or step["phase"] != bucket[0]["phase"]):
            out.append(max(bucket, key=lambda s: s[key]))
            bucket = []
        bucket.append(step | {"call": i})
    return [*out, max(bucket, key=lambda s: s[key])] if bucket else out


def _spans(steps):
    return [(s["call"], s["phase"]) for i, s in enumerate(steps) if not i or s["phase"] != steps[i - 1]["phase"]]


def _unit(n_bytes):
    return (1e9, "GB") if n_bytes >= 1e9 else (1e6, "MB") if n_bytes >= 1e6 else (1e3, "kB")


# ---------------------------------------------------------------- ops and texts
def ops(check, most=30):
    """The ops by predicted time, then by bytes, and how many were left out."""
    rows = sorted(check["ops"], key=lambda r: (-(r.get("predicted_seconds") or 0), -(r.get("bytes") or 0)))
    return rows[:most], len(rows) - min(most, len(rows))


def split(predicted):
    """(name, time as text, fraction, class) of a decode step's predicted time."""
    parts = predicted.get("split") or {}
    whole = sum(parts.values())
    return [(SPLIT.get(k, k), "", v / whole, k) for k, v in parts.items() if v] if whole else []


def tokens(texts):
    """(reference, device): for each token its text, and whether the other text has another token there."""
    ours, theirs = texts["device"], texts["reference"]

    def side(one, other):
        return [(t["text"], i >= len(other) or other[i]["id"] != t["id"], i) for i, t in enumerate(one)]

    return side(theirs, ours), side(ours, theirs)
