"""What every named point of a decoder computes, on the HF side and on the device's, without touching either's files.

A point's name is HF's module name, and its value the module's output for one sequence, [positions, width] in float32.
Points that are no module's output:

    self_attn.q_rope, self_attn.k_rope     queries and keys after RoPE, heads side by side
    self_attn.k_cache, self_attn.v_cache   what attention reads: the device's cache after the run
    self_attn.residual                     the residual stream after attention: what goes into post_attention_layernorm
    mlp.residual                           the residual stream after the MLP: the layer's output

The device goes through the sequence as in use: the first tokens as a prompt, the rest one by one.
"""

import inspect
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field

ORDER = (
    "input_layernorm",
    "self_attn.q_rope",
    "self_attn.k_rope",
    "self_attn.k_cache",
    "self_attn.v_cache",
    "self_attn",
    "self_attn.residual",
    "post_attention_layernorm",
    "mlp",
    "mlp.residual",
)
MODULES = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass
class Activations:
    """Values by point. `known` marks the positions that were seen, where not all were; `spread` is how far the chips
    are apart where each should hold the same (relative L2); `extras` is what the HF side had in hand in each layer."""

    ids: list
    decode_from: int
    depth: str = "submodules"
    points: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)
    spread: dict = field(default_factory=dict)
    extras: dict = field(default_factory=dict)

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


def record_reference(hf_model, ids, decode_from, given=None, cache_format=None):
    """The HF model's activations for one sequence, in the dtype that its parameters have.

    With `given`, a device's activations, every module gets the device's own input: each output is recorded and then
    replaced by the device's. What differs then is the module's own doing and nothing inherited.
    `cache_format(x)` rounds keys and values as the device's cache does.
    """
    import torch

    out = Activations(list(ids), decode_from)

    def take(name, value):
        """Record value [1, positions, width] and return what the model shall go on with."""
        out.points[name] = value[0].detach().float()
        if given is None or name not in given.points:
            return value
        device = given.points[name].to(value.dtype)
        if device.shape != value.shape[1:]:
            return value
        known = given.known.get(name)
        return (device if known is None else torch.where(known[:, None], device, value[0]))[None]

    def through_cache(value):
        return value if cache_format is None else cache_format(value)

    with _hooks() as hook, torch.no_grad():
        modules = dict(hf_model.named_modules())
        for name in ("model.embed_tokens", "model.norm"):
            hook(modules[name], lambda _, output, name=name: take(name, output))
        for i, layer in enumerate(modules["model.layers"]):
            prefix = f"model.layers.{i}."
            for part in MODULES:
                hook(modules[prefix + part], lambda _, o, name=prefix + part: _replace(o, take(name, _first(o))))
            hook(layer, lambda _, o, name=prefix + "mlp.residual": _replace(o, take(name, _first(o))))
            name = prefix + "self_attn.residual"
            hook(layer.post_attention_layernorm, lambda x, name=name: take(name, x), before=True)
            if hasattr(layer.self_attn, "v_proj"):
                name = prefix + "self_attn.v_cache"
                hook(layer.self_attn.v_proj, lambda _, o, name=name: take(name, through_cache(o)))

        def rotated(q, k, extras):
            prefix = f"model.layers.{extras['layer']}.self_attn."
            out.extras[extras["layer"]] = extras
            q, k = (_heads(take(prefix + n, _flat(x)), x) for n, x in (("q_rope", q), ("k_rope", k)))
            return q, _heads(take(prefix + "k_cache", _flat(through_cache(k))), k)

        with _rope_watched(modules["model.layers"], hook, rotated):
            logits = hf_model(torch.tensor([list(ids)]), use_cache=False).logits
    out.points["lm_head"] = logits[0].float()
    return out


@contextmanager
def _hooks():
    """hook(module, function): function(input, output) may replace a module's output, function(input) its input."""
    handles = []

    def hook(module, function, before=False):
        if before:
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
def _rope_watched(layers, hook, rotated):
    """Inside, `rotated(q, k, extras)` sees and may replace what HF's apply_rotary_pos_emb returns in each layer."""
    attention = layers[0].self_attn
    modeling = sys.modules[type(attention).__module__]
    if not hasattr(modeling, "apply_rotary_pos_emb"):
        yield
        return
    original, current = modeling.apply_rotary_pos_emb, []
    handles = [
        layer.self_attn.register_forward_pre_hook(lambda *_, i=i: current.append(i)) for i, layer in enumerate(layers)
    ]

    def watched(q, k, cos, sin, *args, **kwargs):
        extras = {"layer": current[-1], "q": q, "k": k, "cos": cos, "sin": sin}
        return rotated(*original(q, k, cos, sin, *args, **kwargs), extras)

    modeling.apply_rotary_pos_emb = watched
    try:
        yield
    finally:
        modeling.apply_rotary_pos_emb = original
        for handle in handles:
            handle.remove()


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _replace(output, value):
    return (value, *output[1:]) if isinstance(output, tuple) else value


