"""The form of a chip's description. Each number in one names its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..enums import Named


class Arch(Named):
    WORMHOLE_B0 = 2
    BLACKHOLE = 3
    QUASAR = 4


@dataclass(frozen=True, eq=False)
class Banks:
    """One kind of memory: how many banks, usable bytes in each, the first usable address, bytes to which a row-major
    page is aligned."""

    count: int
    bytes: int
    base: int
    page_alignment: int


@dataclass(frozen=True)
class Arithmetic:
    """By whose approximations and tables the numerics compute."""

    tables: tuple[str, ...]  # files of recorded unary functions; a later one has what differs from those before it
    estimates_reciprocals: bool  # an instruction estimates 1 / x: what approximate modes take as it is
    fp32_fidelity: str  # of softmax and reductions where the caller says none
    unrecorded: frozenset[str] = frozenset()  # tables of `tables` that were recorded on another chip only


@dataclass(frozen=True, eq=False)
class Chip:
    """One chip as the library offers it to programs. Two chips are the same if they are one object."""

    name: str  # as messages and `get_arch_name` have it
    family: str  # as people say it
    arch: Arch
    grid: tuple[int, int]  # (columns, rows) of the cores that programs get
    dram: Banks
    l1: Banks
    worker_columns: tuple[int, ...]  # where programs find the columns of cores, left to right
    worker_row: int  # and the first row; the others follow
    core_of_bank: tuple[tuple[int, int], ...]  # (x, y) of the core behind each bank of L1
    l1_end: int  # where a core's L1 ends for the buffers of a program, which start at the first usable address
    l1_unreserved: int  # bytes of a core's L1 that are not the firmware's
    buffer_alignment: int  # what a buffer takes in a bank is a multiple of this
    trace_region_step: int  # the trace region is cut off DRAM in steps of so many bytes a bank
    dram_bytes_per_second: float
    cycles_per_second: float
    flops_per_cycle: int  # of one core's matrix unit in LoFi; a fidelity of n phases takes n times as long
    link_bytes_per_second: float  # one Ethernet link, each direction
    missing: frozenset[str]  # kernels that it lacks: unary functions, variants of ops
    errata: dict[str, str]  # confirmed errors of the silicon: when, and what then; docs/numerics.md has the sources
    arithmetic: Arithmetic

    @cached_property
    def bank_of_core(self) -> dict[tuple[int, int], int]:
        return {core: bank for bank, core in enumerate(self.core_of_bank)}

    @property
    def cores(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def l1_room(self) -> int:
        """Bytes of a core's L1 that the buffers of a program and tensors share."""
        return self.l1_end - self.l1.base

    @property
    def dram_bytes(self) -> int:
        return self.dram.count * self.dram.bytes

    @property
    def l1_bytes(self) -> int:
        return self.l1.count * self.l1.bytes
