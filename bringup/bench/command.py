"""`bringup bench`: a true-size model with random weights on the emulator and as the HF model, here, in one run.

Each contender runs in a process of its own, one after another, so that each has the memory to itself and its own peak.
What else decides the emulator's speed is measured after them (`bringup.bench.parts`); `TARGETS` says what is enough.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bringup import backends
from bringup.errors import BadInput, BringupError, blame

HELP = "time the emulator against the HF model in bf16 and fp32"
CONTENDERS = ("hf_bf16", "emulator", "hf_fp32")
#: Figure, how it is compared with its target, what it is, digits.
TARGETS = (
    ("decode_vs_hf_bf16", "<=", 1.0, "a decode step, of HF's in bf16", "{:.2f}x"),
    ("prefill_vs_hf_bf16", "<=", 2.0, "a prompt, of HF's in bf16", "{:.2f}x"),
    ("op_overhead_microseconds", "<", 30, "host time of `ttnn.add` on one tile without its arithmetic", "{:.0f} us"),
    ("conversion_vs_ttnn", ">=", 3.0, "bfloat16 weights to bfloat8_b, of the ttnn wheel's own speed", "{:.1f}x"),
    ("eval_help_seconds", "<", 0.5, "`eval.py --help`", "{:.2f} s"),
)
DEFAULT_MODEL = "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"


def add_arguments(parser):
    parser.add_argument("model_py", nargs="?", metavar="MODEL_PY", help=f"default: {DEFAULT_MODEL}")
    parser.add_argument("--model", metavar="ID", help="a model whose configuration is kept (default: as the path says)")
    parser.add_argument("--system", help="default: as the path says")
    backends.add_arguments(parser)
    parser.add_argument("--prefill", type=int, default=128, metavar="N", help="prompt tokens (default: 128)")
    parser.add_argument("--decode", type=int, default=16, metavar="N", help="decode steps (default: 16)")
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="measured runs after a warm-up (default: 3)"
    )
    parser.add_argument("--contenders", default=",".join(CONTENDERS), metavar="LIST", help=f"of {','.join(CONTENDERS)}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights and the prompt")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--document", metavar="FILE", help="write them as a page (docs/speed.md)")


def run(args):
    from bringup.backends import model_files
    from bringup.checkpoints import known
    from bringup.files import PROJECT

    contenders = args.contenders.split(",")
    if unknown := set(contenders) - set(CONTENDERS):
        raise BadInput("unknown contender", got=", ".join(sorted(unknown)), want="of " + ", ".join(CONTENDERS))
    for flag in ("prefill", "decode", "repeats"):
        if getattr(args, flag) < 1:
            raise BadInput(f"--{flag} must be at least 1", got=getattr(args, flag))
    args.model_py = args.model_py or str(PROJECT / DEFAULT_MODEL)
    found = model_files.describe(args.model_py)
    args.system = args.system or found.system or "n150"
    args.model = args.model or found.hf_id
    known.known_config_path(args.model)
    result = {"model": args.model, "system": args.system, "machine": machine()}
    result |= {name: getattr(args, name) for name in ("prefill", "decode", "repeats", "seed")}
    print(f"{args.model} on {args.system}, random weights; {result['machine']}", flush=True)
    result["load_average"] = os.getloadavg()[0]
    if result["load_average"] > 0.5 * os.cpu_count():
        print(f"note: others are using this machine (load {result['load_average']:.1f}), so the ratios are rough")
    print(f"{'':10}{'prefill ' + str(args.prefill):>14}{'decode step':>14}{'peak memory':>14}")
    for contender in contenders:
        found = result[contender] = in_own_process(contender, args)
        times = f"{found['prefill_seconds']:>12.3f} s{found['decode_seconds']:>12.4f} s"
        print(f"{contender:10}{times}{found['peak_rss_bytes'] / 2**30:>10.2f} GiB", flush=True)
    result["parts"] = in_own_process("parts", args)
    result["load_average_after"] = os.getloadavg()[0]
    result |= ratios(result)
    print()
    for name in sorted(ratios(result)):
        print(f"{name}: {result[name]:.2f}x")
    print()
    for figure, value, target, met in judged(result):
        print(f"{'met' if met else 'NOT MET':8}{value:>10}  (target {target})  {figure}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    if args.document:
        Path(args.document).write_text(document(result))
    print(json.dumps(result))


def ratios(result):
    """The emulator's times over each HF run's, of the medians and (`_best`) of the shortest; conversion over ttnn's."""
    out = {}
    for phase in ("decode", "prefill"):
        for contender in ("hf_bf16", "hf_fp32"):
            if contender in result and "emulator" in result:
                ours, theirs = result["emulator"], result[contender]
                out[f"{phase}_vs_{contender}"] = ours[f"{phase}_seconds"] / theirs[f"{phase}_seconds"]
                out[f"{phase}_vs_{contender}_best"] = ours[f"{phase}_spread"][0] / theirs[f"{phase}_spread"][0]
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
            yield what, form.format(found[name]), f"{sign} {form.format(target)}", met


