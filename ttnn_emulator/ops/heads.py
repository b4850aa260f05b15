"""Splitting a fused q, k, v projection into heads, and putting heads together again."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..dtypes import FLOATS, Layout, bfloat8_b, bfloat16, cpp, float32
from ..errors import DeviceRejects, NotEmulated
from ..grid import CoreCoord, CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ..memory import GRID, BufferType, MemoryConfig, ShardSpec, TensorMemoryLayout
from ..op import launch, on_device, op, output_memory, refuse_unmodelled
from ..shape import TILE, at, round_up
from ..tensor import Tensor, spec

_HEAD_DTYPES = (float32, bfloat16, bfloat8_b)


def widened(v: torch.Tensor, width: int) -> torch.Tensor:
    """The last dim with its zero padding."""
    return v if v.shape[-1] == width else torch.nn.functional.pad(v, (0, width - v.shape[-1]))


@lru_cache(maxsize=1024)
def row_wise(cores: int, start: int = 0) -> CoreRangeSet:
    """`cores` cores of the worker grid, row by row, from the core number `start` on."""
    if not start % GRID[0]:
        first = start // GRID[0]
        whole = num_cores_to_corerangeset(cores, (GRID[0], GRID[1] - first), row_wise=True)
        return CoreRangeSet([CoreRange((r.start.x, r.start.y + first), (r.end.x, r.end.y + first)) for r in whole.ranges()])
    ranges, at_core, left = [], start, cores
    while left:
        x, y = at_core % GRID[0], at_core // GRID[0]
        n = min(GRID[0] - x, left)
        ranges.append(CoreRange(CoreCoord(x, y), CoreCoord(x + n - 1, y)))
        at_core, left = at_core + n, left - n
    return CoreRangeSet(ranges)


@lru_cache(maxsize=1024)
def one_row_a_core(cores: int, rows: int, width: int, start: int = 0) -> MemoryConfig:
    """HEIGHT_SHARDED in L1: shards of [rows, width] on `cores` cores, row by row."""
    return MemoryConfig(TensorMemoryLayout.HEIGHT_SHARDED, BufferType.L1, ShardSpec(row_wise(cores, start), (rows, width)))


def _sharded_by_heads(memory: MemoryConfig, heads: int, head_dim: int) -> MemoryConfig:
    """What a sharded result of a head split gets: one head a core."""
    return MemoryConfig(memory.memory_layout, memory.buffer_type, ShardSpec(row_wise(heads), (TILE, head_dim)))


def _split(v: torch.Tensor, first: int, n: int, head_dim: int, transposed: bool = False) -> torch.Tensor:
    """Columns `first` to `first + n * head_dim` of [B, 1, S, width] as [B, n, S, head_dim] (or [B, n, head_dim, S])."""
    b, s = v.shape[0], v.shape[-2]
    part = v[..., first : first + n * head_dim].reshape(b, s, n, head_dim)
    return part.permute(0, 2, 3, 1) if transposed else part.transpose(1, 2)


@op("ttnn.experimental.nlp_create_qkv_heads")
def nlp_create_qkv_heads(
    input: Tensor, input_kv: Tensor | None = None, *, num_heads: int, num_kv_heads: int | None = None,
    transpose_k_heads: bool = True, kv_tied: bool = False, memory_config: MemoryConfig | None = None, output_tensors=None,
):  # fmt: skip
    """A fused projection [q | k | v] as three tensors of heads; k transposed unless told otherwise.

    Shapes    [B, 1, S, (nq + 2 nk) hd] -> [B, nq, S, hd], [B, nk, S, hd] (k: [B, nk, hd, S] when transposed), [B, nk, S, hd];
              with `input_kv` q comes from `input` alone and k, v from [B, 1, S, 2 nk hd]
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Layout    TILE; S need not be a multiple of 32
    Numerics  moves values
    Raises    widths that do not divide, integers, bfloat4_b, ROW_MAJOR
    Source    recorded contract, op `ttnn.experimental.nlp_create_qkv_heads`
    """
    x, n_q = on_device(input), num_heads
    n_kv = n_q if num_kv_heads is None else num_kv_heads
    refuse_unmodelled("ttnn.experimental.nlp_create_qkv_heads", kv_tied=kv_tied, output_tensors=output_tensors)
    width = at(x.padded_shape, 3)
    if input_kv is None:
        if width % (n_q + 2 * n_kv):
            raise DeviceRejects(
                "Unsupported input shape", f"width {width} must divide by {n_q} + 2 * {n_kv} heads = {n_q + 2 * n_kv}"
            )
        head_dim = width // (n_q + 2 * n_kv)
    else:
        if width % n_q or input_kv.padded_shape[3] % (2 * n_kv):
            raise DeviceRejects("Unsupported input shape")
        head_dim = width // n_q
        if input_kv.padded_shape[3] // (2 * n_kv) != head_dim:
            raise DeviceRejects(
                "Head dims must be the same for Q and K, V",
                f"q has {head_dim}, k and v {input_kv.padded_shape[3] // (2 * n_kv)}",
            )
    if x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is none of float32, bfloat16, bfloat8_b")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    memory = output_memory(x, memory_config)
    b, s = x.shape[0], x.shape[2]
    specs = []
    for n, transposed in ((n_q, False), (n_kv, transpose_k_heads), (n_kv, False)):
        where = _sharded_by_heads(memory, n, head_dim) if memory.is_sharded() else memory
        shape = (b, n, head_dim, s) if transposed else (b, n, s, head_dim)
        specs.append(spec(shape, x.dtype, Layout.TILE, where))

    if input_kv is None:

        def compute(v):
            v = widened(v, width)
            k = n_q * head_dim
            return (
                _split(v, 0, n_q, head_dim),
                _split(v, k, n_kv, head_dim, transpose_k_heads),
                _split(v, k + n_kv * head_dim, n_kv, head_dim),
            )

        return tuple(launch("ttnn.experimental.nlp_create_qkv_heads", (x,), specs, compute))

    def compute_two(q, kv):
        kv = widened(kv, 2 * n_kv * head_dim)
        return (
            _split(widened(q, width), 0, n_q, head_dim),
            _split(kv, 0, n_kv, head_dim, transpose_k_heads),
            _split(kv, n_kv * head_dim, n_kv, head_dim),
        )

    return tuple(launch("ttnn.experimental.nlp_create_qkv_heads", (x, on_device(input_kv)), specs, compute_two))


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
    width = at(x.padded_shape, 3)
    if width % (n_q + 2 * n_kv):
        raise DeviceRejects(f"Input shape {width} must be divisible by num_heads + 2*num_kv_heads = {n_q + 2 * n_kv}")
    head_dim, users = width // (n_q + 2 * n_kv), x.shape[2]
    if x.dtype not in (float32, bfloat16):
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is neither float32 nor bfloat16")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if x.shape[1] != 1 or users > TILE:
        raise DeviceRejects(f"Unsupported input shape = {x.shape}", "want [1, 1, users, width] with at most 32 users")
    apart = x.is_sharded() and overlap_qk_coregrid is False
    if apart and head_dim % x.spec.memory_config.shard_spec.shape[1]:
        raise DeviceRejects(
            "We don't support partial heads in shards when q and k heads are not overlapping coregrid",
            f"shards are {x.spec.memory_config.shard_spec.shape[1]} wide, a head {head_dim}",
        )
    if n_q < n_kv:
        raise DeviceRejects(f"num_q_heads={n_q} must be greater than or equal to num_kv_heads={n_kv}")
    specs = [
        spec((x.shape[0], users, n, head_dim), x.dtype, Layout.TILE, one_row_a_core(users, round_up(n, TILE), head_dim, start))
        for n, start in ((n_q, 0), (n_kv, users if apart else 0), (n_kv, 0))
    ]

    def compute(v):
        v, k = widened(v, width)[0, 0], n_q * head_dim
        kv = n_kv * head_dim
        parts = ((n_q, v[:, :k]), (n_kv, v[:, k : k + kv]), (n_kv, v[:, k + kv :]))
        return tuple(p.reshape(1, users, n, head_dim) for n, p in parts)

    return tuple(launch("ttnn.experimental.nlp_create_qkv_heads_decode", (x,), specs, compute))


@op("ttnn.experimental.nlp_concat_heads")
def nlp_concat_heads(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Heads side by side.

    Shapes    [B, n, S, hd] -> [B, 1, S, n hd]
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Numerics  moves values
    Source    recorded contract, op `ttnn.experimental.nlp_concat_heads`
    """
    x = on_device(input_tensor)
    at(x.padded_shape, 3)
    if x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is none of float32, bfloat16, bfloat8_b")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    memory = output_memory(x, memory_config)
    b, n, s, head_dim = x.shape
    if memory.is_sharded():
        memory = _concatenated_memory(x, memory)
    out = spec((b, 1, s, n * head_dim), x.dtype, Layout.TILE, memory)
    return launch(
        "ttnn.experimental.nlp_concat_heads", (x,), out, lambda v: v.transpose(1, 2).reshape(b, 1, s, n * head_dim)
    )


