"""Core coordinates and sets of them, as ttnn names and prints them."""

from __future__ import annotations

import json
from itertools import groupby
from typing import NamedTuple

from .errors import DeviceRejects
from .value import Value


def plain(thing):
    """What JSON has of coordinates, ranges and sets of them."""
    if isinstance(thing, CoreCoord):
        return {"x": thing.x, "y": thing.y}
    if isinstance(thing, CoreRange):
        return {"end": plain(thing.end), "start": plain(thing.start)}
    return [plain(r) for r in thing.ranges()]


def dumped(thing) -> str:
    """The library's JSON: keys in order, no spaces."""
    return json.dumps(plain(thing), separators=(",", ":"))


class CoreCoord(NamedTuple):
    """A logical core: x is the column, y the row."""

    x: int
    y: int

    def to_json(self) -> str:
        return dumped(self)

    @classmethod
    def from_json(cls, text: str) -> CoreCoord:
        return cls(**json.loads(text))

    def __repr__(self) -> str:
        return f"{self.x}-{self.y}"

    def __str__(self) -> str:
        return repr(self)


class CoreGrid(Value):
    """A full x by y grid of cores from (0, 0)."""

    FIELDS = __slots__ = ("x", "y")

    def __init__(self, *, x: int, y: int):
        self.x, self.y = x, y

    @property
    def num_cores(self) -> int:
        return self.x * self.y

    def __repr__(self) -> str:
        return f"ttnn.CoreGrid(x={self.x}, y={self.y})"


class CoreRange(Value):
    """The cores of a rectangle, both corners included."""

    FIELDS = __slots__ = ("start", "end")

    def __init__(self, start, end=None):
        if end is None:  # CoreRange(core): one core
            end = start
        self.start, self.end = CoreCoord(*start), CoreCoord(*end)
        if self.start.x > self.end.x or self.start.y > self.end.y:
            raise RuntimeError(f"Invalid core range for start_coord: {self.start}, end_coord: {self.end}")

    def grid_size(self) -> CoreCoord:
        return CoreCoord(self.end.x - self.start.x + 1, self.end.y - self.start.y + 1)

    @property
    def size(self) -> int:
        width, height = self.grid_size()
        return width * height

    def contains(self, core) -> bool:
        x, y = core
        return self.start.x <= x <= self.end.x and self.start.y <= y <= self.end.y

    def to_json(self) -> str:
        return dumped(self)

    @classmethod
    def from_json(cls, text: str) -> CoreRange:
        return cls(*(CoreCoord(**json.loads(text)[corner]) for corner in ("start", "end")))

    def __repr__(self) -> str:
        return f"[{self.start} - {self.end}]"


class CoreRangeSet(Value):
    """A set of core ranges."""

    FIELDS = __slots__ = ("_ranges",)

    def __init__(self, core_ranges=()):
        if isinstance(core_ranges, CoreRange):
            raise TypeError(
                "CoreRangeSet(): incompatible function arguments.\n"
                f"  got    {core_ranges!r}\n  want   a list or a set of ttnn.CoreRange"
            )
        self._ranges = tuple(core_ranges)

    def ranges(self) -> list[CoreRange]:
        return list(self._ranges)

    def num_cores(self) -> int:
        return sum(r.size for r in self._ranges)

    def bounding_box(self) -> CoreRange:
        return CoreRange(
            (min(r.start.x for r in self._ranges), min(r.start.y for r in self._ranges)),
            (max(r.end.x for r in self._ranges), max(r.end.y for r in self._ranges)),
        )

    def contains(self, core) -> bool:
        return any(r.contains(core) for r in self._ranges)

    def cores(self):
        """Every core, range by range, row by row."""
        for r in self._ranges:
            for y in range(r.start.y, r.end.y + 1):
                for x in range(r.start.x, r.end.x + 1):
                    yield CoreCoord(x, y)

    def merge(self, other: CoreRangeSet) -> CoreRangeSet:
        """The cores of both, in rectangles."""
        return _rectangles({*self.cores(), *other.cores()})

    def subtract(self, other: CoreRangeSet) -> CoreRangeSet:
        """The cores that are not in `other`, in rectangles."""
        return _rectangles({*self.cores()} - {*other.cores()})

    def empty(self) -> bool:
        return not self._ranges

    def size(self) -> int:
        return len(self._ranges)

    def to_json(self) -> str:
        return dumped(self)

    @classmethod
    def from_json(cls, text: str) -> CoreRangeSet:
        return cls([CoreRange.from_json(json.dumps(r)) for r in json.loads(text)])

    def __repr__(self) -> str:
        return "{" + ", ".join(map(repr, self._ranges)) + "}"


