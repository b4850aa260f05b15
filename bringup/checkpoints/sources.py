"""HF checkpoints: where they are, and what they hold: configuration, weights, tokenizer."""

import hashlib
import math
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bringup import files
from bringup.checkpoints import by_layer, configuration, dequantised, gguf, hub, mapped, random_weights, stored
from bringup.checkpoints.known import known_config, known_config_path
from bringup.console import progress
from bringup.errors import BadInput, BringupError, shown
from bringup.files import located

HALF = 65504.0  # the largest float16
RELEASE_BYTES = 1 << 30  # mapped weights that are looked through before their pages are given back
IN_MEMORY_BYTES = 4 << 30  # larger random weights are written to the cache directory, and mapped from there


@dataclass(frozen=True)
class Source:
    """Where an HF model comes from: a local directory, a hub id, or random weights of a known id's configuration."""

    name: str
    directory: Path | None = None
    random_seed: int | None = None
    note: str | None = None  # what was done to the weights to make them a checkpoint of

    @property
    def random(self):
        """Nobody trained these weights: they are of a seed, or `bringup random-checkpoint` wrote the directory."""
        if self.random_seed is not None:
            return True
        return self.directory is not None and (self.directory / random_weights.ABOUT).is_file()

    def fingerprint(self, cache_dir):
        """A string that changes when the weights do."""
        if self.random_seed is not None:
            text = known_config_path(self.name).read_text() + f" seed {self.random_seed} {random_weights.RULE}"
            return hashlib.sha256(text.encode()).hexdigest()
        return stored.identity(self.directory, cache_dir)

    def weight_files(self, cache_dir=None):
        """The files that hold the weights; none for random weights in memory."""
        directory = self.directory or random_directory(self, cache_dir)
        return stored.weight_files(directory) if self.directory or directory.is_dir() else []


def default_cache_dir():
    """Where references and large random weights are kept."""
    named = os.environ.get("BRINGUP_CACHE") or "~/.cache/ttnn-bringup"
    try:
        return str(Path(named).expanduser())
    except RuntimeError as error:  # ~ of somebody who is not here
        raise BadInput("there is no place for the cache", got=f"{named}: {error}", hint="BRINGUP_CACHE=DIR") from None


def random_directory(source, cache_dir=None):
    """Where the random weights of a large model are."""
    name = f"{source.name.replace('/', '--')}-seed{source.random_seed}"
    return Path(cache_dir or default_cache_dir()).expanduser() / "random" / name


def find_source(model, random_weights=False, seed=0, cache_dir=None):
    """The `Source` that `--model` (a directory, a GGUF file or a hub id) and `--random-weights` mean."""
    if random_weights:
        known_config_path(model)
        return Source(model, random_seed=seed)
    path = located(model)
    if file := gguf.find(path):
        directory, note = dequantised.checkpoint(file, cache_dir or default_cache_dir())
        return Source(shown(file), directory=directory, note=note)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput(
                "not a checkpoint directory",
                got=shown(path),
                want="an HF directory with config.json and weights, or a GGUF file",
            )
        return Source(shown(path), directory=path.resolve())
    if path.is_file() or not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise BadInput(
            "no such checkpoint directory",
            got=model,
            want="a directory with config.json, a .gguf file, or a hub id such as org/name",
        )
    return Source(model, directory=hub.snapshot(model))


def load_config(source):
    """The HF configuration."""
    if source.random_seed is not None:
        return known_config(source.name)
    config = configuration.read(source.directory)
    configuration.check_tokens(config, source.name)
    return config


def load_hf_model(source, dtype="auto", cache_dir=None, layers=None):
    """The HF model for inference; `dtype` "auto" is what the checkpoint (or the known configuration) says; `layers`: of
    random weights only so many.

    Parameters of safetensors in that dtype are mapped from the files: they take memory as they are read, and
    `checkpoints.mapped.release` gives it back. Random weights of more than IN_MEMORY_BYTES are written to disk first.
    """
    import torch

    if dtype != "auto":
        dtype = getattr(torch, dtype)
    directory = source.directory
    if source.random_seed is not None:
        config = load_config(source)
        if layers is not None:
            config = by_layer.fewer(config, layers)
        if layers is not None or random_weights.size_bytes(config) <= IN_MEMORY_BYTES:
            return _fold_head(random_weights.model(config, source.random_seed, None if dtype == "auto" else dtype))
        directory = random_directory(source, cache_dir)
        random_weights.write(config, directory, source.random_seed)
    return _fold_head(_whole(source, directory, dtype, cache_dir or default_cache_dir()))


def _whole(source, directory, dtype, cache_dir):
    """The model of a directory with every weight from its files; what transformers would fill in or leave out is named.

    Raises    BadInput
    """
    from transformers import AutoModelForCausalLM

    shapes = stored.check(directory)
    with _reading(source):
        if shapes:
            _plausible(source, random_weights.hollow(load_config(Source(source.name, directory))), shapes)
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    stored.complete(source.name, report)
    _finite(source, model, cache_dir)
    return model.eval()


def _plausible(source, made, shapes):
    """Refuses a configuration that wants much more than the files hold, before transformers fills memory with it."""
    wanted = {name: tuple(p.shape) for name, p in made.named_parameters()}
    if sum(map(math.prod, wanted.values())) <= 2 * sum(map(math.prod, shapes.values())) + (1 << 22):
        return
    bad = [
        f"{n} {list(shape)}, stored {list(shapes.get(n, ()))}" for n, shape in wanted.items() if shapes.get(n) != shape
    ]
    raise stored.not_of_this_model(source.name, "missing or of another shape", bad)


def _finite(source, model, cache_dir):
    """Refuses weights that are not finite, or that half precision does not hold; read once for each content."""
    import torch

    if source.random_seed is not None:
        return
    files_of, note = source.weight_files(cache_dir), Path(cache_dir) / "finite" / source.fingerprint(cache_dir)
    if note.is_file():
        return
    parameters, since = list(model.named_parameters()), 0
    with progress("weights, are they finite", len(parameters)) as advance:
        for name, parameter in parameters:
            low, high = (0.0, 0.0) if not parameter.numel() else map(float, torch.aminmax(parameter.detach()))
            if not -HALF <= low <= high <= HALF:
                kind = "values that are not finite" if not math.isfinite(low + high) else f"{max(-low, high):.4g}"
                raise BadInput(
                    f"{source.name}: {name} holds {kind}",
                    want=f"finite weights, at most {HALF:.0f} in size: float16 holds no more, and no model has more",
                    hint="the checkpoint is damaged, or was cast to a format that it does not fit",
                )
            advance()
            since += parameter.nbytes
            if since >= RELEASE_BYTES:
                mapped.release(files_of)
                since = 0
    mapped.release(files_of)
    files.write(note, "")


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
        return AutoTokenizer.from_pretrained(source.directory, local_files_only=True, trust_remote_code=False)


@contextmanager
def _reading(source):
    try:
        yield
    except BringupError:
        raise
    except Exception as error:  # the loaders raise whatever a broken file makes them do
        said = " ".join(str(error).split())[:400]
        raise BadInput(f"cannot read the checkpoint {source.name}: {type(error).__name__}: {said}") from error
