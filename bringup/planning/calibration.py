"""The constants of the roofline that no data sheet has, fitted to some of the published rows, and judged by the others.

python -m bringup.planning.calibration --write      # constants.json, from published.json and the model files' op logs

What is assumed of the published runs, whose model files are not known: this project's blocks stand in for them; a
prompt of 128 tokens and one user where the row says no other; the library's default fidelity (HiFi2); `SETUPS`. The
rows that calibrate were chosen by position before the first fit; the form of the model was chosen with the first 18
rows known. Each kind of chip has its own constants; those that no row of it determines are the other chip's.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path

from bringup.backends import systems
from bringup.files import write
from bringup.planning import roofline
from bringup.planning.formats import Formats
from bringup.planning.roofline import Rates

PUBLISHED = Path(__file__).with_name("published.json")
PROMPT, ANSWER = 128, 32  # tokens of the prompt, and of the answer on average while decoding
TARGET = 0.30  # of the median error of tokens per second on rows that did not calibrate

# By kind of row: dtypes (None: the model file's), and whether a step is replayed from a trace with the next token
# chosen on the device (else every program is dispatched, and logits are read, by the host). The vendor's "performance"
# preset has bfloat4_b for two of an MLP's three matrices.
SETUPS = {
    "functional": (None, False),
    "optimized": (Formats("bfp8", "bfp8", "bfp8"), True),
    "vendor": (Formats("bfp8", "bfp4", "bfp8", "bfp8"), True),
}
# What each constant may be. A fit that ends at a bound says that the rows do not determine it.
PLAUSIBLE = {
    "dram_fraction": (0.3, 0.95),
    "matrix_fraction": (0.05, 0.9),
    "traced_seconds": (1e-6, 60e-6),
    "untraced_seconds": (5e-6, 200e-6),
    "collective_seconds": (5e-6, 2e-3),
    "mesh_read_bytes_per_second": (30e6, 10e9),
}


def published():
    return json.loads(PUBLISHED.read_text())["rows"]


def logs(row):
    """(prefill records, decode records) of our model file in place of a published row's."""
    from bringup.checkpoints import sources
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import Wiring

    config = sources.load_config(sources.Source(row["model"], random_seed=0))
    system, (formats, traced), prompt = systems.get(row["system"]), SETUPS[row["kind"]], row.get("prompt", PROMPT)
    run = spec_run(
        Wiring.find(config, row["model"], system).path,
        config,
        system,
        max_seq_len=2 * prompt,
        prompt=prompt,
        formats=formats,
        settings={"linear": None, "norm": None, "sdpa": None},
    )
    if not traced:
        return run.prefill, run.decode
    return roofline.without_reads(run.prefill), roofline.without_reads(run.decode)


def condensed(row, records):
    """What a row's prompt and decode step ask, each kind of call once with its number: layers are alike."""
    system, context = systems.get(row["system"]), row.get("prompt", PROMPT) + ANSWER
    users = row.get("users", 1)
    asked = ((roofline.work(r, system, users, context) for r in phase) for phase in records)
    return [Counter(each for each in phase if each is not None) for phase in asked]


def speeds(row, works, rates):
    """(tokens per second, milliseconds to the first token), as `roofline.predict` has them."""
    system, (_, traced) = systems.get(row["system"]), SETUPS[row["kind"]]
    prompt, step = (
        sum(n * roofline.seconds(work, system, how, rates) for work, n in phase.items())
        for phase, how in zip(works, (False, traced), strict=True)
    )
    return {"tps": 1 / step, "ttft_ms": 1e3 * prompt}


def fit(rows, works, sweeps=60, names=tuple(PLAUSIBLE), others=None):
    """`Rates` with the least squares of log(predicted / published), by turns along each constant of `names`; the rest
    are those of `others`. No randomness.

    First those of a decode step to tokens per second, then the matrix unit's fraction to the time to first token.
    """
    start = asdict(others) if others else {}
    start |= {name: math.sqrt(low * high) for name, (low, high) in PLAUSIBLE.items() if name in names}
    rates = Rates(**start)

    def error(rates, figure):
        known = [r for r in rows if r[figure] is not None]
        return sum(math.log(speeds(r, works[key(r)], rates)[figure] / r[figure]) ** 2 for r in known)

    decode = [name for name in names if name != "matrix_fraction"]
    for _ in range(2):  # a large matrix fraction leaves a decode step to DRAM: twice is enough
        for _ in range(sweeps):
            before = rates
            for name in decode:
                rates = _along(name, rates, lambda r: error(r, "tps"))
            if all(abs(math.log(getattr(rates, n) / getattr(before, n))) < 1e-4 for n in decode):
                break
        rates = _along("matrix_fraction", rates, lambda r: error(r, "ttft_ms"))
    return rates


