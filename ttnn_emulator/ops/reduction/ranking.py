"""Where the largest are: argmax, topk, sort and what chooses by them."""

from __future__ import annotations

import math

import torch

from ... import numerics
from ...dtypes import BLOCK_FORMATS, NAME, Layout, bfloat8_b, bfloat16, cpp, float32, int32, uint8, uint16, uint32
from ...errors import DeviceRejects
from ...launch import finish, launch, on_device
from ...memory import MemoryConfig
from ...numerics import rounding
from ...op import op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor, spec
from .reduction import reduced_dims, reduced_shape


@op("ttnn.argmax")
def argmax(
    input_tensor: Tensor, dim: int | None = None, keepdim: bool = False, *, sub_core_grids=None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    enable_secondary_dm: bool | None = None,
) -> Tensor:  # fmt: skip
    """The index of the first of the largest values along `dim`, or in the flattened tensor.

    Shapes    [...] -> without `dim`, or 1 there with keepdim; one element without a dim
    Dtypes    TILE: bfloat16, float32; ROW_MAJOR also int32, uint32, uint16; uint32 ROW_MAJOR comes out
    Numerics  exact
    Source    recorded contract, op `ttnn.argmax`
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    if dim is not None and not -rank <= dim < rank:
        raise DeviceRejects(
            f"argmax: Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})"
        )
    if x.layout is Layout.TILE:
        if x.dtype not in (bfloat16, float32):
            raise DeviceRejects(
                f"Only BFLOAT16, FLOAT32 are supported for inputs with TILE layout, got {cpp(x.dtype)}",
                "ttnn.typecast(x, ttnn.bfloat16)",
            )
        if dim is None:
            raise DeviceRejects("For inputs with TILE layout, dim parameter must be specified!")
    elif x.dtype is uint8:
        raise DeviceRejects(
            "Only BFLOAT16, FLOAT32, INT32, UINT32, and UINT16 are supported for inputs with ROW_MAJOR layout, got "
            f"{cpp(x.dtype)}"
        )
    memory = memory_config or x.spec.memory_config
    for way, m in (("inputs", x.spec.memory_config), ("outputs", memory)):
        if m.is_sharded():
            raise DeviceRejects(f"Only INTERLEAVED memory layout is supported for {way}, got {cpp(m.memory_layout)}")
    shape = reduced_shape(x.spec.shape, reduced_dims(dim, rank), keepdim)
    if output_tensor is not None and (
        output_tensor.spec.shape.volume() != math.prod(shape) or (shape and output_tensor.spec.shape[-1:] != shape[-1:])
    ):
        raise DeviceRejects(
            "Preallocated output tensor is not page-compatible with the reduction result! Got : "
            f"{output_tensor.spec.shape}, "
            f"expected: Shape([{', '.join(map(str, shape))}]) (or any shape with the same volume and last dimension)"
        )
    out = spec(shape, uint32, Layout.ROW_MAJOR, memory)

    result = shape if output_tensor is None else output_tensor.spec.shape

    def compute(v):
        # Not torch.argmax, which may name any of several largest values.
        if dim is None:
            v = v.reshape(1, -1)
        top = v.amax(-1 if dim is None else dim, keepdim=True)
        at = (v == top).to(torch.uint8).argmax(-1 if dim is None else dim, keepdim=True)
        return at.reshape(result)

    return finish("ttnn.argmax", (x,), out, compute, output_tensor, flops=x.volume())


@op("ttnn.topk")
def topk(
    input_tensor: Tensor, k: int = 32, dim: int = -1, largest: bool = True, sorted: bool = True, *,
    memory_config: MemoryConfig | None = None, sub_core_grids=None, indices_tensor: Tensor | None = None,
    output_tensor=None,
    stable: bool = False,
) -> list[Tensor]:  # fmt: skip
    """[values, indices] of the k largest (or smallest) along `dim`.

    `indices_tensor` says what stands for each place instead of its number; `output_tensor` is (values, indices).

    Shapes    [...] -> values and indices [..., k, ...] along `dim`
    Dtypes    bfloat16, bfloat8_b, float32; indices are uint16, or uint32 where the dim exceeds 65,536 or the input is
              float32; those of `indices_tensor` or `output_tensor` where they are wider
    Layout    TILE
    Differs   of equal values the first index comes first; the device's bitonic sort may choose another
    Source    recorded contract, op `ttnn.topk`
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension for topk is out of range (expected to be in range of [{-rank}, {rank - 1}])")
    size = x.spec.shape[dim]
    if k > size:
        raise DeviceRejects(f"K cannot be larger than the dimension size! K={k}, dimension size={size}")
    if x.layout is not Layout.TILE:
        raise DeviceRejects("The input must be in tiled format")
    if x.dtype not in (bfloat16, bfloat8_b, float32):
        raise DeviceRejects(f"Input tensor must be BFLOAT16, BFLOAT8_B, or FLOAT32, got: {cpp(x.dtype)}")
    shape = list(x.spec.shape)
    shape[dim] = k
    memory = memory_config or x.spec.memory_config
    index = uint32 if size > 65536 or x.dtype is float32 else uint16
    if indices_tensor is not None:
        index = _labelled(x, on_device(indices_tensor), index)
    if output_tensor is not None:
        index = _check_outputs(x, tuple(shape), *map(on_device, output_tensor))
    held, dtype = rounding.HELD_AS[NAME[index]], x.dtype

    def compute(v, ids=None):
        at = torch.argsort(v.to(torch.float32), dim=dim, descending=largest, stable=True).narrow(dim, 0, k)
        values = v.gather(dim, at)
        if dtype in BLOCK_FORMATS:
            values = rounding.pack(values, NAME[dtype])
        return values, (at if ids is None else ids.to(torch.int64).gather(dim, at)).to(held)

    made = [spec(shape, x.dtype, Layout.TILE, memory), spec(shape, index, Layout.TILE, memory)]
    return launch(
        "ttnn.topk", (x, indices_tensor), made, compute, flops=x.volume() * TILE.bit_length(), into=output_tensor
    )


