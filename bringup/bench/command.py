"""`bringup bench`: true-size models with random weights on the emulator and as the HF model, here, in one run.

Each contender has a process of its own; they take turns, so that what else the machine does falls on all of them, and a
ratio is the median of the turns' ratios. What is HF's is the faster of its bf16 and fp32 here. What else decides the
emulator's speed is measured at the end (`bringup.bench.parts`); `TARGETS` says what is enough.
"""

import json
import os
import platform
import statistics
from pathlib import Path
from typing import NamedTuple

from bringup import arguments
from bringup.bench.contenders import CLOCKS, Contender, Job, Order
from bringup.errors import BadInput, blame
from bringup.files import PROJECT, writable, write, write_json

HELP = "time the emulator against the HF model in bf16 and fp32"
LLAMA, AFM = "meta-llama/Llama-3.2-1B", "arcee-ai/AFM-4.5B"
HF = ("hf_bf16", "hf_fp32")
#: What an emulated contender is: system, numerics.
EMULATED = {"n150": ("n150", "fast"), "t3000": ("t3000", "fast"), "exact": ("n150", "exact")}


class Group(NamedTuple):
    """Contenders that take turns at jobs."""

    title: str
    model: str
    contenders: tuple
    jobs: dict  # name -> Job
    layers: int | None = None


GROUPS = {
    "n150": Group(
        "one chip", LLAMA, (*HF, "n150"),
        {"128": Job(1, 128, 16), "1024": Job(1, 1024, 4), "32 users": Job(32, 32, 8, steady=True)},
    ),
    "t3000": Group("eight chips", LLAMA, ("n150", "t3000"), {"128": Job(1, 128, 16)}),
    "exact": Group("exact numerics, 4 of the layers", LLAMA, ("n150", "exact"), {"32": Job(1, 32, 8)}, layers=4),
    "bfloat8_b": Group("weights in bfloat8_b, 4 of the layers", AFM, (*HF, "n150"), {"128": Job(1, 128, 16)}, layers=4),
}  # fmt: skip
#: Figure, how it is compared with its target, what it is, digits. A figure of models is "group job phase": the emulated
#: contender's over the faster HF's, or the second emulated one's over the first's.
TARGETS = (
    ("n150 128 decode", "<=", 0.7, "a decode step of one user, of HF's", "{:.2f}x"),
    ("n150 128 prefill", "<=", 1.2, "a prompt of 128, of HF's", "{:.2f}x"),
    ("n150 1024 prefill", "<=", 1.2, "a prompt of 1024, of HF's", "{:.2f}x"),
    ("n150 32 users decode", "<=", 1.5, "a decode step of 32 users, of HF's batch of 32", "{:.2f}x"),
    ("t3000 128 decode", "<=", 1.4, "a decode step on t3000, of n150's host time", "{:.2f}x"),
    ("t3000 128 prefill", "<=", 1.4, "a prompt of 128 on t3000, of n150's host time", "{:.2f}x"),
    ("exact 32 decode", ">=", 1.0, "a decode step in `exact`, of `fast`'s", "{:.2f}x"),
    ("bfloat8_b 128 decode", "<=", 0.7, "a decode step with bfloat8_b weights, of HF's", "{:.2f}x"),
    ("bfloat8_b 128 prefill", "<=", 1.2, "a prompt of 128 with bfloat8_b weights, of HF's", "{:.2f}x"),
    ("exact_eval_seconds", "<", 30, "`eval.py` of a tiny model in `exact`, 100 tokens", "{:.0f} s"),
    ("demo_seconds", "<", 15, "`bringup demo`, the second time", "{:.0f} s"),
    ("large_eval_seconds", "<", 180, "`eval.py` of ALLaM-7B from disk, 16 tokens", "{:.0f} s"),
    ("large_eval_gib", "<=", 16, "its peak memory", "{:.1f} GiB"),
    ("op_overhead_microseconds", "<", 30, "host time of `ttnn.add` on one tile without its arithmetic", "{:.0f} us"),
    ("conversion_vs_ttnn", ">=", 3.0, "bfloat16 weights to bfloat8_b, of the ttnn wheel's own speed", "{:.1f}x"),
    ("eval_help_seconds", "<", 0.5, "`eval.py --help`", "{:.2f} s"),
)
#: An HF model whose prompt takes so many times the other's has no turn at longer prompts.
SLOW = 3
#: Variables that make a processor behave as a lesser one, for `machine`.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "NUMBA_CPU_NAME")