def _rectangles(cores) -> CoreRangeSet:
    """Cores as rectangles: runs of each row, runs that are alike in neighbouring rows put together.

    Differs   the library may cut the same set into other rectangles
    """
    open_runs: dict[tuple[int, int], int] = {}  # (first, last column) -> first row
    done: list[CoreRange] = []
    for y in range(max((c.y for c in cores), default=-1) + 2):
        runs: list[tuple[int, int]] = []
        for x in sorted(c.x for c in cores if c.y == y):
            if runs and runs[-1][1] == x - 1:
                runs[-1] = (runs[-1][0], x)
            else:
                runs.append((x, x))
        for run in [r for r in open_runs if r not in runs]:
            done.append(CoreRange((run[0], open_runs.pop(run)), (run[1], y - 1)))
        for run in runs:
            open_runs.setdefault(run, y)
    return CoreRangeSet(sorted(done, key=lambda r: (r.start.y, r.start.x)))


def grid_to_cores(start, end, size_y=None, row_wise: bool = False) -> list[CoreCoord]:
    """The cores from one corner to another, or (num_cores, size_x, size_y) the first of a grid; by columns."""
    if isinstance(start, int):
        return _walk((0, 0), (end - 1, size_y - 1), row_wise)[:start]
    return _walk(start, end, row_wise if size_y is None else size_y)


def corerange_to_cores(core_range_set: CoreRangeSet, max_cores: int | None = None, row_wise: bool = False) -> list:
    """The cores of a set, range by range, each by columns unless said."""
    return [c for r in core_range_set.ranges() for c in _walk(r.start, r.end, row_wise)][:max_cores]


def _walk(start, end, row_wise: bool) -> list[CoreCoord]:
    (x0, y0), (x1, y1) = start, end
    if row_wise:
        return [CoreCoord(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]
    return [CoreCoord(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]


def num_cores_to_corerangeset(num_cores: int, grid, row_wise: bool = False) -> CoreRangeSet:
    """The first `num_cores` cores of a grid: whole columns (or rows) first, then the rest of the next one.

    Source: ttnn 0.81.1, shard grids that ops choose themselves in the recorded contract.
    """
    gx, gy = grid
    if num_cores > gx * gy:
        raise RuntimeError(
            f"Target number of cores {num_cores} is greater than total number of available cores {gx * gy}"
        )
    ranges, line = [], gx if row_wise else gy
    full, rest = divmod(num_cores, line)
    if full:
        ranges.append(CoreRange((0, 0), (gx - 1, full - 1) if row_wise else (full - 1, gy - 1)))
    if rest:
        ranges.append(CoreRange((0, full), (rest - 1, full)) if row_wise else CoreRange((full, 0), (full, rest - 1)))
    return CoreRangeSet(ranges)


def num_cores_to_corerangeset_in_subcoregrids(
    start_core, target_num_cores: int, sub_core_grids: CoreRangeSet, row_wise: bool = False
) -> CoreRangeSet:
    """`target_num_cores` cores of a set from `start_core` on: range by range, each by columns unless said.

    Source: ttnn 0.81.1.
    """
    there = sub_core_grids.num_cores()
    if target_num_cores <= 0:
        raise DeviceRejects("Target number of cores must be greater than 0", f"not {target_num_cores}")
    if target_num_cores > there:
        raise DeviceRejects(f"Target number of cores {target_num_cores} is greater than total available cores {there}")
    if not sub_core_grids.contains(start_core):
        raise DeviceRejects("Start core must be inside sub_core_grids", f"{start_core} is not in {sub_core_grids}")
    left = target_num_cores
    found: list[CoreRange] = []
    for r in sub_core_grids.ranges():
        if not found and not r.contains(start_core):
            continue
        cores = _walk(r.start, r.end, row_wise)
        cores = cores[0 if found else cores.index(CoreCoord(*start_core)) :][:left]
        found += _lines(cores, row_wise)
        left -= len(cores)
    if left:
        raise DeviceRejects(
            f"Failed to assign all {target_num_cores} requested cores", f"{left} are before {start_core} in the set"
        )
    return CoreRangeSet(found)


def _lines(cores: list[CoreCoord], row_wise: bool) -> list[CoreRange]:
    """Cores of a walk as rows (or columns), those that are alike put together."""
    found: list[CoreRange] = []
    for _, line in groupby(cores, key=lambda core: core.y if row_wise else core.x):
        first, *rest = line
        last = rest[-1] if rest else first
        across = slice(0, 1) if row_wise else slice(1, 2)
        if found and (found[-1].start[across], found[-1].end[across]) == (first[across], last[across]):
            found[-1] = CoreRange(found[-1].start, last)
        else:
            found.append(CoreRange(first, last))
    return found
