"""Descriptions of machines in the form that the library's driver reads: which chips there are and how they are linked.

The boards' ids and masks of what is harvested are those of the driver project's public descriptions.
"""

from dataclasses import dataclass
from itertools import pairwise

from bringup.backends import systems


@dataclass(frozen=True)
class Board:
    """A board: the upper bits of its id, which tell its type to the driver, and the masks of each of its chips: cores
    (rows on Wormhole, columns on Blackhole), DRAM banks, Ethernet channels, PCIe links."""

    id_bits: int
    masks: tuple[tuple[int, int, int, int], ...]


# One harvested row on an n150, two on each chip of an n300: 8x9 and 8x8 workers (of which programs get 8x8). A
# Blackhole chip has two harvested columns, in p150x8 one.
BOARDS = {
    "n150": Board(0x100018, ((0x40, 0, 0, 0),)),
    "n300": Board(0x100014, ((0x201, 0, 0, 0),) * 2),
    "p100": Board(0x43, ((0xC0, 8, 0x3FFF, 2),)),
    "p150": Board(0x40, ((0xC0, 0, 0x120, 2),)),
    "p300": Board(0x45, ((0x2080, 0, 0x120, 2), (0x110, 0, 0x120, 1))),
}
_P150X8 = Board(BOARDS["p150"].id_bits, ((0x80, 0, 0x120, 2),))


@dataclass(frozen=True)
class Cluster:
    """How a machine is put together: the type of its boards, the chips of each, and the links, as ((chip, channels),
    (other chip, its channels))."""

    kind: str
    board: Board
    boards: list[list[int]]
    links: list[tuple]


def cluster_of(system) -> Cluster:
    """The boards and links of a machine."""
    system = systems.get(system)
    chips = sorted(chip for row in system.chip_ids for chip in row)
    kind = system.name.split("_")[0].split("x")[0]
    if kind == "t3000":
        # Four n300 boards; 0 to 3 are their left chips, 4 to 7 their right ones. The two chips of a board are joined by
        # channels 8 and 9 of the left one and 0 and 1 of the right one; the channels between boards are those of the
        # driver project's public description of a T3000.
        links = [((left, (8, 9)), (left + 4, (0, 1))) for left in range(4)]
        links += [((0, (6, 7)), (2, (6, 7))), ((1, (0, 1)), (3, (0, 1)))]
        links += [((a, (14, 15)), (b, (14, 15))) for a, b in ((0, 1), (2, 3))]
        links += [((a, (6, 7)), (b, (6, 7))) for a, b in ((4, 5), (6, 7))]
        return Cluster("n300", BOARDS["n300"], [[left + 4, left] for left in range(4)], links)
    if kind == "n300":
        return Cluster("n300", BOARDS["n300"], [[0, 1]], [((0, (8, 9)), (1, (0, 1)))])
    if kind == "p300":
        # The two chips of a board, and two boards one below the other.
        links = [((left, (2, 3)), (left + 1, (9, 8))) for left in chips[::2]]
        links += [((a, (4, 6)), (a + 2, (4, 6))) for a in chips[:-2]]
        return Cluster("p300", BOARDS["p300"], [[left + 1, left] for left in chips[::2]], links)
    board = _P150X8 if len(chips) == 8 else BOARDS[kind]
    return Cluster(kind, board, [[chip] for chip in chips], _cabled(system))


def _cabled(system):
    """Boards cabled to their neighbours: by four channels each where there are two rows of two, else by two."""
    ids = system.chip_ids
    wide = len(ids[0]) > 2
    east, west, down = ((4, 6), (5, 7), (8, 10)) if wide else ((4, 5, 6, 7), (4, 5, 6, 7), (8, 9, 10, 11))
    links = [((a, east), (b, west)) for row in ids for a, b in pairwise(row)]
    return links + [((a, down), (b, down)) for above, below in pairwise(ids) for a, b in zip(above, below)]


def cluster_descriptor(system) -> str:
    """The description of a machine, as YAML."""
    system = systems.get(system)
    cluster = cluster_of(system)
    ids, wormhole = system.chip_ids, cluster.kind.startswith("n")
    place = {chip: (x, y) for y, row in enumerate(ids) for x, chip in enumerate(row)}
    position = {chip: sorted(board).index(chip) for board in cluster.boards for chip in board}
    lines = ["arch:"] + [f"  {chip}: {system.chip.name}" for chip in sorted(place)]
    lines += ["chips:"]  # where each stands: only Wormhole's have coordinates
    lines += (
        [f"  {chip}: [{place[chip][0]}, {place[chip][1]}, 0, 0]" for chip in sorted(place)] if wormhole else ["  {}"]
    )
    if system.chips > 1 or not wormhole:
        lines += ["chip_unique_ids:"] + [f"  {chip}: {0x260 << 24 | chip}" for chip in sorted(place)]
    lines += ["ethernet_connections:"] + (["  []"] if not cluster.links else [])
    for (a, channels_a), (b, channels_b) in cluster.links:
        for i, j in zip(channels_a, channels_b, strict=True):
            lines += [f"  - [{{chip: {a}, chan: {i}}}, {{chip: {b}, chan: {j}}}]"]
    lines += ["ethernet_connections_to_remote_devices:", "  []"]
    lines += ["chips_with_mmio:"] + [f"  - {chip}: {chip}" for chip in system.pcie_ids]
    lines += ["harvesting:"]
    for chip in sorted(place):
        cores, dram, ethernet, pcie = cluster.board.masks[position[chip]]
        masks = f"harvest_mask: {cores}, dram_harvesting_mask: {dram}, eth_harvesting_mask: {ethernet}"
        lines += [f"  {chip}: {{noc_translation: true, {masks}, pcie_harvesting_mask: {pcie}}}"]
    if not wormhole:
        lines += ["asic_locations:"] + [f"  {chip}: {position[chip]}" for chip in sorted(place)]
    lines += ["boards:"]
    for k, chips in enumerate(cluster.boards):
        number = cluster.board.id_bits << 36 | 0x619030000 | k
        lines += ["  -", f"    - board_id: {number}", f"    - board_type: {cluster.kind}"]
        lines += ["    - chips: [" + ", ".join(map(str, chips)) + "]"]
    return "\n".join(lines) + "\n"
