"""A linear layer that has a program of its own for a decode step and one for a prompt, and where activations lie."""

import ttnn

from bringup.blocks.memory import TILE_BYTES
from bringup.blocks.parallel import TILE, Mesh, rectangle
from bringup.blocks.weights import Banked

#: Of a core's L1 for what a step's product has in hand of its weight: three blocks of K. The library plans no room for
#: this program before it runs; of 1.4 MB this leaves the activations their part.
WEIGHT_ROOM = 512 << 10
MOST_STEPS = 8  # tiles of K in a block


def cores_for(tiles: int, most: int, grid) -> tuple[int, int]:
    """(across, down) of the most cores, a rectangle of at most `most`, that so many tiles are shared evenly by."""
    shapes = [(x, y) for x in range(1, grid.x + 1) for y in range(1, grid.y + 1) if x * y <= most]
    return max((s for s in shapes if not tiles % (s[0] * s[1])), key=lambda s: (s[0] * s[1], s[0]))


def beside(columns: int, cores: tuple[int, int]) -> ttnn.MemoryConfig:
    """The rows of a step, [32, columns] in L1, an equal share of columns on each of these cores."""
    return ttnn.create_sharded_memory_config(
        (TILE, columns // (cores[0] * cores[1])),
        core_grid=rectangle(*cores),
        strategy=ttnn.ShardStrategy.WIDTH,
        use_height_and_width_as_shard_shape=True,
    )


class Product:
    """x @ weight, weight [1, 1, in, out] of a chip as `choices.format(name)` has it.

    A step: x in L1, its columns on cores; where the weight is in the banks, so does the result lie. A prompt: x in DRAM,
    by blocks.
    """

    def __init__(self, weight: ttnn.Tensor, name: str, mesh: Mesh, choices):
        self.weight, self.compute = weight, choices.compute(name)
        self.banked = isinstance(choices.format(name), Banked)
        rows, columns = weight.shape[-2], weight.shape[-1]
        k, n = -(-rows // TILE), -(-columns // TILE)
        cores = cores_for(k, choices.cores, mesh.grid)
        each = k // (cores[0] * cores[1])
        block = TILE_BYTES[weight.dtype] * -(-n // mesh.banks) * 3
        fits = max(1, min(MOST_STEPS, WEIGHT_ROOM // block))
        self.source = beside(rows, cores)
        self.program = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
            in0_block_w=max(w for w in range(1, fits + 1) if not each % w),
            per_core_M=1,
            per_core_N=-(-n // (cores[0] * cores[1])),
            fused_activation=None,
        )
        self.blocks = ttnn.MinimalMatmulConfig(
            M_block_size=8, K_block_size=8, N_block_size=8, compute_with_storage_grid_size=mesh.grid
        )

    def step(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 1, 32, in] -> [1, 1, 32, out]; frees nothing."""
        if not self.banked:
            return ttnn.linear(
                whole(x), self.weight, memory_config=ttnn.L1_MEMORY_CONFIG, compute_kernel_config=self.compute
            )
        return ttnn.linear(
            ttnn.to_memory_config(x, self.source),
            self.weight,
            program_config=self.program,
            compute_kernel_config=self.compute,
            dtype=ttnn.bfloat16,
            memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG,
        )

    def prompt(self, x: ttnn.Tensor, activation=None) -> ttnn.Tensor:
        """[1, 1, rows, in] -> [1, 1, rows, out]"""
        return ttnn.experimental.minimal_matmul(
            x, self.weight, config=self.blocks, fused_activation=activation, compute_kernel_config=self.compute
        )


def whole(x: ttnn.Tensor) -> ttnn.Tensor:
    """x in L1, in pages over all cores."""
    return ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG) if x.is_sharded() else x
