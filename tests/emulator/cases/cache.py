"""Writes into KV caches. bfloat16 moves bit for bit; block formats round."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
from tests.emulator.cases.heads import one_user_a_core

ROUNDED = 2e-2  # into bfloat8_b: 2^-7 of the largest of sixteen, which is about 1e-2 of normal values, twice rounded
USERS, HEADS, LENGTH, DIM = 4, 2, 64, 64


def fill(cache, x, batch_idx, update_idx=0):
    """Whole tiles: the rows of the padding become zero."""
    cache = cache.clone()
    rows = -(-x.shape[2] // 32) * 32
    cache[batch_idx, :, update_idx : update_idx + rows] = torch.nn.functional.pad(x[0], (0, 0, 0, rows - x.shape[2]))
    return cache


def update(cache, x, update_idx, batch_offset=0):
    cache = cache.clone()
    cache[:, :, update_idx] = x[0, :, batch_offset : batch_offset + len(cache)].transpose(0, 1)
    return cache


def paged_update(cache, x, update_idxs=None, update_idxs_tensor=None, page_table=None, share_cache=False):
    cache, positions = cache.clone(), update_idxs if update_idxs is not None else update_idxs_tensor.tolist()
    x = torch.nn.functional.pad(x, (0, 0, 0, max(0, cache.shape[1] - x.shape[2])))
    for user, position in enumerate(positions):
        if position >= 0:
            at = 0 if share_cache else user
            if page_table is not None:
                at, position = page_table[user, position // cache.shape[2]], position % cache.shape[2]
            cache[at, :, position] = x[0, user, : cache.shape[1]]
    return cache


def paged_fill(pool, x, page_table, batch_idx=0):
    pool, block = pool.clone(), pool.shape[2]
    for i in range(-(-x.shape[2] // block)):
        part = x[0, :, i * block : (i + 1) * block]
        if page_table[batch_idx, i] == -1:
            continue
        pool[page_table[batch_idx, i]] = torch.nn.functional.pad(part, (0, 0, 0, block - part.shape[1]))
    return pool


def both(k_cache, k, v_cache, v, update_idxs_tensor):
    return (
        paged_update(k_cache, k, update_idxs_tensor=update_idxs_tensor),
        paged_update(v_cache, v, update_idxs_tensor=update_idxs_tensor),
    )


CACHE, POOL = T((USERS, HEADS, LENGTH, DIM)), T((8, HEADS, 32, DIM))


def integers(*values):
    return T(dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT, values=torch.tensor(values, dtype=torch.int32))


TABLE, WHERE = integers([3, 7], [0, 1], [6, 2], [4, 5]), integers(0, 63, -1, 33)
HOLES = integers([3, -1], [-1, 1], [-1, -1], [-1, 5])  # where WHERE writes nothing
SHARDED = one_user_a_core(4, 1, 32, DIM)


def token(heads, dtype=ttnn.bfloat16, cores=None):
    return T((1, USERS, heads, DIM), dtype, memory_config=cores or SHARDED)


LATER = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 1), (3, 1))]), (32, DIM), ttnn.ShardOrientation.ROW_MAJOR),
)  # fmt: skip
UPDATE, FILL = "ttnn.experimental.paged_update_cache", "ttnn.fill_cache"

CASES = {
    FILL: [
        Case((CACHE, T((1, HEADS, 32, DIM)), 2), {}, fill, changes=0),
        Case((CACHE, T((1, HEADS, 20, DIM)), 0), dict(update_idx=32), fill, changes=0,
            note="20 rows write a whole tile"),
        Case((CACHE, T((1, HEADS, 64, DIM)), 3), {}, fill),
        Refused((CACHE, T((1, HEADS, 32, DIM), ttnn.bfloat8_b), 0), {}, "must have same dtype"),
        Refused((CACHE, T((1, HEADS, 32, DIM)), USERS), {}, r"Batch index \(4\) must be less"),
        Refused((CACHE, T((1, 1, 32, DIM)), 0), {}, r"Input tensor height \(1\)"),
        Refused((CACHE, T((1, HEADS, 32, 32)), 0), {}, r"Input tensor width \(32\)"),
        Refused((CACHE, T((2, HEADS, 32, DIM)), 0), {}, "batch size must be 1 but got 2"),
        Refused((CACHE, T((1, HEADS, 96, DIM)), 0), {}, r"Fill update_idx \(0\) \+ input tensor height \(96\)"),
        Refused((CACHE, T((1, HEADS, 32, DIM)), 0), dict(update_idx=8), "must be a multiple of TILE_HEIGHT"),
        Refused((CACHE, T((1, HEADS, 32, DIM)), -1), {}, "incompatible", TypeError),
        Refused((T((1, 2, 32, 64), ttnn.uint32), T((1, 2, 32, 64)), 0), {}, "Cache tensor dtype must be"),
    ],
    "ttnn.update_cache": [
        Case((CACHE, T((1, HEADS, USERS, DIM)), 17), {}, update, changes=0),
        Case(
            (T((USERS, HEADS, LENGTH, DIM), ttnn.bfloat8_b), T((1, HEADS, 32, DIM)), 40), dict(batch_offset=8), update,
            ROUNDED,
            changes=0,
        ),
        Refused((CACHE, T((1, 1, 32, DIM)), 0), {}, "Input tensor height"),
        Refused((T((1, 2, 32, 64), ttnn.bfloat4_b), T((1, 2, 32, 64)), 0), {}, "Cache tensor dtype must be"),
    ],
    UPDATE: [
        Case((CACHE, token(HEADS)), dict(update_idxs_tensor=WHERE), paged_update, changes=0,
            note="-1 leaves a user out"),
        Case((CACHE, token(32)), dict(update_idxs=[1, 2, 3, 4]), paged_update, note="padded heads are dropped"),
        Case((CACHE, token(1)), dict(update_idxs=[1, 2, 3, 4]), paged_update, note="missing heads are zero"),
        Case(
            (T((USERS, HEADS, LENGTH, DIM), ttnn.bfloat8_b), token(HEADS)), dict(update_idxs_tensor=WHERE),
            paged_update, ROUNDED,
            changes=0,
        ),
        Case((POOL, token(HEADS)), dict(update_idxs_tensor=WHERE, page_table=TABLE), paged_update, changes=0),
        Case((POOL, token(HEADS)), dict(update_idxs_tensor=WHERE, page_table=HOLES), paged_update, changes=0),
        Refused((POOL, token(HEADS)), dict(update_idxs_tensor=integers(0, 31, -1, 33), page_table=HOLES),
            r"page table: index -1 is beyond the pool of 8 \(1 of 3 indices are\)", ttnn.NotEmulated),
        Refused((POOL, token(HEADS)), dict(update_idxs_tensor=WHERE, page_table=integers(*[[0, 8]] * 4)),
            r"page table: index 8 is beyond the pool of 8 \(2 of 3", ttnn.NotEmulated),
        Refused((CACHE, token(HEADS)), dict(update_idxs_tensor=integers(0, 63, -2, 33)),
            "position -2; only -1 leaves a user out", ttnn.NotEmulated),
        Case(
            (T((1, HEADS, LENGTH, DIM)), token(HEADS)), dict(update_idxs=[3, 5, 7, 9], share_cache=True), paged_update,
            changes=0,
        ),
        Refused((CACHE, T((1, USERS, HEADS, DIM))), dict(update_idxs_tensor=WHERE), "to be sharded"),
        Refused((CACHE, token(HEADS, ttnn.bfloat8_b)), dict(update_idxs_tensor=WHERE), "must be FLOAT32 or BFLOAT16"),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[1, 2, 3]), r"Number of update_idxs \(3\)"),
        Refused((CACHE, token(HEADS)), {}, "Not both or neither"),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[-1, 1, 2, 3]), "incompatible", TypeError),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[1] * 4, share_cache=True), "to have batch of 1"),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[1] * 4, cache_position_modulo=32),
            "only supported in paged mode"),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[1, 2, 3, 4], batch_offset=1), "batch_offset must be 0"),
        Refused((CACHE, token(HEADS)), dict(update_idxs=[1, 2, 3, 64]), "beyond the cache's 64", ttnn.NotEmulated),
        Refused((T((1, HEADS, LENGTH, DIM)), token(HEADS)), dict(update_idxs=[1, 2, 3, 4]), "match the batch in cache"),
        Refused((POOL, token(HEADS)), dict(update_idxs=[1, 2, 3, 4], page_table=TABLE), "requires update_idxs tensor"),
    ],
    "ttnn.experimental.paged_fused_update_cache": [
        Case(
            (CACHE, token(HEADS), CACHE, token(HEADS, cores=LATER)), dict(update_idxs_tensor=WHERE), both,
        ),
        Refused((CACHE, token(HEADS), CACHE, token(HEADS)), dict(update_idxs_tensor=WHERE), "must not overlap"),
    ],
    "ttnn.experimental.paged_fill_cache": [
        Case((POOL, T((1, HEADS, 64, DIM)), TABLE), dict(batch_idx=2), paged_fill, changes=0),
        Case((POOL, T((1, HEADS, 40, DIM)), TABLE), {}, paged_fill, note="40 rows write two whole blocks"),
        Case((POOL, T((1, HEADS, 64, DIM)), HOLES), dict(batch_idx=1), paged_fill, changes=0, note="-1 is skipped"),
        Refused((POOL, T((1, HEADS, 64, DIM)), integers([0, 8])), {},
            r"page table: index 8 is beyond the pool of 8 \(1 of 2", ttnn.NotEmulated),
        Refused((POOL, T((1, HEADS, 64, DIM)), integers([-2, 0])), {},
            r"page table: index -2 is beyond the pool of 8", ttnn.NotEmulated),
        Refused((POOL, T((1, HEADS, 64, DIM)), TABLE), dict(batch_idx_tensor=integers(4)),
            r"batch index: index 4 is beyond the page table of 4", ttnn.NotEmulated),
        Refused((POOL, T((1, HEADS, 96, DIM)), TABLE), {}, r"Input seq_len \(96\) must fit"),
        Refused((POOL, T((1, HEADS, 32, DIM)), TABLE), dict(batch_idx=4), "Batch idx must be within"),
        Refused((POOL, T((1, 4, 32, DIM)), TABLE), {}, "geometry mismatch"),
        Refused((POOL, T((1, HEADS, 32, DIM), ttnn.bfloat8_b), TABLE), {}, "must match cache tensor dtype"),
        Refused((POOL, T((2, HEADS, 32, DIM)), TABLE), {}, "input_batch must be 1"),
    ],
    "ttnn.kv_cache.fill_cache_for_user_": [Case((CACHE, T((1, HEADS, 32, DIM)), 2), {}, fill, changes=0)],
    "ttnn.kv_cache.update_cache_for_token_": [
        Case((CACHE, T((1, HEADS, 32, DIM)), 17, 4), {}, lambda c, x, at, offset: update(c, x, at, offset), changes=0)
    ],
}  # fmt: skip
