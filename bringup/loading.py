"""Model files, HF checkpoints, and random weights of a known model's true configuration."""

import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bringup import random_weights, systems
from bringup.console import progress
from bringup.errors import BadInput, ModelFailed, blame, indent, shown, where
from bringup.files import written_whole
from bringup.random_weights import model as random_model
from bringup.random_weights import prompt_ids as random_prompt_ids  # noqa: F401
from bringup.random_weights import zeros as zero_model  # noqa: F401

CONFIGS = Path(__file__).parent / "configs"
IN_MEMORY_BYTES = 4 << 30  # larger random weights are written to the cache directory, and mapped from there
PATH_RULE = "models/<org>/<model>/<system>/functional/model.py"


# -- model files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelFile:
    """A model.py: where it is, what its path says (None where it says nothing), and its module once loaded."""

    path: Path
    hf_id: str | None
    system: str | None
    module: object = None

    @property
    def mesh_shape(self):
        shape = getattr(self.module, "MESH_SHAPE", None)
        return None if shape is None else tuple(shape)


def describe(path):
    """What the path of a model file says about it, without loading it."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.py"
    if not path.is_file():
        raise BadInput("no such model file", got=shown(path), want=f"a model.py, as in {PATH_RULE}")
    parts = path.resolve().parts
    if len(parts) >= 6 and parts[-6] == "models" and parts[-3] in systems.SYSTEMS:
        return ModelFile(path, f"{parts[-5]}/{parts[-4]}", parts[-3])
    return ModelFile(path, None, None)


def load_model_file(path, system=None):
    """Import a model.py (after `backends.activate`) and check that it has `build_model` and fits `system`'s mesh."""
    found = describe(path)
    module = import_file(found.path)
    if not callable(getattr(module, "build_model", None)):
        raise BadInput(
            f"{shown(found.path)} has no build_model",
            want="build_model(hf_model, tt_device, max_seq_len)",
            hint=_close_names(module),
        )
    found = ModelFile(found.path, found.hf_id, found.system, module)
    check_mesh(found, system or found.system or "n150")
    return found


def check_mesh(model_file, system):
    """Refuse a file that names another mesh than the system has. A file that names none runs anywhere."""
    system = systems.get(system)
    shape = model_file.mesh_shape
    if shape is not None and shape != system.mesh_shape:
        fits = [s.name for s in systems.SYSTEMS.values() if s.mesh_shape == shape]
        raise BadInput(
            f"{shown(model_file.path)} is for another mesh",
            got=f"MESH_SHAPE = {shape}, and {system}",
            want=f"MESH_SHAPE = {system.mesh_shape}",
            hint=f"--system {fits[0]}" if fits else None,
        )


