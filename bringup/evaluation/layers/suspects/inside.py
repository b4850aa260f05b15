"""Modules of a layer as wholes: one left out, one called twice; a norm in another place."""

import torch

from bringup.evaluation.layers.activations import hooks


def modules(run, budget):
    """(words, value) with one of the modules inside done differently, where it gives what it takes the shape of."""
    for name, module in _inside(run):
        for words, change in (("left out", lambda x, o: x), ("called twice", lambda x, o, module=module: module(x))):
            if not budget.spend():
                return
            yield f"HF's value with {name} {words}", _with(run, module, change)


def _inside(run):
    case = run.case
    within = case.module if case.module is not None and case.layer is not None else None
    for name, module in within.named_modules() if within is not None else ():
        if name and any(True for _ in module.parameters(recurse=False)):
            yield f"{case.point}.{name}", module


def _with(run, module, change):
    inner = []

    def changed(x, out):
        if inner or not isinstance(x, torch.Tensor) or not isinstance(out, torch.Tensor) or x.shape != out.shape:
            return out
        inner.append(True)  # the module may be called again in here
        try:
            return change(x, out)
        finally:
            inner.pop()

    with hooks() as hook:
        hook(module, changed)
        return run.value()


def normed(case):
    """{words: value} of what enters the layer, and of the stream after attention, through each norm of the layer."""
    if case.layer is None:
        return {}
    streams = {"the layer's input": case.before()}
    if f"{case.prefix}self_attn.residual" in case.own.points and case.point not in ("self_attn", case.mixer):
        streams["the stream after attention"] = case.value("self_attn.residual")
    found = {}
    for name, module in case.hf.model.layers[case.layer].named_children():
        weight = getattr(module, "weight", None)
        for words, x in streams.items():
            if "norm" in name and weight is not None and weight.shape == x.shape[-1:]:
                found[f"{name} of {words}"] = module(x)
    return found
