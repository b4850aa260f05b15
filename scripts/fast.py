"""The tests that a change can break, nearest first, in under a minute: `make fast`, for the inner loop.

python scripts/fast.py                 # the change against main, with what is not committed
python scripts/fast.py --base HEAD     # only what is not committed
python scripts/fast.py --list          # names the test files, and runs none

A test file counts where it imports a changed Python file over any number of steps, nearer ones first; a changed file
that nothing imports stands for the Python files that name it. After --seconds no further test begins: what is left is
said, and `make test` runs it.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_structure import imported, modules  # noqa: E402

FOLDERS = ("bringup", "ttnn_emulator", "tests", "docs", "scripts")
PROCESSES = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="main", metavar="REV", help="what the change is against (default: main)")
    parser.add_argument("--list", action="store_true", help="name the test files, and run none")
    parser.add_argument("--seconds", type=float, default=40, metavar="N", help="default: %(default)s")
    parser.add_argument("--share", nargs="+", help=argparse.SUPPRESS)  # of one process: its test files
    args = parser.parse_args()
    if args.share:
        return share(args.share, Deadline(args.seconds))
    changed = changes(args.base)
    tests = chosen(changed, {m: p for folder in FOLDERS for m, p in modules(folder).items()})
    print(f"{len(changed)} files changed against {args.base}; {len(tests)} test files see them", flush=True)
    if args.list or not tests:
        print("\n".join(tests))
        return 0
    command = [sys.executable, __file__, "--seconds", str(args.seconds), "--share"]
    shares = filter(None, (tests[i::PROCESSES] for i in range(PROCESSES)))
    running = [subprocess.Popen([*command, *share], cwd=ROOT) for share in shares]
    return max(process.wait() for process in running)


def share(tests, deadline):
    """Runs the test files of one process, one by one, so that the nearest need not wait until all are read."""
    code = 0
    for n, path in enumerate(tests):
        if deadline.over():
            print(f"out of time: {len(tests) - n} test files were not begun; `make test` runs them")
            break
        ended = int(pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", path], [deadline]))
        code = max(code, 0 if ended == pytest.ExitCode.NO_TESTS_COLLECTED else ended)
    return code


def changes(base):
    """The files that differ from `base`, or are new, relative to the root."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.split() if done.returncode == 0 else sys.exit(f"fast: {done.stderr.strip()} (--base REV)")

    (begin,) = git("merge-base", base, "HEAD")
    return sorted({*git("diff", "--name-only", begin), *git("ls-files", "--others", "--exclude-standard")})


def chosen(changed, known):
    """The test files that see a changed file, nearest first. `known`: module name -> path."""
    importers = {name: set() for name in known}
    for name, path in known.items():
        for target in imported(name, path, known, True):
            importers[target].add(name)
        if "import ttnn\n" in path.read_text() and "ttnn_emulator" in importers:
            importers["ttnn_emulator"].add(name)
    named = {str(path.relative_to(ROOT)): name for name, path in known.items()}
    front = {named[file] for file in changed if file in named}
    others = [Path(file).name for file in changed if not importers.get(named.get(file))]
    front |= {name for name, path in known.items() if any(other in path.read_text() for other in others)}
    found = {}
    while front:
        found |= dict.fromkeys(sorted(front))
        front = {importer for name in front for importer in importers[name]} - set(found)
    paths = (str(known[name].relative_to(ROOT)) for name in found)
    return [path for path in paths if path.startswith("tests/") and Path(path).name.startswith("test_")]


class Deadline:
    """Begins no test after `seconds`."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def over(self):
        return time.monotonic() > self.end

    def pytest_runtest_setup(self, item):
        if self.over():
            pytest.skip("no time left; `make test` runs it")


if __name__ == "__main__":
    sys.exit(main())
