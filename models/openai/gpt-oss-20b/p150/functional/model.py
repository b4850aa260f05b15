"""gpt-oss-20b on one Blackhole (p150).

    tokens -> embed_tokens -> 24 x [ x + self_attn(input_layernorm(x)) ; x + mlp(post_attention_layernorm(x)) ]
           -> norm -> lm_head -> logits

hidden 2880, MLP 2880 (a mixture: 4 of 16 experts by the softmax over them), 64 query heads and 8 KV heads of 64, a sink
for each head, vocabulary 201088, YaRN RoPE. Weights are bfloat8_b, activations and cache bfloat16. Reference:
transformers, GptOssForCausalLM.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import ttnn

from bringup.blocks import (
    Attention,
    CausalLM,
    ClampedExperts,
    Embedding,
    LMHead,
    Mesh,
    MixtureOfExperts,
    Precision,
    RMSNorm,
    Routing,
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
    head_dim: int
    rms_norm_eps: float
    layer_types: list
    sliding_window: int
    num_experts_per_tok: int

    REQUIRES: ClassVar = {
        "model_type": ["gpt_oss"],
        "attention_bias": [True],
        "hidden_act": ["silu"],
        "tie_word_embeddings": [False],
        "rope_parameters.rope_type": ["yarn"],
    }


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, i: int, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        eps = config.rms_norm_eps
        sliding = config.layer_types[i] == "sliding_attention"
        self.input_layernorm = RMSNorm(hf_layer.input_layernorm, eps, mesh, precision)
        self.self_attn = Attention(
            hf_layer.self_attn, config, cache, mesh, precision, window=config.sliding_window if sliding else None
        )
        self.post_attention_layernorm = RMSNorm(hf_layer.post_attention_layernorm, eps, mesh, precision)
        self.mlp = MixtureOfExperts(
            hf_layer.mlp, Routing(config.num_experts_per_tok), mesh, precision, experts=ClampedExperts
        )

    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))


class Decoder(torch.nn.Module):
    def __init__(self, hf_decoder, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.embed_tokens = Embedding(hf_decoder.embed_tokens, mesh)
        self.layers = torch.nn.ModuleList(
            DecoderLayer(hf_layer, i, config, cache, mesh, precision) for i, hf_layer in enumerate(hf_decoder.layers)
        )
        self.norm = RMSNorm(hf_decoder.norm, config.rms_norm_eps, mesh, precision)

    def forward(self, tokens, step):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, step)
        return x


class GptOss(CausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__(hf_model, config, mesh, max_seq_len, precision)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, precision)
        self.lm_head = LMHead(hf_model.lm_head.weight, mesh, precision)

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    return GptOss(hf_model, config, Mesh(tt_device, data_parallel), max_seq_len, precision)
