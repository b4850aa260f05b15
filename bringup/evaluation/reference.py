"""What the HF model itself says: its greedy tokens and logits, kept on disk so that they are computed once."""

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bringup.console import progress
from bringup.errors import BadInput
from bringup.evaluation import teacher_forcing

RULE = 1  # counts up when the same inputs shall give another reference


@dataclass(frozen=True)
class Reference:
    """Greedy `tokens` of the HF model after the prompt, and the `logits` [n, vocabulary] (float32) that chose them."""

    prompt_ids: list
    tokens: list
    logits: object
    dtype: str
    seconds: float
    cached: bool


def get(source, prompt_ids, new_tokens, *, eos=(), min_new_tokens=0, dtype="float32", cache_dir, load):
    """The reference from the cache; where it is not there, `load()` gives the HF model and it is computed and kept.

    The key holds the weights' fingerprint, the prompt ids, the lengths, the end tokens, the dtype and HF's version.
    """
    from safetensors.torch import load_file, save_file
    from transformers import __version__ as transformers_version

    cache_dir = Path(cache_dir).expanduser()
    key = {
        "rule": RULE,
        "weights": source.fingerprint(cache_dir),
        "prompt_ids": list(prompt_ids),
        "new_tokens": [min_new_tokens, new_tokens],
        "eos": sorted(eos),
        "dtype": dtype,
        "transformers": transformers_version,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = cache_dir / "references" / f"{digest}.safetensors"
    start = time.perf_counter()
    if path.is_file():
        kept = load_file(path)
        seconds = time.perf_counter() - start
        return Reference(list(prompt_ids), kept["tokens"].tolist(), kept["logits"], dtype, seconds, True)

    import torch

    model = load()
    start = time.perf_counter()
    with parameters_as(model, getattr(torch, dtype)), progress(f"HF reference ({dtype})", new_tokens) as advance:
        tokens, logits = teacher_forcing.greedy(
            model, prompt_ids, new_tokens, eos=eos, min_new_tokens=min_new_tokens, advance=advance
        )
    logits = logits.float()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({"tokens": torch.tensor(tokens), "logits": logits.contiguous()}, partial)
    partial.replace(path)  # an interrupted run leaves no half reference
    return Reference(list(prompt_ids), tokens, logits, dtype, time.perf_counter() - start, False)


@contextmanager
def parameters_as(model, dtype):
    """The model with its parameters in `dtype` inside the block, and as they were after it.

    A wider dtype replaces the weights and is cast back (which is exact); beside a narrower one the weights are kept.
    Buffers stay as they are: HF keeps the rotary frequencies in float32 in every dtype.
    """
    parameters = list(model.parameters())
    name = str(dtype).removeprefix("torch.")
    extra = sum(
        p.numel() * (dtype.itemsize - (p.element_size() if dtype.itemsize > p.element_size() else 0))
        for p in parameters
        if p.dtype != dtype
    )
    if extra > _free_bytes():
        raise BadInput(
            f"the HF reference in {name} needs {extra / 2**30:.1f} GiB more memory",
            got=f"{_free_bytes() / 2**30:.1f} GiB are free",
            hint="--hf-dtype bfloat16",
        )
    before = []
    for p in parameters:
        before.append(p.dtype if dtype.itemsize > p.element_size() else p.data)
        p.data = p.data.to(dtype)
    try:
        yield model
    finally:
        for p, old in zip(parameters, before, strict=True):
            p.data = p.data.to(old) if isinstance(old, type(dtype)) else old


def _free_bytes():
    """Memory that could be had now (Linux); elsewhere no bound is known."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return float("inf")
