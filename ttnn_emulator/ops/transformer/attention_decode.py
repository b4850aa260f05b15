"""Scaled dot product attention of one token of every user against a cache, also a paged one."""

from __future__ import annotations

import torch

from ... import numerics
from ...config import resolve
from ...dtypes import NAME, Layout, bfloat16, cpp, int32
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, BufferType, MemoryConfig, TensorMemoryLayout
from ...numerics.rounding import HELD_AS
from ...numerics.rows import FEW, HELD, Repeated, numbered, whole
from ...op import op, refuse_unmodelled
from ...shape import TILE, at, round_up
from ...tensor import Tensor, spec
from .attention_program import DTYPES, SMALL, check_working_memory, cores_of, decode_bytes, exp_approx, facts, gathered

_DEFAULT_DECODE = numerics.default_config("attention_decode")

_TREE = 64  # cores that reduce one head's parts (ttnn 0.81.1, refusals on Blackhole)


def _automatic_chunk(length: int) -> int:
    """The chunk of keys that decode chooses: the largest power of two that divides the length, at most 512."""
    return min(512, length & -length)


def decode_chunk(program, length: int) -> int:
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


def check_decode_operands(q: Tensor, k: Tensor, v: Tensor, memory_config) -> None:
    for t in (q, k, v):
        if t.dtype not in DTYPES:
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


def check_decode_mask(q: Tensor, mask: Tensor, length: int) -> None:
    heads, span = at(on_device(mask).spec.shape, 2), at(mask.spec.shape, 3)
    if mask.dtype not in DTYPES:
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


def check_decode_sink(q: Tensor, sink: Tensor) -> None:
    shape = on_device(sink).spec.padded_shape
    if len(sink.spec.shape) != 2:
        raise DeviceRejects(
            "Attention sink must have 2 dimensions", f"it is {sink.spec.shape}; want [{q.spec.shape[2]}, 32]"
        )
    if shape[0] != q.spec.padded_shape[2]:
        raise DeviceRejects(f"Attention sink must have the same padded num heads as Q but got {shape[0]}")
    if shape[1] != TILE:
        raise DeviceRejects(f"Attention sink must be a single tile wide, but got {shape[1]}")
    if sink.dtype is not bfloat16:
        raise DeviceRejects(f"Attention sink must by a BF16 tensor, but got {cpp(sink.dtype)}")
    if sink.layout is not Layout.TILE:
        raise DeviceRejects(f"Attention sink must be in TILE layout, but got {cpp(sink.layout)}")
    held = sink.spec.memory_config.buffer_type
    if held is not BufferType.DRAM:
        raise DeviceRejects(f"Attention sink must be in DRAM memory, but got {cpp(held)}")


def check_decode_grid(q: Tensor, k: Tensor, v: Tensor | None, program, k_chunk: int) -> None:
    chip, users = q.buffer.device.chip, q.spec.shape[1]
    cores = cores_of(program, chip)
    if cores > chip.cores:
        raise DeviceRejects(f"Cores available ({cores}) exceeds grid size ({chip.cores})")
    if cores < users:
        raise DeviceRejects(f"Cores available ({cores}) must be >= batch size ({users})")
    most = 16 if program is None else program.max_cores_per_head_batch
    heads = k.spec.shape[1]
    each = (cores if program is None else min(cores, most * users * heads)) // users // heads
    if each > _TREE:
        raise DeviceRejects(
            f"Tree reduction max {_TREE.bit_length() - 1} rounds ({_TREE} cores/head), got {each} cores/head",
            "program_config=ttnn.SDPAProgramConfig(compute_with_storage_grid_size=(8, 8), q_chunk_size=0, "
            "k_chunk_size=0)",
        )
    if v is not None:
        check_working_memory(decode_bytes(q, k, v, k.spec.padded_shape[1], k_chunk, cores, most), program, chip)


