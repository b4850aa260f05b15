"""Products by user, and dropout, whose draw is the emulator's own."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

ONCE, LOFI, BFP8 = 3e-3, 8e-2, 2e-2
RM = ttnn.ROW_MAJOR_LAYOUT
PRECISE = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=True)
GRID = dict(compute_with_storage_grid_size=ttnn.CoreCoord(8, 8))
Q, KV, ONE = T((1, 8, 32, 64)), T((32, 2, 64, 96)), T((32, 1, 64, 96))
SHARDS = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (7, 0))]), (32, 64)),
)  # fmt: skip


def by_user(q, kv, **config):
    kv = kv.repeat_interleave(q.shape[1] // kv.shape[1], 1)
    return torch.einsum("hbk,bhkn->hbn", q[0], kv)[None]


def made(a, b, tolerance=ONCE, **how):
    return Case((a, b), {**GRID, "compute_kernel_config": PRECISE, **how}, by_user, tolerance)


def no(words, a=Q, b=KV, error=ttnn.DeviceRejects, **how):
    return Refused((a, b), {**GRID, **how}, words, error)


BOTH = [
    no("Inputs to matmul must be tilized", T((1, 8, 32, 64), layout=RM), ONE),
    no("Input q_len must be 1!", T((2, 8, 32, 64)), ONE),
    no("Num of users must match!", Q, T((16, 1, 64, 96))),
    no("must match for A", Q, T((32, 1, 32, 96))),
    no("fp32_dest_acc_en must be set", T((1, 8, 32, 64), ttnn.float32), ONE),
    no("incompatible function arguments", Q, ONE, TypeError, compute_with_storage_grid_size=(8, 8)),
]
X = T((1, 2, 32, 64))


def drop(**how):
    return dict(probability=0.25, scale=4 / 3, seed=7) | how


CASES = {
    "ttnn.experimental.attn_matmul": [
        made(Q, ONE),
        Case((Q, ONE), GRID, by_user, LOFI),
        made(Q, T((32, 1, 64, 96), ttnn.bfloat8_b), memory_config=ttnn.L1_MEMORY_CONFIG),
        made(T((1, 8, 32, 64), ttnn.float32), T((32, 1, 64, 96), ttnn.float32)),
        made(Q, ONE, BFP8, dtype=ttnn.bfloat8_b),
        made(Q, ONE, output_tensor=T((1, 8, 32, 96), memory_config=ttnn.L1_MEMORY_CONFIG)),
        *BOTH,
        no("Number of kv_heads must be 1!"),
        no("bad optional access", Q, ONE, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG),
    ],
    "ttnn.experimental.group_attn_matmul": [
        made(Q, KV),
        Case((Q, KV), GRID, by_user, LOFI),
        made(Q, ONE, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG),
        made(T((1, 8, 32, 64), memory_config=SHARDS), KV, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG),
        made(T((1, 12, 32, 64)), KV, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG),
        *BOTH,
        no("Number of q_heads must be divisible by kv_heads!", T((1, 7, 32, 64))),
        no("Only batch 32", T((1, 8, 64, 64)), T((64, 2, 64, 96))),
        no("Compute grid size is too small", compute_with_storage_grid_size=ttnn.CoreCoord(4, 4)),
        no("Illegal Runtime Args", compute_with_storage_grid_size=ttnn.CoreCoord(9, 9)),
        no("must match physical height", memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG),
        no(r"2 not in \[-4, 2\)", T((32, 64))),
    ],
    "ttnn.experimental.dropout": [
        Case((X,), drop(probability=0.0), lambda x, scale, **_: x * scale, ONCE),
        Case((X,), drop(probability=1.0), lambda x, **_: x * 0),
        Case((T((1, 8, 32, 64), memory_config=SHARDS),), drop(), None, note="the draw is torch's"),
        Case(
            (X,),
            drop(output_tensor=T((1, 2, 32, 64), memory_config=ttnn.L1_MEMORY_CONFIG)),
            None,
            note="the draw is torch's",
        ),
        Case(
            (X,),
            drop(),
            None,
            system="n300",
            note="a draw on every chip",
            compose=lambda mesh: ttnn.ConcatMeshToTensor(mesh, dim=0),
        ),
        Refused((T((1, 2, 32, 64), ttnn.float32),), drop(), "Input data type: 1, Output data type: 0"),
        Refused((X,), drop(output_tensor=T((1, 2, 32, 64), ttnn.float32)), "Input data type: 0, Output data type: 1"),
        Refused((T((1, 2, 32, 64), layout=RM),), drop(), "requires tensor to be in Tile layout"),
        Refused((X,), drop(output_tensor=T((1, 2, 32, 64), layout=RM)), "requires output tensor to be in Tile layout"),
        Refused((X,), drop(output_tensor=T((1, 1, 32, 64))), "requires its shape to match the input shape"),
        Refused((T((1, 8, 32, 64)),), drop(memory_config=SHARDS), "Input layout: 0, Output layout: 2"),
        Refused((X,), drop(seed=-1), "incompatible function arguments", TypeError),
    ],
}
