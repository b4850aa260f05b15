"""Tensors: a spec, where the values are, and how they are spread over a mesh."""

from __future__ import annotations

from functools import lru_cache

from .buffer import Buffer
from .chips import Chip, machine
from .device import MeshCoordinate, MeshShape
from .dtypes import ELEMENT_BYTES, TILE_BYTES, Layout, StorageType, cpp
from .errors import DeviceRejects, NotEmulated, Unknown
from .memory import DRAM_MEMORY_CONFIG, BufferType, MemoryConfig, TensorMemoryLayout, buffer_bytes
from .numerics.rows import all_whole
from .shape import TILE, PublicShape, Shape, round_up, tile_padded
from .value import Value


class Tile:
    """A tile's shape. Only 32x32 is modelled."""

    def __init__(self, tile_shape=(32, 32), transpose_tile: bool = False):
        if tuple(tile_shape) != (TILE, TILE) or transpose_tile:
            raise NotEmulated(f"Tile({tuple(tile_shape)}, {transpose_tile}): only plain 32x32 tiles are emulated")

    face_shape, num_faces, narrow_tile, partial_face = [16, 16], 4, 0, 0
    transpose_of_faces = transpose_within_face = False
    tile_shape = [TILE, TILE]

    def get_tile_size(self, dtype) -> int:
        return TILE_BYTES[dtype]

    def __eq__(self, other) -> bool:
        return isinstance(other, Tile)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Tile with shape: [32, 32]"


class TensorSpec(Value):
    """Logical and padded shape, dtype, layout and memory config of a tensor on one chip (None: on the host)."""

    FIELDS = ("shape", "dtype", "layout", "memory_config")
    __slots__ = (*FIELDS, "padded_shape", "tile", "_room")

    def __init__(
        self, shape, dtype, layout, memory_layout=None, shard_spec=None, buffer_type=BufferType.DRAM, tile=None,
        memory_config: MemoryConfig | None = None,
    ):  # fmt: skip
        if memory_config is None and (memory_layout is not None or buffer_type is not None):
            memory_config = MemoryConfig(memory_layout or TensorMemoryLayout.INTERLEAVED, buffer_type, shard_spec)
        self.shape, self.dtype, self.layout, self.tile = Shape(shape), dtype, layout, tile
        # None on the host, which ops rule out before they look at it.
        self.memory_config: MemoryConfig = memory_config  # type: ignore[assignment]
        if dtype not in TILE_BYTES:
            raise NotEmulated(f"{dtype} tensors have no model in the emulator")
        self.padded_shape = padded(self.shape, layout, memory_config)
        self._room: tuple = (None, None)

    def with_memory_config(self, memory_config) -> TensorSpec:
        return spec(self.shape, self.dtype, self.layout, memory_config)

    @property
    def bytes(self) -> int:
        """Bytes on one chip, all banks together."""
        return self.room(machine().chip)[1]

    def room(self, chip: Chip) -> tuple[int, int]:
        """(bytes in every bank, bytes in all) on one chip; of a host tensor, as if it were in DRAM."""
        if self._room[0] is not chip:
            where = self.memory_config or DRAM_MEMORY_CONFIG
            self._room = chip, buffer_bytes(self.padded_shape, self.dtype, self.layout, where, chip)
        return self._room[1]

    def __str__(self) -> str:
        pads = "" if self.shape == self.padded_shape else f" (padded {list(self.padded_shape)})"
        where = "host"
        if (m := self.memory_config) is not None:
            where = m.buffer_type.name
            if m.is_sharded():
                where += f" {m.memory_layout.name}"
                if m.shard_spec:
                    where += f" {list(m.shard_spec.shape)} on {m.shard_spec.grid}"
        return f"{list(self.shape)}{pads} {self.dtype.name.lower()} {self.layout.name} {where}"

    __repr__ = __str__


@lru_cache(maxsize=65536)
def padded(shape: Shape, layout: Layout, memory_config: MemoryConfig | None) -> Shape:
    """The shape in memory: tiles pad the last two dims to 32, a sharded row-major tensor its width to the shard's."""
    if layout is Layout.TILE:
        return tile_padded(shape)
    if memory_config is not None and memory_config.is_sharded() and memory_config.shard_spec and len(shape):
        return Shape(tuple(shape[:-1]) + (round_up(shape[-1], memory_config.shard_spec.shape[1]),))
    return Shape(shape) if len(shape) else Shape((1,))


