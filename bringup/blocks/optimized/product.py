"""A linear layer with a program for a decode step, one for a short prompt and one for a long one; where rows lie."""

import ttnn

from bringup.blocks.memory import TILE_BYTES
from bringup.blocks.parallel import TILE, Mesh, rectangle
from bringup.blocks.weights import Banked

SHORT = 256  # rows that stay in L1 from norm to norm; the rest of a longer prompt's way is through DRAM
#: Of a core's L1 for what a step's product has in hand of its weight: three blocks of K (tt-metal,
#: matmul_multicore_reuse_mcast_dram_sharded_program_factory.cpp). The library plans no room for this program before it
#: runs; of 1.4 MB this leaves the activations, the partial sums and the result their part.
WEIGHT_ROOM = 512 << 10
MOST_STEPS = 8  # tiles of K in a block


def divisor(most: int, of: int) -> int:
    """The largest number up to `most` that divides `of`."""
    return max(n for n in range(1, most + 1) if not of % n)


class Columns:
    """Columns, an equal share of whole tiles on each of as many cores as there can be up to `most`: of a rectangle, as
    norms want them, or row by row, as products leave them."""

    def __init__(self, columns: int, most: int, mesh: Mesh, row_by_row: bool = False):
        tiles = columns // TILE
        shapes = [(x, y) for x in range(1, mesh.grid.x + 1) for y in range(1, mesh.grid.y + 1) if x * y <= most]
        if row_by_row:
            self.count = divisor(min(most, mesh.grid.x * mesh.grid.y), tiles)
            self.cores = ttnn.num_cores_to_corerangeset(self.count, mesh.grid, row_wise=True)
        else:
            self.shape = max((s for s in shapes if not tiles % (s[0] * s[1])), key=lambda s: (s[0] * s[1], s[0]))
            self.count = self.shape[0] * self.shape[1]
            self.cores = rectangle(*self.shape)
        self.each = tiles // self.count  # tiles
        self._places: dict[int, ttnn.MemoryConfig] = {}

    def place(self, rows: int) -> ttnn.MemoryConfig:
        if rows not in self._places:
            self._places[rows] = ttnn.create_sharded_memory_config(
                (rows, TILE * self.each),
                core_grid=self.cores,
                strategy=ttnn.ShardStrategy.WIDTH,
                use_height_and_width_as_shard_shape=True,
            )
        return self._places[rows]

    def put(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """x [1, 1, rows, columns] there, where it is short."""
        rows = x.shape[-2]
        return ttnn.to_memory_config(x, self.place(rows)) if rows <= SHORT else x


class Product:
    """x @ weight: [1, 1, rows, in] -> [1, 1, rows, out], weight [1, 1, in, out] of a chip, as `choices.format(name)`.

    A step's rows are in L1, as `given` says, and so is its result where the weight is in the banks, on `leaves` cores.
    A prompt goes by blocks, through L1 where it is short.
    """

    def __init__(self, weight: ttnn.Tensor, name: str, mesh: Mesh, choices, given: Columns, leaves: int):
        self.weight, self.compute, self.given = weight, choices.compute(name), given
        self.banked = isinstance(choices.format(name), Banked)
        tiles = -(-weight.shape[-1] // TILE)
        block = 3 * TILE_BYTES[weight.dtype] * -(-tiles // mesh.banks)
        self.in_banks = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
            in0_block_w=divisor(max(1, min(MOST_STEPS, WEIGHT_ROOM // block)), given.each),
            per_core_M=1,
            per_core_N=-(-tiles // leaves),
            fused_activation=None,
        )
        self.short, self.long = (  # of a short prompt a row of cores has one row of tiles, or few
            ttnn.MinimalMatmulConfig(
                M_block_size=down, K_block_size=8, N_block_size=8, compute_with_storage_grid_size=mesh.grid
            )
            for down in (1, 8)
        )

    def taken(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """x as the product takes it."""
        return self.given.put(x) if x.shape[-2] == TILE and self.banked else whole(x)

    def __call__(self, x: ttnn.Tensor, place: ttnn.MemoryConfig | None = None) -> ttnn.Tensor:
        """`place` of a result that is not sharded, if not where so many rows lie."""
        x, rows, how = self.taken(x), x.shape[-2], {"compute_kernel_config": self.compute}
        if rows == TILE and self.banked:
            place = ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG
            return ttnn.linear(x, self.weight, program_config=self.in_banks, memory_config=place, **how)
        how["memory_config"] = place or of_rows(rows)
        if rows == TILE:
            return ttnn.linear(x, self.weight, **how)
        config = self.short if rows <= SHORT else self.long
        return ttnn.experimental.minimal_matmul(x, self.weight, config=config, **how)


def of_rows(rows: int, most: int = SHORT) -> ttnn.MemoryConfig:
    """Where so many rows lie in pages: up to `most` in L1."""
    return ttnn.L1_MEMORY_CONFIG if rows <= most else ttnn.DRAM_MEMORY_CONFIG


def whole(x: ttnn.Tensor) -> ttnn.Tensor:
    """x in L1, in pages over all cores, where it was sharded."""
    return ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG) if x.is_sharded() else x
