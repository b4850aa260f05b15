"""Splitting a fused q, k, v projection into heads, and putting heads together again."""

from __future__ import annotations

from functools import lru_cache

import torch

from ... import numerics
from ...dtypes import BLOCK_FORMATS, NAME, Layout, bfloat8_b, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord, CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ...grid import num_cores_to_corerangeset_in_subcoregrids as cores_of_set
from ...launch import launch, on_device, output_memory, unmodelled
from ...memory import BufferType, MemoryConfig, ShardSpec, TensorMemoryLayout, buffer_bytes
from ...numerics.rows import Slices
from ...op import op, refuse_unmodelled
from ...shape import TILE, at, round_up
from ...tensor import Tensor, spec

_HEAD_DTYPES = (float32, bfloat16, bfloat8_b)


def widened(v: torch.Tensor, width: int) -> torch.Tensor:
    """The last dim with its zero padding."""
    return v if v.shape[-1] == width else torch.nn.functional.pad(v, (0, width - v.shape[-1]))


@lru_cache(maxsize=1024)
def row_wise(cores: int, grid: tuple[int, int], start: int = 0) -> CoreRangeSet:
    """`cores` cores of the worker grid, row by row, from the core number `start` on."""
    columns, rows = grid
    if not start % columns:
        first = start // columns
        whole = num_cores_to_corerangeset(cores, (columns, rows - first), row_wise=True)
        return CoreRangeSet(
            [CoreRange((r.start.x, r.start.y + first), (r.end.x, r.end.y + first)) for r in whole.ranges()]
        )
    x, y = start % columns, start // columns
    n = min(columns - x, cores)
    rest = row_wise(cores - n, grid, start + n).ranges() if cores > n else []
    return CoreRangeSet([CoreRange(CoreCoord(x, y), CoreCoord(x + n - 1, y)), *rest])


@lru_cache(maxsize=1024)
def one_row_a_core(cores: int, rows: int, width: int, grid: tuple[int, int], start: int = 0) -> MemoryConfig:
    """HEIGHT_SHARDED in L1: shards of [rows, width] on `cores` cores, row by row."""
    return MemoryConfig(
        TensorMemoryLayout.HEIGHT_SHARDED, BufferType.L1, ShardSpec(row_wise(cores, grid, start), (rows, width))
    )


def _sharded_by_heads(memory: MemoryConfig, heads: int, head_dim: int, grid) -> MemoryConfig:
    """What a sharded result of a head split gets: one head a core."""
    return MemoryConfig(memory.memory_layout, memory.buffer_type, ShardSpec(row_wise(heads, grid), (TILE, head_dim)))


def _split(
    v: torch.Tensor, first: int, n: int, head_dim: int, transposed: bool = False, dtype=bfloat16
) -> torch.Tensor:
    """Columns `first` to `first + n * head_dim` of [B, 1, S, width] as [B, n, S, head_dim] (or [B, n, head_dim, S]).

    Blocks run along the last dim, so that a transposed tensor of a block format is packed anew.
    """
    b, s = v.shape[0], v.shape[-2]
    part = v[..., first : first + n * head_dim].reshape(b, s, n, head_dim)
    if not transposed:
        return part.transpose(1, 2)
    part = part.permute(0, 2, 3, 1)
    return numerics.now().pack(part, NAME[dtype]) if dtype in BLOCK_FORMATS else part


