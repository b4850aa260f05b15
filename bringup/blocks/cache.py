"""The KV cache on the device, cut over the chips by KV heads: a row for each of 32 users, or a pool of blocks.

`Rows` is the default. Where 32 rows of max_seq_len do not fit the chip's DRAM, `Blocks` holds what fits, and users draw
blocks of 64 positions as they grow; a page table says which (`memory.check_fits` chooses). A model has one of the two,
and each layer its keys and values in it behind the same four calls: `fill` and `attend_prompt` for one user's prompt,
`update` and `attend` for one token of every user.
"""

from dataclasses import dataclass

import torch
import ttnn

from bringup.blocks.parallel import TILE, USERS, Heads, Mesh
from bringup.blocks.precision import Precision
from bringup.blocks.state import States

BLOCK = 64  # positions
#: Columns of a head up to which one call updates the cache of all 32 users: its program keeps a row of tiles for each
#: on every core, 1.25 MB with 512 columns, which leaves no room for the heads themselves (ttnn 0.81.1, mock cluster).
WIDE = 256
PROMPT_CHUNK = 1024  # tokens of a prompt that run at once where the cache is paged: they bound its activations


@dataclass(frozen=True)
class Pages:
    """What a layer's cache has to know of a pass: where the users' blocks are. None where each user has its row."""

    table: ttnn.Tensor  # [32, blocks of a user] int32 in decode; [1, ...] of the prompt's user
    new: ttnn.Tensor | None = None  # prompt: [1, blocks] that this chunk fills

    @property
    def tables(self) -> list[ttnn.Tensor]:
        return [self.table] if self.new is None else [self.table, self.new]


class Rows:
    """Every user has a row of `length` positions; nothing to keep account of."""

    prompt_chunk = None  # a prompt runs as a whole

    def __init__(self, length: int):
        self.length = length
        self.latest: dict[str | None, RowCache] = {}  # by type of layer

    def layer(
        self, heads: Heads, head_dim: int, mesh: Mesh, precision: Precision, layer_type: str | None = None
    ) -> "RowCache":
        own = self.latest[layer_type] = RowCache((USERS, heads.n_kv, self.length, head_dim), mesh, precision)
        return own

    def latents(self, width: int, mesh: Mesh, precision: Precision) -> "RowCache":
        """Of one head on every chip, whose values are its keys."""
        return RowCache((USERS, 1, self.length, width), mesh, precision, one=True)

    def open(self, mesh: Mesh):
        """Nothing on the device beside the layers' caches and states."""
        self.states = States(mesh)

    def clear(self):
        """Nothing is drawn; states forget."""
        self.states.clear()

    def draw(self, positions: dict[int, int]):
        """A row has its positions from the start."""

    def upload(self):
        """No page table."""

    def of_prompt(self, row: int, start: int, rows: int, on_device: bool = True) -> None:
        return None

    def of_step(self) -> None:
        return None


