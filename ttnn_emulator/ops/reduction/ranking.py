"""Where the largest are: argmax, topk, sort and what chooses by them."""

from __future__ import annotations

import math

import torch

from ...dtypes import (
    BLOCK_FORMATS,
    NAME,
    Layout,
    bfloat8_b,
    bfloat16,
    cpp,
    float32,
    int32,
    uint8,
    uint16,
    uint32,
)
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

    Dtypes    TILE: bfloat16, float32; ROW_MAJOR also int32, uint32, uint16; uint32 ROW_MAJOR comes out
    Numerics  exact
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

    Dtypes    bfloat16, bfloat8_b, float32; indices are uint16, or uint32 where the dim exceeds 65,536 or the input is
              float32
    Layout    TILE
    Differs   of equal values the first index comes first; the device's bitonic sort may choose another
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    refuse_unmodelled("ttnn.topk", output_tensor=output_tensor)
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
    held, dtype = rounding.HELD_AS[NAME[index]], x.dtype

    def compute(v, ids=None):
        at = torch.argsort(v.to(torch.float32), dim=dim, descending=largest, stable=True).narrow(dim, 0, k)
        values = v.gather(dim, at)
        if dtype in BLOCK_FORMATS:
            values = rounding.pack(values, NAME[dtype])
        return values, (at if ids is None else ids.to(torch.int64).gather(dim, at)).to(held)

    if index is uint32 and indices_tensor is not None and indices_tensor.dtype is not uint32:
        refuse_unmodelled("ttnn.topk", indices_tensor=indices_tensor)
    return launch(
        "ttnn.topk", (x, indices_tensor),
        [spec(shape, x.dtype, Layout.TILE, memory), spec(shape, index, Layout.TILE, memory)],
        compute, flops=x.volume() * TILE.bit_length(),
    )  # fmt: skip


@op("ttnn.sort")
def sort(
    input_tensor: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *,
    memory_config: MemoryConfig | None = None, out=None,
) -> list[Tensor]:  # fmt: skip
    """[values, indices] in order along `dim`.

    Dtypes    bfloat16, float32, uint16; indices are uint16, or uint32 where the dim exceeds 65,536 or the input is not
              bfloat16
    Differs   equal values keep their order, whatever `stable` says
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
        v = v.float() + experts.float()
        at = torch.argsort(v, dim=-1, descending=True, stable=True)[..., :k]
        weights = torch.softmax(v.gather(-1, at) + top.float(), -1)
        return rounding.pack((weights * (at == 0)).sum(-1, keepdim=True), dtype)

    inputs = (x, expert_mask_tensor, topk_mask_tensor)
    return finish("ttnn.moe", inputs, out, compute, output_tensor, flops=10 * x.volume())


@op("ttnn.sampling")
def sampling(
    input_values_tensor: Tensor, input_indices_tensor: Tensor, k: Tensor, p: Tensor, temp: Tensor, *,
    seed: int | None = None,
    sub_core_grids=None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A token for each of 32 users: top-k, then top-p, then a draw, from values * temp (temp is 1 / temperature).

    Shapes    values and indices [1, 1, 32, W], k, p and temp [32] -> [1, 1, 1, 32]
    Dtypes    values, p and temp bfloat16; indices and k uint32 or int32; uint32 comes out
    Layout    values TILE, all the others ROW_MAJOR
    Differs   the draw is torch's for the same seed, not the device's; with k = 1 there is none
    """
    v, ids = on_device(input_values_tensor), on_device(input_indices_tensor)
    for t in (k, p, temp):
        on_device(t)
    if len(v.spec.shape) < 3:
        raise DeviceRejects(f"ShapeBase[] index out of range. 2 not in [-4, {len(v.spec.shape)})")
    if v.layout is not Layout.TILE:
        raise DeviceRejects("Only TILE_LAYOUT is supported for inputs!")
    if v.dtype is not bfloat16:
        raise DeviceRejects("Only BFLOAT16 is supported for inputs!")
    if ids.layout is not Layout.ROW_MAJOR:
        raise DeviceRejects("Only ROW_MAJOR is supported for input indices!")
    if v.spec.shape != ids.spec.shape:
        raise DeviceRejects("Input values and indices must have the same shape!")
    tiles = v.spec.shape[-1] // TILE
    if tiles & (tiles - 1) or v.spec.shape[-1] % TILE:
        raise DeviceRejects(
            f"Input inner dim ({v.spec.shape[-1]}) must yield a power-of-2 number of tiles (Wt = W/32 = {tiles}); "
            "pad W up to the next "
            "power-of-2 multiple of 32 (e.g. with -inf values and dummy indices) if needed!"
        )
    if k.dtype not in (uint32, int32):
        raise DeviceRejects("Only UINT32 & INT32 dtypes are supported for k!")
    if k.spec.shape != (32,):
        raise DeviceRejects("k must have shape [32] (one per user)!")
    if p.dtype is not bfloat16:
        raise DeviceRejects("Only BFLOAT16 dtypes are supported for p!")
    out = spec((1, 1, 1, 32), uint32, Layout.ROW_MAJOR, v.spec.memory_config)

    def compute(values, indices, most, mass, inverse):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        logits = values[0, 0].float() * inverse.float()[:, None]
        chosen = []
        for user, row in enumerate(logits):
            at = torch.argsort(row, descending=True, stable=True)[: int(most[user]) or row.numel()]
            weights = torch.softmax(row[at], 0)
            keep = weights.cumsum(0) - weights < float(mass[user])
            keep[0] = True
            drawn = at[0] if len(at) == 1 else at[torch.multinomial(weights * keep, 1, generator=generator)[0]]
            chosen.append(indices[0, 0, user, drawn])
        return torch.stack(chosen).reshape(1, 1, 1, 32).to(torch.int64)

    return finish("ttnn.sampling", (v, ids, k, p, temp), out, compute, output_tensor, flops=5 * v.volume())
