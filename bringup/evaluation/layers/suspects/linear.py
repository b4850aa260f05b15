"""What linear attention may have computed: a state that began with another text, a convolution at another place, parts
of the rule left out."""

import torch

from bringup.evaluation.layers.activations import hooks


def linear_attention(case):
    from bringup.new.reading import states

    hf = case.module
    if hf is None or not states.is_linear_attention(hf):
        return
    x = case.value("input_layernorm")
    run = lambda **changed: states.delta_net(hf, x, **changed)  # noqa: E731
    yield from _earlier(case, hf, run)
    for by in (1, -1):
        words = f"its convolution {abs(by)} position {'late' if by > 0 else 'early'}"
        yield f"linear attention with {words}", run(conv=lambda c, y, by=by: _moved(states.convolved(c, y), by))
    yield "linear attention without its convolution", run(conv=lambda c, y: y)
    yield "linear attention with the taps of its convolution in reverse", run(conv=_reversed)
    yield "linear attention without the activation of its convolution", run(act=lambda y: y)
    yield "linear attention whose state does not decay", run(decay=torch.zeros_like)
    yield "linear attention that learns whole values: beta is left out", run(beta=torch.ones_like)
    yield "linear attention with q and k not of length 1", run(length=lambda t: t)
    yield "linear attention without its output gate", run(gate=torch.ones_like)
    yield "linear attention with a sigmoid as its output gate", run(gate=torch.sigmoid)


def _earlier(case, hf, run):
    """The state of the text before, which was to leave nothing behind."""
    from bringup.new.reading import states

    if not case.device.earlier:
        return
    taken = []
    with hooks() as hook:
        norm = case.modules[f"{case.prefix}input_layernorm"]
        hook(norm, lambda _, o: taken.append(o[0]))
        case.hf(torch.tensor([case.device.earlier]), use_cache=False)
    before = taken[0].float()
    state = states.state_after(hf, before)
    yield "linear attention that goes on from the state of the text before: it was not reset", run(state=state)
    conv = lambda c, y: states.convolved(c, torch.cat((states.mixed(hf, before), y)))[len(before) :]  # noqa: E731
    yield "linear attention whose convolution goes on from the text before: its state was not reset", run(conv=conv)
    both = "linear attention that goes on from the text before: neither state was reset"
    yield both, run(state=state, conv=conv)


def _moved(y, by):
    return torch.nn.functional.pad(y, (0, 0, max(by, 0), max(-by, 0)))[max(-by, 0) :][: len(y)]


def _reversed(conv, y):
    padded = torch.nn.functional.pad(y.T, (conv.weight.shape[-1] - 1, 0))[None]
    return torch.nn.functional.conv1d(padded, conv.weight.flip(-1), conv.bias, groups=len(conv.weight))[0].T
