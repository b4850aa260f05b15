"""Shapes, and how the last two dims are padded to tiles."""

from __future__ import annotations

TILE = 32


class Shape(tuple):
    """A tensor's shape: a tuple that also equals a list, as `ttnn.Shape` does."""

    __slots__ = ()

    def __new__(cls, dims=()):
        return super().__new__(cls, map(int, dims))

    @property
    def rank(self) -> int:
        return len(self)

    def to_rank(self, rank: int) -> Shape:
        """Leading ones added, or dropped, to reach `rank`."""
        if rank >= len(self):
            return Shape((1,) * (rank - len(self)) + self)
        if any(d != 1 for d in self[: len(self) - rank]):
            raise RuntimeError(f"Can't convert shape rank: {self} has no {len(self) - rank} leading ones")
        return Shape(self[len(self) - rank :])

    def volume(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def __eq__(self, other) -> bool:
        return tuple.__eq__(self, tuple(other)) if isinstance(other, (tuple, list)) else NotImplemented

    def __ne__(self, other) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        return f"Shape([{', '.join(map(str, self))}])"

    __str__ = __repr__


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def tile_padded(shape) -> Shape:
    """The last two dims rounded up to 32; a vector or a scalar takes one row (and column) of tiles."""
    dims = tuple(shape)
    if len(dims) < 2:
        dims = (1,) * (2 - len(dims)) + dims
    return Shape(dims[:-2] + (round_up(dims[-2], TILE), round_up(dims[-1], TILE)))


def at(shape, index: int) -> int:
    """shape[index], or the library's refusal where the rank is too small (it keeps four dims inside, hence the -4)."""
    if index < len(shape):
        return shape[index]
    from .errors import DeviceRejects

    raise DeviceRejects(
        f"ShapeBase[] index out of range. {index} not in [-4, {len(shape)})",
        f"a tensor of rank 4 is wanted, not {shape}",
    )
