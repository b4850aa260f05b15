"""The warnings that the library gives while a model runs, so that commands can repeat them.

The emulator hands them over. The wheel writes them to its log, `time | warning  | category | text (file:line)`, and
flushes that when the process ends: on silicon and on the simulator they come on the screen by themselves.
"""

from contextlib import contextmanager

_CATEGORIES = ("Op", "Metal")  # of calls; the rest is about devices and links


@contextmanager
def collected():
    """Inside, the emulator's warnings go into the list that is yielded, each text once."""
    from bringup.backends import choice

    if choice.ACTIVE is None or choice.ACTIVE.name != "emulator":
        yield []
        return
    from ttnn_emulator import warning

    with warning.collected() as found:
        yield found


def read(lines):
    """The texts of the warnings in a log of the wheel, each once."""
    found: dict[str, None] = {}
    for line in lines:
        level, _, rest = line.partition(" | ")[2].partition(" | ")
        category, _, text = rest.partition(" | ")
        if level.strip() == "warning" and category.strip() in _CATEGORIES:
            found[text.strip().rpartition(" (")[0]] = None
    return list(found)
