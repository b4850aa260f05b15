"""The constants of the roofline that no data sheet has, fitted to some of the published rows, and judged by the others.

python -m bringup.planning.calibration --write      # constants.json, from published.json and the model files' op logs

What is assumed of the published runs, whose model files are not known: this project's model files stand in for them;
a prompt of 128 tokens and one user; the library's default fidelity (HiFi2); functional: the model file's weight dtypes,
every program dispatched by the host, logits read by the host; optimized: bfloat8_b weights, decode steps replayed from
a trace, the next token chosen on the device. The rows that calibrate were chosen by position before the first fit;
the form of the model was chosen with the whole table known.
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
from bringup.planning.roofline import Rates

PUBLISHED = Path(__file__).with_name("published.json")
PROMPT, CACHE, CONTEXT = 128, 256, 160  # tokens of the prompt, of the cache, and on average in it while decoding
TARGET = 0.30  # of the median error of tokens per second on rows that did not calibrate

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
    from bringup.planning.formats import Formats
    from bringup.planning.spec_run import find_model_file, spec_run

    config = sources.load_config(sources.Source(row["model"], random_seed=0))
    optimized = row["kind"] == "optimized"
    run = spec_run(
        find_model_file(row["model"], row["system"]),
        config,
        row["system"],
        max_seq_len=CACHE,
        prompt=PROMPT,
        formats=Formats("bfp8", "bfp8", "bfp8") if optimized else None,
        settings={"linear": None, "norm": None, "sdpa": None},
    )
    if not optimized:
        return run.prefill, run.decode
    return roofline.without_reads(run.prefill), roofline.without_reads(run.decode)


def condensed(row, records):
    """What a row's prompt and decode step ask, each kind of call once with its number: layers are alike."""
    system = systems.get(row["system"])
    asked = ((roofline.work(r, system, context=CONTEXT) for r in phase) for phase in records)
    return [Counter(each for each in phase if each is not None) for phase in asked]


def speeds(row, works, rates):
    """(tokens per second, milliseconds to the first token), as `roofline.predict` has them."""
    system, traced = systems.get(row["system"]), row["kind"] == "optimized"
    prompt, step = (
        sum(n * roofline.seconds(work, system, how, rates) for work, n in phase.items())
        for phase, how in zip(works, (False, traced), strict=True)
    )
    return {"tps": 1 / step, "ttft_ms": 1e3 * prompt}


def fit(rows, works, sweeps=60):
    """`Rates` with the least squares of log(predicted / published), by turns along each constant; no randomness.

    First those of a decode step to tokens per second, then the matrix unit's fraction to the time to first token.
    """
    rates = Rates(**{name: math.sqrt(low * high) for name, (low, high) in PLAUSIBLE.items()})

    def error(rates, figure):
        return sum(math.log(speeds(r, works[key(r)], rates)[figure] / r[figure]) ** 2 for r in rows)

    decode = [name for name in PLAUSIBLE if name != "matrix_fraction"]
    for _ in range(2):  # a large matrix fraction leaves a decode step to DRAM: twice is enough
        for _ in range(sweeps):
            before = rates
            for name in decode:
                rates = _along(name, rates, lambda r: error(r, "tps"))
            if all(abs(math.log(getattr(rates, n) / getattr(before, n))) < 1e-4 for n in decode):
                break
        rates = _along("matrix_fraction", rates, lambda r: error(r, "ttft_ms"))
    return rates


def key(row):
    return f"{row['model']} {row['system']} {row['kind']}"


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
    """Each row with what is predicted and the relative errors; and the errors over those that did not calibrate."""
    table = []
    for row in rows:
        predicted = speeds(row, works[key(row)], rates)
        error = {figure: predicted[figure] / row[figure] - 1 for figure in predicted}
        table.append({**row, "predicted": predicted, "error": error})
    held_out = [r for r in table if not r["used_for_calibration"]]
    return {"rows": table, "held_out": {name: _errors(held_out, name) for name in ("tps", "ttft_ms")}}


def _errors(rows, name):
    """Median and worst relative error."""
    ordered = sorted(rows, key=lambda r: abs(r["error"][name]))
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
    works = {key(row): condensed(row, logs(row)) for row in rows}
    rates = fit([row for row in rows if row["used_for_calibration"]], works)
    return {"rates": asdict(rates), "at_bounds": at_bounds(rates), **judge(rows, works, rates)}


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
