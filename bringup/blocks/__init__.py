"""TTNN building blocks of decoder language models; they import `ttnn` and never ask which one they got.

parallel    Mesh: which chip holds what, and the collectives       weights     HF linear layers as device tensors
config      read an HF config, refuse what a model does not cover  precision   formats and compute configs of one model
embedding   token table        rope   rotary tables and rotation   norm        RMSNorm
attention   GQA with a KV cache  mlp  gated and squared-ReLU MLP   generate    the HF-facing model: prefill, decode, generate()
"""

from bringup.blocks.attention import Attention
from bringup.blocks.config import read_config
from bringup.blocks.embedding import Embedding
from bringup.blocks.generate import CausalLM, delegate
from bringup.blocks.mlp import GatedMLP, Relu2MLP
from bringup.blocks.norm import RMSNorm
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision
from bringup.blocks.rope import RopeTables
from bringup.blocks.weights import LMHead

__all__ = [
    "Attention",
    "CausalLM",
    "Embedding",
    "GatedMLP",
    "LMHead",
    "Mesh",
    "Precision",
    "Relu2MLP",
    "RMSNorm",
    "RopeTables",
    "delegate",
    "read_config",
]
