"""RMSNorm, replicated: of the whole hidden state, and of the heads that a chip has."""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision


class RMSNorm(torch.nn.Module):
    """x / rms(x) * weight over the last dim of x [1, 1, rows, hidden]; replicated."""

    def __init__(self, hf_norm: torch.nn.Module, eps: float, mesh: Mesh, precision: Precision):
        super().__init__()
        self.weight = weights.vector(hf_norm.weight, mesh)
        self.eps = eps
        self.compute = precision.norm

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)


class HeadNorm(RMSNorm):
    """RMSNorm of each head on its own, and frees x: [1, n, S, head_dim], or [1, 32, n, head_dim] one user a core."""

    def __init__(self, hf_norm: torch.nn.Module, eps: float, head_dim: int, mesh: Mesh, precision: Precision):
        if tuple(hf_norm.weight.shape) != (head_dim,):
            raise ValueError(
                f"a norm of heads of {head_dim} has a weight of that size, not {list(hf_norm.weight.shape)}"
            )
        super().__init__(hf_norm, eps, mesh, precision)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        if not x.is_sharded():
            normed = super().forward(x)
            ttnn.deallocate(x)
            return normed
        whole = ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG)  # the norm takes no height sharding (ttnn 0.81.1)
        one_user_a_core = x.memory_config()
        ttnn.deallocate(x)
        normed = super().forward(whole)
        ttnn.deallocate(whole)
        return ttnn.to_memory_config(normed, one_user_a_core)
