"""The MLPs: gated (Llama, Gemma, Phi-3) and plain (Arcee, Phi, Apertus). Column-parallel in, row-parallel out.

Biases, and gate and up in one matrix, are there where the HF module has them.
"""

from typing import ClassVar

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.hf import named
from bringup.blocks.norm import CutRMSNorm, epsilon
from bringup.blocks.parallel import TILE, Mesh, round_up
from bringup.blocks.precision import Precision

#: HF's names of what stands where.
GATE_UP = ("gate_up_proj", "input_linear")  # one matrix
GATE = ("gate_proj", "w1")
UP = ("up_proj", "fc1", "c_fc", "dense_h_to_4h", "w3")
DOWN = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "w2", "output_linear")
_GELU, _TANH = [ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 0.0)], [ttnn.UnaryOpType.GELU_TANH]
#: HF's activations by the vector unit's functions, one after the other.
ACTIVATIONS = {
    "silu": [ttnn.UnaryOpType.SILU],
    "swish": [ttnn.UnaryOpType.SILU],
    "gelu": _GELU,
    "gelu_pytorch_tanh": _TANH,
    "gelu_new": _TANH,
    "relu": [ttnn.UnaryOpType.RELU],
    "relu2": [ttnn.UnaryOpType.RELU, ttnn.UnaryOpType.SQUARE],
}


class MLP(torch.nn.Module):
    """What they share: up is column-parallel, down row-parallel."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__()
        self.mesh, self.compute = mesh, precision.linear
        up, down = self.up(hf_mlp), named(hf_mlp, DOWN)
        self.up_proj, self.up_bias = self.column(*up, precision)
        self.down_proj = weights.row(down.weight, mesh, precision.format("down"))
        self.down_bias = weights.row_bias(down.bias, mesh)

    def up(self, hf_mlp: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias."""
        hf_up = named(hf_mlp, UP)
        return hf_up.weight, hf_up.bias

    def column(self, weight: torch.Tensor, bias: torch.Tensor | None, precision: Precision):
        return weights.column(weight, self.mesh, precision.format("up")), weights.column_bias(bias, self.mesh)

    def linear(self, x: ttnn.Tensor, weight: ttnn.Tensor, bias: ttnn.Tensor | None, **more) -> ttnn.Tensor:
        given = {"memory_config": x.memory_config(), "compute_kernel_config": self.compute, **more}
        return ttnn.linear(x, weight, bias=bias, **given)

    def down(self, inner: ttnn.Tensor) -> ttnn.Tensor:
        """The down projection, summed over the chips; frees inner."""
        return self.mesh.linear_sum(inner, self.down_proj, self.down_bias, self.compute)


class GatedMLP(MLP):
    """down(activation(gate(x)) * up(x)), x [1, 1, rows, hidden]; gate is column-parallel too."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision, activation: str = "silu"):
        super().__init__(hf_mlp, mesh, precision)
        self.activation = ACTIVATIONS[activation]
        self.gate_proj, self.gate_bias = self.column(*self.halves(hf_mlp)[0], precision)

    def up(self, hf_mlp: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.halves(hf_mlp)[1]

    def halves(self, hf_mlp: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of gate and of up, which may be one matrix, one after the other."""
        fused = named(hf_mlp, GATE_UP)
        if fused is None:
            return [(p.weight, p.bias) for p in (named(hf_mlp, GATE), named(hf_mlp, UP))]
        biases = [None] * 2 if fused.bias is None else fused.bias.chunk(2)
        return list(zip(fused.weight.chunk(2), biases, strict=True))

    def inner(self, x: ttnn.Tensor) -> ttnn.Tensor:
        gate = self.linear(x, self.gate_proj, self.gate_bias)
        up = self.linear(x, self.up_proj, self.up_bias)
        inner = ttnn.mul(gate, up, input_tensor_a_activations=self.activation)
        ttnn.deallocate(gate)
        ttnn.deallocate(up)
        return inner

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return self.down(self.inner(x))


class SubNormGatedMLP(GatedMLP):
    """What gate and up give is normed before the down projection: BitNet's."""

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision, activation: str = "silu"):
        super().__init__(hf_mlp, mesh, precision, activation)
        hf_norm = hf_mlp.ffn_sub_norm
        size, ways = len(hf_norm.weight), mesh.tensor_ways
        padded = round_up(size, TILE * ways) if ways > 1 else size
        weight = torch.nn.functional.pad(hf_norm.weight.detach(), (0, padded - size))
        self.ffn_sub_norm = CutRMSNorm(weight, size, epsilon(hf_norm), mesh, precision)

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        inner = self.inner(x)
        normed = self.ffn_sub_norm(inner)
        ttnn.deallocate(inner)
        return self.down(normed)


class PlainMLP(MLP):
    """down(activation(up(x))), x [1, 1, rows, hidden]."""

    #: ttnn.linear's names for what it can apply to its product.
    FUSED: ClassVar = {
        "silu": "silu",
        "swish": "silu",
        "gelu": "gelu",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_new": "gelu_tanh",
        "relu": "relu",
    }

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision, activation: str):
        super().__init__(hf_mlp, mesh, precision)
        self.activation = self.FUSED[activation]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return self.down(self.linear(x, self.up_proj, self.up_bias, activation=self.activation))


class Relu2MLP(MLP):
    """down(relu(up(x)) ** 2), x [1, 1, rows, hidden]."""

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        up = self.linear(x, self.up_proj, self.up_bias, activation="relu")
        inner = ttnn.mul(up, up)
        ttnn.deallocate(up)
        return self.down(inner)


class XieluMLP(MLP):
    """down(xielu(up(x))), x [1, 1, rows, hidden]: Apertus'. HF's activation has two learned numbers in each layer:

    beta x + p relu(x)^2 + n (expm1(min(x, 0)) - min(x, 0)), p = softplus(alpha_p), n = beta + softplus(alpha_n)
    """

    def __init__(self, hf_mlp: torch.nn.Module, mesh: Mesh, precision: Precision):
        super().__init__(hf_mlp, mesh, precision)
        act, softplus = hf_mlp.act_fn, torch.nn.functional.softplus
        self.beta = act._beta_scalar
        p, n = softplus(act.alpha_p.detach().float()), self.beta + softplus(act.alpha_n.detach().float())
        self.p, self.n = (weights.vector(value, mesh) for value in (p, n))  # [1, 1, 1, 1]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        up = self.linear(x, self.up_proj, self.up_bias)
        above = ttnn.relu(up)
        below = ttnn.subtract(up, above)
        inner = ttnn.add(
            ttnn.add(ttnn.multiply(up, self.beta), ttnn.multiply(ttnn.multiply(above, above), self.p)),
            ttnn.multiply(ttnn.subtract(ttnn.expm1(below), below), self.n),
        )
        for used in (up, above, below):
            ttnn.deallocate(used)
        return self.down(inner)
