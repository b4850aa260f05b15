"""What state-space models sum: exponential averages along time, and columns in groups.

Source    ttnn 0.81.1: recorded vectors; refusals asked one by one
"""

from __future__ import annotations

import torch

from ...config import MathFidelity, WormholeComputeKernelConfig
from ...dtypes import NAME, DataType, Layout, bfloat8_b, bfloat16, cpp
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device, output_memory
from ...memory import MemoryConfig, TensorMemoryLayout
from ...numerics import ComputeConfig, rounding, vector
from ...numerics.reductions import column_sum
from ...op import op
from ...shape import TILE, at
from ...tensor import Tensor, spec


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


@op("ttnn.ema")
def ema(
    input_tensor: Tensor, alpha: float, *, out: Tensor | None = None, core_grid=None,
    memory_config: MemoryConfig | None = None, compute_kernel_config: WormholeComputeKernelConfig | None = None,
) -> Tensor:  # fmt: skip
    """The exponential moving average along the last dim: s = alpha * s + (1 - alpha) * x, from s = 0.

    Shapes    [1, B, C, T]; kept
    Dtypes    bfloat16
    Layout    TILE
    Numerics  every step in fp32, one rounding of what is kept
    Source    recorded vector `ema`; refusals asked one by one
    """
    x = on_device(input_tensor)
    shape, rank = x.spec.shape, len(x.spec.shape)
    _want(rank == 4, f"EMA input must be 4D [1, B, C, T], got rank {rank}")
    _want(shape[0] == 1, f"EMA expects leading dimension to be 1, got {shape[0]}")
    _want(x.dtype is bfloat16, f"Input tensor must be BFLOAT16, got: {cpp(x.dtype)}")
    _want(x.layout is Layout.TILE, f"Input tensor must have TILE layout, got: {cpp(x.layout)}")
    if out is not None:
        _want(on_device(out).dtype is bfloat16, f"Output tensor must be BFLOAT16, got: {cpp(out.dtype)}")
        sizes = [t.spec.padded_shape.volume() for t in (x, out)]
        _want(
            sizes[0] == sizes[1],
            f"Input and output must have the same volume, input: {sizes[0]}, output: {sizes[1]}",
        )
        if out.spec.shape != shape or out.layout is not Layout.TILE:
            raise NotEmulated(f"ttnn.ema into a tensor of {out.spec.shape} has no model; want {shape} TILE")
    weight = vector.f32(alpha)
    rest = vector.f32(1 - weight)

    def compute(v):
        steps = v.float() * rest
        state = torch.zeros_like(steps[..., 0])
        for t in range(v.shape[-1]):
            state = weight * state + steps[..., t]
            steps[..., t] = state
        return steps.to(torch.bfloat16)

    made = spec(shape, bfloat16, Layout.TILE, output_memory(x, memory_config))
    return launch("ttnn.ema", (x,), made, compute, flops=3 * x.volume(), into=out)


@op("ttnn.experimental.hc_sum_reduce")
def hc_sum_reduce(
    input: Tensor, *, memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    math_fidelity: MathFidelity | None = None,
) -> Tensor:  # fmt: skip
    """The sums of 32 neighbouring columns each.

    Shapes    [1, 1, H, W], W in whole tiles a multiple of 1024 -> [1, 1, H in whole tiles, W / 32]
    Dtypes    bfloat16, bfloat8_b; `dtype` or the operand's comes out
    Layout    TILE
    Numerics  as a sum over rows, in a bfloat16 destination, by default HiFi4
    Source    recorded vector `hc_sum_reduce`; refusals asked one by one
    """
    x = on_device(input)
    shape, floats = x.spec.padded_shape, (bfloat16, bfloat8_b)
    width = at(shape, 3)
    _want(x.layout is Layout.TILE, "Inputs to ssm_1d_sum_reduce must be tilized")
    _want(x.dtype in floats, "Unsupported data format for input a!", f"it is {cpp(x.dtype)}")
    _want(shape[0] == shape[1] == 1, "Dim 1 and 2 are expected to be 1 in input a!", f"it is {x.spec.shape}")
    _want(width // TILE % TILE == 0, "Final dim/TILE_SIZE must be a multiple of latent size!", f"it is {width}")
    memory, made = output_memory(x, memory_config), dtype or x.dtype
    if memory_config is not None:
        _want(
            memory.memory_layout is TensorMemoryLayout.INTERLEAVED,
            "Unsupported memory layout for output!", "an interleaved memory config",
        )  # fmt: skip
    _want(made in floats, "Unsupported data format for output!", f"it is {cpp(made)}")
    config = ComputeConfig((math_fidelity or MathFidelity.HiFi4).name)

    def compute(v):
        v = torch.nn.functional.pad(v, (0, width - v.shape[-1], 0, shape[-2] - v.shape[-2]))
        return rounding.pack(column_sum(v.unflatten(-1, (-1, TILE)).mT, config).squeeze(-2), NAME[made])

    out = spec((1, 1, shape[-2], width // TILE), made, Layout.TILE, memory)
    return launch("ttnn.experimental.hc_sum_reduce", (x,), out, compute, flops=x.volume())
