"""Scaled dot product attention of prompts, whole or chunk by chunk against a paged cache."""

from __future__ import annotations

import torch

from ... import numerics
from ...config import resolve
from ...dtypes import NAME, Layout, cpp, int32
from ...errors import DeviceRejects
from ...launch import launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, BufferType, MemoryConfig
from ...op import op, refuse_unmodelled
from ...shape import TILE, at
from ...tensor import Tensor, spec
from .attention_program import DTYPES, SMALL, check_working_memory, cores_of, exp_approx, facts, gathered, prefill_bytes

DEFAULT = numerics.default_config("attention")


def chunks(program) -> tuple[int, int]:
    q, k = (TILE, TILE) if program is None else (program.q_chunk_size, program.k_chunk_size)
    for name, size in (("q", q), ("k", k)):
        if size <= 0 or size % TILE:
            raise DeviceRejects(
                f"{name}_chunk_size must be a positive multiple of TILE_SIZE. Got {name}_chunk_size: {size}, "
                f"TILE_SIZE: {TILE}"
            )
    return q, k


def check_prefill(q: Tensor, k: Tensor, v: Tensor) -> None:
    for t in (q, k, v):
        if t.layout is not Layout.TILE:
            raise DeviceRejects("Inputs to SDPA must be tilized")
        if t.dtype not in DTYPES:
            raise DeviceRejects(
                f"Data type of input tensor must be BFLOAT16, BFLOAT8_B, or BFLOAT4_B and is {cpp(t.dtype)}",
                "typecast first",
            )
        if t.is_sharded():
            raise DeviceRejects("Operands to SDPA need to be DRAM/L1 interleaved", "sharded_to_interleaved first")
        if at(t.spec.shape, 3) != t.spec.padded_shape[3]:
            raise DeviceRejects(
                "Padding is not supported on the head_dim dimension",
                f"head_dim {t.spec.shape[3]} is {t.spec.padded_shape[3]} in memory",
            )


def check_chunk(start: int, table: Tensor) -> None:
    """Where a chunk of a prompt starts, and the page table."""
    if start < 0:
        raise DeviceRejects("chunk_start_idx must be non-negative", f"it is {start}")
    if table.dtype is not int32:
        raise DeviceRejects("Page table must be int32", f"it is {cpp(table.dtype)}")
    if table.layout is not Layout.ROW_MAJOR:
        raise DeviceRejects("Page table must be row major")


def check_heads(n_q: int, n_kv: int) -> None:
    if n_kv <= 0 or n_q < n_kv or n_q % n_kv:
        raise DeviceRejects(
            "Q num_heads must be >= K num_heads and divisible by K num_heads, and K num_heads must be greater than 0. "
            f"Got Q: {n_q}, K: {n_kv}"
        )


def _check_sink(sink: Tensor, n_q: int) -> None:
    if sink.layout is not Layout.TILE:
        raise DeviceRejects("Attention sink must be tilized")
    if sink.dtype not in DTYPES:
        raise DeviceRejects("Attention sink must be in BF16, BFP8, or BFP4 dataformat", f"it is {cpp(sink.dtype)}")
    if sink.spec.memory_config.buffer_type is not BufferType.DRAM:
        raise DeviceRejects("Attention sink must be in DRAM")
    shape = sink.spec.shape
    if at(shape, 0) != 1:
        raise DeviceRejects(f"Attention sink batch dimension must be 1. Got {at(shape, 0)}")
    if at(shape, 1) != n_q:
        raise DeviceRejects(f"Attention sink num_heads must match Q num_heads. Got sink: {at(shape, 1)}, Q: {n_q}")
    for i, name in ((2, "sequence"), (3, "hidden")):
        if at(shape, i) != 1:
            raise DeviceRejects(f"Attention sink {name} dimension must be 1. Got {at(shape, i)}")


