"""What every named point of a decoder computes: the points, and how HF's values are recorded and replaced.

A point's name is HF's module name, and its value the module's output for one sequence, [positions, width] in float32.
Points that are no module's output:

    self_attn.q_rope, self_attn.k_rope     queries and keys after RoPE, heads side by side
    self_attn.k_cache, self_attn.v_cache   what attention reads: the device's cache after the run
    self_attn.residual                     the residual stream after attention: what goes into the norm before the MLP
    mlp.residual                           the residual stream after the MLP: the layer's output

Of a layer that has the keys and values of one before, the cache is that one's.
"""

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field

from bringup.evaluation import hf_layers
from bringup.evaluation.hf_layers import norm_after_rotation

#: HF's names in a layer of any family, in the order in which they run.
ORDER = (
    "input_layernorm",
    "attention_layernorm",
    "operator_norm",
    "self_attn.q_rope",
    "self_attn.k_rope",
    "self_attn.k_cache",
    "self_attn.v_cache",
    "self_attn",
    "linear_attn",
    "conv",
    "post_self_attn_layernorm",
    "post_operator_norm",
    "post_norm1",
    "self_attn.residual",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "feedforward_layernorm",
    "pre_mlp_layernorm",
    "ffn_norm",
    "mlp",
    "feed_forward",
    "block_sparse_moe",
    "shared_mlp",
    "post_feedforward_layernorm",
    "post_mlp_layernorm",
    "post_ffn_norm",
    "post_norm2",
    "per_layer_projection",
    "post_per_layer_input_norm",
    "mlp.residual",
)
ROTATIONS = ("apply_rotary_pos_emb", "apply_rotary_pos_emb_interleave")  # HF's functions
MIXERS = ("self_attn", "linear_attn", "conv")  # one of them mixes positions
BEFORE_MIXER = ORDER[:3]  # norms of what it takes
FFNS = ("mlp", "feed_forward", "block_sparse_moe")
BEFORE_FFN = ("pre_feedforward_layernorm", "feedforward_layernorm", "pre_mlp_layernorm", "ffn_norm")
MODULES = tuple(point for point in ORDER if "." not in point)
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass
class Activations:
    """Values by point. `known` marks the positions that were seen, where not all were; `spread` is how far the chips
    are apart where each should hold the same (relative L2), by (point, phase); `extras` is what the HF side had in hand
    in each layer. Of a device with submodules of HF's names, `modules` are the names of all its modules, `ran` (name,
    phase) of those that were called, in the order in which they end."""

    ids: list
    decode_from: int
    depth: str = "submodules"
    points: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)
    spread: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)
    modules: frozenset = frozenset()
    ran: dict = field(default_factory=dict)
    earlier: list = field(default_factory=list)  # tokens of the text that ran before, and is to leave nothing behind
    user: int = 0  # which of a batch was watched
    calls: dict = field(default_factory=dict)  # (module, phase): the calls that it made, where the backend logs them

    def names(self):
        """The points in the order in which they are computed."""
        return sorted(self.points, key=place)

    def rows(self, phase):
        return slice(0, self.decode_from) if phase == "prefill" else slice(self.decode_from, len(self.ids))


def split(name):
    """`model.layers.3.self_attn.k_rope` -> (3, "self_attn.k_rope"); outside the layers (None, name)."""
    inside = LAYER.fullmatch(name)
    return (int(inside[1]), inside[2]) if inside else (None, name.removeprefix("model."))


def place(name):
    layer, point = split(name)
    if layer is None:
        return ({"embed_tokens": -1, "norm": 1 << 30}.get(point, 1 << 31), 0)
    return (layer, ORDER.index(point))


# -- HF ---------------------------------------------------------------------------------------------------------------


