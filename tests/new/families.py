"""Decoder families of transformers at a small random size, and what makes each of them what it is."""

from transformers import AutoConfig

SIZES = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 500, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
WINDOW = {"sliding_window": 16}
SLIDING = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
#: Fields beside SIZES: windows that a prompt is longer than, factors that are not 1.
FAMILIES = {
    "llama": {},
    "mistral": WINDOW,
    "ministral": WINDOW | {"head_dim": 32},
    "ministral3": {},
    "arcee": {},
    "seed_oss": {},
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"layer_types": SLIDING},
    "phi": {},
    "phi3": WINDOW,
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "granite": dict(
        embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.0156, logits_scaling=8.0
    ),
    "smollm3": {},
    "cohere": {},
    "cohere2": WINDOW,
    "glm": {},
    "glm4": {},
    "stablelm": {},
    "starcoder2": WINDOW,
    "exaone4": WINDOW,
    "nemotron": {},
    "helium": {},
    "ernie4_5": {},
    "hunyuan_v1_dense": {"head_dim": 32},
    "apertus": {},
    "bitnet": {},
}


def config(model_type, **more):
    """The family's configuration at a small size; heads of 32 where their size is the family's own."""
    fields = SIZES | FAMILIES[model_type] | more
    found = AutoConfig.for_model(model_type, **fields)
    if getattr(found, "head_dim", None) not in (None, 32) and "head_dim" not in fields:
        found = AutoConfig.for_model(model_type, **fields, head_dim=32)
    return found
