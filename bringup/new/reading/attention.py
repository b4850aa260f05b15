"""What HF's attention computes: what it hands to its kernel against what the blocks would, of the same input."""

import dataclasses

from bringup.checkpoints import by_layer
from bringup.new.reading import norms, numbers
from bringup.new.traits import Part

HEAD_NORMS = {"RMSNorm": "HeadNorm", "UnitOffsetRMSNorm": "UnitOffsetHeadNorm", "LayerNorm": "HeadLayerNorm"}
#: Where q and k are normed -> the block that does it there.
BLOCKS = {"before": "Attention", "after": "NormAfterRotation", "over heads": "NormOverHeads"}


def read_part(hf_attention, path, seen, traits):
    """The `Part` of one layer's attention; None, with gaps in `traits`, where no block computes it."""
    import torch

    from bringup.blocks.attention import NORMS, is_gated, output_gate, projections
    from bringup.blocks.hf import named

    name, where = path.rpartition(".")[2], type(hf_attention).__name__
    config, given = seen.config, seen.kernel[path]
    before = len(traits.gaps)
    x = seen.into(path)
    try:
        q, k, v, o = projections(hf_attention, _Sizes(config, given))
    except AttributeError as error:
        traits.lacks(f"{name}: {error}", where, "names of its projections that `blocks.attention` knows")
        return None
    heads = lambda p: torch.nn.functional.linear(x, p.weight, p.bias).unflatten(-1, (-1, given["q"].shape[-1]))  # noqa: E731
    shared = k is None
    with torch.no_grad():
        q, k, v = (None if p is None else heads(p) for p in (q, k, v))  # [1, S, heads, head_dim]
        *norm, v_norm = (named(hf_attention, NORMS[n]) for n in NORMS)
        if shared and not _are_shared(path, seen):
            traits.lacks(f"{name}: keys and values are none that a layer before of its type has", where, "their source")
        elif not shared and not _same((v if v_norm is None else v_norm(v)).transpose(1, 2), given["v"]):
            traits.lacks(f"{name}: values are not v_proj(x)", where, "what HF's forward does to them")
        tables = _tables(seen.calls[path])
        turned = _turned(q, k, given, norm, tables)
        kernel_out = given["out"].flatten(2)
        sub_norm = getattr(hf_attention, "attn_sub_norm", None)
        attended = kernel_out if sub_norm is None else sub_norm(kernel_out)
        sizes = _Sizes(config, given)
        if gated := is_gated(hf_attention, sizes):
            gate = output_gate(hf_attention, sizes)
            attended = attended * torch.sigmoid(torch.nn.functional.linear(x, gate.weight, gate.bias))
        if not _same(torch.nn.functional.linear(attended, o.weight, o.bias), seen.out_of(path)):
            traits.lacks(
                f"{name}: what the heads give goes through more than o_proj", where, "that, as HF's forward has it"
            )
    if turned is None:
        what = "queries and keys are not the projections of x, normed and turned in a way that is known"
        traits.lacks(f"{name}: {what}", where, "what HF's forward does to them; a rotation in `blocks.rope`")
        return None
    if len(traits.gaps) > before:
        return None
    placed, rotation = turned
    words = traits.words.get("attention")
    found = _part(hf_attention, name, where, config, given, norm, placed, rotation, sub_norm, gated, traits)
    if found is None or not shared:
        return found
    traits.words["attention"] = words
    return _as_shared(found, name, where, traits)


def _are_shared(path, seen):
    """Are a layer's keys and values those of the last layer before of the same type that has its own?"""
    types, mine = seen.config.layer_types, seen.kernel[path]
    prefix, layer, name = path.rsplit(".", 2)
    for i in range(int(layer) - 1, -1, -1):
        other = f"{prefix}.{i}.{name}"
        if types[i] == types[int(layer)] and other in seen.kernel and hasattr(seen.module(other), "k_proj"):
            return all(_same(seen.kernel[other][n], mine[n]) for n in "kv")
    return False


