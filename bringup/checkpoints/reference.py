"""What the HF model itself says: its greedy tokens and logits, kept on disk so that they are computed once.

get     the model's own greedy text after a prompt, token by token; an interrupted run goes on where it was
score   its logits over tokens that are given, in one pass
"""

import hashlib
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bringup.checkpoints import mapped, session
from bringup.checkpoints.compute_dtype import computing_in
from bringup.errors import BadInput, BringupError, shown
from bringup.files import written_whole

RULE = 3  # counts up when the same inputs shall give another reference
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

    The key holds the checkpoint's identity, the prompt ids, the lengths, the end tokens, the dtype and the versions of
    transformers and torch. What is not finite is the checkpoint's fault: BadInput.
    """
    import torch

    start = time.perf_counter()
    key = {"prompt_ids": list(prompt_ids), "new_tokens": [min_new_tokens, new_tokens], "eos": sorted(eos)}
    path, key = _path(source, cache_dir, dtype, key)
    kept = _read(path, key)
    if kept is None:
        unfinished = path.with_suffix(".unfinished")
        saved = time.perf_counter()
        begun = _read(unfinished, key)
        if begun is not None:
            print(f"the reference goes on after the {len(begun[0])} tokens of an interrupted run", file=sys.stderr)

        with _computing(source, dtype, cache_dir, load) as (model, watch):

            def keep(tokens, logits):
                nonlocal saved
                _finite(source, model, prompt_ids, logits[-1][None], eos)
                if time.perf_counter() - saved > SECONDS_PER_PARTIAL:
                    _write(unfinished, key, tokens, torch.stack(logits))
                    saved = time.perf_counter()

            kept = session.greedy(
                model,
                prompt_ids,
                new_tokens,
                eos=eos,
                min_new_tokens=min_new_tokens,
                begun=begun,
                keep=keep,
                watch=watch,
            )
            _finite(source, model, prompt_ids, kept[1], eos)
        _write(path, key, *kept)
        unfinished.unlink(missing_ok=True)
        return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, False)
    return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, True)


def score(source, prompt_ids, tokens, *, dtype="float32", cache_dir, load, text_file=None):
    """The HF model's logits over `tokens` that somebody else chose, kept like the greedy ones."""
    start = time.perf_counter()
    path, key = _path(source, cache_dir, dtype, {"prompt_ids": list(prompt_ids), "tokens": list(tokens)})
    kept = _read(path, key)
    cached = kept is not None
    if not cached:
        with _computing(source, dtype, cache_dir, load) as (model, watch):
            kept = list(tokens), session.one_pass(model, prompt_ids, tokens, watch=watch)
            _finite(source, model, prompt_ids, kept[1])
        _write(path, key, *kept)
    return Reference(list(prompt_ids), *kept, dtype, time.perf_counter() - start, cached, text_file)


@contextmanager
def _computing(source, dtype, cache_dir, load):
    """The HF model, computing in `dtype`; afterwards the memory of weights that are mapped from files is given back."""
    import torch

    model = load()
    layers = session.layers_of(model, model.config.num_hidden_layers)
    try:
        with computing_in(model, getattr(torch, dtype)):
            yield model, session.Watch(f"HF model in {dtype}", layers)
    except BringupError:
        raise
    except Exception as error:  # of HF's own modules: the configuration asks for what they have not
        raise BadInput(f"HF itself cannot run {source.name}", got=f"{type(error).__name__}: {error}") from error
    mapped.release(source.weight_files(cache_dir))


def _finite(source, model, prompt_ids, logits, forbidden=()):
    """Raises BadInput where logits are not finite (-inf of `forbidden` tokens aside), and names the first module."""
    import torch

    columns = torch.zeros(logits.shape[-1], dtype=torch.bool)
    columns[list(forbidden)] = True
    allowed = logits.isneginf() & columns
    if bool((logits.isfinite() | allowed).all()):
        return
    raise BadInput(
        f"{source.name}: the HF model's own logits are not finite",
        got=_first_not_finite(model, prompt_ids)
        or "nothing in the prompt's pass is, so it comes with the tokens after it",
        want="a checkpoint that HF itself can run: no model file had a part in this",
    )


def _first_not_finite(model, prompt_ids):
    """The first module of the prompt's pass whose output is not finite, though its inputs are."""
    import torch

    found = []

    def look(name):
        def hook(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            if not found and torch.is_tensor(output) and not bool(output.isfinite().all()):
                inputs = [a for a in args if torch.is_tensor(a) and a.is_floating_point()]
                if all(bool(a.isfinite().all()) for a in inputs):
                    found.append(f"first what {name} ({type(module).__name__}) gives")

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if name and not list(m.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([list(prompt_ids)]), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _path(source, cache_dir, dtype, key):
    """(the entry's file, its whole key as text)."""
    import torch
    import transformers

    cache_dir = Path(cache_dir).expanduser()
    key = json.dumps(
        key
        | {
            "rule": RULE,
            "checkpoint": source.fingerprint(cache_dir),
            "dtype": dtype,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
        sort_keys=True,
    )
    return cache_dir / "references" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors", key


def _read(path, key):
    """(tokens, logits) of a file, or None; one that is damaged, or of something else, is named and thrown away."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as entry:
            about = entry.metadata() or {}
            tokens, logits = entry.get_tensor("tokens"), entry.get_tensor("logits")
        if about.get("key") != key:
            raise ValueError("it is of something else")
        if about.get("sha256") != _checksum(tokens, logits) or len(tokens) != len(logits):
            raise ValueError("its checksum is another")
        return tokens.tolist(), logits
    except Exception as error:  # whatever a broken file makes the library raise
        print(
            f"the kept reference {shown(path)} is damaged ({error}): it is thrown away and made anew", file=sys.stderr
        )
        path.unlink(missing_ok=True)
        return None


def _checksum(tokens, logits):
    digest = hashlib.sha256(tokens.numpy().tobytes())
    digest.update(memoryview(logits.contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def _write(path, key, tokens, logits):
    import torch
    from safetensors.torch import save_file

    tokens, logits = torch.tensor(tokens), logits.float().contiguous()
    with written_whole(path) as partial:
        about = {"key": key, "sha256": _checksum(tokens, logits)}
        save_file({"tokens": tokens, "logits": logits}, partial, metadata=about)
