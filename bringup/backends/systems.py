"""The systems by name. What each is, its chips and its mesh, stands in `ttnn_emulator.chips`."""

from bringup.errors import BadInput

#: As `ttnn_emulator.chips.SYSTEMS` has them, here without loading torch: for the arguments of commands.
NAMES = ("n150", "n300", "t3000", "t3000_1x8")


def __getattr__(name):
    if name not in ("SYSTEMS", "System"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ttnn_emulator import chips

    return getattr(chips, name)


def get(name):
    """The system of that name; a `System` is returned as it is."""
    from ttnn_emulator.chips import SYSTEMS, System

    if isinstance(name, System):
        return name
    if name not in SYSTEMS:
        raise BadInput("unknown system", got=repr(name), want="one of " + ", ".join(SYSTEMS))
    return SYSTEMS[name]
