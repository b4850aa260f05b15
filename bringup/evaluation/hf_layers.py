"""What HF's decoder layers have, whatever their family: windows, rotations, and which norm stands before a part."""

import inspect
import sys


def rotary_of(hf_decoder):
    """HF's module of the decoder that gives cos and sin; None."""
    from bringup.blocks import rope

    return rope.rotary_of(hf_decoder)


def window(hf_attention, config):
    """How many positions HF lets one see, its own the last; None where all that came before."""
    if not getattr(hf_attention, "is_sliding", True):
        return None
    if hasattr(hf_attention, "sliding_window"):
        return hf_attention.sliding_window
    return None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)


def tables(rotary, config, layer, positions):
    """HF's (cos, sin) [batch, length, turned] of one layer at positions [batch, length]."""
    import torch

    several = "layer_type" in inspect.signature(rotary.forward).parameters
    return rotary(torch.zeros(1), positions, *([config.layer_types[layer]] if several else []))


def rotation(hf_attention):
    """The function with which HF's attention rotates q and k."""
    return sys.modules[type(hf_attention).__module__].apply_rotary_pos_emb


def turns_both(rotation):
    """Does HF's function turn q and k at once? Gemma-4's takes one of them."""
    return "k" in inspect.signature(rotation).parameters


def beside_keys(hf_attention):
    """What HF's attention is to be given for keys that layers share: nothing so far."""
    return {"shared_kv_states": {}} if "shared_kv_states" in inspect.signature(hf_attention.forward).parameters else {}


def inputs_beside(hf_layer):
    """Widths of what HF's layer takes beside the stream."""
    gate = getattr(hf_layer, "per_layer_input_gate", None)
    return [] if gate is None else [gate.out_features]


HEAD_NORMS = {"q": ("q_norm", "q_layernorm", "query_layernorm"), "k": ("k_norm", "k_layernorm", "key_layernorm")}


def head_norm(hf_attention, which):
    """HF's norm of q or k; None."""
    return next((norm for name in HEAD_NORMS[which] if (norm := getattr(hf_attention, name, None)) is not None), None)


def norm_after_rotation(hf_attention):
    """The norm of k that HF has behind its rotation (Hunyuan's), by the order of its forward's words; None."""
    words = inspect.getsource(type(hf_attention).forward)
    for name in HEAD_NORMS["k"]:
        if 0 <= words.find("apply_rotary_pos_emb(") < words.find(f"self.{name}("):
            return getattr(hf_attention, name, None)
    return None


def rotated(hf_attention, x, cos, sin):
    """HF's rotation of heads [batch, n, length, head_dim]; what is beyond the tables does not turn."""
    import torch

    function, turned = rotation(hf_attention), cos.shape[-1]
    turn = (lambda x: function(x, x, cos, sin)[0]) if turns_both(function) else lambda x: function(x, cos, sin)
    try:
        done = turn(x[..., :turned])
    except RuntimeError:  # a column for each pair: gpt-oss's
        turned *= 2
        done = turn(x[..., :turned])
    return torch.cat((done, x[..., turned:]), -1)


def norms_before(hf_layer, run, parts):
    """{part: the name of the norm that gives it its input, or None}; `run()` runs the layer once."""
    outputs, found, handles = {}, {}, []
    for name, module in hf_layer.named_children():
        if name in parts:

            def before(_, args, kwargs, name=name):
                given = args[0] if args else kwargs["hidden_states"]
                found[name] = next((n for n, out in outputs.items() if out is given), None)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        elif "norm" in name:
            handles.append(module.register_forward_hook(lambda _, args, out, name=name: outputs.update({name: out})))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
