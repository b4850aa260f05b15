"""Where a tensor lives: memory configs, the pages of a buffer, and the allocators of one chip.

A buffer is cut into pages that are dealt over the banks, and takes the same address in every bank, so that one
allocator for DRAM and one for L1 tell the whole story. Every chip of a mesh allocates alike.
"""

from __future__ import annotations

import collections
import json
import threading
from bisect import bisect_left
from functools import lru_cache

from .chips import Banks, Chip
from .dtypes import ELEMENT_BYTES, TILE_BYTES, Layout
from .enums import Named
from .errors import DeviceRejects, NotEmulated
from .grid import CoreGrid, CoreRange, CoreRangeSet, plain
from .shape import TILE, round_up
from .value import Value


class TensorMemoryLayout(Named):
    INTERLEAVED, HEIGHT_SHARDED, WIDTH_SHARDED, BLOCK_SHARDED, ND_SHARDED = 0, 2, 3, 4, 5


class BufferType(Named):
    DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE = range(5)


class ShardOrientation(Named):
    ROW_MAJOR = 0
    COL_MAJOR = 1


class ShardStrategy(Named):
    HEIGHT, WIDTH, BLOCK = 1, 2, 3


class ShardSpec(Value):
    """The cores that hold the shards, and the shape (rows, columns) of one shard."""

    FIELDS = __slots__ = ("grid", "shape", "orientation")

    def __init__(
        self, grid: CoreRangeSet, shard_shape, shard_orientation: ShardOrientation = ShardOrientation.ROW_MAJOR
    ):
        self.grid, self.shape, self.orientation = grid, tuple(int(n) for n in shard_shape), shard_orientation

    def num_cores(self) -> int:
        return self.grid.num_cores()

    def plain(self) -> dict:
        return {"grid": plain(self.grid), "orientation": self.orientation.value, "shape": list(self.shape)}

    def to_json(self) -> str:
        return json.dumps(self.plain(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ShardSpec:
        fields = json.loads(text)
        grid = CoreRangeSet.from_json(json.dumps(fields["grid"]))
        return cls(grid, fields["shape"], ShardOrientation(fields["orientation"]))

    def __repr__(self) -> str:
        return (f"ShardSpec(grid={self.grid},shape={list(self.shape)},"
                f"orientation=ShardOrientation::{self.orientation.name})")  # fmt: skip


class MemoryConfig(Value):
    """How a buffer is spread (interleaved or sharded), and in which memory."""

    FIELDS = __slots__ = ("memory_layout", "buffer_type", "shard_spec")

    def __init__(self, memory_layout=TensorMemoryLayout.INTERLEAVED, buffer_type=BufferType.DRAM, shard_spec=None):
        if memory_layout is TensorMemoryLayout.ND_SHARDED:
            raise NotEmulated("ND_SHARDED has no model in the emulator: use shards of two dims")
        self.memory_layout, self.buffer_type, self.shard_spec = memory_layout, buffer_type, shard_spec

    def is_sharded(self) -> bool:
        return self.memory_layout is not TensorMemoryLayout.INTERLEAVED

    @property
    def nd_shard_spec(self) -> None:
        """Shards of more than two dims are not emulated."""

    @property
    def interleaved(self) -> bool:
        return self.memory_layout is TensorMemoryLayout.INTERLEAVED

    def to_json(self) -> str:
        fields = {
            "buffer_type": self.buffer_type.value, "created_with_nd_shard_spec": False,
            "memory_layout": self.memory_layout.value, "per_core_allocation": False,
        }  # fmt: skip
        if self.shard_spec is not None:
            fields["shard_spec"] = self.shard_spec.plain()
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> MemoryConfig:
        fields = json.loads(text)
        shards = fields.get("shard_spec")
        return cls(
            TensorMemoryLayout(fields["memory_layout"]), BufferType(fields["buffer_type"]),
            None if shards is None else ShardSpec.from_json(json.dumps(shards)),
        )  # fmt: skip

    def __repr__(self) -> str:
        return (f"MemoryConfig(memory_layout=TensorMemoryLayout::{self.memory_layout.name},"
                f"buffer_type=BufferType::{self.buffer_type.name},"
                f"shard_spec={self.shard_spec or 'std::nullopt'})")  # fmt: skip


DRAM_MEMORY_CONFIG = MemoryConfig()
L1_MEMORY_CONFIG = MemoryConfig(buffer_type=BufferType.L1)
L1_HEIGHT_SHARDED_MEMORY_CONFIG = MemoryConfig(TensorMemoryLayout.HEIGHT_SHARDED, BufferType.L1)
L1_WIDTH_SHARDED_MEMORY_CONFIG = MemoryConfig(TensorMemoryLayout.WIDTH_SHARDED, BufferType.L1)
L1_BLOCK_SHARDED_MEMORY_CONFIG = MemoryConfig(TensorMemoryLayout.BLOCK_SHARDED, BufferType.L1)


def create_sharded_memory_config(
    shape, core_grid, strategy: ShardStrategy, orientation=None, use_height_and_width_as_shard_shape: bool = False
) -> MemoryConfig:
    """An L1 config that cuts `shape` over a core grid.

    Shapes    the last dim is the width, all the others the height; divided as they are, without tile padding
    Raises    RuntimeError where the height or width does not divide over the grid
    Source    ttnn 0.81.1 `ttnn/core.py`; recorded contract, op `ttnn.create_sharded_memory_config`
    """
    orientation = orientation or ShardOrientation.ROW_MAJOR
    if isinstance(core_grid, CoreGrid):
        gx, gy = core_grid.x, core_grid.y
        cores = CoreRangeSet([CoreRange((0, 0), (gx - 1, gy - 1))])
    else:
        cores = core_grid if isinstance(core_grid, CoreRangeSet) else CoreRangeSet([core_grid])
        gx, gy = cores.bounding_box().grid_size()
    layout = getattr(TensorMemoryLayout, f"{strategy.name}_SHARDED")
    height, width = 1, int(shape[-1])
    for n in list(shape)[:-1]:
        height *= int(n)
    if not use_height_and_width_as_shard_shape:
        if strategy is ShardStrategy.BLOCK:
            down, across = (gy, gx) if orientation is ShardOrientation.ROW_MAJOR else (gx, gy)
        else:
            n = cores.num_cores()
            down, across = (n, 1) if strategy is ShardStrategy.HEIGHT else (1, n)
        if height % down or width % across:
            raise DeviceRejects(
                "Invalid sharding core_grid",
                f"{height} rows over {down} and {width} columns over {across} cores do not divide",
            )
        height, width = height // down, width // across
    return MemoryConfig(layout, BufferType.L1, ShardSpec(cores, (height, width), orientation))


# ---------------------------------------------------------------- pages and banks
def banks_of(chip: Chip, buffer_type: BufferType) -> Banks:
    return chip.dram if buffer_type is BufferType.DRAM else chip.l1


def pages_of(padded_shape, dtype, layout, banks: Banks, width=None) -> tuple[int, int]:
    """(number of pages, bytes of one aligned page); a row-major page is one row."""
    volume = 1
    for n in padded_shape:
        volume *= n
    if layout is Layout.TILE:
        return volume // (TILE * TILE), TILE_BYTES[dtype]
    width = width or (padded_shape[-1] if len(padded_shape) else 1)
    row = round_up(width * ELEMENT_BYTES[dtype], banks.page_alignment)
    return (volume // width if width else 0), row


@lru_cache(maxsize=65536)
def buffer_bytes(padded_shape, dtype, layout: Layout, memory_config: MemoryConfig, chip: Chip) -> tuple[int, int]:
    """(bytes in every bank, bytes in all) that a tensor takes on one chip, its shard spec checked on the way.

    Raises    DeviceRejects where the shards do not fit the tile, the tensor or the grid
    Source    recorded limits, "Buffers" and "Sharding"
    """
    banks = banks_of(chip, memory_config.buffer_type)
    if not memory_config.is_sharded():
        pages, page = pages_of(padded_shape, dtype, layout, banks)
        return round_up(-(-pages // banks.count) * page, chip.buffer_alignment), pages * page
    spec = memory_config.shard_spec
    if spec is None:
        raise DeviceRejects("Shard spec must not be None for sharded tensors")
    validate_shards(padded_shape, layout, memory_config, chip)
    rows, columns = spec.shape
    pages, page = pages_of((rows, columns), dtype, layout, banks, columns)
    return round_up(pages * page, chip.buffer_alignment), pages * page * spec.num_cores()


def validate_shards(padded_shape, layout: Layout, memory_config: MemoryConfig, chip: Chip) -> None:
    """Raises DeviceRejects where a shard spec does not fit the tile, the tensor or the grid, in the library's order."""
    spec, kind = memory_config.shard_spec, memory_config.memory_layout
    rows, columns = spec.shape
    if layout is Layout.TILE and (rows % TILE or columns % TILE):
        raise DeviceRejects(f"Physical shard shape ({rows}, {columns}) must be tile {{32, 32}} sized!")
    width = padded_shape[-1] if len(padded_shape) else 1
    height = 1
    for n in padded_shape[:-1]:
        height *= n
    cores = spec.num_cores()
    down, across = -(-height // rows), -(-width // columns)
    if kind is TensorMemoryLayout.HEIGHT_SHARDED:
        if columns != width:
            raise DeviceRejects(f"Shard width {columns} must match physical width {width} for height sharded")
        if down > cores:
            raise DeviceRejects(f"Number of shards along height {down} must not exceed number of cores {cores}")
    elif kind is TensorMemoryLayout.WIDTH_SHARDED:
        if rows != height:
            raise DeviceRejects(f"Shard height {rows} must match physical height {height} for width sharded")
        if across > cores:
            raise DeviceRejects(f"Number of shards along width {across} must not exceed number of cores {cores}")
    else:
        gx, gy = spec.grid.bounding_box().grid_size()
        row_major = spec.orientation is ShardOrientation.ROW_MAJOR
        limits = ((down, gy, "height", "rows"), (across, gx, "width", "columns")) if row_major else (
            (down, gx, "height", "columns"), (across, gy, "width", "rows"))  # fmt: skip
        for shards, limit, axis, name in limits:
            if shards > limit:
                raise DeviceRejects(
                    f"Number of shards along {axis} {shards} must not exceed number of {name} {limit} for "
                    f"{'row' if row_major else 'column'} major orientation!"
                )
    gx, gy = (chip.dram.count, 1) if memory_config.buffer_type is BufferType.DRAM else chip.grid
    for r in spec.grid.ranges():
        if r.end.x >= gx or r.end.y >= gy:
            core = next(c for c in spec.grid.cores() if c.x >= gx or c.y >= gy)
            where, banks = memory_config.buffer_type.name, banks_of(chip, memory_config.buffer_type).count
            raise DeviceRejects(
                f"Invalid shard grid: shard core ({core.x}, {core.y}) has no {where} bank on this device, which has "
                f"{banks} of them. Derive the shard grid from the device (dram_grid_size() for DRAM, "
                "compute_with_storage_grid_size() for L1) rather than assuming a fixed size -- a harvested device "
                "exposes fewer banks than an unharvested one of the same type. An L1 shard core outside the compute "
                "grid is legal only while it is claimed via ServiceCoreManager."
            )


def extent(padded_shape) -> tuple[int, int]:
    """(rows, columns) of a tensor as memory sees it: all leading dims count as rows."""
    rows = 1
    for n in padded_shape[:-1]:
        rows *= n
    return rows, padded_shape[-1] if len(padded_shape) else 1


@lru_cache(maxsize=4096)
def over_same_cores(memory_config: MemoryConfig, padded_shape, layout: Layout) -> MemoryConfig:
    """A sharded config for a tensor of another shape: the same cores, each shard the least that fits, in whole tiles.

    Source    ttnn 0.81.1, results of slice and reshape of sharded tensors
    """
    shards = memory_config.shard_spec
    (rows, columns), unit = extent(padded_shape), TILE if layout is Layout.TILE else 1
    down, across = shards.num_cores(), shards.num_cores()
    if memory_config.memory_layout is TensorMemoryLayout.BLOCK_SHARDED:
        across, down = shards.grid.bounding_box().grid_size()
        if shards.orientation is ShardOrientation.COL_MAJOR:
            across, down = down, across
    if memory_config.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
        rows = round_up(-(-rows // down), unit)
    if memory_config.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED:
        columns = round_up(-(-columns // across), unit)
    return with_shards(memory_config, (rows, columns))


def with_shards(memory_config: MemoryConfig, shape, memory_layout=None) -> MemoryConfig:
    """The config with shards of another shape (and another layout)."""
    old = memory_config.shard_spec
    return MemoryConfig(
        memory_layout or memory_config.memory_layout,
        memory_config.buffer_type,
        ShardSpec(old.grid, shape, old.orientation),
    )


def named_by_extent(memory_config: MemoryConfig, padded_shape) -> MemoryConfig:
    """The config named after what its shards cover: all rows make it width sharded, else all columns height sharded.

    Source    ttnn 0.81.1, `reshape` into sharded memory: one shard over several cores comes out WIDTH_SHARDED
    """
    (rows, columns), shard = extent(padded_shape), memory_config.shard_spec.shape
    name = "WIDTH" if shard[0] == rows else "HEIGHT" if shard[1] == columns else "BLOCK"
    return with_shards(memory_config, shard, getattr(TensorMemoryLayout, f"{name}_SHARDED"))


# ---------------------------------------------------------------- allocation
class Allocator:
    """The address space of one bank, which stands for all banks of its kind: free blocks, first fit by address.

    `reserved` bytes of every bank are not given out.

    DRAM grows from the bottom, L1 from the top. Source: buffer addresses of ttnn 0.81.1 over 6,000 random allocations.
    """

    def __init__(self, buffer_type: BufferType, chip: Chip, reserved: int = 0):
        banks = banks_of(chip, buffer_type)
        self.buffer_type, self.banks, self.bank_bytes = buffer_type, banks.count, banks.bytes - reserved
        self.top_down = buffer_type is BufferType.L1
        self.free_blocks: list[list[int]] = [[banks.base, self.bank_bytes]]  # [address, bytes], by address
        self.allocated = self.peak = 0
        self._lock = threading.Lock()
        self._returned: collections.deque = collections.deque()

    @property
    def free(self) -> int:
        return self.bank_bytes - self.allocated

    @property
    def largest_free(self) -> int:
        return max((size for _, size in self.free_blocks), default=0)

    def allocate(self, size: int, total: int, cores: int | None = None) -> int:
        """The address of `size` bytes in every bank; `total` bytes, and the `cores` of shards, are for the message."""
        if not size:
            return 0
        with self._lock:
            if self._returned:
                self._take_back()
            address = self._allocate(size, total, cores)
        if self._returned:
            self._settle()
        return address

    def _allocate(self, size: int, total: int, cores: int | None) -> int:
        blocks = self.free_blocks
        order = range(len(blocks) - 1, -1, -1) if self.top_down else range(len(blocks))
        for i in order:
            block = blocks[i]
            if block[1] >= size:
                break
        else:
            raise DeviceRejects(
                f"Out of Memory: Not enough space to allocate {total} B {self.buffer_type.name} buffer across "
                f"{cores or self.banks} banks, where each bank needs to store {size} B, but bank size is "
                f"{self.bank_bytes} B "
                f"(allocated: {self.allocated} B, free: {self.free} B, largest free block: {self.largest_free} B)."
            )
        block[1] -= size
        address = block[0] + block[1] if self.top_down else block[0]
        if not self.top_down:
            block[0] += size
        if not block[1]:
            del blocks[i]
        self.allocated += size
        if self.allocated > self.peak:
            self.peak = self.allocated
        return address

    def release(self, address: int, size: int) -> None:
        """Gives memory back: at once, or when whoever is at it is done (another thread, or this one: the garbage
        collector may free a tensor at any moment)."""
        if not size:
            return
        if self._lock.acquire(blocking=False):
            self._release(address, size)
            self._lock.release()
        else:
            self._returned.append((address, size))
        if self._returned:
            self._settle()

    def _settle(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._take_back()
            finally:
                self._lock.release()

    def _take_back(self) -> None:
        while self._returned:
            self._release(*self._returned.popleft())

    def _release(self, address: int, size: int) -> None:
        blocks = self.free_blocks
        at = bisect_left(blocks, [address])
        blocks.insert(at, [address, size])
        if at + 1 < len(blocks) and address + size == blocks[at + 1][0]:
            blocks[at][1] += blocks.pop(at + 1)[1]
        if at and blocks[at - 1][0] + blocks[at - 1][1] == address:
            blocks[at - 1][1] += blocks.pop(at)[1]
        self.allocated -= size
