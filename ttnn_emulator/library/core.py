"""ttnn.core: sizes, grids and memory configs."""

from __future__ import annotations

from ..errors import DeviceRejects, NotEmulated
from ..grid import CoreCoord, CoreRange, CoreRangeSet, num_cores_to_corerangeset
from ..memory import MemoryConfig, ShardOrientation, ShardSpec, ShardStrategy, TensorMemoryLayout
from ..memory import create_sharded_memory_config as _create
from ..shape import TILE, round_up
from ..tensor import Tensor

__all__ = [
    "divup", "roundup", "has_tile_padding", "is_sharded", "get_memory_config", "create_sharded_memory_config_",
    "num_cores_to_corerangeset_in_subcoregrids", "split_work_to_cores", "set_printoptions",
    "get_current_command_queue_id_for_thread",
]  # fmt: skip


def divup(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def roundup(a: int, b: int) -> int:
    """The first multiple of b that is not below a."""
    return divup(a, b) * b


def has_tile_padding(tensor: Tensor, *, dim: int | None = None) -> bool:
    """Does the tensor's shape in memory differ from its own (along `dim`)?"""
    logical, held = tensor.spec.shape, tensor.spec.padded_shape
    if len(logical) < 2 or len(held) != len(logical):
        return tuple(logical) != tuple(held)[-len(logical) :] if len(logical) else False
    return logical[dim] != held[dim] if dim is not None else tuple(logical) != tuple(held)


def is_sharded(tensor: Tensor) -> bool:
    return tensor.is_sharded()


def get_memory_config(tensor: Tensor) -> MemoryConfig:
    return tensor.memory_config()


def create_sharded_memory_config_(
    shape, core_grid, strategy, orientation: ShardOrientation | None = None,
    use_height_and_width_as_shard_shape: bool = False, tile_layout: bool = False,
) -> MemoryConfig:  # fmt: skip
    """An L1 config of shards; the strategy may be a TensorMemoryLayout, and `tile_layout` makes shards whole tiles.

    Source    ttnn 0.81.1, `ttnn/core.py`
    """
    strategies = {
        TensorMemoryLayout.HEIGHT_SHARDED: ShardStrategy.HEIGHT, TensorMemoryLayout.WIDTH_SHARDED: ShardStrategy.WIDTH,
        TensorMemoryLayout.BLOCK_SHARDED: ShardStrategy.BLOCK,
    }  # fmt: skip
    made = _create(
        tuple(shape), core_grid, strategies.get(strategy, strategy), orientation, use_height_and_width_as_shard_shape
    )
    if not tile_layout:
        return made
    old = made.shard_spec
    shards = ShardSpec(old.grid, [round_up(n, TILE) for n in old.shape], old.orientation)
    return MemoryConfig(made.memory_layout, made.buffer_type, shards)


def num_cores_to_corerangeset_in_subcoregrids(
    start_core: CoreCoord, target_num_cores: int, sub_core_grids: CoreRangeSet, row_wise: bool = False
) -> CoreRangeSet:
    """The first `target_num_cores` cores of the ranges, range by range, from `start_core` on.

    Source    ttnn 0.81.1 `work_split.cpp`, asked for 1 to 40 cores of two ranges
    """
    if target_num_cores > sub_core_grids.num_cores():
        raise DeviceRejects(
            f"Target number of cores {target_num_cores} is greater than total available cores "
            f"{sub_core_grids.num_cores()}"
        )
    if not sub_core_grids.contains(start_core):
        raise DeviceRejects("Start core must be inside sub_core_grids")
    found, left, started = [], target_num_cores, False
    for r in sub_core_grids.ranges():
        if not started and not r.contains(start_core):
            continue
        first = CoreCoord(*start_core) if not started else r.start
        started = True
        lines = _lines(r, first, row_wise)
        taken = []
        for line in lines:
            if not left:
                break
            taken.append(line[:left])
            left -= len(taken[-1])
        found += _rectangles(taken)
    if left:
        raise DeviceRejects("Failed to split target number of cores into CoreRangeSet")
    return CoreRangeSet(found)


def _lines(r: CoreRange, first: CoreCoord, row_wise: bool):
    """The rows (or columns) of a range from a core on, each a list of cores."""
    if row_wise:
        for y in range(first.y, r.end.y + 1):
            yield [CoreCoord(x, y) for x in range(first.x if y == first.y else r.start.x, r.end.x + 1)]
    else:
        for x in range(first.x, r.end.x + 1):
            yield [CoreCoord(x, y) for y in range(first.y if x == first.x else r.start.y, r.end.y + 1)]


def _rectangles(lines):
    """Lines that span the same, put together."""
    ranges = []
    for line in lines:
        start, end = line[0], line[-1]
        last = ranges[-1] if ranges else None
        below = last and (last.start.x, last.end.x, last.end.y + 1) == (start.x, end.x, start.y)
        beside = last and (last.start.y, last.end.y, last.end.x + 1) == (start.y, end.y, start.x)
        if below or beside:
            ranges[-1] = CoreRange(last.start, end)
        else:
            ranges.append(CoreRange(start, end))
    return ranges


def split_work_to_cores(core_grid, units_to_divide: int, row_wise: bool = False):
    """(cores used, all of them, those with more work, those with less, units of each of the two groups).

    Source    ttnn 0.81.1, asked
    """
    if isinstance(core_grid, CoreRangeSet):
        box = core_grid.bounding_box()
        if core_grid.num_cores() != box.size or tuple(box.start) != (0, 0):
            raise NotEmulated("split_work_to_cores over cores that are no rectangle from (0, 0)")
        core_grid = CoreCoord(box.end.x + 1, box.end.y + 1)
    gx, gy = core_grid
    n = min(units_to_divide, gx * gy)
    if not n:
        return 0, CoreRangeSet(), CoreRangeSet(), CoreRangeSet(), 0, 0
    all_cores = num_cores_to_corerangeset(n, (gx, gy), row_wise)
    units, more = divmod(units_to_divide, n)
    if not more:
        return n, all_cores, all_cores, CoreRangeSet(), units, 0
    first = num_cores_to_corerangeset(more, (gx, gy), row_wise)
    last = first.ranges()[-1].end
    after = CoreCoord(last.x + 1, last.y) if row_wise else CoreCoord(last.x, last.y + 1)
    if row_wise and after.x == gx:
        after = CoreCoord(0, after.y + 1)
    if not row_wise and after.y == gy:
        after = CoreCoord(after.x + 1, 0)
    grid = CoreRangeSet(CoreRange((0, 0), (gx - 1, gy - 1)))
    rest = num_cores_to_corerangeset_in_subcoregrids(after, n - more, grid, row_wise)
    return n, all_cores, first, rest, units + 1, units


def set_printoptions(*, profile: str = "short", sci_mode=None, precision=None) -> None:
    """How tensors print; the emulator prints them in its own way."""


def get_current_command_queue_id_for_thread():
    from ..device import QueueId

    return QueueId(0)
