"""What a layer takes beside the stream (Gemma-4's small models): the blocks' formulas in torch, against HF's values."""

from bringup.new.traits import Part

SAME = 1e-4  # relative L2 of two float32 computations of the same thing
#: HF's modules, and its numbers.
NAMES = ("embed_tokens_per_layer", "per_layer_model_projection", "per_layer_projection_norm")
NUMBERS = ("per_layer_model_projection_scale", "per_layer_input_scale")
GIVEN = "per_layer_input"  # what a layer calls its own


def of_decoder(decoder):
    """HF's modules that give it, if all are there."""
    return set(NAMES) if all(hasattr(decoder, name) for name in (*NAMES, *NUMBERS)) else set()


def read(seen, traits):
    """Into `traits`, where the decoder has it: the block that gives it."""
    from bringup.new.reading import norms

    decoder = seen.model.model
    if not of_decoder(decoder):
        return
    where = f"{type(decoder).__name__}.project_per_layer_inputs"
    found = norms.kind(decoder.per_layer_projection_norm, seen.config)
    wants = [_input(seen, f"model.layers.{i}") for i in range(len(decoder.layers))]
    if found is None or found[0] != "RMSNorm" or any(want is None for want in wants):
        traits.lacks(f"model.{NAMES[0]}", where, "inputs of layers as the block has them")
        return
    tokens, x = seen.calls["model.embed_tokens"][0][0][0], seen.out_of("model.embed_tokens")[0]
    ours = inputs(decoder, tokens, x, found[1])
    if any(float((ours[:, i] - want[0]).norm()) > SAME * float(want.norm()) for i, want in enumerate(wants)):
        traits.lacks(f"model.{NAMES[0]}", where, "that, as HF's forward has it")
        return
    eps = norms.eps_source(seen.config, found[1])
    traits.per_layer = Part("PerLayerInputs", ("hf_decoder", eps, "mesh", "precision"))
    words = f"{ours.shape[-1]} inputs for each layer"
    traits.words["per layer"] = words
    traits.sources["inputs of layers"] = f"{where}, run on random values: {words}"


def _input(seen, layer):
    """The tensor that a layer took second."""
    args, kwargs, _ = seen.calls[layer]
    return args[1] if len(args) > 1 else kwargs.get(GIVEN)


def inputs(decoder, tokens, x, eps, scale=None, table_scale=None, projection_scale=None):
    """What `PerLayerInputs` computes of tokens [S] and their embeddings x [S, hidden], in torch [S, layers, size];
    numbers in the place of HF's."""
    import torch

    table, norm = decoder.embed_tokens_per_layer, decoder.per_layer_projection_norm
    scale = decoder.per_layer_input_scale if scale is None else scale
    table_scale = table.scalar_embed_scale if table_scale is None else table_scale
    times = decoder.per_layer_model_projection_scale if projection_scale is None else projection_scale
    with torch.no_grad():
        split = lambda t: t.unflatten(-1, (-1, len(norm.weight)))  # noqa: E731
        projected = split(torch.nn.functional.linear(x, decoder.per_layer_model_projection.weight.float()) * times)
        normed = projected * (projected.square().mean(-1, keepdim=True) + eps).rsqrt() * norm.weight.float()
        return scale * (normed + split(table.weight[tokens].float() * table_scale))


def read_projection(module, path, seen, traits):
    """The `Part` of what mixes a layer's input in; None, with a gap, where the block does not compute it."""
    import torch

    from bringup.new.reading.mlp import _activations

    layer, where = path.rpartition(".")[0], type(module).__name__
    hf_layer = seen.module(layer)
    gate, given = hf_layer.per_layer_input_gate, _input(seen, layer)
    x, want = seen.into(f"{layer}.per_layer_input_gate"), seen.out_of(path)
    with torch.no_grad():
        ours = {name: module(f(gate(x)) * given) for name, f in _activations().items()}
    left = {name: float((value - want).norm() / want.norm()) for name, value in ours.items()}
    name = min(left, key=left.get)
    if left[name] > SAME or gate.bias is not None or module.bias is not None:
        traits.lacks("per_layer_projection of the gated input", where, "that, as HF's forward has it")
        return None
    traits.sources["input of a layer"] = f"{type(hf_layer).__name__}: projection({name}(gate(x)) * input)"
    keywords = () if name == "silu" else (("activation", f'"{name}"'),)
    return Part(
        "PerLayerProjection", ("hf_layer", "mesh", "precision"), keywords, name="per_layer_projection", takes=GIVEN
    )


def read_scalar(scalar, path, seen, traits):
    traits.sources["layer_scalar"] = f"{type(seen.module(path.rpartition('.')[0])).__name__}: all it gives times that"
    return Part("LayerScalar", ("hf_layer.layer_scalar", "mesh"))
