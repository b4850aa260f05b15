"""What attention of prompts and of decode steps share: the program's settings, and the L1 it works in."""

from __future__ import annotations

import torch

from ...chips import Chip
from ...dtypes import TILE_BYTES, bfloat4_b, bfloat8_b, bfloat16
from ...errors import DeviceRejects
from ...launch import check_places
from ...shape import TILE, round_up

DTYPES = (bfloat16, bfloat8_b, bfloat4_b)
#: Elements (scores of a prompt, keys of a step) up to which a call costs more than its work.
SMALL = 1 << 22


def facts(config, approx: bool, sink=None) -> dict:
    """What the op log has of a launch of attention."""
    return {
        "math_fidelity": config.math_fidelity,
        "fp32_dest": config.fp32_dest_acc_en,
        "exp_approx": approx,
        "sink": sink is not None,
    }


def exp_approx(program) -> bool:
    """exp is approximate unless the program config says no (recorded: whatever math_approx_mode says)."""
    return True if program is None or program.exp_approx_mode is None else bool(program.exp_approx_mode)


def cores_of(program, chip: Chip) -> int:
    if program is None:
        return chip.cores
    if program.sub_core_grids is not None:
        return program.sub_core_grids.num_cores()
    x, y = program.compute_with_storage_grid_size
    return x * y


# ---------------------------------------------------------------- working memory
def check_working_memory(size: int, program, chip: Chip) -> None:
    """Refuses chunks whose buffers are larger than a core's L1; `size` is without the reserved part at its start."""
    total = chip.l1.base + size
    if total <= chip.l1_end:
        return
    x, y = chip.grid if program is None else program.compute_with_storage_grid_size
    raise DeviceRejects(
        f"Statically allocated circular buffers on core range [0-0 - {x - 1}-{y - 1}] grow to {total} B which is "
        "beyond max L1 "
        f"size of {chip.l1_end} B",
        "use smaller q_chunk_size and k_chunk_size",
    )


def prefill_bytes(
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


def decode_bytes(q, k, v, n_kv: int, k_chunk: int, cores: int, most: int) -> int:
    """Working memory of a core for a decode step.

    Source    fitted to the sizes in 12 refusals of ttnn 0.81.1 (chunks of 512 to 4096, 32 to 128 heads); exact on all
    """
    users, heads, hd = q.spec.padded_shape[1:]
    p, b, h, wide = heads // TILE, k_chunk // TILE, hd // TILE, TILE_BYTES[bfloat16]
    shared = min(most, max(1, cores // users // n_kv))  # cores that share a head
    size = 2 * b * h * (TILE_BYTES[k.dtype] + TILE_BYTES[v.dtype]) + 2 * round_up(4 * users, 32)
    return size + wide * (2 * b * p + p * (7 * h + 11) + (p * h + 2 * p) * (shared - 1) + 3)


def gathered(pool: torch.Tensor, table: torch.Tensor, needed: list[int]) -> torch.Tensor:
    """The first pages of every user side by side, as many as one user needs: [users, n, blocks * block, hd].

    What lies in pages that a user does not need is masked: its entries may name no page.
    """
    blocks = max(needed, default=0)
    read = torch.arange(blocks, device=table.device) < torch.tensor(needed, device=table.device)[:, None]
    places = table[: len(needed), :blocks].long() * read
    check_places("paged attention", places, len(pool), "pool")
    pages = pool[places]  # [users, blocks, n, block, hd]
    u, b, n, block, hd = pages.shape
    return pages.transpose(1, 2).reshape(u, n, b * block, hd)
