"""gemma-3-1b-it on p300, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/google/gemma-3-1b-it/p300/functional/model.py"
# google/gemma-3-1b-it with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "final_logit_softcapping": None,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 256,
    "initializer_range": 0.08,
    "intermediate_size": 336,
    "layer_types": [
        "sliding_attention",
        "sliding_attention",
        "sliding_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ],
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000},
        "full_attention": {"rope_type": "default", "rope_theta": 1000000},
    },
    "sliding_window": 16,
    "tie_word_embeddings": True,
    "use_bidirectional_attention": False,
    "vocab_size": 500,
}


def test_prompts_and_decode_are_hfs():
    small.check(MODEL, SMALL, "p300")
