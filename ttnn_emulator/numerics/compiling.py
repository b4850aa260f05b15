"""Says so, once a process, when a kernel has to be compiled: otherwise a first run would pause without a word.

What numba compiles it keeps beside the source (or in its cache folder, where that cannot be written), by processor.
"""

import sys

from numba.core import event

PACKAGE = __name__.split(".")[0]


class _Notice(event.Listener):
    said = False

    def on_start(self, event):
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if not self.said and getattr(function, "__module__", "").startswith(PACKAGE):
            self.said = True
            print(
                f"{PACKAGE}: compiling kernels for this processor, some seconds each; they are kept for the next run",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def on_end(self, event):
        pass


notice = _Notice()
event.register("numba:compile", notice)
