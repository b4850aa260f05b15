"""Norms and softmax against torch in float32.

The default rms_norm keeps every step in bfloat16 (recorded: 93 % within one unit in the last place of the float32
formula, and an
approximate rsqrt); layer_norm has a float32 destination (97 %). The default softmax has an approximate exponential,
1.5e-2 from
the exact one; with an exact config 99 % are within one unit.
"""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

RMS, LAYER, SOFTMAX, EXACT, BFP8 = 1.2e-2, 6e-3, 2.5e-2, 5e-3, 2e-2
HIFI4 = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True
)
RM = ttnn.ROW_MAJOR_LAYOUT
X, WEIGHT, SPLIT = T((1, 1, 32, 256)), T((1, 1, 1, 256)), T((1, 1, 8, 32), layout=RM)
EIGHT_CORES = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (7, 0))]), (32, 32)),
)  # fmt: skip
TWO_ROWS = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (1, 0))]), (32, 256)),
)  # fmt: skip
S = T((1, 1, 32, 256), memory_config=EIGHT_CORES)


def program(grid=(8, 1), subblock_w=1, block_h=1, block_w=1):
    return ttnn.LayerNormShardedMultiCoreProgramConfig(
        compute_with_storage_grid_size=grid, subblock_w=subblock_w, block_h=block_h, block_w=block_w, inplace=False
    )


def normed(norm):
    def reference(x, epsilon=1e-12, weight=None, bias=None, residual_input_tensor=None, **placement):
        x = x if residual_input_tensor is None else x + residual_input_tensor
        y = norm(x, epsilon)
        y = y if weight is None else y * weight.reshape(-1)[: x.shape[-1]]
        return y if bias is None else y + bias.reshape(-1)[: x.shape[-1]]

    return reference


def norm_cases(norm, tolerance):
    r = normed(norm)
    return [
        Case((X,), {"epsilon": 1e-5, "weight": WEIGHT}, r, tolerance),
        Case((X,), {"epsilon": 1e-5, "weight": SPLIT, "bias": T((1, 1, 8, 32), layout=RM)}, r, tolerance),
        Case((X,), {"weight": WEIGHT, "bias": T((256,)), "compute_kernel_config": HIFI4}, r, EXACT),
        Case((X,), {"residual_input_tensor": T((1, 1, 32, 256)), "memory_config": ttnn.L1_MEMORY_CONFIG}, r, tolerance),
        Case((T((2, 3, 20, 250)),), {"weight": T((1, 1, 1, 250))}, r, tolerance),
        Case((T((1, 1, 32, 256), ttnn.bfloat8_b),), {"weight": WEIGHT}, r, BFP8),
        Case((T((1, 1, 32, 256), ttnn.float32),), {"weight": T((1, 1, 1, 256), ttnn.float32)}, r, tolerance),
        Case((S,), {"weight": SPLIT, "program_config": program(), "memory_config": EIGHT_CORES}, r, tolerance),
        Refused(
            (T((1, 1, 32, 256), ttnn.int32),),
            {},
            "Input tensor must be FLOAT32, BFLOAT16, or BFLOAT8_B, got: DataType::INT32",
        ),
        Refused((X,), {"weight": T((1, 1, 1, 128))}, r"gamma logical width must be >= .*logical\[-1\]=128"),
        Refused((X,), {"bias": T((1, 1, 1, 128))}, "beta logical width must be >="),
        Refused((X,), {"weight": T((1, 1, 1, 256), layout=RM)}, "Gamma's last padded dim needs to equal tile width"),
        Refused((X,), {"weight": T((1, 1, 8, 32), ttnn.int32, RM)}, "Gamma tensor must be FLOAT32 or BFLOAT16"),
        Refused((X,), {"weight": T((1, 1, 64, 256))}, "Gamma tensor height must equal tile height"),
        Refused((X,), {"weight": SPLIT, "bias": WEIGHT}, "Gamma and beta must have the same layout"),
        Refused(
            (X,),
            {"residual_input_tensor": T((1, 1, 32, 128))},
            "Input and residual logical and padded shapes must match",
        ),
        Refused((X,), {"program_config": program()}, "bad optional access"),
        Refused((S,), {"memory_config": ttnn.DRAM_MEMORY_CONFIG}, "Sharded inputs require sharded outputs"),
        Refused((S,), {"program_config": program(block_w=2)}, r"block_w \(2\) must equal"),
        Refused((S,), {"program_config": program(block_h=2)}, r"block_h \(2\) must equal"),
        Refused((S,), {"program_config": program(subblock_w=2)}, "block_w must be divisible by subblock_w"),
        Refused((S,), {"program_config": program(grid=(4, 1))}, "does not fit within program_config grid 4x1"),
        Refused((T((1, 1, 64, 256), memory_config=TWO_ROWS),), {}, "Height sharded inputs are not supported"),
        Refused(
            (T((1, 1, 32, 11008)),),
            {"weight": T((1, 1, 344, 32), layout=RM)},
            r"core range \[0-0 - 0-0\] grow to \d+ B",
        ),
    ]