@op("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor, *, attn_mask: Tensor | None = None,
    is_causal: bool = True, scale: float | None = None, sliding_window_size: int | None = None,
    memory_config: MemoryConfig | None = None, program_config=None, compute_kernel_config=None,
    attention_sink: Tensor | None = None, cu_window_seqlens: Tensor | None = None, windowed_q_token_offset: int = 0,
    windowed_q_token_offset_tensor: Tensor | None = None, output_concat_heads: bool = False,
    attn_mask_block_map: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q k^T * scale + mask) v of a whole prompt; scale is 1 / sqrt(hd) unless said.

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd], nq a multiple of nk -> [B, nq, S, hd];
              mask [1 or B, 1 or nq, S, Sk]; attention_sink [1, nq, 1, 1]: a score without a value in every row, which
              counts `scale` times itself; sliding_window_size W: the last W keys, with is_causal=False those at most
              W // 2 away on either side
    Dtypes    bfloat16, bfloat8_b, bfloat4_b in any mix; as q
    Layout    TILE, interleaved; the mask in DRAM; the result in DRAM unless said
    Numerics  default HiFi2, bf16 destination, approximate exp (exp_approx_mode=False in the program config: exact); the
              mask is first divided by the scale, into a tensor of its dtype, as the kernel scales what it adds
    Raises    float32 and integers, head dims that are padded, chunk sizes that are no multiples of 32, a mask with
              is_causal
    Source    recorded contract, op `ttnn.transformer.scaled_dot_product_attention`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.scaled_dot_product_attention"
    check_prefill(q, k, v)
    if is_causal and attn_mask is not None:
        raise DeviceRejects("is_causal and attn_mask cannot both be present. Got is_causal: true, attn_mask: true")
    if sliding_window_size and attn_mask is not None:
        raise DeviceRejects(
            "sliding_window_size and attn_mask cannot both be present; bake the sliding-window mask into attn_mask. "
            f"Got sliding_window_size: {sliding_window_size}, attn_mask: true"
        )
    b, n_q, s, hd = q.spec.shape
    n_kv, sk = k.spec.shape[1], k.spec.shape[2]
    if k.spec.shape[0] != b or v.spec.shape[0] != b:
        raise DeviceRejects(
            f"K and V batch must match. Got K: {k.spec.shape[0]}, V: {v.spec.shape[0]}", f"the batch of q is {b}"
        )
    if k.spec.shape[3] != hd or v.spec.shape[3] != hd:
        raise DeviceRejects(
            f"K and V hidden dim must match. Got K: {k.spec.shape[3]}, V: {v.spec.shape[3]}",
            f"the hidden dim of q is {hd}",
        )
    if v.spec.shape[2] != sk:
        raise DeviceRejects(f"K and V sequence length must match. Got K: {sk}, V: {v.spec.shape[2]}")
    check_heads(n_q, n_kv)
    if v.spec.shape[1] != n_kv:
        raise DeviceRejects(f"K and V num_heads must match. Got K: {n_kv}, V: {v.spec.shape[1]}")
    if is_causal and s != sk:
        raise DeviceRejects(f"Causal SDPA requires Q and K to have the same sequence length. Got Q: {s}, K: {sk}")
    if attn_mask is not None:
        mask = on_device(attn_mask)
        if mask.layout is not Layout.TILE:
            raise DeviceRejects("When mask is provided to SDPA, it must be tilized")
        if mask.dtype not in DTYPES:
            raise DeviceRejects("When mask is provided to SDPA, it must be in BF16, BFP8, or BFP4 dataformat")
        if mask.spec.memory_config.buffer_type is not BufferType.DRAM:
            raise DeviceRejects("When mask is provided to SDPA, it must be in DRAM")
        m = mask.spec.shape
        if m[0] not in (1, b):
            raise DeviceRejects(
                "Mask batch dim must either be 1 (to be broadcasted across all batches) or must match Q batch dimension"
            )
        if m[1] not in (1, n_q):
            raise DeviceRejects(
                "Mask num_heads must either be 1 (to be broadcasted across all heads) or must match Q heads dimension"
            )
        if m[2] != s:
            raise DeviceRejects("Mask sequence length must match Q sequence length", f"{m[2]} and {s}")
        if m[3] != sk:
            raise DeviceRejects("Mask sequence length must match K sequence length", f"{m[3]} and {sk}")
    if attention_sink is not None:
        _check_sink(on_device(attention_sink), n_q)
    q_chunk, k_chunk = chunks(program_config)
    chip = q.buffer.device.chip
    if not (cores := cores_of(program_config, chip)):
        raise DeviceRejects("SDPA requires a non-empty core grid; got num_cores=0.")
    if cores > chip.cores:
        raise DeviceRejects(
            "Provided grid must not contain more cores than the device. "
            f"Got {cores} cores, expected at most {chip.cores} cores."
        )
    config = resolve(compute_kernel_config, DEFAULT)
    check_working_memory(
        prefill_bytes(q, k, v, attn_mask, n_q, s, q_chunk, k_chunk, is_causal, config.fp32_dest_acc_en, cores),
        program_config,
        chip,
    )
    refuse_unmodelled(
        name, cu_window_seqlens=cu_window_seqlens,
        windowed_q_token_offset=windowed_q_token_offset or None,
        windowed_q_token_offset_tensor=windowed_q_token_offset_tensor, attn_mask_block_map=attn_mask_block_map,
    )  # fmt: skip
    shape = (b, 1, s, n_q * hd) if output_concat_heads else q.spec.shape
    out = spec(shape, q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    approx, dtype = exp_approx(program_config), NAME[q.dtype]

    scale = hd**-0.5 if scale is None else scale
    mask_dtype = None if attn_mask is None else NAME[attn_mask.dtype]
    settings = dict(
        is_causal=is_causal, scale=scale, config=config, exp_approx=approx, q_chunk=q_chunk, k_chunk=k_chunk,
        sliding_window=sliding_window_size, dtype=dtype,
    )  # fmt: skip

    def compute(qv, kv, vv, mv, sink):
        if mv is not None:
            mv = numerics.now().mul(mv, 1 / scale, mask_dtype, mask_dtype)
        y = numerics.now().attention(qv, kv, vv, mask=mv, sink=sink, **settings)
        return y.transpose(1, 2).reshape(b, 1, s, n_q * hd) if output_concat_heads else y

    def together(qs, ks, vs, masks, sinks):
        """The heads of all chips as those of one."""
        if masks[0] is not None or sinks[0] is not None or output_concat_heads or len(qs) * n_q * s * sk > SMALL:
            return None
        y = numerics.now().attention(*(torch.cat(each, 1) for each in (qs, ks, vs)), **settings)
        return [part.contiguous() for part in torch.split(y, n_q, 1)]

    flops = 4 * b * n_q * s * sk * hd // (2 if is_causal else 1)
    scaled = () if attn_mask is None else (attn_mask.spec,)  # the mask over the scale is a tensor of its own
    return launch(
        name,
        (q, k, v, attn_mask, attention_sink),
        out,
        compute,
        flops=flops,
        attrs=facts(config, approx, attention_sink),
        through=scaled,
        together=together,
    )


@op("ttnn.transformer.chunked_scaled_dot_product_attention")
def chunked_scaled_dot_product_attention(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor, page_table_tensor: Tensor,
    chunk_start_idx: int | None = None, *, chunk_start_idx_tensor: Tensor | None = None, scale: float | None = None,
    memory_config: MemoryConfig | None = None, program_config=None, compute_kernel_config=None,
    paged_cache_geometry=None,
    sliding_window_size: int | None = None, attention_sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Causal attention of a chunk of a prompt, from `chunk_start_idx` on, against a paged cache.

    Shapes    q [B, nq, S, hd], pool [all blocks, nk, block, hd], page table [B, blocks]; start + S <= blocks * block
    Dtypes    as `scaled_dot_product_attention`; the page table int32
    Source    recorded contract, op `ttnn.transformer.chunked_scaled_dot_product_attention`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name, table = "ttnn.transformer.chunked_scaled_dot_product_attention", on_device(page_table_tensor)
    refuse_unmodelled(
        name, chunk_start_idx_tensor=chunk_start_idx_tensor, paged_cache_geometry=paged_cache_geometry,
        attention_sink=attention_sink,
    )  # fmt: skip
    if scale is not None and (not isinstance(scale, float) or torch.tensor(scale, dtype=torch.float32).item() != scale):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    scale = {scale!r}\n"
            "  want   a float whose value a 32-bit float has (ttnn 0.81.1, asked of the library), or none"
        )
    if chunk_start_idx is None:
        raise DeviceRejects(
            "chunk_start_idx (int) is required for legacy chunked SDPA. For flexible path use "
            "chunk_start_idx_tensor=..."
        )
    check_prefill(q, k, v)
    check_chunk(chunk_start_idx, table)
    if table.spec.shape[0] != q.spec.shape[0]:
        raise DeviceRejects(
            "Page table batch size must match input batch size. "
            f"Got Page table: {table.spec.shape[0]}, Input: {q.spec.shape[0]}"
        )
    b, n_q, s, hd = q.spec.shape
    check_heads(n_q, k.spec.shape[1])
    length, start = k.spec.shape[2] * table.spec.shape[1], chunk_start_idx
    q_chunk, k_chunk = chunks(program_config)
    if program_config is not None and start % q_chunk:
        raise DeviceRejects(
            f"chunk_start_idx must be a multiple of q_chunk_size. Got chunk_start_idx: {start}, q_chunk_size: {q_chunk}"
        )
    if length < s + start:
        raise DeviceRejects(
            "K's sequence length must be >= Q's sequence length + chunk_start_idx. "
            f"Got K: {length}, Q: {s}, chunk_start_idx: {start}"
        )
    chip = q.buffer.device.chip
    if (cores := cores_of(program_config, chip)) > chip.cores:
        raise DeviceRejects(
            "Provided grid must not contain more cores than the device. "
            f"Got {cores} cores, expected at most {chip.cores} cores."
        )
    config = resolve(compute_kernel_config, DEFAULT)
    out = spec(q.spec.shape, q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    approx, dtype, end = exp_approx(program_config), NAME[q.dtype], start + s
    first = start // q_chunk * q_chunk  # the kernel counts chunks of queries

    def compute(qv, kv, vv, tv):
        needed = [-(-end // kv.shape[2])] * len(tv)
        kv, vv = (gathered(t, tv, needed)[:, :, :end] for t in (kv, vv))
        return numerics.now().attention(
            qv, kv, vv, is_causal=True, start=first, sliding_window=sliding_window_size, scale=scale, config=config,
            exp_approx=approx, q_chunk=q_chunk, k_chunk=k_chunk, dtype=dtype,
        )  # fmt: skip

    flops = 4 * b * n_q * s * end * hd
    return launch(name, (q, k, v, table), out, compute, flops=flops, attrs=facts(config, approx))
