"""What a norm may have computed instead: of another input, with another weight, another epsilon, another mean."""

import torch

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.activations import split
from bringup.evaluation.layers.declared import BLOCK_FORMATS
from bringup.evaluation.layers.suspects.case import COARSE, distance
from bringup.evaluation.layers.suspects.weights import orders
from bringup.new.reading import norms

SAME = 0.05  # relative: products on the device and HF's of the same weight, in any format
TILE = 32
EPSILONS = (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def norm(case):
    module = case.module
    eps = getattr(module, "variance_epsilon", None)
    if eps is None or (norms.kind(module, case.config) or ("RMSNorm",))[0] != "RMSNorm":  # as Llama has it
        return
    weight = module.weight.detach().float()
    x = case.value("self_attn.residual") if case.point == "post_attention_layernorm" else case.before()

    def rms(x, eps=eps):
        return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()

    for other in EPSILONS:
        if other != eps:
            yield f"the norm with epsilon {other:g} where HF has {eps:g}", rms(x, other) * weight
    yield "the norm without its weight", rms(x)
    yield "the norm with weight + 1", rms(x) * (weight + 1)
    yield "the norm with its weight applied twice", rms(x) * weight.square()
    yield "the norm divided by its weight", rms(x) / weight
    yield "LayerNorm, which subtracts the mean", torch.nn.functional.layer_norm(x, x.shape[-1:], weight, None, eps)
    yield "its input, not normalised", x
    yield "its input times the weight, not normalised", x * weight
    yield "the norm of the norm: applied twice", rms(rms(x) * weight) * weight
    size = x.shape[-1] ** 0.5
    yield "x / |x| times the weight: the sum of squares in the place of the mean", rms(x) * weight / size
    yield (
        "x / mean(x^2) times the weight: the square root is left out",
        x * rms(x).square() / x.square().clamp(min=1e-30) * weight,
    )
    yield "x / mean(|x|) times the weight", x / x.abs().mean(-1, keepdim=True) * weight
    yield "the norm with epsilon outside the square root", x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * weight
    yield from _other_weights(case, rms(x))
    yield from other_inputs(case, lambda x: rms(x) * weight)
    for shares in {case.chips, 2, 4, 8} - {1}:
        if x.shape[-1] % shares == 0:
            parts = x.unflatten(-1, (shares, -1))
            yield (
                f"the norm with the mean square of each of {shares} shares, not of the whole width",
                rms(parts).flatten(-2) * weight,
            )
            yield (
                f"the norm with the mean square of the first of {shares} shares, not of the whole width",
                x * (parts[..., :1, :].square().mean(-1) + eps).rsqrt() * weight,
            )


def _other_weights(case, normed):
    for name, module in case.modules.items():
        theirs = getattr(module, "weight", None)
        if "norm" in name and name != case.name and theirs is not None and theirs.shape == normed.shape[-1:]:
            where = name.removeprefix("model.")
            if (layer := _whole_layer(case, name)) is not None:
                where += f": layer {layer} runs in the place of layer {case.layer}, v_proj is its too"
            if name.startswith(case.prefix):
                where = name.removeprefix(case.prefix)
            yield f"the norm with the weight of {where}", normed * theirs.detach().float()
    for by in (1, -1):
        yield f"the norm with its weight shifted by {by:+d}", normed * case.module.weight.detach().float().roll(by)
    own = case.module.weight.detach().float()
    for dtype in BLOCK_FORMATS:
        for grid in case.grids(dtype):
            yield f"the norm with its weight rounded to {dtype}", normed * grid(own[None])[0], COARSE
    for words, value in orders(own[:, None], case.chips):
        if "rows" in words:
            yield f"the norm with its weight {words.replace('rows', 'values')}", normed * value[:, 0]
    for n in dict.fromkeys((TILE, len(own) // TILE)):
        if n > 1 and len(own) % n == 0:
            words = f"the norm with its weight in another order: laid out [{len(own) // n}, {n}], and read by columns"
            yield words, normed * own.view(-1, n).T.flatten()


def _whole_layer(case, name):
    """The layer of a norm's name where the device's values are those of that layer's v_proj, and None else."""
    layer, part = split(name)
    if case.point != "input_layernorm" or part != case.point or not case.has("self_attn.v_proj"):
        return None
    got = case.device.points.get(case.prefix + "self_attn.v_cache")
    theirs = case.modules[f"model.layers.{layer}.self_attn.v_proj"](case.value("input_layernorm"))
    if got is None or got.shape != theirs.shape:
        return None
    return layer if distance(theirs[case.rows], got[case.rows]) < SAME else None


def other_inputs(case, norm):
    before = case.before()
    if case.point == "post_attention_layernorm":
        yield "the norm of self_attn's output alone, without the residual", norm(case.value("self_attn"))
        yield "the norm of the layer's input, without attention", norm(before)
        after = case.value("self_attn.residual") + case.value("mlp")
        yield "the norm of the stream after the MLP: it comes after the residual, not before", norm(after)
        yield "the norm of attention's output twice plus the residual", norm(before + 2 * case.value("self_attn"))
        return
    if case.point == "input_layernorm":
        after = before + case.value("self_attn")
        yield "the norm of the stream after attention: it comes after the residual, not before", norm(after)
    layer = case.layer if case.layer is not None else len(case.hf.model.layers)
    for name, words in (
        (f"model.layers.{layer - 1}.self_attn.residual", "the stream before the MLP of the layer before"),
        (f"model.layers.{layer - 1}.mlp", "the MLP's output of the layer before, without the residual"),
        (f"model.layers.{layer - 2}.mlp.residual", f"the stream before layer {layer - 1}"),
        ("model.embed_tokens", "the embeddings"),
    ):
        if name in case.own.points:
            yield f"the norm of {words}", norm(case.any(name))


def is_of_all(case, norm):
    """Is HF's norm of q or k one over all heads together, before they are heads?"""
    return norm.weight.shape[-1] != case.head_dim


def normed(case, norm, flat):
    """q or k [n, heads * head_dim] -> [heads, n, head_dim] after HF's norm, where there is one."""
    if norm is not None and is_of_all(case, norm):
        return case.by_head(norm(flat))
    heads = case.by_head(flat)
    return heads if norm is None else norm(heads)


def norm_of_all(case, which, flat):
    """(words, value [heads, n, head_dim]) for q or k [n, heads * head_dim] before HF's norm over all heads together."""
    norm = hf_layers.head_norm(case.attention, which)
    weight, eps, name = norm.weight.detach().float(), getattr(norm, "variance_epsilon", 1e-6), f"{which}_norm"
    rms = flat * (flat.square().mean(-1, keepdim=True) + eps).rsqrt()
    own = case.by_head(flat)
    each = (own * (own.square().mean(-1, keepdim=True) + eps).rsqrt()).transpose(0, 1).flatten(1)
    yield f"{which} without {name}{_later(case, which)}", own
    yield f"{which} with {name} over each head, not over all at once", case.by_head(each * weight)
    others = {
        "without its weight": torch.ones_like(weight),
        "'s weight + 1": weight + 1,
        "'s weight applied twice": weight.square(),
    }
    other = hf_layers.head_norm(case.attention, "k" if which == "q" else "q").weight.detach().float()
    others |= {"'s weight being that of the other of q_norm and k_norm": other} if other.shape == weight.shape else {}
    for layer, theirs in enumerate(case.hf.model.layers):
        theirs = hf_layers.head_norm(getattr(theirs, "self_attn", None), which)
        if layer != case.layer and theirs is not None:
            others[f"'s weight being that of layer {layer}"] = theirs.weight.detach().float()
    others |= {f"'s weight {words}": value[:, 0] for words, value in orders(weight[:, None], case.chips)}
    for shares in dict.fromkeys((case.chips, 2, 4, 8)):
        if shares > 1 and len(weight) % shares == 0:
            for i, share in enumerate(weight.chunk(shares)):
                words = f"'s weight being share {i} of {shares} in every share: the same on each chip"
                others[words] = share.repeat(shares)
            own_mean = flat.unflatten(-1, (shares, -1))
            own_mean = own_mean * (own_mean.square().mean(-1, keepdim=True) + eps).rsqrt()
            words = (
                f"{which} with {name} over each of {shares} shares, not over all heads: the chips' sums are not added"
            )
            yield words, case.by_head(own_mean.flatten(1) * weight)
    for words, value in others.items():
        said = f"{name}{words}" if words.startswith("'") else f"{name} {words}"
        yield f"{which} with {said}", case.by_head(rms * value)


def _later(case, which):
    """That the device has the norm all the same, after the rotation."""
    ran = [name for name, phase in case.device.ran if phase == case.phase]
    norm, rope = (f"{case.prefix}self_attn.{which}_{part}" for part in ("norm", "rope"))
    late = norm in ran and rope in ran and ran.index(norm) > ran.index(rope)
    return ": on the device it runs after the rotation, not before" if late else ""


def head_norm(case, which, q):
    """(words, value [heads, n, head_dim]) for q or k before its norm over each head, where HF has one."""
    module = hf_layers.head_norm(case.attention, which)
    if module is None:
        return
    other = hf_layers.head_norm(case.attention, "k" if which == "q" else "q")
    kind, eps = norms.kind(module, case.config) or ("RMSNorm", getattr(module, "variance_epsilon", 1e-6))
    if kind not in ("RMSNorm", "UnitOffsetRMSNorm"):
        return
    own = lambda m: m.weight.detach().float() + (kind == "UnitOffsetRMSNorm")  # noqa: E731
    normed = q * (q.square().mean(-1, keepdim=True) + eps).rsqrt()
    yield f"{which} without {which}_norm{_later(case, which)}", q
    yield f"{which} with {which}_norm without its weight", normed
    weight = own(module)
    if kind == "RMSNorm":
        yield f"{which} with {which}_norm's weight + 1", normed * (weight + 1)
    else:
        yield f"{which} with {which}_norm's weight, where HF has 1 + weight", normed * (weight - 1)
    yield f"{which} with {which}_norm's weight applied twice", normed * weight.square()
    yield f"{which} with the weight of the other of q_norm and k_norm", normed * own(other)
    for e in EPSILONS:
        if e != eps:
            again = q * (q.square().mean(-1, keepdim=True) + e).rsqrt() * weight
            yield f"{which}_norm with epsilon {e:g} where HF has {eps:g}", again
    whole = q.transpose(0, 1).flatten(1)
    whole = whole * (whole.square().mean(-1, keepdim=True) + eps).rsqrt()
    yield (
        f"{which}_norm over all heads at once, not over each",
        whole.unflatten(1, (len(q), -1)).transpose(0, 1) * weight,
    )
