"""Does a model fit, with how long a context, and how fast will it be: from its configuration, without weights.

bringup plan meta-llama/Llama-3.2-1B                 # every system: what fits, how long a context, how fast
bringup plan meta-llama/Llama-3.2-1B --system n150
bringup plan path/to/config.json --system n300 --weights attention=bfp8,mlp=bfp4,head=bfp8 --users 8 --context 8192
bringup plan models/meta-llama/Llama-3.2-1B/n150/functional/model.py --ops ops.csv    # then: tt-perf-report ops.csv

Bytes are counted from shapes as the chip's allocator deals them; where there is a model file for the model, it is built
and run by shapes alone, and its memory and op log count. Speeds are predicted from the op log, never measured.
"""

from bringup import arguments
from bringup.backends import systems
from bringup.errors import BadInput, shown
from bringup.files import writable, write, write_json

HELP = "does it fit, how long a context, how fast: from a configuration, without weights or a board"


def add_arguments(parser):
    parser.add_argument("model", nargs="?", type=arguments.name, metavar="HF_ID_OR_CONFIG",
                        help="HF id, checkpoint directory, GGUF file, config.json, or a model.py")  # fmt: skip
    parser.add_argument("--system", choices=systems.NAMES, help="default: a table of all systems")
    parser.add_argument("--model_py", type=arguments.name, metavar="FILE",
                        help="the model file (default: models/HF_ID/SYSTEM, where it is)")  # fmt: skip
    weights_help = "bf16, bfp8 or bfp4, or attention=..,mlp=..,head=.. (default: the model file's)"
    parser.add_argument("--weights", type=arguments.name, metavar="DTYPE", help=weights_help)
    parser.add_argument("--cache", default="bf16", metavar="DTYPE", help="of keys and values (default: %(default)s)")
    parser.add_argument("--users", type=arguments.users, default=1, metavar="N", help="1 to 32 (default: %(default)s)")
    parser.add_argument("--context", type=arguments.positive, default=1024, metavar="N",
                        help="positions of each (default: %(default)s)")  # fmt: skip
    parser.add_argument("--prompt", type=arguments.positive, default=128, metavar="N",
                        help="tokens before the first (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", type=arguments.name, metavar="FILE", help="write the plan")
    parser.add_argument("--ops", type=arguments.name, metavar="FILE",
                        help="write the predicted programs, as tt-perf-report reads them")  # fmt: skip
    parser.add_argument("--docs", type=arguments.name, metavar="FILE", nargs="?", const="docs/planning.md",
                        help="write the plans of all known models")  # fmt: skip


def run(args):
    from bringup.console import quiet_libraries
    from bringup.planning.plan import every_system, plan
    from bringup.planning.show import show, show_systems

    quiet_libraries()
    if args.docs:
        from bringup.planning.docs import render

        write(args.docs, render())
        print(f"wrote {shown(args.docs)}")
        return
    if args.model is None:
        raise BadInput("which model?", want="an HF id, a checkpoint directory or a config.json")
    writable(args.json)
    writable(args.ops)
    hf_id, config = _find(args)
    how = {"hf_id": hf_id, "weights": args.weights, "cache": args.cache, "users": args.users, "context": args.context}
    for option in ("model_py", "ops"):
        if args.system is None and getattr(args, option):
            raise BadInput("that is of one system", got=f"--{option} {getattr(args, option)}", want="--system")
    if args.system is None:
        result = every_system(config, prompt=args.prompt, **how)
        show_systems(result)
    else:
        result = plan(config, args.system, model_py=args.model_py, prompt=args.prompt, **how)
        show(result)
    if args.ops:
        print(f"wrote {shown(_write_ops(args, hf_id, config))}: predicted, for tt-perf-report")
    if args.json:
        write_json(args.json, result)


def _find(args):
    """(HF id, configuration) of what was named; the path of a model file says its id and system too."""
    from bringup.backends import model_files
    from bringup.planning.plan import find_config

    if not args.model.endswith(".py"):
        return find_config(args.model)
    file = model_files.describe(args.model)
    if file.hf_id is None:
        raise BadInput("of which model?", got=shown(file.path), want="HF_ID_OR_CONFIG, and the file as --model_py")
    args.model_py, args.system = args.model_py or str(file.path), args.system or file.system
    return file.hf_id, find_config(file.hf_id)[1]


def _write_ops(args, hf_id, config):
    from bringup.planning import ops
    from bringup.planning.formats import Formats, dtype_name
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import Wiring

    system = systems.get(args.system)
    wiring = Wiring.find(config, hf_id, system, args.model_py)
    if wiring.path is None:
        raise BadInput("no model file to run by shapes", got="; ".join(wiring.gaps), want="--model_py FILE")
    formats = Formats.parse(args.weights, dtype_name(args.cache)) if args.weights else wiring.formats(args.cache)
    found = spec_run(wiring.path, config, system, max_seq_len=args.context, prompt=args.prompt, formats=formats)
    prefill, decode = found.replayed or (found.prefill, found.decode)
    phases = {"prefill": (prefill, False), "decode": (decode, True)}
    context = min(args.context, args.prompt + 32)
    return ops.write_csv(args.ops, phases, system, users=args.users, context=context)
