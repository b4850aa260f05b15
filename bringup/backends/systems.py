"""The systems by name. What each is, its chips and its mesh, stands in `ttnn_emulator.chips`."""

from bringup.errors import BadInput

#: As `ttnn_emulator.chips.SYSTEMS` has them, here without loading torch: for the arguments of commands.
NAMES = (
    "n150", "n300", "t3000", "t3000_1x8", "p100", "p150", "p300", "p300x2", "p300x2_2x2", "p150x4", "p150x8",
)  # fmt: skip


def __getattr__(name):
    if name not in ("SYSTEMS", "System"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_chips(), name)


def _chips():
    try:
        from ttnn_emulator import chips
    except ValueError as error:  # a variable of the environment has a value that the emulator does not know
        raise BadInput(f"the emulator does not start: {error}") from None
    return chips


def get(name):
    """The system of that name; a `System` is returned as it is."""
    chips = _chips()
    if isinstance(name, chips.System):
        return name
    if name not in chips.SYSTEMS:
        raise BadInput("unknown system", got=repr(name), want="one of " + ", ".join(chips.SYSTEMS))
    return chips.SYSTEMS[name]


def alike(system):
    """The names of the systems of the same chips on which the library was recorded, one of each number of chips."""
    found: dict[int, str] = {}
    for other in _chips().SYSTEMS.values():
        if other.recorded and other.chip.family == get(system).chip.family:
            found.setdefault(other.chips, other.name)
    return list(found.values())


def machines():
    """One system of every machine, in the mesh that it is usually opened in, the least memory first."""
    found: dict = {}
    for system in _chips().SYSTEMS.values():
        found.setdefault(system.cluster, system)
    return sorted(found.values(), key=lambda s: s.chips * s.chip.dram_bytes)
