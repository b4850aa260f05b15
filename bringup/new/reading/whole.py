"""A configuration's `Traits`, each with where it came from; what no block covers is a gap in them."""

from bringup.new import small
from bringup.new.reading import (
    attention,
    ends,
    inventory,
    latent,
    layers,
    mixtures,
    mlp,
    norms,
    numbers,
    per_layer,
    states,
)
from bringup.new.reading.run import run
from bringup.new.traits import Call, Part, Traits

CHILDREN = {"embed_tokens", "layers"}  # of HF's decoder, and a norm and rotations
NORMS = ("norm", "final_layernorm", "embedding_norm")
#: HF's names of what mixes tokens, of which a layer has one -> the first: they stand in the same place.
MIXERS = dict.fromkeys(("linear_attn", "conv"), "self_attn")


def read(config):
    """`config` is HF's, of a text model."""
    import torch

    from bringup.blocks.rope import ROTARIES

    traits = Traits()
    fields = numbers.told_apart(small.fields(config, small.layers(config)))
    try:
        small.check_size(fields)
        model = small.hf_model(fields)
    except Exception as error:  # HF's classes raise whatever odd sizes make them do
        told = f"a configuration that HF's model takes; it raised {type(error).__name__}: {error}"
        traits.lacks("no small model to try", type(config).__name__, told)
        return traits
    traits.architecture = type(model).__name__
    decoder, parts = getattr(model, "model", None), set()
    if decoder is not None:
        parts = {n for n, m in decoder.named_children() if not isinstance(m, torch.nn.Dropout)}
    if not (parts >= CHILDREN and parts & {*ROTARIES} and hasattr(model, "lm_head")):
        needed = "a model file of its own: HF's parts are not model.{embed_tokens,layers,rotary_emb,norm} and lm_head"
        traits.lacks(f"model_type = {config.model_type!r}", traits.architecture, needed)
        if (hollow := inventory.decoder_of(config)) is not None:
            inventory.read(hollow, traits)
        return traits
    traits.norm_name = next((n for n in NORMS if hasattr(decoder, n)), "norm")
    for name in sorted(parts - CHILDREN - {*ROTARIES, traits.norm_name} - per_layer.of_decoder(decoder)):
        traits.lacks(f"model.{name}", f"{type(decoder).__name__}.{name}", "a block for it, and its place in the model")
    seen = run(model)
    traits.config = seen.config
    ends.tokens(seen, traits)
    ends.stream(seen, traits)
    per_layer.read(seen, traits)
    _layers(seen, traits)
    norm = getattr(decoder, traits.norm_name, None)
    found = None if norm is None else norms.kind(norm, seen.config)
    if found is None:
        traits.lacks("the last norm is none of those that the blocks have", type(norm).__name__, "a norm block")
    else:
        traits.norm = Part(
            found[0], (f"hf_decoder.{traits.norm_name}", _eps(seen, found[1], traits), "mesh", "precision")
        )
    _rotations(seen, traits)
    return traits


def _layers(seen, traits):
    """Parts and wiring of every layer, which must be wired alike."""
    for i, layer in enumerate(seen.model.model.layers):
        path, where = f"model.layers.{i}", type(layer).__name__
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        if (name := next((n for n, _ in own if n != layers.SCALAR), None)) is not None:
            traits.lacks(f"{path}.{name}", where, "a block that computes with it")
        try:
            calls, result = layers.wiring(layer, seen, path)
        except ValueError as error:
            traits.lacks(error, f"{where}.forward", "a DecoderLayer of its own")
            continue
        names = {MIXERS.get(name, name): name for name, _ in calls}
        placed = lambda terms: tuple((MIXERS.get(name, name), factor) for name, factor in terms.items())  # noqa: E731
        calls, result = (
            tuple(Call(MIXERS.get(name, name), placed(terms)) for name, terms in calls),
            dict(placed(result)),
        )
        if i and (calls, tuple(result.items())) != (traits.calls, traits.result):
            traits.lacks("layers are not wired alike", where, "a DecoderLayer for each kind")
            continue
        traits.calls, traits.result = calls, tuple(result.items())
        for call in calls:
            part = _part(getattr(layer, names[call.name]), f"{path}.{names[call.name]}", seen, traits)
            traits.parts.setdefault(call.name, []).append(part)
    for terms in (*(c.terms for c in traits.calls), traits.result):
        for _, factor in terms:
            if factor != 1:
                traits.numbers[factor] = numbers.source(seen.config, factor)
    if traits.numbers:
        traits.sources["residual"] = f"in the layer's sums: {', '.join(traits.numbers.values())}"


def _part(module, path, seen, traits):
    """The block of one part: the first of PARTS that takes the module."""
    for takes, reads in PARTS:
        if takes(module, path, seen):
            return reads(module, path, seen, traits)
    raise AssertionError(path)  # the last takes all


def _mixture(module, path, seen, traits):
    return mixtures.read(module, path.rpartition(".")[2], seen.into(path), seen.out_of(path), seen.config, traits)


def _norm(module, path, seen, traits):
    block, eps = norms.kind(module, seen.config)
    traits.sources[f"norm {path.rpartition('.')[2]}"] = f"{type(module).__name__}, run on random values: {block}"
    traits.words["norm"] = block
    return Part(block, (f"hf_layer.{path.rpartition('.')[2]}", _eps(seen, eps, traits), "mesh", "precision"))


def _eps(seen, eps, traits):
    """Norms share one epsilon in the model file, `eps`; another is written out."""
    source = norms.eps_source(seen.config, eps)
    traits.eps = traits.eps or source
    return source


def _mlp(module, path, seen, traits):
    return mlp.read(module, path.rpartition(".")[2], seen.into(path), seen.out_of(path), seen.config, traits)


#: (takes(module, path, seen), reads(module, path, seen, traits) -> Part or None): who reads a part of a layer.
PARTS = (
    (lambda module, path, seen: path.endswith(f".{layers.SCALAR}"), per_layer.read_scalar),
    (lambda module, path, seen: path.endswith(".per_layer_projection"), per_layer.read_projection),
    (lambda module, path, seen: states.is_linear_attention(module), states.read_linear_attention),
    (lambda module, path, seen: states.is_short_conv(module), states.read_short_conv),
    (lambda module, path, seen: mixtures.is_mixture(module), _mixture),
    (lambda module, path, seen: latent.is_latent(module), latent.read_part),
    (lambda module, path, seen: path in seen.kernel, attention.read_part),
    (lambda module, path, seen: norms.kind(module, seen.config) is not None, _norm),
    (lambda module, path, seen: True, _mlp),
)


def _rotations(seen, traits):
    """Layers that take their own of several rotations."""
    from bringup.blocks.rope import layer_types, rotary_of

    config = seen.config
    several = layer_types(rotary_of(seen.model.model), config) != [None]
    rope = config.rope_parameters
    kinds = {name: p["rope_type"] for name, p in rope.items()} if several else {"": rope["rope_type"]}
    traits.sources["rotation"] = f"rope_parameters, {traits.rotation or 'all dims in two halves'}"
    traits.words["rope"] = ", ".join(f"{name} {kind}".strip() for name, kind in kinds.items())
    if several:
        attention.by_type(traits)
