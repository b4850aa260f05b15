"""What an MLP may have computed: other activations, other weights, other inputs; chips' shares of its last product."""

import torch
import torch.nn.functional as F

from bringup.evaluation.layers.declared import BITS, BLOCK_FORMATS, cut
from bringup.evaluation.layers.suspects import reading, weights
from bringup.evaluation.layers.suspects.case import COARSE, rounded

ACTIVATIONS = {
    "no activation": lambda x: x,
    "relu": F.relu,
    "relu squared": lambda x: F.relu(x).square(),
    "x squared": torch.square,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "relu6": F.relu6,
    "silu applied twice": lambda x: F.silu(F.silu(x)),
}
BLOCKS = 32  # of the hidden state: which are missing from the sum
LOFI = BITS["LoFi"]


class Parts:
    """HF's MLP on the device's input, its products apart: `hidden` is what the last of them takes."""

    def __init__(self, case):
        self.case, self.module, self.x = case, case.module, case.into_mlp()
        names = ("gate_proj", "up_proj", "down_proj")
        self.parts = {n: getattr(self.module, n) for n in names if hasattr(self.module, n)}
        self.gated = "gate_proj" in self.parts
        self.right = self.hidden()

    def hidden(self, act=None, x=None, **changed):
        act, x = act or self.module.act_fn, self.x if x is None else x
        up = self.product("up_proj", x, changed)
        return act(self.product("gate_proj", x, changed)) * up if self.gated else act(up)

    def product(self, name, x, changed=()):
        p = self.parts[name]
        return weights.apply(x, *(changed[name] if name in changed else (p.weight.detach(), p.bias)))

    def out(self, hidden=None, **changed):
        return self.product("down_proj", self.right if hidden is None else hidden, changed)

    def run(self, x=None, inner=None, **changed):
        hidden = self.hidden(x=x, **changed)
        return self.out(hidden if inner is None else inner(hidden), **changed)


def mlp(case):
    if not hasattr(case.module, "down_proj") or not hasattr(case.module, "act_fn"):
        return
    m = Parts(case)
    for words, hidden in _hidden(m):
        yield words, m.out(hidden)
        yield from _in_some_chips(m, words, hidden)
    x, run = m.x, m.run
    yield "the MLP of the residual stream, not normalised", run(x=case.value("self_attn.residual"))
    yield "the MLP of the layer's input, normalised for attention", run(x=case.into_attention())
    yield "the MLP of its normalised input plus that input: the residual is added inside", run() + x
    yield "the MLP plus the residual: it is added inside", run() + case.value("self_attn.residual")
    for dtype in BLOCK_FORMATS:
        coarse = {n: (rounded(p.weight, dtype), p.bias) for n, p in m.parts.items()}
        yield f"HF's value with weights rounded to {dtype}", run(**coarse)
        for grid in case.grids(dtype):
            yield f"the MLP with its hidden state rounded to {dtype}", run(inner=grid), COARSE
            yield f"the MLP of its input rounded to {dtype}", run(x=grid(x)), COARSE
    for name, p in m.parts.items():
        for words, weight, bias in weights.instead(case, f"mlp.{name}"):
            if weight.shape == p.weight.shape:
                yield words, run(**{name: (weight, bias)})
    for layer in range(len(case.hf.model.layers)):
        other = case.hf.model.layers[layer].mlp
        if layer != case.layer and type(other) is type(m.module):
            yield f"the MLP of layer {layer}: it has layer {layer}'s weights", other(x[None])[0]
    if m.gated:
        yield from _fused(case, m.parts, run)
    yield from _shares(case, m.parts, run)
    low = {n: (cut(p.weight.detach(), LOFI[0]), p.bias) for n, p in m.parts.items()}
    yield (
        "the MLP with its products in LoFi: the low bits of the operands are cut off",
        run(x=cut(x, LOFI[1]), inner=lambda h: cut(h, LOFI[1]), **low),
    )


def _hidden(m):
    """(words, what the last product would take)"""
    name = getattr(m.case.config, "hidden_act", "HF's")
    for words, act in ACTIVATIONS.items():
        value = m.hidden(act=act)
        if float((value - m.right).norm()) > 1e-3 * float(m.right.norm()):
            yield f"the MLP with {words} in the place of {name}", value
    if m.gated:
        act, gate, up = m.module.act_fn, m.product("gate_proj", m.x), m.product("up_proj", m.x)
        yield "the MLP with gate and up swapped: the activation is on up", act(up) * gate
        yield "the MLP with the activation on both gate and up", act(gate) * act(up)
        yield "the MLP with the activation on the product of gate and up", act(gate * up)
        yield "the MLP with gate + up in the place of gate * up", act(gate) + up
        yield "the MLP without up: down(act(gate))", act(gate)
        yield "the MLP without gate: down(act(up))", act(up)
        yield "the MLP without gate: down(up)", up
    yield from _clamped(m)


