"""What of a model that cannot be tried no block has, by the names and sizes of HF's modules alone."""

from bringup.checkpoints import random_weights

#: What the blocks have, by HF's name: of the decoder, of a layer, of attention. Norms of a layer may have any name.
DECODER = {"embed_tokens", "layers", "rotary_emb", "pos_emb", "norm", "final_layernorm", "embedding_norm"}
LAYER = {"self_attn", "mlp", "linear_attn", "conv", "feed_forward"}
ATTENTION = {
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "qkv_proj",
    "dense",
    "q_norm",
    "k_norm",
    "q_layernorm",
    "k_layernorm",
    "gate_proj",
    "g_proj",
}


def decoder_of(config):
    """HF's decoder without weights; None where HF does not build one of layers."""
    try:
        decoder = random_weights.hollow(config).model
        return decoder if len(decoder.layers) else None
    except Exception:  # whatever HF's code makes of a configuration that it has not been tried with
        return None


def read(decoder, traits):
    """Adds a gap for each part that no block has, and for each that is not the same in all layers."""
    import torch

    traits.architecture = type(decoder).__name__
    for name, module in decoder.named_children():
        if name not in DECODER and not isinstance(module, torch.nn.Dropout):
            traits.lacks(
                f"model.{name}", f"{type(decoder).__name__}.{name}", "a block for it, and its place in the model"
            )
    layers = list(decoder.layers)
    where, unknown, sizes = type(layers[0]).__name__, {}, {}
    for i, layer in enumerate(layers):
        own = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
        names = [n for n, _ in layer.named_children() if n not in LAYER and "norm" not in n and n != "act_fn"]
        attention = getattr(layer, "self_attn", None)
        inside = [] if attention is None else [n for n, _ in attention.named_children() if n not in ATTENTION]
        for name in [*own, *names, *(f"self_attn.{n}" for n in inside)]:
            unknown.setdefault(name, []).append(i)
        for name in sorted(LAYER):
            part = getattr(layer, name, None)
            weights = () if part is None else part.named_parameters()
            shapes = {n.removesuffix(".weight"): tuple(p.shape) for n, p in weights if p.dim() > 1}
            sizes.setdefault(name, {}).setdefault(tuple(sorted(shapes.items())), []).append(i)
    for name, found in unknown.items():
        traits.lacks(f"{name} in {_numbers(found)}", where, "a block that computes with it")
    for name, kinds in sizes.items():
        if len(kinds) > 1:
            _unlike(name, kinds, where, traits)


def _unlike(name, kinds, where, traits):
    """A gap for all weights that the same layers lack, or have in another size."""
    weights = sorted({weight for shapes in kinds for weight, _ in shapes})
    gaps = {}  # which layers are alike -> what each of these kinds has
    for weight in weights:
        sizes = {}
        for shapes, found in kinds.items():
            sizes.setdefault(dict(shapes).get(weight), []).extend(found)
        if len(sizes) > 1:
            alike = {tuple(sorted(found)): size for size, found in sizes.items()}
            has = gaps.setdefault(tuple(sorted(alike)), {})
            for found, size in alike.items():
                has.setdefault(found, []).extend([] if size is None else [f"{weight} {list(size)}"])
    for has in gaps.values():
        told = "; ".join(f"{', '.join(each)} in {_numbers(found)}" for found, each in sorted(has.items()) if each)
        traits.lacks(f"{name} has {told}", where, "a size, or a source of it, for each kind of layer")


def _numbers(found):
    """[0, 1, 2, 5] -> "layers 0-2, 5"."""
    spans = []
    for i in found:
        if spans and i == spans[-1][1] + 1:
            spans[-1][1] = i
        else:
            spans.append([i, i])
    return "layers " + ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in spans)
