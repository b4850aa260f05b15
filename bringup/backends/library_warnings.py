"""The warnings that the library gives while a model runs, so that commands can repeat them.

The emulator hands them over: a command that has no place for them tells them at its end, on standard error, where the
library would write them between its lines. The wheel writes them to its log, `time | warning  | category | text
(file:line)`, and flushes that when the process ends: on silicon and on the simulator they come on the screen.
"""

import atexit
import sys
from contextlib import ExitStack, contextmanager

_CATEGORIES = ("Op", "Metal")  # of calls; the rest is about devices and links
_held = ExitStack()


def hold():
    """From now on the emulator's warnings are kept, and told when the process ends."""
    from ttnn_emulator import warning

    atexit.register(_tell, _held.enter_context(warning.collected()))


def let_go():
    """From now on they are written as the library writes them."""
    _held.close()


def _tell(texts):
    for text in texts:
        print(f"warning from the library: {text}", file=sys.stderr)


@contextmanager
def collected():
    """Inside, the emulator's warnings go into the list that is yielded, each text once."""
    if getattr(sys.modules.get("ttnn"), "__name__", None) != "ttnn_emulator":
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
