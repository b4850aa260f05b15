"""Every public op says which shapes and dtypes it takes, and where that was read."""

import re

import pytest

from ttnn_emulator.op import REGISTRY, described


def document(name: str) -> str:
    """The docstring of an op; one that is "As `ttnn.other`." has the other's."""
    doc = REGISTRY[name].__doc__ or ""
    other = re.match(r"As `(ttnn\.[\w.]+)`", doc)
    return document(other[1]) if other else doc


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_shapes_dtypes_and_source_are_stated(name):
    doc = document(name)
    first, _, fields = doc.partition("\n")
    assert first.strip(), f"{name} has no docstring"
    stated = re.findall(r"^    (Shapes|Dtypes|Source) +\S", fields, re.M)
    assert set(stated) == {"Shapes", "Dtypes", "Source"}, f"{name} states {stated or 'nothing'}:\n{doc}"


def test_a_generated_docstring_has_the_form_of_a_written_one():
    assert described("x.", Shapes="any", Source="here") == "x.\n\n    Shapes    any\n    Source    here"
