"""What of an HF configuration no block covers, each with where HF has it and what would be needed.

Read off HF's own modules (on the meta device, two layers) and the fields of the configuration. Where nothing is found,
a small random model is run, and the blocks' arithmetic in plain torch has to give HF's logits: what neither a module
nor a field gave away, such as a scaled residual, is found so.
"""

import copy
from dataclasses import dataclass

from bringup.checkpoints import configuration
from bringup.new import effects, small

TILE = 32
MAX_SEQ_LEN = 1024  # of the files that are written, where the caller names none
PERIOD = 8  # layers: what is done in every fourth or sixth shows in as many
SAME = 1e-4  # relative L2 of two fp32 computations of the same thing


@dataclass(frozen=True)
class Gap:
    """`what` (field and value), the HF module that has it, and what would be needed."""

    what: str
    where: str
    needed: str

    def __str__(self):
        return f"{self.what} ({self.where})\n      needed: {self.needed}"


# Submodules that blocks stand for, and those that compute nothing when a model runs.
DECODER = {"embed_tokens", "layers", "norm", "rotary_emb"}
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"}
MLP = {"gate_proj", "up_proj", "down_proj"}
SILENT = {"act_fn", "activation_fn", "rotary_fn", "rotary_emb"}

EXPERTS = "a mixture-of-experts block: a router, and the experts' products for the tokens that chose them"
NEEDED = {
    "qkv_proj": "weights.fused_qkv given the rows of q, k and v of HF's one matrix",
    "gate_up_proj": "a GatedMLP given the gate and the up half of HF's one matrix",
    "pre_feedforward_layernorm": "a DecoderLayer whose MLP is normed by this one before it",
    "post_feedforward_layernorm": "a DecoderLayer that norms what the MLP returns before it is added",
    "gate": EXPERTS,
    "experts": EXPERTS,
    "block_sparse_moe": EXPERTS,
    "sinks": "attention_sink in the attention of prompts and of decode",
}


def gaps(config):
    """Every `Gap` of this configuration; none where the blocks cover it."""
    found = []
    text = getattr(config, "text_config", None)
    if text is not None:
        needed = "an encoder of images and its projector; or the configuration of the text model alone"
        found.append(Gap(f"model_type = {config.model_type!r} is multimodal", type(config).__name__, needed))
        config = text
    if getattr(config, "quantization_config", None):
        needed = "weights in float32, float16 or bfloat16, which the device then has in formats of its own"
        found.append(Gap(configuration.quantised_by(config.quantization_config), type(config).__name__, needed))
        config = copy.deepcopy(config)
        del config.quantization_config
    try:
        model = two_layers(config)
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        return found + [Gap(f"model_type = {config.model_type!r}", "AutoModelForCausalLM", f"a causal model: {reason}")]
    except Exception as error:  # HF's classes raise whatever their arithmetic does on values that they do not know
        needed = f"a configuration that HF's model takes; it raised {type(error).__name__}: {error}"
        return found + [Gap(f"model_type = {config.model_type!r}, with a value it does not know", "HF", needed)]
    for look in (_structure, _effects, _arithmetic):
        try:
            found += look(config, model, found)
        except Exception as error:  # fields of a kind that nobody looked for, such as sizes by layer
            what = f"{look.__name__[1:]} of a kind that was not looked into ({type(error).__name__}: {error})"
            found.append(Gap(" ".join(what.split())[:300], _of(model), "a model file of its own"))
    return found


def two_layers(config):
    """The HF model of the configuration on the meta device, cut to one layer of each kind (two at least)."""
    import torch
    from transformers import AutoModelForCausalLM

    short = copy.deepcopy(config)
    types = getattr(config, "layer_types", None)
    if types:
        kinds = list(dict.fromkeys(types)) * (1 if len(set(types)) > 1 else 2)
        try:
            short.layer_types = kinds
        except AttributeError:  # it follows from other fields: every layer may be of its own kind
            kinds = types
        short.num_hidden_layers = len(kinds)
    else:
        short.num_hidden_layers = min(2, config.num_hidden_layers)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(short, dtype=torch.float32).eval()


def _effects(config, model, known):
    """Fields that HF computes with and that no module shows."""
    found = []
    for name, value, moved in effects.unread(config, "\n".join(map(str, known))):
        how = "" if moved is None else f": HF's logits move by {moved:.1e} (relative L2) with 1 in its place"
        found.append(Gap(f"{name} = {value}{how}", f"{_of(model)}.forward", "a block that computes with it"))
    return found


