"""What `scripts/run_eval.py` does: one evaluation described by lengths instead of texts, its figures in one line."""

import json
import os

from bringup import arguments, backends

ON = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def switch(text):
    """An argparse type for `--trace 1`, `--trace off`."""
    if text.lower() not in ON:
        raise ValueError(text)
    return ON[text.lower()]


def add_arguments(parser):
    parser.add_argument("--mode", required=True, choices=("hf", "tt"),
                        help="the HF model in its own dtype, or the device")  # fmt: skip
    parser.add_argument("--hf-model", required=True, type=arguments.name, metavar="ID",
                        help="hub id; with --system it names the model.py")  # fmt: skip
    parser.add_argument("--system", type=arguments.name, default=os.environ.get("YT_SYSTEM", "n150"),
                        help="default: YT_SYSTEM, or n150")  # fmt: skip
    parser.add_argument("--prefill-len", type=arguments.positive, default=128, metavar="N",
                        help="prompt tokens (default: 128)")  # fmt: skip
    parser.add_argument("--decode-len", type=arguments.positive, default=100, metavar="N",
                        help="tokens to compare (default: 100)")  # fmt: skip
    parser.add_argument("--max-seq-len", type=arguments.positive, metavar="N",
                        help="cache length (default: a power of two, at least 256)")  # fmt: skip
    parser.add_argument("--batch", type=arguments.users, default=1, metavar="B",
                        help="users (1 to 32), all with the same prompt")  # fmt: skip
    parser.add_argument("--trace", type=switch, nargs="?", const=True, default=False, metavar="0|1",
                        help="traced decode")  # fmt: skip
    parser.add_argument("--prefill-decode", type=switch, nargs="?", const=True, default=False, metavar="0|1",
                        help="run the prompt token by token through decode")  # fmt: skip
    parser.add_argument("--model-dir", type=arguments.name, metavar="DIR",
                        help="a local checkpoint instead of the hub's")  # fmt: skip
    parser.add_argument("--model-py", type=arguments.name, metavar="FILE",
                        help="another model.py than models/ID/SYSTEM/functional/model.py")  # fmt: skip
    parser.add_argument("--random-weights", action="store_true", help="a known model's true configuration, no download")
    parser.add_argument("--text-file", type=arguments.name, metavar="FILE",
                        help="lead both through this text instead of their own words")  # fmt: skip
    parser.add_argument("--prompt-file", type=arguments.name, metavar="FILE",
                        help="text, cut or repeated (default: prompts/long.txt)")  # fmt: skip
    parser.add_argument("--hf-dtype", default="float32", choices=("float32", "bfloat16"), help="the reference's dtype")
    parser.add_argument("--cache-dir", default="", type=arguments.folder, metavar="DIR",
                        help="where references are kept")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of random weights and prompts")
    backends.add_arguments(parser)


def run(args):
    from bringup.console import quiet_libraries
    from bringup.evaluation.run import Job, Settings, lines
    from bringup.files import PROJECT, plain

    quiet_libraries()
    model_py = args.model_py or PROJECT / "models" / args.hf_model / args.system / "functional" / "model.py"
    job = Job(
        hf_only=args.mode == "hf",
        settings=Settings(
            model_py=str(model_py),
            model=args.model_dir or args.hf_model,
            system=args.system,
            backend=args.backend,
            numerics=args.numerics,
            random_weights=args.random_weights,
            seed=args.seed,
            prompt_file=args.prompt_file,
            text_file=args.text_file,
            prompt_tokens=args.prefill_len,
            max_new_tokens=args.decode_len,
            min_new_tokens=args.decode_len,
            max_seq_len=args.max_seq_len,
            prefill_decode=args.prefill_decode,
            batch=args.batch,
            trace=args.trace,
            hf_dtype=args.hf_dtype,
            three_way=args.mode == "tt",  # in mode hf that model takes the device's place
            cache_dir=args.cache_dir,
        ),
    )
    print(job.activation)
    print(job.describe(), flush=True)
    reference = job.reference()
    if args.mode == "hf":
        result = job.measure(job.hf_model(), None, reference)
    else:
        with job.open_model() as (model, device):
            result = job.measure(model, device, reference)
    print("\n".join(lines(result)))
    print("YT_METRICS=" + json.dumps(plain(metrics(args, job, result))))


def metrics(args, job, result):
    """The agreed keys first, then what else was measured."""
    from bringup.files import short

    agreed = {
        "mode": args.mode,
        "trace": args.trace,
        "top1": result.get("top1"),
        "top5": result.get("top5"),
        "prefill_len": len(job.prompt_ids),
        "decode_len": args.decode_len,
        "max_seq_len": job.max_seq_len,
        "batch": args.batch,
        "total": result.get("n"),
    }
    left_out = ("command", "n", *agreed)
    return agreed | {k: v for k, v in short(result).items() if k not in left_out}
