"""SmolLM2-135M-Instruct, with a small random model of its kind: prompts, decode and generate() are HF's."""

from pathlib import Path

import pytest

from bringup.new import small

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/HuggingFaceTB/SmolLM2-135M-Instruct"
# HuggingFaceTB/SmolLM2-135M-Instruct with its heads, norms, biases and ties, and few layers of small sizes.
SMALL = {
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 288,
    "initializer_range": 0.08,
    "intermediate_size": 368,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "num_attention_heads": 9,
    "num_hidden_layers": 2,
    "num_key_value_heads": 3,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 500,
}


@pytest.mark.parametrize("system", ["n150", "p150"])
def test_prompts_and_decode_are_hfs(system):
    small.check(MODEL / system / "functional" / "model.py", SMALL, system)