def _structure(config, model, known):
    found = []
    decoder = getattr(model, "model", None)
    if decoder is None or not {"layers", "embed_tokens"} <= _children(decoder):
        needed = "a model file of its own: HF's parts are not model.embed_tokens, model.layers and model.norm"
        return [Gap(f"model_type = {config.model_type!r}", type(model).__name__, needed)]
    found += _unknown(decoder, DECODER, "model") + _unknown(model, {"model", "lm_head"}, "")
    layer = decoder.layers[0]
    found += _unknown(layer, LAYER, "model.layers.N")
    for name in () if found else sorted(LAYER - _children(layer)):
        needed = "a DecoderLayer wired without it: what is normed, and added to what, is another"
        found.append(Gap(f"model.layers.N has no {name}", _of(layer), needed))
    if "pre_feedforward_layernorm" in _children(layer):
        needed = "a DecoderLayer that norms what attention returns before it is added"
        found.append(Gap("post_attention_layernorm comes after attention, not before the MLP", _of(layer), needed))
    if not hasattr(layer, "self_attn") or not hasattr(layer, "mlp"):
        return found
    found += _embedding(config, decoder) + _norms(layer, decoder) + _attention(config, decoder, layer.self_attn)
    found += _mlp(config, layer.mlp) + _rope(config, layer.self_attn) + _head(config, model) + _sizes(config, layer)
    return found


def _children(module):
    import torch

    computing = {name for name, child in module.named_children() if not isinstance(child, torch.nn.Dropout)}
    return computing | {name for name, _ in module.named_parameters(recurse=False)}


def _of(module):
    return type(module).__name__


def _unknown(module, known, path):
    found = []
    for name in sorted(_children(module) - known - SILENT):
        child = getattr(module, name)
        what = ".".join(filter(None, (path, name)))
        needed = NEEDED.get(name, "a block for it, and its place in the wiring of the layer")
        found.append(Gap(what, f"{_of(module)}.{name}: {_of(child)}", needed))
    return found


def _embedding(config, decoder):
    import torch

    if type(decoder.embed_tokens) is torch.nn.Embedding:
        return []
    what = f"tokens are looked up scaled by sqrt(hidden_size) = {config.hidden_size**0.5:.4g}"
    if not hasattr(decoder.embed_tokens, "embed_scale"):
        what = "the token table is no plain look-up"
    return [Gap(what, _of(decoder.embed_tokens), "an Embedding whose table is scaled when it is loaded")]


def _norms(layer, decoder):
    """Each kind of norm run on random values: x / rms(x) * weight, or what else?"""
    import torch

    found, seen = [], set()
    places = [("input_layernorm", layer), ("norm", decoder), ("q_norm", layer.self_attn), ("k_norm", layer.self_attn)]
    for name, owner in places:
        norm = getattr(owner, name, None)
        if norm is None or type(norm) in seen:
            continue
        seen.add(type(norm))
        weight = getattr(norm, "weight", None)
        x = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(0)) * 2
        w = torch.rand(64, generator=torch.Generator().manual_seed(1)) + 0.5
        if weight is None or weight.dim() != 1 or list(dict(norm.named_parameters())) != ["weight"]:
            found.append(Gap(f"{name} has no weight, or more than one", _of(norm), "a norm block that computes it"))
            continue
        eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
        plain = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        real = copy.deepcopy(norm)
        real.weight = torch.nn.Parameter(w)
        got = real(x)
        if torch.allclose(got, plain * w, atol=1e-5):
            continue
        if torch.allclose(got, plain * (1 + w), atol=1e-5):
            needed = "an RMSNorm whose weight is 1 + HF's when it is loaded"
            found.append(Gap("norms multiply by 1 + weight", _of(norm), needed))
        else:
            found.append(Gap("norms are not x / rms(x) * weight", _of(norm), "a norm block that computes it"))
    return found


