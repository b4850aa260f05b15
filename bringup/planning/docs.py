"""docs/planning.md: the plans of the known models, and the predictions beside what others have published."""

from pathlib import Path

from bringup.checkpoints import known
from bringup.planning import calibration
from bringup.planning.calibration import key
from bringup.planning.plan import find_config, plan
from bringup.planning.show import bytes_rows, gb
from bringup.planning.spec_run import find_model_file

SYSTEMS = ("n150", "n300", "t3000")

TEMPLATE = Path(__file__).with_name("planning.md.j2")


def render():
    from jinja2 import Template

    ids = [hf_id for hf_id in known.known_ids() if all(find_model_file(hf_id, name) for name in SYSTEMS)]
    models = "\n".join(map(model_section, ids))
    stored = calibration.stored()
    return Template(TEMPLATE.read_text()).render(models=models, rows=rows_table(stored), **figures(stored)) + "\n"


def model_section(hf_id):
    """A model on every system: bytes of a chip, contexts, what tensor parallelism costs, speeds."""
    _, config = find_config(hf_id)
    plans = [plan(config, name, hf_id=hf_id, table=False) for name in SYSTEMS]
    weights = plans[0]["weights"]["mlp"]
    lines = [f"## {hf_id}", "", f"Weights {weights}, cache bf16, prompt of 128 tokens, one user of 1024 positions.", ""]
    lines += _table(["", *SYSTEMS], _rows(plans)) + [""]
    for p in plans[1:]:
        costs = [r for r in p["tensor_parallel"] if not r["divides"]]
        shown = [f"{r['what']} {r['size']} -> {r['per_chip']} a chip{_cost(r)}" for r in costs]
        lines.append(f"On {p['system']} {'; '.join(shown) if shown else 'every dimension divides'}.")
    smallest = plans[0]["smallest_system"]
    lines += [f"Smallest system that holds it: {smallest}.", ""]
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
    rates, held = stored["rates"], stored["held_out"]
    found = {
        "dram": f"{rates['dram_fraction']:.0%}",
        "matrix": f"{rates['matrix_fraction']:.0%}",
        "ccl": f"{1e6 * rates['collective_seconds']:.0f}",
        "untraced": f"{1e6 * rates['untraced_seconds']:.0f}",
        "traced": f"{1e6 * rates['traced_seconds']:.0f}",
        "read": f"{rates['mesh_read_bytes_per_second'] / 1e6:.0f}",
        "n": len(stored["rows"]),
        "used": sum(row["used_for_calibration"] for row in stored["rows"]),
    }
    for name, short in (("tps", "tps"), ("ttft_ms", "ttft")):
        found[f"{short}_median"] = f"{held[name]['median']:.0%}"
        found[f"{short}_worst"] = f"{held[name]['worst']:+.0%}"
        found[f"{short}_row"] = held[name]["worst_row"]
    return found


def rows_table(stored):
    """Published and predicted, row by row."""
    names = ["row", "", "t/s/u published", "predicted", "error", "TTFT ms published", "predicted", "error"]
    cells = [
        [key(r), "fit" if r["used_for_calibration"] else "", r["tps"], f"{r['predicted']['tps']:.1f}",
         f"{r['error']['tps']:+.0%}", r["ttft_ms"], f"{r['predicted']['ttft_ms']:.0f}", f"{r['error']['ttft_ms']:+.0%}"]
        for r in stored["rows"]
    ]  # fmt: skip
    return "\n".join(_table(names, cells))


def _table(names, rows):
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]
