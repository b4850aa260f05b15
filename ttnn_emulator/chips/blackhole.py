"""Blackhole as ttnn 0.81.1 offers it: the chip of p150, and what differs on other boards."""

from dataclasses import replace

from .chip import Arch, Arithmetic, Banks, Chip

BLACKHOLE = Chip(
    name="blackhole",
    family="Blackhole",
    arch=Arch.BLACKHOLE,
    # ttnn 0.81.1 on mock clusters of every Blackhole system: compute_with_storage_grid_size().
    grid=(11, 10),
    # ttnn 0.81.1: memory view at open, addresses of the first buffers, buffer_aligned_page_size().
    dram=Banks(count=8, bytes=4_277_141_376, base=1_048_704, page_alignment=64),
    l1=Banks(count=110, bytes=1_461_120, base=111_744, page_alignment=16),
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
    # docs.tenstorrent.com, Blackhole specifications: PCI Express 5.0 x16; 32 GT/s, 128b/130b.
    host_bytes_per_second=32e9 * 16 / 8 * 128 / 130,
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
P150X8 = replace(BLACKHOLE, grid=(12, 10), l1=replace(BLACKHOLE.l1, count=120))