def _attention(config, decoder, attention):
    found = _unknown(attention, ATTENTION, "model.layers.N.self_attn")
    head_dim = getattr(attention, "head_dim", None)
    if getattr(getattr(attention, "o_proj", None), "bias", None) is not None:
        found.append(Gap("o_proj has a bias", _of(attention), "a bias on one chip's part of a row-parallel product"))
    scale = getattr(attention, "scaling", None)
    if scale is not None and head_dim and abs(scale - head_dim**-0.5) > 1e-9:
        names = ("query_pre_attn_scalar", "attention_multiplier")
        field = next((f"{n} = {getattr(config, n)}" for n in names if hasattr(config, n)), "attention scaling")
        what = f"{field}: scores are scaled by {scale:.6g}, not 1 / sqrt(head_dim)"
        found.append(Gap(what, f"{_of(attention)}.scaling", "scale= in the attention of prompts and of decode"))
    for name in ("q_norm", "k_norm"):
        norm = getattr(attention, name, None)
        if norm is not None and getattr(norm, "weight", None) is not None and len(norm.weight) != head_dim:
            what = f"{name} is over {len(norm.weight)} values, not over each head of {head_dim}"
            found.append(Gap(what, _of(norm), "a norm over all heads: on several chips a sum of squares over them"))
    windows = [getattr(layer, "self_attn", None) for layer in decoder.layers]
    if (any(getattr(a, "sliding_window", None) for a in windows) or _windowed(config)) and _bites(config):
        size, types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        which = f", in {types.count('sliding_attention')} of {len(types)} layers" if types else ""
        needed = "sliding_window_size in the attention of prompts and of decode, chosen by layer"
        found.append(Gap(f"sliding_window = {size}{which}", f"{_of(attention)}, and its causal mask", needed))
    if getattr(config, "attn_logit_softcapping", None) is not None:
        what = f"attn_logit_softcapping = {config.attn_logit_softcapping}"
        found.append(Gap(what, _of(attention), "tanh between scores and softmax, which the library's attention lacks"))
    if getattr(config, "use_bidirectional_attention", False):
        found.append(Gap("use_bidirectional_attention = True", _of(attention), "attention that is not causal"))
    return found


def _windowed(config):
    """Does HF mask with a window that no attention module shows?"""
    return getattr(config, "sliding_window", None) is not None and not getattr(config, "layer_types", None)


def _bites(config):
    """Is the window shorter than the longest cache that a model file written here has?"""
    size = getattr(config, "sliding_window", None)
    return not isinstance(size, int) or size < min(MAX_SEQ_LEN, config.max_position_embeddings)


def _mlp(config, mlp):
    found = _unknown(mlp, MLP, "model.layers.N.mlp")
    gated = bool({"gate_proj", "gate_up_proj"} & _children(mlp))
    field = "hidden_act" if hasattr(config, "hidden_act") else "hidden_activation"
    kind, covered = getattr(config, field, None), "silu" if gated else "relu2"
    if kind != covered and not found:
        needed = f"a {'gated ' if gated else ''}MLP with that activation; covered: gated silu, relu2 without a gate"
        found.append(Gap(f"{field} = {kind!r}", _of(mlp), needed))
    elif kind not in ("silu", "relu2"):
        found.append(Gap(f"{field} = {kind!r}", _of(mlp), "an MLP with that activation; covered: silu, relu2"))
    for name in sorted(MLP & _children(mlp)):
        if getattr(getattr(mlp, name), "bias", None) is not None:
            found.append(Gap(f"{name} has a bias", _of(mlp), "biases in the MLP blocks"))
    return found


def _rope(config, attention):
    found = []
    rope = getattr(config, "rope_parameters", None)
    where = "rotary_emb"
    if not rope:
        return [Gap("no rope_parameters", _of(attention), "attention without RoPE, or its own positions")]
    if "rope_type" not in rope:  # one set of parameters for each type of layer
        sets = ", ".join(f"{name}: theta {p.get('rope_theta'):g}" for name, p in rope.items() if p)
        what = f"rope_parameters by type of layer ({sets})"
        found.append(Gap(what, where, "rotary tables of each type, and a layer that takes its own"))
        kinds = {p.get("rope_type") for p in rope.values() if p}
    else:
        kinds = {rope["rope_type"]}
    for kind in sorted(kinds & {"dynamic", "longrope"}):
        needed = "tables that are chosen by the length of the prompt; covered: those of fixed length"
        found.append(Gap(f"rope_parameters.rope_type = {kind!r}", where, needed))
    part = rope.get("partial_rotary_factor", 1.0) if "rope_type" in rope else 1.0
    if part != 1.0:
        needed = "the rotation of a part of each head: cut it off, rotate, put together"
        found.append(Gap(f"rope_parameters.partial_rotary_factor = {part}", where, needed))
    return found


