"""HF's generate() with a model.py: the text as it comes, how right it is, memory, predicted speed, and a report.

bringup demo                                    # the first run: a small trained Llama on an emulated n150
bringup demo MODEL_PY --model DIR --prompt "A list is" --eval
"""

import argparse
from pathlib import Path

from bringup import arguments, backends
from bringup.errors import BadInput, shown
from bringup.evaluation import command
from bringup.evaluation.lines import memory_line
from bringup.evaluation.metrics import Rate
from bringup.files import located, writable, write_json

HELP = "generate() with one model.py: its text, how right it is, memory, predicted speed (no MODEL_PY: the first run)"
#: Without a MODEL_PY. At this temperature the small Llama writes sentences of its own; greedy, it recites the Python
#: documentation that it was trained on.
FIRST_RUN = {
    "model_py": "models/meta-llama/Llama-3.2-1B/n150/functional/model.py",
    "model": "checkpoints/tiny-llama",
    "prompt": "Every object has a type. When an object is copied,",
    "temperature": 1.0,
    "eval": True,
}
PROMPTS = ("prompt", "prompt_file", "prompt_ids_file")
ITEMS = ("teacher_forcing", "performance")  # of the checklist: what --eval asks


def add_arguments(parser):
    command.add_model_arguments(parser, nargs="?")
    command.add_trace_arguments(parser)
    command.add_prompt_arguments(parser)
    parser.add_argument("--temperature", type=arguments.number(0, 1000), default=None, metavar="T",
                        help="sample; 0 is greedy (default)")  # fmt: skip
    parser.add_argument("--top_p", type=arguments.number(0, 1, low_itself=False), default=1.0, metavar="P",
                        help="sample from the best P of the probability")  # fmt: skip
    parser.add_argument("--eval", action="store_true", help="then compare with the HF model, and write a report")
    parser.add_argument("--hf-dtype", default="float32", choices=("float32", "bfloat16"), help="the reference's dtype")
    parser.add_argument("--three_way", action=argparse.BooleanOptionalAction, default=True,
                        help="with --eval: HF in bf16 beside the device (default: on)")  # fmt: skip
    parser.add_argument("--out", type=arguments.name, default="reports/demo", metavar="DIR",
                        help="with --eval: its report (%(default)s)")  # fmt: skip
    parser.add_argument("--json", type=arguments.name, metavar="FILE", help="write the figures")


def run(args):
    from bringup.checkpoints import mapped
    from bringup.checks.context import Context
    from bringup.console import patience, quiet_libraries
    from bringup.evaluation.generation import generate
    from bringup.evaluation.run import Job, Settings

    quiet_libraries()
    _first_run(args)
    writable(args.json)
    names = Settings.__dataclass_fields__
    with patience("loading PyTorch and transformers"):
        job = Job(Settings(**{k: v for k, v in vars(args).items() if k in names}))
    print(job.activation)
    print(job.describe(), flush=True)
    print()
    with Context(job, items=ITEMS) as context:
        model, device = context.built
        result = job.facts() | generate(job, model, args.temperature, args.top_p)
        print("\n" + _pace(job, result))
        rows = []
        if args.eval:
            with patience("comparing with the HF model"):
                context.reference = _reference(job, result, greedy=args.temperature == 0)
                rows = _evaluated(context, result, args)
        rows[-1:-1] = _memory(device, result)
        result["peak_rss_bytes"] = mapped.peak_rss_bytes()
    result["command"] = job.command("demo.py") + " --eval" * args.eval
    if args.json:
        write_json(args.json, result)
        rows.append(("figures", shown(args.json)))
    rows.append(("next", _next(args, result)))
    print("\n" + "\n".join(f"{name:<10} {text}" for name, text in rows))


def _first_run(args):
    """Fills in FIRST_RUN where no model file is named, and greedy where no temperature is."""
    if args.model_py is None:
        if args.model or args.random_weights:
            want = "MODEL_PY too, or neither for the first run"
            raise BadInput("which model file?", got="--model" if args.model else "--random-weights", want=want)
        given = vars(args)
        missing = {name for name in FIRST_RUN if given[name] is None or given[name] is False}
        if any(given[name] is not None for name in PROMPTS):
            missing.discard("prompt")
        given |= {name: FIRST_RUN[name] for name in missing}
    args.temperature = args.temperature or 0.0


def _pace(job, result):
    label = "emulated: times of this machine, not of a device" if job.activation.emulated else "measured"
    rate = f", {result['tokens_per_second_per_user']:.1f} t/s/u" if result["tokens_per_second_per_user"] else ""
    line = f"TTFT {result['ttft_ms']:.0f} ms{rate} ({label}); {result['new_tokens']} tokens"
    if not job.activation.values:
        line += f"\nThe calls were accepted; {job.activation.name} holds no values, so the text means nothing"
    return line


def _reference(job, result, greedy):
    """What HF says: of its own greedy text after the prompt, or of the text that the device has sampled."""
    from bringup.evaluation.generation import common_prefix

    if greedy or not job.activation.values:
        found = job.reference()
        agreeing = common_prefix(result["token_ids"], found.tokens)
        print(f"free-running text: the first {agreeing} of {len(found.tokens)} tokens are the HF model's own")
        return found
    return job.scored(job.prompt_ids, result["token_ids"], "the text above")


def _evaluated(context, result, args):
    """Asks ITEMS about the text; what was found as rows, the record in `result`, the report in --out."""
    from bringup.checks import checklist
    from bringup.checks.one import write_folder

    context.reference_on_text = context.measured_on_text = None  # one text is enough here
    check = checklist.record(context, ITEMS)
    check["command"] = context.job.command("demo.py") + " --eval"
    result |= context.measured
    folder = Path(args.out)
    write_folder(check, context.records, folder)
    rows = []
    if "top1" in result:
        n, bf16 = result["n"], result.get("bf16")
        rates = ", ".join(
            f"{name} {100 * result[key]:.1f} % ({Rate(round(result[key] * n), n).spread()})"
            for name, key in (("top-1", "top1"), ("top-5", "top5"))
        )
        rows.append(("accuracy", f"{rates} of {n} tokens, against HF in {args.hf_dtype}"))
        beside = f", HF in bfloat16 {bf16['kl_mean']:.1e}" if bf16 else ""
        rows.append(("", f"KL divergence {result['kl_mean']:.1e} nats{beside}; perplexity of the text "
                         f"{result['perplexity_device']:.2f}, HF's {result['perplexity_reference']:.2f}"))  # fmt: skip
    else:
        rows.append(("accuracy", context.no_values))
    if predicted := check["predicted"]:
        rows.append(("speed", f"predicted for {context.job.system.name}, a model of this size: TTFT "
                              f"{1000 * predicted['ttft_seconds']:.1f} ms, then "
                              f"{predicted['tokens_per_second_per_user']:.0f} t/s/u"))  # fmt: skip
    rows.append(("report", f"{shown(folder / 'report.html')} (check.json and the op log beside it)"))
    return rows


def _memory(device, result):
    """The row of the device's memory, where the backend knows it."""
    result["memory"] = backends.memory(device)
    return [("memory", memory_line(result["memory"]))] if result["memory"] else []


def _next(args, result):
    words = f"{shown(located(args.model_py))} --model {args.model or result['checkpoint']}"
    return f"bringup check {words}" if args.eval else f"bringup demo {words} --eval"