def _flat(x):
    """[1, heads, positions, head_dim] -> [1, positions, heads * head_dim]"""
    return x.transpose(1, 2).flatten(2)


def _heads(flat, like):
    """The reverse of `_flat`, with the heads of `like`."""
    return flat.unflatten(2, (like.shape[1], like.shape[3])).transpose(1, 2)


# -- the device -------------------------------------------------------------------------------------------------------


def record_device(model, ids, decode_from):
    """The device's activations for one sequence: `decode_from` tokens as a prompt, then one by one.

    By hooks on submodules that carry HF's names; else what `output_hidden_states=True` returns; else logits only.
    """
    import torch

    modules = dict(model.named_modules())
    named = [n for n in modules if n in ("model.embed_tokens", "model.norm") or _is_point(n)]
    names = inspect.signature(model.forward).parameters
    states = not any(_is_point(n) for n in named) and "output_hidden_states" in names
    out = Activations(list(ids), decode_from, "submodules" if any(map(_is_point, named)) else "logits")
    recorder = _Recorder(out, model)

    with _hooks() as hook, torch.no_grad():
        if out.depth == "submodules":
            for name in named:
                hook(modules[name], lambda _, o, name=name: recorder.module(name, _first(o)))
            for name, module in modules.items():
                if name.endswith(".post_attention_layernorm"):
                    mid = name.replace("post_attention_layernorm", "self_attn.residual")
                    hook(module, lambda x, mid=mid: recorder.hidden(mid, x) or x, before=True)
                if re.fullmatch(r"model\.layers\.\d+", name):
                    hook(module, lambda _, o, name=name: recorder.hidden(name + ".mlp.residual", _first(o)))
        past = None
        for start, stop in [(0, decode_from)] + [(i, i + 1) for i in range(decode_from, len(ids))]:
            recorder.start, recorder.stop = start, stop
            result = _call(model, names, ids, start, stop, past, states)
            past = result.past_key_values
            recorder.put("lm_head", _rows(result.logits, stop - start))
            if states and result.hidden_states is not None:
                out.depth = "hidden_states"
                recorder.hidden_states(result.hidden_states)
    if out.depth == "submodules":
        for name in named:
            if name.endswith(".self_attn"):
                recorder.stop = len(ids)
                for kind, rows in recorder.cached(name, len(ids)).items():
                    recorder.put(f"{name}.{kind}", rows)
    return out


def _is_point(name):
    inside = LAYER.fullmatch(name)
    return bool(inside) and inside[2] in ORDER


def _call(model, names, ids, start, stop, past, states):
    """One forward as generate() would make it, asking for the logits of all positions where that can be asked."""
    import torch

    positions = torch.arange(start, stop)
    given = {
        "attention_mask": torch.ones(1, stop, dtype=torch.int64),
        "position_ids": positions[None],
        "cache_position": positions,
        "logits_to_keep": 0,
        "return_dict": True,
        "use_cache": True,
    }
    given = {name: value for name, value in given.items() if name in names}
    if states:
        given["output_hidden_states"] = True
    return model(input_ids=torch.tensor([list(ids[start:stop])]), past_key_values=past, **given)


def device_cache(model, layer):
    """{"k_cache", "v_cache"} of the first user in one layer: the whole row that it has on the device now."""
    return _Recorder(Activations([], 0), model).cached(f"model.layers.{layer}.self_attn")


