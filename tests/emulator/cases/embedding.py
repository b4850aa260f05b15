"""embedding moves values: equal to torch's, bit for bit."""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

RM = ttnn.ROW_MAJOR_LAYOUT
IDS, TABLE = T((1, 32), ttnn.uint32, RM, high=64), T((1, 1, 64, 128), layout=RM)


def rows(ids, table, **placement):
    return F.embedding(ids.long(), table.reshape(-1, table.shape[-1]))


CASES = {
    "ttnn.embedding": [
        Case((IDS, TABLE), {}, rows, 0),
        Case((IDS, TABLE), {"layout": ttnn.TILE_LAYOUT, "memory_config": ttnn.L1_MEMORY_CONFIG}, rows, 0),
        Case((IDS, T((64, 128), ttnn.bfloat8_b)), {"layout": RM}, rows, 0),
        Case((T((2, 20), ttnn.uint32, high=64), T((64, 100))), {}, rows, 0),
        Case((T((32,), ttnn.bfloat16, RM, values=torch.arange(32)), TABLE), {}, rows, 0),
        Case((T((1, 1, 1, 32), ttnn.uint32, RM, high=64), TABLE), {"padding_idx": 0}, lambda i, t, **_: rows(i[0, 0],
        t), 0),
        Case((IDS, TABLE), {"layout": ttnn.TILE_LAYOUT, "dtype": ttnn.float32}, rows, 0),
        Refused(
            (T((1, 2), ttnn.uint32, RM, values=torch.tensor([[1, 64]])), TABLE), {},
            r"index 64 is beyond the table of 64 \(1 of 2 indices are\)", ttnn.NotEmulated,
        ),
        Refused((T((1, 32), ttnn.int32, RM), TABLE), {}, "Input must be UINT32 or BFLOAT16"),
        Refused((IDS, T((64, 128), ttnn.float32)), {}, "Weights tensor must have BFLOAT16 dtype"),
        Refused(
            (IDS, T((2, 1, 64, 128), layout=RM)), {}, "First two dimensions for the weights must be 1 but got 2 and 1",
        ),
        Refused(
            (IDS, TABLE), {"dtype": ttnn.float32}, "Can only typecast output embeddings when producing TILE_LAYOUT",
        ),
        Refused((IDS, TABLE), {"layout": ttnn.TILE_LAYOUT, "memory_config": ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG},
        "bad optional"),
    ]
}  # fmt: skip
