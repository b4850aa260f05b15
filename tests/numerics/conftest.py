import pytest

from ttnn_emulator import chips


@pytest.fixture(autouse=True)
def machine():
    """A Wormhole, whatever the tests before have left; a test of another chip says so."""
    chips.use("n150")