@lru_cache(maxsize=65536)
def _spec(shape: tuple, dtype, layout, memory_config) -> TensorSpec:
    return TensorSpec(shape, dtype, layout, memory_config=memory_config, buffer_type=None)


def spec(shape, dtype, layout, memory_config: MemoryConfig | None = DRAM_MEMORY_CONFIG) -> TensorSpec:
    """A TensorSpec; specs are immutable and shared."""
    return _spec(tuple(shape), dtype, layout, memory_config)


class PlacementReplicate:
    """Along this mesh axis every chip holds the same."""

    def __eq__(self, other) -> bool:
        return isinstance(other, PlacementReplicate)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "PlacementReplicate()"


class PlacementShard(Value):
    """Along this mesh axis the tensor is cut on dimension `dim`."""

    FIELDS = __slots__ = ("dim",)

    def __init__(self, dim: int):
        self.dim = dim

    def __repr__(self) -> str:
        return f"PlacementShard({self.dim})"


class TensorTopology(Value):
    """How a tensor is spread: one placement per axis of its distribution."""

    FIELDS = ("_shape", "_placements")
    __slots__ = (*FIELDS, "size")

    def __init__(self, distribution_shape, placements):
        self._shape, self._placements = MeshShape(distribution_shape), tuple(placements)
        self.size = self._shape.mesh_size()

    def distribution_shape(self) -> MeshShape:
        return self._shape

    def mesh_coords(self) -> list:
        raise NotEmulated(
            "TensorTopology.mesh_coords has no model in the emulator: placements() and "
            "distribution_shape() tell how the tensor is spread"
        )

    def placements(self) -> list:
        return list(self._placements)

    def __repr__(self) -> str:
        return f"TensorTopology({self._shape}, {list(self._placements)})"


@lru_cache(maxsize=64)
def replicated(chips: int) -> TensorTopology:
    """What `ReplicateTensorToMesh` gives: one replicated axis over the flattened mesh."""
    return TensorTopology((chips,), (PlacementReplicate(),))


