"""Writing into paged KV caches. Every op here changes its cache in place and returns a handle on it."""

from __future__ import annotations

import torch

from ...dtypes import FLOATS, TILE_BYTES, Layout, bfloat4_b, bfloat16, cpp, float32, int32
from ...errors import DeviceRejects, NotEmulated
from ...launch import check_places, on_device, same, update
from ...memory import BufferType, TensorMemoryLayout
from ...op import op, refuse_unmodelled
from ...shape import TILE, round_up
from ...tensor import Tensor
from ..core.buffers import buffers_end, check_room
from ..transformer.kv_cache import KEPT, rows_of, stored, unsigned


def _indices(values, users: int) -> list[int]:
    """The positions of the users, from a list or from the contents of an index tensor."""
    return (values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else list(values))[:users]


def _check_paged_update(name: str, cache: Tensor, x: Tensor, update_idxs, update_idxs_tensor, page_table, share_cache):
    """The refusals of paged_update_cache, in the library's order."""
    unsigned(name, **{f"update_idxs[{i}]": p for i, p in enumerate(update_idxs) if p < 0})
    if (update_idxs_tensor is not None) == bool(len(update_idxs)):
        raise DeviceRejects("Only an update tensor or an update vector can be provided. Not both or neither.")
    if cache.dtype not in KEPT and cache.dtype is not bfloat4_b:
        raise DeviceRejects(
            "Data type of cache tensor must be FLOAT32, BFLOAT16, BFLOAT8_B, or BFLOAT4_B and is " + cpp(cache.dtype)
        )
    if cache.layout is not Layout.TILE:
        raise DeviceRejects("Cache tensor in update_cache must be tilized")
    if page_table is None and x.spec.padded_shape[-1] != cache.spec.padded_shape[-1]:
        raise DeviceRejects(
            f"Last dim of input tensor ({x.spec.padded_shape[-1]}) must match last dim of cache tensor "
            f"({cache.spec.padded_shape[-1]}) in non-paged mode"
        )
    users = x.spec.padded_shape[1]
    if page_table is not None:
        if update_idxs_tensor is None:
            raise DeviceRejects("Paged cache requires update_idxs tensor")
        if page_table.dtype is not int32:
            raise DeviceRejects("Expect page table to have datatype INT32", f"got {cpp(page_table.dtype)}")
        if page_table.layout is not Layout.ROW_MAJOR:
            raise DeviceRejects("Expect page table to have memory layout in ROW MAJOR")
        if page_table.spec.padded_shape[0] != users:
            raise DeviceRejects(
                "Batch size between page_table and input_tensor must match",
                f"{page_table.spec.padded_shape[0]} and {users}",
            )
        blocks, most = page_table.spec.padded_shape[1], cache.spec.padded_shape[0]
        if blocks > most:
            raise DeviceRejects(
                "max_num_blocks_per_seq must be less than max_num_blocks: "
                f"max_num_blocks_per_seq={blocks}, max_num_blocks={most}"
            )
        own = cache.spec.padded_shape[1:]
        block, view = own[0] * own[1] * own[2], own[0] * own[1] * x.spec.padded_shape[-1]
        if view != block:
            raise DeviceRejects(
                f"paged_update_cache geometry mismatch: cache has {block} elems/block (kv_heads={own[0]}, "
                f"block_size={own[1]}, head_dim={own[2]}) but call view is {view} (kv_heads={own[0]}, "
                f"block_size={own[1]}, head_dim={x.spec.padded_shape[-1]})."
            )
    elif share_cache:
        if cache.spec.padded_shape[0] != 1:
            raise DeviceRejects(
                "Share cache feature expects cache tensor to have batch of 1", f"it is {cache.spec.shape}"
            )
    elif users != cache.spec.padded_shape[0]:
        raise DeviceRejects(
            "Expect batch in input tensor match the batch in cache tensor",
            f"input {x.spec.shape} has {users} users, the cache {cache.spec.padded_shape[0]}",
        )
    if update_idxs_tensor is not None:
        t = update_idxs_tensor
        if t.dtype is not int32:
            raise DeviceRejects("Expected update_idxs to have datatype INT32", f"got {cpp(t.dtype)}")
        if t.layout is not Layout.ROW_MAJOR:
            raise DeviceRejects("Expected update_idxs to have memory layout in ROW MAJOR")
        if not t.is_sharded() and t.spec.memory_config.buffer_type is not BufferType.DRAM:
            raise DeviceRejects("Expect update_idxs to have buffer type DRAM")
    count = len(update_idxs) if update_idxs_tensor is None else update_idxs_tensor.spec.padded_shape[0]
    if count != users:
        raise DeviceRejects(f"Number of update_idxs ({count}) should match batch size ({users})")
    if not x.is_sharded():
        raise DeviceRejects("Expect input_tensor to be sharded", "to_memory_config with one user's heads a core")
    if x.spec.memory_config.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
        raise DeviceRejects("Expect input_tensor to NOT have memory layout WIDTH SHARDED")
    if x.spec.shape[0] != 1:
        raise DeviceRejects("Dim 0 of input tensor must be 1", f"it is {x.spec.shape}")
    cores = x.spec.memory_config.shard_spec.num_cores()
    if cores != users:
        raise DeviceRejects(
            f"Input tensor shard grid must have num_cores ({cores}) equal to the number of users / batch ({users}). "
            "The "
            "kernel dispatches one user per core; use a {num_users, 1} grid (or any CoreRangeSet whose num_cores == "
            "num_users)."
        )
    if cache.is_sharded():
        raise DeviceRejects("Only interleaved cache is supported")


