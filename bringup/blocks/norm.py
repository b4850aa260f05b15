"""RMSNorm, replicated: every chip normalises the whole hidden state."""

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
