"""embedding: rows of a table, picked by token ids."""

from __future__ import annotations

from ..config import EmbeddingsType
from ..dtypes import BLOCK_FORMATS, NAME, ROW_MAJOR_LAYOUT, TILE_LAYOUT, DataType, Layout, bfloat8_b, bfloat16, uint32
from ..errors import DeviceRejects
from ..memory import MemoryConfig
from ..numerics import rounding
from ..op import launch, on_device, op, refuse_unmodelled
from ..tensor import Tensor, spec


@op("ttnn.embedding")
def embedding(
    input_tensor: Tensor, weight: Tensor, *, padding_idx: int | None = None, layout: Layout | None = None,
    embeddings_type: EmbeddingsType = EmbeddingsType.GENERIC, dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The rows of `weight` at the indices.

    Shapes    indices [..., S], weight [1, 1, vocabulary, H] -> [B, S, H]: leading ones of the indices beyond rank 2 go
    """
    ids, table = on_device(input_tensor), on_device(weight)
    if ids.dtype not in (uint32, bfloat16):
        raise DeviceRejects("Input must be UINT32 or BFLOAT16")
    if table.dtype not in (bfloat16, bfloat8_b):
        raise DeviceRejects("Weights tensor must have BFLOAT16 dtype")
    layout = layout or table.layout
    shape = tuple(ids.shape)
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1 and len(ids.shape) > 1:
        shape = (1, *shape)
    out = spec((*shape, table.shape[-1]), dtype or bfloat16, layout, memory_config or ids.memory_config())

    def compute(i, w):
        return w.reshape(-1, w.shape[-1])[i.reshape(shape).long()]

    return launch("ttnn.embedding", (ids, table), out, compute)
