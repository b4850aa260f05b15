"""The rows of `bringup accuracy` as a table for the terminal, and as docs/accuracy.md."""

from pathlib import Path

TEMPLATE = Path(__file__).with_name("accuracy.md.j2")
COLUMNS = ("choice", "weights: attention/MLP/head", "products", "destination", "top-1", "top-5", "mean KL",
           "KL - shipped's", "relative L2", "perplexity / HF's")  # fmt: skip
ENOUGH = 1.25  # times the mean KL divergence: less is called the same, whatever its interval


def table(rows):
    """Lines of a markdown table for each system and numerics."""
    lines = []
    for system, numerics in dict.fromkeys((r["system"], r["numerics"]) for r in rows):
        some = [r for r in rows if (r["system"], r["numerics"]) == (system, numerics)]
        lines += [f"{system}, `{numerics}`", "", *of_rows(some), ""]
    return lines


def of_rows(rows):
    """The table of rows of one system: HF in bfloat16, then each choice."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- | --- | --- " + "| ---: " * 6 + "|"]
    done = [r for r in rows if "refused" not in r]
    if done:
        lines.append(_line(["HF in bfloat16", "bf16", "", "", *_figures(done[0]["bf16"])]))
    for row in rows:
        name = row["choice"] if row["one_pass"] else f"{row['choice']}, token by token"
        if "refused" in row:
            lines.append(_line([name, "refused: " + row["refused"].splitlines()[0], *[""] * 8]))
            continue
        weights = (row["attention"], row["mlp"], row["head"])
        same = weights[0] if len(set(weights)) == 1 else "/".join(weights)
        lines.append(_line([name, same, row["fidelity"], row["destination"], *_figures(row)]))
    return lines


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def _figures(row):
    change = row.get("kl_change")
    ratio, low, high = row["perplexity_ratio"]
    return (
        _rate(row, "top1"),
        _rate(row, "top5"),
        f"{row['kl_mean']:.2e} ({row['kl_interval'][0]:.1e} to {row['kl_interval'][1]:.1e})",
        f"{change[0]:+.1e} ({change[1]:+.1e} to {change[2]:+.1e})" if change else "",
        f"{row['rel_l2']:.4f}",
        f"{ratio:.4f} ({low:.4f} to {high:.4f})",
    )


def _rate(row, name):
    low, high = row[f"{name}_interval"]
    return f"{100 * row[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def matters(rows):
    """(choice, row, times the shipped mean KL) of those that are surely and clearly farther from HF than as shipped."""
    return [(r["choice"], r, ratio) for r, ratio in _against_base(rows) if r["kl_change"][1] > 0 and ratio > ENOUGH]


def does_not(rows):
    """The same of the others."""
    named = [name for name, *_ in matters(rows)]
    return [(r["choice"], r, ratio) for r, ratio in _against_base(rows) if r["choice"] not in named]


def _against_base(rows):
    done = [r for r in rows if "refused" not in r and r["one_pass"]]
    base = next((r for r in done if r["choice"] == "as shipped"), None)
    others = [r for r in done if base and r is not base and "kl_change" in r]
    return sorted(((r, r["kl_mean"] / base["kl_mean"]) for r in others), key=lambda pair: -pair[1])


def page(record):
    """docs/accuracy.md."""
    import jinja2

    rows = record["rows"]
    some = {}
    for row in rows:
        some.setdefault((row["system"], row["numerics"]), []).append(row)

    def find(choice, system, numerics, one_pass=True):
        found = some.get((system, numerics), ())
        return next(
            (r for r in found if (r["choice"], r["one_pass"]) == (choice, one_pass) and "refused" not in r), None
        )

    template = jinja2.Template(TEMPLATE.read_text(), trim_blocks=True, undefined=jinja2.StrictUndefined)
    words = {"groups": some, "of_rows": of_rows, "matters": matters, "does_not": does_not, "find": find}
    return template.render(**words, record=record, rate=_rate) + "\n"