@op("ttnn.experimental.nlp_create_qkv_heads")
def nlp_create_qkv_heads(
    input: Tensor, input_kv: Tensor | None = None, *, num_heads: int, num_kv_heads: int | None = None,
    transpose_k_heads: bool = True, kv_tied: bool = False, memory_config: MemoryConfig | None = None,
    output_tensors=None,
):  # fmt: skip
    """A fused projection [q | k | v] as three tensors of heads; k transposed unless told otherwise.

    Shapes    [B, 1, S, (nq + 2 nk) hd] -> [B, nq, S, hd], [B, nk, S, hd] (k: [B, nk, hd, S] when transposed), [B, nk,
              S, hd]; with `input_kv` q comes from `input` alone and k, v from [B, 1, S,
              2 nk hd] (kv_tied: both from nk hd)
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Layout    TILE; S need not be a multiple of 32
    Numerics  moves values
    Raises    widths that do not divide, integers, bfloat4_b, ROW_MAJOR
    Differs   head dims that are no multiple of 32 come out rounded up, with tiles that straddle heads; without
              contents here
    Source    recorded contract, op `ttnn.experimental.nlp_create_qkv_heads`
    """
    x, n_q = on_device(input), num_heads
    n_kv = n_q if num_kv_heads is None else num_kv_heads
    name, sections = "ttnn.experimental.nlp_create_qkv_heads", 1 if kv_tied else 2
    refuse_unmodelled(name, output_tensors=output_tensors, kv_tied=kv_tied and input_kv is None)
    width = at(x.spec.padded_shape, 3)
    if n_q <= 0:
        raise DeviceRejects("num_q_heads must be greater than 0")
    if input_kv is None:
        if width % (n_q + 2 * n_kv):
            raise DeviceRejects(
                "Unsupported input shape", f"width {width} must divide by {n_q} + 2 * {n_kv} heads = {n_q + 2 * n_kv}"
            )
        head_dim = width // (n_q + 2 * n_kv)
    else:
        kv_width = at(input_kv.spec.padded_shape, 3)
        if width % n_q or kv_width % (sections * n_kv):
            raise DeviceRejects("Unsupported input shape", f"widths {width} and {kv_width} must divide by the heads")
        head_dim = width // n_q
        if kv_width // (sections * n_kv) != head_dim:
            raise DeviceRejects(
                "Head dims must be the same for Q and K, V",
                f"q has {head_dim}, k and v {kv_width // (sections * n_kv)}",
            )
    if x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is none of float32, bfloat16, bfloat8_b")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if x.spec.shape[1] != 1:
        raise DeviceRejects(f"Unsupported input sequence length {x.spec.shape[1]} is not equal to 1")
    if input_kv is not None and input_kv.dtype is not x.dtype:
        raise DeviceRejects("KV tensor dtype must be same as Q tensor dtype!", f"{cpp(input_kv.dtype)}, {cpp(x.dtype)}")
    if input_kv is not None and input_kv.spec.shape[2] != x.spec.shape[2]:
        raise DeviceRejects(
            "KV tensor seq_len dim must be same as Q tensor seq_len!", f"{input_kv.spec.shape[2]} and {x.spec.shape[2]}"
        )
    memory = output_memory(x, memory_config)
    if memory.is_sharded() and not x.is_sharded():
        raise DeviceRejects(f"Output memory config layout must be INTERLEAVED but got {cpp(memory.memory_layout)}")
    b, s = x.spec.shape[0], x.spec.shape[2]
    specs, whole, chip = [], round_up(head_dim, TILE), x.buffer.device.chip
    for n, transposed in ((n_q, False), (n_kv, transpose_k_heads), (n_kv, False)):
        where = _sharded_by_heads(memory, n, whole, chip.grid) if memory.is_sharded() else memory
        shape = (b, n, whole, s) if transposed else (b, n, s, whole)
        specs.append(spec(shape, x.dtype, Layout.TILE, where))
        buffer_bytes(specs[-1].padded_shape, x.dtype, Layout.TILE, where, chip)  # shards of the results come first
    if x.is_sharded():
        rows, height = x.spec.memory_config.shard_spec.shape[0], x.padded_shape.volume() // width
        if rows != height:
            raise DeviceRejects(
                f"Shard spec shape[0] ({rows}) must equal physical volume / padded shape[-1] ({height})"
            )
        if memory.memory_layout in (TensorMemoryLayout.INTERLEAVED, TensorMemoryLayout.WIDTH_SHARDED):
            raise DeviceRejects(
                "Output memory config must be sharded and not WIDTH_SHARDED but got memory_layout: "
                f"{cpp(memory.memory_layout)}"
            )
    inputs, dtype = (x,) if input_kv is None else (x, on_device(input_kv)), x.dtype
    if whole != head_dim:  # the kernel copies whole tiles, which are not the heads then
        return tuple(unmodelled(inputs, specs))

    if input_kv is None:

        def compute(v):
            v = widened(v, width)
            k = n_q * head_dim
            return (
                _split(v, 0, n_q, head_dim),
                _split(v, k, n_kv, head_dim, transpose_k_heads, dtype),
                _split(v, k + n_kv * head_dim, n_kv, head_dim),
            )

        return tuple(launch(name, inputs, specs, compute))

    def compute_two(q, kv):
        kv = widened(kv, kv_width)
        return (
            _split(widened(q, width), 0, n_q, head_dim),
            _split(kv, 0, n_kv, head_dim, transpose_k_heads, dtype),
            _split(kv, (sections - 1) * n_kv * head_dim, n_kv, head_dim),
        )

    return tuple(launch(name, inputs, specs, compute_two))


