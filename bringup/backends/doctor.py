"""What this machine has for each backend, and how to mend what is missing.

bringup doctor
bringup doctor --backend silicon --system t3000 --json

Looks only: no device is opened, nothing is installed or written. Exit code 0: the backend in question has all it needs;
1: something is missing.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

from bringup import backends
from bringup.backends import host, mock, systems
from bringup.errors import BringupError

HELP = "what this machine has for each backend, and how to mend what is missing"
CACHE_GIB, HUB_GIB = 2, 20  # references and runtime roots; a 7B checkpoint in bfloat16 and room beside it
HUB_SECONDS = 3


@dataclass(frozen=True)
class Check:
    """One line. `state`: ok, missing (the backend needs it), absent (it does not)."""

    name: str
    state: str
    found: str
    mend: str | None = None


def add_arguments(parser):
    parser.add_argument("--backend", choices=backends.NAMES, help="the backend in question (default: as elsewhere)")
    parser.add_argument("--system", choices=systems.NAMES, help="the system that is wanted (default: any)")
    parser.add_argument("--offline", action="store_true", help="do not try to reach the hub")
    parser.add_argument("--json", action="store_true", help="print one JSON line instead")


def run(args):
    backend, reason = backends.choose(args.backend)
    checks = examine(backend, reason, args.system and systems.get(args.system), args.offline)
    missing = [c.name for c in checks if c.state == "missing"]
    if args.json:
        print(json.dumps({"backend": backend, "ready": not missing, "checks": [asdict(c) for c in checks]}))
    else:
        print("\n".join(table(checks)))
        print(f"{backend}: " + (f"missing {', '.join(missing)}" if missing else "ready"))
    return 1 if missing else 0


def table(checks, width=None):
    """The checks as lines for people."""
    width = width or max(60, shutil.get_terminal_size((100, 24)).columns)
    name_width = max(len(c.name) for c in checks)
    lines = []
    for c in checks:
        start = f"{c.state:<8} {c.name:<{name_width}}  "
        wrap = {"width": width, "break_long_words": False, "break_on_hyphens": False}
        lines += textwrap.wrap(c.found, **wrap, initial_indent=start, subsequent_indent=" " * len(start))
        if c.mend:
            indent = " " * (len(start) - 2) + "> "
            lines += textwrap.wrap(c.mend, **wrap, initial_indent=indent, subsequent_indent=" " * len(start))
    return lines


def examine(backend, reason, system=None, offline=False):
    """All checks for `backend`; `system` is the one wanted, or None."""
    needs_wheel, needs_board = backend != "emulator", backend == "silicon"
    version, package, wheel_mend = _wheel()
    boards = host.boards()
    checks = [
        Check("ttnn", "ok", _which(backend, version) + f" ({reason})"),
        _python(needs_wheel),
        _libraries(),
        _products(backend == "emulator"),
        _check("ttnn wheel", version, needs_wheel, lambda: f"{version} in {package}", "not in this Python", wheel_mend),
        _sfpi(package, backend in ("silicon", "simulator")),
        _simulator(backend == "simulator"),
        _board(boards, needs_board),
        _driver(needs_board),
        _huge_pages(boards, needs_board),
        _mesh(backend, boards, system),
        _errata(system),
        _disk("cache disk", mock.cache_dir().parent, CACHE_GIB),
        _disk("HF cache disk", _hf_cache(), HUB_GIB, needed=False),
        _writable("HF cache", _hf_cache()),
        _hub(offline),
    ]
    return checks


def _check(name, good, needed, found, absent, mend):
    if good:
        return Check(name, "ok", found() if callable(found) else found)
    return Check(name, "missing" if needed else "absent", absent, mend)


def _which(backend, version):
    from bringup import __version__

    return f"{backend}: ttnn_emulator {__version__}" if backend == "emulator" else f"{backend}: ttnn {version or '?'}"


def _python(needs_wheel):
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = f"{platform.python_version()} at {sys.executable}"
    fits = version in mock.PYTHONS and sys.platform == "linux" and platform.machine() == "x86_64"
    if fits or not needs_wheel:
        return Check("Python", "ok", found + ("" if fits else "; no ttnn wheel is made for it"))
    want = " or ".join(mock.PYTHONS)
    return Check("Python", "missing", found, f"the ttnn wheel is made for Python {want} on Linux x86-64")


def _libraries():
    names, missing = ("torch", "transformers"), []
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    text = ", ".join(found + [f"no {name}" for name in missing])
    return Check("libraries", "missing" if missing else "ok", text, "pip install -e ." if missing else None)


def _products(needed):
    """How the emulator multiplies on this processor."""
    try:
        from ttnn_emulator.numerics import product
    except ImportError:
        return Check("products", "missing" if needed else "absent", "not without torch")
    try:
        way, why = product.choice()
    except ValueError as error:
        return Check("products", "missing" if needed else "absent", str(error), f"unset {product.VARIABLE}")
    return Check("products", "ok", f"{way}: {why}; {product.VARIABLE} overrides it")


def _wheel():
    """(version, folder, how to mend) of the wheel; not imported."""
    try:
        version, package = mock.wheel()
    except BringupError as error:
        hint = [line.partition("hint")[2].strip() for line in str(error).splitlines() if "  hint" in line]
        return None, None, hint[0] if hint else None
    return version, package, None


def _sfpi(package, needed):
    place, wanted = host.sfpi(package), package and mock.sfpi_version(package)
    mend = "the vendor's SFPI package" + (f" {wanted}" if wanted else "") + ", which installs to /opt/tenstorrent/sfpi"
    return _check(
        "SFPI", place, needed, lambda: f"{place}" + (f"; the wheel wants {wanted}" if wanted else ""),
        "no kernel compiler", mend,
    )  # fmt: skip


def _simulator(needed):
    library = os.environ.get("TT_METAL_SIMULATOR")
    if library and os.path.exists(library):
        return Check("libttsim", "ok", library)
    found = f"TT_METAL_SIMULATOR={library}, which is not there" if library else "TT_METAL_SIMULATOR is not set"
    return Check("libttsim", "missing" if needed else "absent", found, "set it to the path of a libttsim.so")


def _board(boards, needed):
    if boards:
        hidden = len(boards) - len(host.visible(boards))
        text = ", ".join(map(str, boards))
        text += f"; TT_VISIBLE_DEVICES={os.environ['TT_VISIBLE_DEVICES']} hides {hidden}" if hidden else ""
        return Check("board", "ok", text)
    found, mend = "none: no /dev/tenstorrent", "plug one in; --backend emulator and mock need none"
    if on_bus := host.pci_boards():
        found, mend = f"{on_bus} on the PCI bus, none in /dev/tenstorrent", "install the kernel driver tt-kmd"
    return _check("board", False, needed, "", found, mend)


def _driver(needed):
    version = host.driver()
    mend = "install tt-kmd, or modprobe tenstorrent"
    return _check("driver", version, needed, f"tt-kmd {version}", "tt-kmd is not loaded", mend)


def _huge_pages(boards, needed):
    total, free = host.huge_pages()
    wanted = max(1, len(boards))
    mend = f"one of 1 GiB for each board: hugepagesz=1G hugepages={wanted} on the kernel's command line"
    return _check("huge pages", total >= wanted, needed, f"{total} of 1 GiB, {free} free", f"{total} of 1 GiB", mend)


def _mesh(backend, boards, system):
    if backend in ("emulator", "mock"):
        return Check("mesh", "ok", f"{system or 'any system'}, {'emulated' if backend == 'emulator' else 'mocked'}")
    if backend == "simulator":
        one = system is None or system.chips == 1
        return _check("mesh", one, True, "one simulated chip", f"one simulated chip, wanted {system}", "--system n150")
    seen = host.visible(boards)
    chips = sum(b.chips for b in seen)
    found = f"{chips} chip{'s' * (chips != 1)} on {len(seen)} board{'s' * (len(seen) != 1)}"
    found += f", wanted {system}" if system else ""
    wanted = (system or systems.get("n150")).chip
    fits = [s.name for s in systems.SYSTEMS.values() if s.chips <= chips and s.chip is wanted]
    mend = f"--system {fits[-1]}, or TT_VISIBLE_DEVICES with more boards" if fits else "a board that the driver shows"
    return _check("mesh", chips >= (system.chips if system else 1), True, found, found, mend)


def _errata(system):
    """What the silicon does wrong, which no backend but silicon shows."""
    chip = (system or systems.get("n150")).chip
    known = "; ".join(f"{when}: {what}" for when, what in chip.errata.items())
    return Check("errata", "ok", f"{chip.family}, {known or 'none known'} (more in docs/numerics.md)")


def _existing(path):
    """The folder itself, or the nearest one above it that exists."""
    path = Path(path).expanduser()
    while not path.exists():
        path = path.parent
    return path


def _disk(name, path, gib, needed=True):
    free = shutil.disk_usage(_existing(path)).free / 2**30
    text, mend = f"{free:,.0f} GiB free for {path}", "make room, or XDG_CACHE_HOME or HF_HOME on another disk"
    return _check(name, free >= gib, needed, text, f"{text}, less than {gib}", mend)


def _hf_cache():
    hub = os.environ.get("HF_HUB_CACHE")
    if hub:
        return Path(hub).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{base}/huggingface")).expanduser() / "hub"


def _writable(name, path):
    good = os.access(_existing(path), os.W_OK | os.X_OK)
    return _check(name, good, True, f"{path} is writable", f"{path} is not writable", "HF_HOME=DIR of your own")


def _hub(offline):
    from bringup.checkpoints import hub

    mend = "--random-weights needs no hub; or --model DIR with a downloaded checkpoint; or HF_ENDPOINT of a mirror"
    if offline:
        return Check("hub", "absent", "not asked (--offline)")
    try:
        hub.require_hub(HUB_SECONDS)
    except (OSError, ImportError) as error:
        return Check("hub", "absent", f"not reachable: {error}", mend)
    return Check("hub", "ok", "reachable")
