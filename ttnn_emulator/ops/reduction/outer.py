"""Sums over the dims before the last two: fast_reduce_nc and what it does for experts.

Source    ttnn 0.81.1: the recorded contract and vectors; refusals asked one by one
"""

from __future__ import annotations

import torch

from ... import numerics
from ...config import WormholeComputeKernelConfig, resolve
from ...dtypes import NAME, Layout, bfloat8_b, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...numerics.reductions import leading_sum
from ...numerics.rounding import pack
from ...op import op
from ...tensor import Tensor, spec

NC, EXPERTS = "ttnn.experimental.fast_reduce_nc", "ttnn.experimental.deepseek_moe_fast_reduce_nc"
_DEFAULT = numerics.default_config("fast_reduce_nc")


def _check(what: str, x: Tensor, dtypes) -> None:
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"{what} input only supports TILE layout.")
    if x.dtype not in dtypes:
        names = ", ".join(cpp(d).removeprefix("DataType::") for d in dtypes)
        raise DeviceRejects(f"{what} input only supports specific data types. [{names}]", f"it is {cpp(x.dtype)}")


@op(NC)
def fast_reduce_nc(
    input: Tensor, *, dims=(), output: Tensor | None = None, memory_config: MemoryConfig = DRAM_MEMORY_CONFIG,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The sum over dims before the last two, the last of them first; the padding of tiles becomes part of the result.

    Shapes    [N, C, H, W] -> the dims of 1, H and W padded to tiles
    Dtypes    bfloat16, bfloat8_b, float32; kept
    Layout    TILE
    Numerics  tile by tile in the destination, by default bfloat16, and in bfloat16 between one dim and the next
    Raises    the last two dims, negative dims, none
    Source    recorded contract and vectors, op `ttnn.experimental.fast_reduce_nc`
    """
    x, rank = on_device(input), len(input.spec.shape)
    if not isinstance(dims, (list, tuple)) or not all(isinstance(d, int) for d in dims):
        raise TypeError(f"{NC}(): incompatible function arguments.\n  got    dims = {dims!r}\n  want   a list of ints")
    if not dims:
        raise DeviceRejects("fast_reduce_nc dims should not be empty")
    for d in dims:
        if not -4 <= d < 4:
            raise DeviceRejects(f"ShapeBase[] index out of range. {d} not in [-4, 4)")
    _check("FastReduceNC", x, (bfloat16, bfloat8_b, float32))
    if rank <= 2:
        raise DeviceRejects(f"FastReduceNC input rank must be greater than 2, but has {rank}")
    for d in dims:
        if not 0 <= d <= rank - 3:
            raise DeviceRejects(
                f"FastReduceNC reduces only outer dims: dim must be between 0 and {rank - 3}, but has {d}"
            )
    order, fp32, dtype = sorted(dims, reverse=True), resolve(compute_kernel_config, _DEFAULT).fp32_dest_acc_en, x.dtype
    made = spec([1 if d in dims else n for d, n in enumerate(x.spec.padded_shape)], dtype, Layout.TILE, memory_config)
    if output is not None and output.spec != made:
        raise NotEmulated(f"{NC}: the library does not ask whether its output tensor is {made}; it is {output.spec}")

    def compute(v):
        for i, d in enumerate(order):
            v = leading_sum(v, d, fp32)
            if i + 1 < len(order):
                v = pack(v, "bfloat16")
        v = torch.nn.functional.pad(v, (0, made.shape[-1] - v.shape[-1], 0, made.shape[-2] - v.shape[-2]))
        return pack(v, NAME[dtype])

    return launch(NC, (x,), made, compute, flops=x.volume(), into=output)


@op(EXPERTS)
def deepseek_moe_fast_reduce_nc(
    input_tensor: Tensor, dim: int, *, split_size: int, output_memory_config: MemoryConfig = DRAM_MEMORY_CONFIG,
    compute_kernel_config: WormholeComputeKernelConfig | None = None,
) -> list[Tensor]:  # fmt: skip
    """The sum over a dim before the last two, cut in parts of `split_size` along the last.

    Shapes    [..., W] -> W / split_size tensors [..., split_size], `dim` of 1
    Dtypes    bfloat16, bfloat8_b; kept
    Layout    TILE
    Numerics  an fp32 destination, whatever the config
    Raises    one of the last two dims, parts that do not divide W
    Source    ttnn 0.81.1: recorded vectors; refusals asked one by one
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    _check("DeepseekMoEFastReduceNC", x, (bfloat16, bfloat8_b))
    at = dim + rank if dim < 0 else dim
    if not 0 <= at <= rank - 3:
        raise DeviceRejects(f"reduction dim must be between 0 and {rank - 3}, but has {dim}")
    width, dtype = x.spec.shape[-1], x.dtype
    if split_size <= 0 or width % split_size:
        raise DeviceRejects(f"split_size ({split_size}) must be greater than 0 and divide the last dim ({width})")
    shape = [1 if d == at else n for d, n in enumerate(x.spec.shape)]
    shape[-1] = split_size
    made = [spec(shape, dtype, Layout.TILE, output_memory_config)] * (width // split_size)

    def compute(v):
        parts = leading_sum(v, at, True).split(split_size, -1)
        parts = [pack(part, NAME[dtype]).contiguous() for part in parts]
        return parts if len(parts) > 1 else parts[0]

    out = launch(EXPERTS, (x,), made if len(made) > 1 else made[0], compute, flops=x.volume())
    return out if len(made) > 1 else [out]
