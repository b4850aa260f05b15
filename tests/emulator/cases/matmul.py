"""Products against torch in float32.

The device's own distance from the exact product of its operands,
recorded: 5e-3 (K = 64) to 8e-3 (K = 512) by default, 2.7e-2 in LoFi,
1.7e-3 with HiFi4 and a float32 destination. Block formats are read back as they were quantised, so they add nothing.
"""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

DEFAULT, LOFI, EXACT, BFP8 = 1.2e-2, 4e-2, 3e-3, 2e-2
HIFI4 = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True, packer_l1_acc=True
)
RM = ttnn.ROW_MAJOR_LAYOUT
X, W, BIAS = T((1, 1, 32, 64)), T((1, 1, 64, 96)), T((1, 1, 1, 96))
WIDE_X, WIDE_W = T((1, 1, 32, 512)), T((1, 1, 512, 1024))


def sharded(kind, grid, shape, buffer=ttnn.BufferType.L1):
    cores = ttnn.CoreRangeSet([ttnn.CoreRange(grid[:2], grid[2:])])
    return ttnn.MemoryConfig(getattr(ttnn.TensorMemoryLayout, f"{kind}_SHARDED"), buffer, ttnn.ShardSpec(cores, shape))


def one_d(in0_block_w=2, out_subblock_w=1, per_core_M=1, per_core_N=2, mcast_in0=True, grid=(8, 8), **others):
    return ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=grid, in0_block_w=in0_block_w, out_subblock_h=1, out_subblock_w=out_subblock_w,
        per_core_M=per_core_M, per_core_N=per_core_N, mcast_in0=mcast_in0, fuse_batch=True, **others,
    )  # fmt: skip


def two_d(in0_block_w=2, out_subblock_w=1, per_core_M=1, per_core_N=4, grid=(8, 8), transpose_mcast=False, **others):
    return ttnn.MatmulMultiCoreReuseMultiCastProgramConfig(
        compute_with_storage_grid_size=grid, in0_block_w=in0_block_w, out_subblock_h=1, out_subblock_w=out_subblock_w,
        per_core_M=per_core_M, per_core_N=per_core_N, transpose_mcast=transpose_mcast, **others,
    )  # fmt: skip


def dram(per_core_N=4, in0_block_w=2):
    return ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
        in0_block_w=in0_block_w, per_core_M=1, per_core_N=per_core_N
    )