def determined(rows):
    """The constants that such rows say something about: what only the host costs needs a row that is not traced."""
    untraced = any(not SETUPS[row["kind"]][1] for row in rows)
    return [name for name in PLAUSIBLE if untraced or name not in ("untraced_seconds", "mesh_read_bytes_per_second")]


def key(row):
    """What a row asks of our model file."""
    found = f"{row['model']} {row['system']} {row['kind']}"
    users, prompt = row.get("users", 1), row.get("prompt", PROMPT)
    return found + f", {users} users" * (users > 1) + f", prompt of {prompt}" * (prompt != PROMPT)


def chip(row):
    return systems.get(row["system"]).chip.name


def group(row):
    """Chip and users: what errors are told apart by."""
    return f"{chip(row)} {row.get('users', 1)}"


def _along(name, rates, error, steps=30):
    """The least error along one constant, by golden sections of its logarithm."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = map(math.log, PLAUSIBLE[name])

    def at(x):
        return error(replace(rates, **{name: math.exp(x)}))

    a, b = high - ratio * (high - low), low + ratio * (high - low)
    fa, fb = at(a), at(b)
    for _ in range(steps):
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - ratio * (high - low)
            fa = at(a)
        else:
            low, a, fa = a, b, fb
            b = low + ratio * (high - low)
            fb = at(b)
    return replace(rates, **{name: math.exp((low + high) / 2)})


def judge(rows, works, rates):
    """Each row with what is predicted by the rates of its chip, and the relative errors; and by `group` the errors over
    those that did not calibrate."""
    table, groups = [], {}
    for row in rows:
        predicted = speeds(row, works[key(row)], rates[chip(row)])
        error = {figure: predicted[figure] / row[figure] - 1 for figure in predicted if row[figure] is not None}
        table.append({**row, "predicted": predicted, "error": error})
        if not row["used_for_calibration"]:
            groups.setdefault(group(row), []).append(table[-1])
    errors = {name: {figure: _errors(held, figure) for figure in ("tps", "ttft_ms")} for name, held in groups.items()}
    return {"rows": table, "held_out": errors}


def _errors(rows, name):
    """Median and worst relative error of the rows that have it."""
    ordered = sorted((r for r in rows if name in r["error"]), key=lambda r: abs(r["error"][name]))
    if not ordered:
        return {"rows": 0}
    n = len(ordered)
    middle = ordered[(n - 1) // 2 : n // 2 + 1]
    worst = ordered[-1]
    median = sum(abs(r["error"][name]) for r in middle) / len(middle)
    return {"rows": n, "median": median, "worst": worst["error"][name], "worst_row": key(worst)}


def at_bounds(rates):
    """Constants that ended at the end of their plausible range."""
    return [
        f.name
        for f in fields(rates)
        if any(abs(math.log(getattr(rates, f.name) / bound)) < 0.01 for bound in PLAUSIBLE[f.name])
    ]


def calibrate():
    """The fit to the rows marked for it, and its errors: what constants.json holds."""
    rows = published()
    works: dict = {}
    for row in rows:
        if key(row) not in works:
            works[key(row)] = condensed(row, logs(row))
    rates, last = {}, None
    for name in dict.fromkeys(map(chip, rows)):
        used = [row for row in rows if row["used_for_calibration"] and chip(row) == name]
        last = rates[name] = fit(used, works, names=determined(used), others=last)
    return {
        "rates": {name: asdict(found) for name, found in rates.items()},
        "at_bounds": {name: at_bounds(found) for name, found in rates.items()},
        **judge(rows, works, rates),
    }


def rounded(value, digits=6):
    """Numbers to so many digits, so that another machine writes the same file."""
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def stored():
    """What constants.json holds: rates, every row with its prediction and error, and the errors held out."""
    return json.loads(roofline.CONSTANTS.read_text())


def doubt(name):
    """How far predicted tokens per second of a kind of chip are from published ones, in a line."""
    said = []
    for of, errors in stored()["held_out"].items():
        chip_name, users = of.split()
        e = errors["tps"]
        if chip_name == name:
            said.append(f"batch {users}, {e['rows']} rows: median {e['median']:.0%}, worst {e['worst']:+.0%}")
    return f"Predicted t/s/u on {name}, held against published rows that did not calibrate: {'; '.join(said)}."


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bringup.planning.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write constants.json")
    args = parser.parse_args(argv)
    text = json.dumps(rounded(calibrate()), indent=1) + "\n"
    print(text, end="")
    if args.write:
        write(roofline.CONSTANTS, text)


if __name__ == "__main__":
    main()
