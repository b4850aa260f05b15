"""Qwen3.5-0.8B on one Wormhole (n150).

    tokens -> embed_tokens -> 24 x [ x + linear_attn|self_attn(input_layernorm(x)) ;
                                     x + mlp(post_attention_layernorm(x)) ]
           -> norm -> lm_head (tied: the token table) -> logits

hidden 1024, MLP 3584 (gated SiLU), 8 query heads and 2 KV heads of 256, each head of q and k normed, gated before
o_proj; other layers: the gated delta rule over a convolution, vocabulary 248320, plain RoPE. Weights, activations and
cache are bfloat16. Reference: transformers, Qwen3_5ForCausalLM.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import ttnn

from bringup.blocks import (
    CausalLM,
    Embedding,
    GatedAttention,
    GatedDeltaNet,
    GatedMLP,
    LMHead,
    Mesh,
    Precision,
    Rotation,
    UnitOffsetHeadNorm,
    UnitOffsetRMSNorm,
    read_config,
)

MESH_SHAPE = (1, 1)
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
    layer_types: list

    ROTATION: ClassVar = Rotation(part=0.25)
    REQUIRES: ClassVar = {
        "model_type": ["qwen3_5_text"],
        "attention_bias": [False],
        "hidden_act": ["silu"],
        "tie_word_embeddings": [True],
        "rope_parameters.rope_type": ["default"],
        "rope_parameters.partial_rotary_factor": [0.25],
    }


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, i: int, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        eps = config.rms_norm_eps
        linear = config.layer_types[i] == "linear_attention"
        self.input_layernorm = UnitOffsetRMSNorm(hf_layer.input_layernorm, eps, mesh, precision)
        self.linear = linear
        if linear:
            self.linear_attn = GatedDeltaNet(hf_layer.linear_attn, cache, mesh, precision)
        else:
            self.self_attn = GatedAttention(hf_layer.self_attn, config, cache, mesh, precision, norm=UnitOffsetHeadNorm)
        self.post_attention_layernorm = UnitOffsetRMSNorm(hf_layer.post_attention_layernorm, eps, mesh, precision)
        self.mlp = GatedMLP(hf_layer.mlp, mesh, precision)

    def forward(self, x, step):
        mixer = self.linear_attn if self.linear else self.self_attn
        x = ttnn.add(x, mixer(self.input_layernorm(x), step))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))


class Decoder(torch.nn.Module):
    def __init__(self, hf_decoder, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.embed_tokens = Embedding(hf_decoder.embed_tokens, mesh)
        self.layers = torch.nn.ModuleList(
            DecoderLayer(hf_layer, i, config, cache, mesh, precision) for i, hf_layer in enumerate(hf_decoder.layers)
        )
        self.norm = UnitOffsetRMSNorm(hf_decoder.norm, config.rms_norm_eps, mesh, precision)

    def forward(self, tokens, step):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, step)
        return x


class Qwen3_5(CausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__(hf_model, config, mesh, max_seq_len, precision)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, precision)
        self.lm_head = LMHead(hf_model.model.embed_tokens.weight, mesh, precision)  # tied

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    return Qwen3_5(hf_model, config, Mesh(tt_device, data_parallel), max_seq_len, precision)
