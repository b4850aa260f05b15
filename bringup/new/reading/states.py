"""Layers with a state in place of keys: which block computes them, by what HF's module has and gives."""

from bringup.new.traits import Part

SAME = 1e-4  # relative L2 of two float32 computations of the same thing


def is_linear_attention(module):
    return hasattr(module, "A_log") and hasattr(module, "conv1d") and hasattr(module, "num_v_heads")


def is_short_conv(module):
    return all(hasattr(module, name) for name in ("conv", "in_proj", "out_proj"))


def read_linear_attention(module, path, seen, traits):
    return _read(module, path, seen, traits, "GatedDeltaNet", delta_net, "the gated delta rule over a convolution")


def read_short_conv(module, path, seen, traits):
    return _read(module, path, seen, traits, "ShortConv", short_conv, "a short gated convolution")


def _read(module, path, seen, traits, block, formula, words):
    name, where = path.rpartition(".")[2], type(module).__name__
    out = seen.out_of(path)
    if float((formula(module, seen.into(path)[0]) - out[0]).norm()) > SAME * float(out[0].norm()):
        traits.lacks(f"{name} is not {words} as the block has it", where, "that, as HF's forward has it")
        return None
    traits.words["state"] = words
    traits.sources["state"] = f"{where}, run on random values: {words}"
    return Part(block, (f"hf_layer.{name}", "cache", "mesh", "precision"))


def convolved(hf_conv, x):
    """x [S, width] through HF's causal convolution."""
    import torch

    weight, bias = (None if p is None else p.float() for p in (hf_conv.weight, hf_conv.bias))
    padded = torch.nn.functional.pad(x.T, (weight.shape[-1] - 1, 0))[None]
    return torch.nn.functional.conv1d(padded, weight, bias, groups=len(weight))[0].T


def short_conv(hf, x, conv=convolved):
    """What `ShortConv` computes of x [S, hidden], in torch."""
    import torch

    with torch.no_grad():
        b, c, inner = hf.in_proj(x).chunk(3, -1)
        return hf.out_proj(c * conv(hf.conv, b * inner))


def mixed(hf, x):
    """What goes into the convolution of linear attention, of x [S, hidden]."""
    import torch

    from bringup.blocks.linear_attention import projections

    return torch.nn.functional.linear(x, projections(hf)[0].float())


def state_after(hf, x, **given):
    """The state [heads, key dim, value dim] that x [S, hidden] leaves."""
    return _run(hf, x, **given)[1]


def delta_net(hf, x, conv=convolved, state=None, **changed):
    """What `GatedDeltaNet` computes of x [S, hidden], in torch, token by token. `changed` are functions in the place of
    its own: beta(b), decay(g), length(q or k), query(q), act(what the convolution gives), gate(z)."""
    return _run(hf, x, conv, state, **changed)[0]


def own(hf):
    """What `delta_net` may have others of."""
    import torch
    from torch.nn import functional as F

    from bringup.blocks.linear_attention import EPSILON

    return {
        "beta": torch.sigmoid,
        "decay": lambda g: g,
        "length": lambda t: t * (t.square().sum(-1, keepdim=True) + EPSILON).rsqrt(),
        "query": lambda q: q,
        "gate": F.silu,
        "act": F.silu,
    }


def _run(hf, x, conv=convolved, state=None, **changed):
    import torch
    from torch.nn import functional as F

    from bringup.blocks.linear_attention import projections

    of = own(hf) | changed
    with torch.no_grad():
        qkv, z, b, a = (F.linear(x, w.float()) for w in projections(hf))
        q, k, v = of["act"](conv(hf.conv1d, qkv)).split((hf.key_dim, hf.key_dim, hf.value_dim), -1)
        q, k = (of["length"](t.unflatten(-1, (hf.num_k_heads, -1))) for t in (q, k))
        q, k = (t.repeat_interleave(hf.num_v_heads // hf.num_k_heads, 1) for t in (q, k))
        v, q = v.unflatten(-1, (hf.num_v_heads, -1)), of["query"](q * hf.head_k_dim**-0.5)
        beta, g = of["beta"](b), of["decay"](-hf.A_log.float().exp() * F.softplus(a + hf.dt_bias.float()))
        state = torch.zeros(hf.num_v_heads, hf.head_k_dim, hf.head_v_dim) if state is None else state
        outs = []
        for t in range(len(x)):
            state = state * g[t].exp()[:, None, None]
            new = (v[t] - torch.einsum("hkv,hk->hv", state, k[t])) * beta[t][:, None]
            state = state + k[t][..., None] * new[:, None]
            outs.append(torch.einsum("hkv,hk->hv", state, q[t]))
        out = torch.stack(outs)
        normed = out * (out.square().mean(-1, keepdim=True) + hf.layer_norm_epsilon).rsqrt() * hf.norm.weight.float()
        return F.linear(normed.flatten(1) * of["gate"](z), hf.out_proj.weight.float()), state