def _as_shared(part, name, where, traits):
    if part.block != "Attention":
        traits.lacks(f"{name}: keys of a layer before and {part.block}", where, "a block with both")
        return None
    traits.words["shared"] = "the last layers read the keys of one before"
    traits.sources["shared keys"] = f"{where}, run on random values: {traits.words['shared']}"
    return dataclasses.replace(part, block="SharedAttention")


def _part(hf_attention, name, where, config, given, norm, placed, rotation, sub_norm, gated, traits):
    keywords, needs, said = {}, [], []
    block = BLOCKS[placed] if placed else "Attention"
    if placed:
        found = norms.kind(norm[0], config)
        if found is None or (placed == "over heads" and found[0] != "RMSNorm") or found[0] not in HEAD_NORMS:
            traits.lacks(f"{name}: norms of q and k", type(norm[0]).__name__, "a norm of heads that computes it")
            return None
        if found[0] != "RMSNorm":
            keywords["norm"] = HEAD_NORMS[found[0]]
            needs.append(HEAD_NORMS[found[0]])
        also_v = named_v_norm(hf_attention) is not None
        said.append("q and k normed over all heads" if placed == "over heads" else
            f"each head of q{', k and v' if also_v else ' and k'} normed" + (
            " after the rotation" if placed == "after" else ""))  # fmt: skip
    if sub_norm is not None:
        if block != "Attention":
            traits.lacks(f"{name}: attn_sub_norm and norms of q and k", where, "a block with both")
            return None
        block = "SubNormAttention"
        said.append("normed before o_proj")
    if gated:
        if block != "Attention":
            traits.lacks(f"{name}: a gate of what the heads give and {block}", where, "a block with both")
            return None
        block = "GatedAttention"
        said.append("gated before o_proj")
    window = _window(given, config, name, where, traits)
    if window is not None:
        keywords["window"] = window
    head_dim = given["q"].shape[-1]
    if abs(given["scale"] * head_dim**0.5 - 1) > 1e-4:
        keywords["scale"] = numbers.source(config, given["scale"], ("attention_multiplier", "query_pre_attn_scalar"))
        said.append(f"scores times {keywords['scale'].replace('config.', '')}")
    if given["cap"] is not None:
        block = _capped(block, name, where, keywords, traits)
        keywords["cap"] = numbers.source(config, given["cap"], ("attn_logit_softcapping",))
        said.append("scores capped")
    if given["sinks"] is not None:
        said.append("a sink for each head")
    if rotation is None:
        keywords["rope"] = "NoRope"
    traits.words["attention"] = ", ".join(said)
    if hasattr(hf_attention, "k_proj") or "attention" not in traits.sources:
        said = ", ".join(said) or "nothing beside q, k, v, o"
        traits.sources["attention"] = f"{where}, run on random values: {said}"
    if rotation is not None and rotation != type(rotation)():
        given = [f"part={rotation.part:g}"] * (rotation.part != 1.0) + ["interleaved=True"] * rotation.interleaved
        traits.rotation = f"Rotation({', '.join(given)})"
    sizes = "config.per_layer_config[i]" if by_layer.sizes(config) else "config"
    if sizes != "config" and traits.rotation:
        traits.lacks(f"{name}: {traits.rotation} and sizes by layer", where, "a rotation of each layer's configuration")
        return None
    arguments = (f"hf_layer.{name}", sizes, "cache", "mesh", "precision")
    return Part(block, arguments, tuple(keywords.items()), tuple(needs))


def _capped(block, name, where, keywords, traits):
    if block != "Attention":
        traits.lacks(f"{name}: a soft cap of scores and {block}", where, "a block with both")
    return "SoftCappedAttention"


def named_v_norm(hf_attention):
    from bringup.blocks.attention import NORMS
    from bringup.blocks.hf import named

    return named(hf_attention, NORMS["v_norm"])


