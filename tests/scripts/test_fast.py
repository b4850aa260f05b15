"""Which tests a change can break, on a made-up tree and on this one."""

from pathlib import Path

from bringup.backends import model_files
from tests.test_structure import ROOT, modules

fast = model_files.import_file(Path(ROOT) / "scripts" / "fast.py")
KNOWN = {m: p for folder in fast.FOLDERS for m, p in modules(folder).items()}


def test_the_nearest_tests_come_first_and_others_not_at_all(tmp_path, monkeypatch):
    files = {
        "bringup/low.py": "", "bringup/high.py": "from bringup import low", "bringup/other.py": "PAGE = 'page.j2'",
        "tests/test_high.py": "import bringup.high", "tests/test_low.py": "from bringup.low import x",
        "tests/test_other.py": "from bringup import other", "tests/helper.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(fast, "ROOT", tmp_path)
    known = {name.removesuffix(".py").replace("/", "."): tmp_path / name for name in files}
    assert fast.chosen(["bringup/low.py"], known) == ["tests/test_low.py", "tests/test_high.py"]
    assert fast.chosen(["bringup/page.j2"], known) == ["tests/test_other.py"]
    assert fast.chosen(["tests/test_low.py"], known) == ["tests/test_low.py"]
    assert fast.chosen(["LICENSE"], known) == []


def test_here():
    assert fast.chosen(["bringup/evaluation/metrics.py"], KNOWN)[0] == "tests/evaluation/test_metrics.py"
    assert "tests/report/test_html.py" in fast.chosen(["bringup/report/check.html.j2"], KNOWN)[:3]
    assert len(fast.chosen(["ttnn_emulator/tensor.py"], KNOWN)) > 40
