"""The pages in docs/: what they say is there is there, and their commands print what stands under them."""

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
MOST_BYTES = 200 << 10  # of a picture
#: What a machine decides of a command's output, and what stands for it in the comparison; all else is equal.
MACHINE = [
    (re.compile(pattern, re.M), instead)
    for pattern, instead in (
        # how long things took, and the memory of the process
        (r"^TTFT \d+ ms, [\d.]+ t/s/u (?=\(emulated)", "TTFT # ms, # t/s/u "),
        (r"^(\w+ +(?:pass|fail) +)[\d.]+ s", r"\1# s"),
        (r"(, |in )\d+ s$", r"\1# s"),
        (r"^Took [\d.]+ s to build, [\d.]+ s to run", "Took # s to build, # s to run"),
        (r"^(  (?:build|prefill|decode) .*) [\d.]+$", r"\1 #"),
        (r"peak [\d.]+ GiB resident", "peak # GiB resident"),
        # distances, whose last digits are the processor's order of sums: three decimals or more, and ratios of them
        (r"\b\d+\.\d{3,}\b|\b\d\.\d+e[+-]\d+", "#"),
        (r"[\d.]+(?= times HF's own| explained|x as far)", "#"),
        # what becomes of a model that fails, after its first fault: numbers, and words of a text
        (r"^     \S.*", lambda match: re.sub(r"\d[\d.,]*%?(?:(?:,? and)? ?\d[\d.,]*)*( more)?", "#", match[0])),
        (r"^     (device|HF): .*", r"     \1: #"),
        (r" {2,}", " "),  # columns are as wide as their numbers
    )
]


def lines(text):
    for pattern, instead in MACHINE:
        text = pattern.sub(instead, text)
    return text.splitlines()


@pytest.mark.parametrize("page", make.pages(), ids=lambda p: p.name)
def test_commands_print_what_stands_under_them(page, tmp_path):
    folder = make.clone(tmp_path)
    for command, kept in make.commands(page.read_text()):
        assert lines(make.output(command, folder)) == lines(kept), f"{command}: `make docs` writes what it prints now"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "baseline         pass       3.4 s  HF generates 48",
            "baseline         pass      13.4 s  HF generates 48",
            True,
        ),
        (
            "baseline         pass       3.4 s  HF generates 48",
            "baseline         fail       3.4 s  HF generates 48",
            False,
        ),
        ("relative L2 0.0101, PCC 0.999917", "relative L2 0.0099, PCC 0.999918", True),
        ("relative L2 0.0101, PCC 0.999917", "relative L1 0.0101, PCC 0.999917", False),
        ("speed      TTFT 2.2 ms, then 451 t/s/u", "speed      TTFT 2.2 ms, then 452 t/s/u", False),
        ("FAIL generation: no token is HF's", "FAIL generation: one token is HF's", False),
        ("     far off at 1, 2, 3 and 123 more tokens", "     far off at 2, 4 and 12 more tokens", True),
    ],
)
def test_only_what_a_machine_decides_may_differ(one, other, same):
    assert (lines(one) == lines(other)) is same


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
    assert len(pairs) == 6
    for file, lines in pairs:
        assert lines in (ROOT / file).read_text(), file
