"""The pytest plugin of `bringup pytest`: chooses the backend in each process of a run, before any test file is read."""

import os
import sys
from pathlib import Path

from bringup import backends
from bringup.backends import library_warnings
from bringup.checkpoints import old_names
from bringup.programs.run import leave_the_clone

backends.activate(system=os.environ.get("TTNN_EMULATOR_SYSTEM") or "n150")
library_warnings.let_go()
sys.meta_path.insert(0, old_names.Finder(lambda path, names: None))
leave_the_clone(Path.cwd())