def add_arguments(parser):
    parser.add_argument("--groups", type=arguments.name, default=",".join(GROUPS), metavar="LIST",
                        help=f"of {','.join(GROUPS)}, or none (default: all)")  # fmt: skip
    parser.add_argument("--jobs", type=arguments.name, metavar="LIST",
                        help="of a group's jobs only these, such as 128,1024 (default: all)")  # fmt: skip
    parser.add_argument("--layers", type=arguments.positive, metavar="N",
                        help="only so many of each model's layers: less memory")  # fmt: skip
    parser.add_argument("--repeats", type=arguments.whole(1, 1000), default=3, metavar="N",
                        help="turns after a warm-up (default: 3)")  # fmt: skip
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall",
        help="cpu: seconds computed, not passed, for a machine that others use; with OMP_NUM_THREADS=1 and "
        "NUMBA_NUM_THREADS=1, as waiting threads compute too",
    )  # fmt: skip
    parser.add_argument("--large", action="store_true",
                        help="also ALLaM-7B, from 13 GB of random weights written to the cache folder")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of the weights and the prompts")
    parser.add_argument("--json", type=arguments.name, metavar="FILE", help="write the figures")
    parser.add_argument("--document", type=arguments.name, metavar="FILE", help="write them as a page (docs/speed.md)")
    parser.add_argument("--runs", nargs="+", type=arguments.name, metavar="JSON",
                        help="only write the page, from runs kept with --json")  # fmt: skip


def run(args):
    writable(args.json)
    writable(args.document)
    if args.runs:
        if not args.document:
            raise BadInput("--runs are written as a page", want="--document FILE")
        write(args.document, document([_kept(path) for path in args.runs]))
        return
    groups = args.groups.split(",") if args.groups != "none" else []
    if unknown := set(groups) - set(GROUPS):
        raise BadInput("unknown group", got=", ".join(sorted(unknown)), want="of " + ", ".join(GROUPS))
    jobs = {job for group in groups for job in GROUPS[group].jobs}
    if args.jobs and (unknown := set(args.jobs.split(",")) - jobs):
        raise BadInput("unknown job", got=", ".join(sorted(unknown)), want="of " + ", ".join(sorted(jobs)))
    result = {"machine": machine(), "repeats": args.repeats, "layers": args.layers, "seed": args.seed}
    result |= {"clock": args.clock, "groups": {}}
    print(described(result["machine"]), flush=True)
    load = result["load_average"] = [os.getloadavg()[0]]
    if load[0] > 0.5 * os.cpu_count():
        print(f"note: others are using this machine (load {load[0]:.1f}), so the ratios are rough")
    for name in groups:
        result["groups"][name] = compete(name, args)
    result["parts"] = _parts(args.clock, args.large)
    load.append(os.getloadavg()[0])
    result |= figures(result)
    print()
    for figure, value, target, met in judged(result):
        print(f"{'met' if met else 'NOT MET':8}{value:>10}  (target {target})  {figure}")
    if args.json:
        write_json(args.json, result)
    if args.document:
        write(args.document, document([result]))
    print(json.dumps(result))


def _kept(path):
    with blame(path, "reading a run"):
        return json.loads(Path(path).read_text())


def _parts(clock, large):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from bringup.bench import parts

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        found = apart.submit(parts.measure).result()
    return found | parts.commands(clock, large)


# ---------------------------------------------------------------- models