class _Sizes:
    """What `projections` reads of a configuration."""

    def __init__(self, config, given):
        self.head_dim = given["q"].shape[-1]
        self.num_attention_heads, self.num_key_value_heads = given["q"].shape[1], given["k"].shape[1]


def _same(got, want):
    import torch

    return got.shape == want.shape and torch.allclose(got, want, rtol=1e-3, atol=float(1e-4 * want.abs().max()))


def _tables(call):
    """HF's cos and sin [S, turned] of the layer, from its arguments; None where it has none."""
    import torch

    args, kwargs, _ = call
    for value in (kwargs.get("position_embeddings"), *args):
        if isinstance(value, tuple) and len(value) == 2 and all(isinstance(t, torch.Tensor) for t in value):
            return [t[0] for t in value]
    return None


def _turned(q, k, given, norm, tables):
    """(where q and k are normed or None, their `Rotation` or None) that gives HF's q and k; None where none does.

    q, k [1, S, heads, head_dim]; k None where HF has none here.
    """
    from bringup.blocks.rope import Rotation

    head_dim = q.shape[-1]
    rotations = [None]
    if tables is not None:
        share = tables[0].shape[-1] / head_dim  # of the head, or of its pairs
        parts = [part for part in (share, 2 * share) if part <= 1]
        rotations += [Rotation(part, interleaved) for part in parts for interleaved in (False, True)]
    ways, wants = [(q, norm[0]), (k, norm[1])], [given["q"], given["k"]]
    if k is None:
        ways, wants = ways[:1], wants[:1]
    places = [None] if norm[0] is None else ["before", "after", "over heads"]
    for rotation in rotations:
        for place in places:
            found = []
            for x, hf_norm in ways:
                try:
                    x = hf_norm(x.flatten(2)).view(x.shape) if place == "over heads" else x
                    x = x.transpose(1, 2)  # as HF has heads where it turns them
                    x = hf_norm(x) if place == "before" else x
                    x = x if rotation is None else turn(x, rotation, *tables)
                    found.append(hf_norm(x) if place == "after" else x)
                except RuntimeError:  # of another width
                    break
            if len(found) == len(ways) and all(map(_same, found, wants)):
                return place, rotation
    return None


def turn(x, rotation, cos, sin):
    """The blocks' rotation of x [1, heads, S, head_dim] in torch, in HF's order again."""
    import torch

    from bringup.blocks.rope import of_hf
    from bringup.blocks.weights import columns

    order = rotation.order(x.shape[-1])
    cos, sin = rotation.spread(cos, x.shape[-1], 1.0), rotation.spread(sin, x.shape[-1], 0.0)
    x = columns(x, order, x.dim() - 1)
    left, right = x.chunk(2, -1)
    return of_hf(x * cos + torch.cat((-right, left), -1) * sin, order)


def _window(given, config, name, where, traits):
    """Source of the window that the mask has; None where all that came before is seen."""
    import torch

    mask, length = given["mask"], given["q"].shape[2]
    sees = torch.ones(length, length).tril().bool() if mask is None else mask[0, 0, :, :length] > -1
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    size = int(sees[-1].sum())
    if not torch.equal(sees, (j <= i) & (i - j < size)):
        traits.lacks(f"{name}: a mask that is neither causal nor a window of one size", where, "that mask")
        return None
    if size == length:
        return None
    fields = [n for n in config.to_dict() if "window" in n and getattr(config, n, None) == size]
    if not fields:
        traits.lacks(f"{name}: a window of {size} that no field names", where, "the field that it follows from")
        return None
    return f"config.{fields[0]}"


def by_type(traits):
    """Each layer's attention turns by the tables of its type."""
    for name, parts in traits.parts.items():
        traits.parts[name] = [
            dataclasses.replace(p, keywords=(*p.keywords, ("layer_type", "config.layer_types[i]")))
            if p is not None and p.block.endswith("Attention") and ("rope", "NoRope") not in p.keywords
            else p
            for p in parts
        ]
