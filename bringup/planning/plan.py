"""What `bringup plan` says of a configuration on a system, as plain data."""

from bringup.backends import systems
from bringup.errors import BadInput, shown
from bringup.files import located

WEIGHTS = ("bf16", "bfp8", "bfp4")  # the widest first


def find_config(model):
    """(HF id or None, HF configuration) of an id, a checkpoint directory or a config.json."""
    from bringup.checkpoints import configuration

    path = located(model)
    if path.exists():
        return None, configuration.read(path)
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
    from bringup.planning.formats import Formats, dtype_name
    from bringup.planning.memory import Memory, check_longest, smallest_system
    from bringup.planning.wiring import Wiring

    cache = dtype_name(cache)
    backends.activate("emulator")
    system = systems.get(system)
    check(config, users, context, prompt)
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
            for name in systems.alike(system)
            for w in WEIGHTS
        ]
    return result


def check(config, users, context, prompt):
    """BadInput for numbers that no plan has."""
    if not 1 <= users <= 32:
        raise BadInput("--users is out of range", got=users, want="1 to 32")
    if not 2 <= context <= config.max_position_embeddings or not 1 <= prompt < context:
        raise BadInput(
            "a context that the model does not have, or a prompt that does not fit it",
            got=f"--context {context} --prompt {prompt}",
            want=f"1 <= prompt < context <= {config.max_position_embeddings}",
        )


def every_system(config, *, hf_id=None, weights=None, cache="bf16", users=1, context=1024, prompt=128):
    """A row of each machine there is: the widest weights that fit there (or those given), contexts and speeds."""
    from bringup import backends
    from bringup.planning.formats import Formats, dtype_name
    from bringup.planning.memory import Memory

    backends.activate("emulator")
    check(config, users, context, prompt)
    tried = [Formats.parse(w, dtype_name(cache)) for w in ([weights] if weights else WEIGHTS)]
    rows = []
    for system in systems.machines():
        held = (formats for formats in tried if Memory(config, system, formats).fits(context, users))
        formats = next(held, tried[-1])
        rows.append(row(config, hf_id, system, formats, users, context, prompt))
    return {
        "format": 1,
        "hf_id": hf_id,
        "cache": dtype_name(cache),
        "users": users,
        "context": context,
        "prompt": prompt,
        "smallest_system": next((r["system"] for r in rows if r["fits"]), None),
        "systems": rows,
    }


def row(config, hf_id, system, formats, users, context, prompt):
    """One system and dtype: bytes, contexts and predicted speed."""
    from bringup.planning.memory import Memory
    from bringup.planning.wiring import Wiring

    memory = Memory(config, system, formats)
    kind = memory.fits(context, users)
    found = {
        "system": system.name,
        "chips": system.chips,
        "dram_bytes": system.chip.dram_bytes,
        "recorded": system.recorded,
        "weights": str(formats),
        "weights_bytes": sum(memory.weights.values()),
        "fits": kind,
    }
    found |= memory.longest_contexts() | {"needed_bytes": memory.needed(context, users if kind == "paged" else None)}
    wiring = Wiring.find(config, hf_id, system)
    measured = wiring.measured(config, system, memory, formats, context, prompt, users) if kind else {}
    run = measured.get("run") or {}
    return found | {"predicted": measured.get("predicted"), "refused": run.get("refused"), "gaps": wiring.gaps}
