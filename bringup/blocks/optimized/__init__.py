"""Blocks of optimised models: the same modules as beside, with a decode step whose activations stay sharded in L1.

choices    what a file chose, and may choose otherwise: formats, fidelities, programs, cores
product    a linear layer with a program of its own for a step and for a prompt
layers     embedding, norm, attention, MLPs, head around such products
generate   the model whose next token stays on the device
"""

from bringup.blocks.optimized.choices import Choices
from bringup.blocks.optimized.generate import OptimizedCausalLM
from bringup.blocks.optimized.layers import (
    OptimizedAttention,
    OptimizedGatedMLP,
    OptimizedLMHead,
    OptimizedRelu2MLP,
    ShardedEmbedding,
    ShardedRMSNorm,
)

__all__ = [
    "Choices",
    "OptimizedAttention",
    "OptimizedCausalLM",
    "OptimizedGatedMLP",
    "OptimizedLMHead",
    "OptimizedRelu2MLP",
    "ShardedEmbedding",
    "ShardedRMSNorm",
]
