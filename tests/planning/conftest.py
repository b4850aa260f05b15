"""Planning runs on the emulator."""

from bringup import backends

backends.activate("emulator")