ACTIVATIONS = {"silu": F.silu, "relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh}


def product(
    a, b, bias=None, transpose_a=False, transpose_b=False, activation=None, optional_output_tensor=None, **config
):
    y = (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)
    y = y if bias is None else y + bias
    if isinstance(activation, ttnn.UnaryWithParam):
        return F.leaky_relu(y, activation.params[0])
    return y if activation is None else ACTIVATIONS[activation](y)


WIDTH, HEIGHT, BLOCK = (
    ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG,
    ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG,
    ttnn.L1_BLOCK_SHARDED_MEMORY_CONFIG,
)
IN_L1 = sharded("WIDTH", (0, 0, 7, 0), (32, 64))
NAME_1D, NAME_2D = "MatmulMultiCoreReuseMultiCast1DProgramConfig", "MatmulMultiCoreReuseMultiCastProgramConfig"

PRODUCTS = [
    Case((X, W), {}, product, DEFAULT),
    Case((X, W), {"compute_kernel_config": HIFI4}, product, EXACT),
    Case((X, W), {"compute_kernel_config": HIFI4, "dtype": ttnn.float32}, product, EXACT),
    Case((WIDE_X, WIDE_W), {}, product, DEFAULT),
    Case((T((1, 1, 20, 50)), T((1, 1, 50, 30))), {}, product, DEFAULT),
    Case((X, T((1, 1, 64, 96), ttnn.bfloat8_b)), {}, product, DEFAULT),
    Case((X, T((1, 1, 64, 96), ttnn.bfloat4_b)), {}, product, DEFAULT),
    Case((T((1, 1, 32, 64), ttnn.bfloat8_b), T((1, 1, 64, 96), ttnn.bfloat8_b)), {}, product, LOFI),
    Case((T((1, 1, 32, 64), ttnn.float32), T((1, 1, 64, 96), ttnn.float32)), {}, product, EXACT),
    Case((X, W), {"dtype": ttnn.bfloat8_b}, product, BFP8),
    Case((T((1, 1, 64, 32)), W), {"transpose_a": True}, product, DEFAULT),
    Case((X, T((1, 1, 96, 64))), {"transpose_b": True}, product, DEFAULT),
    Case((T((2, 3, 32, 64)), T((2, 3, 64, 96))), {}, product, DEFAULT),
    Case((T((2, 3, 32, 64)), T((64, 96))), {}, product, DEFAULT),
    Case((T((64,)), T((64, 96))), {}, product, DEFAULT),
    Case((T((32, 64)), T((64,))), {}, product, DEFAULT),
    Case((X, W), {"activation": "silu"}, product, DEFAULT),
    Case((X, W), {"activation": ttnn.UnaryWithParam(ttnn.UnaryOpType.LEAKY_RELU, 0.1)}, product, DEFAULT),
    Case((X, W), {"optional_output_tensor": T((1, 1, 32, 96), ttnn.float32)}, product, DEFAULT),
    Case((X, W), {"memory_config": WIDTH}, product, DEFAULT),
    Case((T((1, 1, 2048, 64)), T((1, 1, 64, 64))), {"memory_config": HEIGHT}, product, DEFAULT),
    Case((WIDE_X, WIDE_W), {"core_grid": ttnn.CoreGrid(x=8, y=4)}, product, LOFI),
    Case((WIDE_X, WIDE_W), {"program_config": one_d()}, product, LOFI),
    Case((WIDE_X, WIDE_W), {"program_config": one_d(per_core_N=4), "memory_config": WIDTH, "compute_kernel_config":
    HIFI4}, product, EXACT),
    Case((T((1, 1, 256, 512)), WIDE_W), {"program_config": two_d(), "memory_config": BLOCK}, product, LOFI),
    Case((T((1, 1, 32, 512), memory_config=IN_L1), WIDE_W), {"memory_config": WIDTH}, product, DEFAULT),
    Case(
        (T((1, 1, 32, 512), memory_config=IN_L1),
         T((1, 1, 512, 1024), ttnn.bfloat8_b, memory_config=sharded("WIDTH", (0, 0, 11, 0), (512, 96),
         ttnn.BufferType.DRAM))),
        {"program_config": dram(), "memory_config": WIDTH, "compute_kernel_config": HIFI4}, product, EXACT,
    ),
    Refused((X, T((1, 1, 32, 96))), {}, r"width of the first tensor must be equal .*width=64 height=32"),
    Refused((T((1, 1, 32, 64), layout=RM), W), {}, "Inputs to matmul must be tilized"),
    Refused((T((1, 1, 32, 64), ttnn.int32), W), {}, "Unsupported data format for input A: DataType::INT32"),
    Refused((X, T((1, 1, 64, 96), ttnn.uint32)), {}, "Unsupported data format for input B: DataType::UINT32"),
    Refused((T((1, 1, 32, 64), host=True), W), {}, "Operand to matmul must be on device"),
    Refused((T((2, 3, 32, 64)), T((2, 1, 64, 96))), {}, r"batch dimension 1 mismatch: a=3 vs b=1"),
    Refused((T((2, 3, 32, 64)), T((3, 64, 96))), {}, "requires inputs of the same rank"),
    Refused((T((32, 64)), T((2, 64, 96))), {}, "When in1 rank greater than in0 rank"),
    Refused((X, W), {"activation": "bogus"}, "Unknown unary op: bogus"),
    Refused(
        (X, W), {"activation": ttnn.UnaryWithParam(ttnn.UnaryOpType.LEAKY_RELU)}, "Undefined non-parametrized op type",
    ),
    Refused((X, W), {"optional_output_tensor": T((1, 1, 32, 64))}, "Invalid optional output tensor"),
    Refused(
        (X, W), {"optional_output_tensor": T((1, 1, 32, 96)), "dtype": ttnn.float32}, "Type mismatch between optional",
    ),
    Refused(
        (X, W), {"core_grid": ttnn.CoreGrid(x=8, y=8), "program_config": one_d()}, "Cannot use both user core grid",
    ),
    Refused(
        (WIDE_X, WIDE_W), {"program_config": one_d(grid=(8, 9))},
        rf"{NAME_1D}: compute_with_storage_grid_size \(8, 9\)",
    ),
    Refused(
        (WIDE_X, WIDE_W), {"program_config": one_d(in0_block_w=3)}, r"Kt \(16\) must be divisible by in0_block_w \(3\)",
    ),
    Refused(
        (WIDE_X, WIDE_W), {"program_config": one_d(out_subblock_w=3)},
        r"out_block_w \(2\) must be divisible by out_subblock_w \(3\)",
    ),
    Refused((WIDE_X, WIDE_W), {"program_config": one_d(per_core_N=16, out_subblock_w=16)}, "needs to be at most 8"),
    Refused(
        (WIDE_X, WIDE_W), {"program_config": one_d(per_core_N=8, out_subblock_w=8), "compute_kernel_config": HIFI4},
        "needs to be at most 4",
    ),
    Refused(
        (WIDE_X, WIDE_W), {"program_config": one_d(grid=(2, 2))},
        "Number of blocks exceeds number of cores: 16 blocks > 4",
    ),
    Refused((T((1, 1, 64, 512)), WIDE_W), {"program_config": one_d()}, r"mcast_in0 requires M \(2\)"),
    Refused(
        (T((1, 1, 256, 512)), WIDE_W), {"program_config": two_d(per_core_N=2)}, r"Num output blocks along x \(16\)",
    ),
    Refused(
        (T((1, 1, 1024, 1024)), T((1, 1, 1024, 1024))),
        {"program_config": two_d(in0_block_w=32, per_core_M=32, per_core_N=32, grid=(1, 1))},
        r"core range \[0-0 - 0-0\] grow to 6397280 B which is beyond max L1 size of 1499136 B",
    ),
    Refused(
        (T((1, 1, 32, 512), memory_config=IN_L1), WIDE_W), {"memory_config": BLOCK},
        "Input A and output memory layouts must match"
    ),
    Refused((T((1, 1, 32, 512), memory_config=IN_L1), WIDE_W), {"program_config": dram(), "memory_config": WIDTH},
    "WIDTH_SHARDED, got"),
]  # fmt: skip


def added(c, a, b, alpha=1.0, beta=1.0, **config):
    return beta * c + alpha * (a @ b)


INTERLEAVED = T((1, 1, 32, 64), memory_config=ttnn.L1_MEMORY_CONFIG)

CASES = {
    "ttnn.matmul": PRODUCTS,
    "ttnn.linear": [
        *PRODUCTS,
        Case((X, W), {"bias": BIAS}, product, DEFAULT),
        Case((X, W), {"bias": T((96,), layout=RM)}, product, DEFAULT),
        Case((X, W), {"bias": T((1, 1, 32, 1)), "activation": "gelu"}, product, DEFAULT),
        Case((T((2, 3, 20, 64)), W), {"bias": T((1, 1, 1, 96), ttnn.float32), "compute_kernel_config": HIFI4},
        product, EXACT),
        Case((INTERLEAVED, W), {"bias": BIAS}, product, DEFAULT),
        Case((INTERLEAVED, W), {"bias": BIAS, "activation": "silu", "compute_kernel_config": HIFI4}, product, EXACT),
        Case((T((2, 3, 32, 64)), T((2, 3, 64, 96))), {"bias": BIAS, "activation": "relu"}, product, DEFAULT),
        Refused(
            (T((1, 1, 32, 64), memory_config=ttnn.create_sharded_memory_config((32, 64), ttnn.CoreGrid(x=1, y=1),
            ttnn.ShardStrategy.WIDTH)), W), {"activation": "silu"}, "Sharded matmul run with UnaryOpType::SILU",
        ),
        Refused(
            (X, W), {"bias": T((1, 1, 1, 64))},
            r"Broadcasting rule violation at dimension index -1 .*dim a: 96, dim b: 64",
        ),
        Refused((X, W), {"bias": T((1, 1, 2, 96))}, "Broadcast error: Invalid dimension"),
        Refused((X, W, BIAS), {}, "incompatible function arguments", TypeError),
    ],
    "ttnn.addmm": [
        Case((T((32, 96)), T((32, 64)), T((64, 96))), {}, added, DEFAULT),
        Case((T((32, 96)), T((32, 64)), T((64, 96))), {"alpha": 0.5, "beta": 2.0}, added, DEFAULT),
        Refused((T((1, 96)), T((32, 64)), T((64, 96))), {}, "must have shape matching one of result"),
    ],
}  # fmt: skip
