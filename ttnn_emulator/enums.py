"""What all enums of the library are like."""

import enum


class Named(enum.Enum):
    """Printed `Class.NAME`; hashed by identity, because enum.Enum hashes the name in Python code on every look-up."""

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    __repr__ = __str__
    __hash__ = object.__hash__
