"""Writing into KV caches. Every op here changes its cache in place and returns a handle on it."""

from __future__ import annotations

import torch

from ... import numerics
from ...dtypes import NAME, Layout, bfloat8_b, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...launch import on_device, same, update
from ...memory import TensorMemoryLayout
from ...op import op
from ...shape import TILE, round_up
from ...tensor import Tensor

KEPT = (float32, bfloat16, bfloat8_b)


def stored(v: torch.Tensor, given, kept) -> torch.Tensor:
    """Values of one dtype as a cache of another keeps them; the packer rounds where they differ."""
    return v if given is kept else numerics.now().pack(v, NAME[kept])


def rows_of(v: torch.Tensor, heads: int) -> torch.Tensor:
    """[users, n, hd] cut or zero padded to the cache's heads."""
    n = v.shape[1]
    if n == heads:
        return v
    return v[:, :heads] if n > heads else torch.nn.functional.pad(v, (0, 0, 0, heads - n))


def unsigned(name: str, **indices: int) -> None:
    """The binding takes no negative number."""
    for argument, value in indices.items():
        if value < 0:
            raise TypeError(
                f"{name}(): incompatible function arguments.\n  got    {argument} = {value}\n  want   an int that is "
                "not negative"
            )


def _check_kept(cache: Tensor, x: Tensor) -> None:
    if x.layout is not Layout.TILE or cache.layout is not Layout.TILE:
        raise DeviceRejects("Inputs to update_cache must be tilized")
    for name, t in (("Input", x), ("Cache", cache)):
        if t.dtype not in KEPT:
            raise DeviceRejects(f"{name} tensor dtype must be FLOAT32, BFLOAT16, or BFLOAT8_B but got {cpp(t.dtype)}")


def _check_geometry(cache: Tensor, x: Tensor) -> None:
    a, b = x.spec.padded_shape, cache.spec.padded_shape
    if a[-1] != b[-1]:
        raise DeviceRejects(f"Input tensor width ({a[-1]}) must equal cache tensor width ({b[-1]})")
    if a[0] != 1:
        raise DeviceRejects(f"Input tensor batch size must be 1 but got {a[0]}")
    if a[1] != b[1]:
        raise DeviceRejects(f"Input tensor height ({a[1]}) must equal cache tensor height ({b[1]})")
    if cache.spec.memory_config.is_sharded():
        raise DeviceRejects(
            "Cache tensor memory layout must be INTERLEAVED, ND_SHARDED, or HEIGHT_SHARDED (created from ND shard "
            "spec) "
            f"but got {cpp(cache.spec.memory_config.memory_layout)}"
        )


@op("ttnn.fill_cache")
def fill_cache(cache_tensor: Tensor, input_tensor: Tensor, batch_idx: int, *, update_idx: int = 0) -> Tensor:
    """A prompt's keys or values into one user's rows of the cache, in whole tiles: rows beyond S become zero.

    Shapes    cache [B, n, L, hd], input [1, n, S, hd]; S padded to tiles <= L - update_idx
    Dtypes    bfloat16, float32, bfloat8_b, the same in both
    Layout    TILE; the input interleaved, HEIGHT_SHARDED or BLOCK_SHARDED, the cache interleaved
    Numerics  moves values
    Raises    a batch index, heads, width or length that do not fit; other dtypes
    Source    recorded contract, op `ttnn.fill_cache`
    """
    unsigned("ttnn.fill_cache", batch_idx=batch_idx, update_idx=update_idx)
    cache, x = on_device(cache_tensor, "Cache tensor"), on_device(input_tensor)
    _check_kept(cache, x)
    if x.dtype is not cache.dtype:
        raise DeviceRejects("Input and cache tensors must have same dtype!", "typecast the input to the cache's dtype")
    _check_geometry(cache, x)
    if x.spec.memory_config.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
        raise DeviceRejects(
            f"Input tensor memory layout must not be WIDTH_SHARDED but got {cpp(x.spec.memory_config.memory_layout)}"
        )
    users, rows, length = cache.spec.padded_shape[0], x.spec.padded_shape[2], cache.spec.padded_shape[2]
    if batch_idx >= users:
        raise DeviceRejects(f"Batch index ({batch_idx}) must be less than cache tensor batch size ({users})")
    if update_idx % TILE:
        raise DeviceRejects(f"Fill update_idx ({update_idx}) must be a multiple of TILE_HEIGHT ({TILE})")
    if rows + update_idx > length:
        raise DeviceRejects(
            f"Fill update_idx ({update_idx}) + input tensor height ({rows}) must be <= cache tensor height ({length})"
        )
    if x.is_sharded() and rows % x.spec.memory_config.shard_spec.shape[0]:
        raise DeviceRejects(
            "Seq len must be divisible by shard height!",
            f"{rows} rows in shards of {x.spec.memory_config.shard_spec.shape[0]}",
        )
    given = x.spec.shape[2]
    last = min(update_idx + rows, cache.spec.shape[2])

    def compute(kept, v):
        kept[batch_idx, :, update_idx : update_idx + given] = v[0]
        if update_idx + given < last:
            kept[batch_idx, :, update_idx + given : last] = 0

    return same(update("ttnn.fill_cache", cache, (x,), compute))


