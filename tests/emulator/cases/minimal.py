"""minimal_matmul against torch in float32.

With its default fp32 destination two errors remain: HiFi2 drops the last bit of x (up to 2^-7 of half its elements),
and the result is rounded to bfloat16. A bfloat16 destination: 1e-2 on the recorded vectors.
"""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

PRODUCT, BF16, BLOCKS = 6e-3, 2e-2, 3e-2
X, W = T((1, 1, 40, 256)), T((1, 1, 256, 128))


def config(m=4, k=4, n=4, h=2, w=2, grid=(8, 8)):
    return ttnn.MinimalMatmulConfig(
        M_block_size=m, K_block_size=k, N_block_size=n, subblock_h=h, subblock_w=w,
        compute_with_storage_grid_size=ttnn.CoreCoord(*grid),
    )  # fmt: skip


def product(x, w, bias_tensor=None, fused_activation=None, fuse_swiglu=False, chunks=1, **_):
    y = (torch.cat(x, -1) if isinstance(x, (list, tuple)) else x) @ w.reshape(w.shape[-2:])
    y = y if bias_tensor is None else y + bias_tensor.reshape(-1)
    if fused_activation is not None:
        y = {"SILU": torch.nn.functional.silu, "RELU": torch.relu}[fused_activation.op_type.name](y)
    if fuse_swiglu:
        gate, up = y.unflatten(-1, (-1, 2, 32)).unbind(-2)
        y = (torch.nn.functional.silu(gate) * up).flatten(-2)
    return list(y.chunk(chunks, -1)) if chunks > 1 else y


FP16_DEST = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=False)
SILU = ttnn.UnaryWithParam(ttnn.UnaryOpType.SILU)
OP, SPLIT = "ttnn.experimental.minimal_matmul", "ttnn.experimental.minimal_matmul_split"
FLOAT32 = (T((1, 1, 32, 64), ttnn.float32), T((1, 1, 64, 96), ttnn.float32))

CASES = {
    OP: [
        Case((X, W), {}, product, PRODUCT),
        Case((X, W), dict(compute_kernel_config=FP16_DEST), product, BF16),
        Case((X, T((256, 256))), dict(compute_kernel_config=FP16_DEST, config=config(1, 3, 1, 1, 1, (2, 2))), product,
             BF16, note="K in blocks that do not divide it, columns in turns"),
        Case((T((2, 40, 256)), T((256, 70))), dict(bias_tensor=T((70,)), fused_activation=SILU), product, PRODUCT),
        Case((X, W), dict(bias_tensor=T((1, 128)), fused_activation=ttnn.UnaryOpType.RELU), None,
             note="an activation by its type alone"),
        Case((X, W), dict(fuse_swiglu=True, bias_tensor=T((1, 128))), product, 2 * PRODUCT),
        Case((X, T((256, 128), ttnn.bfloat4_b)), dict(dtype=ttnn.bfloat8_b, memory_config=ttnn.L1_MEMORY_CONFIG),
             product, BLOCKS),
        Case(([X, T((1, 1, 40, 64))], T((320, 96))), {}, product, PRODUCT),
        Case(FLOAT32, dict(config=config()), product, 1e-2, note="7 bits of x, in HiFi2"),
        Refused(FLOAT32, {}, r"core range \[0-0 - 7-7\] grow to 1940832 B"),
        Refused((X, T((1, 1, 128, 128))), {}, "got K=256 and K_w=128"),
        Refused((X, T((1, 2, 256, 128))), {}, "weight must have 1 in all dims < -2"),
        Refused((X, T((256, 128), ttnn.int32)), {}, "supports only BFLOAT16"),
        Refused((T((1, 1, 40, 256), layout=ttnn.ROW_MAJOR_LAYOUT), W), {}, "requires TILE layout"),
        Refused((X, W), dict(bias_tensor=T((32, 128))), "bias must be 1 in all dims except the last"),
        Refused((X, W), dict(bias_tensor=T((64,))), r"must equal N \(128\), got 64"),
        Refused((X, W), dict(fuse_swiglu=True, fused_activation=SILU), "cannot combine fuse_swiglu"),
        Refused((X, T((256, 96))), dict(fuse_swiglu=True), "weight width N=96 to be a multiple of"),
        Refused((X, W), dict(fuse_swiglu=True, config=config(n=1, w=1)), r"N_block_tiles \(1\) all even"),
        Refused((X, W), dict(config=ttnn.MinimalMatmulConfig()), "Block sizes must be > 0"),
        Refused((X, W), dict(config=config(h=0)), "Subblock sizes must be > 0"),
        Refused((X, W), dict(config=config(h=3)), r"M_block_size \(4\) must be divisible by subblock_h \(3\)"),
        Refused((X, W), dict(config=config(grid=(1, 8))), "must be >= 2x2"),
        Refused((X, W), dict(config=config(grid=(9, 8))), "must be <= device grid size"),
        Refused((X, W), dict(config=config(h=4)), "must be <= max_dest_volume"),
        Refused((X, W), dict(config=config(16, 8, 8)), "grow to 1940832 B"),
        Refused((X, W), dict(fused_activation="silu"), "incompatible", TypeError),
        Refused(([X], W), {}, "exactly 2 tensors"),
        Refused(([X, T((1, 1, 32, 64))], T((320, 96))), {}, r"dim 2 differs \(input=40, second=32\)"),
        Refused(([X, X], T((320, 96))), {}, r"suffix_padded_K\(256\) must equal weight_padded_K\(320\)"),
        Refused((X, W), dict(dtype=ttnn.int32), "has no model", ttnn.NotEmulated),
    ],
    SPLIT: [
        Case((X, T((256, 192))), dict(chunks=3), product, PRODUCT),
        Case((X, T((256, 64))), dict(chunks=1), lambda x, w, chunks: [product(x, w)], PRODUCT),
        Case((X, T((256, 256))), dict(chunks=2, fuse_swiglu=True), product, 2 * PRODUCT),
        Refused((X, W), dict(chunks=3), "N=128 must be divisible by chunks=3"),
        Refused((X, W), dict(chunks=8), "N/chunks=16 must be a multiple of"),
        Refused((X, W), dict(chunks=0), "requires chunks >= 1"),
        Refused((X, W), dict(chunks=2, dim=2), "only supports dim=-1"),
    ],
}  # fmt: skip
