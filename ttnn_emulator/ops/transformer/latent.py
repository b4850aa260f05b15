"""Attention over latent keys, whose first columns are the values too (multi-head latent attention)."""

from __future__ import annotations

import torch

from ... import numerics
from ...config import resolve
from ...dtypes import NAME, Layout, int32
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...op import op, refuse_unmodelled
from ...oplog import describe
from ...shape import TILE, at
from ...tensor import Tensor, spec
from .attention import DEFAULT, check_chunk, check_heads, check_prefill, chunks
from .attention_decode import (
    check_decode_grid,
    check_decode_heads,
    check_decode_mask,
    check_decode_operands,
    check_decode_sink,
    decode,
    decode_chunk,
)
from .attention_program import exp_approx, facts, gathered


def _of_values(v: Tensor | None, width: int | None, q: Tensor) -> int:
    """The columns of the values."""
    width = width if v is None else v.spec.shape[3]
    if width is None:
        raise TypeError("incompatible function arguments.\n  want   head_dim_v, or the values")
    if width > q.spec.shape[3]:
        raise DeviceRejects(
            f"Head dimension of V must be less than or equal to head dim of Q, got {width} and {q.spec.shape[3]}"
        )
    if width <= 0 or width % TILE:
        raise NotEmulated(f"latent attention with {width} columns of values has no model in the emulator: whole tiles")
    return width


def _as_wide(values, keys):
    """The values with zeros behind them, as wide as the keys; without any the keys."""
    if values is None:
        return keys
    return torch.nn.functional.pad(values, (0, keys.shape[-1] - values.shape[-1]))


