"""Attention over latent keys, against torch in float32."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

#: bfloat16 scores, HiFi2 products and the approximate exp, as of the attention over keys and values (attention.py).
ATTENTION = 3e-2
Q, K, V = T((1, 4, 64, 128)), T((1, 1, 64, 128)), T((1, 1, 64, 64))
STEP, CACHE = T((1, 2, 16, 128)), T((2, 1, 128, 128))
POOL = T((8, 1, 32, 128))
RM = ttnn.ROW_MAJOR_LAYOUT
AT = T((2,), ttnn.int32, RM, values=torch.tensor([40, 9], dtype=torch.int32))
TABLE = T((2, 4), ttnn.int32, RM, values=torch.tensor([[3, 1, 0, 5], [7, 2, 4, 6]], dtype=torch.int32))


def attend(q, k, v, allowed=None, added=None, scale=None):
    scores = q @ k.expand(-1, q.shape[1], -1, -1).transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if added is None else scores + added
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v.expand(-1, q.shape[1], -1, -1)


def prompt(q, k, width=None, values=None, attn_mask=None, is_causal=True, scale=None, **_):
    width, values = (None, width) if torch.is_tensor(width) else (width, values)
    v = k[..., :width] if values is None else values
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril() if is_causal else None
    return attend(q, k, v, allowed, attn_mask, scale)


def step(q, k, *args, head_dim_v=None, cur_pos=None, cur_pos_tensor=None, scale=None, **_):
    width = args[1] if len(args) > 1 else head_dim_v
    at = torch.tensor(cur_pos) if cur_pos_tensor is None else cur_pos_tensor
    allowed = (torch.arange(k.shape[2]) <= at[:, None])[:, None, None]
    return attend(q.transpose(0, 1).transpose(1, 2).transpose(1, 2), k, k[..., :width], allowed, None, scale).view(
        1, q.shape[1], q.shape[2], width
    )


def of_pages(pool, table):
    return torch.stack([torch.cat([pool[int(p)] for p in row], -2) for row in table])


def paged(q, pool, head_dim_v, page_table_tensor, **kwargs):
    return step(q, of_pages(pool, page_table_tensor), head_dim_v=head_dim_v, **kwargs)


def chunk(q, pool, width, table, start, **_):
    k = of_pages(pool, table)
    return attend(q, k, k[..., :width], torch.arange(k.shape[2]) <= start + torch.arange(q.shape[2])[:, None])


NotEmulated = dict(match="has no model in the emulator", error=ttnn.NotEmulated)
CASES = {
    "ttnn.transformer.flash_mla_prefill": [
        Case((Q, K, 64), {}, prompt, ATTENTION),
        Case((Q, K, V), {"scale": 0.125, "memory_config": ttnn.L1_MEMORY_CONFIG}, prompt, ATTENTION),
        Case(
            (Q, K),
            {"head_dim_v": 32, "is_causal": False, "attn_mask": T((1, 1, 64, 64))},
            lambda q, k, head_dim_v, **kw: prompt(q, k, head_dim_v, **kw),
            ATTENTION,
        ),
        Case((T((1, 4, 64, 128), ttnn.bfloat8_b), T((1, 1, 64, 128), ttnn.bfloat8_b), 96), {}, prompt, 2 * ATTENTION),
        Refused((Q, K, 64), {"attn_mask": T((1, 1, 64, 64))}, "is_causal and attn_mask cannot both be present"),
        Refused((Q, K, 160), {}, "Head dimension of V must be less than or equal to head dim of Q, got 160 and 128"),
        Refused((T((1, 3, 64, 128)), T((1, 2, 64, 128)), 64), {}, "Got Q: 3, K: 2"),
        Refused((T((1, 4, 64, 128), ttnn.float32), K, 64), {}, "and is DataType::FLOAT32"),
        Refused((Q, T((1, 1, 96, 128)), 64), {}, "same sequence length. Got Q: 64, K: 96"),
        Refused((Q, K, 20), {}, **NotEmulated),
    ],
    "ttnn.transformer.chunked_flash_mla_prefill": [
        Case((T((2, 4, 32, 128)), POOL, 64, TABLE, 64), {}, chunk, ATTENTION),
        Refused((T((2, 4, 32, 128)), POOL, 64, TABLE, -1), {}, "chunk_start_idx must be non-negative"),
        Refused((T((2, 4, 32, 128)), POOL, 64, TABLE, 128), {}, "Got K: 128, Q: 32, chunk_start_idx: 128"),
    ],
    "ttnn.transformer.flash_multi_latent_attention_decode": [
        Case((STEP, CACHE), {"head_dim_v": 64, "cur_pos_tensor": AT}, step, ATTENTION),
        Case((STEP, CACHE, None, 96), {"cur_pos": [127, 3], "scale": 0.125}, step, ATTENTION),
        Refused(
            (STEP, T((1, 1, 128, 128))),
            {"head_dim_v": 64, "cur_pos_tensor": AT},
            r"batch size \(1\) must equal B \(2\)",
        ),
        Refused(
            (STEP, CACHE), {"head_dim_v": 160, "cur_pos_tensor": AT}, "less than or equal to head dim of Q, got 160"
        ),
        Refused((STEP, T((2, 1, 128, 96))), {"head_dim_v": 64, "cur_pos_tensor": AT}, "head dim of K, got 128 and 96"),
        Refused((STEP, CACHE), {"head_dim_v": 20, "cur_pos_tensor": AT}, **NotEmulated),
    ],
    "ttnn.transformer.paged_flash_multi_latent_attention_decode": [
        Case((STEP, POOL), {"head_dim_v": 64, "page_table_tensor": TABLE, "cur_pos_tensor": AT}, paged, ATTENTION),
        Refused(
            (STEP, POOL), {"head_dim_v": 64, "page_table_tensor": TABLE}, "Must have cur_pos tensor for paged attention"
        ),
    ],
}