@op("ttnn.experimental.nlp_create_qkv_heads_decode")
def nlp_create_qkv_heads_decode(
    input_tensor: Tensor, *, num_heads: int, num_kv_heads: int | None = None, output_tensors=None,
    overlap_qk_coregrid: bool | None = True, batch_offset: Tensor | None = None, slice_size: int | None = None,
    memory_config: MemoryConfig | None = None,
):  # fmt: skip
    """The fused projection of one token of up to 32 users as three tensors of heads, one user a core.

    Shapes    [1, 1, B, (nq + 2 nk) hd] -> [1, B, nq, hd], [1, B, nk, hd] twice; B <= 32
    Dtypes    bfloat16, float32; kept
    Layout    TILE; the result is HEIGHT_SHARDED in L1 over B cores with shards [n padded to 32, hd], whatever
              `memory_config` says; with `overlap_qk_coregrid=False` and a sharded operand k is on the next B cores
    Numerics  moves values
    Raises    head dims that are no multiple of 32, nq < nk, more than 32 users
    Source    recorded contract, op `ttnn.experimental.nlp_create_qkv_heads_decode`
    """
    x, n_q = on_device(input_tensor), num_heads
    n_kv = n_q if num_kv_heads is None else num_kv_heads
    refuse_unmodelled(
        "ttnn.experimental.nlp_create_qkv_heads_decode", output_tensors=output_tensors, batch_offset=batch_offset,
        slice_size=slice_size,
    )  # fmt: skip
    width = at(x.spec.padded_shape, 3)
    if width % (n_q + 2 * n_kv):
        raise DeviceRejects(f"Input shape {width} must be divisible by num_heads + 2*num_kv_heads = {n_q + 2 * n_kv}")
    head_dim, users = width // (n_q + 2 * n_kv), x.spec.shape[2]
    if x.dtype not in (float32, bfloat16):
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is neither float32 nor bfloat16")
    if x.layout is not Layout.TILE:
        raise DeviceRejects("Only tile layout is supported for input tensor")
    if x.is_sharded() and x.spec.memory_config.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
        raise DeviceRejects(
            f"Current input memory layout is {cpp(x.spec.memory_config.memory_layout)}. It must be width sharded"
        )
    if x.spec.shape[1] != 1 or users > TILE:
        raise DeviceRejects(
            f"Unsupported input shape = {x.spec.shape}", "want [1, 1, users, width] with at most 32 users"
        )
    apart = x.is_sharded() and overlap_qk_coregrid is False
    if apart and head_dim % x.spec.memory_config.shard_spec.shape[1]:
        raise DeviceRejects(
            "We don't support partial heads in shards when q and k heads are not overlapping coregrid",
            f"shards are {x.spec.memory_config.shard_spec.shape[1]} wide, a head {head_dim}",
        )
    if n_q < n_kv:
        raise DeviceRejects(f"num_q_heads={n_q} must be greater than or equal to num_kv_heads={n_kv}")
    specs = [
        spec(
            (x.spec.shape[0], users, n, head_dim),
            x.dtype,
            Layout.TILE,
            one_row_a_core(users, round_up(n, TILE), head_dim, x.buffer.device.chip.grid, start),
        )
        for n, start in ((n_q, 0), (n_kv, users if apart else 0), (n_kv, 0))
    ]

    def compute(v):
        v, k = widened(v, width)[0, 0], n_q * head_dim
        kv = n_kv * head_dim
        parts = ((n_q, v[:, :k]), (n_kv, v[:, k : k + kv]), (n_kv, v[:, k + kv :]))
        return tuple(p.reshape(1, -1, n, head_dim) for n, p in parts)

    rows = Slices((-2,), -3)
    return tuple(launch("ttnn.experimental.nlp_create_qkv_heads_decode", (x,), specs, compute, rows=rows))


