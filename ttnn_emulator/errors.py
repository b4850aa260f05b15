"""The exceptions of the emulator, its notice of what is untested, and how a message is laid out."""

from __future__ import annotations

import warnings


class DeviceRejects(RuntimeError):
    """The device (or the library in front of it) refuses this call; the reason is in the library's own words."""

    def __init__(self, reason: str, hint: str | None = None):
        super().__init__(reason)
        self.reason, self.hint = reason, hint
        self.op: str | None = None
        self.operands: tuple[tuple[str, str], ...] = ()

    def locate(self, op: str, operands) -> None:
        """Says which op refused, and what it was given; the innermost op that speaks wins."""
        if self.op is None:
            self.op, self.operands = op, tuple(operands)

    def __str__(self) -> str:
        lines = [f"{self.op}: {self.reason}" if self.op else self.reason]
        lines += [f"  got    {name} {value}" for name, value in self.operands]
        if self.hint:
            lines.append(f"  hint   {self.hint}")
        return "\n".join(lines)


class NotEmulated(NotImplementedError, AttributeError):
    """The device would accept this and the emulator has no model of it.

    Also an AttributeError, so that `hasattr(ttnn, name)` answers instead of raising.
    """


class Unknown(NotEmulated):
    """What a device reads here follows from what else was in its memory. An op that takes such a tensor makes one."""

    def __init__(self, spec, why: str):
        super().__init__(f"{spec} has no contents: {why}")
        self.why = why


class Untested(UserWarning):
    """An answer by a rule that no recording of the library or the chip confirms; said once for each kind of answer."""


_said: set[str] = set()


def untested(what: str) -> None:
    """Warns, the first time, that `what` is answered untested."""
    if what not in _said:
        _said.add(what)
        warnings.warn(f"untested: {what}", Untested, stacklevel=3)


def check(condition: bool, reason: str, hint: str | None = None) -> None:
    """Raises DeviceRejects(reason) unless `condition` holds. For reasons that cost nothing to build."""
    if not condition:
        raise DeviceRejects(reason, hint)
