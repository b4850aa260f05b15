"""What this machine has for Tenstorrent: boards, driver, huge pages, the kernel compiler. Looked at, never opened.

Paths are those of the kernel driver (tt-kmd: /dev/tenstorrent/N, and an entry in /sys/class/tenstorrent with the
board's type) and of the packages of the vendor's installer. `ROOT` is "/" except in tests.
"""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
VENDOR = "0x1e52"  # Tenstorrent's PCI vendor id
#: Chips of a board by the driver's name of its type.
CHIPS = {"n150": 1, "n300": 2}
SFPI = "compiler/bin/riscv-tt-elf-g++"


@dataclass(frozen=True)
class Board:
    """One PCIe board: the number of its device file and its type, as far as the driver says it."""

    number: int
    type: str | None

    @property
    def chips(self):
        return CHIPS.get(self.type or "", 1)

    def __str__(self):
        return f"{self.number}: {self.type or 'type unknown'}"


def boards():
    """The boards that the driver shows, in the order of their device files."""
    folder = ROOT / "dev/tenstorrent"
    numbers = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
    return [Board(n, _read(ROOT / f"sys/class/tenstorrent/tenstorrent!{n}/tt_card_type")) for n in numbers]


def visible(found):
    """Those of the boards that TT_VISIBLE_DEVICES leaves, which the library reads too; all where it is not set."""
    wanted = os.environ.get("TT_VISIBLE_DEVICES")
    if not wanted:
        return list(found)
    names = {w.strip() for w in wanted.split(",")}
    return [b for b in found if str(b.number) in names]


def pci_boards():
    """How many boards are on the PCI bus, with or without a driver."""
    devices = ROOT / "sys/bus/pci/devices"
    if not devices.is_dir():
        return 0
    return sum(_read(p / "vendor") == VENDOR for p in devices.iterdir())


def driver():
    """The version of the kernel driver, or None where it is not loaded."""
    return _read(ROOT / "sys/module/tenstorrent/version")


def huge_pages():
    """(pages of 1 GiB, free ones); a board maps one of them for each of its chips on PCIe."""
    folder = ROOT / "sys/kernel/mm/hugepages/hugepages-1048576kB"
    return tuple(int(_read(folder / name) or 0) for name in ("nr_hugepages", "free_hugepages"))


def sfpi(package=None):
    """The kernel compiler's folder: in the wheel, else where the vendor's package puts it; or None."""
    places = [ROOT / "opt/tenstorrent/sfpi"]
    if package is not None:
        places.insert(0, Path(package) / "runtime/sfpi")
    return next((p for p in places if (p / SFPI).exists()), None)


def _read(path):
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
