"""The modules of an optimised decoder. The rows of a step or of a short prompt stay in L1, their columns on cores."""

import torch
import torch.nn.functional as F
import ttnn

from bringup.blocks import weights
from bringup.blocks.attention import Attention
from bringup.blocks.embedding import Embedding
from bringup.blocks.memory import TILE_BYTES
from bringup.blocks.mlp import MLP, GatedMLP
from bringup.blocks.norm import RMSNorm
from bringup.blocks.optimized.choices import Choices
from bringup.blocks.optimized.product import Columns, Product, divisor, of_rows, whole
from bringup.blocks.parallel import TILE, Mesh, round_up

#: Of a core's L1 for one product of the head: of each of its columns of tiles three blocks of K, a float32 sum and the
#: bfloat16 result. By arithmetic: a mock cluster does not run the program, so nothing confirms it. More of the head
#: than this holds lies in a bank.
HEAD_ROOM = 832 << 10


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
            compute_with_storage_grid_size=self.columns.shape,
            subblock_w=divisor(4, each),  # tiles that an fp32 destination holds
            block_h=x.shape[-2] // TILE,
            block_w=each,
            inplace=False,
        )
        how = {"program_config": program, "compute_kernel_config": self.compute, "memory_config": x.memory_config()}
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, **how)


class Summed:
    """A row-parallel product, summed over the chips, as the residual lies; frees what goes in."""

    def __init__(self, weight: ttnn.Tensor, name: str, mesh: Mesh, choices: Choices, given: Columns):
        self.mesh, self.columns = mesh, Columns(weight.shape[-1], choices.cores, mesh)
        self.product = Product(weight, name, mesh, choices, given, self.columns.count)

    def __call__(self, x: ttnn.Tensor) -> ttnn.Tensor:
        part = self.product(x)
        ttnn.deallocate(x)
        return self.columns.put(self.mesh.all_reduce(whole(part)) if self.mesh.tensor_ways > 1 else part)


class OptimizedAttention(Attention):
    """`Attention` with programs of its own for its two products, a head's columns on one core between them."""

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, choices: Choices, **more):
        super().__init__(hf_attention, config, cache, mesh, choices, **more)
        unbiased("attention", self.qkv_bias, self.o_bias)
        residual = Columns(self.qkv_proj.shape[-2], choices.cores, mesh)
        query, every = self.heads.n_query, self.heads.n_query + 2 * self.heads.n_kv
        leaves = divisor(mesh.grid.x * mesh.grid.y, every)
        self.qkv = Product(self.qkv_proj, "qkv", mesh, choices, residual, leaves)
        given = Columns(self.o_proj.shape[-2], query, mesh, row_by_row=True)
        self.o = Summed(self.o_proj, "o", mesh, choices, given)

    def project(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return self.qkv(x)

    def prefill(self, qkv: ttnn.Tensor, step) -> ttnn.Tensor:
        return super().prefill(whole(qkv), step)

    def attend(self, q: ttnn.Tensor, step) -> ttnn.Tensor:
        """Several heads of keys leave no shards (ttnn 0.81.1)."""
        place = self.one_user_a_core if self.heads.n_kv == 1 else ttnn.L1_MEMORY_CONFIG
        return self.cache.attend(q, step, memory_config=place, **self._sdpa(TILE, self.cache_len, self.step_sinks))

    def attend_prompt(self, q: ttnn.Tensor, k: ttnn.Tensor, v: ttnn.Tensor, step) -> ttnn.Tensor:
        how = self._sdpa(q.shape[-2], k.shape[-2], self.prompt_sinks)
        return self.cache.attend_prompt(q, k, v, step, memory_config=of_rows(q.shape[-2]), **how)

    def output(self, heads: ttnn.Tensor) -> ttnn.Tensor:
        return self.o(heads)


class _OptimizedMLP(MLP):
    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, *more):
        super().__init__(hf_mlp, mesh, choices, *more)
        unbiased("MLP", self.up_bias, self.down_bias)
        self.residual = Columns(self.up_proj.shape[-2], choices.cores, mesh)
        self.within = Columns(self.down_proj.shape[-2], choices.inner, mesh, row_by_row=True)
        self.up_product = Product(self.up_proj, "up", mesh, choices, self.residual, self.within.count)
        self.down_product = Summed(self.down_proj, "down", mesh, choices, self.within)


class OptimizedGatedMLP(_OptimizedMLP, GatedMLP):
    """`GatedMLP`: the activation goes with the product of gate and up."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, choices: Choices, activation: str = "silu"):
        super().__init__(hf_mlp, mesh, choices, activation)
        unbiased("MLP", self.gate_bias)
        self.gate_product = Product(self.gate_proj, "up", mesh, choices, self.residual, self.within.count)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        x = self.up_product.taken(x)
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
        ways, how = mesh.tensor_ways, choices.format("head")
        each = 3 * TILE_BYTES[choices.head] + TILE_BYTES[ttnn.float32] + TILE_BYTES[ttnn.bfloat16]
        parts = -(-len(weight) // (ways * TILE * mesh.banks * (HEAD_ROOM // each)))
        columns = round_up(-(-len(weight) // ways), TILE * parts)
        shares = F.pad(weight.detach(), (0, 0, 0, columns * ways - len(weight))).chunk(ways)
        cut = [torch.cat([share.chunk(parts)[i] for share in shares]) for i in range(parts)]
        given = Columns(weight.shape[1], choices.cores, mesh)
        self.parts = [
            Product(weights.column(part, mesh, how), "head", mesh, choices, given, given.count) for part in cut
        ]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        x, place = self.parts[0].taken(x), of_rows(x.shape[-2], TILE)  # of more rows all logits are too many for L1
        found = [whole(part(x, place)) for part in self.parts]
        if len(found) == 1:
            return found[0]
        logits = ttnn.concat(found, dim=3, memory_config=place)
        for used in found:
            ttnn.deallocate(used)
        return logits


def unbiased(where: str, *biases):
    """ValueError where there is a bias: the program for weights in the banks has no place for one here."""
    if any(bias is not None for bias in biases):
        raise ValueError(f"{where}: optimised products have no bias")
