"""Fixtures: open devices, of one chip and of every system."""

import pytest

from bringup import backends

backends.activate("emulator")

from tests.blocks.common import SYSTEMS  # noqa: E402  (needs ttnn)


@pytest.fixture(params=list(SYSTEMS))
def mesh_device(request):
    """An open device of every system in turn."""
    with backends.open_system(request.param) as device:
        yield device


@pytest.fixture
def device():
    """One chip."""
    with backends.open_system("n150") as device:
        yield device
