"""Attention over other keys, heads or scales."""

import torch
import ttnn

from tests.checks.faults import on_host, replaced
from tests.checks.planted.core import attention_replaced, planted


@planted("tiny-mistral", "self_attn", "query head h takes KV head h % 8, not h // 2", r"GQA|KV head|group|heads.*order")
def kv_heads_taken_in_turn(build):
    order = torch.arange(16).unflatten(0, (2, 8)).T.flatten()  # query heads by the KV head that they take

    def make(original):
        dim = 2 if original.__name__.endswith("decode") else 1

        def attend(q, k, v, **kwargs):
            mixed = on_host(q, lambda x: x.index_select(dim, order))
            return on_host(original(mixed, k, v, **kwargs), lambda x: x.index_select(dim, order.argsort()))

        return attend

    with attention_replaced(make):
        yield build


@planted("tiny-llama", "self_attn", "the scale is that of heads of 48 (hidden / heads), the heads are of 64", r"scale")
def scale_of_another_head_dim(build):
    with attention_replaced(lambda original: lambda *args, **kwargs: original(*args, **kwargs, scale=48**-0.5)):
        yield build


@planted("tiny-afm", "self_attn", "YaRN's factor is in the tables and again in the scale", r"scale|factor")
def yarn_factor_twice(build):
    scale = 32**-0.5 * 1.29957**2  # 0.1 ln(20) + 1
    with attention_replaced(lambda original: lambda *args, **kwargs: original(*args, **kwargs, scale=scale)):
        yield build


@planted(
    "tiny-allam",
    "self_attn",
    "in a prompt each token sees the next one too",
    r"one (position|key|token) too many|next|mask",
)
def prompt_mask_one_long(build):
    def make(original):
        def attend(q, k, v, *, is_causal, **kwargs):
            hidden = torch.full((1, 1, q.shape[-2], k.shape[-2]), float("-inf")).triu(2)
            mask = ttnn.from_torch(hidden, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=q.device())
            return original(q, k, v, is_causal=False, attn_mask=mask, **kwargs)

        return attend

    with replaced(ttnn.transformer, "scaled_dot_product_attention", make):
        yield build


@planted(
    "tiny-llama",
    "self_attn",
    "a decode step sees the last 96 positions only",
    r"window|96|oldest|first keys",
    phase="decode",
)
def decode_sees_a_window(build):
    def make(original):
        return lambda *args, **kwargs: original(*args, **kwargs, sliding_window_size=96)

    with replaced(ttnn.transformer, "scaled_dot_product_attention_decode", make):
        yield build
