"""What each layer of Gemma-4's small models takes beside the stream: a vector of every token, out of a table and a
product. All of it is replicated."""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.embedding import Embedding
from bringup.blocks.mlp import ACTIVATIONS
from bringup.blocks.norm import RMSNorm
from bringup.blocks.parallel import Mesh
from bringup.blocks.precision import Precision


class PerLayerInputs(torch.nn.Module):
    """tokens [1, rows] and their embeddings x [1, 1, rows, hidden] -> [1, 1, rows, size] for each layer.

    scale * (norm(projection(x) * projection_scale) + table(tokens) * table_scale), each layer's part of it normed on
    its own.
    """

    def __init__(self, hf_decoder: torch.nn.Module, eps: float, mesh: Mesh, precision: Precision):
        super().__init__()
        table, size = hf_decoder.embed_tokens_per_layer, len(hf_decoder.per_layer_projection_norm.weight)
        self.layers = table.weight.shape[1] // size
        self.embed_tokens_per_layer = Embedding(table, mesh, scale=table.scalar_embed_scale)
        self.projection = weights.replicated(hf_decoder.per_layer_model_projection.weight, mesh, precision.format("up"))
        self.projection_scale = hf_decoder.per_layer_model_projection_scale
        self.norm = RMSNorm(hf_decoder.per_layer_projection_norm, eps, mesh, precision)
        self.scale, self.compute = hf_decoder.per_layer_input_scale, precision.linear

    def forward(self, tokens: ttnn.Tensor, x: ttnn.Tensor) -> list[ttnn.Tensor]:
        projected = ttnn.linear(x, self.projection, memory_config=x.memory_config(), compute_kernel_config=self.compute)
        normed = self.norm(self.by_layer(ttnn.multiply(projected, self.projection_scale)))
        both = ttnn.add(normed, self.by_layer(self.embed_tokens_per_layer(tokens)))
        scaled = ttnn.multiply(both, self.scale)
        for used in (projected, normed, both):
            ttnn.deallocate(used)
        _, _, rows, size = tuple(scaled.shape)
        return [ttnn.slice(scaled, (0, i, 0, 0), (1, i + 1, rows, size)) for i in range(self.layers)]

    def by_layer(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 1, rows, layers * size] -> [1, layers, rows, size]"""
        rows, width = tuple(x.shape)[-2:]
        return ttnn.permute(ttnn.reshape(x, (1, rows, self.layers, width // self.layers)), (0, 2, 1, 3))


class PerLayerProjection(torch.nn.Module):
    """projection(activation(gate(x)) * the layer's input), x [1, 1, rows, hidden]."""

    def __init__(self, hf_layer: torch.nn.Module, mesh: Mesh, precision: Precision, activation: str = "silu"):
        super().__init__()
        self.gate = weights.replicated(hf_layer.per_layer_input_gate.weight, mesh, precision.format("up"))
        self.projection = weights.replicated(hf_layer.per_layer_projection.weight, mesh, precision.format("down"))
        self.activation, self.compute = ACTIVATIONS[activation], precision.linear

    def forward(self, x: ttnn.Tensor, per_layer_input: ttnn.Tensor) -> ttnn.Tensor:
        given = {"memory_config": x.memory_config(), "compute_kernel_config": self.compute}
        gate = ttnn.linear(x, self.gate, **given)
        inner = ttnn.mul(gate, per_layer_input, input_tensor_a_activations=self.activation)
        ttnn.deallocate(gate)
        out = ttnn.linear(inner, self.projection, **given)
        ttnn.deallocate(inner)
        return out


class LayerScalar(torch.nn.Module):
    """x times HF's number of the layer."""

    def __init__(self, hf_scalar: torch.Tensor, mesh: Mesh):
        super().__init__()
        self.scalar = weights.vector(hf_scalar, mesh)  # [1, 1, 1, 1]

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.multiply(x, self.scalar)
