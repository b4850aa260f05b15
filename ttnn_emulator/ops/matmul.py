"""matmul, linear and addmm: their checks, the program the library chooses, and where the result goes.

Source    ttnn 0.81.1: the recorded contract; programs, fidelities and block sizes as the library writes them into its
          kernels' compile-time arguments; refusals asked one by one
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from .. import numerics
from ..config import (
    MatmulMultiCoreReuseMultiCast1DProgramConfig,
    MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig,
    MatmulMultiCoreReuseMultiCastProgramConfig,
    MatmulMultiCoreReuseProgramConfig,
    WormholeComputeKernelConfig,
    resolve,
)
from ..dtypes import BLOCK_FORMATS, FLOATS, NAME, TILE_BYTES, DataType, Layout, bfloat16, cpp, float32
from ..errors import DeviceRejects, NotEmulated
from ..grid import CoreGrid, CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ..memory import (
    BASE_ADDRESS,
    DRAM_MEMORY_CONFIG,
    GRID,
    BufferType,
    MemoryConfig,
    ShardOrientation,
    ShardSpec,
    buffer_bytes,
)
from ..numerics import ComputeConfig
from ..numerics.rows import Slices
from ..op import describe, op, refuse_unmodelled
from ..shape import TILE, Shape
from ..tensor import Tensor, TensorSpec, padded, spec
from .sharding import BLOCK, HEIGHT, WIDTH
from .unary import activation as fused_activation
from .unary import finish, fuse

#: Where L1 ends for the circular buffers of a program, which start at the first usable address.
L1_END = 1_499_136
L1_BASE = BASE_ADDRESS[BufferType.L1]


# ---------------------------------------------------------------- the public ops


@op("ttnn.matmul")
def matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None, activation=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
) -> Tensor:  # fmt: skip
    """a @ b, rounded once to `dtype`.

    Shapes    a [..., M, K], b [..., K, N] -> [..., M, N]; the batch dims are equal, or all 1 in one operand; vectors
              work
    Dtypes    bfloat16, float32, bfloat8_b and bfloat4_b in any mix; by default the first operand's comes out
    Layout    TILE
    Numerics  by default HiFi2, LoFi where both operands are in block formats or a program config or core grid is given,
              HiFi3 for two float32; a bfloat16 destination with L1 accumulation, a float32 one for a float32 result
    Raises    sizes that do not match, program configs that do not fit the operands, the grid or L1
    """
    refuse_unmodelled("ttnn.matmul", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes)
    return _matmul(
        "ttnn.matmul", input_tensor_a, input_tensor_b, None, transpose_a, transpose_b, memory_config, dtype,
        program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


@op("ttnn.linear")
def linear(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, bias: Tensor | None = None, transpose_a: bool = False,
    transpose_b: bool = False, memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    program_config=None,
    activation=None, compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
    in0_column_offset: int | None = None,
) -> Tensor:  # fmt: skip
    """activation(a @ b + bias): `matmul` with a bias that broadcasts to the result.

    Weights are [in, out]; Hugging Face stores [out, in].
    """
    refuse_unmodelled(
        "ttnn.linear", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes, in0_column_offset=in0_column_offset
    )
    return _matmul(
        "ttnn.linear", input_tensor_a, input_tensor_b, bias, transpose_a, transpose_b, memory_config, dtype,
        program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


@op("ttnn.addmm")
def addmm(
    input_tensor: Tensor, mat1_tensor: Tensor, mat2_tensor: Tensor, *, alpha: float = 1.0, beta: float = 1.0,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (mat1 @ mat2), as a matmul followed by element-wise ops."""
    refuse_unmodelled("ttnn.addmm", optional_output_tensor=optional_output_tensor)
    from .elementwise import add, multiply

    y = matmul(
        mat1_tensor, mat2_tensor, memory_config=memory_config, dtype=dtype, program_config=program_config,
        compute_kernel_config=compute_kernel_config, core_grid=core_grid,
    )  # fmt: skip
    if input_tensor.spec.shape != y.spec.shape:
        raise DeviceRejects("input_tensor must have shape matching one of result of mat1_tensor @ mat2_tensor")
    if alpha != 1.0:
        y = multiply(y, alpha)
    if beta == 0.0:
        return y
    return add(y, input_tensor if beta == 1.0 else multiply(input_tensor, beta))


