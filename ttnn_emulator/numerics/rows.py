"""Slices that repeat: of the 32 rows of a decode step one is the token, and all the others are the same padding.

`Repeated` holds a tensor by its different slices. An op that treats slices one by one says along which dims
(`launch(..., rows=...)`): then each different slice is computed once, and the result is `Repeated` in turn. Everything
else sees whole tensors.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch

from ..blockfloat import empty_like

#: Rows of a tile. Tensors with fewer of them are not searched for repetitions, nor those with more (prompts).
FEW, MANY = 8, 32


class Repeated:
    """A tensor whose slice i along `dim` (negative, not the last one) is slice `index[i]` of `kept`.

    `index` numbers the slices of `kept` in the order in which they first come, so that equal patterns are equal tuples.
    """

    __slots__ = ("kept", "index", "dim", "shape")

    def __init__(self, kept: torch.Tensor, index: tuple[int, ...], dim: int):
        assert kept.shape[dim] == 1 + max(index), (kept.shape, index, dim)
        self.kept, self.index, self.dim = kept, index, dim
        shape = list(kept.shape)
        shape[dim] = len(index)
        self.shape = tuple(shape)

    def whole(self, dtype=None) -> torch.Tensor:
        """The tensor with all its slices, in memory of its own."""
        kept = self.kept if dtype is None else self.kept.to(dtype)
        places = _places(self.index, kept.device)
        if kept.device.type != "cpu" or kept.requires_grad:
            return kept.index_select(self.dim, places)
        out = empty_like(kept.new_empty(()).expand(self.shape), kept.dtype)
        return torch.index_select(kept, self.dim, places, out=out)

    def reshape(self, shape):
        """Another shape: again by slices where the dim stays, else whole."""
        now, shape = self.shape, tuple(shape)
        before, behind = math.prod(now[: self.dim]), math.prod(now[self.dim + 1 :])
        for d in range(-len(shape), -1):
            if shape[d] == len(self.index) and math.prod(shape[d + 1 :]) == behind and before == math.prod(shape[:d]):
                kept = (*shape[:d], self.kept.shape[self.dim], *shape[d + 1 :])
                return Repeated(self.kept.reshape(kept), self.index, d)
        return self.whole().reshape(shape)

    def slices(self, which: list[int]) -> torch.Tensor:
        """Some of the slices along `dim`."""
        places = [self.index[i] for i in which]
        if len(places) == 1:
            return self.kept.narrow(self.dim, places[0], 1)
        return self.kept.index_select(self.dim, torch.tensor(places, device=self.kept.device))


@functools.lru_cache(256)
def _places(index: tuple[int, ...], device) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.tensor(index, device=device)


def whole(value):
    return value.whole() if type(value) is Repeated else value


def all_whole(values) -> list:
    """The values of the chips as whole tensors; what chips share they go on sharing."""
    if not any(type(v) is Repeated for v in values):
        return values
    alike = {id(v): whole(v) for v in values}
    return [alike[id(v)] for v in values]


def numbered(labels) -> tuple[tuple[int, ...], list[int]]:
    """Labels as numbers in order of first appearance, and where each first appears."""
    numbers, first = {}, []
    for i, label in enumerate(labels):
        if label not in numbers:
            numbers[label] = len(first)
            first.append(i)
    return tuple(numbers[label] for label in labels), first


class Slices(NamedTuple):
    """How an op treats slices one by one.

    dims      per operand the (negative) dim of its slices; None where all slices see the whole operand
    out       the dim of the results' slices
    search    whether an operand that is whole is searched for repeated rows: where the op costs more than that
    """

    dims: tuple | None
    out: int | None
    search: bool = False


#: An element-wise op: slices of any dim; operands of size 1 there are seen by all.
EACH = Slices(None, None)
#: An op whose compute takes `Repeated` operands itself.
HELD = Slices((), None)


def _once(values, rows: Slices, seen: dict):
    """(operands with every different slice once, index, dim of the results), or None where nothing repeats or the
    operands' slices do not go together. `seen` keeps what searches found."""
    found = next((v for v in values if type(v) is Repeated), None)
    if found is None and not rows.search:
        return None
    dims = rows.dims or (found.dim,) * len(values)
    parts, sliced, size = [], [], None
    for v, d in zip(values, dims):
        if d is None or v is None or (type(v) is not Repeated and (v.dim() < -d or v.shape[d] == 1)):
            parts.append(whole(v))
            continue
        if type(v) is not Repeated and rows.search:
            if id(v) not in seen:  # chips share it
                seen[id(v)] = v, repeated(v)
            v = seen[id(v)][1]
        if type(v) is not Repeated or v.dim != d or size not in (None, len(v.index)):
            return None
        size = len(v.index)
        parts.append(v)
        sliced.append(v.index)
    if not sliced:
        return None
    index, out = sliced[0], rows.out or dims[0]
    if all(i == index for i in sliced):
        return [p.kept if type(p) is Repeated else p for p in parts], index, out
    index, first = numbered(list(zip(*sliced)))
    if 2 * len(first) > size:
        return None
    return [p.slices(first) if type(p) is Repeated else p for p in parts], index, out


def slice_wise(compute, rows: Slices):
    """The compute of one chip, each different slice computed once."""

    seen = {}

    def run(*values):
        found = _once(values, rows, seen)
        if found is None:
            return compute(*map(whole, values))
        kept, *how = found
        out = compute(*kept)
        return tuple(Repeated(o, *how) for o in out) if isinstance(out, tuple) else Repeated(out, *how)

    return run


def slice_wise_over_chips(compute, rows: Slices):
    """The same for a compute that takes, for every operand, a list with the values of several chips."""

    def run(*lists):
        seen = {}
        found = [_once(values, rows, seen) for values in zip(*lists)]
        if None in found or any(f[1:] != found[0][1:] for f in found):
            return compute(*map(all_whole, lists))
        out = compute(*(list(values) for values in zip(*(kept for kept, *_ in found))))
        if out is None:
            return None
        alike = {id(o): Repeated(o, *found[0][1:]) for o in out}
        return [alike[id(o)] for o in out]

    return run


#: Elements of a chip up to which chips go together in an element-wise op: more cost what they cost.
SMALL = 1 << 15


def stacked(compute):
    """An element-wise compute for several chips whose operands all have one shape and are small: None for others."""

    def run(*lists):
        shape = lists[0][0].shape
        if (
            len(shape) < 2
            or shape.numel() > SMALL
            or any(v is None or v.shape != shape for each in lists for v in each)
        ):
            return None
        return list(compute(*map(torch.cat, lists)).split(shape[0]))

    return run


def repeated(x: torch.Tensor) -> Repeated | None:
    """The tensor by its different rows, where it has about as many rows as a tile and most are as the last one."""
    rows, width = x.shape[-2:]
    if not FEW <= rows <= MANY or x.numel() != rows * width:
        return None
    flat = x.reshape(rows, width)
    if int((flat[:, 0] != flat[-1, 0]).sum()) > rows // 2:
        return None
    if x.dtype == torch.bfloat16 and width % 4 == 0:
        flat = flat.contiguous().view(torch.int64)
    other = (flat != flat[-1]).any(-1).tolist()
    index, first = numbered([i if differs else -1 for i, differs in enumerate(other)])
    return None if 2 * len(first) > rows else Repeated(x[..., first, :], index, -2)
