"""The token table, replicated: a row-major bfloat16 copy on every chip."""

import torch
import ttnn

from bringup.blocks.parallel import USERS, Mesh


class Embedding(torch.nn.Module):
    """tokens [1, rows] uint32 -> [1, 1, rows, hidden] bfloat16 in tiles; replicated.

    Times `scale`, where HF's module does that. One row for each user of a decode step goes to L1, and what is computed
    from it follows; a prompt stays in DRAM.
    """

    def __init__(self, hf_embedding: torch.nn.Module, mesh: Mesh, scale: float | None = None):
        super().__init__()
        self.weight = mesh.put(hf_embedding.weight.detach(), ttnn.bfloat16)
        self.scale = scale

    def forward(self, tokens: ttnn.Tensor) -> ttnn.Tensor:
        place = ttnn.L1_MEMORY_CONFIG if tokens.shape[-1] == USERS else ttnn.DRAM_MEMORY_CONFIG
        x = ttnn.embedding(tokens, self.weight, layout=ttnn.TILE_LAYOUT, memory_config=place)
        x = ttnn.reshape(x, (1, 1, x.shape[-2], x.shape[-1]))
        return x if self.scale is None else ttnn.multiply(x, self.scale)
