"""`bringup eval` and `eval.py`: teacher-forced accuracy of one model.py against its HF model."""

import argparse
import json

from bringup import arguments, backends
from bringup.backends.systems import NAMES

HELP = "teacher-forced accuracy of one model.py against its HF model"


def add_arguments(parser):
    add_model_arguments(parser)
    add_trace_arguments(parser)
    add_prompt_arguments(parser)
    parser.add_argument("--text_file", type=arguments.name, metavar="FILE",
                        help="lead both through this text (default: their own words)")  # fmt: skip
    parser.add_argument("--min_new_tokens", type=arguments.natural, default=0, metavar="N",
                        help="no end of text before N tokens")  # fmt: skip
    parser.add_argument("--prefill_decode", action="store_true", help="run the prompt token by token through decode")
    parser.add_argument("--one_pass", action="store_true", help="the text of --text_file as one prompt, no decode step")
    parser.add_argument("--batch", type=arguments.users, default=1, metavar="B",
                        help="users (1 to 32), all with the same prompt")  # fmt: skip
    parser.add_argument("--hf-dtype", default="float32", choices=("float32", "bfloat16"), help="the reference's dtype")
    parser.add_argument("--three_way", action=argparse.BooleanOptionalAction, default=True,
                        help="HF in bf16 beside the device: what the format costs (default: on)")  # fmt: skip
    parser.add_argument("--json", type=arguments.name, metavar="FILE",
                        help="write the result, with one record per position")  # fmt: skip


def add_model_arguments(parser, nargs=None):
    """What to run, on what; `nargs` of MODEL_PY."""
    parser.add_argument("model_py", nargs=nargs, type=arguments.name, metavar="MODEL_PY",
                        help="models/<org>/<model>/<system>/functional/model.py")  # fmt: skip
    parser.add_argument("--model", type=arguments.name, metavar="DIR_OR_ID",
                        help="HF checkpoint directory, GGUF file or hub id (default: as the path says)")  # fmt: skip
    parser.add_argument("--random-weights", action="store_true", help="a known model's true configuration, no download")
    parser.add_argument("--system", type=arguments.name,
                        help=f"{', '.join(NAMES)} (default: as the path says)")  # fmt: skip
    backends.add_arguments(parser)
    parser.add_argument("--device_id", type=arguments.board, default=0, metavar="N", help="which board, on one chip")
    parser.add_argument("--max_seq_len", type=arguments.positive, metavar="N",
                        help="cache length (default: a power of two, at least 256)")  # fmt: skip
    parser.add_argument("--cache_dir", default="", type=arguments.folder, metavar="DIR",
                        help="of references and large random weights (default: ~/.cache/ttnn-bringup)")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N",
                        help="of random weights, random prompts and sampling")  # fmt: skip


def add_trace_arguments(parser):
    from bringup.evaluation.run import TRACE_REGION_BYTES

    parser.add_argument("--trace", action="store_true", help="capture the decode step once, and replay it")
    parser.add_argument("--trace_region_size", type=arguments.natural, default=TRACE_REGION_BYTES, metavar="BYTES",
                        help="DRAM for the captured step (default: 64 MiB)")  # fmt: skip


def add_prompt_arguments(parser):
    parser.add_argument("--prompt", type=arguments.text, metavar="TEXT", help="the prompt itself")
    parser.add_argument("--prompt_file", type=arguments.name, metavar="FILE",
                        help="a text file (default: prompts/long.txt)")  # fmt: skip
    parser.add_argument("--prompt_ids_file", type=arguments.name, metavar="FILE",
                        help="token ids, separated by spaces or commas")  # fmt: skip
    parser.add_argument("--chat", action="store_true", help="the prompt is a user's message in the chat template")
    parser.add_argument("--max_new_tokens", type=arguments.positive, default=100, metavar="N",
                        help="tokens to compare (default: 100)")  # fmt: skip


def run(args):
    from bringup.console import duration, quiet_libraries
    from bringup.evaluation import estimate
    from bringup.evaluation.run import Job, Settings, lines
    from bringup.files import plain, short, writable, write_json

    quiet_libraries()
    writable(args.json)
    names = Settings.__dataclass_fields__
    job = Job(Settings(**{k: v for k, v in vars(args).items() if k in names}))
    print(job.activation)
    print(job.describe(), flush=True)
    if guess := estimate.of(job):
        print(guess, flush=True)
    reference = job.reference()
    kept = "from the cache" if reference.cached else duration(reference.seconds)
    beside = " and bfloat16" * (reference.bf16 is not None)
    print(f"reference: HF {reference.dtype}{beside}, {len(reference.tokens)} tokens, {kept}", flush=True)
    with job.open_model() as (model, device):
        result = job.measure(model, device, reference)
    print("\n".join(lines(result)))
    print(
        f"Took {result['seconds_build']:.1f} s to build, {result['seconds_total']:.1f} s to run"
        + (" on this machine, not on a device" if job.activation.emulated else "")
    )
    if args.json:
        write_json(args.json, result)
    print(json.dumps(plain(short(result))))
