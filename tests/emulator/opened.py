"""The emulator's one chip, open for a test."""

import pytest

import ttnn_emulator as ttnn


@pytest.fixture
def device():
    opened = ttnn.open_device(device_id=0)
    yield opened
    ttnn.close_device(opened)