def check_decode_heads(q: Tensor, n_kv: int, memory_config) -> None:
    if n_kv > 1:
        if q.spec.shape[2] % n_kv:
            raise DeviceRejects(f"GQA expects Q to have a multiple of K heads, but got {q.spec.shape[2]} and {n_kv}")
        if q.dtype is not bfloat16:
            raise DeviceRejects(f"GQA expects BFLOAT16 input tensor, but got {cpp(q.dtype)}")
        if memory_config is not None and memory_config.is_sharded():
            raise DeviceRejects("Sharded output not supported for GQA")


def decode(name, q, k, v, mask, sink, where, table, positions, program, compute_kernel_config, memory_config, scale,
            window, length, is_causal, k_chunk, most, width=None):  # fmt: skip
    """The launch of decode; `positions` is a list, or None where the tensor `where` holds them; `k_chunk` keys go at a
    time (0: as many as the position needs), on at most `most` cores a head. Of latent keys the first `width` columns
    are the values too, where `v` is none."""
    config, approx, dtype = resolve(compute_kernel_config, _DEFAULT_DECODE), exp_approx(program), NAME[q.dtype]
    users, heads = q.spec.shape[1], tuple(q.spec.shape[2:])
    cores = max(1, min(most, cores_of(program, q.buffer.device.chip) // (users * k.spec.shape[1])))  # that share a head
    out = spec((*q.spec.shape[:3], width or q.spec.shape[3]), q.dtype, q.layout, memory_config or DRAM_MEMORY_CONFIG)
    settings = dict(
        scale=scale, config=config, exp_approx=approx, k_chunk=k_chunk, sliding_window=window, dtype=dtype, cores=cores
    )

    def positions_of(wv) -> list[int]:
        if not is_causal:
            return [length - 1] * users
        found = positions if positions is not None else [int(p) for p in wv.reshape(-1).tolist()[:users]]
        if found and max(found) >= length:
            raise NotEmulated(f"{name}: position {max(found)} is beyond the cache's {length}")
        return found

    def attend(qv, kv, vv, mv, sv, found, table):
        if table is not None:
            needed = [p // kv.shape[2] + 1 for p in found]  # -1, no user: none
            kv, vv = gathered(kv, table, needed), gathered(vv, table, needed)
        return numerics.now().attention_decode(qv, kv, vv, found, mask=mv, sink=sv, **settings)

    def latent(qv, kv, vv, mv, sv, wv, tv):
        """As wide as the keys, and of that the values' columns."""
        kv = whole(kv)
        vv = kv if vv is None else torch.nn.functional.pad(whole(vv), (0, kv.shape[-1] - vv.shape[-1]))
        return whole(compute(qv, kv, vv, mv, sv, wv, tv))[..., :width].contiguous()

    def compute(qv, kv, vv, mv, sv, wv, tv):
        kv, vv, mv, sv, wv, tv = map(whole, (kv, vv, mv, sv, wv, tv))
        sv = None if sv is None else sv[: heads[0], 0]
        found = positions_of(wv)
        live = [u for u, p in enumerate(found[:users]) if p >= 0]
        if mv is not None or users < FEW or 2 * len(live) >= users:
            return attend(whole(qv), kv, vv, mv, sv, found, tv)
        if not live:
            return Repeated(vv.new_zeros(1, 1, *heads, dtype=HELD_AS[dtype]), (0,) * users, -3)
        if tv is None:
            kv, vv = _of_users(kv, live), _of_users(vv, live)
        else:
            tv = tv[live]
        y = attend(_of_users(qv, live, 1), kv, vv, None, sv, [found[u] for u in live], tv)
        return _with_absent(y, live, users)

    def together(qs, ks, vs, masks, sinks, wheres, tables):
        """The heads of all chips as those of one, for the users that are there and the keys up to the farthest
        position."""
        if any(t[0] is not None for t in (masks, sinks, tables)) or any(w is not wheres[0] for w in wheres):
            return None
        found = positions_of(wheres[0])
        live = [u for u, p in enumerate(found[:users]) if p >= 0]
        if not live:
            return None
        end = min(length, round_up(max(found) + 1, k_chunk))  # whole chunks
        if len(qs) * len(live) * ks[0].shape[1] * end * ks[0].shape[3] > SMALL:
            return None
        kv, vv = (torch.cat([_of_users(whole(t), live)[:, :, :end] for t in each], 1) for each in (ks, vs))
        qv = torch.cat([_of_users(t, live, 1) for t in qs], 2)
        y = numerics.now().attention_decode(qv, kv, vv, [found[u] for u in live], **settings)
        return [_with_absent(part.contiguous(), live, users) for part in torch.split(y, heads[0], 2)]

    flops = 4 * q.spec.shape[1] * q.spec.shape[2] * length * q.spec.shape[3]
    return launch(
        name, (q, k, v, mask, sink, where, table), out, latent if width else compute, flops=flops, topology=q.topology,
        attrs=facts(config, approx, sink), together=None if width else together, rows=HELD,
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
              with is_causal=False the whole cache counts, and a mask [B, 1, nq, L] may be added; attention_sink
              [nq, up to 32]: in its first column a score of every head without a value, which `scale` counts too
    Dtypes    q bfloat16 (also block formats with one KV head); cache bfloat16, bfloat8_b, bfloat4_b; as q
    Layout    q in DRAM, or height sharded in L1; the cache in DRAM; the result in DRAM
    Numerics  as prefill, but a finite mask counts `scale` times itself; the keys in chunks of k_chunk_size, by default
              the largest power of two that divides L, at most 512
    Differs   the row of a user left out is zero here, and what was in memory on the device
    Source    recorded contract, op `ttnn.transformer.scaled_dot_product_attention_decode`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.scaled_dot_product_attention_decode"
    k_chunk = decode_chunk(program_config, at(k.spec.shape, 2))
    check_decode_operands(q, k, v, memory_config)
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
        check_decode_mask(q, attn_mask, k.spec.shape[2])
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
    check_decode_heads(q, n_kv, memory_config)
    check_decode_grid(q, k, v, program_config, k_chunk)
    if attention_sink is not None:
        check_decode_sink(q, attention_sink)
    refuse_unmodelled(name, share_cache=share_cache)
    positions = None if cur_pos_tensor is not None else [int(p) for p in cur_pos]
    return decode(
        name, q, k, v, attn_mask, attention_sink, cur_pos_tensor, None, positions, program_config,
        compute_kernel_config, memory_config, scale, sliding_window_size, k.spec.shape[2], is_causal, k_chunk,
        16 if program_config is None else program_config.max_cores_per_head_batch,
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

    Shapes    q [1, B, n, hd], k and v [blocks, n_kv, block, hd], table [B, pages] -> q's
    Dtypes    page table and positions int32, ROW_MAJOR
    Numerics  without a program config 32 keys at a time, one core a head and user; with k_chunk_size 0 as many as the
              position needs, a power of two up to 256 (128 with an fp32 destination)
    Source    recorded contract, op `ttnn.transformer.paged_scaled_dot_product_attention_decode`
    """
    q, k, v = on_device(input_tensor_q), on_device(input_tensor_k), on_device(input_tensor_v)
    name = "ttnn.transformer.paged_scaled_dot_product_attention_decode"
    table = on_device(page_table_tensor)
    _, n_kv, block, _ = k.spec.padded_shape
    length = block * table.spec.padded_shape[-1]
    k_chunk = decode_chunk(program_config, length)
    check_decode_operands(q, k, v, memory_config)
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
    check_decode_heads(q, n_kv, memory_config)
    check_decode_grid(q, k, v, program_config, k_chunk)
    if attention_sink is not None:
        check_decode_sink(q, attention_sink)
    refuse_unmodelled(
        name, paged_cache_geometry=paged_cache_geometry,
        cache_position_modulo=cache_position_modulo, spec_multi_pos_tiles=spec_multi_pos_tiles or None,
    )  # fmt: skip
    chunk, most = TILE, 1
    if program_config is not None:
        chunk, most = program_config.k_chunk_size, program_config.max_cores_per_head_batch
    return decode(
        name, q, k, v, attn_mask, attention_sink, cur_pos_tensor, table, None, program_config, compute_kernel_config,
        memory_config, scale, sliding_window_size, k.spec.shape[2] * table.spec.shape[-1], is_causal, chunk, most,
    )  # fmt: skip
