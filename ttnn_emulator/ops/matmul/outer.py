"""The outer product."""

from __future__ import annotations

import math

from ...dtypes import TILE_LAYOUT, Layout, bfloat8_b, bfloat16, cpp, float32, int32, uint32
from ...errors import DeviceRejects
from ...launch import on_device
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...op import op
from ...tensor import Tensor
from ..core.layout import to_layout
from ..data_movement.reshape import reshape
from ..eltwise.elementwise import multiply
from .matmul import matmul


@op("ttnn.outer")
def outer(input_tensor_a: Tensor, input_tensor_b: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Every element of a times every element of b along their last dims; those before broadcast.

    Shapes    [..., M], [..., N] -> [..., M, N]
    Dtypes    bfloat16, bfloat8_b, float32, int32, uint32, both the same; kept
    Numerics  of two vectors of bfloat16 or bfloat8_b a matmul over one element, else the product
    Source    ttnn 0.81.1: asked dtype by dtype; the steps by graph capture
    """
    a, b = on_device(input_tensor_a), on_device(input_tensor_b)
    taken = (bfloat16, bfloat8_b, float32, int32, uint32)
    if a.dtype not in taken or b.dtype not in taken:
        raise DeviceRejects(
            f"ttnn.outer: unsupported dtype (got {cpp(a.dtype)} and {cpp(b.dtype)}); supported dtypes are BFLOAT16, "
            "BFLOAT8_B, FLOAT32, INT32, UINT32"
        )
    if a.dtype is not b.dtype:
        raise DeviceRejects(f"ttnn.outer: inputs must have the same dtype, but got {cpp(a.dtype)} and {cpp(b.dtype)}")
    column, row = reshape(a, (*a.spec.shape, 1)), b
    if len(b.spec.shape) > 1:
        row = reshape(b, (*b.spec.shape[:-1], 1, b.spec.shape[-1]))
    vectors = math.prod((*a.spec.shape[:-1], *b.spec.shape[:-1])) == 1
    if a.dtype not in (bfloat16, bfloat8_b) or not vectors:
        return multiply(column, row, memory_config=memory_config)
    if len(b.spec.shape) == 1:
        row = reshape(b, (1, b.spec.shape[0]))
    column, row = (to_layout(t, TILE_LAYOUT) if t.layout is Layout.ROW_MAJOR else t for t in (column, row))
    return matmul(column, row, memory_config=memory_config or DRAM_MEMORY_CONFIG)