def document(result):
    """The page docs/speed.md."""
    from jinja2 import Environment, FileSystemLoader

    page = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=False).get_template("speed.md.j2")
    runs = {name: result[name] for name in CONTENDERS if name in result}
    return page.render(result=result, parts=result["parts"], runs=runs, judged=list(judged(result)))


def machine():
    import torch

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads"


def in_own_process(contender, args):
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder) / "order.json", Path(folder) / "answer.json"
        order.write_text(json.dumps({k: v for k, v in vars(args).items() if isinstance(v, (str, int, type(None)))}))
        done = subprocess.run([sys.executable, "-m", "bringup.bench.command", contender, order, answer], check=False)
        if done.returncode != 0:
            raise BringupError(f"{contender} failed", got=f"exit code {done.returncode}")
        return json.loads(answer.read_text())


def contend(contender, order):
    """Measure one contender in this process: medians and extremes over the repeats, and the process's peak memory."""
    if contender == "parts":
        from bringup.bench import parts

        return parts.measure(order)
    from bringup.backends import model_files, systems
    from bringup.checkpoints import random_weights, sources
    from bringup.checkpoints.session import Session
    from bringup.console import quiet_libraries

    quiet_libraries()
    source = sources.find_source(order["model"], random_weights=True, seed=order["seed"])
    start = time.perf_counter()
    if contender == "emulator":
        backends.activate(order["backend"] or "emulator", order["system"], order["numerics"])
        model_file = model_files.load_model_file(order["model_py"], order["system"])
    hf_model = sources.load_hf_model(source, "float32" if contender == "hf_fp32" else "bfloat16")
    prompt = random_weights.prompt_ids(hf_model.config, order["prefill"], order["seed"])
    times = {"prefill": [], "decode": []}

    def sequences(model):
        for repeat in range(order["repeats"] + 1):  # the first one warms up
            session = Session(model)
            token = int(session(prompt)[0].argmax())
            for _ in range(order["decode"]):
                token = int(session([token])[0].argmax())
            if repeat:
                times["prefill"].append(session.seconds[0])
                times["decode"] += session.seconds[1:]

    result = {"load_seconds": time.perf_counter() - start}
    if contender == "emulator":
        length = max(256, 1 << (order["prefill"] + order["decode"] - 1).bit_length())
        with backends.open_system(systems.get(order["system"])) as device:
            model = model_files.build(model_file, hf_model, device, length)
            del hf_model
            result |= {"load_seconds": time.perf_counter() - start, "numerics": order["numerics"] or "fast"}
            with blame(model_file.path, "running the model"):
                sequences(model)
            result["memory"] = backends.memory(device)
            del model
    else:
        sequences(hf_model)
    for phase, found in times.items():
        result |= {f"{phase}_seconds": statistics.median(found), f"{phase}_spread": [min(found), max(found)]}
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


if __name__ == "__main__":
    from bringup.errors import guarded

    def child(contender, order, answer):
        Path(answer).write_text(json.dumps(contend(contender, json.loads(Path(order).read_text()))))

    sys.exit(guarded(child, *sys.argv[1:4]))
