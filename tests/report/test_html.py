"""The page of a check: whole, without links to the outside, escaped, and honest about what is missing."""

import json
import re
from html.parser import HTMLParser

import pytest

from bringup.cli import main
from bringup.report import figures, html, sections

from . import sample

SECTIONS = ["checklist", "accuracy", "layers", "modules", "consistency", "memory", "ops", "texts", "how"]
VOID = {"meta", "wbr", "br", "use", "path", "img"}


class Page(HTMLParser):
    """Elements, ids and the text of a page; asserts that elements close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.ids, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def passed():
    return html.render(sample.check())


@pytest.fixture(scope="module")
def failed():
    return html.render(sample.check(passed=False))


@pytest.fixture(scope="module")
def sparse():
    return html.render(sample.sparse())


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their pictures, which take most of the time."""
    monkeypatch.setattr(html, "_picture", lambda draw, label, *heights: f"[{label}]")


@pytest.mark.parametrize("which", ["passed", "failed", "sparse"])
def test_a_page_is_whole_and_needs_nothing_else(which, request):
    text = request.getfixturevalue(which)
    page = Page(text)
    assert [i for i in page.ids if i in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids)), "an id is there twice"
    assert "http" not in text
    assert "@import" not in text
    assert "script" not in {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data"} & set(attributes), tag
    targets = re.findall(r"url\(([^)]*)\)", text) + [a["href"] for _, a in page.elements if "href" in a]
    assert {target[0] for target in targets} <= {"#"}
    assert {target[1:] for target in targets} <= set(page.ids)
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    assert "None" not in page.text


def test_a_passing_page_says_so_first(passed):
    text = Page(passed).text
    assert text.index("Passed") < text.index("Checklist")
    assert "9 passed, 1 skipped, 1 warning" in text
    assert "Warning. weights read by a decode step: bfloat16" in text
    assert "Nothing here was measured on a board" in text
    assert "Nowhere does the device's error grow" in text
    assert "Predicted, not measured: 38.2 tokens per second per user" in text
    assert "<mark" not in passed


def test_a_failing_page_names_what_failed_first_and_where(failed):
    top = Page(failed[: failed.index('<section id="checklist">')] + "</main></body></html>").text
    assert "Failed" in top
    assert "First failure: Decode modules" in top
    assert "layer 1, self_attn.k_rope" in top
    assert failed.count("<details open>") == 2  # the evidence of the first failure, and the points
    assert failed.count("<mark") == 8  # four tokens on each side
    assert failed.count('class="first"') == 2
    assert "first divergence" in failed


def test_every_figure_of_the_accuracy_is_there(passed):
    check = sample.check()
    text = Page(passed).text
    for run in (check["accuracy"], check["accuracy"]["bf16"], check["accuracy"]["given_text"]):
        assert f"{100 * run['top1']:.1f} %" in text
        assert f"{100 * run['top1_interval'][0]:.1f} to {100 * run['top1_interval'][1]:.1f} %" in text
        assert f"{run['perplexity_device']:.4f}" in text


def test_pictures_come_wide_and_narrow_and_in_the_colours_of_the_page(passed):
    assert passed.count('<svg class="wide"') == passed.count('<svg class="narrow"') == 7
    assert "var(--ink)" in passed
    for stand_in in ("#010203", "#040506", "#070809"):
        assert stand_in not in passed


def test_a_question_that_was_not_asked_is_neither_passed_nor_failed(undrawn):
    check = sample.check()
    check["consistency"][0] |= {"ok": None, "detail": "the cache is too short"}
    for row in check["modules"]:  # as on the mock cluster
        row |= {"ok": None, "pcc": None, "rel_l2": None}
    page = html.render(check)
    assert Page(page).text.count("not asked") == 1 + len(check["modules"])
    assert '<tr class="fail">' not in page


def test_what_is_no_number_comes_first_and_is_drawn_as_a_gap(undrawn):
    check = sample.check()
    check["layers"]["points"][20]["own"] |= {"rel_l2": None, "ok": False}
    check["layers"]["points"][20] |= {"rel_l2": None, "pcc": None, "max_error": None, "bias": None, "ratio": None}
    assert sections.worst(check["layers"])[0] is check["layers"]["points"][20]
    assert '<tr class="fail">' in html.render(check)


def test_a_correlation_below_one_does_not_read_as_one():
    assert figures.pcc(0.9999997) == "0.999999"
    assert figures.pcc(1.0) == "1"
    assert figures.pcc(float("nan")) == figures.NONE


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (4.5678e-5, "4.57e-5"), (123.4, "123"), (94519.0, "94,519"), (3e9, "3.00e9")],
)
def test_figures_have_three_digits_or_their_integer_part(value, text):
    assert figures.small(value) == text


