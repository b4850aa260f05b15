"""gemma-3-1b-it on one Wormhole (n150).

    tokens -> hidden_size**0.5 * embed_tokens -> 26 x [
           x + post_attention_layernorm(self_attn(input_layernorm(x))) ;
           x + post_feedforward_layernorm(mlp(pre_feedforward_layernorm(x))) ]
           -> norm -> lm_head (tied: the token table) -> logits

hidden 1152, MLP 6912 (gated GELU by tanh), 4 query heads and 1 KV heads of 256, each head of q and k normed, scores
times query_pre_attn_scalar**-0.5, vocabulary 262144, plain RoPE in sliding layers, plain RoPE in full layers. Weights,
activations and cache are bfloat16. Reference: transformers, Gemma3ForCausalLM.
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
    sliding_window: int
    query_pre_attn_scalar: int

    REQUIRES: ClassVar = {
        "model_type": ["gemma3_text"],
        "attention_bias": [False],
        "attn_logit_softcapping": [None],
        "final_logit_softcapping": [None],
        "hidden_activation": ["gelu_pytorch_tanh"],
        "tie_word_embeddings": [True],
        "use_bidirectional_attention": [False],
        "rope_parameters.sliding_attention.rope_type": ["default"],
        "rope_parameters.full_attention.rope_type": ["default"],
    }


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, i: int, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        eps = config.rms_norm_eps
        sliding = config.layer_types[i] == "sliding_attention"
        self.input_layernorm = UnitOffsetRMSNorm(hf_layer.input_layernorm, eps, mesh, precision)
        self.self_attn = Attention(
            hf_layer.self_attn,
            config,
            cache,
            mesh,
            precision,
            norm=UnitOffsetHeadNorm,
            window=config.sliding_window if sliding else None,
            scale=config.query_pre_attn_scalar**-0.5,
            layer_type=config.layer_types[i],
        )
        self.post_attention_layernorm = UnitOffsetRMSNorm(hf_layer.post_attention_layernorm, eps, mesh, precision)
        self.pre_feedforward_layernorm = UnitOffsetRMSNorm(hf_layer.pre_feedforward_layernorm, eps, mesh, precision)
        self.mlp = GatedMLP(hf_layer.mlp, mesh, precision, activation="gelu_pytorch_tanh")
        self.post_feedforward_layernorm = UnitOffsetRMSNorm(hf_layer.post_feedforward_layernorm, eps, mesh, precision)

    def forward(self, x, step):
        x = ttnn.add(x, self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), step)))
        return ttnn.add(x, self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x))))


class Decoder(torch.nn.Module):
    def __init__(self, hf_decoder, config: Config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.embed_tokens = Embedding(hf_decoder.embed_tokens, mesh, scale=config.hidden_size**0.5)
        self.layers = torch.nn.ModuleList(
            DecoderLayer(hf_layer, i, config, cache, mesh, precision) for i, hf_layer in enumerate(hf_decoder.layers)
        )
        self.norm = UnitOffsetRMSNorm(hf_decoder.norm, config.rms_norm_eps, mesh, precision)

    def forward(self, tokens, step):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, step)
        return x


class Gemma3(CausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__(hf_model, config, mesh, max_seq_len, precision)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, precision)
        self.lm_head = LMHead(hf_model.model.embed_tokens.weight, mesh, precision)  # tied

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    return Gemma3(hf_model, config, Mesh(tt_device, data_parallel), max_seq_len, precision)
