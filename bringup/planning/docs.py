"""docs/planning.md: the plans of the known models, and the predictions beside what others have published."""

from pathlib import Path
from types import SimpleNamespace

from bringup.backends import systems
from bringup.checkpoints import known
from bringup.planning import beside, calibration
from bringup.planning.calibration import chip, key
from bringup.planning.plan import find_config, plan
from bringup.planning.show import bytes_rows, gb
from bringup.planning.spec_run import find_model_file

# What a prediction rests on: of a chip's description; and what is fitted to published figures, as a share or in us.
CONSTANTS = {
    "DRAM of a chip, GB/s": lambda chip, rates: f"{chip.dram_bytes_per_second / 1e9:.0f}",
    "cores, GHz, FLOP a cycle in LoFi": lambda chip, rates: (
        f"{chip.cores}, {chip.cycles_per_second / 1e9:g}, {chip.flops_per_cycle}"
    ),
    "a link, each way, Gb/s": lambda chip, rates: f"{8 * chip.link_bytes_per_second / 1e9:.0f}",
}
SHARES = {
    "read_fraction": "of DRAM's rate, interleaved operands",
    "grid_fraction": "of it, operands of products along rows and columns of cores",
    "sharded_fraction": "of it, weights sharded over the banks",
    "write_fraction": "of it, interleaved results",
    "link_fraction": "of the links' rate",
}
MICROSECONDS = {
    "step_seconds": "a block of K, at least",
    "tile_seconds": "a tile of an element-wise op",
    "row_seconds": "a tile of a norm",
    "score_seconds": "a tile of attention's scores",
    "product_start": "start of a product",
    "grid_start": "of one along rows and columns",
    "sharded_start": "of one with sharded weights",
    "row_start": "of a norm or reduction",
    "tile_start": "of an element-wise op",
    "move_start": "of a reshape, a permutation, a look-up",
    "attention_start": "of attention",
    "collective_start": "of a collective",
    "async_start": "of one with buffers of its own",
    "hop_seconds": "a step of a collective",
    "async_hop_seconds": "of one with buffers of its own",
    "gap_seconds": "between programs of a trace",
    "call_seconds": "a call of the host",
}
CONSTANTS |= {
    "cycles of a tile product over the unit's own (fitted)": lambda chip, rates: f"{rates.multiply:.2f}",
    "bytes a cycle into the matrix unit (fitted)": lambda chip, rates: f"{rates.unpack_bytes_per_cycle:.0f}",
}
CONSTANTS |= {
    f"{what} (fitted)": lambda chip, rates, name=name: f"{getattr(rates, name):.0%}" for name, what in SHARES.items()
}
CONSTANTS |= {
    f"{what}, us (fitted)": lambda chip, rates, name=name: f"{1e6 * getattr(rates, name):.2g}"
    for name, what in MICROSECONDS.items()
}
CONSTANTS |= {
    "logits read by the host, GB/s (fitted)": lambda chip, rates: f"{rates.read_bytes_per_second / 1e9:.1f}",
    "those of several chips, joined, MB/s (fitted)": lambda chip, rates: (
        f"{rates.mesh_read_bytes_per_second / 1e6:.0f}"
    ),
}
FAMILIES = tuple(tuple(systems.alike(name)) for name in ("n150", "p150"))  # a table for each kind of chip

TEMPLATE = Path(__file__).with_name("planning.md.j2")


def render():
    from jinja2 import Template

    shipped = [name for names in FAMILIES for name in names]
    ids = [hf_id for hf_id in known.known_ids() if all(find_model_file(hf_id, name) for name in shipped)]
    models = "\n".join("\n".join([f"## {hf_id}", "", *(section(hf_id, names) for names in FAMILIES)]) for hf_id in ids)
    stored = calibration.stored()
    words = {"models": models, "beside": "\n".join(optimised())}
    return Template(TEMPLATE.read_text()).render(**words, **figures(stored)) + "\n"


def optimised():
    """The table of optimised files, and which predictions are farthest from published rows, and why."""
    found = beside.rows()
    yield from beside.table()
    yield ""
    yield " ".join(beside.bars(found))
    yield ""
    yield "Farthest from the published row of a file of the same kind, in t/s/u, and why:"
    yield ""
    for factor, row, kind in beside.farthest(found):
        yield f"- {row['model']} {row['system']} {kind}, {factor:.2f} times: {beside.why(row, kind)}."


