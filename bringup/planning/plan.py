"""Does a model fit, with how long a context, and how fast will it be: from its configuration, without weights.

bringup plan meta-llama/Llama-3.2-1B --system n150
bringup plan path/to/config.json --system n300 --weights attention=bfp8,mlp=bfp4,head=bfp8 --users 8 --context 8192

Bytes are counted from shapes as the chip's allocator deals them; where there is a model file for the model, it is built
and run by shapes alone, and its memory and op log count. Speeds are predicted from the op log, never measured.
"""

import json
from pathlib import Path

from bringup import systems
from bringup.errors import BadInput, shown
from bringup.files import writable

HELP = "does it fit, how long a context, how fast: from a configuration, without weights or a board"
WEIGHTS = ("bf16", "bfp8", "bfp4")


def add_arguments(parser):
    parser.add_argument(
        "model", nargs="?", metavar="HF_ID_OR_CONFIG", help="HF id, checkpoint directory or config.json"
    )
    parser.add_argument("--system", choices=systems.SYSTEMS, default="n150", help="default: %(default)s")
    parser.add_argument("--model_py", metavar="FILE", help="the model file (default: models/HF_ID/SYSTEM, where it is)")
    parser.add_argument(
        "--weights",
        metavar="DTYPE",
        help="bf16, bfp8 or bfp4, or attention=..,mlp=..,head=.. (default: the model file's)",
    )
    parser.add_argument("--cache", default="bf16", metavar="DTYPE", help="of keys and values (default: %(default)s)")
    parser.add_argument("--users", type=int, default=1, metavar="N", help="1 to 32 (default: %(default)s)")
    parser.add_argument(
        "--context", type=int, default=1024, metavar="N", help="positions of each (default: %(default)s)"
    )
    parser.add_argument(
        "--prompt", type=int, default=128, metavar="N", help="tokens before the first (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the plan")
    parser.add_argument(
        "--docs", metavar="FILE", nargs="?", const="docs/planning.md", help="write the plans of all known models"
    )


def run(args):
    from bringup.evaluation.command import quiet_libraries

    quiet_libraries()
    if args.docs:
        from bringup.planning.docs import render

        Path(args.docs).write_text(render())
        print(f"wrote {shown(args.docs)}")
        return
    if args.model is None:
        raise BadInput("which model?", want="an HF id, a checkpoint directory or a config.json")
    writable(args.json)
    hf_id, config = find_config(args.model)
    result = plan(
        config, args.system, hf_id=hf_id, model_py=args.model_py, weights=args.weights, cache=args.cache,
        users=args.users, context=args.context, prompt=args.prompt,
    )  # fmt: skip
    from bringup.planning.show import show

    show(result)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


def find_config(model):
    """(HF id or None, HF configuration) of an id, a checkpoint directory or a config.json."""
    from bringup import configuration

    if Path(model).exists():
        return None, configuration.read(model)
    config, hf_id, _ = configuration.find(model)
    return hf_id, config


def plan(
    config,
    system,
    *,
    hf_id=None,
    model_py=None,
    weights=None,
    cache="bf16",
    users=1,
    context=1024,
    prompt=128,
    table=True,
):
    """Everything `bringup plan` says, as plain data."""
    from bringup import backends
    from bringup.planning.formats import Formats
    from bringup.planning.memory import Memory, check_longest, smallest_system
    from bringup.planning.wiring import Wiring

    backends.activate("emulator")
    system = systems.get(system)
    if not 1 <= users <= 32:
        raise BadInput("--users is out of range", got=users, want="1 to 32")
    if not 2 <= context <= config.max_position_embeddings or not 1 <= prompt < context:
        raise BadInput(
            "a context that the model does not have, or a prompt that does not fit it",
            got=f"--context {context} --prompt {prompt}",
            want=f"1 <= prompt < context <= {config.max_position_embeddings}",
        )
    wiring = Wiring.find(config, hf_id, system, model_py)
    formats = Formats.parse(weights, cache) if weights else wiring.formats(cache)
    memory = Memory(config, system, formats)
    contexts = memory.longest_contexts()
    result = {
        "format": 1,
        "hf_id": hf_id,
        "system": system.name,
        "chips": system.chips,
        "weights": {group: getattr(formats, group) for group in ("attention", "mlp", "head")},
        "cache": formats.cache,
        "users": users,
        "context": context,
        "prompt": prompt,
        "wiring": wiring.name,
        "model_py": shown(wiring.path) if wiring.name == "model file" else None,
        "gaps": wiring.gaps,
        "chip": memory.as_dict(context, users),
        "uncounted": memory.shapes.unknown(),
        "tensor_parallel": memory.shapes.tensor_parallel(),
        "longest_context": contexts,
        "smallest_system": smallest_system(config, formats, context, users),
    }
    result |= wiring.measured(config, system, memory, formats, context, prompt, users)
    if wiring.path:
        result["longest_context"]["run"] = check_longest(wiring.path, config, system, formats, contexts)
    if table:
        result["table"] = [
            row(config, hf_id, systems.get(name), Formats.parse(w, formats.cache), users, context, prompt)
            for name in ("n150", "n300", "t3000")
            for w in WEIGHTS
        ]
    return result


def row(config, hf_id, system, formats, users, context, prompt):
    """One system and dtype: bytes, contexts and predicted speed."""
    from bringup.planning.memory import Memory
    from bringup.planning.wiring import Wiring

    memory = Memory(config, system, formats)
    kind = memory.fits(context, users)
    found = {
        "system": system.name,
        "weights": str(formats),
        "weights_bytes": sum(memory.weights.values()),
        "fits": kind,
    }
    found |= memory.longest_contexts() | {"needed_bytes": memory.needed(context, users if kind == "paged" else None)}
    wiring = Wiring.find(config, hf_id, system)
    measured = wiring.measured(config, system, memory, formats, context, prompt, users) if kind else {}
    return found | {"predicted": measured.get("predicted")}
