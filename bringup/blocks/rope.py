"""Rotary position embedding in HF's layout (the two halves of a head are a pair).

The tables come from HF's own rotary module, so that llama3, YaRN and linear scaling and the attention factor are HF's.
"""

import torch
import ttnn

from bringup.blocks.parallel import TILE, Mesh

UNCOVERED = ("dynamic", "longrope")  # their frequencies depend on the length of the prompt


class RopeTables:
    """cos and sin [length, head_dim] of all positions, replicated: in tiles for a prompt, in rows for look-up."""

    def __init__(self, hf_rotary: torch.nn.Module, hf_config, length: int, mesh: Mesh):
        kind = hf_config.rope_parameters["rope_type"]
        if kind in UNCOVERED:
            raise ValueError(f"rope_type {kind!r} changes with the length of the prompt; covered: fixed tables only")
        with torch.device("cpu"):  # also where the HF model itself is on the meta device
            rotary = type(hf_rotary)(config=hf_config)
            cos, sin = rotary(torch.zeros(1), torch.arange(length)[None])  # [1, length, head_dim] float32
        self.prompt = [mesh.put(table[None], ttnn.bfloat16, ttnn.TILE_LAYOUT) for table in (cos, sin)]
        self.by_position = [mesh.put(table[0], ttnn.bfloat16) for table in (cos, sin)]
        head_dim = cos.shape[-1]
        self.one_row_a_core = mesh.one_user_a_core(TILE, head_dim)

    def of_prompt(self, start: int, rows: int, whole: bool) -> list[ttnn.Tensor]:
        """cos and sin from position `start` on; a prompt that runs as a whole takes the tables as they are."""
        if whole:
            return self.prompt
        width = self.prompt[0].shape[-1]
        return [ttnn.slice(table, (0, 0, start, 0), (1, 1, start + rows, width)) for table in self.prompt]

    def look_up(self, positions: ttnn.Tensor) -> list[ttnn.Tensor]:
        """positions [1, 32] uint32 -> cos and sin [1, 32, 1, head_dim], one user a core, as heads in decode."""
        rows = []
        for table in self.by_position:
            row = ttnn.embedding(positions, table, layout=ttnn.TILE_LAYOUT)
            row = ttnn.reshape(row, (1, TILE, 1, row.shape[-1]))
            rows.append(ttnn.to_memory_config(row, self.one_row_a_core))
        return rows


class Rope(torch.nn.Module):
    """Rotates q or k, and frees it: [1, n, S, head_dim] by row in a prompt, [1, 32, n, head_dim] by user in decode."""

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        if step.is_decode:
            rotated = ttnn.experimental.rotary_embedding_hf(x, step.cos, step.sin, is_decode_mode=True)
        else:
            rotated = ttnn.experimental.rotary_embedding(x, step.cos, step.sin)
        ttnn.deallocate(x)
        return rotated
