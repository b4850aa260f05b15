"""Things that are what they are made of: compared, and found again in dicts, by their fields."""

from __future__ import annotations

import operator
from typing import Any, ClassVar


class Value:
    """Equal where the `FIELDS` are; hashed once, by them."""

    __slots__ = ("_hash",)
    FIELDS: ClassVar[tuple[str, ...]]
    _of: ClassVar[Any]

    def __init_subclass__(cls):
        cls._of = operator.attrgetter(*cls.FIELDS)

    def __eq__(self, other) -> bool:
        return self is other or (isinstance(other, type(self)) and self._of(self) == self._of(other))

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = hash(self._of(self))
            return self._hash
