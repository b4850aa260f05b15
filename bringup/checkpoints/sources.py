"""HF checkpoints: where they are, and what they hold: configuration, weights, tokenizer."""

import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bringup.checkpoints import configuration, hub, random_weights
from bringup.checkpoints.known import known_config, known_config_path
from bringup.console import progress
from bringup.errors import BadInput, shown
from bringup.files import located, written_whole

IN_MEMORY_BYTES = 4 << 30  # larger random weights are written to the cache directory, and mapped from there


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


def find_source(model, random_weights=False, seed=0):
    """The `Source` that `--model` (a directory or a hub id) and `--random-weights` mean."""
    if random_weights:
        known_config_path(model)
        return Source(model, random_seed=seed)
    path = located(model)
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
    return Source(model, directory=hub.snapshot(model))


def load_config(source):
    """The HF configuration."""
    if source.random_seed is not None:
        return known_config(source.name)
    return configuration.read(source.directory)


def load_hf_model(source, dtype="auto", cache_dir=None, layers=None):
    """The HF model for inference; `dtype` "auto" is what the checkpoint (or the known configuration) says; `layers`: of
    random weights only so many.

    Parameters of safetensors in that dtype are mapped from the files: they take memory as they are read, and
    `checkpoints.mapped.release` gives it back. Random weights of more than IN_MEMORY_BYTES are written to disk first.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype != "auto":
        dtype = getattr(torch, dtype)
    directory = source.directory
    if source.random_seed is not None:
        config = load_config(source)
        if layers is not None:
            config.num_hidden_layers = layers
            if getattr(config, "layer_types", None) is not None:
                config.layer_types = config.layer_types[:layers]
        if layers is not None or random_weights.size_bytes(config) <= IN_MEMORY_BYTES:
            return _fold_head(random_weights.model(config, source.random_seed, None if dtype == "auto" else dtype))
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
