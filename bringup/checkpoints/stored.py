"""The files of a checkpoint, judged before anything is loaded from them, and told apart by their content."""

import hashlib
import json
import os
import time
from pathlib import Path

from bringup.checkpoints import configuration
from bringup.console import progress
from bringup.errors import BadInput, shown
from bringup.files import write

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
READ_WHOLE = 16 << 20  # files up to this size are read whole each time
SAMPLES, SAMPLE_BYTES = 64, 4096  # of larger ones, as long as the system says that they are untouched
SHOWN = 8  # names of tensors in a message
SETTLED_SECONDS = 2  # a file touched later than that may be touched again within one tick of the clock


def weight_files(directory):
    """The files that transformers reads weights from, in its order of preference."""
    for single, index in ((SINGLE, INDEX), (PICKLED, PICKLED_INDEX)):
        if os.path.lexists(directory / single):
            return [directory / single]
        if os.path.lexists(directory / index):
            return sorted({directory / shard for shard in weight_map(directory / index).values()})
    raise BadInput("the checkpoint has no weights", got=shown(directory), want=f"{SINGLE}, or {INDEX} and its shards")


def weight_map(index):
    """{tensor: shard} of an index."""
    found = configuration.fields(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(s, str) and s for s in found.values()):
        raise BadInput(f"{shown(index)} is no index of weights", want='{"weight_map": {tensor: file, ...}}')
    return found


def check(directory):
    """Refuses what would not be this model's weights, by name: adapters, quantised, damaged or misplaced tensors.

    Returns   {tensor: shape} of safetensors; nothing is known of pickled weights before they are loaded
    """
    if (directory / "adapter_config.json").exists():
        raise BadInput(f"{shown(directory)} is an adapter", want="a whole checkpoint: merge it into its base model")
    fields = configuration.fields(directory / "config.json")
    for part in (fields, fields.get("text_config")):
        if isinstance(part, dict) and part.get("quantization_config"):
            raise quantised(directory, configuration.quantised_by(part["quantization_config"]))
    shapes, where = {}, {}
    for path in weight_files(directory):
        if path.suffix != ".safetensors":
            _readable(path)
            continue
        for name, (dtype, shape) in _header(path).items():
            if name in where:
                raise BadInput(f"{name} is stored twice", got=f"{shown(where[name])} and {shown(path)}")
            if dtype not in FLOATS and len(shape) > 1:
                raise quantised(directory, f"{name} is {dtype}")
            where[name], shapes[name] = path, shape
    if where and not (directory / SINGLE).exists():
        for name, shard in weight_map(directory / INDEX).items():
            if where.get(name) != directory / shard:
                got = f"it lies in {shown(where[name])}" if name in where else "it lies in none of the shards"
                raise BadInput(f"{name} is not in {shard}, where {shown(directory / INDEX)} has it", got=got)
    return shapes


def quantised(directory, how):
    return BadInput(
        f"the weights of {shown(directory)} are quantised",
        got=how,
        want="float32, float16 or bfloat16: the device has formats of its own, --help says which option",
        hint="the checkpoint that it was made from, or one dequantised by its own tools",
    )


def complete(name, report):
    """Raises for what a loading report names: a model that is filled up with random numbers proves nothing."""
    misshapen = [f"{key} {list(got)}, wanted {list(want)}" for key, got, want in report["mismatched_keys"]]
    for what, names in (
        ("of another shape than the configuration's", misshapen),
        ("missing", report["missing_keys"]),
        ("no part of the model", report["unexpected_keys"]),
        ("not readable", report["error_msgs"]),
    ):
        if names:
            raise not_of_this_model(name, what, names)


def not_of_this_model(name, what, names):
    names = sorted(map(str, names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return BadInput(
        f"{name}: {len(names)} weights are {what}",
        got=", ".join(names[:SHOWN]) + more,
        want="the weights of config.json's model, each once",
        hint="fetch the checkpoint again, or the config.json that belongs to it",
    )


def _readable(path):
    """Refuses what cannot be opened, and what is a note in place of the file."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(64)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot read the weights {shown(path)}", got=getattr(error, "strerror", None) or error
        ) from error
    if begin.startswith(b"version https://git-lfs"):
        raise BadInput(f"{shown(path)} is a Git LFS pointer, not the weights", hint="git lfs pull")
    if not begin:
        raise BadInput(f"the weights {shown(path)} are empty")


def _header(path):
    """{tensor: (dtype, shape)}; the library compares the header with the size of the file."""
    from safetensors import SafetensorError, safe_open

    _readable(path)
    try:
        with safe_open(path, framework="pt") as stored:
            parts = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118  (no mapping)
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{shown(path)} is damaged or not whole", got=error, hint="fetch it again") from error


def identity(directory, cache_dir):
    """sha256 over the contents of the weights, wherever they lie, of their index and of every JSON file beside them.

    Large files are read whole once. Their digest is remembered by device, inode, size, and the times of content and
    of inode to the nanosecond; when all of them are the same, samples from all over the file have to be as well.
    """
    files = {*weight_files(directory), *(p for p in directory.glob("*.json") if p.is_file())}
    files |= {p for p in directory.glob("*.model") if p.is_file()}
    digest = hashlib.sha256()
    total = sum(p.stat().st_size for p in files)
    with progress("fingerprint of the checkpoint, GiB", total / 2**30) as advance:
        for path in sorted(files):
            digest.update(f"{path.relative_to(directory)} {content(path, cache_dir, advance)}\n".encode())
    return digest.hexdigest()


def content(path, cache_dir, advance=lambda share: None):
    """sha256 of a file, from the note of an earlier reading where nothing says that it was touched since."""
    cache_dir = Path(cache_dir).expanduser()
    status = path.stat()
    if status.st_size <= READ_WHOLE:
        return _sha256(path, advance)
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    text = json.dumps([str(path.resolve()), *(getattr(status, name) for name in names)])
    note = cache_dir / "fingerprints" / hashlib.sha256(text.encode()).hexdigest()
    samples = _samples(path, status.st_size)
    if note.is_file():
        kept = note.read_text(errors="replace").split()
        if len(kept) == 2 and kept[1] == samples and len(kept[0]) == 64:
            advance(status.st_size / 2**30)
            return kept[0]
    found = _sha256(path, advance)
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        write(note, f"{found} {samples}\n")
    return found


def _sha256(path, advance):
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
            advance(len(block) / 2**30)
    return digest.hexdigest()


def _samples(path, size):
    """A digest of SAMPLES pieces at equal distances; the first is the header's begin, the last the file's end."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        for i in range(SAMPLES):
            stream.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()