def test_calls_that_do_not_touch_the_device_leave_no_gap_in_the_memory():
    check = sample.check()
    check["memory"]["timeline"][5] |= {"dram": 0, "l1": 0}
    steps = sections._peaks(check["memory"]["timeline"], "dram", 1000)
    assert [s["call"] for s in steps] == [i for i in range(360) if i != 5]
    coarse = sections._peaks(check["memory"]["timeline"], "dram", 40)
    assert len(coarse) <= 42
    assert max(s["dram"] for s in coarse) == max(s["dram"] for s in steps)


def test_what_was_not_measured_is_said(sparse):
    text = Page(sparse).text
    assert "the mock cluster holds no values" in text
    assert text.count("Not measured in this check.") == 4
    for words in ("No time was predicted.", "No ops were recorded.", "No text was generated in this check."):
        assert words in text


PARTS = ["accuracy", "layers", "modules", "consistency", "memory", "ops", "predicted", "texts", "items", "versions"]


@pytest.mark.parametrize("gone", PARTS)
def test_any_part_may_be_missing(gone, undrawn):
    check = sample.check()
    Page(html.render(check | {gone: None}))
    del check[gone]
    Page(html.render(check))


def test_parts_of_the_accuracy_may_be_missing(undrawn):
    check = sample.check()
    check["accuracy"] |= {"bf16": None, "given_text": None}
    assert "the cost of the format is not known" in html.render(check)
    del check["accuracy"]["positions"]
    assert "No record by position" in html.render(check)


def test_hostile_text_is_only_text(undrawn):
    bad = "<script>alert('x')</script><img src=x onerror=alert(1)>&\"'"

    def poison(value):
        if isinstance(value, str):
            return bad
        if isinstance(value, list):
            return [poison(v) for v in value]
        if isinstance(value, dict):
            return {bad + k if "python" in value else k: poison(v) for k, v in value.items()}
        return value

    check = sample.check(passed=False)
    kept = {"started": check["started"], "layers": check["layers"]}
    page = html.render({k: poison(v) for k, v in check.items()} | kept)
    names = {tag for tag, _ in Page(page).elements}
    assert not {"script", "img"} & names
    assert not any("onerror" in attributes for _, attributes in Page(page).elements)


def test_the_names_of_layers_are_escaped_in_pictures_too():
    check = sample.check(passed=False)
    first = check["layers"]["first_divergence"]
    check["layers"]["points"] = check["layers"]["points"][:16]
    check |= {"accuracy": None, "memory": None}
    for point in check["layers"]["points"]:
        if (point["layer"], point["point"]) == (first["layer"], first["point"]):
            point["point"] = "<script>$x$</script>"
    first["point"] = "<script>$x$</script>"
    assert "script" not in {tag for tag, _ in Page(html.render(check)).elements}


def test_the_command_renders_a_recorded_check(tmp_path, capsys, undrawn):
    (tmp_path / "check.json").write_text(json.dumps(sample.check()))
    assert main(["report", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert Page((tmp_path / "report.html").read_text()).text
    assert main(["report", str(tmp_path / "check.json"), "--out", str(tmp_path / "deep" / "x.html")]) == 0
    assert (tmp_path / "deep" / "x.html").is_file()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"verdict": "pass"}'])
def test_what_is_no_check_is_refused(tmp_path, capsys, content):
    (tmp_path / "check.json").write_text(content)
    assert main(["report", str(tmp_path / "check.json")]) == 2
    assert "check.json" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path / "gone.json")]) == 2
    assert "cannot read" in capsys.readouterr().err