def record_reference(hf_model, ids, decode_from, given=None, cache_format=None, without=(), only=None):
    """The HF model's activations for one sequence, in the dtype that its parameters have.

    With `given`, a device's activations, every module gets the device's own input: each output is recorded and then
    replaced by the device's, where that was seen and is finite. What differs then is the module's own doing and nothing
    inherited. With `only`, names of points, no others are replaced.
    `cache_format(x)` rounds keys and values as the device's cache does. The modules named in `without` are left out: a
    norm or a layer gives back its input, attention and MLP give zeros.
    """
    import torch

    out = Activations(list(ids), decode_from)
    with recording(hf_model, out, given, cache_format, without, only), torch.no_grad():
        logits = hf_model(torch.tensor([list(ids)]), use_cache=False).logits
    out.points["lm_head"] = logits[0].float()
    return out


@contextmanager
def recording(hf_model, out, given=None, cache_format=None, without=(), only=None, taken=lambda name: None):
    """Inside, what the modules of HF compute goes into `out`, as `record_reference` has it; `taken` hears of each."""
    import torch

    def take(name, value):
        """Record value [1, positions, width] and return what the model shall go on with."""
        out.points[name] = value[0].detach().float()
        taken(name)
        if given is None or name not in given.points or (only is not None and name not in only):
            return value
        device = given.points[name].to(value.dtype)
        if device.shape != value.shape[1:]:
            return value
        usable = device.isfinite().all(dim=-1)  # a NaN would reach every position of HF's attention: 0 * NaN
        if name in given.known:
            usable &= given.known[name]
        return torch.where(usable[:, None], device, value[0])[None]

    def through_cache(value):
        return value if cache_format is None else cache_format(value)

    with hooks() as hook:
        modules = dict(hf_model.named_modules())
        layers = modules.get("model.layers", [])
        for name in without:
            branch = name.endswith(("self_attn", "mlp"))
            hook(modules[name], lambda x, o, zero=branch: _replace(o, first_of(o) * 0 if zero else x))
        outputs = ["model.embed_tokens", "model.norm"]
        outputs += [f"model.layers.{i}.{part}" for i in range(len(layers)) for part in MODULES]
        for name in (n for n in outputs if n in modules):  # another architecture has other names
            hook(modules[name], lambda _, o, name=name: _replace(o, take(name, first_of(o))))
        for i, layer in enumerate(layers):
            prefix = f"model.layers.{i}."
            hook(layer, lambda _, o, name=prefix + "mlp.residual": _replace(o, take(name, first_of(o))))
            if (after := after_attention(layer)) is not None:
                hook(after, lambda x, name=prefix + "self_attn.residual": take(name, x), before=True)
            of_values = (modules.get(f"{prefix}self_attn.{name}") for name in ("v_norm", "v_proj"))
            if values := next(filter(None, of_values), None):
                hook(values, lambda _, o, name=prefix + "self_attn.v_cache": take(
                    name, through_cache(o).flatten(2)).view_as(o))  # fmt: skip

        def rotated(which, x, before, layer, cos, sin):
            """x, q or k of a layer, is what HF has turned."""
            prefix = f"model.layers.{layer}.self_attn."
            out.extras.setdefault(layer, {"layer": layer, "cos": cos, "sin": sin})[which] = before
            x = _heads(take(f"{prefix}{which}_rope", _flat(x)), x)
            return x if which == "q" or layer in normed else _heads(cached(prefix, x), x)

        def shared(name, kept):
            for part, value in zip(("k_cache", "v_cache"), kept, strict=True):
                out.points[f"{name}.{part}"] = _flat(value)[0].detach().float()

        def cached(prefix, k):
            return take(prefix + "k_cache", _flat(through_cache(k)))

        for i, layer in enumerate(layers):
            attention = getattr(layer, "self_attn", None)
            if getattr(attention, "is_kv_shared_layer", False):
                hook(attention, lambda kept, a=attention, name=f"model.layers.{i}.self_attn": shared(
                    name, kept[a.layer_type]), given="shared_kv_states")  # fmt: skip
        attentions = {i: layer.self_attn for i, layer in enumerate(layers) if hasattr(layer, "self_attn")}
        normed = {i: norm for i, a in attentions.items() if (norm := norm_after_rotation(a)) is not None}
        for i, norm in normed.items():
            hook(norm, lambda _, k, prefix=f"model.layers.{i}.self_attn.": _heads(cached(prefix, k), k))
        with _rope_watched(attentions, rotated):
            yield