def compete(name, args):
    """{job: {contender: {prefill, decode: seconds of every turn}}}, and what each contender took."""
    group = GROUPS[name]
    jobs = {k: job for k, job in group.jobs.items() if not args.jobs or k in args.jobs.split(",")}
    if not jobs:
        return {"jobs": {}}
    layers = min((n for n in (args.layers, group.layers) if n is not None), default=None)
    of = "" if layers is None else f", {layers} layers"
    print(f"\n{group.model}, random weights{of}: {', '.join(group.contenders)}", flush=True)
    room = max(256, *(1 << (job.prefill + (args.repeats + 2) * job.decode).bit_length() for job in jobs.values()))
    contenders = []
    for kind in group.contenders:
        system, numerics = EMULATED.get(kind, ("n150", "fast"))
        model_py = PROJECT / "models" / group.model / system / "functional" / "model.py"
        contenders.append(
            Contender(Order(kind, group.model, str(model_py), system, numerics, layers, args.seed, room, args.clock))
        )
    found = {"model": group.model, "layers": layers, "jobs": {}, "contenders": {}}
    slow = set()
    for job_name, job in jobs.items():
        here = [c for c in contenders if job.steady or c.kind not in slow]
        times = {c.kind: {"prefill": [], "decode": []} for c in here}
        for turn in range(args.repeats + 1):  # the first one warms up
            for contender in here:
                prefill, *steps = contender.turn(job)
                if turn:
                    times[contender.kind]["prefill"].append(prefill)
                    times[contender.kind]["decode"].append(statistics.median(steps))
        found["jobs"][job_name] = times
        prompts = {k: statistics.median(taken["prefill"]) for k, taken in times.items() if k in HF}
        slow |= {k for k, seconds in prompts.items() if seconds > SLOW * min(prompts.values())}
        for kind, taken in times.items():
            shown = "".join(f"{statistics.median(s):>10.4f} s {phase}" for phase, s in taken.items())
            print(f"{job_name:10}{kind:10}{shown}", flush=True)
    for contender in contenders:
        found["contenders"][contender.kind] = {
            "load_seconds": contender.load_seconds, "peak_rss_bytes": contender.close(),
        }  # fmt: skip
    return found


def figures(result):
    """{figure: median of the turns' ratios}, and {figure + " spread": the least and the greatest}."""
    out = {}
    for name, group in result["groups"].items():
        for job, times in group["jobs"].items():
            for phase in ("prefill", "decode"):
                if GROUPS[name].jobs[job].steady and phase == "prefill":
                    continue
                ours = next(k for k in reversed(times) if k not in HF)
                rivals = [k for k in times if k != ours]
                turns = zip(*(times[k][phase] for k in rivals))
                least = [min(turn) for turn in turns]
                ratios = [a / b for a, b in zip(times[ours][phase], least)]
                out[f"{name} {job} {phase}"] = statistics.median(ratios)
                out[f"{name} {job} {phase} spread"] = [min(ratios), max(ratios)]
    parts = result["parts"]
    out["conversion_vs_ttnn"] = parts["conversion_gb_per_second"] / parts["ttnn_conversion_gb_per_second"]
    return out


def judged(result):
    """(what, measured, target, met) of every target that was measured."""
    found = result | result["parts"]
    found["op_overhead_microseconds"] = found["op_overhead_microseconds"]["ttnn.add"]
    for name, sign, target, what, form in TARGETS:
        if name in found:
            met = {"<=": found[name] <= target, "<": found[name] < target, ">=": found[name] >= target}[sign]
            value = form.format(found[name])
            if spread := found.get(f"{name} spread"):
                value += " ({} to {})".format(*(form.format(s) for s in spread))
            yield what, value, f"{sign} {form.format(target)}", met


# ---------------------------------------------------------------- the machine, the page


def machine():
    """What decides the speed: the processor, its class, how `fast` multiplies, and what was made to look lesser."""
    import torch

    from ttnn_emulator.numerics import product

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    way, why = product.choice()
    return {
        "processor": name, "cores": os.cpu_count(), "torch": torch.__version__, "threads": torch.get_num_threads(),
        "class": torch.backends.cpu.get_cpu_capability() + (", bf16 units" if way == "bf16" else ""),
        "products": way, "why": why, "limits": {k: os.environ[k] for k in LIMITS if k in os.environ},
    }  # fmt: skip


def described(found):
    text = f"{found['processor']}, {found['cores']} cores, torch {found['torch']} with {found['threads']} threads"
    lesser = ", which the variables " + ", ".join(found["limits"]) + " make of it" if found["limits"] else ""
    return f"{text}; {found['class']}{lesser}; products {found['products']} ({found['why']})"


def document(runs):
    """The page docs/speed.md of some runs, a section for each."""
    from jinja2 import Environment, FileSystemLoader

    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=False, trim_blocks=True)
    page.filters |= {"median": statistics.median}
    sections = [
        {"result": run, "machine": run["machine"], "described": described(run["machine"]), "judged": list(judged(run))}
        for run in runs
    ]
    return page.get_template("speed.md.j2").render(sections=sections, titles={k: g.title for k, g in GROUPS.items()})
