"""The emulator as `ttnn`, and one open device or mesh per test."""

from tests.devices import device, mesh_device  # noqa: F401
