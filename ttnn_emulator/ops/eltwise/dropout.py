"""dropout: values that are left out by chance."""

from __future__ import annotations

import torch

from ...dtypes import Layout, bfloat16
from ...errors import DeviceRejects
from ...launch import launch, on_device, output_memory
from ...memory import MemoryConfig
from ...op import op
from ...tensor import Tensor, spec


@op("ttnn.experimental.dropout")
def dropout(
    input_tensor: Tensor, probability: float, scale: float, seed: int, *, use_per_device_seed: bool = True,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Zero with a probability, else x * scale; by default every chip of a mesh draws by a seed of its own.

    Shapes    any; kept
    Dtypes    bfloat16
    Layout    TILE, or sharded; the result is sharded as the operand
    Numerics  one rounding of x * scale
    Differs   the draw is torch's, not the chip's: the same seed leaves out the same values here, others there
    Source    ttnn 0.81.1, asked call by call
    """
    name, x, into = "ttnn.experimental.dropout", on_device(input_tensor), output_tensor
    if not 0 <= seed < 1 << 32:
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    seed = {seed}\n  want   a number of 32 bits"
        )
    made = bfloat16 if into is None else on_device(into).dtype
    if x.dtype is not made or made is not bfloat16:
        raise DeviceRejects(
            "Dropout operation requires input and output data types to match. Input data type: "
            f"{x.dtype.value}, Output data type: {made.value}"
        )
    memory = output_memory(x, memory_config) if into is None else into.spec.memory_config
    before, after = x.spec.memory_config.memory_layout, memory.memory_layout
    if before is not after:
        raise DeviceRejects(
            "Dropout operation requires Input and Output memory layout to match. Input layout: "
            f"{before.value}, Output layout: {after.value}"
        )
    if not x.is_sharded():
        if x.layout is not Layout.TILE:
            raise DeviceRejects(
                "Dropout operation requires tensor to be in Tile layout when working with non-sharded input tensor. "
                "Input tensor layout: 0"
            )
        if into is not None and into.layout is not Layout.TILE:
            raise DeviceRejects(
                "Dropout operation requires output tensor to be in Tile layout when working with non-sharded tensor."
            )
    if into is not None and into.spec.shape != x.spec.shape:
        raise DeviceRejects(
            "When preallocated output tensor is used, Dropout operation requires its shape to match the input shape. "
            f"Input shape: {x.spec.shape}, Shape in preallocated output tensor: {into.spec.shape}"
        )

    def drawn(value, chip):
        generator = torch.Generator().manual_seed(seed + chip)
        kept = torch.rand(value.shape, generator=generator).to(value.device) >= probability
        return torch.where(kept, value.float() * scale, 0.0).to(torch.bfloat16)

    def compute(values):
        return [drawn(value, chip if use_per_device_seed else 0) for chip, value in enumerate(values)]

    out = spec(x.spec.shape, bfloat16, x.layout, memory)
    return launch(name, (x,), out, compute, flops=out.shape.volume(), collective=True, into=into)
