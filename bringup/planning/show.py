"""A plan for people: tables on a terminal."""

from bringup.backends import systems
from bringup.console import screen
from bringup.planning.calibration import doubt

CONTEXTS_AND_SPEEDS = ("32 rows", "paged, 1", "paged, 32", "TTFT ms", "t/s/u", "traced*")


def show_systems(result):
    """The table of every system, and which is the smallest that holds the model."""
    users = f"{result['users']} user{'s' * (result['users'] > 1)}"
    what = f"{users} of {result['context']} positions, cache {result['cache']}, prompt of {result['prompt']}"
    columns = ("chips", "weights", "fits", "needed", "of", *CONTEXTS_AND_SPEEDS)
    table = _table(f"{result['hf_id'] or 'The configuration'} on every system: {what}", "system", *columns)
    for r in result["systems"]:
        sizes = gb(r["needed_bytes"]), gb(r["dram_bytes"])
        table.add_row(r["system"], str(r["chips"]), r["weights"], r["fits"] or "no", *sizes, *systems_row(r))
    console = screen(150, soft_wrap=True)
    console.print(table)
    console.print("\n".join(remarks(result)))


def remarks(result):
    """What the table of every system cannot say, each once."""
    rows, smallest = result["systems"], result["smallest_system"]
    yield "Bytes are a chip's, contexts a user's, weights the widest that fit; * and the token chosen on the chip."
    yield f"Smallest system that holds it: {smallest or 'none; a bfp8 cache (--cache) needs less'}."
    for name in dict.fromkeys(systems.get(r["system"]).chip.name for r in rows if r["predicted"]):
        yield doubt(name)
    untested = [r["system"] for r in rows if not r["recorded"]]
    yield f"Untested: no call of the library was recorded on {', '.join(untested)}."
    for why in dict.fromkeys(r["refused"].splitlines()[0] for r in rows if r["refused"]):
        yield f"No speed where running it by shapes was refused: {why}"
    gaps = next((r["gaps"] for r in rows if r["gaps"]), None)
    if gaps:
        yield f"Counted from shapes alone, no speed predicted: {'; '.join(gaps)}"


def show(result):
    console = screen(150, soft_wrap=True)
    console.print("\n".join(head(result)))
    for table in (bytes_table(result), context_table(result), split_table(result), systems_table(result)):
        if table is not None:
            console.print(table)
    console.print("\n".join(notes(result)))


def head(result):
    weights = result["weights"]
    same = len(set(weights.values())) == 1
    dtypes = weights["mlp"] if same else ", ".join(f"{group} {dtype}" for group, dtype in weights.items())
    users = f"{result['users']} user{'s' * (result['users'] > 1)}"
    fits = {"unpaged": "fits, 32 rows of cache", "paged": "fits with a paged cache", None: "does not fit"}
    return [
        f"{result['hf_id'] or 'configuration'} on {systems.get(result['system'])}: weights {dtypes}, "
        f"cache {result['cache']}, {users} of {result['context']} positions",
        f"{fits[result['chip']['fits']]}: {gb(result['chip']['needed'])} of {gb(result['chip']['total'])} a chip; "
        f"smallest system that holds it: {result['smallest_system'] or 'none'}",
    ]


def gb(n):
    return f"{n / 1e9:,.2f} GB" if n >= 1e8 else f"{n / 1e6:,.1f} MB"


def _table(title, *columns):
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def bytes_rows(result):
    """(what, bytes of one chip, note)"""
    chip, run = result["chip"], result["run"] or {}
    rows = [(f"weights: {group}", n, "") for group, n in chip["weights"].items()]
    rows += [("KV cache, 32 rows", chip["cache"]["unpaged"], f"{chip['cache_per_position']['unpaged']:,} B a position")]
    paged = f"KV cache, paged, {result['users']} user{'s' * (result['users'] > 1)}"
    rows += [(paged, chip["cache"]["paged"], f"{chip['cache_per_position']['user']:,} B a position")]
    rows += [("RoPE tables", chip["rope"], "")]
    if "activations" in run:
        rows += [(f"activations, prompt of {result['prompt']}", run["activations"]["prefill"], "peak, run by shapes")]
        rows += [("activations, decode step", run["activations"]["decode"], "peak, run by shapes")]
        rows += [("L1, prompt", run["l1_peak"]["prefill"], "tensors, all cores; without programs' buffers")]
        rows += [("L1, decode step", run["l1_peak"]["decode"], "")]
    longest = f"activations, prompt of {result['context']} in one pass"
    return [*rows, (longest, chip["activations_estimate"], "estimate from shapes")]