def rms(x, epsilon):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def layer(x, epsilon):
    return F.layer_norm(x, x.shape[-1:], eps=epsilon)


def softmax(x, dim=-1, **config):
    return x.softmax(dim)


def masked(x, scale=None, mask=None, **config):
    x = x if scale is None else x * scale
    if mask is None:
        return x.softmax(-1)
    return (x + mask.repeat(1, 1, x.shape[2] // mask.shape[2], 1)).softmax(-1)


Q = T((1, 4, 64, 128))
MASKED = [
    Refused((Q, 0.5), {}, "Scale value must not be set when mask is not present"),
    Refused((Q, 0.5, T((1, 1, 32, 64))), {}, "Input and mask inner dimensions must match, got input: 128 vs mask: 64"),
    Refused(
        (T((2, 4, 32, 64)), 0.5, T((1, 1, 32, 64))),
        {},
        "Input and mask batch sizes must match, got input: 2 vs mask: 1",
    ),
    Refused((Q, 0.5, T((1, 4, 32, 128))), {}, "Mask intermediate dimension 1 must be 1, got: 4"),
    Refused((Q, 0.5, T((1, 1, 64, 128))), {}, "Mask height must be 1 or input tensor tile height"),
]
INTEGERS = "Input tensor must be FLOAT32, BFLOAT16, or BFLOAT8_B, got: DataType::INT32"

ONCE = 3e-3  # one rounding to bfloat16
#: Sums in a bfloat16 destination, the default of norms over chips, which rounds the running sum after every 16
#: columns: the device's own distance, recorded as 6.1e-3 to 7.9e-3.
SUMMED = 7.9e-3
#: In an fp32 destination each of 16 additions of 16 columns rounds to 11 bits, up to 2^-12: together their rms.
WIDELY_SUMMED = 4 * 2**-12 / 3**0.5
SUMS, MEANS = torch.full((1, 1, 32), 256.0), torch.full((1, 1, 32), 16.0)


def attended(x, head_size=None, attention_mask=None):
    return masked(x, head_size**-0.5, attention_mask)


def columns(*sums):
    """Statistics as a chip keeps them: each sum in the first column of a tile."""
    stats = torch.zeros(*sums[0].shape, len(sums), 32)
    for i, s in enumerate(sums):
        stats[..., i, 0] = s
    return stats.flatten(-2)


PARTS = [
    Refused((T((1, 1, 32, 256), ttnn.float32),), {}, "requires fp32_dest_acc_en=true"),
    Refused((T((1, 1, 32, 256), layout=RM),), {}, "Only tilized inputs supported"),
    Refused((T((1, 1, 32, 256), ttnn.int32),), {}, "Input data format not supported"),
    Refused((S,), {}, "wrong index for variant"),
]
GATHERED = [
    Refused((X, T((1, 1, 64, 64))), {}, "Stats and input dim2 must match, got stats: 64 vs input: 32"),
    Refused((X, T((1, 1, 32, 64))), {"weight": T((1, 1, 4, 32), layout=RM)}, "Gamma tensor dimensions must align"),
    Refused((X, T((1, 1, 32, 64), ttnn.float32)), {}, "FLOAT32 input/stats require fp32_dest_acc_en"),
    Refused((T((1, 1, 32, 256), layout=RM), T((1, 1, 32, 64))), {}, "Input tensor must have TILE layout"),
]

CASES = {
    "ttnn.rms_norm": [
        *norm_cases(rms, RMS),
        Refused((T((1, 1, 32, 256), layout=RM),), {}, "does not support ROW_MAJOR input tensors"),
    ],
    "ttnn.layer_norm": [
        *norm_cases(layer, LAYER),
        Case((T((1, 1, 32, 256), layout=RM),), {"weight": WEIGHT}, normed(layer), LAYER),
        Refused((T((1, 1, 32, 50), layout=RM),), {}, r"requires W \(50\) to be a multiple of tile width"),
    ],
    "ttnn.softmax": [
        Case((X, -1), {}, softmax, SOFTMAX),
        Case((X,), {"dim": -1, "compute_kernel_config": HIFI4}, softmax, EXACT),
        Case((T((2, 3, 20, 50)), 1), {"compute_kernel_config": HIFI4, "memory_config": ttnn.L1_MEMORY_CONFIG},
        softmax, EXACT),
        Case((T((1, 1, 32, 256), ttnn.float32),), {}, softmax, EXACT),
        Case((T((1, 1, 32, 256), ttnn.bfloat8_b),), {}, softmax, 2 * SOFTMAX),
        Case((X,), {"numeric_stable": False, "compute_kernel_config": HIFI4}, softmax, EXACT),
        Refused((X, 4), {}, r"Dimension out of range \(expected to be in range of \[-4, 3\], but got 4\)"),
        Refused((T((1, 1, 32, 256), ttnn.int32), -1), {}, INTEGERS),
    ],
    "ttnn.softmax_in_place": [
        Case((X,), {"compute_kernel_config": HIFI4}, softmax, EXACT, changes=0),
        Refused((X, 2), {}, "Invalid dimension: 2. Currently softmax inplace supports dim -1"),
        Refused((T((32, 64)),), {}, "Invalid dimension: 1"),
        Refused((T((1, 1, 32, 64), layout=RM),), {}, "Inputs to softmax must be tilized"),
    ],
    "ttnn.scale_mask_softmax": [
        Case((Q, 0.5, T((1, 1, 32, 128))), {"compute_kernel_config": HIFI4}, masked, 2 * EXACT),
        Case((Q, None, T((1, 1, 1, 128))), {"compute_kernel_config": HIFI4}, masked, 2 * EXACT),
        Case((Q,), {}, masked, SOFTMAX),
        *MASKED,
    ],
    "ttnn.scale_mask_softmax_in_place": [
        Case((Q, 0.5, T((1, 1, 1, 128))), {"compute_kernel_config": HIFI4}, masked, 2 * EXACT, changes=0), *MASKED,
    ],
    "ttnn.scale_causal_mask_hw_dims_softmax_in_place": [
        Case(
            (T((1, 2, 32, 256), memory_config=TWO_ROWS), 0.5, T((1, 1, 32, 256))),
            {"compute_kernel_config": HIFI4, "program_config": ttnn.SoftmaxShardedMultiCoreProgramConfig(
                compute_with_storage_grid_size=(2, 1), subblock_w=1, block_h=1, block_w=8)},
            masked, 2 * EXACT, changes=0,
        ),
        Refused((Q,), {}, "Causal-mask softmax requires an attention mask"),
        Refused((Q, 0.5, T((1, 1, 32, 128))), {}, "not supported in default program config"),
    ],
    "ttnn.transformer.attention_softmax": [
        Case((Q,), {"head_size": 64, "attention_mask": T((1, 1, 32, 128))}, attended, SOFTMAX),
        Case((Q,), {"head_size": 64}, attended, SOFTMAX),
        Refused((Q,), {"attention_mask": T((1, 4, 32, 128))}, "Mask intermediate dimension 1 must be 1, got: 4"),
    ],
    "ttnn.transformer.attention_softmax_": [
        Case((Q,), {"head_size": 64, "attention_mask": T((1, 1, 1, 128))}, attended, SOFTMAX, changes=0),
        Refused((Q,), {"head_size": 64}, "Cannot apply divide by sqrt"),
        Refused(
            (Q,), {"attention_mask": T((1, 4, 32, 128))}, "Non-sharded mask intermediate dimensions must be 1, got 4",
        ),
    ],
    "ttnn.rms_norm_pre_all_gather": [
        Case((X,), {}, lambda x, **_: columns(x.square().sum(-1)), SUMMED),
        Case((X,), {"compute_kernel_config": HIFI4}, lambda x, **_: columns(x.square().sum(-1)), ONCE),
        Case((X,), {"compute_kernel_config": HIFI4, "dtype": ttnn.float32}, lambda x, **_: columns(x.square().sum(-1)),
             WIDELY_SUMMED),
        Case((X,), {"residual_input_tensor": X, "compute_kernel_config": HIFI4, "dtype": ttnn.float32},
             lambda x, residual_input_tensor, **_: columns((x + residual_input_tensor).square().sum(-1)),
             WIDELY_SUMMED),
        Case((T((2, 1, 20, 100)),), {"residual_input_tensor": T((2, 1, 20, 100))},
             lambda x, residual_input_tensor: columns((x + residual_input_tensor).square().sum(-1)), SUMMED),
        *PARTS,
    ],
    "ttnn.layer_norm_pre_all_gather": [
        Case((X,), {"dtype": ttnn.float32}, lambda x, **_: columns(x.square().sum(-1), x.sum(-1)), SUMMED),
        Case((X,), {"dtype": ttnn.float32, "compute_kernel_config": HIFI4},
             lambda x, **_: columns(x.square().sum(-1), x.sum(-1)), WIDELY_SUMMED),
        *PARTS,
    ],
    "ttnn.rms_norm_post_all_gather": [
        Case((X, T((1, 1, 32, 64), values=columns(SUMS, SUMS))), {"weight": SPLIT, "epsilon": 1e-5},
             lambda x, s, weight, epsilon: x * (2 * SUMS[..., None] / 512 + epsilon).rsqrt() * weight.reshape(-1),
             ONCE),
        *GATHERED,
    ],
    "ttnn.layer_norm_post_all_gather": [
        Case((X, T((1, 1, 32, 64), ttnn.bfloat16, values=columns(SUMS, MEANS))), {"bias": WEIGHT},
             lambda x, s, bias: (x - s[..., 32:33] / 256)
             * (s[..., :1] / 256 - (s[..., 32:33] / 256) ** 2 + 1e-12).rsqrt() + bias, ONCE),
        Refused((X, T((1, 1, 32, 32))), {}, "Number of devices must divide number of stats tiles"),
        *GATHERED,
    ],
}  # fmt: skip