def _write_rows(name: str, held, rows, positions: list[int], table, share_cache, modulo) -> None:
    """rows [users, heads, hd] to their positions of the cache (or of the pool, through a page table); -1 is skipped.

    Other negative positions are the kernel's uint32 far beyond the cache, and entries of the table are taken as they
    come: -1 is no page there (ttnn 0.81.1, writer_update_cache_interleaved_start_id.cpp).
    """
    if any(p < -1 for p in positions):
        raise NotEmulated(f"{name}: position {min(positions)}; only -1 leaves a user out")
    if modulo:
        positions = [p % modulo if p >= 0 else p for p in positions]
    live = [u for u, p in enumerate(positions) if p >= 0]
    if not live:
        return
    where = [positions[u] for u in live]
    length = held.shape[2]
    limit = length if table is None else length * table.shape[1]
    if max(where) >= limit:
        raise NotEmulated(
            f"{name}: position {max(where)} is beyond the cache's {limit}; the device writes over what lies there"
        )
    if table is None and len(live) <= 4:  # plain slices are quicker than indices
        for u, p in zip(live, where, strict=True):
            held[0 if share_cache else u, :, p] = rows[u]
        return
    at = torch.tensor(where, device=held.device)
    if table is None:
        batch = torch.zeros_like(at) if share_cache else torch.tensor(live, device=held.device)
    else:
        batch = table[torch.tensor(live, device=held.device), at // length].long()
        check_places(f"{name}: page table", batch, held.shape[0], "pool")
        at = at % length
    held[batch, :, at] = rows if len(live) == len(positions) else rows[live]


def _update_rows(name: str, cache, x, update_idxs, update_idxs_tensor, page_table, share_cache, modulo=None) -> Tensor:
    users, heads, dtypes = x.spec.shape[1], cache.spec.shape[1], (x.dtype, cache.dtype)
    listed = None if update_idxs_tensor is not None else [int(i) for i in update_idxs]
    width = cache.spec.shape[3]

    def compute(held, v, at, table):
        rows = stored(rows_of(v[0], heads), *dtypes)[..., :width]
        _write_rows(name, held, rows, _indices(at if listed is None else listed, users), table, share_cache, modulo)

    return same(update(name, cache, (x, update_idxs_tensor, page_table), compute))


def _check_working_memory(name: str, cache: Tensor, x: Tensor, where, indices: int, config) -> None:
    """Refuses a program whose buffers do not fit a core's L1: of the cache two rows of tiles and one for each user, of
    what lies between four, and `indices` bytes.

    Source    ttnn 0.81.1 on n150 and p150, 40 sizes asked: exact on all
    """
    tiles = x.spec.padded_shape[-1] // TILE
    wide = cache.dtype is float32 or (config is not None and config.fp32_dest_acc_en)
    size = tiles * (
        (x.spec.padded_shape[1] + 2) * TILE_BYTES[cache.dtype] + 4 * TILE_BYTES[float32 if wide else bfloat16]
    )
    hint = f"{name} of fewer users at a time"
    device = x.buffer.device
    check_room(device, buffers_end(device.chip, size + indices, where, hint), where, hint)


@op("ttnn.experimental.paged_update_cache")
def paged_update_cache(
    cache_tensor: Tensor, input_tensor: Tensor, *, update_idxs=(), update_idxs_tensor: Tensor | None = None,
    share_cache: bool | None = None, page_table: Tensor | None = None, batch_offset: int = 0,
    compute_kernel_config=None,
    mesh_coords=None, block_size: int | None = None, num_kv_heads: int | None = None,
    cache_position_modulo: int | None = None,
) -> Tensor:  # fmt: skip
    """One token of every user into the cache, each at its own position; -1 leaves the user out.

    Shapes    cache [B, n, L, hd], input [1, B, heads, hd] of which the first n are used (missing ones are zero);
              with a page table [B, blocks] the cache is a pool [all blocks, n, block, hd]
    Dtypes    input bfloat16 or float32; cache also bfloat8_b, bfloat4_b: the packer rounds twice
    Layout    TILE; the input sharded in L1, not by width; indices int32 ROW_MAJOR in DRAM
    Raises    as recorded; the number of heads is not checked, as in the library
    Source    recorded contract, op `ttnn.experimental.paged_update_cache`
    """
    cache, x = on_device(cache_tensor, "Cache tensor"), on_device(input_tensor)
    name = "ttnn.experimental.paged_update_cache"
    if x.dtype not in (float32, bfloat16):
        raise DeviceRejects(
            "Data type of input tensor for paged_update_cache must be FLOAT32 or BFLOAT16; decode update repacks "
            "into the "
            "cache dtype and should not receive low-precision packed input", f"got {cpp(x.dtype)}"
        )  # fmt: skip
    if x.layout is not Layout.TILE:
        raise DeviceRejects("Input tensor in non-fused update_cache must be tilized")
    _check_paged_update(name, cache, x, update_idxs, update_idxs_tensor, page_table, share_cache)
    if batch_offset:
        raise DeviceRejects("batch_offset must be 0")
    if cache_position_modulo is not None and page_table is None:
        raise DeviceRejects("cache_position_modulo is only supported in paged mode (when page_table is provided)")
    refuse_unmodelled(name, mesh_coords=mesh_coords, block_size=block_size, num_kv_heads=num_kv_heads)
    indices = 0 if update_idxs_tensor is None else 4096
    indices += 0 if page_table is None else 4 * page_table.spec.padded_shape[1]
    where = x.spec.memory_config.shard_spec.grid.ranges()[0]
    _check_working_memory(name, cache, x, where, indices, compute_kernel_config)
    return _update_rows(name, cache, x, update_idxs, update_idxs_tensor, page_table, share_cache, cache_position_modulo)


@op("ttnn.experimental.paged_fused_update_cache")
def paged_fused_update_cache(
    cache_tensor1: Tensor, input_tensor1: Tensor, cache_tensor2: Tensor, input_tensor2: Tensor, *, update_idxs=(),
    update_idxs_tensor: Tensor | None = None, share_cache: bool | None = None, page_table: Tensor | None = None,
    batch_offset: int = 0, compute_kernel_config=None, mesh_coords=None,
):  # fmt: skip
    """`paged_update_cache` of keys and of values at once; their inputs are on different cores.

    Shapes    caches [blocks, n, block, hd]; inputs [1, B, n, hd]
    Dtypes    as paged_update_cache
    Source    recorded contract, op `ttnn.experimental.paged_fused_update_cache`
    """
    name = "ttnn.experimental.paged_fused_update_cache"
    pairs = [(on_device(c, "Cache tensor"), on_device(x)) for c, x in
             ((cache_tensor1, input_tensor1), (cache_tensor2, input_tensor2))]  # fmt: skip
    (_, x1), (_, x2) = pairs
    for _, x in pairs:
        if x.dtype not in (float32, bfloat16):
            raise DeviceRejects(f"Data type of input tensor must be FLOAT32 or BFLOAT16 and is {cpp(x.dtype)}")
        if not x.is_sharded():
            raise DeviceRejects("Expect input_tensor to be sharded", "to_memory_config with one user's heads a core")
    grids = [x.spec.memory_config.shard_spec.grid for _, x in pairs]
    if set(grids[0].cores()) & set(grids[1].cores()):
        raise DeviceRejects(
            f"input_tensor1 ({grids[0]}) and input_tensor2 ({grids[1]}) must not overlap",
            "nlp_create_qkv_heads_decode(..., overlap_qk_coregrid=False) on a sharded operand puts k on other cores",
        )
    if pairs[0][0].dtype is not pairs[1][0].dtype:
        raise DeviceRejects(
            "Fused update requires matching cache tensor dtypes, got "
            f"{cpp(pairs[0][0].dtype)} and {cpp(pairs[1][0].dtype)}"
        )
    for cache, x in pairs:
        _check_paged_update(name, cache, x, update_idxs, update_idxs_tensor, page_table, share_cache)
    if batch_offset:
        raise DeviceRejects("batch_offset must be 0")
    refuse_unmodelled(name, mesh_coords=mesh_coords)
    if x1.layout is not Layout.TILE or x2.layout is not Layout.TILE:
        raise NotEmulated(f"{name}: ROW_MAJOR inputs have no model in the emulator")
    rows = [t.spec.padded_shape[-1] for t in (update_idxs_tensor, page_table) if t is not None]
    indices, where = sum(round_up(4 * n, 32) for n in rows), grids[0].merge(grids[1]).bounding_box()
    _check_working_memory(name, pairs[0][0], x1, where, indices, compute_kernel_config)
    return tuple(
        _update_rows(name, cache, x, update_idxs, update_idxs_tensor, page_table, share_cache) for cache, x in pairs
    )


@op("ttnn.experimental.paged_fill_cache")
def paged_fill_cache(
    cache_tensor: Tensor, input_tensor: Tensor, page_table: Tensor, *, batch_idx_tensor: Tensor | None = None,
    batch_idx: int = 0, compute_kernel_config=None, mesh_coords=None, block_size: int | None = None,
    cache_position_modulo: int | None = None, valid_seq_len_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A prompt's keys or values into the blocks that one row of the page table names.

    Shapes    pool [all blocks, n, block, hd], input [1, n, S, hd], page table [users, blocks]; S <= blocks * block
    Dtypes    the same in both; indices int32
    Layout    the input interleaved; the page table ROW_MAJOR
    Numerics  moves values, in whole tiles: rows beyond S become zero; blocks named -1 are skipped
    Source    recorded contract, op `ttnn.experimental.paged_fill_cache`
    """
    cache, x, table = (
        on_device(cache_tensor, "Cache tensor"),
        on_device(input_tensor),
        on_device(page_table, "Page table"),
    )
    name = "ttnn.experimental.paged_fill_cache"
    unsigned(name, batch_idx=batch_idx)
    if cache.dtype not in FLOATS:
        raise DeviceRejects(
            "Data type of cache tensor for paged_fill_cache must be FLOAT32, BFLOAT16, BFLOAT8_B, or BFLOAT4_B and is "
            + cpp(cache.dtype)
        )
    if x.dtype is not cache.dtype:
        raise DeviceRejects(
            f"Input tensor dtype ({cpp(x.dtype)}) must match cache tensor dtype ({cpp(cache.dtype)}) for "
            "paged_fill_cache; "
            "cast prefill K/V to the cache dtype before filling the paged cache."
        )
    if x.spec.memory_config.is_sharded():
        raise DeviceRejects("Expect input_tensor to have memory layout INTERLEAVED")
    if table.dtype is not int32:
        raise DeviceRejects("Expect page_table_tensor to have datatype INT32", f"got {cpp(table.dtype)}")
    _, heads, block, width = cache.spec.padded_shape
    _, n, rows, hd = x.spec.padded_shape
    if n * block * hd != heads * block * width:
        raise DeviceRejects(
            f"paged_fill_cache geometry mismatch: cache has {heads * block * width} elems/block (kv_heads={heads}, "
            f"block_size={block}, head_dim={width}) but input view is {n * block * hd} (kv_heads={n}, "
            f"block_size={block}, "
            f"head_dim={hd})."
        )
    per_user = table.spec.padded_shape[1]
    if rows > block * per_user:
        raise DeviceRejects(
            f"Input seq_len ({rows}) must fit in max_num_blocks_per_seq ({per_user}) * block_size ({block})"
        )
    if batch_idx_tensor is None:
        if batch_idx >= table.spec.padded_shape[0]:
            raise DeviceRejects(
                "Batch idx must be within the page_table batch size", f"{batch_idx} of {table.spec.padded_shape[0]}"
            )
        if x.spec.shape[0] != 1:
            raise DeviceRejects(
                f"When no batch_idx_tensor is provided, input_batch must be 1 (got {x.spec.shape[0]}); pass a "
                "batch_idx_tensor "
                "of size input_batch to fill multiple batch rows in one call."
            )
    elif batch_idx_tensor.volume() != x.spec.shape[0]:
        raise DeviceRejects(
            f"Batch idx tensor must have input_tensor batch dim ({x.spec.shape[0]}) elements, got "
            f"{batch_idx_tensor.volume()}"
        )
    if table.spec.memory_config.buffer_type is BufferType.L1 and 4 * per_user % 32:
        raise DeviceRejects("page table page size in bytes must be a multiple of 32 due to address alignment")
    refuse_unmodelled(
        name, mesh_coords=mesh_coords, block_size=block_size, cache_position_modulo=cache_position_modulo,
        valid_seq_len_tensor=valid_seq_len_tensor,
    )  # fmt: skip
    if (heads, width) != (n, hd):
        raise NotEmulated(f"{name}: an input of {n} heads of {hd} into blocks of {heads} heads of {width} has no model")

    def compute(pool, v, pages, users):
        chosen = torch.tensor([batch_idx] if users is None else _indices(users, v.shape[0]), device=pages.device)
        check_places(f"{name}: batch index", chosen, len(pages), "page table")
        filled = pages[chosen.long(), : round_up(v.shape[2], pool.shape[2]) // pool.shape[2]]
        check_places(f"{name}: page table", filled[filled != -1], len(pool), "pool")
        for each, places in enumerate(filled.tolist()):
            for i, page in enumerate(places):
                if page == -1:
                    continue
                part = v[each, :, i * pool.shape[2] : (i + 1) * pool.shape[2]]
                s = part.shape[1]
                pool[page, :, :s] = part
                pool[page, :, s : round_up(s, TILE)] = 0

    return same(update(name, cache, (x, table, batch_idx_tensor), compute))
