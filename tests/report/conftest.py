"""One open chip of the emulator per test."""

from tests.emulator.opened import device  # noqa: F401
