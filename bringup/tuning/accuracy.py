"""What each choice of formats and compute configs costs in accuracy, of a real model over a real text, as a page.

bringup accuracy models/HuggingFaceTB/SmolLM2-135M-Instruct/n150/functional/model.py --model SmolLM2.gguf
bringup accuracy MODEL_PY --model DIR --text_file TEXT --systems p150 --numerics fast --document page.md

The model is led through the text with each choice of `CHOICES`, on each system, with `fast` numerics and those that are
marked with `exact`; the text goes in as one prompt, whose every position is compared with HF in fp32. One row is led
token by token as well, to see what decode adds. Intervals are 95 %: Wilson's of rates, the normal one of
means, differences between choices paired by position. A point's result is a file in OUT/points; what is there is not
run again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bringup import arguments, spread
from bringup.backends import systems
from bringup.errors import BadInput, BringupError, shown
from bringup.files import plain, writable, write, write_json
from bringup.tuning import accuracy_page, sweep
from bringup.tuning.sweep import LIBRARY, Common, Point

HELP = "what formats and compute configs cost in accuracy, on each system, as a page"
#: name: (point, with `exact` too).
CHOICES = {
    "as shipped": (Point("bf16", "bf16", "bf16", "HiFi3", "fp32"), True),
    "HiFi4": (Point("bf16", "bf16", "bf16", "HiFi4", "fp32"), True),
    "HiFi2": (Point("bf16", "bf16", "bf16", "HiFi2", "fp32"), True),
    "LoFi": (Point("bf16", "bf16", "bf16", "LoFi", "fp32"), False),
    "bf16 destination": (Point("bf16", "bf16", "bf16", "HiFi3", "bf16"), False),
    "HiFi2, bf16 destination": (Point("bf16", "bf16", "bf16", "HiFi2", "bf16"), False),
    "the library's defaults": (Point("bf16", "bf16", "bf16", LIBRARY, "-"), True),
    "bfp8": (Point("bfp8", "bfp8", "bfp8", "HiFi3", "fp32"), True),
    "bfp8, HiFi2": (Point("bfp8", "bfp8", "bfp8", "HiFi2", "fp32"), False),
    "bfp8, the library's defaults": (Point("bfp8", "bfp8", "bfp8", LIBRARY, "-"), False),
    "MLP bfp4": (Point("bf16", "bfp4", "bf16", "HiFi3", "fp32"), True),
    "MLP bfp4, HiFi2": (Point("bf16", "bfp4", "bf16", "HiFi2", "fp32"), False),
    "bfp8, MLP bfp4, HiFi2": (Point("bfp8", "bfp4", "bfp8", "HiFi2", "fp32"), False),
    "bfp8, MLP bfp4, LoFi": (Point("bfp8", "bfp4", "bfp8", "LoFi", "fp32"), True),
}
BASE = "as shipped"  # what the others are compared with
FIGURES = ("n", "top1", "top1_interval", "top5", "top5_interval", "kl_mean", "rel_l2", "perplexity_device",
           "perplexity_reference")  # fmt: skip
LISTS = ("top1", "top5", "kl", "nll_reference", "nll_device")  # of each position


def add_arguments(parser):
    parser.add_argument("model_py", type=arguments.name, metavar="MODEL_PY",
                        help="models/<org>/<model>/<system>/functional/model.py")  # fmt: skip
    parser.add_argument("--model", type=arguments.name, metavar="DIR_OR_ID",
                        help="checkpoint directory, GGUF file or hub id (default: as the path says)")  # fmt: skip
    parser.add_argument("--text_file", type=arguments.name, default="prompts/prose.txt", metavar="FILE",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--prompt_tokens", type=arguments.positive, default=32, metavar="N",
                        help="of the text, that are not compared (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max_new_tokens", type=arguments.positive, default=1024, metavar="N",
                        help="positions compared at most (default: %(default)s)")  # fmt: skip
    parser.add_argument("--systems", type=arguments.name, default="n150,p150", metavar="A,B",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--numerics", type=arguments.name, default="fast,exact", metavar="A,B",
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--choices", type=arguments.name, metavar="NAME;NAME",
                        help="some of the choices (default: all)")  # fmt: skip
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="where references are kept")  # fmt: skip
    spread.add_arguments(parser, "runs")
    parser.add_argument("--out", type=arguments.name, metavar="DIR", help="default: sweeps/<model>-accuracy")
    parser.add_argument("--kept", action="store_true", help="run nothing: a page of the rows that are there")
    parser.add_argument("--document", type=arguments.name, metavar="FILE", help="write the page (docs/accuracy.md)")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON line instead")


@dataclass(frozen=True)
class Run:
    """A row: a choice on a system, with which numerics, in one pass or token by token."""

    choice: str
    system: str
    numerics: str
    one_pass: bool = True

    @property
    def name(self):
        way = "" if self.one_pass else "-steps"
        return f"{self.system}-{self.numerics}-{CHOICES[self.choice][0].name}{way}"


def runs(args):
    """The rows that the arguments ask for."""
    machines = _some("--systems", args.systems, systems.NAMES)
    numerics = _some("--numerics", args.numerics, ("fast", "exact"))
    choices = _some("--choices", args.choices, tuple(CHOICES), ";") if args.choices else list(CHOICES)
    found = [
        Run(choice, system, mode)
        for mode in numerics
        for system in machines
        for choice in choices
        if mode == "fast" or CHOICES[choice][1]
    ]
    return found + [Run(BASE, machines[0], numerics[0], one_pass=False)] * (BASE in choices)  # the longest last


def _some(option, text, allowed, separator=","):
    found = list(dict.fromkeys(part.strip() for part in text.split(separator)))
    if bad := [part for part in found if part not in allowed]:
        raise BadInput(f"{option} has no such value", got=repr(bad[0]), want="some of " + separator.join(allowed))
    return found


def run(args):
    from bringup.console import quiet_libraries

    quiet_libraries()
    spread.check(args)
    asked = runs(args)
    writable(args.document)
    common, reference = _prepare(args, asked[0].system)
    out = Path(args.out or f"sweeps/{_name(args)}-accuracy")
    writable(out, folder=True)
    files, work = {}, {}
    digests = {}
    for r in asked:
        mine = replace(common, system=r.system, numerics=r.numerics, one_pass=r.one_pass)
        if mine not in digests:
            digests[mine] = mine.digest(sweep.job_of(mine))
        files[r] = out / "points" / f"{r.name}-{digests[mine]}.json"
        work[files[r]] = (mine, CHOICES[r.choice][0])
    there = sum(path.is_file() for path in work)
    say = print if not args.json else lambda *a, **k: None
    say(f"{len(work)} runs of {shown(common.model_py)}, {there} are there already; results in {shown(out)}", flush=True)
    missing = [r for r in asked if args.kept and not files[r].is_file()]
    asked = [r for r in asked if r not in missing]
    if not asked:
        raise BadInput("--kept, and no row is there", got=shown(out / "points"), want="a run without --kept before it")
    failed = spread.run(write_point, {files[r]: work[files[r]] for r in asked}, args.jobs, args.engine, "accuracy")
    rows = [vars(r) | vars(CHOICES[r.choice][0]) | sweep.found(files[r], failed) for r in asked]
    record = {"format": 1, "command": _command(args), "model": reference, "rows": compared(rows),
              "missing": [r.name for r in missing]}  # fmt: skip
    write_json(out / "accuracy.json", record)
    if args.json:
        print(json.dumps(plain(record)))
    else:
        print("\n".join(accuracy_page.table(record["rows"])))
    say(f"wrote {shown(out / 'accuracy.json')}")
    if args.document:
        write(args.document, accuracy_page.page(record))
        say(f"wrote {shown(args.document)}")


def _name(args):
    return Path(args.model_py).resolve().parents[2].name if len(Path(args.model_py).resolve().parts) > 3 else "model"


def _command(args):
    model = f"    --model {Path(args.model).name} " if args.model else "    "
    return f"bringup accuracy {args.model_py} \\\n{model}--document docs/accuracy.md"


def _prepare(args, system):
    """The `Common` of all runs, and what is told of the reference, which is computed here once."""
    common = Common(
        model_py=args.model_py,
        model=args.model,
        config=None,
        system=system,
        backend="emulator",
        numerics=None,
        prompt_file=None,
        max_new_tokens=args.max_new_tokens,
        cache_dir=args.cache_dir,
        text_file=args.text_file,
        prompt_tokens=args.prompt_tokens,
        one_pass=True,
        three_way=True,
    )
    job = sweep.job_of(common)
    found = job.reference()
    about = {"name": job.model_file.hf_id or job.source.name, "text": shown(args.text_file), "note": job.source.note,
             "prompt_tokens": len(found.prompt_ids), "positions": len(found.tokens)}  # fmt: skip
    from bringup.planning.spec_run import precision_option

    precision_option(job.model_file, None, {"exact_exp": True})  # raises where the file has one precision
    return replace(common, model_py=str(job.model_file.path.resolve())), about


def write_point(common, point, path):
    write_json(path, measure(common, point))


def measure(common, point):
    """A row as plain data: figures of the device and of HF in bfloat16, with `LISTS`; or {"refused": why}."""
    from bringup.console import quiet_libraries

    quiet_libraries()
    try:
        result = sweep.teacher_forced(sweep.job_of(common), point)
    except BringupError as error:
        return {"refused": str(error)}
    return _kept(result) | {"bf16": _kept(result["bf16"]), "seconds": result["seconds_total"]}


def _kept(result):
    lists = {name: [p[name] for p in result["positions"]] for name in LISTS}
    return {name: result[name] for name in FIGURES} | {"lists": lists}


def compared(rows):
    """The rows with the intervals of their means, and with what they differ by from `BASE` of their system; no lists.

    `kl_interval`; `perplexity_ratio` to HF's; `top1_change`, `kl_change`, each (mean, low, high), paired by position.
    """
    from math import exp

    from bringup.evaluation.metrics import mean_interval, paired_interval

    done = [r for r in rows if "refused" not in r]
    base = {(r["system"], r["numerics"]): r["lists"] for r in done if r["choice"] == BASE and r["one_pass"]}
    for row in done:
        for figures in (row, row["bf16"]):
            lists = figures["lists"]
            figures["kl_interval"] = mean_interval(lists["kl"])[1:]
            worse = [d - r for d, r in zip(lists["nll_device"], lists["nll_reference"], strict=True)]
            figures["perplexity_ratio"] = tuple(map(exp, mean_interval(worse)))
        own = base.get((row["system"], row["numerics"]))
        for name in ("top1", "kl") if own and own is not row["lists"] else ():
            pairs = zip(row["lists"][name], own[name], strict=True)
            row[f"{name}_change"] = paired_interval([float(a) - float(b) for a, b in pairs])
    return [_short(row) for row in rows]


def _short(row):
    return {k: _short(v) if isinstance(v, dict) else v for k, v in row.items() if k != "lists"}
