"""TTNN building blocks of decoder language models; they import `ttnn` and never ask which one they got.

parallel   which chip holds what, and the collectives
weights    HF linear layers as device tensors
precision  formats and compute configs of one model
cache      keys and values on the device: a row for every user, or a pool of blocks
memory     does it fit, and with which cache, before anything is loaded
config     the HF configs a model file covers, the systems it serves
embedding  token table
norm       RMSNorm, of the hidden state and of each head
rope       rotary tables from HF, rotation of queries and keys
attention  grouped-query attention over the cache
mlp        gated MLP, squared-ReLU MLP
generate   the HF-facing model: prompts, decode steps, generate()
"""

from bringup.blocks.attention import Attention
from bringup.blocks.config import delegate, read_config
from bringup.blocks.embedding import Embedding
from bringup.blocks.generate import CausalLM
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
