"""TTNN building blocks of decoder language models; they import `ttnn` and never ask which one they got.

parallel   which chip holds what, and the collectives
weights    HF linear layers as device tensors
precision  formats and compute configs of one model
cache      keys and values on the device: a row for every user, or a pool of blocks
memory     does it fit, and with which cache, before anything is loaded
config     the HF configs a model file covers, the systems it serves
embedding  token table
norm       RMSNorm and LayerNorm, of the hidden state, of each head, of all heads
rope       rotary tables from HF, rotations of queries and keys
attention  grouped-query attention over the cache
shared_attention    over the keys of a layer before
per_layer  a vector of every token for each layer
mlp        gated and plain MLPs
router     which experts a token goes to
moe        mixtures of experts, each chip with a share of them
state      what layers without keys keep of each user; causal convolutions
linear_attention    the gated delta rule
latent_attention    one key for all heads, of which they make theirs
generate   the HF-facing model: prompts, decode steps, generate()
"""

from bringup.blocks.attention import (
    Attention,
    GatedAttention,
    NormAfterRotation,
    NormOverHeads,
    SoftCappedAttention,
    SubNormAttention,
)
from bringup.blocks.config import delegate, read_config
from bringup.blocks.embedding import Embedding
from bringup.blocks.generate import CausalLM, soft_cap
from bringup.blocks.latent_attention import LatentAttention
from bringup.blocks.linear_attention import GatedDeltaNet
from bringup.blocks.mlp import GatedMLP, PlainMLP, Relu2MLP, SubNormGatedMLP, XieluMLP
from bringup.blocks.moe import ClampedExperts, MixtureOfExperts
from bringup.blocks.norm import (
    HeadLayerNorm,
    LayerNorm,
    RMSNorm,
    UnitOffsetHeadNorm,
    UnitOffsetLayerNorm,
    UnitOffsetRMSNorm,
)
from bringup.blocks.parallel import Mesh
from bringup.blocks.per_layer import LayerScalar, PerLayerInputs, PerLayerProjection
from bringup.blocks.precision import Precision
from bringup.blocks.rope import NoRope, Rope, RopeTables, Rotation
from bringup.blocks.router import Routing
from bringup.blocks.shared_attention import SharedAttention
from bringup.blocks.state import ShortConv
from bringup.blocks.weights import LMHead

__all__ = [
    "Attention",
    "CausalLM",
    "ClampedExperts",
    "Embedding",
    "GatedAttention",
    "GatedDeltaNet",
    "GatedMLP",
    "HeadLayerNorm",
    "LMHead",
    "LatentAttention",
    "LayerNorm",
    "LayerScalar",
    "Mesh",
    "MixtureOfExperts",
    "NoRope",
    "NormAfterRotation",
    "NormOverHeads",
    "PerLayerInputs",
    "PerLayerProjection",
    "PlainMLP",
    "Precision",
    "RMSNorm",
    "Relu2MLP",
    "Rope",
    "RopeTables",
    "Rotation",
    "Routing",
    "SharedAttention",
    "ShortConv",
    "SoftCappedAttention",
    "SubNormAttention",
    "SubNormGatedMLP",
    "UnitOffsetHeadNorm",
    "UnitOffsetLayerNorm",
    "UnitOffsetRMSNorm",
    "XieluMLP",
    "delegate",
    "read_config",
    "soft_cap",
]
