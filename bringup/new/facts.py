"""What the templates say of a model: its sizes, its parallel plan, and the weight dtype that fits."""

import re
import sys
from types import SimpleNamespace

from bringup.backends import systems
from bringup.errors import BadInput
from bringup.new.covered import MAX_SEQ_LEN, two_layers

DTYPES = ("bfloat16", "bfloat8_b")  # in order of preference
CHIPS = {1: "one Wormhole", 2: "two Wormholes", 8: "eight Wormholes"}
ROPE = {
    "default": "plain RoPE",
    "llama3": "llama3-scaled RoPE",
    "yarn": "YaRN RoPE",
    "linear": "linearly scaled RoPE",
}


def gather(config, hf_id, system):
    """A namespace of everything the templates name. `config` is covered (`covered.gaps` found nothing)."""
    system = systems.get(system)
    found = SimpleNamespace(hf_id=hf_id, system=system, config=config)
    found.name = hf_id.split("/")[1]
    found.architecture, found.attention, found.gated = _of_hf(config)
    found.class_name = found.architecture.removesuffix("ForCausalLM")
    found.own_head_dim = getattr(config, "head_dim", None) is not None
    found.head_dim = config.head_dim if found.own_head_dim else config.hidden_size // config.num_attention_heads
    found.tied = bool(config.tie_word_embeddings)
    found.requires = _requires(config)
    found.mlp = "gated SiLU" if found.gated else "squared ReLU, no gate"
    found.mlp_block = "GatedMLP" if found.gated else "Relu2MLP"
    kind = config.rope_parameters["rope_type"]
    found.rope = ROPE.get(kind, re.sub(r"[^a-z0-9_]", "?", kind) + " RoPE")  # goes into a docstring
    found.max_seq_len = min(MAX_SEQ_LEN, config.max_position_embeddings)
    found.chips = CHIPS.get(system.chips, f"{system.chips} Wormholes")
    return found


def _of_hf(config):
    """(class name, "bias" and "norm" as attention has them, is the MLP gated)."""
    model = two_layers(config)
    layer = model.model.layers[0]
    attention = {"bias": layer.self_attn.q_proj.bias is not None, "norm": hasattr(layer.self_attn, "q_norm")}
    return type(model).__name__, attention, hasattr(layer.mlp, "gate_proj")


def _requires(config):
    """The fields that the model file depends on, with this configuration's value."""
    found = {"model_type": config.model_type, "hidden_act": config.hidden_act}
    for name in ("attention_bias", "mlp_bias", "sliding_window"):
        if hasattr(config, name):
            found[name] = getattr(config, name)
    found["tie_word_embeddings"] = config.tie_word_embeddings
    return found | {"rope_parameters.rope_type": config.rope_parameters["rope_type"]}


def fit(found):
    """Adds the weight dtype: the first that fits with 32 rows of max_seq_len, else the first that fits at all.

    BadInput, with the sizes, where none does; the smallest system that holds the model is named.
    """
    caches = {dtype: _cache(found, found.system, dtype) for dtype in DTYPES}
    fits = [dtype for dtype in DTYPES if not isinstance(caches[dtype], str)]
    if not fits:
        wider = [s for s in systems.SYSTEMS.values() if s.chips > found.system.chips]
        held = [s.name for s in wider if not isinstance(_cache(found, s, DTYPES[-1]), str)]
        raise BadInput(
            f"{found.hf_id} does not fit {found.system}",
            got=caches[DTYPES[-1]].splitlines()[1].strip(),
            hint=f"--system {held[0]}" if held else "no system here holds it",
        )
    whole = [dtype for dtype in fits if caches[dtype].prompt_chunk is None]
    found.dtype = (whole or fits)[0]
    found.paged = not whole
    return found


def _cache(found, system, dtype):
    """The cache that fits beside weights of `dtype`, or the text of the refusal."""
    import ttnn

    from bringup import backends
    from bringup.blocks import Mesh, Precision
    from bringup.blocks.memory import check_fits

    config = SimpleNamespace(**found.config.to_dict() | {"head_dim": found.head_dim})
    precision = Precision.of(getattr(ttnn, dtype))
    with _by_shapes(), backends.open_system(system) as device:
        try:
            return check_fits(meta_model(found.config), config, found.max_seq_len, Mesh(device), precision)
        except ValueError as error:
            return str(error)


def meta_model(config):
    """The HF model at true size, without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def _by_shapes():
    from ttnn_emulator.op import spec_only

    return spec_only()


def run_by_shapes(model_py, found):
    """The written file at true size on the emulator, by shapes alone: a prompt and two steps; adds heads and DRAM.

    What the device would refuse comes as the emulator's error.
    """
    import torch

    from bringup import backends
    from bringup.backends import model_files
    from bringup.errors import blame

    module = model_files.load_model_file(model_py, found.system.name).module
    sys.modules.pop(module.__name__)  # another text may be written there next
    with _by_shapes(), backends.open_system(found.system) as device, blame(model_py, "running it by shapes"):
        model = module.build_model(meta_model(found.config), device, found.max_seq_len)
        found.dram_built = backends.memory(device)["dram"]["allocated"]
        prompt = torch.zeros(1, min(found.max_seq_len - 2, 2 * 1024), dtype=torch.long)
        out = model(prompt, logits_to_keep=1)
        for _ in range(2):
            out = model(torch.zeros(1, 1, dtype=torch.long), past_key_values=out.past_key_values)
        found.dram_peak = backends.memory(device)["dram"]["peak"]
        found.dtype = str(module.PRECISION.mlp).rpartition(".")[2].lower()  # another system's file may have chosen it
        found.paged = model.cache.prompt_chunk is not None
        found.heads = model.model.layers[0].self_attn.heads
    return found