@op("ttnn.transformer.flash_mla_prefill")
def flash_mla_prefill(
    input_tensor_q: Tensor, input_tensor_k: Tensor, head_dim_v=None, input_tensor_v: Tensor | None = None, *,
    attn_mask: Tensor | None = None, is_causal: bool = True, scale: float | None = None,
    memory_config: MemoryConfig | None = None, program_config=None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """softmax(q k^T * scale + mask) v, v the first head_dim_v columns of k, or a tensor in its place.

    Shapes    q [B, nq, S, hd], k [B, nk, S, hd] -> [B, nq, S, head_dim_v], head_dim_v in whole tiles, at most hd
    Dtypes    bfloat16, bfloat8_b, bfloat4_b in any mix; as q
    Layout    TILE, interleaved; the result in DRAM unless said
    Numerics  as `scaled_dot_product_attention`, column by column of the values; not recorded
    Differs   the L1 that its program takes is not counted
    Source    ttnn 0.81.1, asked: results and refusals
    """
    name, v = "ttnn.transformer.flash_mla_prefill", input_tensor_v
    if isinstance(head_dim_v, Tensor) and v is None:  # the form with values in the third place
        head_dim_v, v = None, head_dim_v
    elif head_dim_v is not None and (isinstance(head_dim_v, bool) or not isinstance(head_dim_v, int)):
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    head_dim_v = {describe(head_dim_v)}")
    q, k = on_device(input_tensor_q), on_device(input_tensor_k)
    check_prefill(q, k, k if v is None else on_device(v))
    if is_causal and attn_mask is not None:
        raise DeviceRejects("is_causal and attn_mask cannot both be present. Got is_causal: true, attn_mask: true")
    b, n_q, s, hd = q.spec.shape
    n_kv, sk = k.spec.shape[1], k.spec.shape[2]
    check_heads(n_q, n_kv)
    if is_causal and s != sk:
        raise DeviceRejects(f"Causal SDPA requires Q and K to have the same sequence length. Got Q: {s}, K: {sk}")
    width = _of_values(v, head_dim_v, q)
    if k.spec.shape[3] != hd or k.spec.shape[0] != b or (v is not None and tuple(v.spec.shape[:3]) != (b, n_kv, sk)):
        raise NotEmulated(f"{name} of operands of other batches, heads, lengths or widths has no model in the emulator")
    q_chunk, k_chunk = chunks(program_config)
    config, approx = resolve(compute_kernel_config, DEFAULT), exp_approx(program_config)
    out = spec((b, n_q, s, width), q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    factor = hd**-0.5 if scale is None else scale
    mask_dtype, made = None if attn_mask is None else NAME[on_device(attn_mask).dtype], NAME[q.dtype]

    def compute(qv, kv, vv, mv):
        n = numerics.now()
        if mv is not None:
            mv = n.mul(mv, 1 / factor, mask_dtype, mask_dtype)
        y = n.attention(
            qv, kv, _as_wide(vv, kv), mask=mv, is_causal=is_causal, scale=factor, config=config, exp_approx=approx,
            q_chunk=q_chunk, k_chunk=k_chunk, dtype=made,
        )  # fmt: skip
        return y[..., :width].contiguous()

    flops = 2 * b * n_q * s * sk * (hd + width) // (2 if is_causal else 1)
    scaled = () if attn_mask is None else (attn_mask.spec,)
    return launch(name, (q, k, v, attn_mask), out, compute, flops=flops, attrs=facts(config, approx), through=scaled)


@op("ttnn.transformer.chunked_flash_mla_prefill")
def chunked_flash_mla_prefill(
    input_tensor_q: Tensor, input_tensor_k: Tensor, head_dim_v: int, page_table_tensor: Tensor, chunk_start_idx: int,
    *, scale: float | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """`flash_mla_prefill` of a chunk of a prompt, from `chunk_start_idx` on, against a paged cache.

    Shapes    q [B, nq, S, hd], pool [all blocks, nk, block, hd], page table [B, blocks]; start + S <= blocks * block
    Dtypes    as `flash_mla_prefill`; the page table int32
    Numerics  as `chunked_scaled_dot_product_attention`; not recorded
    Source    ttnn 0.81.1, asked: results and refusals
    """
    name, q, k = "ttnn.transformer.chunked_flash_mla_prefill", on_device(input_tensor_q), on_device(input_tensor_k)
    table, start = on_device(page_table_tensor), chunk_start_idx
    check_prefill(q, k, k)
    check_chunk(start, table)
    b, n_q, s, hd = q.spec.shape
    check_heads(n_q, k.spec.shape[1])
    length = k.spec.shape[2] * table.spec.shape[1]
    q_chunk, k_chunk = chunks(program_config)
    if length < s + start:
        raise DeviceRejects(
            "K's sequence length must be >= Q's sequence length + chunk_start_idx. "
            f"Got K: {length}, Q: {s}, chunk_start_idx: {start}"
        )
    if not 0 < head_dim_v <= hd or head_dim_v % TILE or k.spec.shape[3] != hd:
        raise NotEmulated(f"{name} with {head_dim_v} columns of values has no model in the emulator: whole tiles")
    config, approx, end = resolve(compute_kernel_config, DEFAULT), exp_approx(program_config), start + s
    made = NAME[q.dtype]
    out = spec((b, n_q, s, head_dim_v), q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)

    def compute(qv, kv, tv):
        kv = gathered(kv, tv, [-(-end // kv.shape[2])] * len(tv))[:, :, :end]
        y = numerics.now().attention(
            qv, kv, kv, is_causal=True, start=start // q_chunk * q_chunk, scale=scale, config=config,
            exp_approx=approx, q_chunk=q_chunk, k_chunk=k_chunk, dtype=made,
        )  # fmt: skip
        return y[..., :head_dim_v].contiguous()

    flops = 2 * b * n_q * s * end * (hd + head_dim_v)
    return launch(name, (q, k, table), out, compute, flops=flops, attrs=facts(config, approx))


def _latent_decode(name, q, k, v, width, where, table, positions, mask, sink, window, is_causal, scale, memory_config,
                   program, kernel_config, length, k_chunk, most):  # fmt: skip
    check_decode_operands(q, k, k if v is None else on_device(v), memory_config)
    width = _of_values(v, width, q)
    if k.spec.shape[3] != q.spec.shape[3]:
        raise DeviceRejects(
            f"Head dimension of Q must be equal to head dim of K, got {q.spec.shape[3]} and {k.spec.shape[3]}"
        )
    if is_causal and mask is not None:
        raise DeviceRejects(
            "attn_mask must not be provided when is_causal=True. Pass is_causal=False to use an explicit mask."
        )
    if mask is not None:
        check_decode_mask(q, mask, length)
    if sink is not None:
        check_decode_sink(q, sink)
    check_decode_heads(q, k.spec.padded_shape[1], memory_config)
    check_decode_grid(q, k, None, program, k_chunk)
    return decode(
        name, q, k, v, mask, sink, where, table, positions, program, kernel_config, memory_config, scale, window,
        length, is_causal, k_chunk, most, width=width,
    )  # fmt: skip


@op("ttnn.transformer.flash_multi_latent_attention_decode")
def flash_multi_latent_attention_decode(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor | None = None,
    head_dim_v: int | None = None, *, is_causal: bool = True, attn_mask: Tensor | None = None, cur_pos=None,
    cur_pos_tensor: Tensor | None = None, attention_sink: Tensor | None = None, scale: float | None = None,
    sliding_window_size: int | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """`scaled_dot_product_attention_decode` whose values are the first head_dim_v columns of the keys.

    Shapes    q [1, B, nq, hd], cache [B, nk, L, hd], positions [B] (or a list) -> [1, B, nq, head_dim_v]
    Dtypes    as `scaled_dot_product_attention_decode`
    Numerics  as there, column by column of the values; not recorded
    Differs   the L1 that its program takes is not counted
    Source    ttnn 0.81.1, asked: results and refusals
    """
    name = "ttnn.transformer.flash_multi_latent_attention_decode"
    q, k = on_device(input_tensor_q), on_device(input_tensor_k)
    users, length = q.spec.shape[1], at(k.spec.shape, 2)
    if k.spec.shape[0] != users:
        raise DeviceRejects(f"K tensor batch size ({k.spec.shape[0]}) must equal B ({users})")
    positions = None if cur_pos_tensor is not None or cur_pos is None else [int(p) for p in cur_pos]
    if is_causal and cur_pos_tensor is None and (positions is None or len(positions) < users):
        raise NotEmulated(f"{name} without a position for every user has no model in the emulator")
    return _latent_decode(
        name, q, k, input_tensor_v, head_dim_v, cur_pos_tensor, None, positions, attn_mask, attention_sink,
        sliding_window_size, is_causal, scale, memory_config, program_config, compute_kernel_config, length,
        decode_chunk(program_config, length), 16 if program_config is None else program_config.max_cores_per_head_batch,
    )  # fmt: skip


@op("ttnn.transformer.paged_flash_multi_latent_attention_decode")
def paged_flash_multi_latent_attention_decode(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor | None = None,
    head_dim_v: int | None = None, page_table_tensor: Tensor | None = None, *, is_causal: bool = True,
    attn_mask: Tensor | None = None, cur_pos_tensor: Tensor | None = None, attention_sink: Tensor | None = None,
    scale: float | None = None, sliding_window_size: int | None = None, memory_config: MemoryConfig | None = None,
    program_config=None, compute_kernel_config=None,
) -> Tensor:  # fmt: skip
    """`flash_multi_latent_attention_decode` with the cache as a pool of blocks [all, nk, block, hd] and a page table
    [B, blocks].

    Shapes    q [1, B, nq, hd] -> [1, B, nq, head_dim_v]
    Dtypes    page table and positions int32, ROW_MAJOR
    Numerics  as `paged_scaled_dot_product_attention_decode`; not recorded
    Source    ttnn 0.81.1, asked: results and refusals
    """
    name = "ttnn.transformer.paged_flash_multi_latent_attention_decode"
    if page_table_tensor is None:
        raise TypeError(f"{name}(): incompatible function arguments.\n  want   page_table_tensor")
    q, k, table = on_device(input_tensor_q), on_device(input_tensor_k), on_device(page_table_tensor)
    if is_causal and cur_pos_tensor is None:
        raise DeviceRejects("Must have cur_pos tensor for paged attention in causal mode")
    if table.dtype is not int32 or table.layout is not Layout.ROW_MAJOR:
        raise NotEmulated(f"{name} with a page table {table.spec} has no model in the emulator: int32, ROW_MAJOR")
    length = k.spec.shape[2] * table.spec.shape[-1]
    decode_chunk(program_config, length)
    chunk, most = TILE, 1
    if program_config is not None:
        chunk, most = program_config.k_chunk_size, program_config.max_cores_per_head_batch
    refuse_unmodelled(name, input_tensor_v=input_tensor_v)
    return _latent_decode(
        name, q, k, None, head_dim_v, cur_pos_tensor, table, None, attn_mask, attention_sink, sliding_window_size,
        is_causal, scale, memory_config, program_config, compute_kernel_config, length, chunk, most,
    )  # fmt: skip
