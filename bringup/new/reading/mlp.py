"""Which MLP a module of HF is: the blocks' formulas in torch on what it took, against what it gave."""

from bringup.new.traits import Part

SAME = 1e-4  # relative L2 of two float32 computations of the same thing


def _activations():
    from torch.nn import functional as F

    return {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "relu2": lambda x: F.relu(x).square(),
    }


def read(hf_mlp, name, x, out, config, traits):
    """The `Part` of an MLP that took x and gave `out`; None, with a gap in `traits`, where no block computes it."""
    import torch

    from bringup.blocks.hf import named
    from bringup.blocks.mlp import DOWN, GATE, GATE_UP, UP

    where = type(hf_mlp).__name__
    arguments = (f"hf_layer.{name}", "mesh", "precision")
    down = named(hf_mlp, DOWN)
    fused = named(hf_mlp, GATE_UP)
    gated = fused is not None or named(hf_mlp, GATE) is not None
    if not isinstance(down, torch.nn.Linear) or not (gated or isinstance(named(hf_mlp, UP), torch.nn.Linear)):
        parts = ", ".join(n for n, _ in hf_mlp.named_children())
        traits.lacks(f"{name} of {parts}", where, "a block for it, which `reading.whole.PARTS` knows")
        return None
    act = named(hf_mlp, ("act_fn", "activation_fn", "activation", "act"))
    probe = torch.linspace(-6, 6, 500)
    with torch.no_grad():
        found = [n for n, f in _activations().items() if act is None or torch.allclose(act(probe), f(probe), atol=1e-5)]
    if not found and type(act).__name__ == "XIELUActivation" and not gated:
        _say(traits, "xIELU, no gate", where)
        return Part("XieluMLP", arguments)
    if not found:
        traits.lacks(f"activation {type(act).__name__}", where, f"an MLP with it; covered: {', '.join(_activations())}")
        return None
    f = _activations()[found[0]]
    with torch.no_grad():
        if gated:
            gate, up = fused(x).chunk(2, -1) if fused is not None else (named(hf_mlp, GATE)(x), named(hf_mlp, UP)(x))
            inner = f(gate) * up
        else:
            inner = f(named(hf_mlp, UP)(x))
        sub_norm = getattr(hf_mlp, "ffn_sub_norm", None)
        inner = inner if sub_norm is None else sub_norm(inner)
        same = torch.allclose(down(inner), out, rtol=1e-3, atol=float(1e-4 * out.abs().max()))
    if not same:
        words = "down(act(gate(x)) * up(x))" if gated else "down(act(up(x)))"
        traits.lacks(f"{name} is not {words}", where, "a block that computes what HF's forward says")
        return None
    if sub_norm is not None and not gated:
        traits.lacks(f"{name} has a norm inside and no gate", where, "a plain MLP with ffn_sub_norm")
        return None
    _say(traits, f"{'gated ' if gated else ''}{WORDS[found[0]]}{'' if gated else ', no gate'}", where)
    if gated:
        block = "GatedMLP" if sub_norm is None else "SubNormGatedMLP"
        keywords = () if found[0] == "silu" else (("activation", f'"{found[0]}"'),)
        return Part(block, arguments, keywords)
    return (
        Part("Relu2MLP", arguments)
        if found[0] == "relu2"
        else Part("PlainMLP", arguments, (("activation", f'"{found[0]}"'),))
    )


WORDS = {"silu": "SiLU", "gelu": "GELU", "gelu_pytorch_tanh": "GELU by tanh", "relu": "ReLU", "relu2": "squared ReLU"}


def _say(traits, words, where):
    traits.words["mlp"] = words
    traits.sources["MLP"] = f"{where}, run on random values: {words}"
