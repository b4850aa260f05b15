"""Values more than once or elsewhere: repeat, expand, gather, scatter, triangles, roll."""

from __future__ import annotations

import builtins

import torch

from ...dtypes import BLOCK_FORMATS, INTEGERS, TILE_LAYOUT, DataType, bfloat4_b, bfloat16, cpp, float32, uint8, uint16
from ...errors import DeviceRejects, NotEmulated
from ...grid import num_cores_to_corerangeset
from ...launch import launch, output_memory, same
from ...memory import MemoryConfig, ShardSpec, TensorMemoryLayout, extent
from ...op import described, op, refuse_unmodelled
from ...shape import TILE, Shape, tile_padded
from ...tensor import Tensor, padded, spec
from .moving import ONLY_TILE, RESHAPE_DTYPES, RESHAPED, allocated, axis, device_tensor, integers, moving
from .reshape import reshaped
from .slicing import TILIZE_DTYPES


@op("ttnn.repeat")
def repeat(
    input_tensor: Tensor,
    repeat_dims,
    *,
    memory_config: MemoryConfig | None = None,
    optional_output_tensor: Tensor | None = None,
) -> Tensor:
    """Copies behind one another along each dim; fewer numbers than dims count from the last, more add dims in front.

    Shapes    n -> n * times by dim
    Dtypes    bfloat16, float32, bfloat4_b, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.repeat`
    """
    times = integers("ttnn.repeat", "repeat_dims", repeat_dims)
    if builtins.any(t < 0 for t in times):
        raise TypeError(f"ttnn.repeat(): incompatible function arguments.\n  got    repeat_dims = {list(times)}")
    refuse_unmodelled("ttnn.repeat", optional_output_tensor=optional_output_tensor)
    x = device_tensor(input_tensor)
    rank = max(len(times), len(x.spec.shape))
    times = (1,) * (rank - len(times)) + times
    old = Shape((1,) * (rank - len(x.spec.shape)) + x.spec.shape)
    if builtins.all(t == 1 for t in times) and memory_config in (None, x.spec.memory_config):
        return reshaped("ttnn.reshape", x, old)
    shape = Shape(n * t for n, t in zip(old, times))
    inside = tile_padded(old)
    moved = inside != old and (
        rank > 4 or builtins.any(t != 1 and n != i for t, n, i in zip(times[-2:], old[-2:], inside[-2:]))
    )
    if x.layout is TILE_LAYOUT and moved and x.dtype in (bfloat4_b, DataType.UINT8):
        raise DeviceRejects(ONLY_TILE if x.dtype is bfloat4_b else TILIZE_DTYPES)
    memory = output_memory(x, memory_config)
    if memory_config is None and memory.is_sharded():
        memory = _repeated_shards(memory, padded(shape, x.layout, None), x.layout, x.buffer.device.chip.grid)
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.repeat", (x,), made, moving(lambda v: v.repeat(times), x.dtype))


def _repeated_shards(memory: MemoryConfig, inside: Shape, layout, grid) -> MemoryConfig:
    """Height sharded in TILE: a core for every row of tiles. What the library chooses otherwise is not modelled."""
    rows, columns = extent(inside)
    cores = rows // TILE
    if (
        memory.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED
        or layout is not TILE_LAYOUT
        or cores > grid[0] * grid[1]
    ):
        raise NotEmulated(
            "ttnn.repeat: where this sharded result is placed by default is not modelled; say memory_config="
        )
    shards = ShardSpec(num_cores_to_corerangeset(cores, grid, True), (TILE, columns), memory.shard_spec.orientation)
    return MemoryConfig(memory.memory_layout, memory.buffer_type, shards)


