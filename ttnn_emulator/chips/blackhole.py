"""Blackhole as ttnn 0.81.1 offers it: the chip of p150, and what differs on other boards."""

from dataclasses import replace

from .chip import Arch, Arithmetic, Banks, Chip

# ttnn 0.81.1 on mock clusters of every system, reports.get_buffer_pages of a buffer with a page in every bank.
CORE_OF_BANK = (
    (6, 1), (0, 3), (8, 7), (1, 6), (7, 1), (2, 8), (9, 2), (9, 7), (5, 6), (2, 9), (4, 3), (8, 1), (7, 5), (5, 2),
    (9, 9), (10, 0), (5, 3), (6, 6), (9, 4), (7, 3), (4, 1), (8, 0), (1, 7), (0, 1), (6, 8), (3, 2), (3, 7), (1, 3),
    (9, 8), (8, 5), (8, 2), (5, 1), (7, 6), (4, 5), (5, 0), (5, 7), (9, 0), (3, 1), (7, 0), (2, 0), (1, 9), (9, 5),
    (8, 4), (7, 9), (7, 4), (2, 7), (6, 9), (10, 8), (5, 5), (1, 8), (8, 6), (8, 8), (1, 4), (7, 8), (10, 7), (2, 3),
    (10, 4), (4, 6), (4, 8), (8, 3), (0, 2), (5, 8), (10, 2), (4, 4), (1, 0), (10, 9), (0, 6), (3, 0), (1, 1),
    (6, 4), (9, 6), (1, 2), (4, 9), (6, 7), (2, 1), (3, 8), (0, 5), (10, 6), (5, 9), (6, 2), (2, 6), (0, 9), (0, 0),
    (4, 7), (2, 4), (6, 5), (3, 3), (10, 5), (3, 4), (2, 5), (0, 8), (6, 0), (1, 5), (3, 5), (3, 6), (7, 7), (4, 0),
    (4, 2), (8, 9), (10, 3), (9, 1), (0, 7), (9, 3), (5, 4), (10, 1), (2, 2), (3, 9), (7, 2), (0, 4), (6, 3),
)  # fmt: skip
CORE_OF_BANK_120 = (
    (0, 2), (9, 2), (1, 7), (7, 5), (2, 9), (6, 7), (7, 2), (2, 7), (11, 5), (5, 8), (1, 3), (7, 1), (2, 5), (3, 2),
    (0, 9), (10, 0), (2, 3), (0, 6), (5, 4), (4, 3), (3, 1), (8, 0), (6, 6), (11, 0), (10, 7), (1, 2), (8, 6),
    (10, 2), (1, 8), (3, 5), (6, 2), (4, 1), (1, 6), (11, 4), (5, 0), (10, 6), (9, 0), (2, 1), (10, 9), (2, 0),
    (4, 8), (4, 5), (4, 4), (8, 9), (3, 4), (7, 6), (9, 8), (2, 8), (0, 5), (5, 7), (2, 6), (0, 8), (9, 3), (11, 7),
    (3, 7), (11, 2), (5, 9), (10, 5), (8, 7), (5, 3), (10, 1), (9, 7), (8, 2), (0, 4), (1, 0), (1, 9), (6, 5),
    (3, 0), (0, 1), (2, 4), (3, 6), (11, 1), (6, 9), (11, 6), (1, 1), (7, 7), (7, 4), (4, 6), (8, 8), (4, 2), (8, 5),
    (3, 8), (0, 0), (9, 6), (10, 3), (1, 5), (0, 3), (5, 5), (11, 3), (9, 4), (4, 7), (6, 0), (8, 4), (10, 4),
    (9, 5), (0, 7), (4, 0), (7, 9), (11, 8), (7, 3), (8, 1), (5, 6), (6, 3), (1, 4), (9, 1), (11, 9), (6, 8), (5, 2),
    (9, 9), (3, 3), (5, 1), (6, 1), (4, 9), (6, 4), (3, 9), (7, 8), (2, 2), (10, 8), (8, 3), (7, 0),
)  # fmt: skip

BLACKHOLE = Chip(
    name="blackhole",
    family="Blackhole",
    arch=Arch.BLACKHOLE,
    # ttnn 0.81.1 on mock clusters of every Blackhole system: compute_with_storage_grid_size().
    grid=(11, 10),
    # ttnn 0.81.1: memory view at open, addresses of the first buffers, buffer_aligned_page_size().
    dram=Banks(count=8, bytes=4_277_141_376, base=1_048_704, page_alignment=64),
    l1=Banks(count=110, bytes=1_461_120, base=111_744, page_alignment=16),
    # ttnn 0.81.1 on p150: worker_core_from_logical_core.
    worker_columns=(1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16),
    worker_row=2,
    core_of_bank=CORE_OF_BANK,
    # ttnn 0.81.1, text of the refusals of circular buffers ("max L1 size of 1572864 B").
    l1_end=1_572_864,
    # ttnn 0.81.1, get_max_worker_l1_unreserved_size().
    l1_unreserved=1_531_776,
    # ttnn 0.81.1, addresses of buffers of 2 to 80 bytes a row.
    buffer_alignment=64,
    # ttnn 0.81.1, memory view at open with trace regions of 0 to 3,000,000 B.
    trace_region_step=8192,
    # docs.tenstorrent.com, Blackhole specifications, p150a: 32 GB of GDDR6 at 16 GT/s on 256 bits.
    dram_bytes_per_second=512e9,
    # The same: AI clock up to 1.35 GHz.
    cycles_per_second=1.35e9,
    # As Wormhole's: 664 TFLOPS are published for 120 cores at 1.35 GHz.
    flops_per_cycle=4096,
    # docs.tenstorrent.com, Blackhole multi-card topologies: QSFP-DD of 800 Gb/s, a cable between neighbours of 8xP150;
    # ttnn 0.81.1 counts two channels there (p150_x8 mesh graph descriptor).
    link_bytes_per_second=400e9 / 8,
    missing=frozenset(),
    errata={},
    # The official functional simulator v1.10, Blackhole: recorded vectors and tables. HiFi4 is the fidelity that gives
    # the recorded bits of softmax.
    arithmetic=Arithmetic(
        tables=("tables", "blackhole"),
        estimates_reciprocals=True,
        fp32_fidelity="HiFi4",
        unrecorded=frozenset(
            (
                "softplus",
                "erfc",
                "expm1",
                "log2",
                "log1p",
                "hardsigmoid",
                "sqrt_fast",
                "sigmoid_fast",
                "acos",
                "cbrt",
                "erfinv",
                "atanh",
                "acosh",
                "i0",
            )
        ),
    ),
)

# p100: one DRAM bank less (memory view at open); docs.tenstorrent.com, p100a: 28 GB at 448 GB/s.
P100 = replace(BLACKHOLE, dram=replace(BLACKHOLE.dram, count=7), dram_bytes_per_second=448e9)

# The chips of 8xP150: a column more (ttnn 0.81.1 on the driver project's description of that machine).
P150X8 = replace(BLACKHOLE, grid=(12, 10), l1=replace(BLACKHOLE.l1, count=120), core_of_bank=CORE_OF_BANK_120)
