"""Scaled dot product attention: of prompts, of one token against a cache, and of both with paged caches."""

from __future__ import annotations

import torch

from .. import numerics
from ..config import resolve
from ..dtypes import NAME, TILE_BYTES, Layout, bfloat4_b, bfloat8_b, bfloat16, cpp, int32
from ..errors import DeviceRejects, NotEmulated
from ..memory import BASE_ADDRESS, DRAM_MEMORY_CONFIG, GRID, BufferType, MemoryConfig, TensorMemoryLayout
from ..numerics.rounding import HELD_AS
from ..numerics.rows import FEW, HELD, Repeated, numbered, whole
from ..op import launch, on_device, op, refuse_unmodelled
from ..shape import TILE, at, round_up
from ..tensor import Tensor, spec

_DTYPES = (bfloat16, bfloat8_b, bfloat4_b)
#: Elements (scores of a prompt, keys of a step) up to which a call costs more than its work.
SMALL = 1 << 22
_CORES = GRID[0] * GRID[1]
_DEFAULT = numerics.default_config("attention")
_DEFAULT_DECODE = numerics.default_config("attention_decode")


def _exp_approx(program) -> bool:
    """exp is approximate unless the program config says no (recorded: whatever math_approx_mode says)."""
    return True if program is None or program.exp_approx_mode is None else bool(program.exp_approx_mode)


def _cores(program) -> int:
    if program is None:
        return _CORES
    if program.sub_core_grids is not None:
        return program.sub_core_grids.num_cores()
    x, y = program.compute_with_storage_grid_size
    return x * y


def _chunks(program) -> tuple[int, int]:
    q, k = (TILE, TILE) if program is None else (program.q_chunk_size, program.k_chunk_size)
    for name, size in (("q", q), ("k", k)):
        if size <= 0 or size % TILE:
            raise DeviceRejects(
                f"{name}_chunk_size must be a positive multiple of TILE_SIZE. Got {name}_chunk_size: {size}, "
                f"TILE_SIZE: {TILE}"
            )
    return q, k


def _check_prefill(q: Tensor, k: Tensor, v: Tensor) -> None:
    for t in (q, k, v):
        if t.layout is not Layout.TILE:
            raise DeviceRejects("Inputs to SDPA must be tilized")
        if t.dtype not in _DTYPES:
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


# ---------------------------------------------------------------- working memory
#: Where a core's L1 ends for a program's buffers (ttnn 0.81.1, text of the refusal).
_L1_END = 1_499_136


def _check_working_memory(size: int, program) -> None:
    """Refuses chunks whose buffers are larger than a core's L1; `size` is without the reserved part at its start."""
    total = BASE_ADDRESS[BufferType.L1] + size
    if total <= _L1_END:
        return
    x, y = GRID if program is None else program.compute_with_storage_grid_size
    raise DeviceRejects(
        f"Statically allocated circular buffers on core range [0-0 - {x - 1}-{y - 1}] grow to {total} B which is "
        "beyond max L1 "
        f"size of {_L1_END} B",
        "use smaller q_chunk_size and k_chunk_size",
    )


