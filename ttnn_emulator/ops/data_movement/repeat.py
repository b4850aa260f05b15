"""Values more than once or elsewhere: repeat, expand, gather, scatter, triangles, roll."""

from __future__ import annotations

import builtins

import torch

from ...dtypes import (
    BLOCK_FORMATS,
    INTEGERS,
    NAME,
    TILE_LAYOUT,
    DataType,
    bfloat4_b,
    bfloat8_b,
    bfloat16,
    cpp,
    float32,
    uint8,
    uint16,
)
from ...errors import DeviceRejects, NotEmulated
from ...grid import num_cores_to_corerangeset
from ...launch import check_places, launch, output_memory, same
from ...memory import MemoryConfig, ShardSpec, TensorMemoryLayout, extent
from ...numerics import rounding
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

    def pick(v, i):
        check_places("ttnn.gather", i, v.shape[at], "dim")
        return torch.gather(v, at, i.long())

    return launch("ttnn.gather", (x, index), made, moving(pick, x.dtype))


#: What scatter does with values for one place: what comes last, their sum, their product.
_REDUCTIONS = {None: None, "add": "sum", "multiply": "prod"}


@op("ttnn.scatter")
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, memory_config: MemoryConfig | None = None,
    reduce: str | None = None, sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """A copy of `input` with out[i][index[i][j]] = src[i][j] for the last dim, and alike for the others.

    With `reduce` "add" or "multiply" what is there and all that comes are added or multiplied.

    Shapes    input [...]; index and source alike, within it but along `dim` -> the input's
    Dtypes    bfloat16, float32, bfloat8_b, integers, input and source alike; bfloat8_b is taken as bfloat16 and comes
              out as that
    Layout    kept; index and source may have another
    Numerics  moves values; sums and products in fp32, rounded once
    Raises    float32 in tiles; bfloat4_b; an index or source of another rank or beyond the input
    Differs   of several values for one place torch's last one stays
    Source    recorded contract, op `ttnn.scatter`; `reduce` and more dtypes asked of ttnn 0.81.1
    """
    if reduce not in _REDUCTIONS:
        raise DeviceRejects(f"reduce must be either 'add' or 'multiply' (case-sensitive), got {reduce}")
    return _scattered("ttnn.scatter", input, dim, index, src, memory_config, _REDUCTIONS[reduce])


@op("ttnn.scatter_add")
def scatter_add(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, memory_config: MemoryConfig | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """`input` with every src[i][j] added at [i][index[i][j]] for the last dim, and alike for the others.

    Shapes    as `scatter`
    Dtypes    as `scatter`
    Numerics  fp32 sums in the order of the index, rounded once
    Raises    as `scatter`
    Source    recorded contract and vectors, op `ttnn.scatter_add`
    """
    return _scattered("ttnn.scatter_add", input, dim, index, src, memory_config, "sum")


def _scattered(name, x: Tensor, dim: int, index: Tensor, src: Tensor, memory_config, how: str | None) -> Tensor:
    x, rank = device_tensor(x), len(x.spec.shape)
    device_tensor(index), device_tensor(src)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"scatter: dim {dim} is out of range for tensor rank {rank}")
    at = dim % rank
    if len(index.spec.shape) != rank or len(src.spec.shape) != rank:
        short = min(len(index.spec.shape), len(src.spec.shape), rank)
        raise DeviceRejects(f"ShapeBase[] index out of range. {rank - 1} not in [-4, {short})")
    shapes = {"index": index.spec.shape, "input": x.spec.shape, "source": src.spec.shape}
    for other in ("input", "source"):
        for d in range(rank):
            if index.spec.shape[d] > shapes[other][d] and not (other == "input" and d == at):
                raise DeviceRejects(
                    f"index_shape[{d}] <= {other}_shape[{d}] == false (index_shape: Shape({list(index.spec.shape)}), "
                    f"{other}_shape: Shape({list(shapes[other])}))"
                )
    for what, t in (("input", x), ("source", src)):
        if t.dtype is float32 and t.layout is TILE_LAYOUT:
            raise DeviceRejects(
                f"Scatter doesn't work for fp32 tiled tensors yet (see to_layout issue #) - {what} tensor is "
                f"{cpp(t.dtype)} {cpp(t.layout)}."
            )
    #: Blocks of 8 bits are taken as what they are untilized to; those of 4 bits are not untilized.
    taken = [bfloat16 if t.dtype is bfloat8_b else t.dtype for t in (x, src)]
    if taken[0] is not taken[1]:
        raise DeviceRejects(
            f"input_dtype differs from src_dtype (input_dtype: {x.dtype.name}, src_dtype: {src.dtype.name})."
        )
    if index.dtype not in INTEGERS:
        raise DeviceRejects(f"index_dtype is not integer, it is {index.dtype.name}.")
    if x.is_sharded():
        raise DeviceRejects("Sharded tensors are not supported - input_tensor is sharded.")
    dtype = taken[0]
    if dtype is bfloat4_b:
        raise DeviceRejects(ONLY_TILE)
    made = spec(x.spec.shape, dtype, x.layout, output_memory(x, memory_config))
    size = tuple(map(builtins.slice, index.spec.shape))

    def compute(v, i, s):
        check_places(name, i, v.shape[at], "dim")
        i = i.long()
        if how is None:
            return v.scatter(at, i, s[size].to(v.dtype))
        wide = v.to(torch.float32) if v.is_floating_point() else v.to(torch.int64)
        y = wide.scatter_reduce(at, i, s[size].to(wide.dtype), how, include_self=True)
        return y.to(v.dtype) if v.is_floating_point() else rounding.cast_integer(y, NAME[dtype])

    return launch(name, (x, index, src), made, compute)


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
