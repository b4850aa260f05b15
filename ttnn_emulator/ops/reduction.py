"""Reductions: sum, mean, max, min, argmax and their kin."""

from __future__ import annotations

import torch

from .. import numerics
from ..config import WormholeComputeKernelConfig, resolve
from ..dtypes import INTEGERS, NAME, ROW_MAJOR_LAYOUT, TILE_LAYOUT, Layout, bfloat8_b, bfloat16, cpp, float32, int32, uint32
from ..errors import DeviceRejects
from ..memory import MemoryConfig
from ..op import launch, on_device, op, output_memory, refuse_unmodelled
from ..tensor import Tensor, spec


@op("ttnn.argmax")
def argmax(
    input_tensor: Tensor, dim: int | None = None, keepdim: bool = False, *, sub_core_grids=None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, enable_secondary_dm: bool | None = None,
) -> Tensor:  # fmt: skip
    """The index of the first of the largest values along `dim`, or of the flattened tensor."""
    x, rank = on_device(input_tensor), len(input_tensor.shape)
    shape = list(x.shape)
    if dim is None:
        shape = [1] * rank if keepdim else []
    elif keepdim:
        shape[dim] = 1
    else:
        del shape[dim]
    out = spec(shape, uint32, ROW_MAJOR_LAYOUT, output_memory(x, memory_config))

    def compute(v):
        return torch.argmax(v, dim, keepdim).reshape(shape)

    return launch("ttnn.argmax", (x,), out, compute, flops=x.volume())
