"""Phi-4-mini-instruct on one Wormhole (n150).

    tokens -> embed_tokens -> 32 x [ x + self_attn(input_layernorm(x)) ; x + mlp(post_attention_layernorm(x)) ]
           -> norm -> lm_head (tied: the token table) -> logits

hidden 3072, MLP 8192 (gated SiLU), 24 query heads and 8 KV heads of 128, vocabulary 200064, longrope RoPE. Weights are
bfloat8_b, activations and cache bfloat16. Reference: transformers, Phi3ForCausalLM.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import ttnn

from bringup.blocks import (
    Attention,
    CausalLM,
    Embedding,
    GatedMLP,
    LMHead,
    Mesh,
    Precision,
    RMSNorm,
    Rotation,
    read_config,
)

MESH_SHAPE = (1, 1)
MAX_SEQ_LEN = 1024  # where the caller names none
WEIGHT_DTYPE = ttnn.bfloat8_b
PRECISION = Precision.of(WEIGHT_DTYPE)  # HiFi3 and an fp32 destination everywhere


@dataclass(frozen=True)
class Config:
    """The HF fields this file reads."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    sliding_window: int

    ROTATION: ClassVar = Rotation(part=0.75)
    REQUIRES: ClassVar = {
        "model_type": ["phi3"],
        "hidden_act": ["silu"],
        "tie_word_embeddings": [True],
        "rope_parameters.rope_type": ["longrope"],
        "rope_parameters.partial_rotary_factor": [0.75],
    }

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        eps = config.rms_norm_eps
        self.input_layernorm = RMSNorm(hf_layer.input_layernorm, eps, mesh, precision)
        self.self_attn = Attention(hf_layer.self_attn, config, cache, mesh, precision, window=config.sliding_window)
        self.post_attention_layernorm = RMSNorm(hf_layer.post_attention_layernorm, eps, mesh, precision)
        self.mlp = GatedMLP(hf_layer.mlp, mesh, precision)

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


class Phi3(CausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__(hf_model, config, mesh, max_seq_len, precision)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, precision)
        self.lm_head = LMHead(hf_model.model.embed_tokens.weight, mesh, precision)  # tied

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    return Phi3(hf_model, config, Mesh(tt_device, data_parallel), max_seq_len, precision)
