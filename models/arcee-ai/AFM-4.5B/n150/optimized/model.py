"""AFM-4.5B on one Wormhole (n150), optimised.

    tokens -> embed_tokens -> 36 x [ x + self_attn(input_layernorm(x)) ; x + mlp(post_attention_layernorm(x)) ]
           -> norm -> lm_head -> logits

hidden 2560, MLP 18432 (squared ReLU, no gate), 20 query heads and 4 KV heads of 128, vocabulary 128004, YaRN RoPE.
Rows of a step stay in L1, their columns on cores, from norm to norm; weights lie in the banks of DRAM side by side; the
next token is chosen on the device. choices.json has formats, fidelities, programs and cores.
Reference: transformers, ArceeForCausalLM.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import ttnn

from bringup.blocks import Mesh, read_config
from bringup.blocks.optimized import (
    Choices,
    OptimizedAttention,
    OptimizedCausalLM,
    OptimizedLMHead,
    OptimizedRelu2MLP,
    ShardedEmbedding,
    ShardedRMSNorm,
)

MESH_SHAPE = (1, 1)
MAX_SEQ_LEN = 256  # where the caller names none
PRECISION = Choices.read(Path(__file__).with_name("choices.json"))


@dataclass(frozen=True)
class Config:
    """The HF fields this file reads."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float

    REQUIRES: ClassVar = {
        "model_type": ["arcee"],
        "hidden_act": ["relu2"],
        "attention_bias": [False],
        "mlp_bias": [False],
        "tie_word_embeddings": [False],
        "rope_parameters.rope_type": ["yarn"],
    }


class DecoderLayer(torch.nn.Module):
    def __init__(self, hf_layer, config: Config, cache, mesh: Mesh, choices: Choices):
        super().__init__()
        eps = config.rms_norm_eps
        self.input_layernorm = ShardedRMSNorm(hf_layer.input_layernorm, eps, mesh, choices)
        self.self_attn = OptimizedAttention(hf_layer.self_attn, config, cache, mesh, choices)
        self.post_attention_layernorm = ShardedRMSNorm(hf_layer.post_attention_layernorm, eps, mesh, choices)
        self.mlp = OptimizedRelu2MLP(hf_layer.mlp, mesh, choices)

    def forward(self, x, step):
        x = ttnn.add(x, self.self_attn(self.input_layernorm(x), step))
        return ttnn.add(x, self.mlp(self.post_attention_layernorm(x)))


class Decoder(torch.nn.Module):
    def __init__(self, hf_decoder, config: Config, cache, mesh: Mesh, choices: Choices):
        super().__init__()
        self.embed_tokens = ShardedEmbedding(hf_decoder.embed_tokens, mesh, choices)
        self.layers = torch.nn.ModuleList(
            DecoderLayer(hf_layer, config, cache, mesh, choices) for hf_layer in hf_decoder.layers
        )
        self.norm = ShardedRMSNorm(hf_decoder.norm, config.rms_norm_eps, mesh, choices)

    def forward(self, tokens, step):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, step)
        return x


class Afm(OptimizedCausalLM):
    def __init__(self, hf_model, config: Config, mesh: Mesh, max_seq_len: int, choices: Choices):
        super().__init__(hf_model, config, mesh, max_seq_len, choices)
        self.model = Decoder(hf_model.model, config, self.cache, mesh, choices)
        self.lm_head = OptimizedLMHead(hf_model.lm_head.weight, mesh, choices)

    def logits(self, x):
        return self.lm_head(self.model.norm(x))


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    config = read_config(Config, hf_model.config)
    mesh = Mesh(tt_device, data_parallel, precision.asynchronous)
    return Afm(hf_model, config, mesh, max_seq_len, precision)
