"""The program that the library chooses for a product, and where its result goes.

Source    ttnn 0.81.1: programs, fidelities and block sizes as the library writes them into its kernels' compile-time
          arguments
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ...chips import Chip
from ...config import (
    MatmulMultiCoreReuseMultiCast1DProgramConfig,
    MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig,
    MatmulMultiCoreReuseMultiCastProgramConfig,
    MatmulMultiCoreReuseProgramConfig,
)
from ...dtypes import BLOCK_FORMATS, DataType, Layout, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ...memory import MemoryConfig, ShardOrientation, ShardSpec, buffer_bytes
from ...numerics import ComputeConfig
from ...op import describe
from ...shape import TILE, Shape
from ...tensor import TensorSpec, padded
from ..core.sharding import BLOCK, HEIGHT, WIDTH


class Sizes(NamedTuple):
    """Sizes of a product: the result's logical shape, and in tiles M and N (of one batch), K, and the batches."""

    shape: tuple
    m: int
    k: int
    n: int
    batch: int
    batched: bool  # the second operand has batches of its own
    inner: int  # K in elements


@lru_cache(maxsize=65536)
def sizes(
    ashape: Shape, bshape: Shape, transpose_a: bool, transpose_b: bool, by_grid: bool = False, in0_reuse: bool = True
) -> Sizes:
    """The sizes of a @ b, or the refusal of shapes that do not multiply.

    by_grid     the library lays the product out over cores before it compares K, and words the refusal otherwise
    in0_reuse   one batch of a may go with all batches of b
    """
    vector_a, vector_b = len(ashape) == 1, len(bshape) == 1
    a, b = [1, *ashape] if vector_a else list(ashape), [*bshape, 1] if vector_b else list(bshape)
    if transpose_a:
        a[-2:] = a[-1], a[-2]
    if transpose_b:
        b[-2:] = b[-1], b[-2]
    if a[-1] != b[-2]:
        if by_grid:
            raise DeviceRejects("The k dimension does not match between tensors")
        raise DeviceRejects(
            "The width of the first tensor must be equal to the height of the second tensor. Mismatch: "
            f"width={a[-1]} height={b[-2]}",
            "ttnn weights are [in, out]; HF stores [out, in]" if len(b) > 1 and a[-1] == b[-1] else None,
        )
    left, right = a[:-2], b[:-2]
    front = right[: len(right) - len(left)] if left else right
    if len(right) > len(left) and any(n != 1 for n in front):
        raise DeviceRejects("When in1 rank greater than in0 rank front dimensions need to be 1")
    batched = any(n != 1 for n in right)
    if batched:
        if len(left) != len(right):
            raise DeviceRejects(
                f"Batched (non-bcast) matmul requires inputs of the same rank, got a_shape rank: {len(a)} vs "
                f"b_shape rank: {len(b)}"
            )
        reuse = in0_reuse and all(n == 1 for n in left)
        for i, (p, q) in enumerate(zip(left, right)):
            if p != q and not reuse:
                raise DeviceRejects(
                    "bmm (non-bcast matmul) expects input tensors of shapes BCMK*BCKN=BCMN or batch dimension "
                    f"{i} mismatch: a={p} vs b={q} (dimension mismatch only allowed when all batch dimensions "
                    "of a are size 1 "
                    "and using MatmulMultiCoreReuseMultiCast1DProgramConfig with fuse_batch=false, "
                    "fused_activation=none, "
                    "mcast_in0=false, and non-sharded inputs for in0 reuse optimization)"
                )
    rank = max(len(left), len(right))
    batch = [max(p, q) for p, q in zip([1] * (rank - len(left)) + left, [1] * (rank - len(right)) + right)]
    shape = (*batch, *(() if vector_a else (a[-2],)), *(() if vector_b else (b[-1],)))
    m, k, n = (-(-x // TILE) for x in (a[-2], a[-1], b[-1]))
    return Sizes(shape, m, k, n, math.prod(batch), batched, a[-1])


def check_bias(shape: tuple, bias) -> tuple:
    """The shape of result + bias, or the refusal of a bias that does not broadcast."""
    rank = max(len(shape), len(bias))
    y, c = (1,) * (rank - len(shape)) + tuple(shape), (1,) * (rank - len(bias)) + tuple(bias)
    if y[-1] == 1 != c[-1]:
        if -(-c[-1] // TILE) == 1:
            raise DeviceRejects("Attempting to reshape between two shapes with different volumes")
        raise DeviceRejects(
            f"Unsupported bias shape: padded last dimension of bias, {-(-c[-1] // TILE) * TILE}, not equal to "
            "second input's "
            "padded last dimension, 32."
        )
    same_width = c[-1] == y[-1]
    for i in range(1, rank + 1):
        if y[-i] != c[-i] and y[-i] != 1 and c[-i] != 1:
            if same_width and i == 2:
                short = -(-c[-2] // TILE) == 1
                raise DeviceRejects("Broadcast error: Invalid dimension" if short else "Invalid subtile broadcast type")
            raise DeviceRejects(
                f"Broadcasting rule violation at dimension index {-i} (output rank {rank}), dim a: {y[-i]}, "
                f"dim b: {c[-i]}"
            )
    return tuple(max(p, q) for p, q in zip(y, c))


# ---------------------------------------------------------------- how it is computed


@lru_cache(maxsize=1024)
def default_config(a: DataType, b: DataType, out: DataType, chosen: bool) -> ComputeConfig:
    """The config of a call that gives none; `chosen`: it gives a program config or a core grid.

    Source    ttnn 0.81.1, MATH_FIDELITY, DST_ACCUM_MODE and PACKER_L1_ACC of the kernels it builds
    """
    if a is float32 and b is float32:
        fidelity = "HiFi3"
    else:
        fidelity = "LoFi" if chosen or (a in BLOCK_FORMATS and b in BLOCK_FORMATS) else "HiFi2"
    return ComputeConfig(fidelity, False, out is float32, out is not float32)


class Plan(NamedTuple):
    """A program: which one, how many tiles of M and N a core computes, and how many of K go at a time."""

    kind: str  # "in0" and "in1" (one operand is multicast in one dimension), "2d", "reuse", "dram"; "plain": by tiles
    block_w: int
    per_m: int
    per_n: int
    grid: tuple
    transposed: bool = False
    block: tuple | None = None  # tiles of an output block, where it is smaller than what a core computes
    fused_batch: bool = False  # the batches of the first operand count as rows
    name: str = ""
    subblock: tuple | None = None  # tiles computed at once, where the library chooses them without regard to the result

    def cores(self, s: Sizes) -> CoreRangeSet:
        """The cores at work."""
        rows = s.m * s.batch if self.fused_batch else s.m
        down, across = -(-rows // self.per_m), -(-s.n // self.per_n)
        if self.kind == "2d":
            x, y = (down, across) if self.transposed else (across, down)
            return CoreRangeSet([CoreRange((0, 0), (x - 1, y - 1))])
        if self.kind == "reuse":
            n = s.batch * down * across
            return num_cores_to_corerangeset(min(n, self.grid[0] * self.grid[1]), self.grid, row_wise=False)
        return num_cores_to_corerangeset(down * across, self.grid, row_wise=True)


def program(
    s: Sizes, a: TensorSpec, memory_config: MemoryConfig, program_config, core_grid, in_dram, tile_bytes, chip: Chip
) -> Plan:
    """The program of a call: as its config says, else what the library chooses; `in_dram`: both operands and the
    result lie in DRAM, interleaved."""
    if program_config is not None:
        return explicit(program_config, chip)
    if a.memory_config.is_sharded():
        return by_shards(s, a)
    if core_grid is not None:
        return by_grid(s, (core_grid.x, core_grid.y))
    layout = memory_config.memory_layout if memory_config.is_sharded() else None
    return automatic(s, layout, in_dram, tile_bytes, chip)


def explicit(c, chip: Chip) -> Plan:
    grid = tuple(getattr(c, "compute_with_storage_grid_size", chip.grid))
    name, block = type(c).__name__, None
    if getattr(c, "out_block_h", None) or getattr(c, "out_block_w", None):
        block = (c.out_block_h or c.per_core_M, c.out_block_w or c.per_core_N)
    if isinstance(c, MatmulMultiCoreReuseMultiCast1DProgramConfig):
        kind, transposed = "in0" if c.mcast_in0 else "in1", False
    elif isinstance(c, MatmulMultiCoreReuseMultiCastProgramConfig):
        kind, transposed = "2d", c.transpose_mcast
    elif isinstance(c, MatmulMultiCoreReuseProgramConfig):
        kind, transposed = "reuse", False
    elif isinstance(c, MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig):
        kind, transposed = "dram", False
    else:
        raise NotEmulated(f"program_config={describe(c)} has no model in the emulator")
    return Plan(
        kind, c.in0_block_w, c.per_core_M, c.per_core_N, grid, transposed, block, getattr(c, "fuse_batch", False), name
    )


def _divisor(limit: int, k: int) -> int:
    """The largest divisor of `k` that is not above `limit`."""
    return next(d for d in range(max(min(limit, k), 1), 0, -1) if k % d == 0)


#: Blocks of tiles that fit the destination register, in the order in which the library tries them.
SUBBLOCKS = (
    (4, 2), (2, 4), (8, 1), (1, 8), (7, 1), (1, 7), (3, 2), (2, 3), (6, 1), (1, 6), (5, 1), (1, 5), (2, 2), (4, 1),
    (1, 4), (3, 1),
    (1, 3), (2, 1), (1, 2), (1, 1),
)  # fmt: skip


def subblock(per_m: int, per_n: int, wide_first: bool = False) -> tuple[int, int]:
    """The first block that divides what a core computes."""
    choices = (SUBBLOCKS[1], SUBBLOCKS[0], *SUBBLOCKS[2:]) if wide_first else SUBBLOCKS
    return next((h, w) for h, w in choices if per_m % h == 0 and per_n % w == 0)


@lru_cache(maxsize=65536)
def by_grid(s: Sizes, grid: tuple) -> Plan:
    """What the library chooses for a core grid."""
    x, y = grid
    if s.batched:
        return Plan("reuse", 1, s.m, s.n, grid)
    rows = s.m * s.batch
    narrow = max(rows, s.n) > 8 * min(rows, s.n) or s.m == 1 or s.n == 1 or s.k == 1
    if not narrow:
        return Plan("2d", _divisor(4, s.k), -(-rows // y), -(-s.n // x), grid, fused_batch=True)
    k = _divisor(-(-s.k // (x * y)), s.k)
    kind, per_m, per_n = ("in1", -(-rows // (x * y)), s.n) if rows > s.n else ("in0", rows, -(-s.n // (x * y)))
    return Plan(kind, k, per_m, per_n, grid, fused_batch=True, subblock=subblock(per_m, per_n, True))


def by_shards(s: Sizes, a: TensorSpec) -> Plan:
    """What the library chooses for a sharded first operand."""
    shard, kind = a.memory_config.shard_spec, a.memory_config.memory_layout
    if s.batched:
        per_m = max(shard.shape[0] // TILE, 1)
        high = subblock(per_m, s.n)[0]
        if s.m % high:
            raise DeviceRejects(
                f"MatmulMultiCoreReuseProgramConfig: out_subblock_h ({high}) needs to divide M ({s.m}) evenly "
                "and does not. "
                "Please update your program config."
            )
        return Plan("reuse", s.k, per_m, s.n, shard.grid.bounding_box().grid_size())
    rows, cores = s.m * s.batch, shard.num_cores()
    box = shard.grid.bounding_box().grid_size()
    tiles = max(shard.shape[1] // TILE, 1)
    if kind is BLOCK:
        row_major = shard.orientation is ShardOrientation.ROW_MAJOR
        down, across = (box[1], box[0]) if row_major else (box[0], box[1])
        return Plan(
            "2d", math.gcd(tiles, s.k), -(-rows // down), -(-s.n // across), box, not row_major, fused_batch=True
        )
    if kind is WIDTH:
        return Plan("in0", math.gcd(tiles, s.k), rows, -(-s.n // cores), box, fused_batch=True)
    return Plan("in1", s.k, -(-rows // cores), s.n, box, fused_batch=True)


@lru_cache(maxsize=65536)
def automatic(s: Sizes, layout, in_dram: bool, tile_bytes: tuple, chip: Chip) -> Plan:
    """What the library chooses when it is told nothing; `layout`: of a sharded result.

    Source    ttnn 0.81.1, kernels and block sizes of 1,900 calls asked on Wormhole: 1 to 40 tiles of M and K, 1 to 1536
              of N, batches, formats, configs, operands and result in DRAM and L1
    """
    grid = gx, gy = chip.grid
    pair = 2 if s.k % 2 == 0 else 1
    rows = s.m * s.batch
    narrow = max(s.m, s.n) // min(s.m, s.n) > 8
    if in_dram and not narrow and s.m > 1 and s.n > 1:
        per_m, per_n = -(-rows // gy), -(-s.n // gx)
        share = s.k // gx if s.k % gx == 0 else 1
        fitting = (
            w for w in range(share, 0, -1)
            if share % w == 0 and buffers_bytes(-(-s.m // gy), per_n, w, tile_bytes) < chip.l1_room
        )  # fmt: skip
        return Plan("2d", next(fitting, 1), per_m, per_n, grid, fused_batch=True)
    per = next((p for p in (16, 8, 4, 2) if buffers_bytes(p, p, pair, tile_bytes) < chip.l1_room), 1)
    down, across = -(-s.m // per), -(-s.n // per)
    few = narrow and down * across <= gx * gy and not (pair == 1 and down == across == 1)
    if layout is None and (in_dram or few):
        if rows > s.n:
            return Plan("in1", pair, -(-rows // (gx * gy)), s.n, grid, fused_batch=True)
        return Plan("in0", pair, rows, -(-s.n // (gx * gy)), grid, fused_batch=True)
    fits = (down, across) != (1, 1) and down <= gy and across <= gx
    if layout is None and not fits:
        return Plan("plain", s.k, 1, 1, grid)
    if (fits and down == 1) or (not fits and layout is WIDTH):
        per_n = -(-s.n // (gx * gy))
        return Plan("in0", pair, s.m, per_n, grid, subblock=subblock(s.m, per_n))
    if (fits and across == 1) or (not fits and layout is HEIGHT):
        per_m = -(-s.m // (gx * gy))
        return Plan("in1", pair, per_m, s.n, grid, subblock=subblock(per_m, s.n))
    return Plan("2d", pair, min(per, s.m), min(per, s.n), grid, fused_batch=True)


def buffers_bytes(per_m: int, per_n: int, block_w: int, tile_bytes: tuple) -> int:
    """L1 that the library reckons a block takes: both operands twice, the result and the partial sums."""
    a, b, out, partial = tile_bytes
    return 2 * block_w * (per_m * a + per_n * b) + per_m * per_n * (out + partial)


@lru_cache(maxsize=65536)
def output_memory(
    p: Plan, s: Sizes, shape: tuple, memory_config: MemoryConfig, a: MemoryConfig, chip: Chip
) -> MemoryConfig:
    """The config of the result. A sharded one has the shards that the program leaves, whatever the call asked."""
    if not memory_config.is_sharded():
        return memory_config
    kind, orientation = memory_config.memory_layout, ShardOrientation.ROW_MAJOR
    if p.kind == "dram":
        grid = num_cores_to_corerangeset(-(-s.n // p.per_n), chip.grid, row_wise=True)
    elif p.kind == "reuse" and a.is_sharded():
        grid, orientation = a.shard_spec.grid, a.shard_spec.orientation
    else:
        grid = p.cores(s)
        if p.kind == "reuse" or p.transposed:
            orientation = ShardOrientation.COL_MAJOR
    made = MemoryConfig(kind, memory_config.buffer_type, ShardSpec(grid, (p.per_m * TILE, p.per_n * TILE), orientation))
    buffer_bytes(padded(Shape(shape), Layout.TILE, None), bfloat16, Layout.TILE, made, chip)
    if p.subblock and p.subblock[1] != p.per_n and p.subblock[0] != 1:
        raise DeviceRejects(
            f"MatmulMultiCoreReuseMultiCast1DProgramConfig: out_subblock_w ({p.subblock[1]}) must equal "
            f"per_core_N ({p.per_n}) "
            f"or out_subblock_h ({p.subblock[0]}) must be 1",
            "give a program_config, or take an interleaved result",
        )
    for way, wanted, line in (("in0", WIDTH, "row"), ("in1", HEIGHT, "column")):
        if p.kind == way and kind is not wanted:
            raise DeviceRejects(
                f"MatmulMultiCoreReuseMultiCast1DProgramConfig: output memory layout must be {wanted.name} or "
                f"BLOCK_SHARDED on a 1-{line} grid, got: {cpp(kind)}"
            )
    return made
