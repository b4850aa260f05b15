"""Small HF models with random weights, and how far a device result may be from them."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bringup.backends.model_files import import_file
from bringup.new.small import APPROXIMATE_EXP, as_good_as_bf16, as_stored, in_bf16, relative_l2, through  # noqa: F401

MODELS = Path(__file__).parents[2] / "models"
SYSTEMS = {"n150": (1, 1), "n300": (1, 2), "t3000": (2, 4)}

# Features of the four models at a small size. Odd sizes on purpose: an MLP and a vocabulary that no mesh divides.
SMALL = {
    "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 336, "vocab_size": 500,
    "max_position_embeddings": 4096, "initializer_range": 0.08, "rms_norm_eps": 1e-5,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 16.0, "original_max_position_embeddings": 256,
    "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
CONFIGS = {
    "Llama-3.2-1B": dict(
        model_type="llama", num_attention_heads=8, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True,
        rope_parameters=LLAMA3),
    "ALLaM-7B-Instruct-preview": dict(
        model_type="llama", num_attention_heads=8, num_key_value_heads=8, head_dim=32, tie_word_embeddings=False,
        rope_parameters=PLAIN),
    "AFM-4.5B": dict(
        model_type="arcee", hidden_size=320, num_attention_heads=10, num_key_value_heads=2, head_dim=32,
        hidden_act="relu2", tie_word_embeddings=False, rope_parameters=YARN),
    "Mistral-7B-Instruct-v0.3": dict(
        model_type="mistral", num_attention_heads=16, num_key_value_heads=8, head_dim=32, sliding_window=None,
        tie_word_embeddings=False, rope_parameters=PLAIN),
}  # fmt: skip


def small_hf_model(name: str, seed: int = 0, **changes):
    """A small random HF model with the features of `name`, in fp32."""
    config = AutoConfig.for_model(**{**SMALL, **CONFIGS[name], **changes})
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def pcc(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape, f"got {list(got.shape)}, want {list(want.shape)}"
    return torch.corrcoef(torch.stack([got.flatten().double(), want.flatten().double()]))[0, 1].item()


def load_model_file(name: str):
    """The module of models/<name>/functional/model.py."""
    return import_file(MODELS / name / "functional" / "model.py")
