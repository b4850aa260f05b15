"""The rates that no data sheet has, fitted to half of what is published, and judged by the other half.

python -m bringup.planning.calibration --write      # constants.json, from measured.json, published.json and the op logs

What is published: products by size, format, fidelity and place, and single programs of profiles (measured.json); whole
models (published.json). Every other product, and of the models the rows marked so, calibrate. What a published model
ran is taken from its own code where that runs on the emulator (logs.json has its programs, counted); else this
project's model files stand in, with the library's default fidelity (HiFi2) and `SETUPS`. A prompt of 128 tokens and one
user where a row says no other.
"""

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from bringup.backends import systems
from bringup.files import write
from bringup.planning import kernels, roofline
from bringup.planning.formats import Formats
from bringup.planning.kernels import CONSTANTS, Kernel, Rates
from bringup.planning.roofline import Work

HERE = Path(__file__).parent
PROMPT, ANSWER = 128, 50  # tokens of the prompt, and of the answer on average while decoding

# By kind of row: dtypes (None: the model file's), and whether a step is replayed from a trace (else the host dispatches
# every program). The host reads logits, unless a row says that the token stays on the device. The vendor's
# "performance" preset has bfloat4_b for two of an MLP's three matrices; its "accuracy" preset, of Llama-3, bfloat8_b
# everywhere (tt-metal, models/tt_transformers/PERF.md and tt/model_config.py).
SETUPS = {
    "functional": (None, False),
    "optimized": (Formats("bfp8", "bfp8", "bfp8"), True),
    "vendor": (Formats("bfp8", "bfp4", "bfp8", "bfp8"), True),
    "vendor, accuracy": (Formats("bfp8", "bfp8", "bfp8", "bfp8"), True),
}
# Where the search begins, of each kind of chip, and between what factors of it a rate may end.
START = Rates(
    multiply=1.2, unpack_bytes_per_cycle=90, read_fraction=0.6, grid_fraction=0.4, sharded_fraction=0.75,
    write_fraction=0.4, step_seconds=5e-7, tile_seconds=1e-6, row_seconds=8e-7, score_seconds=5e-7,
    product_start=4e-6, grid_start=1e-5, sharded_start=4e-6, row_start=1e-5, tile_start=1e-6, move_start=1e-5,
    attention_start=1e-5, collective_start=3e-5, async_start=6e-6, hop_seconds=3e-5, async_hop_seconds=4e-6,
    link_fraction=0.6, gap_seconds=7e-7, call_seconds=5.5e-5, read_bytes_per_second=3e9,
    mesh_read_bytes_per_second=7e7,
)  # fmt: skip
FRACTIONS = ("read_fraction", "grid_fraction", "sharded_fraction", "write_fraction", "link_fraction")
MOST, FACTOR = 0.95, 12
WEIGHTS = {"products": 1, "programs": 1, "models": 4}  # of what is published in the fit
HELD = 3e-3  # what a factor of e away from the start costs: a rate that no row determines stays there


@dataclass(frozen=True)
class Row:
    """Something that was timed: programs and how many of each, calls of the host, bytes read there, seconds."""

    name: str
    group: str  # what errors are told apart by
    system: str
    programs: Counter
    seconds: float
    calls: int = 0  # that no trace replays
    host_bytes: float = 0
    joined: bool = False  # those of several chips, put together by the host
    used: bool = True

    @property
    def kind(self):
        return next((kind for kind in ("products", "programs") if kind in self.group), "models")


def published():
    return json.loads((HERE / "published.json").read_text())["rows"]


def beside():
    """Rows that stand in tables alone, neither fitted nor tested."""
    return json.loads((HERE / "published.json").read_text())["beside"]


def chip(row):
    return systems.get(row["system"]).chip.name


def key(row):
    """What a row asks of a model."""
    found = f"{row['model']} {row['system']} {row['kind']}"
    users, prompt = row.get("users", 1), row.get("prompt", PROMPT)
    return found + f", {users} users" * (users > 1) + f", prompt of {prompt}" * (prompt != PROMPT)


# What was timed -----------------------------------------------------------------------------------------------------


def known():
    """Rates that are not fitted, by kind of chip: a source says of just this."""
    return json.loads((HERE / "measured.json").read_text())["known"]["rates"]


