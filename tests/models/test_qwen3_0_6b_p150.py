"""Qwen3-0.6B on p150, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/Qwen/Qwen3-0.6B/p150/functional/model.py"
# Qwen/Qwen3-0.6B with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "qwen3",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.08,
    "intermediate_size": 336,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 500,
}


def test_prompts_and_decode_are_hfs():
    small.check(MODEL, SMALL, "p150")