def after_attention(layer):
    """The module of a layer that takes the stream after attention; None where the MLP stands beside attention."""
    parts = dict(layer.named_children())
    for name in BEFORE_FFN:
        if name in parts:
            return parts[name]
    before = any(name in parts for name in BEFORE_MIXER)
    return parts.get("post_attention_layernorm" if before else "mlp")


@contextmanager
def hooks():
    """hook(module, function): function(input, output) may replace a module's output, function(input) its input; with
    `given` function sees what the module is given by that name."""
    handles = []

    def hook(module, function, before=False, given=None):
        if given:
            see = lambda _, args, kwargs: function(kwargs[given])  # noqa: E731
            handles.append(module.register_forward_pre_hook(see, with_kwargs=True))
        elif before:
            handles.append(module.register_forward_pre_hook(lambda _, args: (function(args[0]), *args[1:])))
        else:
            handles.append(
                module.register_forward_hook(lambda _, args, output: function(args[0] if args else None, output))
            )

    try:
        yield hook
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _rope_watched(attentions, rotated):
    """Inside, `rotated(which, x, before, layer, cos, sin)` sees and may replace what HF's rotation makes of q and k in
    each layer with attention, by its number."""
    modeling = sys.modules[type(next(iter(attentions.values()))).__module__] if attentions else None
    originals = {name: of for name in ROTATIONS if (of := getattr(modeling, name, None)) is not None}
    if not originals:
        yield
        return
    current = []
    handles = [a.register_forward_pre_hook(lambda *_, i=i: current.append(i)) for i, a in attentions.items()]

    def both(name):
        def turn(q, k, cos, sin, *args, **kwargs):
            given = (q, k) if name == ROTATIONS[0] else map(_in_halves, (q, k))
            turned = originals[name](q, k, cos, sin, *args, **kwargs)
            parts = zip("qk", turned, given, strict=True)
            return tuple(rotated(which, x, before, current[-1], cos, sin) for which, x, before in parts)

        return turn

    def one(name):
        times = {}  # that each layer has turned something: q, then k

        def turn(x, cos, sin, unsqueeze_dim=1):
            """Heads are after positions where `unsqueeze_dim` says so."""
            layer = current[-1]
            across = (lambda t: t) if unsqueeze_dim == 1 else lambda t: t.transpose(1, 2)
            which = "qk"[times.get(layer, 0) % 2] if hasattr(attentions[layer], "k_proj") else "q"
            times[layer] = times.get(layer, 0) + 1
            done = originals[name](x, cos, sin, unsqueeze_dim=unsqueeze_dim)
            return across(rotated(which, across(done), across(x), layer, cos, sin))

        return turn

    for name, original in originals.items():
        setattr(modeling, name, (both if hf_layers.turns_both(original) else one)(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(modeling, name, original)
        for handle in handles:
            handle.remove()


def _in_halves(x):
    """Neighbours that turn together, half a head apart: as HF's interleaved rotation gives them."""
    return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def _replace(output, value):
    return (value, *output[1:]) if isinstance(output, tuple) else value


def _flat(x):
    """[1, heads, positions, head_dim] -> [1, positions, heads * head_dim]"""
    return x.transpose(1, 2).flatten(2)


def _heads(flat, like):
    """The reverse of `_flat`, with the heads of `like`."""
    return flat.unflatten(2, (like.shape[1], like.shape[3])).transpose(1, 2)