def import_file(path):
    """The module of a Python file whose folder names need not be identifiers; each file is loaded once."""
    path = Path(path).resolve()
    name = "model_" + hashlib.sha256(str(path).encode()).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise BadInput("not a Python file", got=shown(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # files that import a neighbour
    try:
        spec.loader.exec_module(module)
    except BadInput:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise ModelFailed(f"{where(error, path)}: {type(error).__name__} while loading it\n{indent(error)}") from error
    return module


def _close_names(module):
    near = [
        n
        for n, v in vars(module).items()
        if callable(v) and re.search("build|model", n, re.I) and v.__module__ == module.__name__
    ]
    return f"it has {', '.join(near)}" if near else None


# -- HF models --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where an HF model comes from: a local directory, a hub id, or random weights of a known id's configuration."""

    name: str
    directory: Path | None = None
    random_seed: int | None = None

    def fingerprint(self, cache_dir):
        """A string that changes when the weights do."""
        if self.random_seed is not None:
            text = known_config_path(self.name).read_text() + f" seed {self.random_seed} {random_weights.RULE}"
            return hashlib.sha256(text.encode()).hexdigest()
        return _directory_fingerprint(self.directory, Path(cache_dir).expanduser())

    def weight_files(self, cache_dir=None):
        """The files that hold the weights; none for random weights in memory."""
        directory = self.directory or random_directory(self, cache_dir)
        return sorted(p for p in directory.glob("*") if p.suffix in (".safetensors", ".bin"))


def default_cache_dir():
    """Where references and large random weights are kept."""
    return os.environ.get("BRINGUP_CACHE", "~/.cache/ttnn-bringup")


def random_directory(source, cache_dir=None):
    """Where the random weights of a large model are."""
    name = f"{source.name.replace('/', '--')}-seed{source.random_seed}"
    return Path(cache_dir or default_cache_dir()).expanduser() / "random" / name


def known_ids():
    return sorted(p.stem.replace("--", "/", 1) for p in CONFIGS.glob("*.json"))


def known_config_path(hf_id):
    path = CONFIGS / f"{hf_id.replace('/', '--')}.json"
    if not path.is_file():
        raise BadInput(
            "no configuration is kept for this model",
            got=hf_id,
            want="one of " + ", ".join(known_ids()),
            hint="give --model DIR",
        )
    return path


def find_source(model, random_weights=False, seed=0):
    """The `Source` that `--model` (a directory or a hub id) and `--random-weights` mean."""
    if random_weights:
        known_config_path(model)
        return Source(model, random_seed=seed)
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput(
                "not a checkpoint directory", got=shown(path), want="an HF directory with config.json and weights"
            )
        return Source(shown(path), directory=path.resolve())
    if path.is_file() or not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise BadInput(
            "no such checkpoint directory", got=model, want="a directory with config.json, or a hub id such as org/name"
        )
    return Source(model, directory=_from_hub(model))


def load_config(source):
    """The HF configuration."""
    from transformers import AutoConfig

    from bringup import configuration

    if source.random_seed is not None:
        return AutoConfig.for_model(**json.loads(known_config_path(source.name).read_text()))
    return configuration.read(source.directory)


def load_hf_model(source, dtype="auto", cache_dir=None):
    """The HF model for inference; `dtype` "auto" is what the checkpoint (or the known configuration) says.

    Parameters of safetensors in that dtype are mapped from the files: they take memory as they are read, and
    `bringup.mapped.release` gives it back. Random weights of more than IN_MEMORY_BYTES are written to disk first.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype != "auto":
        dtype = getattr(torch, dtype)
    directory = source.directory
    if source.random_seed is not None:
        config = load_config(source)
        if random_weights.size_bytes(config) <= IN_MEMORY_BYTES:
            return _fold_head(random_model(config, source.random_seed, None if dtype == "auto" else dtype))
        directory = random_directory(source, cache_dir)
        random_weights.write(config, directory, source.random_seed)
    with _reading(source):
        return _fold_head(AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval())


def _fold_head(model):
    """Give the output head rows, not a slice of a prompt: for [1, 1, H] cut out of [1, S, H] torch 2.13 copies it.

    On a PC that copy takes ten times as long as the rest of a prompt of 128 tokens (Llama-3.2-1B in bfloat16).
    """

    def fold(head, arguments):
        (x,) = arguments
        return (x.reshape(-1, x.shape[-1])[None],) if x.shape[:-1].numel() == 1 else arguments

    model.get_output_embeddings().register_forward_pre_hook(fold)
    return model


def load_tokenizer(source):
    """The tokenizer, or None: for random weights (whose text would mean nothing), or where the checkpoint has none."""
    if source.random_seed is not None or not any(source.directory.glob("token*")):
        return None
    from transformers import AutoTokenizer

    with _reading(source):
        return AutoTokenizer.from_pretrained(source.directory)


@contextmanager
def _reading(source):
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cannot read the checkpoint {source.name}: {error}") from error


def _from_hub(hf_id):
    """The local snapshot of a hub model, downloaded when needed; fails within seconds without a hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.jinja"]
    try:
        directory = Path(snapshot_download(hf_id, allow_patterns=wanted, local_files_only=True))
        if any(directory.glob("*.safetensors")):
            return directory
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass  # not in the cache
    try:
        require_hub()
        return Path(snapshot_download(hf_id, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        kept = "; or --random-weights for its true configuration" if hf_id in known_ids() else ""
        raise BadInput(
            f"cannot get {hf_id}: no such directory here, not in the HF cache, and not from the hub",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            hint="--model DIR with a downloaded checkpoint, or HF_HOME=DIR of a cache that has it, or `hf auth login` "
            "where the model is gated" + kept,
        ) from error


def require_hub(timeout_seconds=8):
    """Raise at once where the hub cannot be reached; its own client would retry for minutes."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    with suppress(HTTPError):  # an answer, whatever it says
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=timeout_seconds).close()


def _directory_fingerprint(directory, cache_dir):
    """sha256 of config.json and the weight files, remembered by their sizes and times: 15 GB are read once."""
    files = sorted(p for p in directory.iterdir() if p.name == "config.json" or p.suffix in (".safetensors", ".bin"))
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    note = cache_dir / "fingerprints" / hashlib.sha256(json.dumps(stats).encode()).hexdigest()
    if note.is_file():
        return note.read_text()
    digest, gibibytes = hashlib.sha256(), sum(size for _, size, _ in stats) >> 30
    with progress("fingerprint of the weights, GiB", gibibytes) as advance:
        for path in files:
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 24):
                    digest.update(block)
                    advance(len(block) / 2**30)
    with written_whole(note) as partial:  # half a note would be the fingerprint of other weights too
        partial.write_text(digest.hexdigest())
    return digest.hexdigest()


# -- building -------------------------------------------------------------------------------------------------------

# What generate() of transformers 5.23 asks of `self` and version 4 did not: a GenerationMixin written for 4 lacks it.
# "Remote code" means there: pass `cache_position` as version 4 did, where forward names it.
GENERATE_ASKS = {
    "is_remote_code": classmethod(lambda cls: True),
    "get_experts_implementation": lambda self: {},
    "device": property(lambda self: _cpu()),
}


def _cpu():
    import torch

    return torch.device("cpu")


def build(model_file, hf_model, device, max_seq_len):
    """`build_model` of a loaded file; what it raises is reported with the line of the file."""
    build_model = model_file.module.build_model
    try:
        inspect.signature(build_model).bind(hf_model, device, max_seq_len)
    except TypeError as error:
        raise ModelFailed(
            f"build_model of {shown(model_file.path)} does not take (hf_model, tt_device, max_seq_len): {error}",
            got=f"build_model{inspect.signature(build_model)}",
        ) from error
    with blame(model_file.path, "building the model"):
        model = model_file.module.build_model(hf_model, device, max_seq_len)
    if not callable(getattr(model, "forward", None)):
        raise BadInput(
            f"build_model of {shown(model_file.path)} returned no model",
            got=type(model).__name__,
            want="a torch.nn.Module with GenerationMixin and forward(input_ids, past_key_values=..., ...)",
        )
    for name, answer in GENERATE_ASKS.items():
        if not hasattr(model, name):
            setattr(type(model), name, answer)
    return model
