"""Random weights of a configuration: in memory, and for large models as a checkpoint directory like any other.

    bringup random-checkpoint humain-ai/ALLaM-7B-Instruct-preview /data/allam-random

The same seed gives the same weights either way: each parameter has a generator of its own, seeded by its name.
"""

import hashlib
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bringup import arguments, files
from bringup.checkpoints import configuration, known
from bringup.console import gib, progress
from bringup.errors import BadInput, shown

HELP = "write random weights of a true configuration as a checkpoint directory"
RULE = "normal(0, initializer_range), seeded by name; o_proj and down_proj / sqrt(2 layers); norms in effect 1, bias 0"
ABOUT = "random_weights.json"  # beside the weights: they are of no training
SHARD_BYTES = 1 << 30
SPARE_DISK_BYTES = 1 << 30


def add_arguments(parser):
    parser.add_argument("config", type=arguments.name, metavar="ID_OR_CONFIG",
                        help="a known model's id, or a config.json (or its directory)")  # fmt: skip
    parser.add_argument("directory", type=arguments.name, metavar="DIR",
                        help="where to write; must be empty, or an interrupted run's")  # fmt: skip
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="default: 0")


def run(args):
    if Path(args.config).exists():
        config = configuration.read(args.config)
    elif args.config not in known.known_ids():
        raise BadInput(
            "no configuration is kept for this model",
            got=args.config,
            want="one of " + ", ".join(known.known_ids()),
            hint="give the path of its config.json in place of the id",
        )
    else:
        config = known.known_config(args.config)
    write(config, args.directory, args.seed)
    print(f"{shown(args.directory)}: {gib(size_bytes(config))} of random weights, seed {args.seed}; --model takes it")


def model(config, seed=0, dtype=None):
    """An HF model of `config` with deterministic random weights, made without ever holding a second copy of them.

    What writes into the residual stream is scaled by 1/sqrt(2 layers), so that it grows no more than a trained model's.
    """
    import torch

    made = hollow(config, dtype)
    for name, parameter in list(made.named_parameters()):
        value = _of(made, name, config, seed).to(parameter.dtype)
        owner, _, leaf = name.rpartition(".")
        made.get_submodule(owner)._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
    made.tie_weights()
    return made.eval()


def zeros(config, dtype=None):
    """An HF model of `config` whose parameters are zeros that take no memory (one element, expanded); to read only."""
    import torch

    made = hollow(config, dtype)
    for name, parameter in list(made.named_parameters()):
        value = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
        owner, _, leaf = name.rpartition(".")
        made.get_submodule(owner)._parameters[leaf] = torch.nn.Parameter(value, requires_grad=False)
    made.tie_weights()
    return made.eval()


def hollow(config, dtype=None):
    """An HF model of `config` with its parameters on the meta device (tied ones are one) and real buffers."""
    import torch
    from transformers import AutoModelForCausalLM

    with _parameters_on_meta() as offset:
        made = AutoModelForCausalLM.from_config(config, dtype=dtype or getattr(config, "dtype", None) or torch.bfloat16)
    made.tie_weights()
    made.unit_offsets = frozenset(f"{name}.weight" for name, module in made.named_modules() if module in offset)
    made.of_scores, made.kept_buffers = of_scores(made), _kept_buffers(made)
    return made


def of_scores(made):
    """{weight of a norm of q: number} where HF's scale leaves the size of scores to that norm, whose weight a trained
    model has learned: times this number they are as large as elsewhere. With 1 every choice of a key would be a matter
    of rounding."""
    found = {}
    for name, module in made.named_modules():
        norm, scale = getattr(module, "q_norm", None), getattr(module, "scaling", None)
        if getattr(norm, "weight", None) is not None and scale is not None and scale**2 * module.head_dim > 1.01:
            found[f"{name}.q_norm.weight"] = module.head_dim**-0.5 / scale
    return found


def size_bytes(config, dtype=None):
    """Bytes of the parameters, tied ones once."""
    return sum(p.numel() * p.element_size() for p in hollow(config, dtype).parameters())


