"""What linear attention may have computed: a state that began with another text, a convolution at another place, parts
of the rule left out."""

import torch

from bringup.evaluation.layers.activations import hooks

TILES = (32, 64, 128)  # rows that a prompt may be padded to a multiple of


def linear_attention(case):
    from bringup.new.reading import states

    hf = case.module
    if hf is None or not states.is_linear_attention(hf):
        return
    x = case.into_attention()
    run = lambda **changed: states.delta_net(hf, x, **changed)  # noqa: E731
    yield from _earlier(case, hf, run)
    yield from _padded(case, hf, x)
    yield from _still(case, hf, x)
    for words, changed in _changes(hf).items():
        yield f"linear attention {words}", run(**_from(case.device.decode_from if case.decode else 0, hf, changed))
    if not case.decode:
        for by in (1, -1):
            words = f"its convolution {abs(by)} position {'late' if by > 0 else 'early'}"
            yield f"linear attention with {words}", run(conv=lambda c, y, by=by: _moved(states.convolved(c, y), by))


def _changes(hf):
    """{words: what of `states.delta_net` is another}"""
    found = {
        "without its convolution": {"conv": lambda c, y: y},
        "with the taps of its convolution in reverse": {"conv": _reversed},
        "without the activation of its convolution": {"act": lambda y: y},
        "whose state does not decay": {"decay": torch.zeros_like},
        "that learns whole values: beta is left out": {"beta": torch.ones_like},
        "with q and k not of length 1": {"length": lambda t: t},
        "without its output gate": {"gate": torch.ones_like},
        "with a sigmoid as its output gate": {"gate": torch.sigmoid},
    }
    for j in range(taps := hf.conv1d.weight.shape[-1]):
        age = taps - 1 - j
        words = f"whose convolution leaves out tap {j} of {taps}, the input {age} position{'s' * (age != 1)} before"
        found[words] = {"conv": lambda c, y, j=j: _convolved(c, y, j)}
    for c, said in ((2.0, "twice"), (0.5, "half")):
        found[f"with {said} HF's beta"] = {"beta": lambda b, c=c: c * b.sigmoid()}
        found[f"with {said} HF's decay (its logarithm)"] = {"decay": lambda g, c=c: c * g}
    scale = hf.head_k_dim**-0.5
    found["with q not scaled by 1 / sqrt(its dims)"] = {"query": lambda q: q / scale}
    found["with q scaled by 1 / sqrt(its dims) twice"] = {"query": lambda q: q * scale}
    return found


def _from(start, hf, changed):
    """The same from position `start` on alone, as of steps."""
    from bringup.new.reading import states

    if not start:
        return changed
    own = states.own(hf) | {"conv": states.convolved}

    def late(name, other):
        def mixed(*args):
            return torch.cat((own[name](*args)[:start], other(*args)[start:]))

        return mixed

    return {name: late(name, other) for name, other in changed.items()}


def _convolved(conv, y, without):
    """HF's convolution with one of its taps left out."""
    from bringup.new.reading import states

    kept = conv.weight.detach().clone()
    try:
        conv.weight.data[..., without] = 0
        return states.convolved(conv, y)
    finally:
        conv.weight.data.copy_(kept)


def _earlier(case, hf, run):
    """The state of the text before, which was to leave nothing behind."""
    from bringup.new.reading import states

    if not case.device.earlier:
        return
    before = _given(case, case.device.earlier)
    state = states.state_after(hf, before)
    yield "linear attention that goes on from the state of the text before: it was not reset", run(state=state)
    conv = lambda c, y: states.convolved(c, torch.cat((states.mixed(hf, before), y)))[len(before) :]  # noqa: E731
    yield "linear attention whose convolution goes on from the text before: its state was not reset", run(conv=conv)
    both = "linear attention that goes on from the text before: neither state was reset"
    yield both, run(state=state, conv=conv)


def _given(case, ids):
    """What HF's layer takes of another text."""
    taken = []
    with hooks() as hook:
        hook(case.modules[f"{case.prefix}input_layernorm"], lambda _, o: taken.append(o[0]))
        case.hf(torch.tensor([ids]), use_cache=False)
    return taken[0].float()


def _padded(case, hf, x):
    """The padding of a prompt went into the state that it left for the steps."""
    from bringup.new.reading import states

    ids, start = case.device.ids, case.device.decode_from
    for whole in TILES if case.decode else ():
        if not (pad := -start % whole):
            continue
        padded = _given(case, [*ids[:start], *[0] * pad, *ids[start:]])
        real = torch.ones(len(padded), 1)
        real[start : start + pad] = 0
        at = real[:, 0].nonzero().flatten()
        padded[at] = x
        skipped = lambda c, y, at=at: states.convolved(c, y).index_copy(0, at, states.convolved(c, y[at]))  # noqa: E731
        masked = {"decay": lambda g, real=real: g * real, "beta": lambda b, real=real: b.sigmoid() * real}
        words = f"that goes on from a state with the prompt's padding to {start + pad} rows in it"
        for how, changed in (
            ("both its matrix and its convolution", {}),
            ("its matrix", {"conv": skipped}),
            ("its convolution", masked),
        ):
            yield f"linear attention {words}: {how}", states.delta_net(hf, padded, **changed)[at]


def _still(case, hf, x):
    """Steps that do not keep the state which they moved on."""
    from bringup.new.reading import states

    start = case.device.decode_from
    if not case.decode:
        return
    before, inputs, rows = states.state_after(hf, x[:start]), states.mixed(hf, x), case.rows.tolist()
    said = "linear attention whose steps all go on from what the prompt left, and keep nothing:"
    for what, still in (
        ("state", (True, False)),
        ("convolution's inputs", (False, True)),
        ("state and its convolution's inputs", (True, True)),
    ):
        state, found = before, []
        for t in range(start, len(x)):
            taken = torch.cat((inputs[:start], inputs[t : t + 1])) if still[1] else inputs[: t + 1]
            conv = lambda c, y, taken=taken: states.convolved(c, taken)[-1:]  # noqa: E731
            given = {"conv": conv, "state": before if still[0] else state}
            found.append(states.delta_net(hf, x[t : t + 1], **given))
            state = states.state_after(hf, x[t : t + 1], **given)
        yield f"{said} its {what}", torch.cat(found)[[t - start for t in rows]]


def _moved(y, by):
    return torch.nn.functional.pad(y, (0, 0, max(by, 0), max(-by, 0)))[max(-by, 0) :][: len(y)]


def _reversed(conv, y):
    padded = torch.nn.functional.pad(y.T, (conv.weight.shape[-1] - 1, 0))[None]
    weight, bias = (None if p is None else p.float() for p in (conv.weight.flip(-1), conv.bias))
    return torch.nn.functional.conv1d(padded, weight, bias, groups=len(weight))[0].T