def _head(config, model):
    found = []
    if getattr(config, "final_logit_softcapping", None) is not None:
        what = f"final_logit_softcapping = {config.final_logit_softcapping}"
        found.append(Gap(what, f"{_of(model)}.forward", "tanh on the logits, after the head"))
    if getattr(model.lm_head, "bias", None) is not None:
        found.append(Gap("lm_head has a bias", _of(model.lm_head), "an LMHead with a bias"))
    return found


def _sizes(config, layer):
    found = []
    head_dim = getattr(layer.self_attn, "head_dim", TILE)
    if head_dim % TILE:
        padded = -(-head_dim // TILE) * TILE
        needed = f"heads padded to {padded} in the weights of q, k, v and o, in RoPE and in the cache"
        found.append(Gap(f"head_dim = {head_dim} is no multiple of {TILE}", _of(layer.self_attn), needed))
    elif head_dim != TILE and head_dim % (2 * TILE):  # ttnn 0.81.1, rotary_embedding: a half is whole tiles
        padded = -(-head_dim // (2 * TILE)) * 2 * TILE
        needed = f"each half of a head padded to {padded // 2} columns in q, k, v and o, in RoPE and in the cache"
        found.append(Gap(f"head_dim = {head_dim} has no halves of whole tiles", _of(layer.self_attn), needed))
    if config.hidden_size % TILE:
        found.append(Gap(f"hidden_size = {config.hidden_size} is no multiple of {TILE}", _of(layer), "padded rows"))
    return found


def _arithmetic(config, model, known):
    """Does a small random model compute what the blocks do? Asked where nothing else was found."""
    if known:
        return []
    import torch

    fields = small.fields(config, min(PERIOD, config.num_hidden_layers))
    try:
        model = small.hf_model(fields)
    except (ValueError, RuntimeError, TypeError) as error:
        needed = "a small model of it that HF accepts; this one is not accepted"
        return [Gap(f"no small model to try: {str(error).strip().splitlines()[0]}", type(config).__name__, needed)]
    ids = torch.randint(3, small.VOCAB, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = small.relative_l2(plain(model, ids), model(ids).logits)
    if error < SAME:
        return []
    unusual = {k: v for k, v in sorted(fields.items()) if any(part in k for part in ("multiplier", "scal", "no_rope"))}
    what = f"HF's logits differ from the blocks' by {error:.1e} (relative L2, a small random model in fp32)"
    if unusual:
        what += "; fields that may say why: " + ", ".join(f"{k} = {v}" for k, v in unusual.items())
    return [Gap(what, f"{_of(model)}.forward", "read HF's forward of the layer: it has a step that no module shows")]


def plain(model, ids):
    """Logits by the arithmetic of the blocks, in torch, of an HF model's weights: [batch, S] -> [batch, S, vocab]."""
    import torch
    from torch.nn.functional import linear, relu, scaled_dot_product_attention, silu

    decoder, config = model.model, model.config
    batch, length = ids.shape

    def norm(x, module):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + config.rms_norm_eps) * module.weight

    def rotate(x):
        left, right = x.chunk(2, -1)
        return x * cos[:, None] + torch.cat((-right, left), -1) * sin[:, None]

    def attend(x, hf):
        qkv = hf.q_proj, hf.k_proj, hf.v_proj
        q, k, v = (linear(x, p.weight, p.bias).view(batch, length, -1, hf.head_dim) for p in qkv)
        if hasattr(hf, "q_norm"):
            q, k = norm(q, hf.q_norm), norm(k, hf.k_norm)
        q, k, v = rotate(q.transpose(1, 2)), rotate(k.transpose(1, 2)), v.transpose(1, 2)
        y = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return linear(y.transpose(1, 2).flatten(2), hf.o_proj.weight)

    def mlp(x, hf):
        up = linear(x, hf.up_proj.weight)
        inner = silu(linear(x, hf.gate_proj.weight)) * up if hasattr(hf, "gate_proj") else relu(up) ** 2
        return linear(inner, hf.down_proj.weight)

    x = decoder.embed_tokens.weight[ids]
    cos, sin = decoder.rotary_emb(x, torch.arange(length)[None])
    for layer in decoder.layers:
        x = x + attend(norm(x, layer.input_layernorm), layer.self_attn)
        x = x + mlp(norm(x, layer.post_attention_layernorm), layer.mlp)
    return linear(norm(x, decoder.norm), model.lm_head.weight)
