"""What a layer may have made of its input beside the stream, and of the number that all it gives is times of."""

import torch


def projection(case):
    """Other inputs of the layer than HF's, and less done to them."""
    from bringup.blocks.norm import epsilon
    from bringup.new.reading import per_layer

    decoder, layer = case.hf.model, case.hf.model.layers[case.layer]
    if not per_layer.of_decoder(decoder):
        return
    tokens, x = torch.tensor(case.device.ids), case.any("model.embed_tokens")
    eps = epsilon(decoder.per_layer_projection_norm)
    inputs = lambda **changed: per_layer.inputs(decoder, tokens, x, eps, **changed)  # noqa: E731
    given, gate = inputs(), layer.per_layer_input_gate(_stream(case))
    out = lambda given, act=layer.act_fn: layer.per_layer_projection(act(gate) * given)  # noqa: E731
    scales = {
        "the scale of their sum": ("scale", decoder.per_layer_input_scale),
        "the scale of their table": ("table_scale", decoder.embed_tokens_per_layer.scalar_embed_scale),
    }
    for words, (name, number) in scales.items():
        yield f"with inputs of layers without {words}, {number:.4g}", out(inputs(**{name: 1.0})[:, case.layer])
    table = inputs(table_scale=0.0)
    yield "with inputs of layers without their table", out(table[:, case.layer])
    yield "with inputs of layers of their table alone", out((given - table)[:, case.layer])
    for other in range(given.shape[1]):
        if other != case.layer:
            yield f"with the input of layer {other} in the place of its own", out(given[:, other])
    yield "without the layer's input", out(torch.ones_like(given[:, case.layer]))
    yield "without the activation of its gate", out(given[:, case.layer], act=lambda g: g)


def residual(case):
    """The layer's output without the last things that HF does to it."""
    scalar = getattr(case.hf.model.layers[case.layer], "layer_scalar", None)
    if scalar is None:
        return
    yield f"all that the layer gives, without its layer_scalar, {float(scalar):.4g}", case.want / float(scalar)
    if case.has("post_per_layer_input_norm"):
        yield "the stream without what the layer makes of its input", _stream(case) * float(scalar)


def _stream(case):
    """The residual stream after the MLP."""
    return case.value("self_attn.residual") + case.value("post_feedforward_layernorm")