def bytes_table(result):
    table = _table("Bytes of one chip", "what", "bytes", "", "")
    for what, n, note in bytes_rows(result):
        table.add_row(what, f"{n:,}", gb(n), note)
    return table


def context_table(result):
    longest = result["longest_context"]
    table = _table("Longest context, positions of each user", "cache", "1 user", "8 users", "32 users", "run by shapes")
    run = longest.get("run", {})
    ran = {
        kind: f"{run[kind]['context']:,}" if run.get(kind, {}).get("context") else "" for kind in ("unpaged", "paged")
    }
    table.add_row("32 rows", *[f"{longest['unpaged']:,}"] * 3, ran["unpaged"])
    table.add_row("paged, blocks of 64", *(f"{n:,}" for n in longest["paged"].values()), ran["paged"])
    return table


def split_table(result):
    if not result["predicted"]:
        return None
    table = _table(
        "Predicted speed", "", "TTFT ms", "t/s/u", "weights", "KV", "dispatch", "CCL", "other", "bound t/s/u"
    )
    for name, p in result["predicted"].items():
        parts = [f"{1e3 * seconds:.1f} ms" for seconds in p["split"].values()]
        speed = f"{p['tokens_per_second_per_user']:.1f}"
        table.add_row(name, f"{1e3 * p['ttft_seconds']:.0f}", speed, *parts, f"{p['weights_bound_tps']:.1f}")
    return table


def systems_table(result):
    if not result.get("table"):
        return None
    columns = ("weights", "needed", *CONTEXTS_AND_SPEEDS)
    title = (
        "Systems and weight dtypes, each chip; longest contexts; speeds predicted (* and the token chosen on the chip)"
    )
    table = _table(title, "system", "dtype", "fits", *columns)
    for r in result["table"]:
        sizes = gb(r["weights_bytes"]), gb(r["needed_bytes"])
        table.add_row(r["system"], r["weights"], r["fits"] or "no", *sizes, *systems_row(r))
    return table


def systems_row(r):
    """Longest contexts and predicted speeds."""
    speeds = ["", "", ""]
    if r["predicted"]:
        untraced, *_, best = r["predicted"].values()
        speeds = [f"{1e3 * untraced['ttft_seconds']:.0f}"]
        speeds += [f"{p['tokens_per_second_per_user']:.1f}" for p in (untraced, best)]
    contexts = [f"{n:,}" for n in (r["unpaged"], r["paged"]["1"], r["paged"]["32"])]
    return [*contexts, *speeds]


def notes(result):
    out = []
    if result["predicted"]:
        out.append(doubt(systems.get(result["system"]).chip.name))
    if result["chips"] > 1:
        for r in result["tensor_parallel"]:
            cost = f", padding and copies {gb(r['padding_bytes'])} a chip" if r["padding_bytes"] else ""
            how = "divides" if r["divides"] else "does not divide into whole tiles"
            out.append(f"{r['what']}: {r['size']} {how} over {result['chips']} chips, {r['per_chip']} each{cost}")
    run = result["run"]
    if result["wiring"] == "blocks":
        out.append("There is no model file for it: one that `bringup new` writes was run.")
    if run is None:
        out.append(f"Counted from shapes alone, no speed predicted: {'; '.join(result['gaps'])}")
    elif "refused" in run:
        out.append(f"The model file was refused when run by shapes:\n{run['refused']}")
    elif run["counted"]:
        out.append(f"Allocated after building by shapes: {run['allocated']:,} B, counted {run['counted']:,} B.")
    else:
        out.append(
            f"Allocated after building by shapes: {run['allocated']:,} B; the file has filled DRAM with a paged cache."
        )
    for kind, ran in result["longest_context"].get("run", {}).items():
        if ran["refused"]:
            first, *rest = ran["refused"].splitlines()
            why = (rest or [first])[0].strip()[:160]  # what the device says comes after where it was
            out.append(f"Longest {kind} context, refused when run by shapes: {why}")
    if result["uncounted"]:
        out.append(f"Weights that no rule knows, counted on every chip: {', '.join(result['uncounted'][:5])}")
    return out
