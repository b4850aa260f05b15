"""The program of a product, and what refuses it: configs that fit neither the operands, the grid nor L1.

Source    ttnn 0.81.1, refusals asked one by one
"""

from __future__ import annotations

from typing import NamedTuple

from ...chips import Chip
from ...device import MeshDevice
from ...dtypes import TILE_BYTES, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ...memory import BufferType, MemoryConfig
from ...numerics import ComputeConfig
from ...shape import TILE
from ...tensor import TensorSpec
from ..core.buffers import buffers_end, check_room
from ..core.sharding import BLOCK, HEIGHT, WIDTH
from .operands import Call, Operands, Sizes


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
    end: int = 0  # where its buffers end in L1, if that is looked at

    def as_attrs(self) -> dict:
        """What the op log says of it, in tiles."""
        return {"program": self.kind, "per_core": (self.per_m, self.per_n), "in0_block_w": self.block_w}

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


def check_program(
    c, p: Plan, s: Sizes, a: TensorSpec, b: TensorSpec, out: MemoryConfig, config: ComputeConfig, chip: Chip
) -> None:
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
        want(s.k % c.in0_block_w == 0, f"K ({s.k}) must be divisible by in0_block_w ({c.in0_block_w})")
        return
    for field in ("in0_block_w", "per_core_M", "per_core_N", "out_subblock_h", "out_subblock_w"):
        want(getattr(c, field) != 0, f"{field} is 0, which is not valid")
    x, y = p.grid
    want(
        x <= chip.grid[0] and y <= chip.grid[1],
        f"compute_with_storage_grid_size ({x}, {y}) must fit within device grid {chip.grid}",
    )
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
        want(kind is not HEIGHT or s.k == p.block_w, f"Kt ({s.k}) must equal in0_block_w ({p.block_w})")
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
        if b.memory_layout is HEIGHT and p.fused_batch:
            raise DeviceRejects(f"{name}: HEIGHT_SHARDED input B requires fuse_batch=false for batched matmul")
        if b.memory_layout is WIDTH and in_l1 and (width := b.shard_spec.shape[1] // TILE) != p.per_n:
            raise DeviceRejects(
                f"{name}: per_core_N ({p.per_n}) must equal input tensor B shard shape[1] / in1_tile width ({width})"
            )
    elif p.kind in ("in0", "in1"):
        name = "MatmulMultiCoreReuseMultiCast1DProgramConfig"
        if p.kind == "in1":
            raise DeviceRejects(f"{name}: input B must be INTERLEAVED, got: {got}")
        if in_l1 and b.memory_layout is not WIDTH:
            raise DeviceRejects(f"{name}: input B in L1 must be WIDTH_SHARDED, got: {got}")
        if not in_l1:
            raise DeviceRejects(
                "DFB 'in1' borrows memory from TensorParameter 'in1', but its TensorSpec is not L1-resident (L1 is "
                "required). Both L1 and L1_SMALL are accepted.",
                f"{name}: a weight in the banks of DRAM wants MatmulMultiCoreReuseMultiCastProgramConfig, "
                "minimal_matmul, or the DRAM-sharded program",
            )


def check_l1(p: Plan, c: Call, o: Operands, memory: MemoryConfig) -> int:
    """Where the circular buffers of a program end in L1; refuses those that pass its end.

    Source    ttnn 0.81.1, 34 sizes of 1D, 2D and reuse programs asked: base address + both operands twice (once where
              K is one block) + the result (not where it is sharded) + partial sums in their own format + the bias
    """
    if p.kind == "dram":
        return 0
    s, config = o.sizes, o.config
    h, w = p.block or (p.per_m, p.per_n)
    blocks = -(-s.k // p.block_w)
    twice = 2 if blocks * (1 if p.fused_batch else s.batch) > 1 or p.kind == "reuse" else 1
    size = twice * p.block_w * (h * TILE_BYTES[c.a.dtype] + w * TILE_BYTES[c.b.dtype])
    partial = float32 if config.fp32_dest_acc_en else bfloat16 if config.packer_l1_acc and blocks > 1 else o.dtype
    if partial is not o.dtype:
        size += h * w * TILE_BYTES[partial]
    if not memory.is_sharded():
        size += h * w * TILE_BYTES[o.dtype]
    if c.bias is not None:
        size += w * TILE_BYTES[c.bias.dtype]
    return buffers_end(c.chip, size, p.cores(s).ranges()[0], "smaller in0_block_w, per_core_M or per_core_N")


def check_clash(p: Plan, s: Sizes, device: MeshDevice) -> None:
    """Refuses a program whose circular buffers reach into tensors that are in L1 now."""
    check_room(device, p.end, p.cores(s).ranges()[0], "choose smaller blocks")