class Tensor:
    """A tensor on the host or on a device. Arithmetic operators are the ops of the same name.

    `spec` is per chip; contents live in `buffer` (device) or `host` (a list with one torch tensor where all chips
    hold the same, else one per chip). Values are held in logical shape; padding is zero. A tensor that stands for one
    chip's share of another (`ttnn.get_device_tensors`) is on the same buffer and says which `chip`.
    """

    __slots__ = ("spec", "buffer", "host", "topology", "chip", "__weakref__")

    def __init__(
        self, spec: TensorSpec, buffer: Buffer | None = None, host=None, topology: TensorTopology | None = None,
        chip: int | None = None,
    ):  # fmt: skip
        self.spec, self.host, self.chip = spec, host, chip
        # None on the host, which ops rule out before they look at it.
        self.buffer: Buffer = buffer  # type: ignore[assignment]
        self.topology = topology or replicated(1)
        if buffer is not None:
            buffer.handles += 1

    def __del__(self):
        if self.buffer is not None:
            self.buffer.drop()

    # -- what it is
    # For programs: the library's shape, which is no tuple. The emulator's own code takes those of `spec`.
    @property
    def shape(self) -> PublicShape:
        return PublicShape(self.spec.shape)

    @property
    def padded_shape(self) -> PublicShape:
        return PublicShape(self.spec.padded_shape)

    @property
    def dtype(self):
        return self.spec.dtype

    @property
    def layout(self):
        return self.spec.layout

    @property
    def tile(self) -> Tile:
        return Tile()

    def get_dtype(self):
        return self.spec.dtype

    def get_layout(self):
        return self.spec.layout

    def memory_config(self) -> MemoryConfig:
        """Where it is; a host tensor answers as the library does, DRAM interleaved."""
        return self.spec.memory_config or DRAM_MEMORY_CONFIG

    def tensor_topology(self) -> TensorTopology:
        return self.topology

    def storage_type(self) -> StorageType:
        return StorageType.HOST if self.buffer is None else StorageType.DEVICE

    def device(self):
        return None if self.buffer is None else self.buffer.device

    def devices(self) -> list:
        return [] if self.buffer is None else [self.buffer.device]

    def device_coords(self) -> list:
        """The places in the mesh where the tensor has a share."""
        if self.buffer is None:
            raise DeviceRejects(f"{cpp(StorageType.HOST)} doesn't support device_coords")
        columns = self.buffer.device.shape[-1]
        chips = range(self.topology.size) if self.chip is None else (self.chip,)
        return [MeshCoordinate(i // columns, i % columns) for i in chips]

    @property
    def tensor_id(self) -> int:
        return id(self)

    def is_sharded(self) -> bool:
        return self.spec.memory_config is not None and self.spec.memory_config.is_sharded()

    def is_allocated(self) -> bool:
        return self.host is not None if self.buffer is None else self.buffer.alive

    def buffer_address(self) -> int:
        if self.buffer is None:
            raise DeviceRejects(f"Expected Tensor with DeviceStorage, got {cpp(StorageType.HOST)}")
        return self.buffer.address

    def volume(self) -> int:
        """Elements with padding, as the library counts them."""
        return self.spec.padded_shape.volume()

    def logical_volume(self) -> int:
        return self.spec.shape.volume()

    def element_size(self) -> int:
        if self.dtype not in ELEMENT_BYTES:
            raise ValueError("datum for bfp2, bfp4, bfp8 is invalid")
        return ELEMENT_BYTES[self.dtype]

    def get_tile(self) -> Tile:
        return Tile()

    # -- what is in it
    @property
    def chips(self) -> int:
        if self.chip is not None:
            return 1
        return self.topology.size

    def contents(self) -> list:
        """The torch values: one tensor when all chips hold the same, else one per chip, in logical shape."""
        return self.host if self.buffer is None else all_whole(self.held())

    def held(self) -> list:
        """As `contents`; a value of which many slices are the same may be `Repeated`."""
        if self.buffer is None:
            return self.host
        buffer = self.buffer
        data, root = buffer.store.data, buffer.root
        if data is None or (root is not None and not root.alive):
            if root is not None and buffer.alive and not root.alive:
                raise NotEmulated(
                    "the memory of this tensor was freed through the tensor it is a view of; a device reads whatever "
                    "is there by then"
                )
            if buffer.alive and buffer.store.unknown:
                raise Unknown(self.spec, buffer.store.unknown)
            raise NotEmulated(
                f"{self.spec} has no contents: it was made under spec_only(), or by an op that takes this dtype and "
                "has no model for it"
            )
        return share(data, self.chip, self.spec.shape)

    def __repr__(self) -> str:
        """The values as the library prints them, those of the first chip on a mesh."""
        if not self.is_allocated():
            shown = "<deallocated>"
        else:
            try:
                shown = _shown(self.contents()[0], len("ttnn.Tensor("))
            except NotEmulated:
                shown = "<no contents>"
        return f"ttnn.Tensor({shown}, shape={self.spec.shape}, dtype={cpp(self.dtype)}, layout={cpp(self.layout)})"


def share(data: list, chip: int | None, shape: Shape) -> list:
    """The values of one chip, or of all, in a shape."""
    if chip is not None:
        data = [data[0 if len(data) == 1 else chip]]
    if data[0].shape == shape:
        return data
    alike = {id(d): d.reshape(shape) for d in data}
    return [alike[id(d)] for d in data]


def _shown(values, indent: int) -> str:
    """Nested brackets; of more than four rows or values the first and last two."""
    numbers = values.float().abs() if values.is_floating_point() else None
    finite = None if numbers is None else numbers[numbers.isfinite() & (numbers > 0)]
    wide = finite is not None and len(finite) and (finite.max() >= 1e5 or finite.min() < 1e-4)
    form = "{:5d}" if numbers is None else "{: 11.4e}" if wide else "{:7.4f}"

    def text(v, indent: int) -> str:
        if not v.dim():
            return form.format(v.item())
        n = len(v)
        rows = range(n) if n <= 4 else (0, 1, None, n - 2, n - 1)
        parts = ["..." if i is None else text(v[i], indent + 1) for i in rows]
        if v.dim() == 1 and n > 4:
            parts[2] = " ..."
        between = ", " if v.dim() == 1 else ",\n" + "\n" * (v.dim() > 2) + " " * (indent + 1)
        return f"[{between.join(parts)}]"

    return text(values, indent)