class _Recorder:
    """Reads ttnn tensors back, at the positions of the pass that runs now."""

    def __init__(self, out, model):
        self.out, self.start, self.stop = out, 0, 0
        mesh = getattr(model, "mesh", None)
        self.one_chip = getattr(mesh, "data_ways", 1) > 1  # user 0 lives on the first chip
        self.hidden_size = getattr(getattr(model, "config", None), "hidden_size", None)
        self.model, self.modules = model, dict(model.named_modules())

    def chips(self, x):
        """The value on each chip that has a part in this user's work."""
        import torch
        import ttnn

        if isinstance(x, torch.Tensor):
            return [x]
        chips = ttnn.get_device_tensors(x)
        return [ttnn.to_torch(chip) for chip in (chips[:1] if self.one_chip else chips)]

    def put(self, name, rows):
        """rows [n, width]: the last n positions of this pass; fewer than all where the model gives fewer."""
        import torch

        if name not in self.out.points:
            self.out.points[name] = torch.zeros(len(self.out.ids), rows.shape[-1])
            self.out.known[name] = torch.zeros(len(self.out.ids), dtype=torch.bool)
        at = slice(self.stop - len(rows), self.stop)
        self.out.points[name][at], self.out.known[name][at] = rows.float(), True

    def module(self, name, output):
        if name.endswith("_rope"):
            self.heads(name, output)
        else:
            self.hidden(name, output)

    def hidden(self, name, x):
        """x [1, 1, rows, hidden], the same on every chip or cut along `hidden`; in decode row 0 is the user."""
        import torch

        chips = [_rows(chip, self.stop - self.start) for chip in self.chips(x)]
        if len(chips) > 1 and chips[0].shape[-1] * len(chips) == self.hidden_size:
            chips = [torch.cat(chips, dim=-1)]
        norm = chips[0].float().norm()
        apart = [float((chip.float() - chips[0].float()).norm() / norm) for chip in chips[1:]]
        self.out.spread[name] = max([self.out.spread.get(name, 0.0), *apart])
        if len(chips[0]) == self.stop - self.start:
            self.put(name, chips[0])

    def heads(self, name, x):
        """Per chip [1, heads, rows, head_dim], or in decode [1, users, heads, head_dim], in the order of the heads."""
        n, chips = self.stop - self.start, [chip.float() for chip in self.chips(x)]
        chips = [chip[0, :1] if self.start else chip[0, :, :n].transpose(0, 1) for chip in chips]
        if len(chips[0]) == n:
            self.put(name, self.collect(name.rpartition(".")[0], name.endswith("q_rope"), chips))

    def collect(self, attention, query, chips):
        """Per chip [n, heads, head_dim] -> [n, all heads * head_dim] in HF's order."""
        import torch

        heads = getattr(self.modules[attention], "heads", None)
        if heads is None:
            return torch.cat(chips, dim=1).flatten(1)
        shares = heads.query if query else heads.kv
        where = {}
        for chip, share in enumerate(shares[: len(chips)]):
            for slot, head in enumerate(share):
                where.setdefault(head, (chip, slot))
        where.pop(None, None)
        return torch.stack([chips[c][:, s] for _, (c, s) in sorted(where.items())], dim=1).flatten(1)

    def cached(self, name, n=None):
        """The first user's keys and values, [n, all heads * head_dim] each, as the device holds them now: in its row,
        or in its blocks. The first n positions; with None all of a row. Nothing where there is no such cache."""
        import torch
        import ttnn

        held = getattr(self.modules[name], "cache", self.modules[name])
        table = getattr(getattr(self.model, "cache", None), "table", None)
        found = {}
        for kind, tensor in (("k_cache", getattr(held, "keys", None)), ("v_cache", getattr(held, "values", None))):
            if not isinstance(tensor, ttnn.Tensor):
                continue
            _, heads, length, head_dim = tensor.shape
            end = length if n is None else n
            blocks = [0] if table is None else table[0, : -(-end // length)].tolist()
            parts = []
            for block in blocks:
                part = ttnn.slice(tensor, (block, 0, 0, 0), (block + 1, heads, min(length, end + -end % 32), head_dim))
                parts.append([chip[0].transpose(0, 1).float() for chip in self.chips(part)])
            chips = [torch.cat(of_chip)[:end] for of_chip in zip(*parts, strict=True)]
            found[kind] = self.collect(name, False, chips)
        return found

    def hidden_states(self, states):
        """HF's convention: the embeddings, the output of each layer, and for the last one that of the final norm."""
        names = ["model.embed_tokens"] + [f"model.layers.{i}.mlp.residual" for i in range(len(states) - 2)]
        for name, x in zip([*names, "model.norm"], states, strict=True):
            self.hidden(name, x)


def _rows(x, n):
    """[..., rows, width] -> the first n rows [n, width], or as many as there are."""
    return x.reshape(-1, x.shape[-1])[:n]
