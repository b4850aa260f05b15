"""The output and the pictures in docs/, from the commands in its pages: `make docs`.

A page's `console` blocks hold commands, each a line that begins with `$ `, and under each what it prints. A page's
commands run in their order in a folder like a new clone, and what they print is put under them. Pictures are of the
reports that they write.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
#: Left out: what is printed while one waits, if one waits; and the warnings of the library's log, with their times.
LEFT_OUT = re.compile(
    r"^(loading PyTorch|comparing with|ttnn_emulator: compiling|warning from the library|.*, about .* left$"
    r"|\d{4}-\d\d-\d\d .* \| warning ).*\n",
    re.M,
)
#: picture -> (page whose commands write the report, report, where in it, height)
PICTURES = {
    "report.png": ("have-a-model.md", "reports/my-llama-n150/report.html", "", 990),
    "layers.png": ("have-a-model-py.md", "reports/Llama-3.2-1B-n150/report.html", "layers", 565),
    "failed.png": ("have-a-failure.md", "reports/tiny-llama-n150/report.html", "", 700),
    "failed-layers.png": ("have-a-failure.md", "reports/tiny-llama-n150/report.html", "layers", 610),
}
WIDTH = 900


def pages():
    return sorted(p for p in DOCS.glob("*.md") if BLOCK.search(p.read_text(encoding="utf-8")))


def commands(text):
    """[(command, what stands under it)] of a page."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def clone(folder):
    """A folder like a new clone, for commands that write beside the files that are there."""
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("checkpoints", "prompts"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("eval.py", "demo.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "bin").mkdir()
    for name, words in (("bringup", "-m bringup.cli"), ("python", "")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    return folder


def output(command, folder):
    """What a command prints, stdout and stderr as they come."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BRINGUP_", "TTNN_", "TT_"))} | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120", "BRINGUP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {{ {command}\n}} 2>&1"],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).replace(str(folder), ".")
    return "".join(line.rstrip() + "\n" for line in LEFT_OUT.sub("", text).splitlines())


def rewritten(text, answers):
    """The page with each command's answer under it."""
    answers = iter(answers)

    def block(match):
        words = [c for c, _ in commands(match.group(0))]
        return "```console\n" + "".join(f"$ {c}\n{next(answers)}" for c in words) + "```"

    return BLOCK.sub(block, text)


def photograph(report, place, height, to):
    """A picture of a report from `place` (an id in it) on, by headless Chromium, in 64 colours."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        text = report.read_text(encoding="utf-8")
        if place:  # the section alone
            section = re.search(rf'<section id="{place}">.*?</section>', text, re.S)[0]
            text = re.sub(r"<main>.*</main>", lambda _: f"<main>{section}</main>", text, flags=re.S)
        page.write_text(text, encoding="utf-8")
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            sys.exit("make docs: no Chromium for the pictures (Debian: apt-get install chromium)")
        words = [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{height}"]
        subprocess.run([*words, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(64).save(to, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="default: all")
    parser.add_argument("--no-pictures", action="store_true")
    args = parser.parse_args()
    (DOCS / "pictures").mkdir(exist_ok=True)
    for page in pages():
        if args.pages and page.name not in args.pages:
            continue
        with tempfile.TemporaryDirectory(prefix="docs-") as folder:
            folder, text, answers = clone(Path(folder)), page.read_text(encoding="utf-8"), []
            for command, _ in commands(text):
                print(f"{page.name}: {command}", flush=True)
                answers.append(output(command, folder))
            page.write_text(rewritten(text, answers), encoding="utf-8")
            for name, (of, report, place, height) in PICTURES.items():
                if of == page.name and not args.no_pictures:
                    photograph(folder / report, place, height, DOCS / "pictures" / name)


if __name__ == "__main__":
    main()
