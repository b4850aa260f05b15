"""Several tensors in one, and padding around one: concat, stack and pad."""

from __future__ import annotations

import builtins

import torch

from ...dtypes import BLOCK_FORMATS, TILE_LAYOUT, DataType, bfloat4_b, bfloat8_b, bfloat16, cpp
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, output_memory, refilled, same
from ...memory import MemoryConfig, TensorMemoryLayout, extent, with_shards
from ...op import op, refuse_unmodelled
from ...shape import TILE, Shape, tile_padded
from ...tensor import Tensor, padded, spec
from .moving import ONLY_TILE, allocated, axis, device_tensor, integers, moving
from .reshape import unsqueeze
from .slicing import TILIZE_DTYPES


@op("ttnn.concat")
def concat(
    tensors, dim: int = 0, *, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    groups: int = 1,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """Tensors behind one another along `dim`.

    Shapes    tensors alike but for `dim`, along which they are joined
    Layout    that of the first; DRAM interleaved unless `memory_config` is given, wherever the operands are
    Dtypes    all the same; bfloat8_b that must be untilized (unaligned along a tile dim) comes out as bfloat16
    Raises    other ranks, dims or dtypes; some sharded and some not; bfloat4_b that must be untilized
    Source    recorded contract, op `ttnn.concat`
    """
    if isinstance(tensors, Tensor):  # the library takes a tensor for the sequence of its rows
        tensors = [tensors[i] for i in range(tensors.shape[0])]
    tensors = list(tensors)
    if not builtins.all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(
            "ttnn.concat(): incompatible function arguments.\n  got    something else than tensors in the list"
        )
    if not tensors:
        raise DeviceRejects("ttnn.concat: expected a non-empty list of Tensors!")
    if output_tensor is not None:
        raise DeviceRejects("optional output tensor currently unsupported!")
    first = tensors[0]
    rank = len(first.spec.shape)
    at = axis(dim, rank)
    memory = memory_config or MemoryConfig()
    if len(tensors) == 1 and memory == first.memory_config():
        return same(device_tensor(first))
    if groups != 1:
        refuse_unmodelled("ttnn.concat", groups=groups)
    for t in tensors[1:]:
        if len(t.spec.shape) != rank:
            _ranks_differ(first, t)
        if builtins.any(a != b for d, (a, b) in enumerate(zip(first.spec.shape, t.spec.shape)) if d != at):
            raise DeviceRejects(
                "All dimensions must be the same size except for the dimension along which the contenation is "
                "taking place."
            )
    for t in tensors:
        device_tensor(t)
    for t in tensors[1:]:
        if t.dtype is not first.dtype:
            raise DeviceRejects("All Tensors should have same dtypes.")
        if t.is_sharded() != first.is_sharded():
            raise DeviceRejects("All tensors must be sharded or all must be interleaved")
        tiled = first.layout is TILE_LAYOUT and t.is_sharded()
        if tiled and t.spec.memory_config.shard_spec.grid != first.spec.memory_config.shard_spec.grid:
            raise DeviceRejects("Sharded tensors must have the same grid.")
    dtype = first.dtype
    if (
        len(tensors) > 1
        and first.layout is TILE_LAYOUT
        and at >= rank - 2
        and builtins.any(t.spec.shape[at] % TILE for t in tensors)
    ):
        if dtype in (bfloat4_b, DataType.UINT8):
            raise DeviceRejects(ONLY_TILE if dtype is bfloat4_b else TILIZE_DTYPES)
        dtype = bfloat16 if dtype is bfloat8_b else dtype
    shape = list(first.spec.shape)
    shape[at] = sum(t.spec.shape[at] for t in tensors)
    made = spec(tuple(shape), dtype, first.layout, memory)
    return launch("ttnn.concat", tensors, made, lambda *values: torch.cat(values, at))


def _ranks_differ(first: Tensor, other: Tensor):
    """The refusal of tensors of several ranks: the library reads the shorter shape past its end."""
    rank = len(other.spec.shape)
    if len(first.spec.shape) < rank:
        raise DeviceRejects(
            "All dimensions must be the same size except for the dimension along which the contenation is taking place."
        )
    raise DeviceRejects(
        f"ShapeBase[] index out of range. {rank} not in [-4, {rank})",
        f"ranks {len(first.spec.shape)} and {rank} differ",
    )


@op("ttnn.stack")
def stack(input_tensors, dim: int) -> Tensor:
    """Tensors of one shape along a new dim.

    Shapes    n tensors [...] -> [..., n, ...], the new dim at `dim`
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.stack`
    """
    tensors = list(input_tensors)
    if not tensors:
        raise DeviceRejects("Stack expects at least one tensor")
    at = dim + len(tensors[0].spec.shape) + 1 if dim < 0 else dim
    return concat([unsqueeze(t, dim) for t in tensors], at)


@op("ttnn.pad", lacks=("fill",))
def pad(
    input_tensor: Tensor, padding=None, value=None, fill=None, *, output_padded_shape=None, input_tensor_start=None,
    use_multicore: bool = True, memory_config: MemoryConfig | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """With `value` put in front of and behind each dim: pairs for the last dims, or an output shape and a start.

    Shapes    [...] -> before + n + after by dim
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32 (recorded)
    Layout    TILE only behind; inside the tiles that are there already, on the same memory
    Raises    front padding in TILE; more pairs than dims
    Source    recorded contract, op `ttnn.pad`
    """
    x = input_tensor
    if (
        output_padded_shape is None
        and padding is not None
        and not isinstance(padding, Tensor)
        and len(padding)
        and isinstance(padding[0], int)
    ):
        output_padded_shape, input_tensor_start, value = padding, value, fill
    rank = len(x.spec.shape)
    if output_padded_shape is not None:
        outer = integers("ttnn.pad", "output_padded_shape", output_padded_shape)
        start = integers("ttnn.pad", "input_tensor_start", input_tensor_start)
        if x.layout is not TILE_LAYOUT and builtins.any(n + s > o for n, s, o in zip(x.spec.shape, start, outer)):
            raise DeviceRejects("Output size cannot fit input with offset")
        pairs = [(s, o - n - s) for n, s, o in zip(x.spec.shape, start, outer)]
    else:
        pairs = [] if padding is None else [integers("ttnn.pad", "padding", p) for p in padding]
        if padding is None or builtins.any(len(p) != 2 or min(p) < 0 for p in pairs):
            raise TypeError(f"ttnn.pad(): incompatible function arguments.\n  got    padding = {padding!r:.100}")
        if len(pairs) > rank:
            raise DeviceRejects("ttnn.pad: padding len can't be larger than input tensor rank")
        pairs = [(0, 0)] * (rank - len(pairs)) + pairs
    if not isinstance(value, (int, float)):
        raise TypeError(f"ttnn.pad(): incompatible function arguments.\n  got    value = {value!r:.100}")
    tiled = x.layout is TILE_LAYOUT
    allocated(x)
    if builtins.all(p == (0, 0) for p in pairs):
        return same(x)
    shape = Shape(n + front + back for n, (front, back) in zip(x.spec.shape, pairs))
    flat = [n for p in reversed(pairs) for n in p]

    def compute(v):
        return torch.nn.functional.pad(v, flat, value=value)

    if x.buffer is None:
        raise NotEmulated("ttnn.pad of a host tensor, which pads only what is not in view, is not modelled")
    if tiled and builtins.any(front for front, _ in pairs):
        raise DeviceRejects("ttnn.pad: on device tile padding does not support front padding")
    memory = output_memory(x, memory_config)
    if tiled and x.dtype is DataType.UINT8:
        raise DeviceRejects(f"Unsupported datatype {cpp(x.dtype)}")
    if tiled and tile_padded(shape) == x.spec.padded_shape and x.dtype not in BLOCK_FORMATS:
        return refilled(x, spec(shape, x.dtype, x.layout, x.spec.memory_config), compute)
    if not tiled and x.dtype is DataType.UINT8:
        raise DeviceRejects("Cannot pad RM tensor with specified format")
    if tiled and x.dtype is bfloat4_b and tile_padded(shape) != x.spec.padded_shape:
        raise DeviceRejects("Cannot pad tilized tensor with specified format")
    if tiled and rank == 1:
        raise DeviceRejects(
            "MeshBuffer must be large enough to hold the tensor.", "the library pads no vector to more tiles"
        )
    if memory_config is None and memory.memory_layout is TensorMemoryLayout.HEIGHT_SHARDED:
        memory = with_shards(memory, (memory.shard_spec.shape[0], extent(padded(shape, x.layout, None))[1]))
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.pad", (x,), made, moving(compute, x.dtype))
