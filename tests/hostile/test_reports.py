"""Odd JSON given to `report` and `models`: bad input, or the page that it is; never markup of its own."""

import copy
import json

import pytest

from tests.report import sample

TEXTS = ["", "{", "[]", "1", "null", '"x"', "[" * 100_000, '{"a":' * 100_000, "\0", "{} {}", "NaN"]
CHECKS = {
    "empty": {},
    "another format": {"format": 2},
    "format alone": {"format": 1},
    "no items": sample.check() | {"items": []},
    "items of numbers": sample.check() | {"items": [1]},
    "items that are an object": sample.check() | {"items": {"a": 1}},
    "items that are text": sample.check() | {"items": "baseline"},
    "an item of nothing": sample.check() | {"items": [{}]},
    "an item without status": sample.check() | {"items": [{"name": "x"}]},
    **{f"{name} is {value!r}": sample.check() | {name: value}
       for name in ("layers", "modules", "memory", "ops", "texts", "accuracy", "consistency", "versions", "predicted")
       for value in (7, "x", [1], {"x": 1})},
    **{f"{name} is {value!r}": sample.check() | {name: value}
       for name in ("seconds", "verdict", "system", "started") for value in ([1], {"x": 1})},
}  # fmt: skip
RESULT = {
    "hf_id": "a/b", "system": "n150", "checkpoint": "c", "backend": "emulator", "numerics": "fast", "prompt_tokens": 5,
    "n": 4, "prefill": "one pass", "memory": {"dram": {"allocated": 1}}, "model_py": "m", "random_weights": False,
    "top1": 1.0, "top1_interval": [0.5, 1.0], "top5": 1.0, "top5_interval": [0.5, 1.0], "command": "python eval.py",
}  # fmt: skip
RESULTS = [
    *({k: v for k, v in RESULT.items() if k != gone} for gone in RESULT if gone != "model_py"),
    *(RESULT | {"top1": value} for value in (None, "x", 2.0, -1, 1e999, float("nan"))),
    *(RESULT | {"top1_interval": value} for value in (None, [], [1], [0, 1, 2], "ab", 7)),
    *(RESULT | {"memory": value} for value in (7, "x", [1], {"dram": 1})),
    *(RESULT | {"command": value} for value in (None, 7, ["x"])),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: ascii(t)[:20])
@pytest.mark.parametrize("command", ["report", "models"])
def test_texts(refused, tmp_path, command, text):
    (tmp_path / "check.json").write_text(text)
    message = refused(command, *(["--results"] * (command == "models")), tmp_path, "--out", tmp_path / "out")
    assert "check.json" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CHECKS)
def test_checks_are_refused_or_a_page(tmp_path, capsys, monkeypatch, name):
    from bringup import cli
    from bringup.report import plots

    monkeypatch.setattr(plots, "picture", lambda *args: "")  # they take a second each

    monkeypatch.delenv("BRINGUP_TRACEBACK", raising=False)
    (tmp_path / "check.json").write_text(json.dumps(CHECKS[name]))
    code = cli.main(["report", str(tmp_path)])
    err = capsys.readouterr().err
    page = tmp_path / "report.html"
    assert (code, page.exists()) in ((0, True), (2, False)), err
    assert (code == 2) == err.startswith("error: ")
    if "items" in name or name in ("empty", "another format", "format alone"):
        assert code == 2


@pytest.mark.parametrize("result", RESULTS, ids=range(len(RESULTS)))
def test_results(refused, tmp_path, result):
    (tmp_path / "r.json").write_text(json.dumps(result))
    assert "r.json" in refused("models", "--results", tmp_path, "--out", tmp_path / "MODELS.md")
    assert not (tmp_path / "MODELS.md").exists()


STRINGS = [
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "a|b\n| c",
    "```\nrm -rf",
    "\x1b[31m",
    "\u202e",
    "'\"&",
]


def spoiled(value, text):
    """The same data with every text in it replaced, but for words that mean something."""
    if isinstance(value, dict):
        return {k: v if k in ("status", "verdict", "system", "started") else spoiled(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [spoiled(v, text) for v in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_texts_inside_are_shown_and_not_run(tmp_path, monkeypatch, text):
    from bringup import cli
    from bringup.report import plots

    monkeypatch.setattr(plots, "picture", lambda *args: "")

    check = spoiled(copy.deepcopy(sample.check()), text) | {"format": 1}
    (tmp_path / "check.json").write_text(json.dumps(check))
    code = cli.main(["report", str(tmp_path)])
    if code == 0:
        page = (tmp_path / "report.html").read_text()
        assert "<script" not in page
        assert "alert(1)" not in page or "&lt;script&gt;" in page
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "r.json").write_text(json.dumps(RESULT | {"hf_id": text, "checkpoint": text, "command": text}))
    assert cli.main(["models", "--results", str(tmp_path / "r"), "--out", str(tmp_path / "MODELS.md")]) == 0
    table = (tmp_path / "MODELS.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert all(row.replace("\\|", "").count("|") == 12 for row in rows)
    assert sum(line.strip() == "```" or line.startswith("```bash") for line in table.splitlines()) == 2
    assert not set(table) & {"\x1b", "\u202e"}
