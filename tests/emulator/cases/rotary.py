"""Rotary embeddings against HF's formula in float32.

Two products and a sum, each rounded to bfloat16 after four passes of the matrix unit: 4e-3 relative L2 of the exact
result on the recorded vectors (the products shrink by 0.1 %); the bound is twice that.
"""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
from tests.emulator.cases.heads import one_user_a_core

ROTARY = 8e-3
BLOCKS = 3e-2  # bfloat8_b in and out: half a step of 1/64 at each value


def turn(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def padded(x):
    rows = -x.shape[-2] % 32
    return torch.nn.functional.pad(x, (0, 0, 0, rows))


def prefill(x, cos, sin):
    x = padded(x)
    return turn(x, cos[..., : x.shape[-2], :], sin[..., : x.shape[-2], :])


def at_one_position(x, cos, sin, token_index):
    return turn(padded(x), cos[..., token_index, :], sin[..., token_index, :])


def by_rows(x, cos, sin, is_decode_mode=False):
    rows = 1 if is_decode_mode else x.shape[-2]
    return turn(x, cos[..., :rows, :], sin[..., :rows, :])


def neighbours(x, cos, sin, matrix, is_decode_mode=False):
    rows = 1 if is_decode_mode else x.shape[-2]
    turned = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
    return x * cos[..., :rows, :] + turned * sin[..., :rows, :]


MATRIX = torch.zeros(32, 32)
MATRIX[torch.arange(1, 32, 2), torch.arange(0, 32, 2)] = -1
MATRIX[torch.arange(0, 32, 2), torch.arange(1, 32, 2)] = 1
TABLE = T((1, 1, 128, 64), low=-1.0)
SHARDED = one_user_a_core(8, 1, 32, 64)
OP, HF, LLAMA = (
    "ttnn.experimental.rotary_embedding",
    "ttnn.experimental.rotary_embedding_hf",
    "ttnn.experimental.rotary_embedding_llama",
)
FUSED = "ttnn.experimental.rotary_embedding_llama_fused_qk"
HIFI2 = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi2)


def on(first, cores, width=64):
    """32 rows on each of so many cores of the first row of the grid."""
    grid = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(first, 0), ttnn.CoreCoord(first + cores - 1, 0))])
    shards = ttnn.ShardSpec(grid, [32, width], ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, shards)


def fused(heads=5, width=64, at=(0, 4)):
    """q and k of four users, whose cores begin at `at`, with tables and matrices for both."""
    table = T((1, 8, 32, width), memory_config=on(0, 8, width), low=-1.0)
    return (
        T((1, 4, heads, width), memory_config=on(at[0], 4, width)),
        T((1, 4, 2, width), memory_config=on(at[1], 4, width)),
        table,
        table,
        T(values=MATRIX.repeat(8, 1)[None, None], memory_config=on(0, 8, 32)),
    )


def both(q, k, cos, sin, matrix, **_):
    halves = zip((q, k), cos.chunk(2, 1), sin.chunk(2, 1))
    return tuple(neighbours(x, c, s, matrix, is_decode_mode=True) for x, c, s in halves)


