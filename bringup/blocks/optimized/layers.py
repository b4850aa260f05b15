"""The modules of an optimised decoder. The rows of a step or of a short prompt stay in L1, their columns on cores."""

import torch
import torch.nn.functional as F
import ttnn

from bringup.blocks import weights
from bringup.blocks.attention import Attention
from bringup.blocks.embedding import Embedding
from bringup.blocks.mlp import MLP, GatedMLP
from bringup.blocks.norm import RMSNorm
from bringup.blocks.optimized.choices import Choices
from bringup.blocks.optimized.product import Columns, Product, divisor, whole
from bringup.blocks.parallel import TILE, Mesh, round_up

HEAD_COLUMNS = 16384  # of the head in one product: more of its tiles than a core's L1 holds lie in a bank


class ShardedEmbedding(Embedding):
    """`Embedding` whose short rows lie as the residual does."""

    def __init__(self, hf_embedding: torch.nn.Module, mesh: Mesh, choices: Choices):
        super().__init__(hf_embedding, mesh)
        self.columns = Columns(hf_embedding.weight.shape[1], choices.cores, mesh)

    def forward(self, tokens: ttnn.Tensor) -> ttnn.Tensor:
        return self.columns.put(super().forward(tokens))


class ShardedRMSNorm(RMSNorm):
    """`RMSNorm`; of short rows each core takes the columns that it has."""

    def __init__(self, hf_norm: torch.nn.Module, eps: float, mesh: Mesh, choices: Choices):
        super().__init__(hf_norm, eps, mesh, choices)
        self.weight = mesh.put((hf_norm.weight.detach() + self.OFFSET).view(1, 1, -1, TILE), ttnn.bfloat16)
        self.columns = Columns(len(hf_norm.weight), choices.cores, mesh)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        x = self.columns.put(x)
        if not x.is_sharded():
            return super().forward(x)
        each = self.columns.each
        program = ttnn.LayerNormShardedMultiCoreProgramConfig(
            compute_with_storage_grid_size=self.columns.cores,
            subblock_w=divisor(4, each),  # tiles that an fp32 destination holds
            block_h=x.shape[-2] // TILE,
            block_w=each,
            inplace=False,
        )
        how = {"program_config": program, "compute_kernel_config": self.compute, "memory_config": x.memory_config()}
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, **how)


class Summed:
    """A row-parallel product, summed over the chips, as the residual lies; frees what goes in."""

    def __init__(self, weight: ttnn.Tensor, name: str, mesh: Mesh, choices: Choices):
        self.mesh, self.columns = mesh, Columns(weight.shape[-1], choices.cores, mesh)
        self.product = Product(weight, name, mesh, choices)

    def __call__(self, x: ttnn.Tensor) -> ttnn.Tensor:
        part = self.product(x)
        ttnn.deallocate(x)
        return self.columns.put(self.mesh.all_reduce(whole(part)) if self.mesh.tensor_ways > 1 else part)


class OptimizedAttention(Attention):
    """`Attention` with programs of its own for its two products."""

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, choices: Choices, **more):
        super().__init__(hf_attention, config, cache, mesh, choices, **more)
        unbiased("attention", self.qkv_bias, self.o_bias)
        self.qkv = Product(self.qkv_proj, "qkv", mesh, choices)
        self.o = Summed(self.o_proj, "o", mesh, choices)

    def project(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return whole(self.qkv(x))  # heads are cut out of pages

    def output(self, heads: ttnn.Tensor) -> ttnn.Tensor:
        return self.o(heads)


class _OptimizedMLP(MLP):
    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, *more):
        super().__init__(hf_mlp, mesh, choices, *more)
        unbiased("MLP", self.up_bias, self.down_bias)
        self.up_product = Product(self.up_proj, "up", mesh, choices)
        self.down_product = Summed(self.down_proj, "down", mesh, choices)


class OptimizedGatedMLP(_OptimizedMLP, GatedMLP):
    """`GatedMLP`: the activation goes with the product of gate and up."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, activation: str = "silu"):
        super().__init__(hf_mlp, mesh, choices, activation)
        unbiased("MLP", self.gate_bias)
        self.gate_product = Product(self.gate_proj, "up", mesh, choices)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        gate, up = self.gate_product(x), self.up_product(x)
        inner = ttnn.mul(gate, up, input_tensor_a_activations=self.activation, memory_config=gate.memory_config())
        for used in (gate, up):
            ttnn.deallocate(used)
        return self.down_product(inner)


class OptimizedRelu2MLP(_OptimizedMLP):
    """`Relu2MLP`: down(relu(up(x))^2)."""

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        up = self.up_product(x)
        relu = {f"input_tensor_{side}_activations": [ttnn.UnaryOpType.RELU] for side in "ab"}
        inner = ttnn.mul(up, up, memory_config=up.memory_config(), **relu)
        ttnn.deallocate(up)
        return self.down_product(inner)


class OptimizedLMHead(torch.nn.Module):
    """x [1, 1, rows, hidden] -> logits [1, 1, rows, vocab] of the chip, in parts; the vocabulary is padded to equal
    ones."""

    def __init__(self, weight: torch.Tensor, mesh: Mesh, choices: Choices):
        super().__init__()
        ways = mesh.tensor_ways
        parts = -(-len(weight) // (ways * HEAD_COLUMNS))
        columns = round_up(-(-len(weight) // ways), TILE * parts)
        shares = F.pad(weight.detach(), (0, 0, 0, columns * ways - len(weight))).chunk(ways)
        cut = [torch.cat([share.chunk(parts)[i] for share in shares]) for i in range(parts)]
        how = choices.format("head")
        self.parts = [Product(weights.column(part, mesh, how), "head", mesh, choices) for part in cut]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        found = [whole(part(x)) for part in self.parts]
        if len(found) == 1:
            return found[0]
        logits = ttnn.concat(found, dim=3)
        for used in found:
            ttnn.deallocate(used)
        return logits


def unbiased(where: str, *biases):
    """ValueError where there is a bias: the program for weights in the banks has no place for one here."""
    if any(bias is not None for bias in biases):
        raise ValueError(f"{where}: optimised products have no bias")
