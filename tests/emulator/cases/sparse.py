"""sparse_matmul against torch in float32, HiFi4 with an fp32 destination: one rounding to bfloat16 remains."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

ONCE, LOFI = 3e-3, 8e-2  # LoFi sees 5 of the 8 bits of a weight and 7 of the other operand's
RM = ttnn.ROW_MAJOR_LAYOUT


def config(grid=(3, 1), w=1, mcast=True, **more):
    given = dict(out_subblock_h=1, out_subblock_w=1, per_core_M=1, per_core_N=1, fuse_batch=True) | more
    return ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=grid, in0_block_w=w, mcast_in0=mcast, **given
    )


PRECISE = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=True)
PROGRAM = dict(program_config=config())
A, B = T((1, 1, 32, 64)), T((1, 4, 64, 96))


def marks(*values, shape=None):
    return T(values=torch.tensor(values, dtype=torch.float32).reshape(shape or (1, 1, 1, -1)), layout=RM)


def ids(*values, dtype=ttnn.uint16):
    return T(values=torch.tensor(values).reshape(1, 1, 1, -1), dtype=dtype, layout=RM)


def product(a, b, sparsity=None, is_input_a_sparse=False, is_input_b_sparse=True, indices=None, bias=None, **_):
    if indices is not None:
        b = b[:, indices.flatten()]
        y = a[:, :, None, None] @ b if not is_input_a_sparse else a @ b
        return y if bias is None else y + bias.reshape(-1, *bias.shape[-2:])[indices.flatten(), :1]
    y = a @ b if is_input_a_sparse else a[:, :, None, None] @ b
    return y * (sparsity != 0).reshape(y.shape[:-2])[..., None, None]


def compact(a, b, sparsity=None, **_):
    return (a @ b)[:, sparsity.flatten() != 0]


def made(a, b, tolerance=ONCE, **how):
    how = {**PROGRAM, "compute_kernel_config": PRECISE, **how}
    return Case((a, b), how, product, tolerance)


def no(words, a=A, b=B, error=ttnn.DeviceRejects, **how):
    return Refused((a, b), {**PROGRAM, "sparsity": marks(1, 0, 0, 1), **how}, words, error)


CASES = {
    "ttnn.sparse_matmul": [
        made(A, B, sparsity=marks(1, 0, 0, 1)),
        made(A, B, sparsity=marks(0, 1, 0, 1), nnz=2, memory_config=ttnn.L1_MEMORY_CONFIG),
        made(A, B, sparsity=marks(1, 0, 1, 0), output_tile=ttnn.Tile((32, 32))),
        made(T((2, 3, 20, 50)), T((1, 4, 50, 70)), sparsity=marks(*[0, 1, 1] * 8, shape=(2, 3, 1, 4))),
        made(T((1, 4, 32, 64)), B, sparsity=marks(0, 1, 1, 0), is_input_a_sparse=True),
        made(
            T((2, 4, 32, 64)), B, sparsity=marks(*[1, 0] * 4, shape=(1, 1, 2, 4)), is_input_a_sparse=True,
            is_input_b_sparse=False,
        ),
        made(A, B, sparsity=marks(0, 0, 0, 0), indices=ids(3, 1), bias=T((1, 4, 1, 96))),
        made(T((1, 2, 32, 64)), B, sparsity=marks(0, 0, 0, 0), indices=ids(3, 1), is_input_a_sparse=True),
        Case((A, B), dict(PROGRAM, sparsity=marks(1, 1, 1, 1)), product, LOFI),
        Case((A, B), dict(PROGRAM, sparsity=marks(1, 0, 1, 1), nnz=3, compute_kernel_config=PRECISE,
                          optional_output_tensor=T((1, 3, 32, 96))), compact, ONCE),
        no("the number of values in the sparsity tensor", nnz=3),
        no("batch_length \\(4\\) \\[sparsity_shape=Shape\\(\\[1, 1, 1, 5\\]\\)", sparsity=marks(1, 0, 0, 1, 1)),
        no("must be ROW_MAJOR layout", sparsity=T((1, 1, 1, 4))),
        no("at least one of", is_input_b_sparse=False),
        no(r"\(A.shape\[-1\] 64\) and B.shape\[-2\] \(128\) must match", b=T((1, 4, 128, 96))),
        no("must be a floating point type", a=T((1, 1, 32, 64), ttnn.int32)),
        no(r"nnz \(0\) must be greater", nnz=0),
        no(r"nnz \(5\) must be less", nnz=5),
        no("Only mcast_in0", program_config=config(mcast=False)),
        no("wrong index for variant", program_config=ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
            in0_block_w=1, per_core_M=1, per_core_N=1)),
        no(r"Kt \(2\) must be divisible by in0_block_w \(3\)", program_config=config(w=3)),
        no("3 blocks > 2 cores", program_config=config((2, 1))),
        no(r"num_cores_with_work \(3\) must be equal to .* \(4\)", program_config=config((2, 2))),
        no("out_block_w \\(1\\) must be divisible by out_subblock_w", program_config=config(out_subblock_w=2)),
        no("both user core grid", core_grid=ttnn.CoreGrid(x=3, y=1)),
        no("indices must be UINT16", indices=ids(1, 2, dtype=ttnn.uint32)),
        no("num_active \\(5\\) must be <=", indices=ids(1, 2, 3, 0, 1)),
        no("must not be supplied together", indices=ids(1, 2), nnz=2),
        no("bias requires indices", bias=T((1, 4, 1, 96))),
        no("must have padded shape", bias=T((1, 3, 1, 96)), indices=ids(1, 2)),
        no("must match expanded output shape", optional_output_tensor=T((1, 1, 32, 96))),
        no("grow to 2735520 B", a=T((1, 1, 32, 4096)), b=T((1, 8, 4096, 1024)), sparsity=marks(*[1] * 8),
           program_config=config((8, 4), 128, per_core_N=4)),
    ],
}  # fmt: skip
