"""Rotary position embedding: the device's op turns the two halves of a head against each other; HF's rotations, of a
part of a head, of neighbours or of sizes that the op refuses, are that one after the head's dims have been put in
another order.

The tables come from HF's own rotary module, so that llama3, YaRN and linear scaling and the attention factor are HF's.
"""

import inspect
from dataclasses import dataclass

import torch
import ttnn

from bringup.blocks.config import of_layer
from bringup.blocks.hf import named
from bringup.blocks.parallel import TILE, Mesh, round_up

ROTARIES = ("rotary_emb", "pos_emb")  # HF's names
#: What changes beyond a length, and the field that has it: frequencies, or the size of queries (Ministral-3's).
CHANGING = {
    "dynamic": "max_position_embeddings",
    "longrope": "original_max_position_embeddings",
    "llama_4_scaling": "original_max_position_embeddings",
}


def head_width(head_dim: int) -> int:
    """Columns of a head on the device: whole tiles in each half, as the rotation wants them (ttnn 0.81.1)."""
    return TILE if head_dim <= TILE else round_up(head_dim, 2 * TILE)


@dataclass(frozen=True)
class Rotation:
    """Which dims of a head turn, and in what pairs, as HF has them: the first `part` of the head, in two halves or as
    neighbours (`interleaved`).

    The pairs stand half a head apart on the device, what does not turn beside them with an angle of 0, then zeros up to
    whole tiles. q and k have one order, which their scores do not see; v has HF's.
    """

    part: float = 1.0
    interleaved: bool = False

    @classmethod
    def of(cls, config) -> "Rotation":
        """The ROTATION of a model file's Config; without one all dims turn, in two halves."""
        return getattr(config, "ROTATION", cls())

    def order(self, head_dim: int) -> tuple[int | None, ...]:
        """HF's dim in each column of q and k; None: zeros."""
        turned = int(head_dim * self.part)
        pairs = torch.arange(turned).view(-1, 2).T if self.interleaved else torch.arange(turned).view(2, -1)
        still = torch.arange(turned, head_dim).view(2, -1)
        zeros = [None] * (head_width(head_dim) // 2 - head_dim // 2)
        left, right = ([*pairs[half].tolist(), *still[half].tolist(), *zeros] for half in (0, 1))
        return (*left, *right)

    def spread(self, table: torch.Tensor, head_dim: int, still: float) -> torch.Tensor:
        """HF's cos or sin of its pairs, which it may have twice, in that order [length, width]; `still` where nothing
        turns."""
        pairs = int(head_dim * self.part) // 2
        if table.shape[1] == 2 * pairs:
            table = table[:, :pairs] if torch.equal(table[:, :pairs], table[:, pairs:]) else table[:, ::2]
        half = torch.full((len(table), head_width(head_dim) // 2), still)
        half[:, :pairs] = table
        return torch.cat((half, half), dim=1)


def v_order(head_dim: int) -> tuple[int | None, ...]:
    """HF's dim in each column of v, and of the heads that go into o; None: zeros."""
    return (*range(head_dim), *[None] * (head_width(head_dim) - head_dim))


def of_hf(x: torch.Tensor, order: tuple[int | None, ...]) -> torch.Tensor:
    """x [.., width] in `order` -> [.., head_dim] in HF's."""
    columns = sorted((dim, column) for column, dim in enumerate(order) if dim is not None)
    return x[..., [column for _, column in columns]]


class RopeTables:
    """cos and sin [length, width] of all positions, replicated: in tiles for a prompt, in rows for look-up.

    `layer_type` names one of several rotations that HF's module has.
    """

    def __init__(self, hf_rotary, hf_config, length: int, mesh: Mesh, config=None, layer_type: str | None = None):
        parameters = hf_config.rope_parameters
        check_length(parameters if layer_type is None else parameters[layer_type], hf_config, length)
        more = () if layer_type is None else (layer_type,)
        with torch.device("cpu"):  # also where the HF model itself is on the meta device
            rotary = type(hf_rotary)(config=hf_config)
            cos, sin = rotary(torch.zeros(1), torch.arange(length)[None], *more)  # [1, length, turned] float32
        config = of_layer(hf_config if config is None else config, layer_type)
        head_dim, rotation = config.head_dim, Rotation.of(config)
        cos, sin = rotation.spread(cos[0], head_dim, 1.0), rotation.spread(sin[0], head_dim, 0.0)
        self.prompt = [mesh.put(table[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT) for table in (cos, sin)]
        self.by_position = [mesh.put(table, ttnn.bfloat16) for table in (cos, sin)]
        self.one_row_a_core = mesh.one_user_a_core(TILE, cos.shape[-1])

    def of_prompt(self, start: int, rows: int, whole: bool) -> list[ttnn.Tensor]:
        """cos and sin from position `start` on; a prompt that runs as a whole takes the tables as they are."""
        if whole:
            return self.prompt
        width = self.prompt[0].shape[-1]
        return [ttnn.slice(table, (0, 0, start, 0), (1, 1, start + rows, width)) for table in self.prompt]

    def look_up(self, positions: ttnn.Tensor) -> list[ttnn.Tensor]:
        """positions [1, 32] uint32 -> cos and sin [1, 32, 1, width], one user a core, as heads in decode."""
        found = (ttnn.embedding(positions, table, layout=ttnn.TILE_LAYOUT) for table in self.by_position)
        return [self.on_cores(rows) for rows in found]

    def on_cores(self, rows: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 32, width] -> [1, 32, 1, width], one row a core"""
        return ttnn.to_memory_config(ttnn.reshape(rows, (1, TILE, 1, rows.shape[-1])), self.one_row_a_core)


class TurnedTables(RopeTables):
    """`RopeTables` whose rows go to their cores in one program."""

    def on_cores(self, rows: ttnn.Tensor) -> ttnn.Tensor:
        rows = ttnn.reshape(rows, (1, 1, TILE, rows.shape[-1]))
        return ttnn.transpose(rows, 1, 2, memory_config=self.one_row_a_core)


def layer_types(hf_rotary: torch.nn.Module, hf_config) -> list[str | None]:
    """The rotations that HF's module has, by type of layer; [None] where there is one for all."""
    if "layer_type" not in inspect.signature(hf_rotary.forward).parameters:
        return [None]
    return [name for name in dict.fromkeys(hf_config.layer_types) if name in hf_config.rope_parameters]


def rotary_of(hf_decoder: torch.nn.Module) -> torch.nn.Module:
    """HF's module of the decoder that gives the tables."""
    return named(hf_decoder, ROTARIES)


def check_length(parameters: dict, hf_config, length: int):
    """ValueError where HF's rotation, or what goes with it, would change within `length`."""
    kind = "llama_4_scaling" if parameters.get("llama_4_scaling_beta") else parameters["rope_type"]
    if kind not in CHANGING:
        return
    field = CHANGING[kind]
    fixed = parameters.get(field) or getattr(hf_config, field, None) or hf_config.max_position_embeddings
    if length > fixed:
        raise ValueError(f"{kind} changes beyond {field} = {fixed}: max_seq_len up to {fixed} is covered, not {length}")


class Rope(torch.nn.Module):
    """Rotates q or k, and frees it: [1, n, S, width] by row in a prompt, [1, 32, n, width] by user in decode."""

    def __init__(self, layer_type: str | None = None):
        super().__init__()
        self.layer_type = layer_type

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        cos, sin = (step.cos, step.sin) if self.layer_type is None else step.by_type[self.layer_type]
        if step.is_decode:
            rotated = ttnn.experimental.rotary_embedding_hf(x, cos, sin, is_decode_mode=True)
        else:
            rotated = ttnn.experimental.rotary_embedding(x, cos, sin)
        ttnn.deallocate(x)
        return rotated


class NoRope(Rope):
    """q or k as it is, in a layer that turns neither."""

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        return x