def products():
    """The published products: those of chosen programs by their grid, out-of-box ones by the library's own choice."""
    import ttnn

    found, table = [], json.loads((HERE / "measured.json").read_text())["products"]
    for i, values in enumerate(table["rows"]):
        row = dict(zip(table["columns"], values, strict=True))
        dtype, (m, k, n) = getattr(ttnn, row["dtype"]), (row[name] // kernels.TILE for name in "MKN")
        tile = _tile_bytes(dtype)
        across, down = row["grid"]
        work = Kernel(
            "ttnn.matmul", "weights", "grid",
            read=((m * k if row["in0"] == "DRAM" else 0) + k * n) * tile,
            written=m * n * tile if row["out"] == "DRAM" else 0,
            products=-(-m // down) * -(-n // across) * k, tile_bytes=2 * tile,
            phases=kernels.PHASES[row["fidelity"]], steps=across,
        )  # fmt: skip
        name = f"{row['M']}x{row['K']}x{row['N']} {row['dtype']} {row['fidelity']}"
        group = f"{row['system']} products, {'chosen programs' if row['tuned'] else 'out of the box'}"
        found.append(Row(name, group, row["system"], Counter([work]), row["us"] * 1e-6, used=i % 2 == 0))
    return found


def _tile_bytes(dtype):
    from ttnn_emulator.dtypes import TILE_BYTES

    return TILE_BYTES[dtype]


def programs():
    """Single programs of published profiles, as the emulator launches them for such operands."""
    import ttnn

    from bringup import backends
    from ttnn_emulator.op import record, spec_only

    found = []
    for row in json.loads((HERE / "measured.json").read_text())["programs"]["rows"]:
        system = systems.get(row["system"])
        with spec_only(), backends.open_system(system) as device:
            operands = [
                ttnn.zeros(shape, dtype=getattr(ttnn, dtype), layout=ttnn.TILE_LAYOUT, device=device)
                for shape, dtype in row["operands"]
            ]
            op = ttnn
            for part in row["op"].split("."):
                op = getattr(op, part)
            with record() as log:
                op(*operands, *row["arguments"])
        launched = Counter(kernels.kernel(each, system) for r in log for each in r.launches)
        name = f"{row['op']} {' '.join(str(shape) for shape, _ in row['operands'])}"
        found.append(Row(name, f"{row['system']} programs", row["system"], launched, row["us"] * 1e-6))
    return found


def kept_logs():
    return json.loads((HERE / "logs.json").read_text())["logs"]


def logs(row):
    """(prompt, step) of a published row, Counters of `Work`: of its own code, or of our model file in its place."""
    kept = kept_logs().get(key(row))
    if kept is not None:
        return [
            Counter({
                Work(op, tuple(Kernel(*program) for program in launched), host): n
                for op, launched, host, n in kept[phase]
            })
            for phase in ("prefill", "decode")
        ]  # fmt: skip
    from bringup.checkpoints import sources
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import Wiring

    config = sources.load_config(sources.Source(row["model"], random_seed=0))
    system, (formats, _), prompt = systems.get(row["system"]), SETUPS[row["kind"]], row.get("prompt", PROMPT)
    run = spec_run(
        Wiring.find(config, row["model"], system).path, config, system, max_seq_len=2 * prompt, prompt=prompt,
        formats=formats, settings={"linear": None, "norm": None, "sdpa": None},
    )  # fmt: skip
    return [condensed(row, records) for records in (run.prefill, run.decode)]


def condensed(row, records):
    """What the records of a row ask, each kind of call once with its number: layers are alike."""
    system, context = systems.get(row["system"]), row.get("prompt", PROMPT) + ANSWER
    asked = (roofline.work(record, system, row.get("users", 1), context) for record in records)
    return Counter(each for each in asked if each is not None)


def models():
    """Prompt and step of each published row."""
    found = []
    for row in published():
        traced, system = SETUPS[row["kind"]][1], systems.get(row["system"])
        prompt, step = logs(row)
        place = "one chip" if system.chips == 1 else "several chips"
        group = f"{chip(row)} {{}}, {place}, batch {row.get('users', 1)}"
        if key(row) not in kept_logs():
            group += ", ours in its place"
        for figure, what, works, replayed in (("ttft_ms", "prompt", prompt, False), ("tps", "step", step, traced)):
            if row[figure] is None:
                continue
            seconds = row[figure] / 1e3 if figure == "ttft_ms" else 1 / row[figure]
            launched: Counter = Counter()
            for work, n in works.items():
                for program in work.programs:
                    launched[program] += n
            calls = 0 if replayed else sum(n for work, n in works.items() if work.programs)
            host = sum(work.host_bytes * n for work, n in works.items()) if row.get("token") != "device" else 0
            # Functional files join 32 rows of all chips' logits; later ones cut one out before the head.
            joined = system.chips > 1 and row["kind"] == "functional"
            found.append(
                Row(key(row), group.format(what), row["system"], launched, seconds, calls, host, joined,
                    row["used_for_calibration"])
            )  # fmt: skip
    return found


# The fit ------------------------------------------------------------------------------------------------------------


class Fit:
    """Rows, stacked by system and form of their programs so that all are predicted at once."""

    def __init__(self, rows):
        import numpy as np

        self.rows, self.stacks, stacked = rows, [], {}
        for i, row in enumerate(rows):
            for program, n in row.programs.items():
                stacked.setdefault((row.system, program.form), []).append((i, n, program))
        for (system, form), each in stacked.items():
            at, counts, of = zip(*each, strict=True)
            numbers = np.array([program[3:] for program in of], dtype=float).T
            self.stacks.append((np.array(at), np.array(counts), systems.get(system), Kernel("", "", form, *numbers)))
        self.seconds = np.array([row.seconds for row in rows])
        used = Counter(row.kind for row in rows if row.used)
        self.weights = np.array([WEIGHTS[row.kind] / used[row.kind] if row.used else 0 for row in rows])

    def predicted(self, rates):
        """Seconds of every row, by the `Rates` of each kind of chip."""
        import numpy as np

        device = np.zeros(len(self.rows))
        for at, counts, system, program in self.stacks:
            each = kernels.seconds(program, system, rates[system.chip.name])
            device += np.bincount(at, weights=counts * each, minlength=len(device))
        host, read = [], []
        for row in self.rows:
            system = systems.get(row.system)
            host.append(row.calls * rates[system.chip.name].call_seconds)
            read.append(roofline.read_seconds(row.host_bytes, row.joined, rates[system.chip.name]))
        return np.maximum(device, host) + read

    def error(self, rates):
        """Mean of |log(predicted / published)| of each kind, weighted, so that rows that contradict each other do not
        pull at the rest; and a little for leaving the start."""
        import numpy as np

        away = sum(
            abs(math.log(value / getattr(START, name)))
            for each in rates.values()
            for name, value in asdict(each).items()
        )
        return float(self.weights @ abs(np.log(self.predicted(rates) / self.seconds))) + HELD * away

    def rates(self, sweeps=40):
        """The `Rates` of each kind of chip, by turns along each; no randomness."""
        names = dict.fromkeys(systems.get(row.system).chip.name for row in self.rows)
        fixed = {name: known().get(name, {}) for name in names}
        found = {name: replace(START, **fixed[name]) for name in names}
        best = self.error(found)
        for _ in range(sweeps):
            before = best
            for name in names:
                for rate in (rate for rate in asdict(START) if rate not in fixed[name]):
                    for factor in (1.5, 1 / 1.5, 1.1, 1 / 1.1, 1.02, 1 / 1.02):
                        best, found = self._along(name, rate, factor, best, found)
            if before - best < 1e-5:
                break
        return found

    def _along(self, name, rate, factor, best, found):
        start = getattr(START, rate)
        while True:
            value = getattr(found[name], rate) * factor
            if not start / FACTOR <= value <= (MOST if rate in FRACTIONS else start * FACTOR):
                return best, found
            tried = found | {name: replace(found[name], **{rate: value})}
            error = self.error(tried)
            if error > best - 1e-9:
                return best, found
            best, found = error, tried


def errors(rows, predicted):
    """By group, over the rows that did not calibrate: how many, the median and the worst relative error."""
    groups: dict = {}
    for row, seconds in zip(rows, predicted, strict=True):
        if not row.used:
            groups.setdefault(row.group, []).append((seconds / row.seconds - 1, row.name))
    return {name: _summary(each) for name, each in groups.items()}


def _summary(each):
    worst, name = max(each, key=lambda e: abs(e[0]))
    middle = median(abs(e) for e, _ in each)
    return {"rows": len(each), "median": middle, "worst": float(worst), "worst_row": name}


def calibrate():
    """The fit to the rows marked for it, and its errors: what constants.json holds."""
    rows = [*products(), *programs(), *models()]
    fit = Fit(rows)
    rates = fit.rates()
    predicted = fit.predicted(rates)
    by_model = {(row.name, "prompt" in row.group): float(s) for row, s in zip(rows, predicted, strict=True)}
    table = []
    for row in published():
        of = {"tps": 1 / by_model[key(row), False]}
        if row["ttft_ms"] is not None:
            of["ttft_ms"] = 1e3 * by_model[key(row), True]
        error = {figure: value / row[figure] - 1 for figure, value in of.items()}
        table.append({**row, "predicted": of, "error": error})
    return {
        "rates": {name: asdict(found) for name, found in rates.items()},
        "held_out": errors(rows, predicted),
        "programs": [
            {"program": row.name, "system": row.system, "us": 1e6 * row.seconds, "predicted_us": float(1e6 * s)}
            for row, s in zip(rows, predicted, strict=True)
            if row.kind == "programs"
        ],
        "rows": table,
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
    return json.loads(CONSTANTS.read_text())


def doubt(name):
    """How far predicted tokens per second of a kind of chip are from published ones, in a line."""
    said = []
    for group, e in stored()["held_out"].items():
        if group.startswith(f"{name} step, "):
            of = group.removeprefix(f"{name} step, ")
            said.append(f"{of}, {e['rows']} rows: median {e['median']:.0%}, worst {e['worst']:+.0%}")
    return f"Predicted t/s/u on {name}, held against published rows that did not calibrate: {'; '.join(said)}."


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bringup.planning.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write constants.json")
    args = parser.parse_args(argv)
    from bringup import backends

    backends.activate("emulator")
    text = json.dumps(rounded(calibrate()), indent=1) + "\n"
    print(text, end="")
    if args.write:
        write(CONSTANTS, text)


if __name__ == "__main__":
    main()