CASES = {
    OP: [
        Case((T((1, 8, 64, 64)), TABLE, TABLE), {}, prefill, ROTARY),
        Case((T((1, 8, 20, 64)), TABLE, TABLE), {}, prefill, ROTARY, note="20 rows come out as 32"),
        Case((T((1, 32, 8, 64)), TABLE, TABLE), dict(token_index=77), at_one_position, ROTARY),
        Case((T((1, 8, 8, 64), memory_config=SHARDED), TABLE, TABLE), dict(token_index=0), at_one_position, ROTARY),
        Case((T((1, 2, 32, 64), ttnn.bfloat8_b), TABLE, TABLE), {}, prefill, BLOCKS),
        Refused((T((1, 8, 64, 96)), T((1, 1, 64, 96)), T((1, 1, 64, 96))), {}, r"Input X dimension \(96\)"),
        Refused((T((1, 8, 160, 64)), TABLE, TABLE), {}, "Input sequence length: 160, Cos cache sequence length: 128"),
        Refused((T((1, 8, 32, 64)), TABLE, TABLE), dict(token_index=128), "Token index: 128"),
        Refused((T((1, 8, 32, 64)), TABLE, TABLE), dict(token_index=-1), "incompatible", TypeError),
        Refused((T((1, 8, 32, 64)), TABLE, T((1, 1, 64, 64))), {}, "Cosine and Sine cache dimensions must match"),
        Refused((T((1, 8, 32, 64)), T((128, 64)), T((128, 64))), {}, r"Expected \(1, 1, 64\)"),
        Refused(
            (T((1, 1, 32, 64), memory_config=ttnn.create_sharded_memory_config(
                (32, 64), ttnn.CoreGrid(x=2, y=1), ttnn.ShardStrategy.WIDTH)), TABLE, TABLE), dict(token_index=1),
            "must not be WIDTH_SHARDED",
        ),
    ],
    HF: [
        Case((T((1, 8, 20, 64)), TABLE, TABLE), {}, by_rows, ROTARY, note="20 rows stay 20"),
        Case(
            (T((1, 8, 5, 64), memory_config=SHARDED), *[T((1, 8, 1, 64), memory_config=SHARDED, low=-1.0)] * 2),
            dict(is_decode_mode=True), by_rows, ROTARY, note="each user at its own position",
        ),
        Refused((T((1, 8, 160, 64)), TABLE, TABLE), {}, "Input seq_len: 160, Cos seq_len: 128"),
        Refused((T((1, 8, 32, 64)), T((1, 8, 32, 64)), T((1, 8, 32, 64))), {}, "batch dim = 1 in prefill"),
        Refused((T((1, 8, 5, 64)), T((1, 8, 1, 64)), T((1, 8, 1, 64))), dict(is_decode_mode=True),
            "Input must be sharded"),
        Refused(
            (T((1, 8, 5, 64), memory_config=SHARDED), T((1, 8, 1, 64)), T((1, 8, 1, 64))), dict(is_decode_mode=True),
            "Cos must be sharded",
        ),
    ],
    LLAMA: [
        Case((T((1, 8, 64, 64)), TABLE, TABLE, T(values=MATRIX[None, None])), {}, neighbours, ROTARY),
        Case(
            (T((1, 8, 4, 64), memory_config=SHARDED), *[T((1, 8, 1, 64), memory_config=SHARDED, low=-1.0)] * 2,
             T(values=MATRIX.repeat(8, 1)[None, None], memory_config=one_user_a_core(8, 1, 32, 32))),
            dict(is_decode_mode=True), neighbours, ROTARY,
        ),
        Refused((T((1, 8, 64, 64), ttnn.float32), TABLE, TABLE, T((1, 1, 32, 32))), {}, "must have dtype = bfloat16"),
        Refused((T((1, 8, 64, 64)), TABLE, TABLE, T((1, 1, 32, 32))), dict(is_decode_mode=True),
            "must be HEIGHT_SHARDED"),
    ],
    "ttnn.experimental.rotate_half": [
        Case((T((1, 8, 64, 64)),), {}, lambda x: torch.cat([-x[..., 32:], x[..., :32]], -1)),
        Refused((T((1, 8, 64, 32)),), {}, r"Input X dimension \(32\)"),
    ],
    FUSED: [
        Case(fused(), {}, both, ROTARY, note="the first half of the tables is q's"),
        Case(fused(heads=1, width=128), dict(compute_kernel_config=HIFI2), both, 2 * ROTARY),
        Case(fused(at=(4, 0)), {}, lambda q, k, c, s, m: both(q, k, c.roll(4, 1), s.roll(4, 1), m), ROTARY,
             note="a core reads the tables that lie on it"),
        Refused(fused(at=(0, 0)), {}, "Q and K must not overlap"),
        Refused((T((1, 4, 5, 64), ttnn.float32, memory_config=on(0, 4)), *fused()[1:]), {}, "Q input .* be bfloat16"),
        Refused((T((1, 4, 5, 64)), *fused()[1:]), {}, "Q input tensor must be HEIGHT_SHARDED"),
        Refused((*fused()[:2], *[T((1, 4, 32, 64), memory_config=on(0, 4))] * 2, fused()[4]), {},
                "same batch size as the sum of Q and K batch sizes"),
        Refused((*fused()[:4], T((1, 1, 128, 32), memory_config=on(0, 4, 32))), {}, "over core grid of Q and K"),
        Refused((fused()[0], T((1, 3, 2, 64), memory_config=on(4, 3)), *fused()[2:]), {}, "have the equal batch size"),
        Refused((fused()[0], *fused(width=128)[1:]), {}, "must have same head dimensions"),
    ],
}  # fmt: skip
