"""The modules of an optimised decoder: in a step, activations are sharded over the columns in L1 from norm to norm."""

import torch
import torch.nn.functional as F
import ttnn

from bringup.blocks import weights
from bringup.blocks.attention import Attention
from bringup.blocks.embedding import Embedding
from bringup.blocks.mlp import MLP, GatedMLP
from bringup.blocks.norm import RMSNorm
from bringup.blocks.optimized.choices import Choices
from bringup.blocks.optimized.product import Product, beside, cores_for, whole
from bringup.blocks.parallel import TILE, Mesh, round_up

HEAD_COLUMNS = 16384  # of the head in one product: more of its tiles than a core's L1 holds lie in a bank


class ShardedEmbedding(Embedding):
    """`Embedding` whose rows of a step lie where the residual does."""

    def __init__(self, hf_embedding: torch.nn.Module, mesh: Mesh, choices: Choices):
        super().__init__(hf_embedding, mesh)
        columns = hf_embedding.weight.shape[1]
        self.residual = beside(columns, cores_for(columns // TILE, choices.cores, mesh.grid))

    def forward(self, tokens: ttnn.Tensor) -> ttnn.Tensor:
        x = super().forward(tokens)
        in_step = x.memory_config().buffer_type == ttnn.BufferType.L1
        return ttnn.to_memory_config(x, self.residual) if in_step else x


class ShardedRMSNorm(RMSNorm):
    """`RMSNorm`; of a step each core takes the columns it has."""

    def __init__(self, hf_norm: torch.nn.Module, eps: float, mesh: Mesh, choices: Choices):
        super().__init__(hf_norm, eps, mesh, choices)
        self.weight = mesh.put((hf_norm.weight.detach() + self.OFFSET).view(1, 1, -1, TILE), ttnn.bfloat16)
        tiles = len(hf_norm.weight) // TILE
        across, down = cores_for(tiles, choices.cores, mesh.grid)
        each = tiles // (across * down)
        self.program = ttnn.LayerNormShardedMultiCoreProgramConfig(
            compute_with_storage_grid_size=[across, down],
            subblock_w=max(w for w in (1, 2, 3, 4) if not each % w),
            block_h=1,
            block_w=each,
            inplace=False,
        )

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        if not x.is_sharded():
            return super().forward(x)
        return ttnn.rms_norm(
            x,
            epsilon=self.eps,
            weight=self.weight,
            program_config=self.program,
            memory_config=x.memory_config(),
            compute_kernel_config=self.compute,
        )


class Summed:
    """Sums a row-parallel product over the chips, to where the residual of a step lies."""

    def __init__(self, columns: int, mesh: Mesh, choices: Choices):
        self.mesh = mesh
        self.residual = beside(columns, cores_for(columns // TILE, choices.cores, mesh.grid))

    def __call__(self, x: ttnn.Tensor, in_step: bool) -> ttnn.Tensor:
        if self.mesh.tensor_ways > 1:
            x = self.mesh.all_reduce(whole(x))
        return ttnn.to_memory_config(x, self.residual) if in_step else x


class OptimizedAttention(Attention):
    """`Attention` with programs of its own for its two products."""

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, choices: Choices, **more):
        super().__init__(hf_attention, config, cache, mesh, choices, **more)
        unbiased("attention", self.qkv_bias, self.o_bias)
        self.qkv, self.o = Product(self.qkv_proj, "qkv", mesh, choices), Product(self.o_proj, "o", mesh, choices)
        self.summed = Summed(config.hidden_size, mesh, choices)

    def project(self, x: ttnn.Tensor) -> ttnn.Tensor:
        if not x.is_sharded():
            return self.qkv.prompt(x)
        qkv = self.qkv.step(x)
        return whole(qkv)  # as heads are cut out of it

    def output(self, heads: ttnn.Tensor) -> ttnn.Tensor:
        in_step = heads.is_sharded()
        out = self.o.step(heads) if in_step else self.o.prompt(heads)
        ttnn.deallocate(heads)
        return self.summed(out, in_step)


class _OptimizedMLP(MLP):
    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, *more):
        super().__init__(hf_mlp, mesh, choices, *more)
        unbiased("MLP", self.up_bias, self.down_bias)
        self.up_product = Product(self.up_proj, "up", mesh, choices)
        self.down_product = Product(self.down_proj, "down", mesh, choices)
        self.summed = Summed(self.down_proj.shape[-1], mesh, choices)

    def down(self, inner: ttnn.Tensor, in_step: bool) -> ttnn.Tensor:
        out = self.down_product.step(inner) if in_step else self.down_product.prompt(inner)
        ttnn.deallocate(inner)
        return self.summed(out, in_step)


class OptimizedGatedMLP(_OptimizedMLP, GatedMLP):
    """`GatedMLP`: the activation goes with the product of gate and up."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, activation: str = "silu"):
        super().__init__(hf_mlp, mesh, choices, activation)
        unbiased("MLP", self.gate_bias)
        self.gate_product = Product(self.gate_proj, "up", mesh, choices)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        in_step = x.is_sharded()
        gate, up = (p.step(x) if in_step else p.prompt(x) for p in (self.gate_product, self.up_product))
        inner = ttnn.mul(gate, up, input_tensor_a_activations=self.activation, memory_config=gate.memory_config())
        for used in (gate, up):
            ttnn.deallocate(used)
        return self.down(inner, in_step)


class OptimizedRelu2MLP(_OptimizedMLP):
    """`Relu2MLP`: down(relu(up(x))^2)."""

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        in_step = x.is_sharded()
        up = self.up_product.step(x) if in_step else self.up_product.prompt(x)
        relu = [ttnn.UnaryOpType.RELU]
        inner = ttnn.mul(
            up, up, input_tensor_a_activations=relu, input_tensor_b_activations=relu, memory_config=up.memory_config()
        )
        ttnn.deallocate(up)
        return self.down(inner, in_step)


class OptimizedLMHead(torch.nn.Module):
    """x [1, 1, rows, hidden] -> logits [1, 1, rows, vocab] of the chip, in parts; the vocabulary is padded to equal
    ones."""

    def __init__(self, weight: torch.Tensor, mesh: Mesh, choices: Choices):
        super().__init__()
        ways = mesh.tensor_ways
        columns = -(-len(weight) // ways)
        parts = -(-columns // HEAD_COLUMNS)
        columns = round_up(columns, TILE * parts)
        whole_weight = F.pad(weight.detach(), (0, 0, 0, columns * ways - len(weight)))
        shares = whole_weight.chunk(ways)
        format_ = choices.format("head")
        self.parts = [
            Product(
                weights.column(torch.cat([share.chunk(parts)[i] for share in shares]), mesh, format_), "head", mesh, choices
            )
            for i in range(parts)
        ]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        in_step = x.is_sharded()
        found = [whole(part.step(x)) if in_step else part.prompt(x) for part in self.parts]
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