def write(config, directory, seed=0):
    """A checkpoint directory of random weights in the configuration's dtype, shard by shard.

    An interrupted run leaves the shards it finished, and the next one goes on after them; `config.json` is written
    last, so that half a checkpoint is none.
    """
    from safetensors.torch import save_file

    directory = Path(directory)
    seed_file, total = directory / ABOUT, size_bytes(config)
    about = {"seed": seed, "rule": RULE, "config": hashlib.sha256(_facts(config).encode()).hexdigest()}
    if directory.is_dir() and any(directory.iterdir()):
        if not seed_file.is_file() or json.loads(seed_file.read_text()) != about:
            raise BadInput("not writing over what is there", got=shown(directory), want="an empty or a new directory")
        if (directory / "config.json").is_file():
            return
    made = hollow(config)
    shards = _shards(made)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    directory.mkdir(parents=True, exist_ok=True)
    left = total - sum((directory / name).stat().st_size for name in names if (directory / name).is_file())
    free = shutil.disk_usage(directory).free
    if free < left + SPARE_DISK_BYTES:
        raise BadInput(
            f"not enough disk for {gib(left)} of random weights",
            got=f"{gib(free)} free under {shown(directory)}",
            want=f"{gib(left + SPARE_DISK_BYTES)}",
            hint="another directory: --cache_dir or BRINGUP_CACHE where weights are cached",
        )
    print(f"writing {gib(left)} of random weights to {shown(directory)}", flush=True)
    files.write_json(seed_file, about)
    with progress("random weights, shards", len(shards)) as advance, ThreadPoolExecutor() as pool:
        for name, shard in zip(names, shards, strict=True):
            if not (directory / name).is_file():
                values = pool.map(lambda item: _of(made, item[0], config, seed).to(item[1].dtype), shard)
                with files.written_whole(directory / name) as partial:
                    save_file(dict(zip((n for n, _ in shard), values, strict=True)), partial, metadata={"format": "pt"})
            advance()
    where = {n: name for name, shard in zip(names, shards, strict=True) for n, _ in shard}
    index = {"metadata": {"total_size": total}, "weight_map": where}
    files.write_json(directory / "model.safetensors.index.json", index)
    files.write(directory / "config.json", config.to_json_string())


def _facts(config):
    """The configuration as text, without the version of transformers that it was made with."""
    return json.dumps({k: v for k, v in config.to_dict().items() if k != "transformers_version"}, default=str)


def _shards(made):
    """The (name, parameter) pairs in order, cut into lists of about SHARD_BYTES."""
    shards, size = [[]], 0
    for name, parameter in [*made.named_parameters(), *made.kept_buffers.items()]:
        n_bytes = parameter.numel() * parameter.element_size()
        if shards[-1] and size + n_bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, parameter))
        size += n_bytes
    return shards


def _kept_buffers(made):
    """Buffers that a checkpoint has, by name: they are as HF makes them."""
    parameters = dict(made.named_parameters(remove_duplicate=False))
    return {name: value for name, value in made.state_dict().items() if name not in parameters}


def _of(made, name, config, seed):
    """The value of a parameter of `made`, which is hollow; a norm that HF adds 1 to has zeros."""
    if name in made.kept_buffers:
        return made.kept_buffers[name]
    if (factor := made.of_scores.get(name)) is not None:
        return _value(name, made.get_parameter(name).shape, config, seed) * factor
    value = _value(name, made.get_parameter(name).shape, config, seed)
    return value.zero_() if name in made.unit_offsets else value


def _value(name, shape, config, seed):
    """The parameter `name` in bfloat16 whatever the model's dtype, so that a wider model has the same weights."""
    import torch

    value = torch.empty(shape, dtype=torch.bfloat16)
    if name.endswith(".bias"):
        return value.zero_()
    if value.dim() == 1:
        return value.fill_(1.0)
    deviation = config.initializer_range
    if re.search(r"\.(o_proj|down_proj)\.", name):
        deviation /= (2 * config.num_hidden_layers) ** 0.5
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return value.normal_(0.0, deviation, generator=generator)


@contextmanager
def _parameters_on_meta():
    """Parameters made inside go to the meta device at once; buffers (the rotary frequencies) stay real. Gives the norms
    that HF begins with zeros, since it adds 1 to them."""
    import torch

    offset = set()
    register = torch.nn.Module.register_parameter

    def register_on_meta(module, name, parameter):
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            if name == "weight" and "Norm" in type(module).__name__ and not parameter.any():
                offset.add(module)
            module._parameters[name] = torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    torch.nn.Module.register_parameter = register_on_meta
    try:
        yield offset
    finally:
        torch.nn.Module.register_parameter = register


def prompt_ids(config, length, seed=0):
    """Seeded prompt ids for a model that has no tokenizer; starts with BOS where there is one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()
    if isinstance(config.bos_token_id, int):
        ids[0] = config.bos_token_id
    return ids
