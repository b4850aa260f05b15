"""What the templates say of a model: its sizes, its parallel plan, and the weight dtype that fits."""

import re
import sys
from types import SimpleNamespace

from bringup.backends import systems
from bringup.checkpoints import by_layer
from bringup.errors import BadInput
from bringup.new import source

MAX_SEQ_LEN = 1024  # of the files that are written, where the caller names none
DTYPES = ("bfloat16", "bfloat8_b")  # in order of preference
COUNTS = {1: "one", 2: "two", 4: "four", 8: "eight"}
ROPE = {
    "default": "plain RoPE",
    "llama3": "llama3-scaled RoPE",
    "yarn": "YaRN RoPE",
    "linear": "linearly scaled RoPE",
}


def gather(config, hf_id, system, traits):
    """A namespace of everything the templates name. `config` is covered, and `traits` are what was read of it."""
    system = systems.get(system)
    found = SimpleNamespace(hf_id=hf_id, system=system, config=config, traits=traits)
    found.name = hf_id.split("/")[1]
    found.architecture = traits.architecture
    found.class_name = found.architecture.removesuffix("ForCausalLM")
    found.differing = sorted({name for sizes in by_layer.sizes(config).values() for name in sizes})
    most = by_layer.alike(config)
    found.own_head_dim = getattr(most, "head_dim", None) is not None
    found.head_dim = most.head_dim if found.own_head_dim else most.hidden_size // most.num_attention_heads
    found.kv_heads = most.num_key_value_heads
    found.tied = bool(config.tie_word_embeddings)
    found.max_seq_len = min(MAX_SEQ_LEN, config.max_position_embeddings)
    found.chips = f"{COUNTS.get(system.chips, system.chips)} {system.chip.family}{'s' * (system.chips > 1)}"
    found.rope = ", ".join(dict.fromkeys(_rope_words(kind) for kind in traits.words["rope"].split(", ")))
    _code(found)
    return found


def _rope_words(kind):
    of, _, kind = kind.rpartition(" ")
    words = ROPE.get(kind, re.sub(r"[^a-z0-9_]", "?", kind) + " RoPE")  # goes into a docstring
    return f"{words} in {of.partition('_')[0]} layers" if of else words


def _code(found):
    """The lines of the model file that are the model's own."""
    config, traits = found.config, found.traits
    eps = lambda text: text.replace(f", {traits.eps},", ", eps,")  # noqa: E731
    lines, blocks = source.parts(traits, traits.config)
    named, which = source.mixer(traits, traits.config) or (None, None)
    forward = [f"mixer = {which}"] * (named is not None) + source.Wiring(traits, mixer=named).lines
    numbers = source.assigned(traits.numbers.values())
    layer = [f"eps = {traits.eps}"] * any(", eps," in eps(line) for line in lines) + [eps(line) for line in lines]
    found.layer_init = [source.wrapped(line.lstrip(), 8 + len(line) - len(line.lstrip())) for line in layer + numbers]
    found.layer_forward = [source.wrapped(line) for line in forward]
    found.by_layer = any(re.search(r"\[i\]|\bi (<|>=) ", line) for line in layer)
    found.takes = "".join(f", {p.takes}" for kinds in traits.parts.values() for p in kinds[:1] if p and p.takes)
    found.picture = source.picture(traits, config.num_hidden_layers)
    found.decoder_numbers = source.assigned([traits.stream_scale] if traits.stream_scale else [])
    found.embedded = "self.embed_tokens(tokens)"
    if traits.stream_scale:
        found.embedded = f"ttnn.multiply({found.embedded}, {source.attribute(traits.stream_scale)})"
    norm, found.per_layer = traits.norm, traits.per_layer
    if found.per_layer:
        blocks |= {found.per_layer.block}
        found.per_layer = f"{found.per_layer.block}({', '.join(found.per_layer.arguments)})"
    found.norm = f"{norm.block}({', '.join(norm.arguments)})"
    found.head = "hf_model.model.embed_tokens.weight" if found.tied else "hf_model.lm_head.weight"
    found.logits, found.logits_picture = "self.lm_head(self.model.norm(x))", "logits"
    blocks |= {norm.block, "CausalLM", "Embedding", "LMHead", "Mesh", "Precision", "read_config"}
    for how, number in traits.logits:
        given = f"{found.logits}, {number.replace('config.', 'self.config.')}"
        found.logits = f"{'soft_cap' if how == 'soft_cap' else 'ttnn.multiply'}({given})"
        words = number.replace("config.", "")
        found.logits_picture = f"soft cap {words} -> logits" if how == "soft_cap" else f"times {words} -> logits"
        blocks |= {"soft_cap"} & {how}
    blocks |= {"Rotation"} if traits.rotation else set()
    found.blocks = _import_order(blocks)
    text = "\n".join([*layer, *numbers, found.norm, *found.decoder_numbers, str(traits.embed_scale)])
    fields = [*FIELDS, *["num_attention_heads", "num_key_value_heads"] * (not found.differing)]
    fields += ["head_dim"] * found.own_head_dim
    used = dict.fromkeys(name for name in fields if name not in found.differing)
    used |= dict.fromkeys(n for n in source.FIELD.findall(text) if n != "head_dim")
    found.config_fields = {name: source.type_of(getattr(config, name)) for name in used}
    found.requires = source.requires(config, set(used) | set(traits.fields()))


FIELDS = ("hidden_size", "num_hidden_layers")


def _import_order(names):
    """As the linter sorts them: constants, classes, functions, each without regard to case."""
    return sorted(names, key=lambda n: (n[0].islower(), n.lower()))


def fit(found):
    """Adds the weight dtype: the first that fits with 32 rows of max_seq_len, else the first that fits at all.

    BadInput, with the sizes, where none does; the smallest system that holds the model is named.
    """
    caches = {dtype: _cache(found, found.system, dtype) for dtype in DTYPES}
    fits = [dtype for dtype in DTYPES if not isinstance(caches[dtype], str)]
    if not fits:
        own = found.system.chips * found.system.chip.dram_bytes
        wider = [s for s in systems.machines() if s.chips * s.chip.dram_bytes > own]
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
    if found.differing:
        config.per_layer_config = found.config.per_layer_config
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
        found.heads = next(layer.self_attn.heads for layer in model.model.layers if hasattr(layer, "self_attn"))
    return found
