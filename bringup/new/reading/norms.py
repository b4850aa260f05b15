"""Which norm a module of HF is: run on random values, and held against what the blocks compute."""

import copy

EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12)  # of norms that have it in their code


def _rms(x, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _layer(x, eps):
    return _rms(x - x.mean(-1, keepdim=True), eps)


#: Block -> what it computes of x, weight and bias.
KINDS = {
    "RMSNorm": lambda x, w, b, eps: _rms(x, eps) * w,
    "UnitOffsetRMSNorm": lambda x, w, b, eps: _rms(x, eps) * (1 + w),
    "LayerNorm": lambda x, w, b, eps: _layer(x, eps) * w + b,
    "UnitOffsetLayerNorm": lambda x, w, b, eps: _layer(x, eps) * (1 + w) + b,
}


def kind(hf_norm, config):
    """(block, epsilon) of a norm over the last dim; None where it is none of these."""
    import torch

    given = dict(hf_norm.named_parameters())
    if set(given) - {"weight", "bias"} or any(p.dim() != 1 for p in given.values()):
        return None
    generator = torch.Generator().manual_seed(0)
    width = len(given["weight"]) if "weight" in given else config.hidden_size
    hf_norm = copy.deepcopy(hf_norm)
    w, b = torch.rand(width, generator=generator) + 0.5, torch.zeros(width)
    if "weight" in given:
        hf_norm.weight = torch.nn.Parameter(w)
    else:
        w = torch.ones(width)
    if "bias" in given:
        b = torch.rand(width, generator=generator)
        hf_norm.bias = torch.nn.Parameter(b)
    x = torch.randn(3, 4, width, generator=generator) * torch.tensor([1e-3, 1.0, 3.0])[:, None, None]
    named = [v for n, v in config.to_dict().items() if "eps" in n and isinstance(v, float)]
    with torch.no_grad():
        try:
            got = hf_norm(x)
        except Exception:  # it takes more than hidden states
            return None
        for name, compute in KINDS.items():
            for eps in (*named, *EPSILONS):
                if got.shape == x.shape and torch.allclose(got, compute(x, w, b, eps), rtol=1e-4, atol=1e-6):
                    return name, eps
    return None


def eps_source(config, eps):
    """Source of an epsilon: the field that has it, or the number."""
    fields = [n for n, v in config.to_dict().items() if "eps" in n and v == eps]
    return f"config.{fields[0]}" if fields else f"{eps:g}"
