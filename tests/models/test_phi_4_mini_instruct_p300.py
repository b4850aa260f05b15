"""Phi-4-mini-instruct on p300, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/microsoft/Phi-4-mini-instruct/p300/functional/model.py"
# microsoft/Phi-4-mini-instruct with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "phi3",
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 768,
    "initializer_range": 0.08,
    "intermediate_size": 848,
    "max_position_embeddings": 4096,
    "num_attention_heads": 24,
    "num_hidden_layers": 2,
    "num_key_value_heads": 8,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 0,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {
        "type": "longrope",
        "long_factor": [
            1,
            1.118320672,
            1.250641126,
            1.398617824,
            1.564103225,
            1.74916897,
            1.956131817,
            2.187582649,
            2.446418898,
            2.735880826,
            3.059592084,
            3.421605075,
        ],
        "short_factor": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "rope_type": "longrope",
        "original_max_position_embeddings": 4096,
    },
    "sliding_window": 16,
    "tie_word_embeddings": True,
    "vocab_size": 500,
}


def test_prompts_and_decode_are_hfs():
    small.check(MODEL, SMALL, "p300")
