"""The program that the library chooses for a product by itself, and so where partial sums are rounded.

`tests/data/matmul_programs.csv`: kernels and block sizes that ttnn 0.81.1 built for these calls of `ttnn.linear`; sizes
in tiles.
"""

import csv
import pathlib

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator import dtypes
from ttnn_emulator.chips.wormhole import WORMHOLE
from ttnn_emulator.ops.matmul.operands import Sizes
from ttnn_emulator.ops.matmul.program import automatic

ROWS = list(csv.DictReader((pathlib.Path(__file__).parents[1] / "data" / "matmul_programs.csv").open()))


def test_the_library_s_choice():
    wrong = []
    for row in ROWS:
        m, k, n, batch = (int(row[name]) for name in ("m", "k", "n", "batch"))
        a, w = (getattr(dtypes, row[name]) for name in ("a_dtype", "w_dtype"))
        partial = (
            dtypes.float32 if int(row["fp32_dest_acc_en"]) else dtypes.bfloat16 if int(row["packer_l1_acc"]) else a
        )
        sizes = Sizes((batch, 32 * m, 32 * n), m, k, n, batch, bool(int(row["batched"])), 32 * k)
        in_dram = row["a"] == row["w"] == row["y"] == "DRAM"
        plan = automatic(sizes, None, in_dram, tuple(dtypes.TILE_BYTES[t] for t in (a, w, a, partial)), WORMHOLE)
        if (plan.kind == "plain", plan.block_w) != (bool(int(row["plain"])), int(row["in0_block_w"])):
            wrong.append((row, plan))
    assert len(ROWS) > 400
    assert not wrong, wrong[:5]


def _sharded(kind, where, columns, rows, shard):
    grid = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(columns - 1, rows - 1))})
    spec = ttnn.ShardSpec(grid, shard, ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(getattr(ttnn.TensorMemoryLayout, kind), getattr(ttnn.BufferType, where), spec)


ONE = dict(in0_block_w=1, out_subblock_h=1, out_subblock_w=1, fuse_batch=True, fused_activation=None)
BANKS, PARTS = ("WIDTH_SHARDED", "DRAM", 12, 1, [512, 64]), ("HEIGHT_SHARDED", "DRAM", 8, 1, [64, 768])
SHARDS = ("WIDTH_SHARDED", "L1", 6, 2, [512, 64])


@pytest.mark.parametrize(
    ("weight", "program", "refused"),
    [
        (BANKS, "1d", "not L1-resident"),
        (PARTS, "1d", "not L1-resident"),
        (SHARDS, "1d", None),
        (BANKS, "2d", None),
        (PARTS, "2d", "requires fuse_batch=false"),
        (SHARDS, "2d", r"per_core_N \(3\) must equal"),
    ],
)
def test_where_a_chosen_program_reads_its_weight(device, weight, program, refused):
    """As ttnn 0.81.1 answered on a mock n150, of [64, 512] x [512, 768]."""
    x = ttnn.from_torch(torch.zeros(1, 1, 64, 512), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    w = ttnn.from_torch(
        torch.zeros(1, 1, 512, 768), dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT, device=device,
        memory_config=_sharded(*weight),
    )  # fmt: skip
    if program == "1d":
        config = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
            compute_with_storage_grid_size=(6, 2), per_core_M=2, per_core_N=2, mcast_in0=True, **ONE
        )
    else:
        config = ttnn.MatmulMultiCoreReuseMultiCastProgramConfig(
            compute_with_storage_grid_size=(8, 8), per_core_M=1, per_core_N=3, transpose_mcast=False, **ONE
        )
    if refused is None:
        assert ttnn.linear(x, w, program_config=config).shape == (1, 1, 64, 768)
        return
    with pytest.raises(ttnn.DeviceRejects, match=refused):
        ttnn.linear(x, w, program_config=config)
