"""What tests of the finder share."""

import pytest


@pytest.fixture
def nothing_is_passed_over(monkeypatch):
    """What a mechanism raises is a fault of its own."""
    from bringup.evaluation.layers.suspects import mechanisms  # needs ttnn, which the test has chosen by now

    monkeypatch.setattr(mechanisms, "DOES_NOT_APPLY", ())
