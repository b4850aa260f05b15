"""A model file with a small random model of its kind against HF: the test that `bringup new` writes.

Weights are put on the device's grid before HF computes, so that what may differ is the computation; its error has to be
of the size that HF's own bfloat16 has.
"""

import copy
import math
from contextlib import suppress

from bringup.checkpoints import by_layer, random_weights

USERS, PROMPT, STEPS = 2, 33, 3  # past one tile, and decoded past it
HEAD_DIM, VOCAB, WINDOW = 32, 500, 16
#: Sizes inside a layer; eight experts for each group of them, of which as many as may be are not chosen.
SIZES = {
    "moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "shared_intermediate_size": 96,
    "intermediate_size_mlp": 96,
    "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    "linear_num_key_heads": 8,
    "linear_num_value_heads": lambda c: 8 * (c.linear_num_value_heads // c.linear_num_key_heads),
    "num_experts": 16, "n_routed_experts": 16, "num_local_experts": 16,
    "num_experts_per_tok": lambda c: min(c.num_experts_per_tok, 4), "first_k_dense_replace": 1,
    "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32,
    "n_group": lambda c: min(c.n_group, 4), "topk_group": lambda c: min(c.topk_group, 2),
    "vocab_size_per_layer_input": VOCAB,
}  # fmt: skip
MOST_WEIGHTS = 300_000_000  # of a small model: one of 64 heads has 47 million
# Fields that say nothing of what is computed, or follow from others.
NO_PART = {
    "_name_or_path", "architectures", "attention_dropout", "dtype", "max_window_layers", "pretraining_tp",
    "quantization_config", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
# Decode attention of up to 16 query heads a chip takes an approximate exp, whatever is asked for: its output is 2.0e-2
# from fp32 attention (relative rms, ttnn 0.81.1 on the functional simulator).
APPROXIMATE_EXP = 2.2e-2
# An all_reduce over n chips rounds n - 1 running sums more (relative rms of each).
SUM_OF_TWO_CHIPS = 1.7e-3


def layers(config):
    """So many layers of the model have one of each kind: two at least, and as many as a pattern may take."""
    count = config.num_hidden_layers
    if by_layer.shared(config):
        return min(count, 3 * len(set(config.layer_types)))
    lists = [v for v in config.to_dict().values() if isinstance(v, list) and len(v) == count]
    seen = [tuple(str(v[i]) for v in lists) for i in range(count)]
    last = max((seen.index(kind) for kind in set(seen)), default=0)
    return min(count, max(2, last + 1))


def fields(config, layers=2):
    """The fields of a small model like `config`: its heads, biases, norms, ties and RoPE; few layers, small sizes, and
    a window that a short prompt is beyond."""
    config = by_layer.fewer(config, layers)
    differing, config = by_layer.sizes(config), by_layer.alike(config)
    small, known = copy.deepcopy(config), type(config)().to_dict()
    for name, value in config.to_dict().items():
        if "window" in name and isinstance(value, int) and not isinstance(value, bool) and value > WINDOW:
            with suppress(AttributeError):
                setattr(small, name, WINDOW if name == "sliding_window" else value)
    small.vocab_size = VOCAB
    own_head_dim = getattr(config, "head_dim", None) is not None
    heads = small.num_attention_heads
    head_dim = _head_dim(config)
    step = math.lcm(heads, 32)  # HF wants a multiple of the heads also where their size is its own
    small.hidden_size = head_dim * heads
    if own_head_dim and config.head_dim * heads != config.hidden_size:
        small.hidden_size = step * -(-256 // step)
    small.intermediate_size = small.hidden_size + 80  # no mesh divides it into whole tiles
    if own_head_dim:
        small.head_dim = head_dim
    for name, size in SIZES.items():
        if isinstance(getattr(config, name, None), int) and getattr(config, name):
            setattr(small, name, size(config) if callable(size) else size)
    small.max_position_embeddings, small.initializer_range = 4096, 0.08
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in rope.values() if rope and "rope_type" not in rope else [getattr(small, "rope_parameters", None)]:
        for name in ("short_factor", "long_factor"):
            if isinstance(parameters, dict) and parameters.get(name):
                pairs = int(head_dim * parameters.get("partial_rotary_factor", 1.0)) // 2
                parameters[name] = (parameters[name] * pairs)[:pairs]
    for token, value in (("bos_token_id", 1), ("eos_token_id", 2), ("pad_token_id", 0)):
        setattr(small, token, value)
    found = {
        k: v for k, v in small.to_diff_dict().items() if k in (*known, "head_dim") and k not in NO_PART and k[0] != "_"
    }
    if differing:
        found["per_layer_config"] = {str(i): _small_heads(more, config) for i, more in differing.items()}
    types = found.get("layer_types")
    if types and set(types) == {"full_attention"}:
        del found["layer_types"]
    return {"model_type": config.model_type} | dict(sorted(found.items()))


def _small_heads(more, config):
    """What a small layer has that is unlike most: heads twice as large."""
    return more | ({"head_dim": 2 * _head_dim(config)} if more.get("head_dim", 0) > config.head_dim else {})


def _head_dim(config):
    """A small head of the same kind: of a size that the rotation takes, or of one that is padded."""
    own = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    part = (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0)
    padded = own > HEAD_DIM and own % (2 * HEAD_DIM)
    if padded or own < HEAD_DIM or int(HEAD_DIM * part) % 2:
        return own
    return HEAD_DIM


def check_size(fields):
    """ValueError where a size that nobody knew leaves the HF model of these fields too large to be tried."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    sizes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    if (count := sum(map(math.prod, sizes.values()))) > MOST_WEIGHTS:
        largest = max(sizes, key=lambda name: math.prod(sizes[name]))
        raise ValueError(f"{count:,} weights with small sizes in its fields; the largest is {largest} {sizes[largest]}")


def hf_model(fields, seed=0):
    """The HF model of these fields in float32; norms are not 1, biases and matrices not 0: each of them counts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**fields)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("bias"):
                weight.copy_(0.2 * torch.randn(weight.shape))
            elif weight.dim() == 1 and isinstance(weight, torch.nn.Parameter):
                weight.copy_(0.2 * torch.randn(weight.shape) + 1.0)
            elif name.endswith("layer_scalar"):
                weight.copy_((0.2 * torch.randn(weight.shape) + 1.0).bfloat16())
            elif weight.dim() > 1 and not weight.any():  # a router of AFMoE
                weight.copy_(config.initializer_range * torch.randn(weight.shape))
    return tempered(model)


def tempered(model):
    """The model with scores of the usual size also where the norm of q decides that."""
    import torch

    with torch.no_grad():
        for name, factor in random_weights.of_scores(model).items():
            model.get_parameter(name).mul_(factor)
    return model


def as_stored(model, dtype):
    """The same model with every matrix on the grid of `dtype`.

    The token table is bfloat16 on the device; a tied head keeps its own copy in `dtype`, so tie only with bfloat16.
    """
    import torch
    import ttnn

    from bringup.blocks.moe import stacks

    with torch.no_grad():
        for module in model.modules():
            for stack in stacks(module.experts) if hasattr(module, "experts") else ():
                stack.copy_(through(stack.transpose(1, 2).contiguous(), dtype).transpose(1, 2))
        for name, weight in model.named_parameters():
            if weight.dim() > 2 and "experts" in name:
                continue
            kind = dtype if weight.dim() == 2 and "embed" not in name else ttnn.bfloat16
            weight.copy_(
                through(weight.T.contiguous(), kind).T if weight.dim() == 2 else through(weight[None], kind)[0]
            )
    return model


def through(x, dtype):
    """x rounded to the grid of `dtype`, along its last dim as on the device."""
    import ttnn

    return ttnn.to_torch(ttnn.from_torch(x, dtype=dtype, layout=ttnn.TILE_LAYOUT)).float()


def relative_l2(got, want):
    assert got.shape == want.shape, f"got {list(got.shape)}, want {list(want.shape)}"
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def as_good_as_bf16(got, want, in_bf16, chips=1, more=0.0):
    """Is `got` about as far from HF in fp32 as HF in bfloat16 is? Asserts with the numbers when not.

    The device keeps activations in bfloat16, as HF in bfloat16 does: twice its error, for other orders of rounding and
    for single positions. `more` is what a named approximation of the device adds.
    """
    error, yardstick = relative_l2(got, want), relative_l2(in_bf16.float(), want)
    bound = 2 * yardstick + SUM_OF_TWO_CHIPS * (chips - 1) ** 0.5 + more
    assert error < bound, f"relative L2 {error:.2e}, bound {bound:.2e}, of HF in bfloat16 {yardstick:.2e}"
    return True


def in_bf16(module, *args, **kwargs):
    """What an HF module computes with weights and activations in bfloat16."""
    import torch

    cast = lambda x: x.bfloat16() if isinstance(x, torch.Tensor) and x.is_floating_point() else x  # noqa: E731
    args = [cast(x) for x in args]
    kwargs = {k: tuple(map(cast, v)) if isinstance(v, tuple) else cast(v) for k, v in kwargs.items()}
    return copy.deepcopy(module).bfloat16()(*args, **kwargs)


def check(model_py, fields, system, seed=0):
    """Runs a prompt of two users, three steps and generate() on the emulator, and asserts that they are HF's, with the
    experts that the device chose.

    Gives the relative L2 of all logits, and that of HF in bfloat16: {"relative_l2", "hf_bfloat16"}.
    """
    import torch

    from bringup import backends
    from bringup.backends import model_files
    from bringup.new import choices

    backends.activate("emulator")
    module = model_files.load_model_file(model_py, system).module
    tied = fields.get("tie_word_embeddings", False)
    precision = getattr(module, "PRECISION", None)
    hf = hf_model(fields, seed)
    if precision is not None and not (tied and precision.head != precision.mlp):
        hf = as_stored(hf, precision.mlp)
    ids = torch.randint(3, VOCAB, (USERS, PROMPT + STEPS), generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad(), backends.open_system(system) as device:
        model = module.build_model(hf, device, 64)
        chips = device.get_num_devices()
        with choices.watched(model) as seen:
            out = model(ids[:, :PROMPT], logits_to_keep=0)
            everything = [out.logits]
            for i in range(PROMPT, PROMPT + STEPS):
                out = model(ids[:, i : i + 1], past_key_values=out.past_key_values)
                everything.append(out.logits)
        assert model.generate(ids[:, :5], max_new_tokens=4, do_sample=False, eos_token_id=None).shape == (USERS, 9)
        apart = choices.force(model, seen, USERS, PROMPT, STEPS, hf)
        want, worst = hf(ids).logits, max(apart, default=0.0)
        bf16 = in_bf16(hf, ids).logits
    assert as_good_as_bf16(everything[0], want[:, :PROMPT], bf16[:, :PROMPT], chips)
    for i, logits in enumerate(everything[1:], PROMPT):
        assert as_good_as_bf16(logits[:, 0], want[:, i], bf16[:, i], chips, APPROXIMATE_EXP)
    logits = torch.cat(everything, 1)
    error = relative_l2(logits, want)
    assert worst <= choices.NEAR * error, f"experts chosen that fall short of HF's by {worst:.2f} of the scores' spread"
    return {"relative_l2": error, "hf_bfloat16": relative_l2(bf16.float(), want)}
