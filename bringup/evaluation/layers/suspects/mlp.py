"""What an MLP may have computed: other activations, other weights, other inputs; chips' shares of its last product."""

import torch
import torch.nn.functional as F

from bringup.evaluation.layers.suspects import reading, weights
from bringup.evaluation.layers.suspects.case import BLOCK_FORMATS, COARSE, rounded

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
LOFI = (5, 7)  # bits of the operands' mantissas that one pass of the matrix unit takes, weights and activations


def mlp(case):
    module, x = case.module, case.value("post_attention_layernorm")
    if not hasattr(module, "down_proj") or not hasattr(module, "act_fn"):
        return
    parts = {n: getattr(module, n) for n in ("gate_proj", "up_proj", "down_proj") if hasattr(module, n)}
    gated = "gate_proj" in parts

    def run(act=module.act_fn, x=x, inner=None, **changed):
        w = {n: changed.get(n, (p.weight.detach(), p.bias)) for n, p in parts.items()}
        up = weights.apply(x, *w["up_proj"])
        hidden = act(weights.apply(x, *w["gate_proj"])) * up if gated else act(up)
        return weights.apply(hidden if inner is None else inner(hidden), *w["down_proj"])

    yield from _activations(case, module, parts, run, x)
    yield "the MLP of the residual stream, not normalised", run(x=case.value("self_attn.residual"))
    yield "the MLP of the layer's input, normalised for attention", run(x=case.value("input_layernorm"))
    yield "the MLP of its normalised input plus that input: the residual is added inside", run() + x
    yield "the MLP plus the residual: it is added inside", run() + case.value("self_attn.residual")
    for dtype in BLOCK_FORMATS:
        coarse = {n: (rounded(p.weight, dtype), p.bias) for n, p in parts.items()}
        yield f"HF's value with weights rounded to {dtype}", run(**coarse)
        for grid in case.grids(dtype):
            yield f"the MLP with its hidden state rounded to {dtype}", run(inner=grid), COARSE
            yield f"the MLP of its input rounded to {dtype}", run(x=grid(x)), COARSE
    for name, p in parts.items():
        for words, weight, bias in weights.instead(case, f"mlp.{name}"):
            if weight.shape == p.weight.shape:
                yield words, run(**{name: (weight, bias)})
    for layer in range(len(case.hf.model.layers)):
        other = case.hf.model.layers[layer].mlp
        if layer != case.layer and type(other) is type(module):
            yield f"the MLP of layer {layer}: it has layer {layer}'s weights", other(x[None])[0]
    if gated:
        yield from _fused(case, parts, run)
    yield from _shares(case, parts, run)
    low = {n: (_bits(p.weight.detach(), LOFI[0]), p.bias) for n, p in parts.items()}
    yield (
        "the MLP with its products in LoFi: the low bits of the operands are cut off",
        run(x=_bits(x, LOFI[1]), inner=lambda h: _bits(h, LOFI[1]), **low),
    )


def _activations(case, module, parts, run, x):
    own = run()
    name = getattr(case.config, "hidden_act", "HF's")
    for words, act in ACTIVATIONS.items():
        value = run(act=act)
        if float((value - own).norm()) > 1e-3 * float(own.norm()):
            yield f"the MLP with {words} in the place of {name}", value
    if "gate_proj" not in parts:
        return
    act, gate, up = module.act_fn, parts["gate_proj"](x), parts["up_proj"](x)
    down = parts["down_proj"]
    yield "the MLP with gate and up swapped: the activation is on up", down(act(up) * gate)
    yield "the MLP with the activation on both gate and up", down(act(gate) * act(up))
    yield "the MLP with the activation on the product of gate and up", down(act(gate * up))
    yield "the MLP with gate + up in the place of gate * up", down(act(gate) + up)
    yield "the MLP without up: down(act(gate))", down(act(gate))
    yield "the MLP without gate: down(act(up))", down(act(up))
    yield "the MLP without gate: down(up)", down(up)


def _fused(case, parts, run):
    pair = [parts[n].weight.detach().float() for n in ("gate_proj", "up_proj")]
    for n in sorted({case.chips, len(pair[0])} - {1}):
        for words, (gate, up) in weights.fused(pair, n):
            biases = [parts[name].bias for name in ("gate_proj", "up_proj")]
            yield f"gate and up of {words}", run(gate_proj=(gate, biases[0]), up_proj=(up, biases[1]))


def _shares(case, parts, run):
    """How often each chip's share of the last product is in the sum, read off by least squares."""
    p = parts["down_proj"]
    shares, width = case.chips, p.weight.shape[1]
    if shares < 2 or width % shares:
        return
    block = width // shares
    each = []
    for i in range(shares):
        weight = torch.zeros_like(p.weight.detach(), dtype=torch.float32)
        weight[:, i * block : (i + 1) * block] = p.weight.detach()[:, i * block : (i + 1) * block].float()
        each.append(run(down_proj=(weight, None))[case.rows])
    yield from sums(case, each, "chip")


def sums(case, each, one):
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
            yield f"HF's value with the share of {reading.ranges(same, one)} {how}", value


def _bits(x, bits):
    """Mantissas cut off after `bits`, the leading one included."""
    mantissa, exponent = torch.frexp(x.float())
    return torch.ldexp((mantissa * 2**bits).trunc() / 2**bits, exponent)