# ---------------------------------------------------------------- what is multiplied


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

    kind: str  # "in0" and "in1" (one of the operands is multicast in one dimension), "2d", "reuse", "dram"
    block_w: int
    per_m: int
    per_n: int
    grid: tuple = GRID
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


def program(s: Sizes, a: TensorSpec, memory_config: MemoryConfig, program_config, core_grid, tile_bytes) -> Plan:
    """The program of a call: as its config says, else what the library chooses."""
    if program_config is not None:
        return explicit(program_config)
    if a.memory_config.is_sharded():
        return by_shards(s, a)
    if core_grid is not None:
        return by_grid(s, (core_grid.x, core_grid.y))
    return automatic(s, memory_config.memory_layout if memory_config.is_sharded() else None, tile_bytes)


def explicit(c) -> Plan:
    grid = tuple(getattr(c, "compute_with_storage_grid_size", GRID))
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
def automatic(s: Sizes, layout, tile_bytes: tuple) -> Plan:
    """What the library chooses when it is told nothing; `layout`: of a sharded result."""
    gx, gy = GRID
    pair = 2 if s.k % 2 == 0 else 1
    rows = s.m * s.batch
    if layout is not None:
        per = next((p for p in (16, 8, 4, 2) if buffers_bytes(p, p, pair, tile_bytes) < L1_END - L1_BASE), 1)
        down, across = -(-s.m // per), -(-s.n // per)
        fits = (down, across) != (1, 1) and down <= gy and across <= gx
        if (fits and down == 1) or (not fits and layout is WIDTH):
            per_n = -(-s.n // (gx * gy))
            return Plan("in0", pair, s.m, per_n, subblock=subblock(s.m, per_n))
        if (fits and across == 1) or (not fits and layout is HEIGHT):
            per_m = -(-s.m // (gx * gy))
            return Plan("in1", pair, per_m, s.n, subblock=subblock(per_m, s.n))
        return Plan("2d", pair, min(per, s.m), min(per, s.n), fused_batch=True)
    if max(rows, s.n) > 8 * min(rows, s.n) or s.m == 1 or s.n == 1:
        if rows > s.n:
            return Plan("in1", pair, -(-rows // (gx * gy)), s.n, fused_batch=True)
        return Plan("in0", pair, rows, -(-s.n // (gx * gy)), fused_batch=True)
    per_m, per_n = -(-rows // gy), -(-s.n // gx)
    eighth = s.k // 8 if s.k % 8 == 0 else 1
    room = L1_END - L1_BASE
    for k in range(eighth, 0, -1):
        if eighth % k == 0 and buffers_bytes(per_m, per_n, k, tile_bytes) < room:
            return Plan("2d", k, per_m, per_n, fused_batch=True)
    return Plan("2d", 1, per_m, per_n, fused_batch=True)


def buffers_bytes(per_m: int, per_n: int, block_w: int, tile_bytes: tuple) -> int:
    """L1 that the library reckons a block takes: both operands twice, the result and the partial sums."""
    a, b, out, partial = tile_bytes
    return 2 * block_w * (per_m * a + per_n * b) + per_m * per_n * (out + partial)


# ---------------------------------------------------------------- checks of a program config


def check_program(c, p: Plan, s: Sizes, a: TensorSpec, b: TensorSpec, out: MemoryConfig, config: ComputeConfig) -> None:
    """Refuses a program config that does not fit the operands or the grid, in the library's order."""
    name = p.name

    def want(holds: bool, text: str) -> None:
        if not holds:
            raise DeviceRejects(f"{name}: {text}")

    if p.kind == "dram":
        a.memory_config.shard_spec or _bad_optional()
        got = b.memory_config.memory_layout
        want(got is WIDTH, f"Input B memory layout must be WIDTH_SHARDED, got: {cpp(got)}")
        want(out.is_sharded(), "Output memory config must be sharded for DRAM sharded program config")
        want(s.k % c.in0_block_w == 0, f"Kt ({s.k}) must be divisible by in0_block_w ({c.in0_block_w})")
        return
    for field in ("in0_block_w", "per_core_M", "per_core_N", "out_subblock_h", "out_subblock_w"):
        want(getattr(c, field) != 0, f"{field} is 0, which is not valid")
    x, y = p.grid
    want(x <= GRID[0] and y <= GRID[1], f"compute_with_storage_grid_size ({x}, {y}) must fit within device grid {GRID}")
    h, w = p.block or (p.per_m, p.per_n)
    sub_h, sub_w = c.out_subblock_h, c.out_subblock_w
    if p.kind != "reuse":
        want(p.per_m % h == 0, f"per_core_M ({p.per_m}) must be divisible by out_block_h ({h})")
        want(p.per_n % w == 0, f"per_core_N ({p.per_n}) must be divisible by out_block_w ({w})")
        want(h % sub_h == 0, f"out_block_h ({h}) must be divisible by out_subblock_h ({sub_h})")
        want(w % sub_w == 0, f"out_block_w ({w}) must be divisible by out_subblock_w ({sub_w})")
    most = 4 if config.fp32_dest_acc_en else 8
    want(
        sub_h * sub_w <= most,
        f"out_subblock_w {sub_w} times out_subblock_h {sub_h} needs to be at most {most} to fit in hardware",
    )
    want(s.k % p.block_w == 0, f"Kt ({s.k}) must be divisible by in0_block_w ({p.block_w})")
    kind = a.memory_config.memory_layout if a.memory_config.is_sharded() else None
    rows = s.m * s.batch if p.fused_batch else s.m
    down, across = -(-rows // p.per_m), -(-s.n // p.per_n)
    if p.kind == "reuse":
        want(s.batched or s.batch == 1, "Batch broadcasting is not supported for the chosen program config")
        want(s.n == p.per_n, f"N ({s.n}) must equal per_core_N ({p.per_n})")
        want(p.per_m >= s.m or s.m % p.per_m == 0, f"per_core_M, {p.per_m}, must divide M, {s.m}, if per_core_M < M!")
    elif p.kind == "2d":
        want(
            not (p.fused_batch and s.batched),
            "Matmul with fused batch requires input tensors of shapes BCMK*11KN=BCMN or equivalent. Please "
            "change the second "
            "input tensor or adjust the program config.",
        )
        want(kind is not WIDTH, f"Unsupported memory layout {cpp(a.memory_config.memory_layout)}.")
        want(kind is not HEIGHT or s.k == p.block_w, f"K ({s.k}) must equal in0_block_w ({p.block_w})")
        wide, high = (y, x) if p.transposed else (x, y)
        want(
            across <= wide,
            f"Num output blocks along x ({across}) must be smaller than or equal to the number of columns in "
            f"compute grid ({wide})!",
        )
        want(
            down <= high,
            f"Num output blocks along y ({down}) must be smaller than or equal to the number of rows in "
            f"compute grid ({high})!",
        )
    else:
        want(not getattr(c, "gather_in0", False) or kind is not None, "gather_in0 requires input A to be sharded")
        if c.gather_in0 or c.stream_in1:
            raise NotEmulated(f"{name} with gather_in0 or stream_in1 has no model in the emulator")
        if p.kind == "in0":
            got = cpp(a.memory_config.memory_layout)
            want(
                kind in (None, WIDTH), f"input A must be WIDTH_SHARDED when mcast_in0 or gather_in0 is set, got: {got}"
            )
            if kind is WIDTH:
                shard = a.memory_config.shard_spec.shape[1]
                want(
                    (shard // TILE) % p.block_w == 0,
                    f"shard_shape[1] ({shard}) / in0_tile width (32) must be divisible by in0_block_w ({p.block_w})",
                )
            want(
                down == 1,
                f"mcast_in0 requires M ({rows}) to fit within a single per_core_M block ({p.per_m}), got "
                f"num_blocks_y={down}",
            )
        else:
            want(kind in (None, HEIGHT), f"input A must be HEIGHT_SHARDED, got: {cpp(a.memory_config.memory_layout)}")
            want(
                across == 1,
                f"mcast_in1 requires N ({s.n}) to fit within a single per_core_N block ({p.per_n}), got "
                f"num_blocks_x={across}. A "
                "single in1 sender multicasts one per_core_N-wide weight slice to the whole grid, so "
                "multi-column N is not "
                "supported here; use MatmulMultiCoreReuseMultiCastProgramConfig (the 2D factory) for multi-column N.",
            )
        want(
            down * across <= x * y,
            f"Number of blocks exceeds number of cores: {down * across} blocks > {x * y} cores",
        )


def _bad_optional():
    raise DeviceRejects("bad optional access", "the first operand must be WIDTH_SHARDED in L1 for this program config")


def check_weight(p: Plan, b: MemoryConfig, chosen: bool) -> None:
    """Refuses a sharded second operand where the program does not read it so."""
    got, in_l1 = cpp(b.memory_layout), b.buffer_type is BufferType.L1
    if not chosen:
        raise DeviceRejects(f"MatmulMultiCoreProgramConfig: Input B memory layout must be INTERLEAVED, got: {got}")
    if p.kind == "2d":
        name = "MatmulMultiCoreReuseMultiCastProgramConfig"
        if b.memory_layout is BLOCK:
            raise DeviceRejects(
                f"{name}: Input B memory layout must be WIDTH_SHARDED, HEIGHT_SHARDED, or DRAM ND_SHARDED, got: {got}"
            )
        if b.memory_layout is HEIGHT and in_l1:
            raise DeviceRejects(f"{name}: HEIGHT_SHARDED input B is only supported in DRAM, got: {cpp(b.buffer_type)}")
    elif p.kind in ("in0", "in1"):
        name = "MatmulMultiCoreReuseMultiCast1DProgramConfig"
        if p.kind == "in1":
            raise DeviceRejects(f"{name}: input B must be INTERLEAVED, got: {got}")
        if in_l1 and b.memory_layout is not WIDTH:
            raise DeviceRejects(f"{name}: input B in L1 must be WIDTH_SHARDED, got: {got}")


def check_l1(
    p: Plan,
    s: Sizes,
    a: TensorSpec,
    b: DataType,
    bias,
    out: DataType,
    memory: MemoryConfig,
    config: ComputeConfig,
    device,
):
    """Refuses a program whose circular buffers pass the end of L1, or reach into tensors that are there.

    Source    ttnn 0.81.1, 34 sizes of 1D, 2D and reuse programs asked: base address + both operands twice (once where
              K is
              one block) + the result (not where it is sharded) + partial sums in their own format + the bias
    """
    if p.kind == "dram":
        return
    h, w = p.block or (p.per_m, p.per_n)
    blocks = -(-s.k // p.block_w)
    twice = 2 if blocks * (1 if p.fused_batch else s.batch) > 1 or p.kind == "reuse" else 1
    size = twice * p.block_w * (h * TILE_BYTES[a.dtype] + w * TILE_BYTES[b])
    partial = float32 if config.fp32_dest_acc_en else bfloat16 if config.packer_l1_acc and blocks > 1 else out
    if partial is not out:
        size += h * w * TILE_BYTES[partial]
    if not memory.is_sharded():
        size += h * w * TILE_BYTES[out]
    if bias is not None:
        size += w * TILE_BYTES[bias]
    end, where = L1_BASE + size, p.cores(s).ranges()[0]
    if end > L1_END:
        raise DeviceRejects(
            f"Statically allocated dataflow buffers on core range {where} grow to {end} B which is beyond max "
            "L1 size of "
            f"{L1_END} B",
            "smaller in0_block_w, per_core_M or per_core_N",
        )
    free = device.allocators[BufferType.L1].free_blocks
    lowest = free[0][0] + free[0][1] if free and free[0][0] == L1_BASE else L1_BASE
    if end > lowest:
        raise DeviceRejects(
            f"Statically allocated dataflow buffers clash with L1 buffers on core range {where}. L1 buffer "
            f"allocated at {lowest} "
            f"and static dataflow buffer region ends at {end}",
            "free tensors in L1 before, or choose smaller blocks",
        )


# ---------------------------------------------------------------- where it goes


@lru_cache(maxsize=65536)
def output_memory(p: Plan, s: Sizes, shape: tuple, memory_config: MemoryConfig, a: MemoryConfig) -> MemoryConfig:
    """The config of the result. A sharded one has the shards that the program leaves, whatever the call asked."""
    if not memory_config.is_sharded():
        return memory_config
    kind, orientation = memory_config.memory_layout, ShardOrientation.ROW_MAJOR
    if p.kind == "dram":
        grid = num_cores_to_corerangeset(-(-s.n // p.per_n), GRID, row_wise=True)
    elif p.kind == "reuse" and a.is_sharded():
        grid, orientation = a.shard_spec.grid, a.shard_spec.orientation
    else:
        grid = p.cores(s)
        if p.kind == "reuse" or p.transposed:
            orientation = ShardOrientation.COL_MAJOR
    made = MemoryConfig(kind, memory_config.buffer_type, ShardSpec(grid, (p.per_m * TILE, p.per_n * TILE), orientation))
    buffer_bytes(padded(Shape(shape), Layout.TILE, None), bfloat16, Layout.TILE, made)
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


# ---------------------------------------------------------------- the op


def check_operands(a: Tensor, b: Tensor) -> None:
    """Refuses operands by place, layout and dtype, in the library's order."""
    if a.buffer is None or not a.buffer.alive:
        raise DeviceRejects("Operand to matmul must be on device", "it is on the host, or was deallocated")
    if b.buffer is None or not b.buffer.alive:
        raise DeviceRejects("Device Operations expect device tensors as inputs")
    if a.layout is not Layout.TILE or b.layout is not Layout.TILE:
        raise DeviceRejects("Inputs to matmul must be tilized", "ttnn.to_layout(x, ttnn.TILE_LAYOUT)")
    for label, t in (("A", a), ("B", b)):
        if t.dtype not in FLOATS:
            raise DeviceRejects(f"Unsupported data format for input {label}: {cpp(t.dtype)}")


def added(y, bias, dtype: str, act):
    """y + bias as `ttnn.add` computes it, then a fused activation."""
    y = numerics.now().add(y, bias.to(y.dtype), dtype, dtype, dtype)
    if act is None:
        return y
    return act(y) if callable(act) else numerics.now().unary(act, y, dtype)


#: Rows of the first operand, without and with a bias.
_ROWS = (Slices((-2, None), -2, search=True), Slices((-2, None, None), -2, search=True))


def _matmul(
    name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation,
    compute_kernel_config, core_grid,
    target,
):  # fmt: skip
    act = fuse(fused_activation(activation))
    check_operands(a, b)
    if core_grid is not None:
        if program_config is not None:
            raise DeviceRejects("Cannot use both user core grid/coordinates and a program config")
        if not isinstance(core_grid, CoreGrid):
            raise TypeError(f"{name}(): incompatible function arguments.\n  got    core_grid = {describe(core_grid)}")
    own, other = a.spec.memory_config, b.spec.memory_config
    if (
        program_config is None
        and own.is_sharded()
        and own.memory_layout is WIDTH
        and any(n != 1 for n in b.spec.shape[:-2])
    ):
        raise DeviceRejects(f"Input A memory layout must not be WIDTH_SHARDED, got: {cpp(own.memory_layout)}")
    if program_config is None:
        in0_reuse = core_grid is None and all(m in (None, DRAM_MEMORY_CONFIG) for m in (own, other, memory_config))
    else:
        one_d = isinstance(program_config, MatmulMultiCoreReuseMultiCast1DProgramConfig)
        in0_reuse = one_d and not (program_config.fuse_batch or program_config.mcast_in0)
    s = sizes(
        a.spec.shape, b.spec.shape, transpose_a, transpose_b, core_grid is not None or own.is_sharded(), in0_reuse
    )
    shape = s.shape
    if bias is not None:
        if bias.buffer is None:
            raise DeviceRejects("Device Operations expect device tensors as inputs")
        shape = check_bias(shape, bias.spec.shape)
    if target is not None:
        if dtype is not None and dtype is not target.dtype:
            raise DeviceRejects(
                f"Type mismatch between optional output tensor {cpp(target.dtype)} & output tensor {cpp(dtype)}"
            )
        if target.spec.shape != tuple(shape):
            raise DeviceRejects(
                "Invalid optional output tensor", f"its shape is {target.spec.shape}, not {list(shape)}"
            )
        dtype, memory_config = target.dtype, target.memory_config()
    dtype, memory_config = dtype or a.dtype, memory_config or DRAM_MEMORY_CONFIG
    config = resolve(
        compute_kernel_config,
        default_config(a.dtype, b.dtype, dtype, program_config is not None or core_grid is not None),
    )
    if program_config is None and own.is_sharded():
        if other.is_sharded() and not s.batched:
            raise DeviceRejects(f"Input tensor B must have INTERLEAVED memory layout, got: {cpp(other.memory_layout)}")
        if memory_config.is_sharded() and memory_config.memory_layout is not own.memory_layout:
            raise DeviceRejects(
                f"Input A and output memory layouts must match, got input: {cpp(own.memory_layout)} vs output: "
                f"{cpp(memory_config.memory_layout)}"
            )
    partial = float32 if config.fp32_dest_acc_en else bfloat16 if config.packer_l1_acc else dtype
    p = program(
        s, a.spec, memory_config, program_config, core_grid,
        (TILE_BYTES[a.dtype], TILE_BYTES[b.dtype], TILE_BYTES[dtype], TILE_BYTES[partial]),
    )  # fmt: skip
    if other.is_sharded() and p.kind != "dram":
        check_weight(p, other, program_config is not None or core_grid is not None or memory_config.is_sharded())
    if transpose_a and core_grid is not None and s.batch > 1 and s.m > 1 and p.fused_batch:
        turned = (*a.spec.padded_shape[:-2], a.spec.padded_shape[-1], a.spec.padded_shape[-2])
        raise DeviceRejects(
            "MatmulMultiCoreReuseMultiCast1DProgramConfig: transpose_a with fuse_batch is not supported when "
            "batch dimensions "
            f"exist and M_per_batch > 1 (batch_size={s.batch}, M_per_batch={s.m}, a_shape_padded={Shape(turned)})"
        )
    if program_config is not None:
        check_program(program_config, p, s, a.spec, b.spec, memory_config, config)
        if act is None and getattr(program_config, "fused_activation", None) is not None:
            act = fuse(fused_activation(program_config.fused_activation))
    out = spec(
        shape, dtype, Layout.TILE, output_memory(p, s, s.shape, memory_config, own) if target is None else memory_config
    )
    if program_config is not None:
        check_l1(
            p,
            s,
            a.spec,
            b.dtype,
            None if bias is None else bias.dtype,
            dtype,
            out.memory_config,
            config,
            a.buffer.device,
        )
    made, w_dtype, block_w = NAME[dtype], NAME[b.dtype], p.block_w
    separate = act is not None and program_config is None and core_grid is None  # an op of its own, on the product
    vector_a, vector_b, flat = len(a.spec.shape) == 1, len(b.spec.shape) == 1, len(s.shape) < 2

    # A bias of more than one row is added by an op of its own.
    apart = bias is not None and (
        vector_b or bias.spec.shape[-1] != s.shape[-1] or bias.spec.shape.volume() != bias.spec.shape[-1]
    )

    def compute(x, w, c=None):
        if vector_a:
            x = x[None]
        if vector_b:
            w = w[:, None]
        if transpose_a:
            x = x.mT
        if transpose_b:
            w = w.mT
        y = numerics.now().matmul(
            x, w, config, dtype=made, block_w=block_w, bias=None if apart else c, activation=None if apart else act,
            w_dtype=w_dtype,
        )  # fmt: skip
        if apart:
            y = added(y.reshape(s.shape), c, made, act)
        return y.reshape(shape) if flat or y.dim() != len(shape) else y

    # Rows are independent, unless they are what is summed over, or have a weight or bias of their own.
    shared = (
        s.batch == 1 and not (flat or transpose_a or vector_a or vector_b or apart) and len(a.spec.shape) == len(shape)
    )

    return finish(
        name, (a, b) if bias is None else (a, b, bias), out, compute, target, flops=2 * math.prod(s.shape) * s.inner,
        attrs={"math_fidelity": config.math_fidelity}, through=(out,) if separate else (),
        rows=_ROWS[bias is not None] if shared else None,
    )  # fmt: skip