@op("ttnn.repeat_interleave")
def repeat_interleave(
    input_tensor: Tensor, repeats: int, dim: int, *, memory_config: MemoryConfig | None = None
) -> Tensor:
    """Each slice along `dim` repeated in place. A sharded operand gives DRAM interleaved.

    Shapes    n -> n * repeats along `dim`
    Dtypes    bfloat16, float32, bfloat8_b, uint32 (recorded)
    Source    recorded contract, op `ttnn.repeat_interleave`
    """
    x = input_tensor
    at = axis(dim, len(x.spec.shape))
    if repeats <= 0:
        raise DeviceRejects("ttnn.concat: expected a non-empty list of Tensors!")
    if len(x.spec.shape) == 1:  # goes through a reshape
        if x.dtype not in RESHAPED and x.dtype not in BLOCK_FORMATS:
            raise DeviceRejects(RESHAPE_DTYPES)
    elif repeats == 1 and memory_config in (None, x.spec.memory_config):
        return same(allocated(x))
    device_tensor(x)
    memory = memory_config or (MemoryConfig() if x.is_sharded() else x.spec.memory_config)
    shape = Shape(n * repeats if d == at else n for d, n in enumerate(x.spec.shape))
    made = spec(shape, x.dtype, x.layout, memory)
    return launch("ttnn.repeat_interleave", (x,), made, moving(lambda v: v.repeat_interleave(repeats, at), x.dtype))


