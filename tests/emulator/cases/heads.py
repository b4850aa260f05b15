"""Splitting into heads and putting them together: values only move."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T


def split(x, n_q, n_kv, transpose_k=True):
    """[B, 1, S, (nq + 2 nk) hd] -> q, k, v as HF's view and transpose give them."""
    b, s, width = x.shape[0], x.shape[-2], x.shape[-1]
    hd = width // (n_q + 2 * n_kv)
    q, k, v = x.reshape(b, s, width).split([n_q * hd, n_kv * hd, n_kv * hd], -1)
    q, k, v = (t.view(b, s, n, hd).transpose(1, 2) for t, n in ((q, n_q), (k, n_kv), (v, n_kv)))
    return q, k.transpose(-2, -1) if transpose_k else k, v


def split_decode(x, num_heads, num_kv_heads):
    q, k, v = split(x, num_heads, num_kv_heads, transpose_k=False)  # [1, n, B, hd]
    return tuple(t.transpose(1, 2) for t in (q, k, v))


def one_user_a_core(x, y, rows, width):
    return ttnn.create_sharded_memory_config(
        (rows, width), ttnn.CoreGrid(x=x, y=y), ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True
    )


def wide(shape, x, y=1):
    return ttnn.create_sharded_memory_config(shape, ttnn.CoreGrid(x=x, y=y), ttnn.ShardStrategy.WIDTH)


# 32 users, one a core, where the cores are no rectangle.
SCATTERED = ttnn.create_sharded_memory_config(
    (32, 64), ttnn.CoreRangeSet([ttnn.CoreRange((1, 0), (7, 3)), ttnn.CoreRange((1, 4), (4, 4))]),
    ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True,
)  # fmt: skip
BLOCKS = 2e-2  # k turned in bfloat8_b is packed anew: blocks run along other values