def _prefill_bytes(
    q, k, v, mask, n_q: int, s: int, q_chunk: int, k_chunk: int, is_causal: bool, fp32: bool, cores: int
) -> int:
    """Working memory of a core for attention of a prompt.

    Source    fitted to the sizes in 40 refusals of ttnn 0.81.1 (chunks of 64 to 1024, head dims of 64 to 256); exact
              on all
    """
    a, b, h = q_chunk // TILE, k_chunk // TILE, q.spec.shape[3] // TILE
    chunks, ways = -(-s // q_chunk), max(1, cores // (q.spec.shape[0] * n_q))
    twice = 2 if chunks > 1 and (is_causal or -(-chunks // min(ways, chunks)) > 1) else 1
    tile, wide = TILE_BYTES[q.dtype], TILE_BYTES[bfloat16]
    size = twice * a * h * tile + 2 * b * h * (TILE_BYTES[k.dtype] + TILE_BYTES[v.dtype])
    if mask is not None:
        size += 2 * a * b * TILE_BYTES[mask.dtype]
    if fp32:
        return size + a * h * tile + wide * (2 * a * h + 2 * a * b + 7 * a + (4 if is_causal else 2))
    return size + 4 * h * tile + wide * (2 * a * h + a * b + 5 * a + (5 if is_causal else 3))


def _decode_bytes(q, k, v, n_kv: int, k_chunk: int, cores: int, most: int) -> int:
    """Working memory of a core for a decode step.

    Source    fitted to the sizes in 12 refusals of ttnn 0.81.1 (chunks of 512 to 4096, 32 to 128 heads); exact on all
    """
    users, heads, hd = q.spec.padded_shape[1:]
    p, b, h, wide = heads // TILE, k_chunk // TILE, hd // TILE, TILE_BYTES[bfloat16]
    shared = min(most, max(1, cores // users // n_kv))  # cores that share a head
    size = 2 * b * h * (TILE_BYTES[k.dtype] + TILE_BYTES[v.dtype]) + 2 * round_up(4 * users, 32)
    return size + wide * (2 * b * p + p * (7 * h + 11) + (p * h + 2 * p) * (shared - 1) + 3)


def _check_heads(n_q: int, n_kv: int) -> None:
    if n_kv <= 0 or n_q < n_kv or n_q % n_kv:
        raise DeviceRejects(
            "Q num_heads must be >= K num_heads and divisible by K num_heads, and K num_heads must be greater than 0. "
            f"Got Q: {n_q}, K: {n_kv}"
        )


@op("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor, *, attn_mask: Tensor | None = None,
    is_causal: bool = True, scale: float | None = None, sliding_window_size: int | None = None,
    memory_config: MemoryConfig | None = None, program_config=None, compute_kernel_config=None,
    attention_sink: Tensor | None = None, cu_window_seqlens: Tensor | None = None, windowed_q_token_offset: int = 0,
    windowed_q_token_offset_tensor: Tensor | None = None, output_concat_heads: bool = False,
    attn_mask_block_map: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """softmax((q k^T + mask) * scale) v of a whole prompt; scale is 1 / sqrt(hd) unless said.

    Shapes    q [B, nq, S, hd], k and v [B, nk, Sk, hd], nq a multiple of nk -> [B, nq, S, hd];
              mask [1 or B, 1 or nq, S, Sk], added to the scores before they are scaled (`compute_common.hpp` of the
              wheel: a finite bias counts `scale` times itself)
    Dtypes    bfloat16, bfloat8_b, bfloat4_b in any mix; as q
    Layout    TILE, interleaved; the mask in DRAM; the result in DRAM unless said
    Numerics  default HiFi2, bf16 destination, approximate exp (exp_approx_mode=False in the program config: exact)
    Raises    float32 and integers, head dims that are padded, chunk sizes that are no multiples of 32, a mask with
              is_causal
    Source    recorded contract, op `ttnn.transformer.scaled_dot_product_attention`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.scaled_dot_product_attention"
    _check_prefill(q, k, v)
    if is_causal and attn_mask is not None:
        raise DeviceRejects("is_causal and attn_mask cannot both be present. Got is_causal: true, attn_mask: true")
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
    _check_heads(n_q, n_kv)
    if v.spec.shape[1] != n_kv:
        raise DeviceRejects(f"K and V num_heads must match. Got K: {n_kv}, V: {v.spec.shape[1]}")
    if is_causal and s != sk:
        raise DeviceRejects(f"Causal SDPA requires Q and K to have the same sequence length. Got Q: {s}, K: {sk}")
    if attn_mask is not None:
        mask = on_device(attn_mask)
        if mask.layout is not Layout.TILE:
            raise DeviceRejects("When mask is provided to SDPA, it must be tilized")
        if mask.dtype not in _DTYPES:
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
    q_chunk, k_chunk = _chunks(program_config)
    if not (cores := _cores(program_config)):
        raise DeviceRejects("SDPA requires a non-empty core grid; got num_cores=0.")
    if cores > _CORES:
        raise DeviceRejects(
            "Provided grid must not contain more cores than the device. "
            f"Got {cores} cores, expected at most {_CORES} cores."
        )
    config = resolve(compute_kernel_config, _DEFAULT)
    _check_working_memory(
        _prefill_bytes(q, k, v, attn_mask, n_q, s, q_chunk, k_chunk, is_causal, config.fp32_dest_acc_en, cores),
        program_config,
    )
    refuse_unmodelled(
        name, attention_sink=attention_sink, cu_window_seqlens=cu_window_seqlens,
        windowed_q_token_offset=windowed_q_token_offset or None,
        windowed_q_token_offset_tensor=windowed_q_token_offset_tensor, attn_mask_block_map=attn_mask_block_map,
    )  # fmt: skip
    shape = (b, 1, s, n_q * hd) if output_concat_heads else q.spec.shape
    out = spec(shape, q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    approx, dtype = _exp_approx(program_config), NAME[q.dtype]

    settings = dict(
        is_causal=is_causal, scale=scale, config=config, exp_approx=approx, q_chunk=q_chunk, k_chunk=k_chunk,
        sliding_window=sliding_window_size, dtype=dtype,
    )  # fmt: skip

    def compute(qv, kv, vv, mv):
        y = numerics.now().attention(qv, kv, vv, mask=mv, **settings)
        return y.transpose(1, 2).reshape(b, 1, s, n_q * hd) if output_concat_heads else y

    def together(qs, ks, vs, masks):
        """The heads of all chips as those of one."""
        if masks[0] is not None or output_concat_heads or len(qs) * n_q * s * sk > SMALL:
            return None
        y = numerics.now().attention(*(torch.cat(each, 1) for each in (qs, ks, vs)), **settings)
        return [part.contiguous() for part in torch.split(y, n_q, 1)]

    flops = 4 * b * n_q * s * sk * hd // (2 if is_causal else 1)
    scaled = () if attn_mask is None else (attn_mask.spec,)  # the mask over the scale is a tensor of its own
    return launch(
        name,
        (q, k, v, attn_mask),
        out,
        compute,
        flops=flops,
        attrs={"math_fidelity": config.math_fidelity},
        through=scaled,
    )


def _automatic_chunk(length: int) -> int:
    """The chunk of keys that decode chooses: the largest power of two that divides the length, at most 512."""
    return min(512, length & -length)


def _decode_chunk(program, length: int) -> int:
    given = 0 if program is None else program.k_chunk_size
    if given & (given - 1):
        raise DeviceRejects(f"User provided k_chunk_size must be power of 2, got: {given}")
    if given % TILE:
        raise DeviceRejects(f"User provided k_chunk_size must be multiple of {TILE}, got: {given}")
    chunk = given or _automatic_chunk(length)
    if chunk % TILE:
        raise DeviceRejects(
            f"Chunk size must be multiple of 32, but the maximum calculated k_chunk_size is: {chunk}",
            f"it is the largest power of two that divides the cache length {length}",
        )
    return chunk


def _check_decode_operands(q: Tensor, k: Tensor, v: Tensor, memory_config) -> None:
    for t in (q, k, v):
        if t.dtype not in _DTYPES:
            raise DeviceRejects(f"Unsupported data type {cpp(t.dtype)}.")
    held = q.spec.memory_config
    for i, t in enumerate((k, v), 1):
        if t.layout is not Layout.TILE:
            raise DeviceRejects("Inputs to SDPA must be tilized except for Q", f"operand {i} is {cpp(t.layout)}")
        if t.spec.memory_config.buffer_type is not BufferType.DRAM:
            raise DeviceRejects(
                f"Input tensor {i} buffer type must be DRAM but got {cpp(t.spec.memory_config.buffer_type)}"
            )
    if held.is_sharded():
        out = memory_config or DRAM_MEMORY_CONFIG
        if q.layout is not Layout.TILE and out.memory_layout is not TensorMemoryLayout.HEIGHT_SHARDED:
            raise DeviceRejects(
                "ROW_MAJOR Q produces a ROW_MAJOR output, which requires a HEIGHT_SHARDED output memory config; got "
                + cpp(out.memory_layout)
            )
    elif q.layout is not Layout.TILE:
        raise DeviceRejects(
            "ROW_MAJOR Q is only supported when Q is HEIGHT_SHARDED in L1; interleaved ROW_MAJOR Q is not supported. "
            "Convert Q to TILE layout or shard it."
        )
    elif held.buffer_type is not BufferType.DRAM:
        raise DeviceRejects(
            f"Q tensor buffer type must be DRAM when not sharded but got {cpp(held.buffer_type)}",
            "to_memory_config(ttnn.DRAM_MEMORY_CONFIG), or height sharded in L1",
        )


def _check_decode_pairs(q: Tensor, k: Tensor, v: Tensor) -> None:
    if k.spec.shape[-1] != q.spec.shape[-1]:
        raise DeviceRejects(
            f"K tensor hidden dimension ({k.spec.shape[-1]}) must equal Q tensor hidden dimension ({q.spec.shape[-1]})"
        )
    if k.spec.shape[1] != v.spec.shape[1]:
        raise DeviceRejects(
            "Flash decode expects K and V to have same number of heads, "
            f"but got {k.spec.shape[1]} and {v.spec.shape[1]}"
        )


def _check_decode_mask(q: Tensor, mask: Tensor, length: int) -> None:
    heads, span = at(on_device(mask).spec.shape, 2), at(mask.spec.shape, 3)
    if mask.dtype not in _DTYPES:
        raise DeviceRejects(f"Unsupported data type for mask tensor: {cpp(mask.dtype)}.")
    if heads != q.spec.shape[2]:
        raise DeviceRejects(f"Expect same number of heads in mask as in Q, got {heads} and {q.spec.shape[2]}")
    if span != length:
        raise DeviceRejects(f"Expect same sequence length in mask as in K, got {span} and {length}")
    if mask.spec.padded_shape[2] != q.spec.padded_shape[2]:
        raise DeviceRejects(
            "Expect same number of padded heads in mask as in Q, "
            f"got {mask.spec.padded_shape[2]} and {q.spec.padded_shape[2]}"
        )


def _check_decode_grid(q: Tensor, k: Tensor, v: Tensor, program, k_chunk: int) -> None:
    cores, users = _cores(program), q.spec.shape[1]
    if cores > _CORES:
        raise DeviceRejects(f"Cores available ({cores}) exceeds grid size ({_CORES})")
    if cores < users:
        raise DeviceRejects(f"Cores available ({cores}) must be >= batch size ({users})")
    most = 16 if program is None else program.max_cores_per_head_batch
    _check_working_memory(_decode_bytes(q, k, v, k.spec.padded_shape[1], k_chunk, cores, most), program)


def _check_decode_heads(q: Tensor, n_kv: int, memory_config) -> None:
    if n_kv > 1:
        if q.spec.shape[2] % n_kv:
            raise DeviceRejects(f"GQA expects Q to have a multiple of K heads, but got {q.spec.shape[2]} and {n_kv}")
        if q.dtype is not bfloat16:
            raise DeviceRejects(f"GQA expects BFLOAT16 input tensor, but got {cpp(q.dtype)}")
        if memory_config is not None and memory_config.is_sharded():
            raise DeviceRejects("Sharded output not supported for GQA")


def _decode(name, q, k, v, mask, where, table, positions, program, compute_kernel_config, memory_config, scale, window,
            length, is_causal):  # fmt: skip
    """The launch of decode; `positions` is a list, or None where the tensor `where` holds them."""
    config, approx, dtype = resolve(compute_kernel_config, _DEFAULT_DECODE), _exp_approx(program), NAME[q.dtype]
    users, heads, given = q.spec.shape[1], tuple(q.spec.shape[2:]), 0 if program is None else program.k_chunk_size
    most = 16 if program is None else program.max_cores_per_head_batch
    cores = max(1, min(most, _cores(program) // (users * k.spec.shape[1])))  # that share a head
    out = spec(q.spec.shape, q.dtype, q.layout, memory_config or DRAM_MEMORY_CONFIG)
    settings = dict(
        scale=scale, config=config, exp_approx=approx, k_chunk=given, sliding_window=window, dtype=dtype, cores=cores
    )

    def positions_of(wv) -> list[int]:
        if not is_causal:
            return [length - 1] * users
        found = positions if positions is not None else [int(p) for p in wv.reshape(-1).tolist()[:users]]
        if found and max(found) >= length:
            raise NotEmulated(f"{name}: position {max(found)} is beyond the cache's {length}")
        return found

    def attend(qv, kv, vv, mv, found, table):
        if table is not None:
            pages = (max(found) // kv.shape[2] + 1) if found else 0
            kv, vv = _gathered(kv, table, pages), _gathered(vv, table, pages)
        return numerics.now().attention_decode(qv, kv, vv, found, mask=mv, **settings)

    def compute(qv, kv, vv, mv, wv, tv):
        kv, vv, mv, wv, tv = map(whole, (kv, vv, mv, wv, tv))
        found = positions_of(wv)
        live = [u for u, p in enumerate(found[:users]) if p >= 0]
        if mv is not None or users < FEW or 2 * len(live) >= users:
            return attend(whole(qv), kv, vv, mv, found, tv)
        if not live:
            return Repeated(vv.new_zeros(1, 1, *heads, dtype=HELD_AS[dtype]), (0,) * users, -3)
        if tv is None:
            kv, vv = _of_users(kv, live), _of_users(vv, live)
        else:
            tv = tv[live]
        return _with_absent(attend(_of_users(qv, live, 1), kv, vv, None, [found[u] for u in live], tv), live, users)

    def together(qs, ks, vs, masks, wheres, tables):
        """The heads of all chips as those of one, for the users that are there and the keys up to the farthest
        position."""
        if masks[0] is not None or tables[0] is not None or any(w is not wheres[0] for w in wheres):
            return None
        found = positions_of(wheres[0])
        live = [u for u, p in enumerate(found[:users]) if p >= 0]
        if not live:
            return None
        end = min(length, round_up(max(found) + 1, max(given, 8 * TILE)))  # whole chunks
        if len(qs) * len(live) * ks[0].shape[1] * end * ks[0].shape[3] > SMALL:
            return None
        kv, vv = (torch.cat([_of_users(whole(t), live)[:, :, :end] for t in each], 1) for each in (ks, vs))
        qv = torch.cat([_of_users(t, live, 1) for t in qs], 2)
        y = numerics.now().attention_decode(qv, kv, vv, [found[u] for u in live], **settings)
        return [_with_absent(part.contiguous(), live, users) for part in torch.split(y, heads[0], 2)]

    flops = 4 * q.spec.shape[1] * q.spec.shape[2] * length * q.spec.shape[3]
    return launch(
        name, (q, k, v, mask, where, table), out, compute, flops=flops, topology=q.topology,
        attrs={"math_fidelity": config.math_fidelity}, together=together, rows=HELD,
    )  # fmt: skip


def _of_users(value, live: list[int], dim: int = 0) -> torch.Tensor:
    """The slices of some users, without a copy where they are neighbours."""
    if type(value) is Repeated:
        return value.slices(live)
    if live[-1] - live[0] + 1 == len(live):
        return value.narrow(dim, live[0], len(live))
    return value.index_select(dim, torch.tensor(live, device=value.device))


def _with_absent(y: torch.Tensor, live: list[int], users: int):
    """[1, live, n, hd] as [1, users, n, hd], with zeros for the users that are not there."""
    if len(live) == users:
        return y
    index, first = numbered([live.index(u) if u in live else -1 for u in range(users)])
    zeros = torch.zeros_like(y[:, :1])
    parts = [y.narrow(1, live.index(u), 1) if u in live else zeros for u in first]
    return Repeated(torch.cat(parts, 1), index, -3)


def _gathered(pool: torch.Tensor, table: torch.Tensor, blocks: int) -> torch.Tensor:
    """The first `blocks` pages of every user side by side: [users, n, blocks * block, hd]."""
    pages = pool[table[:, :blocks].clamp(min=0).long()]  # [users, blocks, n, block, hd]
    u, b, n, block, hd = pages.shape
    return pages.transpose(1, 2).reshape(u, n, b * block, hd)


@op("ttnn.transformer.scaled_dot_product_attention_decode")
def scaled_dot_product_attention_decode(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor, *, is_causal: bool = True,
    attn_mask: Tensor | None = None, cur_pos=(), cur_pos_tensor: Tensor | None = None,
    attention_sink: Tensor | None = None,
    scale: float | None = None, sliding_window_size: int | None = None, memory_config: MemoryConfig | None = None,
    program_config=None, compute_kernel_config=None, share_cache: bool | None = None,
) -> Tensor:  # fmt: skip
    """Attention of one token of every user against its cache, up to and including its position; -1 leaves a user out.

    Shapes    q [1, B, nq, hd], cache [B, nk, L, hd], positions [B] or [1, B] (or a list) -> [1, B, nq, hd];
              with is_causal=False the whole cache counts, and a mask [B, 1, nq, L] may be added
    Dtypes    q bfloat16 (also block formats with one KV head); cache bfloat16, bfloat8_b, bfloat4_b; as q
    Layout    q in DRAM, or height sharded in L1; the cache in DRAM; the result in DRAM
    Numerics  as prefill; the keys in chunks of k_chunk_size, by default as many as the position needs
    Differs   the row of a user left out is zero here, and what was in memory on the device
    Source    recorded contract, op `ttnn.transformer.scaled_dot_product_attention_decode`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.scaled_dot_product_attention_decode"
    k_chunk = _decode_chunk(program_config, at(k.spec.shape, 2))
    _check_decode_operands(q, k, v, memory_config)
    users, (batch, n_kv, length, _) = q.spec.padded_shape[1], k.spec.padded_shape
    if k.spec.padded_shape[2] != v.spec.padded_shape[2]:
        raise DeviceRejects(
            f"K and V tensors must have the same sequence length. K: {k.spec.shape[2]}, V: {v.spec.shape[2]}"
        )
    if is_causal and attn_mask is not None:
        raise DeviceRejects(
            "attn_mask must not be provided when is_causal=True. Pass is_causal=False to use an explicit mask."
        )
    if share_cache and batch != 1:
        raise DeviceRejects(f"Share cache expects K to have batch size of 1, but got {batch}")
    if not share_cache and batch != users:
        raise DeviceRejects(f"K tensor batch size ({batch}) must equal B ({users})")
    _check_decode_pairs(q, k, v)
    if attn_mask is not None:
        _check_decode_mask(q, attn_mask, k.spec.shape[2])
    if length % k_chunk:
        raise DeviceRejects(f"K sequence length must be multiple of chunk size, got: {length} and {k_chunk}")
    if cur_pos_tensor is not None:
        held = cur_pos_tensor.spec.padded_shape
        if held.volume() != held[-1]:
            raise DeviceRejects(
                f"cur_pos tensor must hold all positions in its last dim (e.g. [B] or [1, B]), got shape {held}"
            )
        if held[-1] < users:
            raise DeviceRejects(f"cur_pos tensor must have at least one position per batch ({users}), got shape {held}")
    elif is_causal:
        if any(p < 0 for p in cur_pos):
            raise TypeError(
                f"{name}(): incompatible function arguments.\n  got    cur_pos = {list(cur_pos)}\n"
                "  want   numbers that are not negative; a user is left out by -1 in cur_pos_tensor"
            )
        if any(p >= length for p in cur_pos):
            raise DeviceRejects("cur_pos must be <= K sequence dim", f"{max(cur_pos)} and {length}")
        if len(cur_pos) < users:
            raise IndexError(
                f"vector::_M_range_check: __n (which is {len(cur_pos)}) >= this->size() (which is {len(cur_pos)})"
            )
    _check_decode_heads(q, n_kv, memory_config)
    _check_decode_grid(q, k, v, program_config, k_chunk)
    refuse_unmodelled(name, attention_sink=attention_sink, share_cache=share_cache)
    positions = None if cur_pos_tensor is not None else [int(p) for p in cur_pos]
    return _decode(
        name, q, k, v, attn_mask, cur_pos_tensor, None, positions, program_config, compute_kernel_config, memory_config,
        scale, sliding_window_size, k.spec.shape[2], is_causal,
    )  # fmt: skip


@op("ttnn.transformer.paged_scaled_dot_product_attention_decode")
def paged_scaled_dot_product_attention_decode(
    input_tensor_q: Tensor, input_tensor_k: Tensor, input_tensor_v: Tensor, page_table_tensor: Tensor, *,
    is_causal: bool = True, attn_mask: Tensor | None = None, cur_pos_tensor: Tensor | None = None,
    attention_sink: Tensor | None = None, scale: float | None = None, sliding_window_size: int | None = None,
    memory_config: MemoryConfig | None = None, program_config=None, compute_kernel_config=None,
    paged_cache_geometry=None,
    cache_position_modulo: int | None = None, spec_multi_pos_tiles: int = 0,
) -> Tensor:  # fmt: skip
    """`scaled_dot_product_attention_decode` with the cache as a pool of blocks [all, nk, block, hd] and a page table
    [B, blocks].

    Dtypes    page table and positions int32, ROW_MAJOR
    Source    recorded contract, op `ttnn.transformer.paged_scaled_dot_product_attention_decode`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.paged_scaled_dot_product_attention_decode"
    table = on_device(page_table_tensor)
    _, n_kv, block, _ = k.spec.padded_shape
    length = block * table.spec.padded_shape[-1]
    k_chunk = _decode_chunk(program_config, length)
    _check_decode_operands(q, k, v, memory_config)
    users = q.spec.shape[1]
    if k.spec.shape[2] != v.spec.shape[2]:
        raise DeviceRejects("K and V must have same block size", f"{k.spec.shape[2]} and {v.spec.shape[2]}")
    _check_decode_pairs(q, k, v)
    if table.dtype is not int32:
        raise DeviceRejects(
            "Error: SDPA currently only supports INT32 datatype", f"the page table is {cpp(table.dtype)}"
        )
    if table.layout is not Layout.ROW_MAJOR:
        raise DeviceRejects(f"Page table tensor layout must be ROW_MAJOR but got {cpp(table.layout)}")
    if is_causal:
        if cur_pos_tensor is None:
            raise DeviceRejects("Must have cur_pos tensor for paged attention in causal mode")
        count = cur_pos_tensor.spec.padded_shape[-1]
        if cur_pos_tensor.dtype is not int32:
            raise DeviceRejects(f"Expect cur_pos to be INT32, got {cpp(cur_pos_tensor.dtype)}")
        if cur_pos_tensor.layout is not Layout.ROW_MAJOR:
            raise DeviceRejects(f"cur_pos tensor layout must be ROW_MAJOR but got {cpp(cur_pos_tensor.layout)}")
        if count != users or table.spec.padded_shape[0] != users:
            raise DeviceRejects(
                f"cur_pos must have batch size equal to Q, got {count} and {table.spec.padded_shape[0]}",
                f"q {q.spec.shape} has {users} users",
            )
    _check_decode_heads(q, n_kv, memory_config)
    _check_decode_grid(q, k, v, program_config, k_chunk)
    refuse_unmodelled(
        name, attention_sink=attention_sink, paged_cache_geometry=paged_cache_geometry,
        cache_position_modulo=cache_position_modulo, spec_multi_pos_tiles=spec_multi_pos_tiles or None,
    )  # fmt: skip
    return _decode(
        name, q, k, v, attn_mask, cur_pos_tensor, table, None, program_config, compute_kernel_config, memory_config,
        scale,
        sliding_window_size, k.spec.shape[2] * table.spec.shape[-1], is_causal,
    )  # fmt: skip


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
    _check_prefill(q, k, v)
    if chunk_start_idx < 0:
        raise DeviceRejects("chunk_start_idx must be non-negative", f"it is {chunk_start_idx}")
    if table.dtype is not int32:
        raise DeviceRejects("Page table must be int32", f"it is {cpp(table.dtype)}")
    if table.layout is not Layout.ROW_MAJOR:
        raise DeviceRejects("Page table must be row major")
    if table.spec.shape[0] != q.spec.shape[0]:
        raise DeviceRejects(
            "Page table batch size must match input batch size. "
            f"Got Page table: {table.spec.shape[0]}, Input: {q.spec.shape[0]}"
        )
    b, n_q, s, hd = q.spec.shape
    _check_heads(n_q, k.spec.shape[1])
    length, start = k.spec.shape[2] * table.spec.shape[1], chunk_start_idx
    q_chunk, k_chunk = _chunks(program_config)
    if program_config is not None and start % q_chunk:
        raise DeviceRejects(
            f"chunk_start_idx must be a multiple of q_chunk_size. Got chunk_start_idx: {start}, q_chunk_size: {q_chunk}"
        )
    if length < s + start:
        raise DeviceRejects(
            "K's sequence length must be >= Q's sequence length + chunk_start_idx. "
            f"Got K: {length}, Q: {s}, chunk_start_idx: {start}"
        )
    if (cores := _cores(program_config)) > _CORES:
        raise DeviceRejects(
            "Provided grid must not contain more cores than the device. "
            f"Got {cores} cores, expected at most {_CORES} cores."
        )
    config = resolve(compute_kernel_config, _DEFAULT)
    out = spec(q.spec.shape, q.dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    approx, dtype, end = _exp_approx(program_config), NAME[q.dtype], start + s

    def compute(qv, kv, vv, tv):
        blocks = -(-end // kv.shape[2])
        kv, vv = (_gathered(t, tv, blocks)[:, :, :end] for t in (kv, vv))
        positions = torch.arange(end, device=qv.device)
        rows, cols = positions[start:, None], positions[None]
        hidden = cols > rows
        if sliding_window_size:
            hidden = hidden | (cols <= rows - sliding_window_size)
        mask = torch.zeros(s, end, device=qv.device).masked_fill(hidden, -torch.inf)[None, None]
        return numerics.now().attention(
            qv, kv, vv, mask=mask, scale=scale, config=config, exp_approx=approx, q_chunk=q_chunk, k_chunk=k_chunk,
            dtype=dtype,
        )  # fmt: skip

    flops = 4 * b * n_q * s * end * hd
    return launch(name, (q, k, v, table), out, compute, flops=flops, attrs={"math_fidelity": config.math_fidelity})
