"""embedding: rows of a table, picked by token ids."""

from __future__ import annotations

import torch

from ...config import EmbeddingsType
from ...dtypes import NAME, DataType, Layout, bfloat4_b, bfloat8_b, bfloat16, uint32
from ...errors import DeviceRejects
from ...launch import check_places, finish, on_device
from ...memory import MemoryConfig
from ...numerics import rounding
from ...numerics.rows import FEW, MANY, Repeated, numbered
from ...op import op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor, spec
from ..core.sharding import result, unspecified


@op("ttnn.embedding")
def embedding(
    input_tensor: Tensor, weight: Tensor, *, padding_idx: int | None = None, layout: Layout | None = None,
    embeddings_type: EmbeddingsType = EmbeddingsType.GENERIC, dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The rows of `weight` at the indices.

    Shapes    indices [S] or [B, S], weight [1, 1, vocabulary, H] -> [S, H] or [B, S, H]. Of indices of a higher rank
              the first and the last dim count: [1, 1, 1, S] -> [1, S, H], but [1, 1, 2, S] -> [1, S, H] too, the
              first row of ids
    Dtypes    indices uint32 or bfloat16, weight bfloat16 or bfloat8_b; bfloat16 comes out, another dtype only in TILE
    Layout    as asked, else the weight's
    Numerics  values move
    Differs   padding_idx changes nothing here; an index beyond the table is refused, the device reads what is there
    Source    recorded contract, op `ttnn.embedding`
    """
    ids, table = on_device(input_tensor), on_device(weight)
    refuse_unmodelled(
        "ttnn.embedding", embeddings_type=None if embeddings_type is EmbeddingsType.GENERIC else embeddings_type
    )
    if table.dtype is bfloat4_b:
        raise DeviceRejects("Only TILE layout is supported for BFLOAT8_B dtype!")
    if ids.dtype not in (uint32, bfloat16):
        raise DeviceRejects("Input must be UINT32 or BFLOAT16", "typecast or create the ids as ttnn.uint32")
    if table.dtype not in (bfloat16, bfloat8_b):
        raise DeviceRejects("Weights tensor must have BFLOAT16 dtype")
    if any(n != 1 for n in table.spec.shape[:-2]):
        first = (1, 1, *table.spec.shape)[-4:-2]
        raise DeviceRejects(f"First two dimensions for the weights must be 1 but got {first[0]} and {first[1]}")
    layout = layout or table.layout
    if dtype not in (None, bfloat16) and layout is not Layout.TILE:
        raise DeviceRejects("Can only typecast output embeddings when producing TILE_LAYOUT output")
    if unspecified(memory_config):
        raise DeviceRejects("bad optional access", "say the shard spec of memory_config")
    shape = tuple(ids.spec.shape) if len(ids.spec.shape) < 3 else (ids.spec.shape[0], ids.spec.shape[-1])
    out = result((*shape, table.spec.shape[-1]), dtype or bfloat16, layout, memory_config or ids.spec.memory_config)
    made = NAME[out.dtype]

    def compute(i, w):
        i = i.reshape(-1, i.shape[-1])[: shape[0]] if len(shape) == 2 else i
        i, index = i.reshape(shape).to(torch.int64), None
        if len(shape) == 2 and shape[0] == 1 and FEW <= shape[1] <= MANY:  # of a decode step most are padding
            index, first = numbered(i[0].tolist())
            i = i[:, first]
        check_places("ttnn.embedding", i, w.shape[-2], "table")
        y = torch.nn.functional.embedding(i, w.reshape(-1, w.shape[-1]))
        y = y if out.dtype is bfloat16 else rounding.typecast(y, "bfloat16", made)
        return y if index is None else Repeated(y, index, -2)

    through = []  # untilized tables, rows that are not whole tiles, and bfloat16 before another dtype
    if table.layout is Layout.TILE:
        through.append(spec(table.spec.shape, bfloat16, Layout.ROW_MAJOR, table.spec.memory_config))
    if layout is Layout.TILE and (ids.layout is Layout.TILE or shape[-1] % TILE):
        through.append(spec(out.shape, bfloat16, Layout.ROW_MAJOR, out.memory_config))
    if out.dtype is not bfloat16:
        through.append(spec(out.shape, bfloat16, layout, out.memory_config))
    return finish("ttnn.embedding", (ids, table), out, compute, output_tensor, through=through)