CASES = {
    "ttnn.experimental.nlp_create_qkv_heads": [
        Case(
            (T((1, 1, 64, 768)),), dict(num_heads=8, num_kv_heads=2, transpose_k_heads=False),
            lambda x, num_heads, num_kv_heads, transpose_k_heads: split(x, num_heads, num_kv_heads, transpose_k_heads),
        ),
        Case((T((2, 1, 20, 768)),), dict(num_heads=4), lambda x, num_heads: split(x, num_heads, num_heads)),
        Case(
            (T((1, 1, 32, 256), dtype=ttnn.bfloat8_b), T((1, 1, 32, 128), dtype=ttnn.bfloat8_b)),
            dict(num_heads=4, num_kv_heads=1),
            lambda q, kv, num_heads, num_kv_heads: (
                q.view(1, 32, 4, 64).transpose(1, 2), kv[:, :, :, :64].transpose(-2, -1), kv[:, :, :, 64:],
            ), BLOCKS,
        ),
        Refused((T((1, 1, 32, 700)),), dict(num_heads=8, num_kv_heads=2), "Unsupported input shape"),
        Refused((T((32, 768)),), dict(num_heads=8, num_kv_heads=2), r"index out of range. 3 not in \[-4, 2\)"),
        Refused((T((1, 1, 32, 768), ttnn.int32),), dict(num_heads=8, num_kv_heads=2), "Unsupported data format"),
        Refused((T((1, 1, 32, 768), layout=ttnn.ROW_MAJOR_LAYOUT),), dict(num_heads=8, num_kv_heads=2), "must be TILE"),
        Refused((T((1, 1, 32, 512)), T((1, 1, 32, 512))), dict(num_heads=8, num_kv_heads=2),
            "Head dims must be the same"),
        Refused((T((1, 1, 32, 768)),), dict(num_heads="8"), "incompatible", TypeError),
        Refused(
            (T((1, 1, 32, 768)),), dict(num_heads=4, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG),
            "must be INTERLEAVED",
        ),
    ],
    "ttnn.experimental.nlp_create_qkv_heads_decode": [
        Case((T((1, 1, 32, 768)),), dict(num_heads=8, num_kv_heads=2), split_decode),
        Case((T((1, 1, 3, 3072)),), dict(num_heads=40, num_kv_heads=4), split_decode),
        Case(
            (T((1, 1, 12, 768), memory_config=wide((32, 768), 6, 2)),),
            dict(num_heads=4, num_kv_heads=4, overlap_qk_coregrid=False),
            lambda x, num_heads, num_kv_heads, overlap_qk_coregrid: split_decode(x, num_heads, num_kv_heads),
            note="k on the twelve cores after those of q",
        ),
        Refused((T((1, 1, 33, 768)),), dict(num_heads=8, num_kv_heads=2), "Unsupported input shape = Shape"),
        Refused((T((1, 1, 32, 960)),), dict(num_heads=8, num_kv_heads=2), r"Physical shard shape \(32, 80\)"),
        Refused((T((1, 1, 32, 1280)),), dict(num_heads=4, num_kv_heads=8), "num_q_heads=4 must be greater"),
        Refused((T((1, 1, 32, 768), ttnn.bfloat8_b),), dict(num_heads=8, num_kv_heads=2), "Unsupported data format"),
    ],
    "ttnn.experimental.nlp_concat_heads": [
        Case((T((2, 8, 20, 64)),), {}, lambda x: x.transpose(1, 2).reshape(2, 1, 20, 512)),
        Refused((T((8, 32, 64)),), {}, r"3 not in \[-4, 3\)"),
        Refused((T((1, 8, 32, 64)),), dict(memory_config=wide((32, 512), 8)), "bad optional access"),
        Refused((T((1, 8, 32, 64), memory_config=one_user_a_core(8, 1, 32, 64)),), {}, "Shard width 64 must match"),
    ],
    "ttnn.experimental.nlp_concat_heads_decode": [
        Case(
            (T((1, 8, 32, 64), memory_config=one_user_a_core(8, 1, 32, 64)),), dict(num_heads=20),
            lambda x, num_heads: torch.nn.functional.pad(x[0, :, :20].reshape(1, 1, 8, 1280), (0, 0, 0, 24)),
        ),
        Case(
            (T((1, 32, 8, 64), memory_config=SCATTERED),), dict(num_heads=8, sub_core_grids=SCATTERED.shard_spec.grid),
            lambda x, num_heads, sub_core_grids: x.reshape(1, 1, 32, 512),
        ),
        Refused((T((1, 32, 8, 64), memory_config=SCATTERED),), dict(num_heads=8), "bad optional access"),
        Refused(
            (T((1, 32, 20, 64), memory_config=SCATTERED),),
            dict(num_heads=20, sub_core_grids=ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (3, 3))])),
            "Target number of cores 20 is greater than total available cores 16",
        ),
        Refused((T((1, 31, 8, 64), memory_config=SCATTERED),),
                dict(num_heads=8, sub_core_grids=SCATTERED.shard_spec.grid), r"num_cores == input_shape\[1\]"),
        Refused((T((1, 32, 8, 64)),), dict(num_heads=8), "must be sharded"),
        Refused(
            (T((1, 8, 8, 64), memory_config=one_user_a_core(8, 1, 32, 64)),), dict(num_heads=70),
            "70 is greater than total number of available cores 64",
        ),
    ],
    "ttnn.transformer.concatenate_heads": [
        Case((T((1, 8, 20, 64)),), {}, lambda x: x.transpose(1, 2).reshape(1, 20, 512)),
        Refused((T((8, 20, 64)),), {}, "must have rank 4"),
        Refused((T((1, 8, 20, 80)),), {}, "Head size must be a multiple of 32"),
    ],
    "ttnn.transformer.split_query_key_value_and_split_heads": [
        Case(
            (T((1, 32, 768)),), dict(num_heads=8, num_kv_heads=2),
            lambda x, num_heads, num_kv_heads: split(x[:, None], num_heads, num_kv_heads),
        ),
        Case(
            (T((2, 20, 256)), T((2, 20, 512))), dict(num_heads=4, transpose_key=False),
            lambda q, kv, num_heads, transpose_key: tuple(
                t.view(2, 20, 4, 64).transpose(1, 2) for t in (q, kv[..., :256], kv[..., 256:])
            ),
        ),
        Refused((T((1, 1, 32, 768)),), dict(num_heads=8), "expected 3 dimensions, but found 4"),
        Refused((T((1, 32, 768)),), dict(num_heads=7), "Invalid head size: 36"),
    ],
}  # fmt: skip