def _concatenated_memory(x: Tensor, memory: MemoryConfig) -> MemoryConfig:
    """The shards of concatenated heads: as many rows, and all heads of a core side by side."""
    given = x.spec.memory_config.shard_spec
    if given is None:
        raise DeviceRejects("bad optional access", "a sharded result needs a sharded operand")
    rows, head_dim = given.shape
    heads = rows // x.padded_shape[2]
    shard = ShardSpec(given.grid, (rows // heads, head_dim * heads), given.orientation)
    return MemoryConfig(memory.memory_layout, memory.buffer_type, shard)


@op("ttnn.experimental.nlp_concat_heads_decode")
def nlp_concat_heads_decode(
    input_tensor: Tensor, *, num_heads: int, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The heads of one token of each user side by side; heads beyond `num_heads` (padding) are dropped.

    Shapes    [1, B, n, hd] -> [1, 1, 32, num_heads hd]; rows beyond B are zero
    Dtypes    bfloat16, float32; kept
    Layout    HEIGHT_SHARDED TILE -> WIDTH_SHARDED in L1 over num_heads cores with shards [32, hd]
    Numerics  moves values
    Raises    an operand that is not sharded
    Differs   rows beyond B hold whatever was in L1 on the device
    Source    recorded contract, op `ttnn.experimental.nlp_concat_heads_decode`
    """
    x = on_device(input_tensor)
    refuse_unmodelled(
        "ttnn.experimental.nlp_concat_heads_decode", output_tensor=output_tensor, sub_core_grids=sub_core_grids
    )
    if x.dtype not in (float32, bfloat16):
        raise DeviceRejects("Unsupported data format", f"{cpp(x.dtype)} is neither float32 nor bfloat16")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if not x.is_sharded():
        raise DeviceRejects("Input tensor must be sharded", "to_memory_config with one user's heads a core")
    users, n, head_dim = x.shape[1:]
    shard = ShardSpec(row_wise(num_heads), (TILE, head_dim))
    memory = MemoryConfig(TensorMemoryLayout.WIDTH_SHARDED, BufferType.L1, shard)
    out = spec((1, 1, TILE, num_heads * head_dim), x.dtype, Layout.TILE, memory)

    def compute(v):
        if num_heads > n:
            v = torch.nn.functional.pad(v, (0, 0, 0, num_heads - n))
        rows = v[0, :, :num_heads].reshape(users, num_heads * head_dim)
        return torch.nn.functional.pad(rows, (0, 0, 0, TILE - users))[None, None]

    return launch("ttnn.experimental.nlp_concat_heads_decode", (x,), out, compute)


@op("ttnn.transformer.concatenate_heads")
def concatenate_heads(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """Heads side by side, in three dims.

    Shapes    [B, n, S, hd] -> [B, S, n hd]
    Numerics  moves values
    Source    recorded contract, op `ttnn.transformer.concatenate_heads`
    """
    x = on_device(input_tensor)
    if len(x.shape) != 4:
        raise DeviceRejects("Invalid input tensor: expected 4 dimensions", f"got {x.shape}")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    if x.is_sharded() or (memory_config is not None and memory_config.is_sharded()):
        raise NotEmulated("ttnn.transformer.concatenate_heads: sharded tensors have no model in the emulator")
    b, n, s, head_dim = x.shape
    out = spec((b, s, n * head_dim), x.dtype, Layout.TILE, output_memory(x, memory_config))
    return launch(
        "ttnn.transformer.concatenate_heads", (x,), out, lambda v: v.transpose(1, 2).reshape(b, s, n * head_dim)
    )


@op("ttnn.transformer.split_query_key_value_and_split_heads")
def split_query_key_value_and_split_heads(
    input_tensor: Tensor, kv_input_tensor: Tensor | None = None, *, num_heads: int, num_kv_heads: int | None = None,
    transpose_key: bool = True, memory_config: MemoryConfig | None = None, use_falcon7b_backend: bool = False,
):  # fmt: skip
    """`nlp_create_qkv_heads` of a tensor of three dims.

    Shapes    [B, S, (nq + 2 nk) hd] -> [B, nq, S, hd], [B, nk, hd, S] (or [B, nk, S, hd]), [B, nk, S, hd]
    Numerics  moves values
    Source    recorded contract, op `ttnn.transformer.split_query_key_value_and_split_heads`
    """
    x = on_device(input_tensor)
    refuse_unmodelled(
        "ttnn.transformer.split_query_key_value_and_split_heads", kv_input_tensor=kv_input_tensor,
        use_falcon7b_backend=use_falcon7b_backend,
    )  # fmt: skip
    if len(x.shape) != 3:
        raise DeviceRejects(f"Invalid input tensor: expected 3 dimensions, but found {len(x.shape)}.")
    if x.is_sharded():
        raise NotEmulated("ttnn.transformer.split_query_key_value_and_split_heads: sharded operands have no model")
    b, s, width = x.shape
    n_q, n_kv = num_heads, num_heads if num_kv_heads is None else num_kv_heads
    padded = x.padded_shape[2]
    if padded % (n_q + 2 * n_kv):
        raise DeviceRejects("Unsupported input shape", f"width {padded} must divide by {n_q + 2 * n_kv} heads")
    if x.dtype not in FLOATS or x.dtype not in _HEAD_DTYPES:
        raise DeviceRejects("Unsupported data format")
    if x.layout is not Layout.TILE:
        raise DeviceRejects(f"Input tensor layout must be TILE but got {cpp(x.layout)}")
    head_dim, memory = padded // (n_q + 2 * n_kv), output_memory(x, memory_config)
    key = (b, n_kv, head_dim, s) if transpose_key else (b, n_kv, s, head_dim)
    shapes = ((b, n_q, s, head_dim), key, (b, n_kv, s, head_dim))
    specs = [spec(shape, x.dtype, Layout.TILE, memory) for shape in shapes]

    def compute(v):
        v, k = widened(v, padded), n_q * head_dim
        return (
            _split(v, 0, n_q, head_dim),
            _split(v, k, n_kv, head_dim, transpose_key),
            _split(v, k + n_kv * head_dim, n_kv, head_dim),
        )

    return tuple(launch("ttnn.transformer.split_query_key_value_and_split_heads", (x,), specs, compute))
