"""A mixture of experts: every token goes to a few of many MLPs. Each chip has a share of the experts, for all tokens.

The products are the library's sparse ones: of a piece of a prompt, or of the 32 rows of a decode step, those experts
are computed that a row of it chose, and on a chip those that it has; the rest is neither read nor computed.
"""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.hf import named
from bringup.blocks.mlp import GatedMLP
from bringup.blocks.parallel import TILE, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.router import SHARED, Router, Routing

PIECE_BYTES = 192 << 20  # of what all experts of a chip make of one piece of a prompt
MOST = 256  # rows of a piece: more of gpt-oss's 2880 columns are beyond a core's L1 (ttnn 0.81.1)
BLOCK = 8  # tiles of the inner dim that a core has at once
GRID = 8  # cores a side


def program(rows: int, depth: int, width: int):
    """The program config of a sparse product [rows, depth] @ [depth, width], over as many of 8x8 cores as divide it.

    The library wants the column blocks of the result to fill a rectangle of cores (ttnn 0.81.1, sparse_matmul).
    """
    m, k, n = (round_up(size, TILE) // TILE for size in (rows, depth, width))
    for per_core in range(-(-n // GRID**2), n + 1):
        blocks = -(-n // per_core)
        across = next((x for x in range(GRID, 0, -1) if blocks % x == 0), 1)
        if blocks // across <= GRID:
            break
    return ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=(across, blocks // across),
        in0_block_w=max(b for b in range(1, BLOCK + 1) if k % b == 0),
        out_subblock_h=1,
        out_subblock_w=max(w for w in range(1, 5) if per_core % w == 0),
        per_core_M=m,
        per_core_N=per_core,
        fuse_batch=False,
        fused_activation=None,
        mcast_in0=True,
    )


class Experts(torch.nn.Module):
    """down(silu(gate(x)) * up(x)) of the experts of each row, weighed and summed.

    x [1, 1, rows, hidden], weight [1, 1, rows, experts] of all -> [1, 1, rows, hidden], on each chip the sum over its
    own experts. They are dealt out in order; where the chips do not divide them, the last are zeros.
    """

    def __init__(self, hf_experts: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__()
        self.compute = precision.linear
        gate, up, down = self.split(hf_experts)
        self.count = round_up(len(gate), mesh.tensor_ways) // mesh.tensor_ways
        self.gate_proj, self.up_proj, self.down_proj = (
            weights.experts(w, mesh, precision.mlp) for w in (gate, up, down)
        )
        self.own = None
        if mesh.tensor_ways > 1:  # columns of the identity: each chip's take its own weights out of all
            own = torch.eye(len(gate), self.count * mesh.tensor_ways)
            self.own = mesh.put(own[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT, shard_dim=3)
        widest = 3 * max(gate.shape[1:])
        self.piece = max(TILE, min(MOST, PIECE_BYTES // (2 * self.count * widest) // TILE * TILE))

    @staticmethod
    def split(hf):
        """HF's gate, up and down [experts, out, in] out of its two stacks."""
        gate, up = hf.gate_up_proj.chunk(2, 1)
        return gate, up, hf.down_proj

    def inner(self, gate: ttnn.Tensor, up: ttnn.Tensor) -> ttnn.Tensor:
        """What `down` takes, of two products [1, experts, rows, width]."""
        return ttnn.mul(gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU])

    def down(self, inner: ttnn.Tensor, chosen: ttnn.Tensor) -> ttnn.Tensor:
        return self.product(inner, self.down_proj, chosen)

    def forward(self, x: ttnn.Tensor, weight: ttnn.Tensor) -> ttnn.Tensor:
        if self.own is not None:
            weight = ttnn.matmul(weight, self.own, compute_kernel_config=self.compute)
        rows, hidden, place = x.shape[-2], x.shape[-1], x.memory_config()
        if rows <= self.piece:
            return ttnn.to_memory_config(self._of(x, weight), place)
        pieces = []
        for start in range(0, rows, self.piece):
            end = min(rows, start + self.piece)
            cut = ttnn.slice(x, (0, 0, start, 0), (1, 1, end, hidden))
            pieces.append(self._of(cut, ttnn.slice(weight, (0, 0, start, 0), (1, 1, end, self.count))))
            ttnn.deallocate(cut)
        whole = ttnn.concat(pieces, dim=2)
        for piece in pieces:
            ttnn.deallocate(piece)
        return whole

    def _of(self, x: ttnn.Tensor, weight: ttnn.Tensor) -> ttnn.Tensor:
        by_any_row = ttnn.max(weight, dim=2, keepdim=True, memory_config=ttnn.DRAM_MEMORY_CONFIG)
        chosen = ttnn.to_layout(by_any_row, ttnn.ROW_MAJOR_LAYOUT)
        gate, up = (self.product(x, w, chosen) for w in (self.gate_proj, self.up_proj))
        inner = self.inner(gate, up)
        ttnn.deallocate(gate)
        ttnn.deallocate(up)
        out = self.down(inner, chosen)
        ttnn.deallocate(inner)
        weight = ttnn.permute(weight, (0, 3, 2, 1))  # [1, experts, rows, 1]
        weighed = ttnn.mul(out, weight)
        ttnn.deallocate(out)
        kept = ttnn.where(weight, weighed, 0.0)  # what a skipped product left is not promised to be a number
        ttnn.deallocate(weighed)
        total = ttnn.experimental.fast_reduce_nc(kept, dims=[1], compute_kernel_config=self.compute)
        ttnn.deallocate(kept)
        return total

    def product(self, x: ttnn.Tensor, weight: ttnn.Tensor, chosen: ttnn.Tensor) -> ttnn.Tensor:
        """x [1, 1 or experts, rows, in] @ weight [1, experts, in, out] of the chosen -> [1, experts, rows, out]."""
        rows, width = x.shape[-2], weight.shape[-1]
        out = ttnn.sparse_matmul(
            x,
            weight,
            sparsity=chosen,
            is_input_a_sparse=x.shape[1] == self.count and self.count > 1,
            is_input_b_sparse=True,
            program_config=program(rows, x.shape[-1], width),
            compute_kernel_config=self.compute,
        )
        return ttnn.reshape(out, (1, self.count, rows, width))


class ClampedExperts(Experts):
    """gpt-oss's: gate and up interleaved in one stack, biases, and (up + 1) * gate * sigmoid(alpha * gate), clamped."""

    def __init__(self, hf_experts: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__(hf_experts, mesh, precision)
        hf = hf_experts
        self.alpha, self.limit = hf.alpha, hf.limit
        both = hf.gate_up_proj_bias
        self.gate_bias, self.up_bias, self.down_bias = (
            weights.experts(bias[..., None], mesh, ttnn.bfloat16)
            for bias in (both[:, ::2], both[:, 1::2], hf.down_proj_bias)
        )

    @staticmethod
    def split(hf):
        gate_up = hf.gate_up_proj.transpose(1, 2)
        return gate_up[:, ::2], gate_up[:, 1::2], hf.down_proj.transpose(1, 2)

    def inner(self, gate: ttnn.Tensor, up: ttnn.Tensor) -> ttnn.Tensor:
        gate = ttnn.clamp(ttnn.add(gate, self.gate_bias), max=self.limit)
        up = ttnn.clamp(ttnn.add(up, self.up_bias), min=-self.limit, max=self.limit)
        glu = ttnn.mul(gate, ttnn.sigmoid(ttnn.mul(gate, self.alpha)))
        return ttnn.mul(ttnn.add(up, 1.0), glu)

    def down(self, inner: ttnn.Tensor, chosen: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.add(super().down(inner, chosen), self.down_bias)


def stacks(hf_experts) -> tuple[torch.Tensor, ...]:
    """Views of HF's gate, up and down of all experts, [experts, out, in] each, whichever way it keeps them."""
    return (ClampedExperts if hasattr(hf_experts, "gate_up_proj_bias") else Experts).split(hf_experts)


class MixtureOfExperts(torch.nn.Module):
    """x [1, 1, rows, hidden] -> the same: what the chosen experts make of each row, and the shared ones of all.

    `averaged`: the mean of the two, where others have the sum (Cohere-2's).
    """

    def __init__(
        self, hf_moe: torch.nn.Module, routing: Routing, mesh: Mesh, precision: Precision,
        experts: type[Experts] = Experts, averaged: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.mesh, self.compute, self.averaged = mesh, precision.linear, averaged
        self.gate = Router(hf_moe, routing, mesh, precision)
        self.experts = experts(hf_moe.experts, mesh, precision)
        shared, gate = named(hf_moe, SHARED), getattr(hf_moe, "shared_expert_gate", None)
        self.shared_expert = None if shared is None else GatedMLP(shared, mesh, precision)
        self.shared_expert_gate = None if gate is None else weights.replicated(gate.weight, mesh, ttnn.bfloat16)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        out = self.mesh.all_reduce(self.experts(x, self.gate(x)))
        if self.shared_expert is None:
            return out
        shared = self.shared_expert(x)
        if self.shared_expert_gate is not None:
            gate = ttnn.linear(x, self.shared_expert_gate, compute_kernel_config=self.compute)
            shared = ttnn.mul(shared, gate, input_tensor_b_activations=[ttnn.UnaryOpType.SIGMOID])
        out = ttnn.add(out, shared)
        return ttnn.mul(out, 0.5) if self.averaged else out
