"""The two MLPs: gated (Llama, Mistral) and squared ReLU (Arcee). Column-parallel in, row-parallel out."""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision


class MLP(torch.nn.Module):
    """What the two share: up is column-parallel, down row-parallel."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__()
        self.mesh, self.compute = mesh, precision.linear
        self.up_proj = weights.column(hf_mlp.up_proj.weight, mesh, precision.mlp)
        self.down_proj = weights.row(hf_mlp.down_proj.weight, mesh, precision.mlp)

    def down(self, inner: ttnn.Tensor) -> ttnn.Tensor:
        """The down projection, summed over the chips; frees inner."""
        place = inner.memory_config()
        out = ttnn.linear(inner, self.down_proj, memory_config=place, compute_kernel_config=self.compute)
        ttnn.deallocate(inner)
        return self.mesh.all_reduce(out)


class GatedMLP(MLP):
    """down(silu(gate(x)) * up(x)), x [1, 1, rows, hidden]; gate is column-parallel too."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__(hf_mlp, mesh, precision)
        self.gate_proj = weights.column(hf_mlp.gate_proj.weight, mesh, precision.mlp)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        place = x.memory_config()
        gate = ttnn.linear(x, self.gate_proj, memory_config=place, compute_kernel_config=self.compute)
        up = ttnn.linear(x, self.up_proj, memory_config=place, compute_kernel_config=self.compute)
        inner = ttnn.mul(gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU])
        ttnn.deallocate(gate)
        ttnn.deallocate(up)
        return self.down(inner)


class Relu2MLP(MLP):
    """down(relu(up(x)) ** 2), x [1, 1, rows, hidden]."""

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        place = x.memory_config()
        up = ttnn.linear(x, self.up_proj, activation="relu", memory_config=place, compute_kernel_config=self.compute)
        inner = ttnn.mul(up, up)
        ttnn.deallocate(up)
        return self.down(inner)
