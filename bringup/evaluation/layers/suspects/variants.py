"""What families differ in: another kind of norm, a norm that is skipped, a factor or a cap that is left out, the
rotation of another type of layer."""

import torch

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.activations import BEFORE_FFN, BEFORE_MIXER, MIXERS
from bringup.evaluation.layers.suspects import reading
from bringup.evaluation.layers.suspects.norms import other_inputs as norm_inputs
from bringup.new.reading import norms

AFTER_MIXER = ("post_self_attn_layernorm", "post_operator_norm", "post_norm1")
AFTER_FFN = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_ffn_norm", "post_norm2")
WORDS = {
    "RMSNorm": "x / rms(x) times the weight",
    "UnitOffsetRMSNorm": "x / rms(x) times 1 + weight",
    "LayerNorm": "LayerNorm, which subtracts the mean, times the weight",
    "UnitOffsetLayerNorm": "LayerNorm, which subtracts the mean, times 1 + weight",
}
NEAR = 0.01  # relative: a factor that was read off, and a field


def norm(case):
    """Other kinds of norm than HF's on its own input, and none."""
    found = norms.kind(case.module, case.config)
    if found is None:
        return
    kind, eps = found
    x = _input(case)
    if kind != "RMSNorm":  # else `norms` has it
        yield from norm_inputs(case, case.module)
    given = [getattr(case.module, name, None) for name in ("weight", "bias")]
    none = torch.ones(x.shape[-1]), torch.zeros(x.shape[-1])
    weight, bias = (n if p is None else p.detach().float() for p, n in zip(given, none, strict=True))
    yield f"its input: {case.point} is skipped", x
    for other, compute in norms.KINDS.items():
        if other != kind:
            yield f"{WORDS[other]}, where HF has {WORDS[kind]}", compute(x, weight, bias, eps)
    if given[1] is not None:
        yield "the norm without its bias", norms.KINDS[kind](x, weight, torch.zeros_like(bias), eps)


def after(case, module):
    """The norm that HF has between attention or the MLP and the sum with the residual; None where there is none."""
    name = next((n for n in (AFTER_MIXER if module in MIXERS else AFTER_FFN) if case.has(n)), None)
    if name is None and module in MIXERS and case.has("post_attention_layernorm"):
        first = any(map(case.has, BEFORE_MIXER)) and not any(map(case.has, BEFORE_FFN))
        name = None if first else "post_attention_layernorm"
    return name


def before(case, module):
    """The norm that HF has before attention or the MLP, or None."""
    if module in MIXERS:
        names = BEFORE_MIXER
    else:
        names = BEFORE_FFN + ("post_attention_layernorm",) * (after(case, case.mixer) != "post_attention_layernorm")
    return next((name for name in names if case.has(name)), None)


def _input(case):
    """What HF's norm takes, of the device's values."""
    if case.point == "post_per_layer_input_norm":
        return case.value("per_layer_projection")
    for module in (case.mixer, case.ffn) if case.layer is not None else ():
        if case.point == after(case, module):
            return case.value(module)
    first = case.layer is None or case.point == before(case, case.mixer)
    return case.before() if first else case.value("self_attn.residual")


def rotation(case):
    """The tables of another type of layer, where HF has several rotations."""
    types = getattr(case.config, "layer_types", None)
    which = "q" if case.point == "self_attn.q_rope" else "k"
    if not types or len(case.own.extras[case.layer]["cos"].shape) < 2:
        return
    x = case.own.extras[case.layer][which].float()
    at, mine = torch.arange(x.shape[2])[None], types[case.layer]
    for layer, kind in enumerate(types):
        if kind != mine and kind not in types[:layer]:
            tables = hf_layers.tables(hf_layers.rotary_of(case.hf.model), case.config, layer, at)
            turned = hf_layers.rotated(case.attention, x, *tables)[0]
            yield f"{which} rotated by the tables of {kind}, in a layer of {mine}", turned.transpose(0, 1).flatten(1)


def attention(case):
    """Queries and keys that are rotated in a layer where HF turns neither."""
    if case.layer in case.own.extras:
        return
    hf = case.attention
    x = case.into_attention()
    heads = lambda p: p(x).unflatten(-1, (-1, hf.head_dim)).transpose(0, 1)  # noqa: E731
    q, k, v = (heads(p) for p in (hf.q_proj, hf.k_proj, hf.v_proj))
    q, k = (getattr(hf, n)(t) if hasattr(hf, n) else t for n, t in (("q_norm", q), ("k_norm", k)))
    at = torch.arange(len(x))
    tables = hf_layers.tables(hf_layers.rotary_of(case.hf.model), case.config, case.layer, at[None])
    turned = [hf_layers.rotated(hf, t[None], *tables)[0] for t in (q, k)]
    sees = at[:, None] >= at[None]
    if (window := hf_layers.window(hf, case.config)) is not None:
        sees &= at[:, None] - at[None] < window
    where = {"": at >= 0}
    if case.decode:
        start = case.device.decode_from
        where |= {" of steps alone": at >= start, " of prompts alone": at < start}
    for words, rows in where.items():
        q_at, k_at = (torch.where(rows[:, None], t, own) for t, own in zip(turned, (q, k), strict=True))
        groups = len(q) // len(k)
        scores = (q_at @ k_at.repeat_interleave(groups, 0).transpose(1, 2) * hf.scaling).masked_fill(~sees, -torch.inf)
        attended = scores.softmax(-1) @ v.repeat_interleave(groups, 0)
        words = f"attention of rotated queries and keys{words}, where HF rotates neither in layer {case.layer}"
        yield words, hf.o_proj(attended.transpose(0, 1).flatten(1))


def embedding(case):
    """HF's table gives its rows times a number."""
    scale = getattr(case.hf.get_input_embeddings(), "embed_scale", None)
    if scale is not None:
        yield f"the token's rows without their scale, {float(scale):.4g}", case.want / float(scale)


def head(case):
    """HF's logits are more than the head's product."""
    head = case.hf.get_output_embeddings()
    product = torch.nn.functional.linear(case.any("model.norm")[case.rows], head.weight.detach().float())
    product = product if head.bias is None else product + head.bias.detach().float()
    if float((product - case.want).norm()) < NEAR * float(case.want.norm()):
        return
    times = float((product * case.want).sum() / product.square().sum())
    name = "the cap of the logits" if getattr(case.config, "final_logit_softcapping", None) else field(case, times)
    yield f"the head's product alone: {name} is left out", product


def field(case, number):
    """The field of the configuration that a factor is of; the number where there is none."""
    for name, value in reading.fields(case.config).items():
        for of in (value, 1 / value) if value else ():
            if abs(of - number) < NEAR * abs(number) and reading.is_factor(name):
                return f"{name}, {value:g},"
    return f"a factor of {number:.4g}"
