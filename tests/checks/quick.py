"""Which of many planted faults are run by default."""

import pytest


def quick_first(cases, quick):
    """The cases as parameters, those whose names are not in `quick` marked slow."""
    return [pytest.param(case, id=case.name, marks=() if case.name in quick else pytest.mark.slow) for case in cases]
