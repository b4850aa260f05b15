"""The pages in docs/: what they say is there is there, and their commands print what stands under them."""

import difflib
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bringup import backends, cli
from bringup.backends import model_files

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
make = model_files.import_file(DOCS / "make.py")
API = (DOCS / "api.md").read_text()
QUOTED = re.compile(r"^# (\S+\.py)\n", re.M)
ALIKE = (
    0.8  # of the lines: a fault's consequences, and what is warned of, move with the numerics; a page stays readable
)
MOST_BYTES = 200 << 10  # of a picture


def labels(text):
    """How lines begin, up to a colon or a column: the same whatever the figures and the model's words."""
    found = (re.match(r"\W*([\w./-]+(?: [\w./-]+){0,2})(?=:|\s{2,}|\s*│)", line) for line in text.splitlines())
    return [re.sub(r"\d[\d,.]*(e[+-]?\d+)?", "#", match[1]) for match in found if match]


@pytest.mark.parametrize("page", make.pages(), ids=lambda p: p.name)
def test_commands_print_what_stands_under_them(page, tmp_path):
    folder = make.clone(tmp_path)
    for command, kept in make.commands(page.read_text()):
        found, stands = labels(make.output(command, folder)), labels(kept)
        alike = difflib.SequenceMatcher(None, found, stands, autojunk=False).ratio()
        assert alike >= ALIKE, f"{command}: `make docs`; now {found}, there {stands}"


def test_every_bringup_command_in_the_docs_exists():
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        for name in re.findall(r"(?:^|`|\$ )bringup ([a-z][a-z-]+)\b", page.read_text(), re.M):
            assert name in cli.COMMANDS, f"{page.name}: bringup {name}"


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_pictures_are_small_and_none_is_left_over():
    pictures = {p.name: p.stat().st_size for p in (DOCS / "pictures").iterdir()}
    assert set(pictures) == set(make.PICTURES)
    assert max(pictures.values()) <= MOST_BYTES


def test_the_public_names_are_there_and_named():
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", API, re.M)
    named = {module: set(re.findall(r"`(\w+)`", text)) - {"ttnn"} for module, text in rows}
    backends.activate("emulator")
    assert set(named) == {"bringup.backends", "bringup.blocks", "bringup.evaluation.pcc", "ttnn_emulator"}
    for module, names in named.items():
        found = importlib.import_module(module)
        assert all(hasattr(found, name) for name in names), module
        if module in ("bringup.blocks", "bringup.backends"):
            assert names == set(found.__all__), module


@pytest.mark.parametrize("page", ["api.md", "how-to.md"])
def test_examples_run(page):
    """One after the other in a process of their own: they choose a backend, and add what must not stay."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)
    code = "\n".join(block for block in blocks if not QUOTED.match(block))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_how_to_quotes_stands_there():
    quoted = re.findall(r"^```python\n(# .*?)^```$", (DOCS / "how-to.md").read_text(), re.M | re.S)
    pairs = [pair for block in quoted for pair in re.findall(QUOTED.pattern + r"((?:(?!# ).*\n)+)", block, re.M)]
    assert len(pairs) == 5
    for file, lines in pairs:
        assert lines in (ROOT / file).read_text(), file
