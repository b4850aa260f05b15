"""The pytest plugin of `bringup pytest`: chooses the backend in each process of a run, before any test file is read."""

import os

from bringup import backends

backends.activate(system=os.environ.get("TTNN_EMULATOR_SYSTEM") or "n150")
