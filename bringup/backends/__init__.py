"""Which `ttnn` a process gets, and what is done with it: model files, the wheel without a board, call by call checks.

from bringup import backends
print(backends.activate())              # ttnn: emulator (no /dev/tenstorrent; ttnn_emulator 0.2.0, fast numerics)
with backends.open_system("n150") as device:
    ...
"""

from bringup.backends.choice import NAMES, Activation, activate, add_arguments, choose, memory, open_system

__all__ = ["NAMES", "Activation", "activate", "add_arguments", "choose", "memory", "open_system"]
