"""The program that the library chooses for a product, and where its result goes.

Source    ttnn 0.81.1: programs, fidelities and block sizes as the library writes them into its kernels' compile-time
          arguments
"""

from __future__ import annotations

import math
from functools import lru_cache

from ...chips import Chip
from ...config import (
    MatmulMultiCoreReuseMultiCast1DProgramConfig,
    MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig,
    MatmulMultiCoreReuseMultiCastProgramConfig,
    MatmulMultiCoreReuseProgramConfig,
)
from ...dtypes import TILE_BYTES, Layout, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import num_cores_to_corerangeset
from ...memory import MemoryConfig, ShardOrientation, ShardSpec, buffer_bytes
from ...oplog import describe
from ...shape import TILE, Shape
from ...tensor import TensorSpec, padded
from ..core.sharding import BLOCK, HEIGHT, WIDTH
from .operands import Call, Operands, Sizes
from .plan import Plan, check_l1, check_program, check_weight


def planned(c: Call, o: Operands) -> tuple[Plan, MemoryConfig]:
    """The program of a call, as it says or else what the library chooses, checked; and where its result goes."""
    s, memory_config, other = o.sizes, o.memory_config, c.b.memory_config
    if c.program_config is not None:
        p = explicit(c.program_config, c.chip)
    elif c.a.memory_config.is_sharded():
        p = by_shards(s, c.a)
    elif c.core_grid is not None:
        p = by_grid(s, (c.core_grid.x, c.core_grid.y))
    else:
        partial = float32 if o.config.fp32_dest_acc_en else bfloat16 if o.config.packer_l1_acc else o.dtype
        tile_bytes = tuple(TILE_BYTES[d] for d in (c.a.dtype, c.b.dtype, o.dtype, partial))
        layout = memory_config.memory_layout if memory_config.is_sharded() else None
        p = automatic(s, layout, o.in_dram, tile_bytes, c.chip)
    if other.is_sharded() and p.kind != "dram":
        check_weight(p, other, c.chosen or memory_config.is_sharded())
    if c.transpose_a and c.core_grid is not None and s.batch > 1 and s.m > 1 and p.fused_batch:
        turned = (*c.a.padded_shape[:-2], c.a.padded_shape[-1], c.a.padded_shape[-2])
        raise DeviceRejects(
            "MatmulMultiCoreReuseMultiCast1DProgramConfig: transpose_a with fuse_batch is not supported when "
            "batch dimensions "
            f"exist and M_per_batch > 1 (batch_size={s.batch}, M_per_batch={s.m}, a_shape_padded={Shape(turned)})"
        )
    if c.program_config is not None:
        check_program(c.program_config, p, s, c.a, c.b, memory_config, o.config, c.chip)
    if c.target is None:
        memory_config = output_memory(p, s, s.shape, memory_config, c.a.memory_config, c.chip)
    if c.program_config is not None:
        p = p._replace(end=check_l1(p, c, o, memory_config))
    return p, memory_config


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
