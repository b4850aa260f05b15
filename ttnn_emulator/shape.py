"""Shapes, and how the last two dims are padded to tiles."""

from __future__ import annotations

TILE = 32


class Shape(tuple):
    """A tensor's shape inside the emulator: a tuple that also equals a list."""

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


class PublicShape:
    """`ttnn.Shape`: integers that equal a tuple or list of them, but no tuple: no slices, no `+`, no size for torch.

    Source    ttnn 0.81.1
    """

    __slots__ = ("_dims",)

    def __init__(self, shape):
        dims = tuple(shape)
        if not all(isinstance(n, int) and n >= 0 for n in dims):
            raise TypeError(f"__init__(): incompatible function arguments.\n  got    shape = {list(dims)}")
        self._dims = dims

    def __getitem__(self, index: int) -> int:
        if isinstance(index, slice):
            raise TypeError(
                "__getitem__(): incompatible function arguments. The following argument types are supported:\n    1. "
                "__getitem__(self, arg: int, /) -> int\n  hint   a ttnn.Shape takes no slices: tuple(shape)[...]"
            )
        rank = len(self._dims)
        if not -max(rank, 4) <= index < rank:
            raise RuntimeError(f"ShapeBase[] index out of range. {index} not in [{-max(rank, 4)}, {rank})")
        return self._dims[index] if index >= -rank else 1  # shorter shapes are kept with leading ones

    def __iter__(self):
        return iter(self._dims)

    def __len__(self) -> int:
        return len(self._dims)

    @property
    def rank(self) -> int:
        return len(self._dims)

    def to_rank(self, rank: int) -> PublicShape:
        return PublicShape(Shape(self._dims).to_rank(rank))

    def __eq__(self, other) -> bool:
        return self._dims == tuple(other) if isinstance(other, (tuple, list, PublicShape)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._dims)

    def __repr__(self) -> str:
        return f"Shape([{', '.join(map(str, self._dims))}])"


PublicShape.__name__ = PublicShape.__qualname__ = "Shape"


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
