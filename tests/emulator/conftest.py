import pytest

from tests.emulator.opened import device  # noqa: F401
from ttnn_emulator import chips


@pytest.fixture(autouse=True)
def machine():
    """Eight chips, so that every mesh that a test opens is there."""
    chips.use("t3000")