@op("ttnn.expand")
def expand(input_tensor: Tensor, output_shape, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Dims of size 1 repeated to the size asked; -1 keeps a dim.

    Shapes    dims of 1 -> the given sizes; -1 keeps a dim
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.expand`
    """
    x, wanted = input_tensor, integers("ttnn.expand", "output_shape", output_shape)
    if len(wanted) < len(x.spec.shape):
        raise DeviceRejects("Output rank must be >= input rank for expand")
    old = (1,) * (len(wanted) - len(x.spec.shape)) + tuple(x.spec.shape)
    if builtins.any(w not in (-1, n) and n != 1 for n, w in zip(old, wanted)):
        raise DeviceRejects(
            "Only size 1 dimensions can be expanded in the output shape", f"{x.spec.shape} to {list(wanted)}"
        )
    return repeat(x, [1 if w in (-1, n) else w for n, w in zip(old, wanted)], memory_config=memory_config)


@op("ttnn.gather")
def gather(
    input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, memory_config: MemoryConfig | None = None,
    out: Tensor | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """out[i][j] = input[i][index[i][j]] for the last dim, and alike for the others.

    Shapes    input [...], index [...] of the same rank -> the index's
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.gather`
    """
    refuse_unmodelled("ttnn.gather", sparse_grad=sparse_grad, out=out)
    x = device_tensor(input)
    device_tensor(index)
    if not -len(x.spec.shape) <= dim < len(x.spec.shape):
        raise DeviceRejects(f"gather: dim {dim} is out of range for tensor rank {len(x.spec.shape)}")
    at = dim % len(x.spec.shape)
    if len(index.spec.shape) != len(x.spec.shape):
        raise DeviceRejects(
            "Input and index tensor must have the same number of dimensions. "
            f"Got input dim: {len(x.spec.shape)} and index dim: {len(index.spec.shape)}"
        )
    if index.layout is not x.layout:
        raise DeviceRejects(
            f"Input tensor and index tensor must have the same layout. Got input layout: {cpp(x.layout)} and index "
            f"layout: {cpp(index.layout)}"
        )
    if index.dtype not in (DataType.UINT32, DataType.UINT16):
        raise DeviceRejects(f"gather_codegen: index tensor must be of type UINT32 or UINT16. Got: {cpp(index.dtype)}")
    for d, (n, of) in enumerate(zip(index.spec.shape, x.spec.shape)):
        if d != at and n > of:
            raise DeviceRejects(f"Ends {n} must be less than or equal to the shape of the tensor {of}")
    made = spec(index.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.gather", (x, index), made, moving(lambda v, i: torch.gather(v, at, i.long()), x.dtype))


@op("ttnn.scatter")
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, memory_config: MemoryConfig | None = None,
    reduce: str | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """A copy of `input` with out[i][index[i][j]] = src[i][j] for the last dim, and alike for the others.

    Shapes    input [...]; index and source alike, within it -> the input's
    Dtypes    bfloat16, float32, int32 (recorded)
    Source    recorded contract, op `ttnn.scatter`
    """
    refuse_unmodelled("ttnn.scatter", reduce=reduce)
    x, at = device_tensor(input), axis(dim, len(input.spec.shape))
    device_tensor(index), device_tensor(src)
    if index.dtype not in INTEGERS:
        raise DeviceRejects(f"index_dtype is not integer, it is {index.dtype.name}.")
    for what, t in (("input", x), ("source", src)):
        if t.dtype is float32 and t.layout is TILE_LAYOUT:
            raise DeviceRejects(
                f"Scatter doesn't work for fp32 tiled tensors yet (see to_layout issue #) - {what} tensor is "
                f"{cpp(t.dtype)} {cpp(t.layout)}."
            )
    if src.dtype is not x.dtype:
        raise DeviceRejects(
            f"input_dtype differs from src_dtype (input_dtype: {x.dtype.name}, src_dtype: {src.dtype.name})."
        )
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch(
        "ttnn.scatter", (x, index, src), made, moving(lambda v, i, s: v.scatter(at, i.long(), s.to(v.dtype)), x.dtype)
    )


def _triangle(name: str, doc: str, function):
    @op(name)
    def call(input_tensor: Tensor, *, diagonal: int = 0, memory_config: MemoryConfig | None = None) -> Tensor:
        x = device_tensor(input_tensor)
        if x.dtype in (uint8, uint16):  # it multiplies by a triangle of bfloat16
            a, b = cpp(x.dtype), cpp(bfloat16)
            raise DeviceRejects(
                f"Input tensor A dtype {a} is not supported for binary operation BinaryOpType::MUL"
                if x.dtype is uint8
                else f"Mixed dtype is not supported for binary operation BinaryOpType::MUL, dtype A: {a}, dtype B: {b}"
            )
        inside = tile_padded(x.spec.shape)
        if x.layout is not TILE_LAYOUT and inside != x.spec.shape:
            raise DeviceRejects(
                f"to_layout: Converting layout to Layout::TILE implicitly changed physical shape from "
                f"{extent(x.spec.shape)} to {extent(inside)} due to alignment constraints. This is currently "
                "unsupported. Please "
                "pad the tensor explicitly before conversion."
            )
        made = spec(x.spec.shape, x.dtype, TILE_LAYOUT, output_memory(x, memory_config))
        return launch(name, (x,), made, moving(lambda v: function(v, diagonal), x.dtype))

    call.__doc__ = described(
        doc, Shapes="[..., M, N]; kept", Dtypes="all but uint16 and uint8; kept",
        Source="ttnn 0.81.1: recorded contract; asked dtype by dtype",
    )  # fmt: skip
    return call


tril = _triangle("ttnn.tril", "What is on and below a diagonal, zero above it.", torch.tril)
triu = _triangle("ttnn.triu", "What is on and above a diagonal, zero below it.", torch.triu)


@op("ttnn.roll")
def roll(input_tensor: Tensor, shifts, dim=None, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Values shifted along dims, those that fall off the end coming in at the front.

    Shapes    any; kept
    Dtypes    bfloat16, float32, uint32, int32, uint16; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    x = device_tensor(input_tensor)
    shifts = (shifts,) if isinstance(shifts, int) else integers("ttnn.roll", "shifts", shifts)
    dims = None if dim is None else (dim,) if isinstance(dim, int) else integers("ttnn.roll", "dim", dim)
    rank = len(x.spec.shape)
    if dims is not None and len(dims) != len(shifts):
        raise DeviceRejects(f"Roll expects shifts {len(shifts)} and dims {len(dims)} to have the same length")
    for d in dims or ():
        if not -rank <= d < rank:
            raise DeviceRejects(
                f"Invalid dimension index {d}. The dimension must be within the range [{-rank}, {rank - 1}]."
            )
    if x.dtype in BLOCK_FORMATS:  # it cuts and concatenates, and an unaligned cut comes out as bfloat16
        raise DeviceRejects("All Tensors should have same dtypes.")
    if builtins.all(s == 0 for s in shifts) and memory_config is None:
        return same(x)
    made = spec(x.spec.shape, x.dtype, x.layout, output_memory(x, memory_config))
    return launch("ttnn.roll", (x,), made, moving(lambda v: torch.roll(v, shifts, dims), x.dtype))
