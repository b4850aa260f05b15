"""How a decoder layer is wired, by experiment: each part is made to give numbers that nothing else has, and what goes
into the others, and comes out of the layer, is taken apart into the stream and these.

So residuals, norms before and after, parts side by side and multipliers show, whatever HF's forward says and however it
names things.
"""

import copy

#: Modules of HF that are one part, by the first one's name: (what it calls inside, the last).
PARTS = {"per_layer_input_gate": (("act_fn",), "per_layer_projection")}
SCALAR = "layer_scalar"  # HF's name of a number of the layer that all it gives is times of
SAME = 1e-4  # of a sum, relative: what may be left after its terms


def wiring(layer, seen, name):
    """(calls, result) of one layer: [(part, {term: factor})] in their order, and {term: factor}; terms are "x", the
    stream, and the parts before. ValueError where something is no such sum."""
    import torch

    layer, generator = copy.deepcopy(layer), torch.Generator().manual_seed(0)
    args, kwargs, _ = seen.calls[name]
    x = torch.randn(seen.into(name).shape, generator=generator)
    values, calls = {"x": x}, []
    children = dict(layer.named_children())
    inside = {n for first, (names, _) in PARTS.items() if first in children for n in names}
    for part, module in children.items():
        if isinstance(module, torch.nn.Dropout) or f"{name}.{part}" not in seen.calls or part in inside:
            continue
        output = seen.calls[f"{name}.{part}"][2]
        if part in PARTS:  # it gives what it does, and its last module stands for it
            module.forward = _noted(PARTS[part][1], module.forward, values, calls)
        elif part in (last for first, (_, last) in PARTS.items() if first in children):
            module.forward = _given(part, output, values, generator)
        else:
            module.forward = _stub(part, output, values, calls, generator)
    scalar = getattr(layer, SCALAR, None)
    kwargs = {k: v for k, v in kwargs.items() if k != "hidden_states"}
    with torch.no_grad():
        out = layer(x.clone(), *args[1:], **kwargs)
    out = out[0] if isinstance(out, tuple) else out
    if scalar is None:
        return calls, terms(out, values, f"what {type(layer).__name__} gives")
    given = terms(out / scalar, values, f"what {type(layer).__name__} gives, without its {SCALAR}")
    return [*calls, (SCALAR, given)], {SCALAR: 1.0}


def _noted(part, own, values, calls):
    def forward(given):
        calls.append((part, terms(given, values, f"what goes into {part}")))
        return own(given)

    return forward


def _given(part, output, values, generator):
    import torch

    def forward(given):
        values[part] = torch.randn(output.shape, generator=generator)
        return values[part].clone()

    return forward


def _stub(part, output, values, calls, generator):
    import torch

    def forward(*args, **kwargs):
        given = args[0] if args else kwargs["hidden_states"]
        if part in values:
            raise ValueError(f"{part} runs twice in a layer")
        calls.append((part, terms(given, values, f"what goes into {part}")))
        first = output[0] if isinstance(output, tuple) else output
        values[part] = torch.randn(first.shape, generator=generator)
        return (values[part].clone(), *output[1:]) if isinstance(output, tuple) else values[part].clone()

    return forward


def terms(value, values, what):
    """{term: factor} of a value that is a sum of `values`."""
    import torch

    same = {n: v for n, v in values.items() if v.numel() == value.numel()}
    basis = torch.stack([v.flatten() for v in same.values()], 1).double()
    factors = torch.linalg.lstsq(basis, value.flatten()[:, None].double()).solution[:, 0]
    left = (basis @ factors - value.flatten().double()).norm() / value.double().norm().clamp(min=1e-30)
    if left > SAME:
        raise ValueError(f"{what} is no sum of the stream and the parts before it ({float(left):.1e} is left)")
    return {n: round(f, 7) for n, f in zip(same, factors.tolist(), strict=True) if abs(f) > SAME}
