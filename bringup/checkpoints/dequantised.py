"""A GGUF file as an HF checkpoint directory, made once and kept: every command then reads that.

transformers de-quantises: a block's values become whole numbers times its scale (and plus its minimum) in float32.
They are kept in bfloat16, as trained checkpoints are published (of float16 or float32 files in that): HF and the
device then run with the same weights, and what they differ by is the device's. How far the file is from the checkpoint
that it was made from is no part of any figure.
"""

import hashlib
import math
import tempfile
from pathlib import Path

from bringup.checkpoints import configuration, gguf, random_weights, stored
from bringup.console import no_bars, patience
from bringup.errors import BadInput, shown
from bringup.files import write_json

RULE = 1  # counts up when the same file shall become another checkpoint
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def checkpoint(file, cache_dir):
    """(directory, note) of a GGUF file; the note says what was done, in one line.

    Raises    BadInput where the file is damaged, or is no model that transformers can read whole
    """
    tensors = gguf.tensors(file)
    kinds = sorted({kind for _, kind in tensors.values()})
    packed = [kind for kind in kinds if kind not in PLAIN]
    dtype = "bfloat16" if packed or "BF16" in kinds else "float16" if "F16" in kinds else "float32"
    note = f"{file.name} holds {', '.join(kinds)}; "
    note += f"de-quantised to {dtype}" if packed else f"taken in {dtype}"
    note += ": HF and the device both run with these weights, not with those that the file was made from"
    directory = Path(cache_dir).expanduser() / "gguf" / f"{file.stem[:60]}-{_digest(file, cache_dir)}"
    if not directory.is_dir():
        with patience(f"making an HF checkpoint of {file.name}"), no_bars():
            _make(file, tensors, dtype, directory)
    return directory, note


def _digest(file, cache_dir):
    import transformers

    beside = gguf.config_beside(file)
    what = [
        stored.content(file, cache_dir),
        beside and stored.content(beside, cache_dir),
        transformers.__version__,
        RULE,
    ]
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _make(file, tensors, dtype, directory):
    """Writes the checkpoint beside its place and moves it there whole."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = configuration.read(file)
    _plausible(file, config, tensors)
    how = (
        {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    )
    own = any(file.parent.glob("tokenizer*"))
    directory.parent.mkdir(parents=True, exist_ok=True)
    hidden = {"dir": directory.parent, "prefix": ".making-", "ignore_cleanup_errors": True}  # it is moved away
    with tempfile.TemporaryDirectory(**hidden) as place:
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                config=config,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                local_files_only=True,
                **how,
            )
            said = {} if own else {"gguf_file": file.name}
            tokenizer = AutoTokenizer.from_pretrained(file.parent, local_files_only=True, **said)
        except Exception as error:  # the loaders raise whatever a broken file makes them do
            text = " ".join(str(error).split())[:400]
            raise BadInput(f"transformers cannot read {shown(file)}", got=f"{type(error).__name__}: {text}") from error
        stored.complete(file.name, report)
        left = len(tensors) - len(dict(model.named_parameters()))
        if left > len([name for name in gguf.ROTATION if name in tensors]):
            raise BadInput(f"transformers leaves out {left} of the tensors of {shown(file)}: it would be another model")
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        fields = configuration.fields(Path(place) / "config.json")
        write_json(Path(place) / "config.json", {k: gguf.decimal(v) for k, v in fields.items()}, indent=2)
        try:
            Path(place).rename(directory)
        except OSError:  # somebody else was faster
            if not directory.is_dir():
                raise


def _plausible(file, config, tensors):
    """Refuses sizes that want much more than the file holds, before they fill memory."""
    held = sum(math.prod(shape) for shape, _ in tensors.values())
    wanted = sum(p.numel() for p in random_weights.hollow(config).parameters())
    if wanted > 2 * held + (1 << 22):
        raise BadInput(
            f"the metadata of {shown(file)} is of another model",
            got=f"sizes of {wanted:,} weights, where the file holds {held:,}",
        )
