"""Systems: which chips, how they stand in the mesh, and what links them.

`TTNN_EMULATOR_SYSTEM` (default n150) names the machine that `open_device` and `open_mesh_device` find; `use` sets it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from ..errors import DeviceRejects
from .blackhole import BLACKHOLE, P100, P150X8
from .chip import Chip
from .wormhole import WORMHOLE

VARIABLE = "TTNN_EMULATOR_SYSTEM"


@dataclass(frozen=True)
class System:
    """A machine, and the mesh in which its name has it opened.

    `chip_ids` are the physical ids of the chips in the rows of the machine's own mesh, `pcie_ids` those with a PCIe
    link. `fabric` is the FabricConfig that collectives on `mesh_shape` need (None: one chip, no fabric). `links` are
    the Ethernet links between neighbours, `dispatching` the (columns, rows) of cores beyond a chip's grid.
    """

    name: str
    cluster: str  # the library's ClusterType
    chip: Chip
    chip_ids: tuple[tuple[int, ...], ...]
    pcie_ids: tuple[int, ...]
    mesh_shape: tuple[int, int]
    fabric: str | None
    links: int = 0
    dispatching: tuple[int, int] = (0, 0)
    recorded: bool = True  # whether calls of the library were recorded on it

    @property
    def chips(self) -> int:
        return self.mesh_shape[0] * self.mesh_shape[1]

    @property
    def machine_shape(self) -> tuple[int, int]:
        return len(self.chip_ids), len(self.chip_ids[0])

    def __str__(self) -> str:
        rows, columns = self.mesh_shape
        return f"{self.name} ({self.chips} {self.chip.family} chip{'s' * (self.chips > 1)}, mesh {rows}x{columns})"

    def placed(self, shape, offset=(0, 0)) -> list[int]:
        """The physical ids of a mesh of this shape, row by row, as the library lays it on the machine.

        A line goes round the ring of all chips (the first row forth, the next one back) from `offset` on, and the other
        way round from the lower left of four; a rectangle stands at `offset`; one that fits only turned is turned, and
        begins at the first chip.

        Raises    DeviceRejects where the machine has no such mesh
        Source    ttnn 0.81.1 on n300, T3000 and the Blackhole systems, 400 shapes and offsets
        """
        (rows, columns), (height, width), (top, left) = shape, self.machine_shape, offset
        want = rows * columns
        if not want:
            raise DeviceRejects(
                f"Requested mesh shape {_mesh(shape)} has zero devices (mesh_size=0). MeshShape must have at least one "
                "device."
            )
        if want > height * width:
            raise DeviceRejects(
                f"Requested mesh shape {_mesh(shape)} requires {want} devices, but only {height * width} devices are "
                f"available in the system mesh {_mesh(self.machine_shape)}.",
                f"the machine is {self.name}; {VARIABLE} names another one: {', '.join(SYSTEMS)}",
            )
        if 1 in (rows, columns):
            if top >= height or left >= width:
                raise DeviceRejects(
                    f"The specified offset MeshCoordinate([{top}, {left}]) is out of bounds for the system mesh shape "
                    f"{_mesh(self.machine_shape)}"
                )
            ring = [c for i, row in enumerate(self.chip_ids) for c in (row if i % 2 == 0 else row[::-1])]
            if (height, width, top, left) == (2, 2, 1, 0):
                ring.reverse()
            first = ring.index(self.chip_ids[top][left])
            return (ring[first:] + ring[:first])[:want]
        if top + rows <= height and left + columns <= width:
            return [c for row in self.chip_ids[top : top + rows] for c in row[left : left + columns]]
        if top + columns <= height and left + rows <= width:
            return [self.chip_ids[x][y] for y in range(rows) for x in range(columns)]
        raise DeviceRejects(
            f"Requested mesh is too big and is not rotatable: {_mesh(shape)} and SystemMesh "
            f"{_mesh(self.machine_shape)}, offset MeshCoordinate([{top}, {left}])"
        )


def _mesh(shape) -> str:
    return f"MeshShape([{', '.join(map(str, shape))}])"


# Meshes, ids and clusters: ttnn 0.81.1 asked on each (get_device_ids, get_pcie_device_ids, get_cluster_type).
# Fabrics: recorded contract (FABRIC_2D on the 2x4 mesh, FABRIC_1D on lines). Links: channels of the mesh graph
# descriptors that the wheel brings. Dispatching cores: reports.get_device_info of ttnn 0.81.1 on each mock cluster.
_T3000 = System(
    "t3000", "T3K", WORMHOLE, ((4, 0, 2, 6), (5, 1, 3, 7)), (0, 1, 2, 3), mesh_shape=(2, 4), fabric="FABRIC_2D", links=2
)
_P300X2 = System(
    "p300x2",
    "P300_X2",
    BLACKHOLE,
    ((0, 1), (2, 3)),
    (0, 1, 2, 3),
    mesh_shape=(1, 4),
    fabric="FABRIC_1D",
    links=2,
    dispatching=(1, 0),
)
SYSTEMS = {
    s.name: s
    for s in (
        System("n150", "N150", WORMHOLE, ((0,),), (0,), mesh_shape=(1, 1), fabric=None, dispatching=(0, 1)),
        System("n300", "N300", WORMHOLE, ((0, 1),), (0,), mesh_shape=(1, 2), fabric="FABRIC_1D", links=2),
        _T3000,
        replace(_T3000, name="t3000_1x8", mesh_shape=(1, 8), fabric="FABRIC_1D"),
        System("p100", "P100", P100, ((0,),), (0,), mesh_shape=(1, 1), fabric=None, dispatching=(1, 0), recorded=False),
        System("p150", "P150", BLACKHOLE, ((0,),), (0,), mesh_shape=(1, 1), fabric=None, dispatching=(1, 0)),
        System(
            "p300",
            "P300",
            BLACKHOLE,
            ((0, 1),),
            (0, 1),
            mesh_shape=(1, 2),
            fabric="FABRIC_1D",
            links=2,
            dispatching=(1, 0),
        ),
        _P300X2,
        replace(_P300X2, name="p300x2_2x2", mesh_shape=(2, 2), fabric="FABRIC_2D"),
        System(
            "p150x4",
            "P150_X4",
            BLACKHOLE,
            ((0, 2), (3, 1)),
            (0, 1, 2, 3),
            mesh_shape=(1, 4),
            fabric="FABRIC_1D",
            links=4,
            dispatching=(1, 0),
            recorded=False,
        ),
        System(
            "p150x8",
            "P150_X8",
            P150X8,
            ((1, 0, 4, 5), (3, 2, 6, 7)),
            tuple(range(8)),
            mesh_shape=(1, 8),
            fabric="FABRIC_1D",
            links=2,
            dispatching=(1, 0),
            recorded=False,
        ),
    )
}

_machine: System | None = None


def machine() -> System:
    """The machine that this process runs on."""
    return _machine or use(os.environ.get(VARIABLE) or "n150")


def use(name: str) -> System:
    """Puts this process on another machine, from the next device that it opens."""
    global _machine
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r} ({VARIABLE}): one of {', '.join(SYSTEMS)}")
    _machine = SYSTEMS[name]
    return _machine
