"""OLMo-2-0425-1B on p300, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/allenai/OLMo-2-0425-1B/p300/functional/model.py"
# allenai/OLMo-2-0425-1B with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "olmo2",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 512,
    "initializer_range": 0.08,
    "intermediate_size": 592,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "num_key_value_heads": 16,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {"rope_theta": 500000, "rope_type": "default"},
    "tie_word_embeddings": False,
    "vocab_size": 500,
}


def test_prompts_and_decode_are_hfs():
    small.check(MODEL, SMALL, "p300")