def _labelled(x: Tensor, labels: Tensor, index):
    """The dtype of indices that are taken from a tensor."""
    if labels.spec.shape != x.spec.shape:
        raise DeviceRejects(
            f"Indices tensor has incorrect shape! Got : Shape({list(labels.spec.shape)}), "
            f"expected: Shape({list(x.spec.shape)})"
        )
    if labels.layout is not Layout.TILE:
        raise DeviceRejects("Optional indices tensor must be in tiled format, got: Layout::ROW_MAJOR")
    if labels.dtype not in (uint16, uint32, int32):
        raise DeviceRejects(f"Optional indices tensor must be UINT16, UINT32, or INT32, got: {cpp(labels.dtype)}")
    if x.dtype is float32 and labels.dtype is uint16:
        raise DeviceRejects("Optional indices tensor must be UINT32 when input tensor is FLOAT32, got UINT16")
    return index if labels.dtype is uint16 else labels.dtype


def _check_outputs(x: Tensor, shape: tuple, values: Tensor, indices: Tensor):
    """The dtype of the indices that are written."""
    if tuple(values.spec.shape) != shape:
        raise DeviceRejects(
            f"Preallocated values tensor has incorrect shape! Got : Shape({list(values.spec.shape)}), "
            f"expected: Shape({list(shape)})"
        )
    if values.dtype is not x.dtype:
        raise DeviceRejects(
            "Preallocated output tensor dtype must match input tensor dtype. "
            f"Got output: {cpp(values.dtype)}, input: {cpp(x.dtype)}"
        )
    if tuple(indices.spec.shape) != shape or indices.dtype not in (uint16, uint32, int32):
        raise DeviceRejects(f"Preallocated indices tensor must be {list(shape)} of integers, not {indices.spec}")
    return indices.dtype


@op("ttnn.sort")
def sort(
    input_tensor: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *,
    memory_config: MemoryConfig | None = None, out=None,
) -> list[Tensor]:  # fmt: skip
    """[values, indices] in order along `dim`.

    Shapes    any; kept: values and indices
    Dtypes    bfloat16, float32, uint16; indices are uint16, or uint32 where the dim exceeds 65,536 or the input is not
              bfloat16
    Differs   equal values keep their order, whatever `stable` says
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    refuse_unmodelled("ttnn.sort", out=out)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Sort dim {dim} is out of range for rank-{rank} tensor")
    if x.dtype not in (bfloat16, uint16, float32):
        raise DeviceRejects(f"Input tensor data type must be BFLOAT16, UINT16, or FLOAT32, got {cpp(x.dtype)}")
    memory = memory_config or x.spec.memory_config
    index = uint16 if x.dtype is bfloat16 and x.spec.shape[dim] <= 65536 else uint32
    held = rounding.HELD_AS[NAME[index]]

    def compute(v):
        values, at = torch.sort(v, dim=dim, descending=descending, stable=True)
        return values, at.to(held)

    specs = [spec(x.spec.shape, x.dtype, x.layout, memory), spec(x.spec.shape, index, x.layout, memory)]
    return launch("ttnn.sort", (x,), specs, compute, flops=x.volume() * TILE.bit_length())


@op("ttnn.moe")
def moe(
    input_tensor: Tensor, expert_mask_tensor: Tensor, topk_mask_tensor: Tensor, k: int = 32, *,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The weight of expert 0: softmax over the k largest of input + expert_mask (+ topk_mask), where that is expert 0.

    Shapes    input [1, 1, S, E], expert_mask [1, 1, 1, E], topk_mask [1, 1, 1, k] -> [1, 1, S, 1]
    Dtypes    bfloat16 (recorded)
    Numerics  FPU sums; a softmax in bfloat16 with the approximate exponential
    Source    recorded contract, op `ttnn.moe`
    """
    x = on_device(input_tensor)
    on_device(expert_mask_tensor), on_device(topk_mask_tensor)
    if k != 32:
        raise DeviceRejects(f"K must be equal to 32, pad with -infinity if necessary to get 32, got {k}")
    shape = topk_mask_tensor.spec.shape
    if any(n != 1 for n in shape[:-1]) or shape[-1] != k:
        raise DeviceRejects(
            f"Topk mask must be row-broadcastable with last dim == k. Got rank={len(shape)} and shape={shape} for k={k}"
        )
    out, dtype = (
        spec((*x.spec.shape[:-1], 1), x.dtype, Layout.TILE, memory_config or x.spec.memory_config),
        NAME[x.dtype],
    )

    def compute(v, experts, top):
        n = numerics.now()
        v = n.add(v, experts, dtype, dtype, dtype)
        at = torch.argsort(v.float(), dim=-1, descending=True, stable=True)[..., :k]
        weights = n.weights(n.add(v.gather(-1, at), top, dtype, dtype, dtype))
        return rounding.pack((weights * (at == 0)).sum(-1, keepdim=True), dtype)

    inputs = (x, expert_mask_tensor, topk_mask_tensor)
    return finish("ttnn.moe", inputs, out, compute, output_tensor, flops=10 * x.volume())