class Blocks:
    """A pool of `count` blocks for all users of a chip, of which a user may have up to `length` positions.

    Block 0 is nobody's: a page table names it where a user has no block. What is written there is never read, what is
    read there is masked.
    """

    prompt_chunk = PROMPT_CHUNK

    def __init__(self, length: int, count: int):
        assert length % BLOCK == 0, length
        self.length, self.count = length, count
        self.latest: dict[str | None, BlockCache] = {}  # by type of layer

    def layer(
        self, heads: Heads, head_dim: int, mesh: Mesh, precision: Precision, layer_type: str | None = None
    ) -> "BlockCache":
        own = self.latest[layer_type] = BlockCache((self.count, heads.n_kv, BLOCK, head_dim), mesh, precision)
        return own

    def latents(self, width: int, mesh: Mesh, precision: Precision) -> "BlockCache":
        return BlockCache((self.count, 1, BLOCK, width), mesh, precision, one=True)

    def open(self, mesh: Mesh):
        """Puts the page table of a decode step on the device, into a buffer that stays."""
        self.mesh = mesh
        self.table = torch.zeros(USERS * mesh.data_ways, self.length // BLOCK, dtype=torch.int32)
        self.device_table = mesh.put_users(self.table, ttnn.int32)
        self.states = States(mesh)
        self.clear()

    def clear(self):
        """All blocks are free again, and states forget."""
        self.states.clear()
        self.table.zero_()
        self.held = [0] * len(self.table)
        self.free = [list(range(self.count - 1, 0, -1)) for _ in range(self.mesh.data_ways)]
        self.changed = True

    def draw(self, positions: dict[int, int]):
        """Gives each row of {row: positions} the blocks that it lacks; ValueError, and nothing given, where too few."""
        lacking = {row: -(-n // BLOCK) - self.held[row] for row, n in positions.items()}
        for group, free in enumerate(self.free):
            wanted = sum(max(0, n) for row, n in lacking.items() if row // USERS == group)
            if wanted > len(free):
                users = sum(1 for row in positions if row // USERS == group)
                raise ValueError(
                    f"the paged cache is full: {users} users need {wanted} more blocks of {BLOCK} positions, "
                    f"{len(free)} of {self.count - 1} are free\n"
                    "  hint   fewer users or shorter prompts; a bfloat8_b cache or more chips make room"
                )
        for row, n in lacking.items():
            for _ in range(n):
                self.table[row, self.held[row]] = self.free[row // USERS].pop()
                self.held[row] += 1
                self.changed = True

    def of_prompt(self, row: int, start: int, rows: int, on_device: bool = True) -> Pages:
        """The tables of `row` in each group of chips: all its blocks, and those of the chunk from `start` on."""
        whole = self.table[row::USERS]
        chunk = whole[:, start // BLOCK : -(-(start + rows) // BLOCK)].contiguous()
        return Pages(*(self.mesh.put_users(table, ttnn.int32, on_device=on_device) for table in (whole, chunk)))

    def of_step(self) -> Pages:
        return Pages(self.device_table)

    def upload(self):
        """Writes the page table into its device buffer, where a draw has changed it."""
        if self.changed:
            host = self.mesh.put_users(self.table, ttnn.int32, on_device=False)
            ttnn.copy_host_to_device_tensor(host, self.device_table)
            self.changed = False


class _LayerCache:
    """Keys and values of one layer: two tensors of `shape`, zeros; or one that is both."""

    def __init__(self, shape: tuple[int, ...], mesh: Mesh, precision: Precision, one: bool = False):
        self.dtype = precision.cache
        kept = [
            ttnn.zeros(shape, dtype=precision.cache, layout=ttnn.TILE_LAYOUT, device=mesh.device)
            for _ in range(1 if one else 2)
        ]
        self.keys, self.values = kept[0], kept[-1]
        self.mesh, self.width = mesh, shape[-1]
        wide = self.width > WIDE
        self.half = mesh.one_user_a_core(TILE, self.width, USERS // 2) if wide else None

    def write(self, k: ttnn.Tensor, v: ttnn.Tensor, positions: ttnn.Tensor, table: ttnn.Tensor | None):
        """k, v [1, 32, kv_heads, head_dim], one user a core, each at its position; in the blocks of a page table."""
        for cache, x in self.pairs(k, v):
            if self.half is None or table is None:
                more = {} if table is None else {"page_table": table}
                ttnn.experimental.paged_update_cache(cache, x, update_idxs_tensor=positions, **more)
                continue
            for first in (0, USERS // 2):
                last, heads = first + USERS // 2, x.shape[2]
                part = ttnn.slice(x, (0, first, 0, 0), (1, last, heads, self.width), memory_config=self.half)
                ttnn.experimental.paged_update_cache(
                    cache,
                    part,
                    update_idxs_tensor=ttnn.slice(positions, (first,), (last,)),
                    page_table=ttnn.slice(table, (first, 0), (last, table.shape[1])),
                )
                ttnn.deallocate(part)

    def pairs(self, k: ttnn.Tensor, v: ttnn.Tensor) -> list[tuple[ttnn.Tensor, ttnn.Tensor]]:
        """(cache, what goes into it)"""
        return [(self.keys, k)] + [(self.values, v)] * (self.values is not self.keys)


class RowCache(_LayerCache):
    """[32, kv_heads, length, head_dim]; half of the users are updated as if each row were a block."""

    def __init__(self, shape: tuple[int, ...], mesh: Mesh, precision: Precision, one: bool = False):
        super().__init__(shape, mesh, precision, one)
        rows = torch.arange(USERS, dtype=torch.int32)[:, None]
        self.rows = None if self.half is None else mesh.put(rows, ttnn.int32)

    def fill(self, k: ttnn.Tensor, v: ttnn.Tensor, step):
        """k, v [1, kv_heads, S, head_dim] of the cache's dtype into the user's row."""
        for cache, x in self.pairs(k, v):
            ttnn.fill_cache(cache, x, step.row)

    def filled(self, rows: int, step) -> list[ttnn.Tensor]:
        """Keys and values [1, kv_heads, rows, head_dim] that `fill` has put there."""
        _, heads, _, width = tuple(self.keys.shape)
        where = (step.row, 0, 0, 0), (step.row + 1, heads, rows, width)
        return [ttnn.slice(kept, *where) for kept in (self.keys, self.values)]

    def attend_prompt(self, q: ttnn.Tensor, k: ttnn.Tensor, v: ttnn.Tensor, step, **sdpa) -> ttnn.Tensor:
        """Causal attention of a whole prompt over its own keys."""
        return ttnn.transformer.scaled_dot_product_attention(q, k, v, is_causal=True, **sdpa)

    def update(self, k: ttnn.Tensor, v: ttnn.Tensor, step):
        """k, v [1, 32, kv_heads, head_dim], one user a core, each at its position."""
        self.write(k, v, step.positions, self.rows)

    def attend(self, q: ttnn.Tensor, step, **sdpa) -> ttnn.Tensor:
        """One token of every user over its keys, its own included."""
        return ttnn.transformer.scaled_dot_product_attention_decode(
            q, self.keys, self.values, cur_pos_tensor=step.positions, **sdpa
        )


class BlockCache(_LayerCache):
    """[blocks, kv_heads, 64, head_dim], through the page table of the pass (`step.pages`)."""

    def fill(self, k: ttnn.Tensor, v: ttnn.Tensor, step):
        """k, v [1, kv_heads, S, head_dim] of the cache's dtype into the blocks of this chunk."""
        for cache, x in self.pairs(k, v):
            ttnn.experimental.paged_fill_cache(cache, x, step.pages.new, batch_idx=0)

    def filled(self, rows: int, step) -> list:
        """Nothing: they are read where they are."""
        return [None, None]

    def attend_prompt(self, q: ttnn.Tensor, k: ttnn.Tensor, v: ttnn.Tensor, step, **sdpa) -> ttnn.Tensor:
        """Causal attention of a chunk over all keys of the prompt so far, out of the pool."""
        return ttnn.transformer.chunked_scaled_dot_product_attention(
            q, self.keys, self.values, step.pages.table, step.start, **sdpa
        )

    def update(self, k: ttnn.Tensor, v: ttnn.Tensor, step):
        """k, v [1, 32, kv_heads, head_dim], one user a core, each at its position."""
        self.write(k, v, step.positions, step.pages.table)

    def attend(self, q: ttnn.Tensor, step, **sdpa) -> ttnn.Tensor:
        """One token of every user over its keys, its own included."""
        return ttnn.transformer.paged_scaled_dot_product_attention_decode(
            q, self.keys, self.values, step.pages.table, cur_pos_tensor=step.positions, **sdpa
        )
