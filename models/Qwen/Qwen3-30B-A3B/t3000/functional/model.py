"""Qwen3-30B-A3B on eight Wormholes (t3000), tensor parallel over the whole 2x4 mesh.

    tokens -> embed_tokens -> 48 x [ x + self_attn(input_layernorm(x)) ; x + mlp(post_attention_layernorm(x)) ]
           -> norm -> lm_head -> logits

hidden 2048, MLP 768 (a mixture: 4 of 16 experts by the softmax over them), 32 query heads and 4 KV heads of 128, each
head of q and k normed, vocabulary 151936, plain RoPE. self_attn and mlp end in an all_reduce over the chips. Weights,
activations and cache are bfloat16. Reference: transformers, Qwen3MoeForCausalLM.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import ttnn

from bringup.blocks import (
    Attention,
    CausalLM,
    Embedding,
    LMHead,
    Mesh,
    MixtureOfExperts,
    Precision,
    RMSNorm,
    Routing,
    read_config,
)

MESH_SHAPE = (2, 4)
MAX_SEQ_LEN = 1024  # where the caller names none
WEIGHT_DTYPE = ttnn.bfloat16
PRECISION = Precision.of(WEIGHT_DTYPE)  # HiFi3 and an fp32 destination everywhere


@dataclass(frozen=True)
class Config:
    """The HF fields this file reads."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    num_experts_per_tok: int
    norm_topk_prob: bool

    REQUIRES: ClassVar = {
        "model_type": ["qwen3_moe"],
        "attention_bias": [False],
        "hidden_act": ["silu"],
        "sliding_window": [None],
        "tie_word_embeddings": [False],
        "use_sliding_window": [False],
        "rope_parameters.rope_type": ["default"],
    }


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        eps = config.rms_norm_eps
        self.input_layernorm = RMSNorm(hf_layer.input_layernorm, eps, mesh, precision)
        self.self_attn = Attention(hf_layer.self_attn, config, cache, mesh, precision)
        self.post_attention_layernorm = RMSNorm(hf_layer.post_attention_layernorm, eps, mesh, precision)
        self.mlp = MixtureOfExperts(
            hf_layer.mlp, Routing(config.num_experts_per_tok, normalised=config.norm_topk_prob), mesh, precision
        )

    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))


class Decoder(torch.nn.Module):
    def __init__(self, hf_decoder, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.embed_tokens = Embedding(hf_decoder.embed_tokens, mesh)
        self.layers = torch.nn.ModuleList(
            DecoderLayer(hf_layer, config, cache, mesh, precision) for hf_layer in hf_decoder.layers
        )
        self.norm = RMSNorm(hf_decoder.norm, config.rms_norm_eps, mesh, precision)

    def forward(self, tokens, step):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, step)
        return x


class Qwen3Moe(CausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__(hf_model, config, mesh, max_seq_len, precision)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, precision)
        self.lm_head = LMHead(hf_model.lm_head.weight, mesh, precision)

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    return Qwen3Moe(hf_model, config, Mesh(tt_device, data_parallel), max_seq_len, precision)
