"""An HF model computes in another dtype than its weights are in, without a second copy of them."""

from contextlib import contextmanager
from functools import partial

from bringup.checkpoints.mapped import free_bytes
from bringup.console import gib
from bringup.errors import BadInput

BLOCK = 1 << 20  # elements of a weight that are cast at a time: they stay in the cores' caches until they are used


@contextmanager
def computing_in(model, dtype):
    """The model with activations, and products, in `dtype` inside the block.

    The weights of linear layers and of embeddings stay as they are, and are cast piece by piece where they are used:
    at one token that is faster than reading a float32 copy of bfloat16 weights. What is left (norms, biases, unusual
    layers) is cast, and put back. Buffers stay: HF keeps the rotary frequencies in float32 in every dtype.
    """
    import torch

    linear, embedding = torch.nn.Linear, torch.nn.Embedding
    streamed, modules = set(), []
    for module in model.modules():
        plain = [kind for kind in (linear, embedding) if getattr(module.forward, "__func__", None) is kind.forward]
        if plain and module.weight.dtype != dtype:
            streamed.add(id(module.weight))
            modules.append((module, _linear if plain[0] is linear else _embedding))
        elif isinstance(module, embedding) and hasattr(module, "embed_scale") and module.weight.dtype != dtype:
            streamed.add(id(module.weight))  # Gemma's: its rows times a number, and tied to the head
            modules.append((module, _scaled_embedding))
    others = [p for p in model.parameters() if p.dtype != dtype and id(p) not in streamed]
    needed = sum(p.numel() for p in others) * dtype.itemsize
    if needed > free_bytes():
        raise BadInput(
            f"the HF reference in {str(dtype).removeprefix('torch.')} needs {gib(needed)} more memory",
            got=f"{gib(free_bytes())} are free",
            hint="--hf-dtype bfloat16",
        )
    before = [p.data for p in others]
    try:
        for p in others:
            p.data = p.data.to(dtype)
        for module, forward in modules:
            module.forward = partial(forward, module, dtype)
        yield model
    finally:
        for module, _ in modules:
            module.__dict__.pop("forward", None)
        for p, data in zip(others, before, strict=True):
            p.data = data


def _linear(module, dtype, x):
    import torch
    import torch.nn.functional as F

    weight, bias = module.weight, module.bias
    x = x.to(dtype)
    out = torch.empty(*x.shape[:-1], weight.shape[0], dtype=dtype)
    rows = max(1, BLOCK // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        stop = start + rows
        part = None if bias is None else bias[start:stop]
        out[..., start:stop] = F.linear(x, weight[start:stop].to(dtype), part)
    return out


def _embedding(module, dtype, ids):
    import torch.nn.functional as F

    return F.embedding(ids, module.weight).to(dtype)


def _scaled_embedding(module, dtype, ids):
    return _embedding(module, dtype, ids) * module.embed_scale.to(dtype)
