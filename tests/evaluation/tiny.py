"""A random Llama of 64 columns, and as a checkpoint directory: for what needs an HF model and not a good one."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

FILES = Path(__file__).parent / "files"


def hf_model(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2, initializer_range=0.2,  # decided predictions: a greedy text that is no single token
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def save(folder, seed=0):
    hf_model(torch.bfloat16, seed).save_pretrained(folder)
    return folder
