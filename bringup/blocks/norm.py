"""Norms: of the whole hidden state, replicated; of each head on its own; of a dim that is cut over the chips.

RMSNorm and LayerNorm multiply by HF's weight, where it has one; a `UnitOffset` norm by 1 + weight.
"""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision


class RMSNorm(torch.nn.Module):
    """x / rms(x) * weight over the last dim of x [1, 1, rows, hidden]; replicated."""

    OFFSET = 0.0  # what is added to HF's weight

    def __init__(self, hf_norm: torch.nn.Module, eps: float, mesh: Mesh, precision: Precision):
        super().__init__()
        self.weight, self.bias = (
            None if (vector := getattr(hf_norm, name, None)) is None else weights.vector(vector + offset, mesh)
            for name, offset in (("weight", self.OFFSET), ("bias", 0.0))
        )
        self.eps = eps
        self.compute = precision.norm

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)


class UnitOffsetRMSNorm(RMSNorm):
    """x / rms(x) * (1 + weight): Gemma's."""

    OFFSET = 1.0


class LayerNorm(RMSNorm):
    """(x - mean(x)) / std(x) * weight + bias; either may be missing in HF's norm."""

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.layer_norm(
            x, epsilon=self.eps, weight=self.weight, bias=self.bias, compute_kernel_config=self.compute
        )


class UnitOffsetLayerNorm(LayerNorm):
    """(x - mean(x)) / std(x) * (1 + weight) + bias: Nemotron's."""

    OFFSET = 1.0


class HeadNorm(torch.nn.Module):
    """RMSNorm of each head on its own, and frees x: [1, n, S, width], or [1, 32, n, width] one user a core.

    HF's norm may have no weight. `order` is HF's dim in each column (`Rotation.order`). Columns of zeros are in the
    device's mean and not in HF's: weight and epsilon make up for them.
    """

    OFFSET = 0.0

    def __init__(self, hf_norm: torch.nn.Module, order: tuple[int | None, ...], mesh: Mesh, precision: Precision):
        super().__init__()
        head_dim = len(order) - order.count(None)
        given = getattr(hf_norm, "weight", None)
        given = torch.ones(head_dim) if given is None else given.detach() + self.OFFSET
        if tuple(given.shape) != (head_dim,):
            raise ValueError(f"a norm of heads of {head_dim} has a weight of that size, not {list(given.shape)}")
        more = len(order) / head_dim
        weight = given * more**-0.5
        self.weight = weights.vector(weights.columns(weight, order), mesh)
        self.eps = epsilon(hf_norm) / more
        self.compute = precision.norm

    def norm(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.rms_norm(x, epsilon=self.eps, weight=self.weight, compute_kernel_config=self.compute)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        if not x.is_sharded():
            normed = self.norm(x)
            ttnn.deallocate(x)
            return normed
        whole = ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG)  # the norm takes no height sharding (ttnn 0.81.1)
        one_user_a_core = x.memory_config()
        ttnn.deallocate(x)
        normed = self.norm(whole)
        ttnn.deallocate(whole)
        return ttnn.to_memory_config(normed, one_user_a_core)


class UnitOffsetHeadNorm(HeadNorm):
    """The same with 1 + weight: Gemma's."""

    OFFSET = 1.0


class HeadLayerNorm(HeadNorm):
    """LayerNorm of each head, with one weight and bias for all: Phi's. Padding would be in its mean, and is refused."""

    def __init__(self, hf_norm: torch.nn.Module, order: tuple[int | None, ...], mesh: Mesh, precision: Precision):
        if None in order:
            raise ValueError(f"LayerNorm of heads that are padded to {len(order)} columns: zeros would be in the mean")
        super().__init__(hf_norm, order, mesh, precision)
        self.bias = None if hf_norm.bias is None else weights.vector(weights.columns(hf_norm.bias, order), mesh)

    def norm(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.layer_norm(
            x, epsilon=self.eps, weight=self.weight, bias=self.bias, compute_kernel_config=self.compute
        )


class CutRMSNorm(torch.nn.Module):
    """x / rms(x) * weight over a dim that is cut over the chips: x [1, 1, rows, a chip's columns] of `size` values.

    `weight` is HF's in the order of all chips' columns, zeros where they are padded; each value may be there `copies`
    times. What the device divides by is its columns: weight and epsilon make up for that.
    """

    def __init__(self, weight: torch.Tensor, size: int, eps: float, mesh: Mesh, precision: Precision, copies: int = 1):
        super().__init__()
        self.mesh, self.compute = mesh, precision.norm
        more = weight.shape[0] / (copies * size)
        self.weight = weights.cut_vector(weight * more**-0.5, mesh)
        self.eps = eps / more

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        given = {"epsilon": self.eps, "weight": self.weight, "compute_kernel_config": self.compute}
        if self.mesh.tensor_ways == 1:
            return ttnn.rms_norm(x, **given)
        own = ttnn.rms_norm_pre_all_gather(x, compute_kernel_config=self.compute)  # the chip's sum of squares
        squares = ttnn.all_gather(own, dim=3)
        normed = ttnn.rms_norm_post_all_gather(x, squares, **given)
        for used in (own, squares):
            ttnn.deallocate(used)
        return normed


def epsilon(hf_norm: torch.nn.Module) -> float:
    """HF's, which its norms have under two names."""
    return hf_norm.variance_epsilon if hasattr(hf_norm, "variance_epsilon") else hf_norm.eps
