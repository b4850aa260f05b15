"""SmolLM3-3B on n300, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/HuggingFaceTB/SmolLM3-3B/n300/functional/model.py"
# HuggingFaceTB/SmolLM3-3B with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "smollm3",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 512,
    "initializer_range": 0.08,
    "intermediate_size": 592,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0],
    "num_attention_heads": 16,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 5000000.0, "rope_type": "default"},
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 500,
}


def test_prompts_and_decode_are_hfs():
    small.check(MODEL, SMALL, "n300")
