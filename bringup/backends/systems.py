"""What each Tenstorrent system is: its mesh of Wormhole chips, and what one chip has."""

from dataclasses import dataclass

from bringup.errors import BadInput

MiB, GiB = 2**20, 2**30


@dataclass(frozen=True)
class Chip:
    """One Wormhole as the library offers it to programs."""

    name: str = "wormhole_b0"
    # ttnn 0.81.1, recorded contract: an allocation that does not fit names "12 banks" and "bank size is 1072693184 B".
    dram_banks: int = 12
    dram_bank_bytes: int = 1_072_693_184
    # The same message for L1: "64 banks", 1393312 B each (of 1499136 B of L1 a core; programs take the rest).
    l1_banks: int = 64
    l1_bank_bytes: int = 1_393_312
    # ttnn 0.81.1, recorded contract: compute_with_storage_grid_size() on every system.
    grid: tuple = (8, 8)
    # Tenstorrent's published n150 specification: 12 GB of GDDR6 at 12 GT/s on 192 bits.
    dram_bytes_per_second: float = 288e9

    @property
    def dram_bytes(self):
        return self.dram_banks * self.dram_bank_bytes

    @property
    def l1_bytes(self):
        return self.l1_banks * self.l1_bank_bytes

    @property
    def cores(self):
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class System:
    """A named system. `fabric` is the FabricConfig that its collectives need (None: one chip, no fabric)."""

    name: str
    mesh_shape: tuple
    fabric: str | None
    chip: Chip = Chip()

    @property
    def chips(self):
        return self.mesh_shape[0] * self.mesh_shape[1]

    def __str__(self):
        rows, cols = self.mesh_shape
        return f"{self.name} ({self.chips} Wormhole chip{'s' * (self.chips > 1)}, mesh {rows}x{cols})"


# Meshes and fabrics: ttnn 0.81.1, recorded contract (FABRIC_2D on the 2x4 mesh, FABRIC_1D on lines).
SYSTEMS = {
    s.name: s
    for s in (
        System("n150", (1, 1), None),
        System("n300", (1, 2), "FABRIC_1D"),
        System("t3000", (2, 4), "FABRIC_2D"),
        System("t3000_1x8", (1, 8), "FABRIC_1D"),
    )
}


def get(name):
    """The system of that name; a `System` is returned as it is."""
    if isinstance(name, System):
        return name
    if name not in SYSTEMS:
        raise BadInput("unknown system", got=repr(name), want="one of " + ", ".join(SYSTEMS))
    return SYSTEMS[name]
