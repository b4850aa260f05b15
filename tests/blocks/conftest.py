"""The emulator as `ttnn`, one open device or mesh per test, and a small Llama on one chip per module."""

from tests.devices import device, mesh_device  # noqa: F401  (makes the emulator `ttnn`, which the next needs)

# isort: split
from tests.blocks.small_llama import hf, model  # noqa: F401
