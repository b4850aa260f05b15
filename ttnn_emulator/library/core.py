"""ttnn.core: sizes, grids and memory configs."""

from __future__ import annotations

from ..errors import NotEmulated
from ..grid import (
    CoreCoord,
    CoreRange,
    CoreRangeSet,
    num_cores_to_corerangeset,
    num_cores_to_corerangeset_in_subcoregrids,
)
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
    grid = CoreRangeSet([CoreRange((0, 0), (gx - 1, gy - 1))])
    rest = num_cores_to_corerangeset_in_subcoregrids(after, n - more, grid, row_wise)
    return n, all_cores, first, rest, units + 1, units


def set_printoptions(*, profile: str = "short", sci_mode=None, precision=None) -> None:
    """How tensors print; the emulator prints them in its own way."""


def get_current_command_queue_id_for_thread():
    from ..device import QueueId

    return QueueId(0)