def section(hf_id, names):
    """A model on the systems of a kind of chip: bytes of a chip, contexts, what tensor parallelism costs, speeds."""
    _, config = find_config(hf_id)
    plans = [plan(config, name, hf_id=hf_id, table=False) for name in names]
    family, weights = systems.get(names[0]).chip.family, plans[0]["weights"]["mlp"]
    lines = [f"{family}: weights {weights}, cache bf16, prompt of 128 tokens, one user of 1024 positions.", ""]
    lines += _table(["", *names], _rows(plans)) + [""]
    for p in plans[1:]:
        costs = [r for r in p["tensor_parallel"] if not r["divides"]]
        shown = [f"{r['what']} {r['size']} -> {r['per_chip']} a chip{_cost(r)}" for r in costs]
        lines.append(f"On {p['system']} {'; '.join(shown) if shown else 'every dimension divides'}.")
    lines += [f"Smallest system that holds these weights: {plans[0]['smallest_system']}.", ""]
    return "\n".join(lines)


def _cost(r):
    return f" (padding and copies {gb(r['padding_bytes'])})" if r["padding_bytes"] else ""


def _rows(plans):
    """Lines of the table of a model: what, and a cell for each system."""
    columns = [dict(_cells(p)) for p in plans]
    return [
        [what, *(column.get(what, "") for column in columns)] for what in dict.fromkeys(k for c in columns for k in c)
    ]


def _cells(p):
    """(what, text) of one system."""
    for what, n, _ in bytes_rows(p):
        yield what, gb(n)
    longest, predicted = p["longest_context"], p["predicted"]
    ran, paged = longest["run"], longest["paged"]
    yield "needed in all, 1024 positions", f"{gb(p['chip']['needed'])}, {p['chip']['fits'] or 'does not fit'}"
    yield "longest context, 32 rows", _context(longest["unpaged"], ran["unpaged"])
    yield "longest context, paged, 1 user", _context(paged["1"], ran["paged"])
    yield "longest context, paged, 8 users", f"{paged['8']:,}"
    yield "longest context, paged, 32 users", f"{paged['32']:,}"
    if predicted:
        for name, speed in predicted.items():
            yield f"predicted t/s/u, {name}", f"{speed['tokens_per_second_per_user']:.1f}"
        yield "its step in ms: weights, KV, dispatch, CCL, other", _split(speed["split"])
        yield "t/s/u by weights alone", f"{speed['weights_bound_tps']:.1f}"
        yield "predicted TTFT, ms", f"{1e3 * predicted['untraced']['ttft_seconds']:.0f}"


def _context(counted, ran):
    if ran["context"] in (counted, 0):
        return f"{counted:,}" + (" (run)" if ran["context"] else "")
    return f"{counted:,} ({ran['context']:,} run)"


def _split(split):
    return ", ".join(f"{1e3 * seconds:.1f}" for seconds in split.values())


def figures(stored):
    """What the text about predictions fills in."""
    chips = [systems.get(names[0]).chip for names in FAMILIES]
    rates = [SimpleNamespace(**stored["rates"][c.name]) for c in chips]
    constants = [[what, *(text(c, r) for c, r in zip(chips, rates, strict=True))] for what, text in CONSTANTS.items()]
    return {
        "constants": "\n".join(_table(["", *(c.family for c in chips)], constants)),
        "errors": "\n".join(_errors(stored)),
        "programs": "\n".join(_programs(stored)),
        "rows": "\n\n".join("\n".join([f"{c.family}:", "", *rows_table(stored, c)]) for c in chips),
        "n": len(stored["rows"]),
        "n_programs": len(stored["programs"]),
        "used": sum(row["used_for_calibration"] for row in stored["rows"]),
    }


def _errors(stored):
    """By kind of figure, over what did not calibrate."""
    rows = [
        [group, e["rows"], f"{e['median']:.0%}", f"{e['worst']:+.0%} ({e['worst_row']})"]
        for group, e in stored["held_out"].items()
    ]
    return _table(["seconds of", "figures", "median error", "worst"], rows)


def _programs(stored):
    """Single programs, measured and predicted."""
    rows = [[p["program"], p["system"], p["us"], p["predicted_us"]] for p in stored["programs"]]
    rows = [[*names, f"{us:.1f}", f"{ours:.1f}", f"{ours / us - 1:+.0%}"] for *names, us, ours in rows]
    return _table(["program", "system", "measured us", "predicted us", "error"], rows)


def rows_table(stored, of):
    """Published and predicted, row by row, of a kind of chip."""
    names = ["row", "", "t/s/u published", "predicted", "error", "TTFT ms published", "predicted", "error", "source"]
    cells = []
    for r in stored["rows"]:
        if chip(r) != of.name:
            continue
        figures = []
        for figure, shown in (("tps", ".1f"), ("ttft_ms", ".0f")):
            error = f"{r['error'][figure]:+.0%}" if figure in r["error"] else ""
            ours = f"{r['predicted'][figure]:{shown}}" if figure in r["predicted"] else ""
            figures += [r[figure] or "", ours, error]
        cells.append([key(r), "fit" if r["used_for_calibration"] else "", *figures, r.get("source", "")])
    return _table(names, cells)


def _table(names, rows):
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]
