"""What the HF model itself says: its greedy tokens and logits, kept on disk so that they are computed once.

get     the model's own greedy text after a prompt, token by token; an interrupted run goes on where it was
score   its logits over tokens that are given, in one pass
"""

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bringup.checkpoints import mapped, session
from bringup.checkpoints.compute_dtype import computing_in
from bringup.files import written_whole

RULE = 2  # counts up when the same inputs shall give another reference
SECONDS_PER_PARTIAL = 30  # how often an unfinished reference is written


@dataclass(frozen=True)
class Reference:
    """`tokens` after the prompt, and the HF model's `logits` [n, vocabulary] (float32) with which it met each.

    `text_file` says where given tokens are from; None: they are the model's own greedy ones. `bf16` holds the logits
    of the same model in bfloat16 on the same tokens, where they were asked for.
    """

    prompt_ids: list
    tokens: list
    logits: object
    dtype: str
    seconds: float
    cached: bool
    text_file: str | None = None
    bf16: object = None


def get(source, prompt_ids, new_tokens, *, eos=(), min_new_tokens=0, dtype="float32", cache_dir, load):
    """The greedy reference from the cache; where it is not there, `load()` gives the HF model and it is made and kept.

    The key holds the weights' fingerprint, the prompt ids, the lengths, the end tokens, the dtype and HF's version.
    """
    import torch

    start = time.perf_counter()
    key = {"prompt_ids": list(prompt_ids), "new_tokens": [min_new_tokens, new_tokens], "eos": sorted(eos)}
    path = _path(source, cache_dir, dtype, key)
    kept = _read(path)
    if kept is None:
        unfinished = path.with_suffix(".unfinished")
        saved = time.perf_counter()

        def keep(tokens, logits):
            nonlocal saved
            if time.perf_counter() - saved > SECONDS_PER_PARTIAL:
                _write(unfinished, tokens, torch.stack(logits))
                saved = time.perf_counter()

        with _computing(source, dtype, cache_dir, load) as (model, watch):
            kept = session.greedy(
                model,
                prompt_ids,
                new_tokens,
                eos=eos,
                min_new_tokens=min_new_tokens,
                begun=_read(unfinished),
                keep=keep,
                watch=watch,
            )
        _write(path, *kept)
        unfinished.unlink(missing_ok=True)
        return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, False)
    return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, True)


def score(source, prompt_ids, tokens, *, dtype="float32", cache_dir, load, text_file=None):
    """The HF model's logits over `tokens` that somebody else chose, kept like the greedy ones."""
    start = time.perf_counter()
    path = _path(source, cache_dir, dtype, {"prompt_ids": list(prompt_ids), "tokens": list(tokens)})
    kept = _read(path)
    cached = kept is not None
    if not cached:
        with _computing(source, dtype, cache_dir, load) as (model, watch):
            kept = list(tokens), session.one_pass(model, prompt_ids, tokens, watch=watch)
        _write(path, *kept)
    return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, cached, text_file)


@contextmanager
def _computing(source, dtype, cache_dir, load):
    """The HF model, computing in `dtype`; afterwards the memory of weights that are mapped from files is given back."""
    import torch

    model = load()
    layers = session.layers_of(model, model.config.num_hidden_layers)
    with computing_in(model, getattr(torch, dtype)):
        yield model, session.Watch(f"HF model in {dtype}", layers)
    mapped.release(source.weight_files(cache_dir))


def _path(source, cache_dir, dtype, key):
    from transformers import __version__ as transformers_version

    cache_dir = Path(cache_dir).expanduser()
    key = key | {
        "rule": RULE,
        "weights": source.fingerprint(cache_dir),
        "dtype": dtype,
        "transformers": transformers_version,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir / "references" / f"{digest}.safetensors"


def _read(path):
    """(tokens, logits) of a file, or None."""
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    kept = load_file(path)
    return kept["tokens"].tolist(), kept["logits"]


def _write(path, tokens, logits):
    import torch
    from safetensors.torch import save_file

    with written_whole(path) as partial:
        save_file({"tokens": torch.tensor(tokens), "logits": logits.float().contiguous()}, partial)