@op("ttnn.experimental.nlp_concat_heads")
def nlp_concat_heads(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Heads side by side.

    Shapes    [B, n, S, hd] -> [B, 1, S, n hd]
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Numerics  moves values
    Source    recorded contract, op `ttnn.experimental.nlp_concat_heads`
    """
    x = on_device(input_tensor)
    at(x.spec.padded_shape, 3)
    if x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is none of float32, bfloat16, bfloat8_b")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if len(x.spec.shape) != 4:
        raise NotEmulated(f"nlp_concat_heads of a tensor of rank {len(x.spec.shape)} has no model in the emulator")
    if x.spec.memory_config.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
        raise DeviceRejects(
            "Input tensor memory layout must not be WIDTH_SHARDED but got TensorMemoryLayout::WIDTH_SHARDED"
        )
    memory = output_memory(x, memory_config)
    b, n, s, head_dim = x.spec.shape
    if memory.is_sharded():
        memory = _concatenated_memory(x, memory)
    elif x.is_sharded():
        raise DeviceRejects(
            f"Sharded input requires a sharded output memory config but got {cpp(memory.memory_layout)}"
        )
    out = spec((b, 1, s, n * head_dim), x.dtype, Layout.TILE, memory)
    if head_dim % TILE:  # the kernel copies whole tiles, padding and all
        return unmodelled((x,), out)
    return launch(
        "ttnn.experimental.nlp_concat_heads", (x,), out, lambda v: v.transpose(1, 2).reshape(b, 1, s, n * head_dim)
    )


def _concatenated_memory(x: Tensor, memory: MemoryConfig) -> MemoryConfig:
    """The shards of concatenated heads: as many rows, and all heads of a core side by side."""
    given = x.spec.memory_config.shard_spec
    if given is None:
        raise DeviceRejects("bad optional access", "a sharded result needs a sharded operand")
    rows, head_dim = given.shape
    heads = rows // x.spec.padded_shape[2]
    if not heads:
        raise DeviceRejects(f"shards of {rows} rows do not hold a head of {x.spec.padded_shape[2]}")
    shard = ShardSpec(given.grid, (rows // heads, head_dim * heads), given.orientation)
    return MemoryConfig(memory.memory_layout, memory.buffer_type, shard)


@op("ttnn.experimental.nlp_concat_heads_decode")
def nlp_concat_heads_decode(
    input_tensor: Tensor, *, num_heads: int, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The heads of one token of each user side by side; heads beyond `num_heads` (padding) are dropped.

    Shapes    [1, B, n, hd] -> [1, 1, 32, num_heads hd]; rows beyond B are zero
    Dtypes    bfloat16, float32; kept
    Layout    HEIGHT_SHARDED TILE -> WIDTH_SHARDED in L1 with shards [32, hd] over num_heads cores: the grid's first,
              or those of `sub_core_grids` from the operand's first core on
    Numerics  moves values
    Raises    an operand that is not sharded, or, without sub_core_grids, not over one rectangle from the first core on
    Differs   rows beyond B hold whatever was in L1 on the device
    Source    recorded contract, op `ttnn.experimental.nlp_concat_heads_decode`
    """
    x = on_device(input_tensor)
    refuse_unmodelled("ttnn.experimental.nlp_concat_heads_decode", output_tensor=output_tensor)
    held = x.spec.memory_config.shard_spec.grid if x.is_sharded() else CoreRangeSet([])
    cores = held.ranges() if sub_core_grids is None else []
    if len(cores) > 1 or any(tuple(r.start) != (0, 0) for r in cores):
        raise DeviceRejects(
            "bad optional access",
            f"the users are on {held}: the op wants them in one rectangle from core (0, 0) on, or sub_core_grids",
        )
    if x.dtype not in (float32, bfloat16):
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is neither float32 nor bfloat16")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if not x.is_sharded():
        raise DeviceRejects("Input tensor must be sharded", "to_memory_config with one user's heads a core")
    if x.spec.memory_config.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED:
        raise DeviceRejects(
            f"Input tensor memory layout must be HEIGHT_SHARDED but got {cpp(x.spec.memory_config.memory_layout)}"
        )
    if held.num_cores() != x.spec.shape[1]:
        raise DeviceRejects("num_cores == input_shape[1]", f"{x.spec.shape[1]} users on {held.num_cores()} cores")
    chip = x.buffer.device.chip
    if sub_core_grids is not None:
        place = cores_of_set(held.ranges()[0].start, num_heads, sub_core_grids, True)
    elif num_heads > chip.cores:
        raise DeviceRejects(
            f"Target number of cores {num_heads} is greater than total number of available cores {chip.cores}"
        )
    else:
        place = row_wise(num_heads, chip.grid)
    (users, n, _), head_dim = x.spec.shape[1:], x.spec.padded_shape[3]
    if num_heads <= 0:
        raise DeviceRejects("Cannot get bounding_box of an empty CoreRangeSet!", f"num_heads is {num_heads}")
    lines = max(users, TILE)
    shard = ShardSpec(place, (lines, head_dim))
    memory = MemoryConfig(TensorMemoryLayout.WIDTH_SHARDED, BufferType.L1, shard)
    out = spec((x.spec.shape[0], 1, lines, num_heads * head_dim), x.dtype, Layout.TILE, memory)
    buffer_bytes(out.padded_shape, x.dtype, Layout.TILE, memory, chip)  # shards of the result come first
    rows = x.spec.memory_config.shard_spec.shape[0]
    if rows != x.spec.padded_shape[-2]:
        raise DeviceRejects(
            f"Shard spec shape[0] ({rows}) must match input tensor padded shape[-2] ({x.padded_shape[-2]})"
        )
    if num_heads > x.spec.padded_shape[-2]:
        raise DeviceRejects(
            "head_dim must be multiple of TILE_WIDTH",
            f"{num_heads} heads are more than the {x.spec.padded_shape[-2]} there are",
        )

    def compute(v):
        v = widened(v, head_dim)
        if num_heads > n:
            v = torch.nn.functional.pad(v, (0, 0, 0, num_heads - n))
        rows = v[0, :, :num_heads].reshape(-1, num_heads * head_dim)
        return torch.nn.functional.pad(rows, (0, 0, 0, lines - users))[None, None]

    rows = Slices((-3,), -2) if users == lines else None
    return launch("ttnn.experimental.nlp_concat_heads_decode", (x,), out, compute, rows=rows)


@op("ttnn.transformer.concatenate_heads")
def concatenate_heads(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Heads side by side, in three dims.

    Shapes    [B, n, S, hd] -> [B, S, n hd]
    Dtypes    bfloat16 (recorded)
    Numerics  moves values
    Raises    head dims that are no multiple of 32
    Source    recorded contract, op `ttnn.transformer.concatenate_heads`
    """
    x = on_device(input_tensor)
    if len(x.spec.shape) != 4:
        raise DeviceRejects(f"Input tensor must have rank 4. Shape: {x.spec.shape}")
    b, n, s, head_dim = x.spec.shape
    if head_dim % TILE:
        raise DeviceRejects(
            f"Head size must be a multiple of {TILE} but was found to be {head_dim}. Update the matmul that uses the "
            "output "
            "of this operation to include padding in the weights."
        )
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    memory = output_memory(x, memory_config)
    if memory.is_sharded():
        memory = _concatenated_memory(x, memory)
    out = spec((b, s, n * head_dim), x.dtype, Layout.TILE, memory)
    return launch(
        "ttnn.transformer.concatenate_heads", (x,), out, lambda v: v.transpose(1, 2).reshape(b, s, n * head_dim)
    )


@op("ttnn.transformer.split_query_key_value_and_split_heads")
def split_query_key_value_and_split_heads(
    input_tensor: Tensor, kv_input_tensor: Tensor | None = None, *, num_heads: int, num_kv_heads: int | None = None,
    transpose_key: bool = True, memory_config: MemoryConfig | None = None, use_falcon7b_backend: bool = False,
):  # fmt: skip
    """`nlp_create_qkv_heads` of a tensor of three dims.

    Shapes    [B, S, (nq + 2 nk) hd] -> [B, nq, S, hd], [B, nk, hd, S] (or [B, nk, S, hd]), [B, nk, S, hd]; with a
              second tensor [B, S, 2 nk hd] q comes from the first alone
    Dtypes    bfloat16 (recorded)
    Numerics  moves values
    Raises    head dims that are no multiple of 32
    Source    recorded contract, op `ttnn.transformer.split_query_key_value_and_split_heads`
    """
    name = "ttnn.transformer.split_query_key_value_and_split_heads"
    x = on_device(input_tensor)
    refuse_unmodelled(name, use_falcon7b_backend=use_falcon7b_backend)
    if len(x.spec.shape) != 3:
        raise DeviceRejects(f"Invalid input tensor: expected 3 dimensions, but found {len(x.spec.shape)}.")
    if x.is_sharded():
        raise NotEmulated(f"{name}: sharded operands have no model in the emulator")
    b, s, width = x.spec.shape
    n_q, n_kv = num_heads, num_heads if num_kv_heads is None else num_kv_heads
    head_dim = width // (n_q if kv_input_tensor is not None else n_q + 2 * n_kv)
    if head_dim % TILE:
        raise DeviceRejects(
            f"Invalid head size: {head_dim}. The head size must be a multiple of the tile width ({TILE}). Please "
            "adjust the "
            "dimensions accordingly."
        )
    if x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is none of float32, bfloat16, bfloat8_b")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    memory = output_memory(x, memory_config)
    key = (b, n_kv, head_dim, s) if transpose_key else (b, n_kv, s, head_dim)
    shapes = ((b, n_q, s, head_dim), key, (b, n_kv, s, head_dim))
    dtype = x.dtype
    specs = [spec(shape, dtype, Layout.TILE, memory) for shape in shapes]

    def compute(v, kv):
        rest, k = (v, n_q * head_dim) if kv is None else (kv, 0)
        return (
            _split(v, 0, n_q, head_dim),
            _split(rest, k, n_kv, head_dim, transpose_key, dtype),
            _split(rest, k + n_kv * head_dim, n_kv, head_dim),
        )

    kv = None if kv_input_tensor is None else on_device(kv_input_tensor)
    return tuple(launch(name, (x, kv), specs, compute))
