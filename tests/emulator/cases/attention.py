"""Attention against float32 softmax(q k^T) v.

The device's own distance from it, measured on the recorded vectors: 2.0e-2 to 3.0e-2 by default (bf16 destination,
approximate exp), 2.6e-3 with HiFi4, fp32 destination and exact exp. Short rows of random values are worse than long
ones: the bound is 4e-2, and 1e-2 for the exact config.
"""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
from tests.emulator.cases.heads import one_user_a_core

DEFAULT, EXACT = 4e-2, 1e-2
CONFIG = ttnn.WormholeComputeKernelConfig(
    math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True
)


def program(q=32, k=32, exact=False, grid=(8, 8)):
    return ttnn.SDPAProgramConfig(
        compute_with_storage_grid_size=grid, q_chunk_size=q, k_chunk_size=k, exp_approx_mode=False if exact else None
    )


def attend(q, k, v, allowed=None, bias=None, scale=None, sink=None):
    """[B, nq, S, hd], [B, nk, L, hd]; allowed [S, L] or more dims; sink [1, nq, 1, 1]: one more score, scaled."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    if sink is not None:
        more = (sink * q.shape[-1] ** -0.5).expand(*scores.shape[:-1], 1)
        return torch.cat([scores, more], -1).softmax(-1)[..., :-1] @ v
    return scores.softmax(-1) @ v


def sdpa(
    q, k, v, is_causal=True, attn_mask=None, scale=None, sliding_window_size=None, attention_sink=None, **config
):  # fmt: skip
    s, length = q.shape[2], k.shape[2]
    allowed = torch.ones(s, length, dtype=torch.bool)
    if is_causal:
        allowed = allowed.tril()
    if sliding_window_size and is_causal:
        allowed &= ~torch.ones(s, length, dtype=torch.bool).tril(-sliding_window_size)
    elif sliding_window_size:
        allowed &= (torch.arange(s)[:, None] - torch.arange(length)).abs() <= sliding_window_size // 2
    return attend(q, k, v, allowed, attn_mask, scale, attention_sink)


def decode(
    q, k, v, cur_pos=None, cur_pos_tensor=None, page_table_tensor=None, is_causal=True, attn_mask=None,
    attention_sink=None, sliding_window_size=0, **config,
):  # fmt: skip
    """One query per user; users at -1 come out as zero. The kernel scales a mask with the scores."""
    sink = None if attention_sink is None else attention_sink[None, :, :1, None]
    if page_table_tensor is not None:
        k, v = (t[page_table_tensor].transpose(1, 2).flatten(2, 3) for t in (k, v))
    positions = cur_pos if cur_pos is not None else cur_pos_tensor
    out = torch.zeros_like(q)
    for user in range(q.shape[1]):
        last = int(positions[user]) if is_causal else k.shape[2] - 1
        if last >= 0:
            mask = None if attn_mask is None else attn_mask[user].transpose(0, 1)[None] * q.shape[-1] ** -0.5
            seen = slice(max(0, last + 1 - sliding_window_size) if sliding_window_size else 0, last + 1)
            keys, values = (t[user : user + 1, :, seen] for t in (k, v))
            one = attend(q[:, user, :, None], keys, values, bias=mask, sink=sink)
            out[0, user] = one[0, :, 0]
    return out


def chunked(q, k, v, page_table, start, sliding_window_size=None, **config):
    k, v = (t[page_table].transpose(1, 2).flatten(2, 3)[:, :, : start + q.shape[2]] for t in (k, v))
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(start)
    if sliding_window_size:
        allowed &= ~torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(start - sliding_window_size)
    return attend(q, k, v, allowed)


Q, KV = T((1, 4, 96, 64)), T((1, 2, 96, 64))
MASK = T(values=torch.zeros(1, 1, 96, 96).masked_fill(torch.ones(96, 96).triu(1).bool(), -1e4))
DISTANCE = (torch.arange(96)[:, None] - torch.arange(96)).float()
ALIBI = T(values=-DISTANCE.abs() * torch.tensor([0.5, 0.25, 0.125, 0.0625])[None, :, None, None])
SINK = T(values=torch.tensor([30.0, -5.0, 0.0, 60.0]).view(1, 4, 1, 1))
HEAD_SINK = T(values=torch.tensor([30.0, -5.0, 0.0, 60.0, 8.0, -80.0, 25.0, 40.0]).view(8, 1))
FADING = T(values=(-torch.arange(128).flip(0) * 0.125).expand(4, 1, 8, 128).contiguous())
HOLES = T(values=-1e4 * (torch.arange(4 * 8 * 128).reshape(4, 1, 8, 128) % 3 == 1))
Q1, CACHE = T((1, 4, 8, 64)), T((4, 2, 128, 64))
SHARDED_Q = T((1, 4, 8, 64), memory_config=one_user_a_core(4, 1, 32, 64))
WHERE = T(dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT, values=torch.tensor([0, 127, -1, 33], dtype=torch.int32))
POOL = T((8, 2, 64, 64))
TABLE = T(
    dtype=ttnn.int32,
    layout=ttnn.ROW_MAJOR_LAYOUT,
    values=torch.tensor([[3, 7], [0, 1], [6, 2], [4, 5]], dtype=torch.int32),
)
GAPS, WRONG_GAPS = (  # no page where no user of WHERE needs one; and where one does
    T(dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT, values=torch.tensor(pages, dtype=torch.int32))
    for pages in ([[3, -1], [0, 1], [-1, -1], [4, -1]], [[3, 7], [0, -1], [6, 2], [4, 5]])
)
ONE_USER = T(dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT, values=torch.tensor([[3, 7, 0]], dtype=torch.int32))
PREFILL, DECODE = (
    "ttnn.transformer.scaled_dot_product_attention",
    "ttnn.transformer.scaled_dot_product_attention_decode",
)

CASES = {
    PREFILL: [
        Case((Q, KV, KV), {}, sdpa, DEFAULT),
        Case((Q, KV, KV), dict(compute_kernel_config=CONFIG, program_config=program(exact=True)), sdpa, EXACT),
        Case((T((2, 4, 20, 64)), T((2, 4, 20, 64)), T((2, 4, 20, 64))), dict(scale=0.3), sdpa, DEFAULT),
        Case((T((1, 4, 32, 64)), KV, KV), dict(is_causal=False), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(is_causal=False, attn_mask=MASK), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(is_causal=False, attn_mask=ALIBI), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(is_causal=False, attn_mask=ALIBI, scale=0.3), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(sliding_window_size=16), sdpa, DEFAULT),
        Case(  # rows that see nothing of a chunk
            (Q, KV, KV), dict(sliding_window_size=16, compute_kernel_config=CONFIG, program_config=program(exact=True)),
            sdpa, EXACT),
        Case((Q, KV, KV), dict(sliding_window_size=16, is_causal=False), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(sliding_window_size=41, is_causal=False, program_config=program(64, 64)), sdpa, DEFAULT),
        Case((Q, KV, KV), dict(attention_sink=SINK), sdpa, DEFAULT),
        Case(
            (Q, KV, KV), dict(attention_sink=SINK, compute_kernel_config=CONFIG, program_config=program(exact=True)),
            sdpa, EXACT,
        ),
        Case(
            (Q, KV, KV), dict(output_concat_heads=True),
            lambda q, k, v, output_concat_heads: sdpa(q, k, v).transpose(1, 2).reshape(1, 1, 96, 256), DEFAULT,
        ),
        Case((Q, T((1, 2, 96, 64), ttnn.bfloat8_b), T((1, 2, 96, 64), ttnn.bfloat8_b)), {}, sdpa, DEFAULT),
        Refused((T((1, 4, 96, 64), ttnn.float32), KV, KV), {},
            "BFLOAT16, BFLOAT8_B, or BFLOAT4_B and is DataType::FLOAT32"),
        Refused((Q, T((1, 3, 96, 64)), T((1, 3, 96, 64))), {}, "Got Q: 4, K: 3"),
        Refused((Q, KV, KV), dict(attn_mask=MASK), "is_causal and attn_mask cannot both"),
        Refused((Q, KV, KV), dict(is_causal=False, attn_mask=MASK, sliding_window_size=9),
            "bake the sliding-window mask into attn_mask"),
        Refused((Q, KV, KV), dict(attention_sink=T((1, 2, 1, 1))), "Got sink: 2, Q: 4"),
        Refused((Q, KV, KV), dict(attention_sink=T((4, 1))), "batch dimension must be 1. Got 4"),
        Refused((Q, KV, KV), dict(attention_sink=T((1, 4, 1, 2))), "hidden dimension must be 1. Got 2"),
        Refused((Q, KV, KV), dict(attention_sink=T((1, 4, 1, 1), ttnn.float32)), "Attention sink must be in BF16"),
        Refused((Q, KV, T((1, 2, 64, 64))), {}, "Got K: 96, V: 64"),
        Refused((Q, KV, KV), dict(program_config=program(q=50)), "q_chunk_size must be a positive multiple"),
        Refused((Q, KV, KV), dict(program_config=program(grid=(8, 9))), "Got 72 cores"),
        Refused((T((1, 4, 32, 80)), T((1, 2, 32, 80)), T((1, 2, 32, 80))), {},
            "Padding is not supported on the head_dim"),
        Refused((Q, KV, KV), dict(is_causal=False, attn_mask=T((1, 1, 96, 64))), "must match K sequence length"),
        Refused((T((4, 96, 64)), KV, KV), {}, r"3 not in \[-4, 3\)"),
        Refused(
            (T((1, 8, 512, 128)), T((1, 2, 512, 128)), T((1, 2, 512, 128))), dict(program_config=program(512, 512)),
            "grow to 1754464 B which is beyond max L1 size of 1499136 B",
        ),
        Refused(
            (T((1, 8, 512, 128)), T((1, 2, 512, 128)), T((1, 2, 512, 128))),
            dict(program_config=program(512, 512), compute_kernel_config=CONFIG), "grow to 2440544 B",
        ),
    ],
    DECODE: [
        Case((Q1, CACHE, CACHE), dict(cur_pos_tensor=WHERE), decode, DEFAULT),
        Case((SHARDED_Q, CACHE, CACHE), dict(cur_pos=[5, 0, 64, 7]), decode, DEFAULT),
        Case(
            (Q1, CACHE, CACHE), dict(cur_pos_tensor=WHERE, compute_kernel_config=CONFIG, program_config=program(k=64,
            exact=True)),
            decode, EXACT,
        ),
        Case((Q1, CACHE, CACHE), dict(is_causal=False, attn_mask=HOLES), decode, DEFAULT),
        Case((Q1, CACHE, CACHE), dict(is_causal=False, attn_mask=FADING), decode, DEFAULT),
        Case((Q1, CACHE, CACHE), dict(cur_pos_tensor=WHERE, sliding_window_size=40), decode, DEFAULT),
        Case((Q1, CACHE, CACHE), dict(cur_pos_tensor=WHERE, attention_sink=HEAD_SINK), decode, DEFAULT),
        Case(
            (Q1, CACHE, CACHE), dict(cur_pos=[127, 0, 64, 7], attention_sink=HEAD_SINK, compute_kernel_config=CONFIG,
            program_config=program(k=32, exact=True)),
            decode, 2e-2,
        ),
        *(Refused((Q1, CACHE, CACHE), dict(cur_pos=[1] * 4, attention_sink=sink), words) for sink, words in (
            (T((1, 8, 32)), "Attention sink must have 2 dimensions"),
            (T((33, 32)), "same padded num heads as Q but got 64"),
            (T((8, 64)), "a single tile wide, but got 64"),
            (T((8, 32), ttnn.float32), "must by a BF16 tensor, but got DataType::FLOAT32"),
            (T((32, 32), layout=ttnn.ROW_MAJOR_LAYOUT), "must be in TILE layout, but got Layout::ROW_MAJOR"),
            (T((8, 32), memory_config=ttnn.L1_MEMORY_CONFIG), "must be in DRAM memory, but got BufferType::L1"),
        )),
        Refused((Q1, CACHE, CACHE), {}, "_M_range_check", IndexError),
        Refused((Q1, CACHE, CACHE), dict(cur_pos=[1, 2, 3, -1]), "incompatible", TypeError),
        Refused((Q1, T((4, 2, 128, 32)), T((4, 2, 128, 32))), dict(cur_pos=[1] * 4), "K tensor hidden dimension"),
        Refused((Q1, CACHE, T((4, 1, 128, 64))), dict(cur_pos=[1] * 4), "same number of heads, but got 2 and 1"),
        Refused((Q1, CACHE, CACHE), dict(cur_pos=[128] * 4), "cur_pos must be <= K sequence dim"),
        Refused((Q1, T((4, 3, 128, 64)), T((4, 3, 128, 64))), dict(cur_pos=[1] * 4),
            "a multiple of K heads, but got 8 and 3"),
        Refused((T((1, 4, 8, 64), memory_config=ttnn.L1_MEMORY_CONFIG), CACHE, CACHE), dict(cur_pos=[1] * 4),
            "must be DRAM"),
        Refused((Q1, T((4, 2, 100, 64)), T((4, 2, 100, 64))), dict(cur_pos=[1] * 4), "calculated k_chunk_size is: 4"),
        Refused((Q1, CACHE, CACHE), dict(cur_pos=[1] * 4, program_config=program(k=96)), "must be power of 2, got: 96"),
        Refused((Q1, CACHE, CACHE), dict(cur_pos=[1] * 4, program_config=program(grid=(3, 1))),
            r"Cores available \(3\) must be"),
        Refused(
            (SHARDED_Q, CACHE, CACHE), dict(cur_pos=[1] * 4, memory_config=one_user_a_core(4, 1, 32, 64)),
            "Sharded output not supported for GQA",
        ),
        Refused(
            (T((1, 1, 32, 256)), T((1, 8, 1024, 256)), T((1, 8, 1024, 256))), dict(cur_pos=[1],
            program_config=program(k=512)),
            "grow to 1506720 B",
        ),
    ],
    "ttnn.transformer.paged_scaled_dot_product_attention_decode": [
        Case((Q1, POOL, POOL), dict(page_table_tensor=TABLE, cur_pos_tensor=WHERE), decode, DEFAULT),
        Case(
            (Q1, POOL, POOL), dict(page_table_tensor=TABLE, cur_pos_tensor=WHERE, attention_sink=HEAD_SINK), decode,
            DEFAULT,
        ),
        Case((Q1, POOL, POOL), dict(page_table_tensor=GAPS, cur_pos_tensor=WHERE), decode, DEFAULT,
            note="pages that no user needs are named -1"),
        Refused((Q1, POOL, POOL), dict(page_table_tensor=WRONG_GAPS, cur_pos_tensor=WHERE),
            r"paged attention: index -1 is beyond the pool of 8 \(1 of 8", ttnn.NotEmulated),
        Refused((Q1, POOL, POOL), dict(page_table_tensor=TABLE), "Must have cur_pos tensor"),
        Refused(
            (Q1, POOL, POOL), dict(page_table_tensor=T((4, 2), ttnn.uint32, ttnn.ROW_MAJOR_LAYOUT),
            cur_pos_tensor=WHERE),
            "only supports INT32",
        ),
        Refused((Q1, POOL, POOL), dict(page_table_tensor=ONE_USER, cur_pos_tensor=WHERE),
            "batch size equal to Q, got 4 and 1"),
    ],
    "ttnn.transformer.chunked_scaled_dot_product_attention": [
        Case((T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 96), {}, chunked, DEFAULT),
        Case((T((1, 4, 20, 64)), POOL, POOL, ONE_USER, 0), {}, chunked, DEFAULT),
        Case((T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 64), dict(scale=0.125), chunked, DEFAULT),
        Case((T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 64), dict(sliding_window_size=40), chunked, DEFAULT),
        Refused((T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 64), dict(scale=0.1), "32-bit float", TypeError),
        Refused((T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 160), {}, "Got K: 192, Q: 64, chunk_start_idx: 160"),
        Refused(
            (T((1, 4, 64, 64)), POOL, POOL, ONE_USER, 48), dict(program_config=program(64, 64)),
            "multiple of q_chunk_size",
        ),
        Refused(
            (T((1, 4, 64, 64)), POOL, POOL, T((1, 3), ttnn.uint32, ttnn.ROW_MAJOR_LAYOUT), 0), {},
            "Page table must be int32",
        ),
    ],
}  # fmt: skip