def _clamped(m):
    """Values held within a limit, which is read off."""
    act, up = m.module.act_fn, m.product("up_proj", m.x)
    limited = {"hidden state": (m.right, lambda t, n: t.clamp(-n, n))}
    if m.gated:
        gate = m.product("gate_proj", m.x)
        limited |= {
            "gate": (gate, lambda t, n: act(t.clamp(max=n)) * up),
            "gate on both sides": (gate, lambda t, n: act(t.clamp(-n, n)) * up),
            "up": (up, lambda t, n: act(gate) * t.clamp(-n, n)),
            "gate and up": (gate, lambda t, n: act(t.clamp(max=n)) * up.clamp(-n, n)),
        }
    got = m.case.got
    for what, (value, of) in limited.items():
        most = float(value.abs().max())
        tried = [most * 0.5 ** (i / 4) for i in range(1, 29)]
        missed = lambda n, of=of, value=value: float((m.out(of(value, n)[m.case.rows]) - got).norm())  # noqa: E731
        best, step = min(tried, key=missed), 2**0.25
        for _ in range(5):
            step **= 0.5
            best = min((best / step, best, best * step), key=missed)
        yield f"the MLP with its {what} clamped at {best:.3g}", of(value, best)


def _in_some_chips(m, words, hidden):
    """The same in the shares of some chips alone: which, by least squares."""
    chips, rows = m.case.chips, m.case.rows
    if chips < 2 or hidden.shape[1] % chips:
        return
    step = (hidden - m.right)[rows].unflatten(1, (chips, -1))
    shares = m.parts["down_proj"].weight.detach().float().unflatten(1, (chips, -1))
    each = torch.einsum("nci,oci->cno", step, shares)
    basis = each.double().flatten(1)
    gram, size = basis @ basis.T, basis.square().sum(1)
    if float(size.min()) <= 1e-6 * float(size.max()):
        return
    right = m.out()[rows]
    times = gram + 1e-6 * size.mean() * torch.eye(chips, dtype=torch.double)
    some = torch.linalg.solve(times, basis @ (m.case.got - right).double().flatten()) > 0.5
    if bool(some.any()) and not bool(some.all()):
        where = reading.ranges(some.nonzero().flatten().tolist(), "chip")
        yield f"{words}, in the share of {where} alone", right + each[some].sum(0)


def _fused(case, parts, run):
    pair = [parts[n].weight.detach().float() for n in ("gate_proj", "up_proj")]
    for n in sorted({case.chips, len(pair[0])} - {1}):
        for words, (gate, up) in weights.fused(pair, n, case.chips):
            biases = [parts[name].bias for name in ("gate_proj", "up_proj")]
            yield f"gate and up of {words}", run(gate_proj=(gate, biases[0]), up_proj=(up, biases[1]))


def _shares(case, parts, run):
    """How often each chip's share of the last product is in the sum, read off by least squares."""
    width = parts["down_proj"].weight.shape[1]
    if case.chips > 1 and width % case.chips == 0:
        yield from sums(case, _of_shares(case, parts, run, case.chips), "chip")
    tiles = next((n for n in range(min(BLOCKS, width // 32), 1, -1) if width % (32 * n) == 0), 1)
    if tiles > 1:
        more = f" (of {tiles}) of {width // tiles} columns of the hidden state"
        yield from sums(case, _of_shares(case, parts, run, tiles), "block", more)


def _of_shares(case, parts, run, shares):
    p, width = parts["down_proj"], parts["down_proj"].weight.shape[1]
    block = width // shares
    each = []
    for i in range(shares):
        weight = torch.zeros_like(p.weight.detach(), dtype=torch.float32)
        weight[:, i * block : (i + 1) * block] = p.weight.detach()[:, i * block : (i + 1) * block].float()
        each.append(run(down_proj=(weight, None))[case.rows])
    return each


def sums(case, each, one, more=""):
    """The value as a sum of shares, each a number of times, which least squares tell: said where some are not once."""
    basis = torch.stack([e.double().flatten() for e in each])
    gram = basis @ basis.T
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(basis), dtype=torch.double)
    times = torch.linalg.solve(gram + ridge, basis @ case.got.double().flatten()).tolist()
    rounded = [round(t) if abs(t - round(t)) < 0.05 else t for t in times]
    wrong = [i for i, t in enumerate(rounded) if t != 1]
    if not wrong or len(wrong) == len(each):
        return
    value = sum(t * e for t, e in zip(rounded, each, strict=True))
    for t in {rounded[i] for i in wrong}:
        same = [i for i in wrong if rounded[i] == t]
        if len(same) == len(wrong):
            how = "missing from the sum" if t == 0 else f"{reading.named(case, t)} times in the sum"
            yield f"HF's value with the share of {reading.ranges(same, one)}{more} {how}", value
