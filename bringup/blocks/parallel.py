"""Which chip holds what: tensor parallel over all chips of a mesh, or data parallel, or one chip.

Tensor parallel: every chip computes a share of the heads, of the MLP and of the vocabulary for all users. Data
parallel: every chip holds the whole model and serves its own users. On one chip both are the identity.
"""

from dataclasses import dataclass

import torch
import ttnn

TILE = 32
USERS = 32  # rows of a decode step, and users of a cache


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


def rectangle(across: int, down: int):
    """The first so many columns and rows of cores."""
    return ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(across - 1, down - 1))})


class Semaphores:
    """What the chips wait on in asynchronous collectives: two sets, in turn, so that a collective need not wait for the
    one before."""

    def __init__(self, mesh: "Mesh"):
        grid = rectangle(mesh.grid.x, mesh.grid.y)
        make = lambda n: [ttnn.create_global_semaphore(mesh.device, grid, 0) for _ in range(n)]  # noqa: E731
        self.sets = [{"gather": make(2), "scatter": make(3), "barrier": make(1)[0]} for _ in range(2)]
        # A T3000's eight chips opened as a line are a ring (its mesh graph in ttnn 0.81.1), others here are none.
        self.topology = ttnn.Topology.Ring if mesh.chips == 8 else ttnn.Topology.Linear

    def of(self, collective: str) -> dict:
        self.sets.reverse()
        chosen = self.sets[0]
        return {
            "multi_device_global_semaphore": chosen[collective],
            "barrier_semaphore": chosen["barrier"],
            "topology": self.topology,
        }


