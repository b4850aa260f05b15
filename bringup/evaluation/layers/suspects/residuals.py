"""The residual stream as a sum of what the layer has in hand: which terms, how often, read off by least squares."""

import torch

from bringup.evaluation.layers.declared import BLOCK_FORMATS
from bringup.evaluation.layers.suspects import reading, variants
from bringup.evaluation.layers.suspects.case import COARSE

SIMPLE = 0.02  # a coefficient is 0, 1, 2, ... within this


def residual(case):
    mixed = case.point == "self_attn.residual"
    module = case.mixer if mixed else case.ffn
    x = case.before() if mixed else case.value("self_attn.residual")
    after = variants.after(case, module)
    branch = after or module  # what HF adds
    y = case.value(branch)
    for name, out in ((variants.before(case, module), y), (after, case.value(module))):
        if name:
            value = case.modules[case.prefix + name](x + out)
            yield f"the sum, normalised: {name} comes after the residual", value
            if case.left(case.at_rows(value)) is not None:
                return  # else it would be that norm's output alone too
    for name, norm in case.modules.items():
        weight, short = getattr(norm, "weight", None), name.removeprefix(case.prefix)
        is_norm = "norm" in short and "." not in short and weight is not None and weight.shape == x.shape[-1:]
        if is_norm and name.startswith(case.prefix) and short != after:
            hf = f"where HF has {after}" if after else "which HF does not norm"
            yield f"the residual plus {short} of the output of {module}, {hf}", x + norm(case.value(module))
    terms = {"the residual": x, f"the output of {branch}": y}
    yield from _sum(case, branch, terms)
    norm = variants.before(case, module)
    others = {} if mixed else {"the layer's input": case.before()}
    others |= {"the embeddings": case.any("model.embed_tokens")}
    others |= {"the normalised input": case.value(norm)} if norm else {}
    others |= {f"the output of {module}, not normalised": case.value(module)} if after else {}
    if not mixed:
        others[f"the output of {case.mixer}"] = case.value(case.mixer)
        first = variants.before(case, case.mixer)
        others |= {f"{first}'s output": case.value(first)} if first else {}
    elif case.layer:
        others["the output of the MLP before"] = case.any(f"model.layers.{case.layer - 1}.{case.ffn}")
    for name, other in others.items():
        if other.shape == y.shape:
            yield from _sum(case, branch, {**terms, name: other})
    for dtype in BLOCK_FORMATS:
        for grid in case.grids(dtype):
            yield f"the sum with the residual rounded to {dtype}", grid(x) + y, COARSE
            yield f"the sum with the output of {branch} rounded to {dtype}", x + grid(y), COARSE
    for by in (1, -1):
        yield f"the residual plus the output of {branch} at position p {by:+d}", x + y.roll(-by, 0)


def _sum(case, branch, terms):
    basis = torch.stack([t[case.rows].double().flatten() for t in terms.values()])
    gram = basis @ basis.T
    ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(basis), dtype=torch.double)
    found = torch.linalg.solve(gram + ridge, basis @ case.got.double().flatten()).tolist()
    simple = [_simple(case, c) for c in found]
    if len(found) > 2 and (simple[2] is None or simple[2] == 0):
        return  # the third term explains nothing, or by an accident
    used = [c if s is None else s for c, s in zip(found, simple, strict=True)]
    hf = torch.linalg.solve(gram + ridge, basis @ case.want.double().flatten()).tolist()[:2]
    hf = [round(c, 4) if s is None else s for c, s in ((c, _simple(case, c)) for c in hf)]
    if used[:2] == hf and not any(used[2:]):
        return  # that is HF's sum
    value = sum(c * t[case.rows] for c, t in zip(used, terms.values(), strict=True))
    if hf == [1, 1]:
        yield _words(case, branch, list(terms), used), value
        return
    left_out = [variants.field(case, h) for c, h in zip(used, hf, strict=False) if c == 1 and h != 1]
    said = ", ".join(f"{name} is left out".replace(", is", " is") for name in left_out)
    sums = (" + ".join(f"{c:.4g} x {name}" for c, name in zip(cs, terms, strict=False)) for cs in (used, hf))
    yield "{}, where HF has {}".format(*sums) + (f": {said}" if said else ""), value


def _simple(case, c):
    numbers = {0.0, 1.0, 2.0, 3.0, -1.0, 0.5, float(case.chips), 1 / case.chips, 2**-0.5, 2.0**0.5}
    return next((n for n in sorted(numbers) if abs(c - n) < SIMPLE * max(1.0, abs(n))), None)


def _words(case, branch, names, c):
    a, b, rest = c[0], c[1], c[2:]
    out = f"the output of {branch}"
    if not rest:
        if (a, b) == (0, 1):
            if _stream_has_it(case):
                return (
                    f"{out} alone: post_attention_layernorm takes it without the residual, which the stream does have"
                )
            return f"{out} alone: the residual is not added"
        if (a, b) == (1, 0):
            if _stream_has_it(case):
                return "the stream before attention, which is added later: attention and MLP run side by side"
            return f"the residual alone: {out} is not added"
        if (a, b) == (1, 2):
            return f"{out} added twice"
        if b == 1 and a == case.chips > 1:
            each = f"the residual is added {a:g} times (not once but twice or more), once on each of {case.chips} chips"
            return f"{out} plus {a:g} times the residual: {each}"
        if b == 1 and a == 2:
            return f"{out} plus the residual twice"
    elif rest[0] == 1 and a == 0 and b == 1:
        told = {
            "the normalised input": "the residual is taken after the norm",
            "the layer's input": "attention is left out of the residual",
        }.get(names[2])
        return f"{names[2]} plus {out}, without the residual" + (f": {told}" if told else "")
    said = " + ".join(f"{reading.named(case, n)} x {name}" for n, name in zip(c, names, strict=True) if n != 0)
    return f"{said}, where HF has the residual + {out}"


def _stream_has_it(case):
    """Is the residual missing at the norm's input only, and the layer's output right?"""
    if case.point != "self_attn.residual" or f"{case.prefix}mlp.residual" not in case.device.points:
        return False
    want = (case.before() + case.value(case.mixer) + case.value(case.ffn))[case.rows]
    got = case.device.points[f"{case.prefix}mlp.residual"][case.rows]
    return float((got - want).norm()) < 0.02 * float(got.norm())