@op("ttnn.update_cache")
def update_cache(
    cache: Tensor, input: Tensor, update_idx: int, *, batch_offset: int = 0, compute_kernel_config=None
) -> Tensor:
    """One token of every user into the same row of the cache.

    Shapes    cache [B, n, L, hd], input [1, n, users, hd]; users from `batch_offset` on
    Dtypes    bfloat16, float32, bfloat8_b; the packer rounds where they differ
    Layout    TILE
    Source    recorded contract, op `ttnn.update_cache`
    """
    unsigned("ttnn.update_cache", update_idx=update_idx, batch_offset=batch_offset)
    kept, x = on_device(cache, "Cache tensor"), on_device(input)
    _check_kept(kept, x)
    _check_geometry(kept, x)
    if x.spec.memory_config.memory_layout is TensorMemoryLayout.WIDTH_SHARDED:
        raise DeviceRejects(
            "Input tensor memory layout must not be WIDTH_SHARDED but got TensorMemoryLayout::WIDTH_SHARDED"
        )
    users, length = kept.spec.shape[0], kept.spec.shape[2]
    if users > x.spec.padded_shape[-2]:
        raise DeviceRejects(
            f"Cache tensor batch size ({users}) must be <= input tensor height ({x.spec.padded_shape[-2]})"
        )
    if x.spec.padded_shape[-2] != round_up(users, TILE):
        raise DeviceRejects(
            f"Input batch height ({x.spec.padded_shape[-2]}) must equal cache batch ({users}) rounded up to a tile"
        )
    if batch_offset + users > TILE and batch_offset:
        raise DeviceRejects(f"Batch offset ({batch_offset}) + cache tensor batch size ({users}) must be <= {TILE}")
    offset, given, dtypes = batch_offset, x.spec.shape[2], (x.dtype, kept.dtype)

    def compute(held, v):
        if update_idx >= length:
            raise NotEmulated(
                f"update_cache: row {update_idx} is beyond the cache's {length}; the device writes over what lies there"
            )
        n = max(0, min(users, given - offset))
        held[:n, :, update_idx] = stored(v[0, :, offset : offset + n].transpose(0, 1), *dtypes)

    return same(update("ttnn.update_cache", kept, (x,), compute))


@op("ttnn.kv_cache.fill_cache_for_user_")
def fill_cache_for_user_(cache: Tensor, input: Tensor, batch_index: int, *, update_idx: int = 0) -> Tensor:
    """`ttnn.fill_cache` under its older name.

    Shapes    as fill_cache
    Dtypes    as fill_cache
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    return fill_cache(cache, input, batch_index, update_idx=update_idx)


@op("ttnn.kv_cache.update_cache_for_token_")
def update_cache_for_token_(
    cache: Tensor, input: Tensor, update_index: int, batch_offset: int = 0, compute_kernel_config=None
) -> Tensor:
    """`ttnn.update_cache` under its older name.

    Shapes    as update_cache
    Dtypes    as update_cache
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    return update_cache(
        cache, input, update_index, batch_offset=batch_offset, compute_kernel_config=compute_kernel_config
    )
