"""Each drawing as a wide and a narrow SVG that is well formed, keeps its text, and asks for nothing from outside."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from bringup.report import plots

BAD = '<b>$\\frac$ & "1"'  # neither markup nor mathematics
DRAWINGS = {
    "intervals": plots.intervals([(BAD, 0.9, [(BAD, 0.97, (0.91, 0.99), plots.BLUE)])], low=0.5),
    "strips": plots.strips([(BAD, [True, True, False, True])]),
    "lines": plots.lines(
        [(BAD, [1e-3, None, 0.0, 1e-1], plots.BLUE, "-"), ("other", [1e-2, 1e-2, float("nan"), 1e-2], plots.RED, "o")],
        "x", "y", mark=(2, BAD), ticks=([0, 3], [BAD, "end"]), bands=[(0, 1)],
    ),
    "stack": plots.stack(
        range(3), [(BAD, [1, 2, 1], plots.BLUE), ("other", [0, 1, 0], plots.RED)], "x", "y", (9, "limit"), [(0, BAD)]
    ),
    "scatter": plots.scatter(
        [(BAD, [(1, 2, BAD), (2, 1, "")], plots.BLUE, "o")], "x", "y", front=[(1, 2), (2, 1)], log=(True, False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_well_formed_in_both_widths_and_keeps_its_text(name):
    text = plots.picture(DRAWINGS[name], f"A picture of {BAD}", height=1.5)
    assert "http" not in text
    pictures = ElementTree.fromstring(f"<div>{text}</div>")
    assert [p.get("class") for p in pictures] == ["wide", "narrow"]
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    for picture in pictures:
        assert picture.get("aria-label") == f"A picture of {BAD}"
        assert any(BAD in "".join(t.itertext()) for t in picture.iter("text")), name


def test_the_same_picture_twice_is_the_same_text():
    draw = DRAWINGS["strips"]
    assert plots.picture(draw, "one") == plots.picture(draw, "one")


@pytest.mark.parametrize(
    ("hits", "hit", "missed"),
    [([], [], []), ([True, True, False], [(0, 2)], [(2, 1)]), ([False, True, False], [(1, 1)], [(0, 1), (2, 1)])],
)
def test_runs(hits, hit, missed):
    assert plots._runs(hits, True) == hit
    assert plots._runs(hits, False) == missed
