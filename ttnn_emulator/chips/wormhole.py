"""Wormhole as ttnn 0.81.1 offers it on every system, whatever cores dispatch."""

from .chip import Arch, Arithmetic, Banks, Chip

# ttnn 0.81.1 on mock clusters of n150, n300 and t3000, reports.get_buffer_pages of a buffer with a page in every bank.
CORE_OF_BANK = (
    (1, 0), (1, 4), (4, 4), (4, 1), (2, 2), (6, 0), (7, 3), (3, 0), (5, 2), (2, 5), (5, 4), (3, 2), (6, 7), (3, 3),
    (7, 4), (2, 1), (6, 4), (6, 5), (5, 6), (0, 5), (7, 1), (0, 1), (4, 3), (3, 1), (5, 7), (1, 3), (4, 2), (2, 4),
    (4, 5), (7, 7), (6, 3), (0, 2), (5, 1), (3, 7), (5, 0), (0, 0), (1, 1), (6, 1), (7, 0), (2, 0), (0, 3), (1, 2),
    (4, 6), (5, 3), (3, 6), (2, 6), (1, 6), (3, 5), (4, 7), (1, 7), (0, 7), (2, 3), (5, 5), (4, 0), (7, 5), (3, 4),
    (6, 6), (7, 2), (2, 7), (1, 5), (6, 2), (7, 6), (0, 4), (0, 6),
)  # fmt: skip

WORMHOLE = Chip(
    name="wormhole_b0",
    family="Wormhole",
    arch=Arch.WORMHOLE_B0,
    # ttnn 0.81.1, recorded contract: compute_with_storage_grid_size() on every system.
    grid=(8, 8),
    # ttnn 0.81.1: memory view at open, addresses of the first buffers; alignment of row-major pages: recorded limits,
    # "Buffers". The texts of out of memory name the same banks and sizes.
    dram=Banks(count=12, bytes=1_072_693_184, base=1_048_640, page_alignment=32),
    l1=Banks(count=64, bytes=1_393_312, base=105_824, page_alignment=16),
    # ttnn 0.81.1 on n150, n300: worker_core_from_logical_core.
    worker_columns=tuple(range(18, 26)),
    worker_row=18,
    core_of_bank=CORE_OF_BANK,
    # ttnn 0.81.1, text of the refusals of circular buffers ("max L1 size of 1499136 B").
    l1_end=1_499_136,
    # ttnn 0.81.1, get_max_worker_l1_unreserved_size().
    l1_unreserved=1_463_968,
    # ttnn 0.81.1, buffer addresses over 6,000 random allocations.
    buffer_alignment=32,
    # ttnn 0.81.1, memory view at open.
    trace_region_step=8192,
    # Tenstorrent's published n150 specification: 12 GB of GDDR6 at 12 GT/s on 192 bits.
    dram_bytes_per_second=288e9,
    # The same: AI clock 1 GHz.
    cycles_per_second=1e9,
    # tt-metal tech_reports/matrix_engine/matrix_engine.md: 8x16 x 16x16 products, with an add each.
    flops_per_cycle=4096,
    # Tenstorrent's published n300 specification: 100 Gb/s a link between its two chips.
    link_bytes_per_second=100e9 / 8,
    # ttnn 0.81.1: "Unary: SOFTCAP is implemented for Blackhole only"; "chunk_gdn: the SFPU WY-inverse solve
    # (wy_inverse=FORWARD_SUBSTITUTION) is Blackhole-only".
    missing=frozenset({"SOFTCAP", "chunk_gdn FORWARD_SUBSTITUTION"}),
    # tt-metal issue 38306, confirmed there as an error of the hardware; ttnn 0.81.1 warns of it.
    errata={"HiFi4 with an fp32 destination": "single elements of a product are off by powers of two; use HiFi3"},
    # The official functional simulator v1.10, Wormhole B0: recorded vectors and tables.
    arithmetic=Arithmetic(tables=("tables",), estimates_reciprocals=False, fp32_fidelity="HiFi3"),
)