class Mesh:
    """The open device and the parallel plan on it.

    `tensor_ways` chips share one user's work; `data_ways` groups have users of their own. One of the two is 1. `cores`
    are those of a chip, `banks` how many of DRAM it has.
    """

    def __init__(self, device: ttnn.MeshDevice, data_parallel: bool = False, asynchronous: bool = False):
        chips = device.get_num_devices()
        self.device = device
        self.chips = chips
        self.tensor_ways = 1 if data_parallel else chips
        self.data_ways = chips if data_parallel else 1
        self.grid = device.compute_with_storage_grid_size()
        self.cores = ttnn.num_cores_to_corerangeset(self.grid.x * self.grid.y, self.grid)
        self.banks = device.dram_grid_size().x
        self.waits = Semaphores(self) if asynchronous and self.tensor_ways > 1 else None

    def put(
        self, value: torch.Tensor, dtype, layout=None, shard_dim: int | None = None, on_device: bool = True, **more
    ):
        """A host tensor as a ttnn tensor in DRAM: cut along `shard_dim` over all chips, or the same on each."""
        layout = ttnn.ROW_MAJOR_LAYOUT if layout is None else layout
        mapper = None
        if self.chips > 1 and shard_dim is not None:
            mapper = ttnn.ShardTensorToMesh(self.device, dim=shard_dim)
        elif self.chips > 1:
            mapper = ttnn.ReplicateTensorToMesh(self.device)
        device = self.device if on_device else None
        return ttnn.from_torch(value, dtype=dtype, layout=layout, device=device, mesh_mapper=mapper, **more)

    def put_users(self, value: torch.Tensor, dtype, on_device: bool = True):
        """Per-user rows (dim 0 = data_ways blocks): each group of users to its chip, or the same rows to every chip."""
        return self.put(value, dtype, shard_dim=0 if self.data_ways > 1 else None, on_device=on_device)

    def get(self, x: ttnn.Tensor) -> torch.Tensor:
        """[1, 1, rows, width] of each chip -> [data_ways, rows, tensor_ways * width] on the host."""
        if self.chips == 1:
            return ttnn.to_torch(x)[0]
        dim = 0 if self.data_ways > 1 else 3
        return ttnn.to_torch(x, mesh_composer=ttnn.ConcatMeshToTensor(self.device, dim=dim))[:, 0]

    def get_users(self, x: ttnn.Tensor) -> torch.Tensor:
        """What `put_users` has put, of each group of users."""
        if self.chips == 1:
            return ttnn.to_torch(x)
        whole = ttnn.to_torch(x, mesh_composer=ttnn.ConcatMeshToTensor(self.device, dim=0))
        return whole if self.data_ways > 1 else whole[: len(whole) // self.chips]

    def one_user_a_core(self, rows: int, width: int, users: int = USERS) -> ttnn.MemoryConfig:
        """[rows, width] of each user of a step on a core of its own, row by row, as the library splits heads."""
        return ttnn.create_sharded_memory_config(
            (rows, width),
            core_grid=ttnn.num_cores_to_corerangeset(users, self.grid, row_wise=True),
            strategy=ttnn.ShardStrategy.HEIGHT,
            use_height_and_width_as_shard_shape=True,
        )

    def in_banks(self, rows: int, columns: int) -> ttnn.MemoryConfig:
        """A weight's columns side by side in the banks of DRAM, whole tiles in each."""
        shard = [rows, round_up(-(-columns // self.banks), TILE)]
        return ttnn.MemoryConfig(
            ttnn.TensorMemoryLayout.WIDTH_SHARDED,
            ttnn.BufferType.DRAM,
            ttnn.ShardSpec(rectangle(self.banks, 1), shard, ttnn.ShardOrientation.ROW_MAJOR),
        )

    def linear_sum(self, x: ttnn.Tensor, weight: ttnn.Tensor, bias: ttnn.Tensor | None, compute) -> ttnn.Tensor:
        """x @ weight + bias of a row-parallel weight, summed over the chips, the bias added once; never sharded.

        Frees x before the sum, which needs the room.
        """
        alone = self.tensor_ways == 1
        place = ttnn.L1_MEMORY_CONFIG if x.is_sharded() else x.memory_config()  # heads of a step are, their sum is not
        given = {"memory_config": place, "compute_kernel_config": compute}
        part = ttnn.linear(x, weight, bias=bias if alone else None, **given)
        ttnn.deallocate(x)
        out = self.all_reduce(part)
        if alone or bias is None:
            return out
        total = ttnn.add(out, bias)
        ttnn.deallocate(out)
        return total

    def all_reduce(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """The sum of the chips' partial products on every chip; frees x. The identity where one chip had it all."""
        if self.tensor_ways == 1:
            return x
        if self.waits is None:
            total = ttnn.all_reduce(x)
            ttnn.deallocate(x)
            return total
        share = ttnn.experimental.reduce_scatter_minimal_async(
            x, dim=3, memory_config=x.memory_config(), **self.waits.of("scatter")
        )
        ttnn.deallocate(x)
        total = self.gather(share)
        ttnn.deallocate(share)
        return total

    def gather(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """The chips' columns side by side on every chip."""
        if self.waits is None:
            return ttnn.all_gather(x, dim=3)
        return ttnn.experimental.all_gather_async(x, dim=3, memory_config=x.memory_config(), **self.waits.of("gather"))


@dataclass(frozen=True)
class Heads:
    """Which query and KV heads each tensor-parallel chip computes; None is a head of zeros that pads the share.

    More KV heads than chips: consecutive KV heads with all their query heads go to one chip.
    Fewer: each KV head is held by several chips, which share its query heads.
    Every chip gets equally many query and KV heads, so that one program serves all.
    """

    query: tuple[tuple[int | None, ...], ...]
    kv: tuple[tuple[int | None, ...], ...]

    @classmethod
    def over(cls, chips: int, n_heads: int, n_kv_heads: int) -> "Heads":
        if n_heads % n_kv_heads:
            raise ValueError(f"attention: {n_heads} query heads are not a multiple of {n_kv_heads} KV heads")
        group = n_heads // n_kv_heads
        if n_kv_heads >= chips:
            per_chip = -(-n_kv_heads // chips)
            shares = [range(chip * per_chip, (chip + 1) * per_chip) for chip in range(chips)]
            kv = [[h if h < n_kv_heads else None for h in share] for share in shares]
            query = [[None if h is None else h * group + i for h in share for i in range(group)] for share in kv]
        else:
            copies = chips // n_kv_heads
            per_chip = -(-group // copies)
            kv, query = [], []
            for chip in range(chips):
                h, part = divmod(chip, copies)
                kv.append([h if h < n_kv_heads else None])
                share = range(part * per_chip, (part + 1) * per_chip)
                query.append([h * group + i if h < n_kv_heads and i < group else None for i in share])
        return cls(tuple(map(tuple, query)), tuple(map(tuple, kv)))

    @property
    def n_query(self) -> int:
        """Query heads per chip."""
        return len(self.query[0])

    @property
    def n_kv(self) -> int:
        """KV heads per chip."""
        return len(self.kv[0])
