"""The program that the library chooses for a product by itself, and so where partial sums are rounded.

`tests/data/matmul_programs.csv`: kernels and block sizes that ttnn 0.81.1 built for these calls of `ttnn.linear`; sizes
in tiles.
"""

import csv
import pathlib

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
