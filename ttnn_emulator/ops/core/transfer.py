"""Between torch, the host and the device."""

from __future__ import annotations

import torch

from ... import blockfloat
from ...device import MeshDevice
from ...dtypes import (
    BLOCK_FORMATS,
    DEFAULT_OF,
    HELD_AS,
    INTEGERS,
    NAME,
    RETURNED_AS,
    ROW_MAJOR_LAYOUT,
    TILE_BYTES,
    TILE_LAYOUT,
    DataType,
    Layout,
)  # fmt: skip
from ...errors import DeviceRejects, NotEmulated
from ...launch import allocate, check_alone, on_device, same, scratch
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig, TensorMemoryLayout
from ...numerics.rows import Repeated
from ...op import op, refuse_unmodelled
from ...oplog import state
from ...shape import TILE
from ...tensor import PlacementShard, Tensor, TensorSpec, TensorTopology, replicated, spec
from ...torch_device import on_host, placed
from ...warning import LEGACY_TILIZE, warn

#: What the block formats are made from without a copy.
DIRECT = (torch.bfloat16, torch.float32)


#: Bits and the largest value of an integer dtype.
_WIDTHS = {DataType.UINT32: 32, DataType.UINT16: 16, DataType.UINT8: 8, DataType.INT32: 32}
_INT_MIN = -(1 << 31)


def _whole(values: torch.Tensor, dtype: DataType) -> torch.Tensor:
    """Host floats as integers, as the processor converts them in the library: what a 32-bit integer does not hold is
    its least value, and that is cut to the bits of `dtype`, or of float32 and bfloat16 into its range. To uint32 go
    also what it holds, and -2^31 to -1 modulo 2^32.

    Source    ttnn 0.81.1 on x86-64, 30 values of four float types asked; at the end of a tensor, behind its last whole
              vector, the library does otherwise with values that do not fit
    """
    v = values.to(torch.float64).trunc()
    narrow = torch.where((v > _INT_MIN - 1) & (v < 1 << 31), v, float(_INT_MIN)).to(torch.int64)
    if dtype is DataType.INT32:
        return narrow
    single = values.dtype in (torch.float32, torch.bfloat16)
    if dtype is not DataType.UINT32:
        most = (1 << _WIDTHS[dtype]) - 1
        return narrow.clamp(0, most) if single else narrow & most
    held = (v >= 0) & (v < 1 << 32)
    beyond = narrow if single else torch.where(v < 0, narrow, torch.where(torch.isnan(v), _INT_MIN, 0))
    return torch.where(held, v.nan_to_num(posinf=0.0).clamp(0, 1 << 32), beyond.double()).to(torch.int64)


def host_cast(values: torch.Tensor, dtype: DataType) -> torch.Tensor:
    """Host values as the emulator holds them: rounded to the grid of `dtype`, in memory of their own.

    Numerics  bfloat16: nearest even; block formats: recorded limits, "Block formats"; floats to integers: `_whole`;
              integers wrap modulo 2^n
    """
    held = HELD_AS[dtype]
    if dtype in BLOCK_FORMATS:
        return blockfloat.quantise(values if values.dtype in DIRECT else values.float(), NAME[dtype])
    if dtype in INTEGERS:
        values = _whole(values, dtype) if values.is_floating_point() else values.to(torch.int64)
        whole = values & ((1 << _WIDTHS[dtype]) - 1)
        if dtype is DataType.INT32:
            whole = torch.where(whole >= 1 << 31, whole - (1 << 32), whole)
        return whole.to(held)
    return blockfloat.empty_like(values, held).copy_(values)


def upload(host: list[torch.Tensor], made: TensorSpec, device: MeshDevice, topology, steps=()) -> Tensor:
    device.transfer("Writes")
    tensor = None
    if made.memory_config.is_sharded() and ((steps and made.layout is TILE_LAYOUT) or len(steps) > 1):
        warn(LEGACY_TILIZE)
    if steps and _too_wide(made, device.chip):
        pages = (spec(made.shape, made.dtype, layout, DRAM_MEMORY_CONFIG) for layout in (ROW_MAJOR_LAYOUT, TILE_LAYOUT))
        with scratch(device, *steps, *pages):
            tensor = allocate(made, device, topology)
    else:
        for step in (*steps, made):  # each is freed when the next is there
            tensor = allocate(step, device, topology)
    if not state.spec_only:
        tensor.buffer.data = placed(host)
    return tensor


#: Of a core's L1, what making tiles of sharded rows leaves free: between 21,153 and 23,424 bytes on both chips.
_TILIZE_LEFT = 22 << 10


def _too_wide(made: TensorSpec, chip) -> bool:
    """Do the tiles across all shards of a width, in rows and as tiles, not fit a core's L1? They become tiles in pages
    then, and all steps of the way lie in DRAM together.

    Source    ttnn 0.81.1 on n150, n300, t3000, p150 and p300, widths of bfloat16 and float32 asked one by one over 1,
              3, 5 and all banks; buffers seen by its graph capture
    """
    if made.layout is not TILE_LAYOUT or made.memory_config.memory_layout is not TensorMemoryLayout.WIDTH_SHARDED:
        return False
    shards = made.memory_config.shard_spec
    across = shards.num_cores() * -(-shards.shape[1] // TILE)
    return across * 2 * TILE_BYTES[made.dtype] > chip.l1.bytes - _TILIZE_LEFT


def constant(shape, value, dtype: DataType) -> torch.Tensor:
    """A tensor of one value that takes no memory until something is written into it."""
    number = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
    return host_cast(number if dtype in INTEGERS else number.float(), dtype).expand(tuple(shape))


@op("ttnn.from_torch")
def from_torch(
    tensor, dtype: DataType | None = None, *, spec=None, tile=None, pad_value=None, layout: Layout | None = None,
    device: MeshDevice | None = None, memory_config: MemoryConfig | None = None, mesh_mapper=None, cq_id=None,
    preserve_nan_values: bool = False, col_tilize: bool = False, enable_bfloat_opt: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor from a torch tensor, on the host or on a device.

    Shapes    per chip where `mesh_mapper` cuts the tensor; every chip of a mesh gets the whole one without it
    Dtypes    by default the one nearest to torch's (int64 becomes uint32); block formats are rounded on the host
    Layout    ROW_MAJOR by default, TILE for block formats
    Raises    block formats in ROW_MAJOR; sharded memory without a shard spec; shards that do not fit; out of memory
    Differs   `pad_value` fills padding, which is not held here; block formats are rounded on the host whatever
              `enable_bfloat_opt` says; no nan changes, whatever `preserve_nan_values` says
    Source    recorded contract, op `ttnn.from_torch`
    """
    if tensor is None:
        return None
    if type(tensor).__module__ == "numpy":
        tensor = torch.from_numpy(tensor)
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"ttnn.from_torch(): incompatible function arguments.\n  got    tensor = {tensor!r:.100}")
    if spec is not None:
        for name, value in (("dtype", dtype), ("layout", layout)):
            if value is not None:
                raise DeviceRejects(f"ttnn.from_torch: {name} must be None when spec is specified")
        if tuple(spec.shape) != tuple(tensor.shape):
            raise DeviceRejects(
                f"ttnn.from_torch: spec shape {spec.shape} must be the same as tensor shape {tensor.shape}"
            )
        dtype, layout, memory_config = spec.dtype, spec.layout, memory_config or spec.memory_config
    if dtype is None:
        dtype = DEFAULT_OF.get(tensor.dtype)
        if dtype is None:
            raise NotEmulated(f"from_torch without a dtype has no model for {tensor.dtype}; say dtype=")
    if tensor.is_complex():
        raise DeviceRejects(
            f"get_ttnn_datatype_from_dtype: got unexpected dlpack dtype. code: 5, bits: {tensor.element_size() * 8}"
        )
    if col_tilize:
        if dtype not in BLOCK_FORMATS:
            raise DeviceRejects("ttnn.from_torch: col_tilize=True requires BFP dtype (bfloat8_b or bfloat4_b)")
        refuse_unmodelled("ttnn.from_torch", col_tilize=True)
    if layout is None:
        layout = TILE_LAYOUT if dtype in BLOCK_FORMATS else ROW_MAJOR_LAYOUT
    if memory_config is not None and memory_config.is_sharded() and memory_config.shard_spec is None:
        raise DeviceRejects("ttnn.from_torch: Shard spec must not be None for sharded tensors")
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects("Layout must be Layout::TILE for bfloat8_b or bfloat4_b!")
    pieces, topology = [tensor.detach()], None
    if mesh_mapper is not None:
        pieces, topology = mesh_mapper.split(pieces[0]), mesh_mapper.topology
        if len(pieces) < topology.size and any(isinstance(p, PlacementShard) for p in topology.placements()):
            topology = TensorTopology((len(pieces),), topology.placements())
    elif device is not None:
        topology = replicated(device.chips)
    made = _spec(pieces[0].shape, dtype, layout, None if device is None else memory_config or DRAM_MEMORY_CONFIG)
    steps = () if device is None or mesh_mapper is None else _conversions(tensor.dtype, made)
    if state.spec_only:
        return (
            Tensor(made, host=pieces, topology=topology)
            if device is None
            else upload(None, made, device, topology, steps)
        )
    several = len(pieces) > 1 and mesh_mapper is not None
    if several and all(_is_band(p) for p in pieces):
        host = mesh_mapper.split(host_cast(tensor.detach(), dtype))  # beside one another in memory: `matmul.beside`
    elif several and HELD_AS[dtype] is torch.bfloat16 and all(_is_rows(p) for p in pieces):
        host = _side_by_side(pieces, dtype)
    else:
        own = {id(p): p for p in pieces}
        own = {i: host_cast(p, dtype) for i, p in own.items()}
        host = [own[id(p)] for p in pieces]
    return Tensor(made, host=host, topology=topology) if device is None else upload(host, made, device, topology, steps)


_spec = spec


def _is_band(piece) -> bool:
    """Is it whole tiles of columns of a weight [in, out] as HF holds it, the transposed view of [out, in]?"""
    return piece.dim() > 1 and piece.mT.is_contiguous() and piece.shape[-1] % 32 == 0 and piece.shape[-2] > 1


def _is_rows(piece) -> bool:
    """Is it rows of a weight [in, out] as HF holds it, the transposed view of [out, in]?"""
    return piece.dim() > 1 and piece.shape[-1] > 1 and piece.stride(-2) == 1 and piece.stride(-1) > piece.shape[-2]


def _side_by_side(pieces, dtype: DataType) -> list[torch.Tensor]:
    """`host_cast` of pieces of one shape, each a transposed view, beside one another in memory."""
    distinct, shape = {id(p): p for p in pieces}, pieces[0].shape
    block = torch.empty(len(distinct), *shape[:-2], shape[-1], shape[-2], dtype=torch.bfloat16)
    for own, piece in zip(block, distinct.values()):
        own.copy_((piece if dtype is DataType.BFLOAT16 else host_cast(piece, dtype)).mT)
    views = dict(zip(distinct, block.mT))
    return [views[id(p)] for p in pieces]


def _conversions(source: torch.dtype, made: TensorSpec) -> list[TensorSpec]:
    """What lies on the device on the way to `made`: with a mapper, floats go there in rows, as they are or, into
    shards, with their new dtype.

    Source    ttnn 0.81.1 on n300 and t3000, buffers seen by its graph capture
    """
    if source not in (torch.bfloat16, torch.float32) or made.dtype not in (DataType.BFLOAT16, DataType.FLOAT32):
        return []
    given = made.dtype if made.memory_config.is_sharded() else DEFAULT_OF[source]
    tiled = made.layout is TILE_LAYOUT
    if given is made.dtype and not tiled:
        return []
    steps = [(given, ROW_MAJOR_LAYOUT)]
    if given is not made.dtype:
        steps.append((given, TILE_LAYOUT))
        steps += [] if tiled else [(made.dtype, TILE_LAYOUT)]
    return [spec(made.shape, dtype, layout, made.memory_config) for dtype, layout in steps]


@op("ttnn.as_tensor")
def as_tensor(
    tensor, dtype: DataType | None = None, *, layout: Layout | None = ROW_MAJOR_LAYOUT,
    device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None, cache_file_name=None, preprocess=None, mesh_mapper=None,
    cache_dump_mode=None,
) -> Tensor:  # fmt: skip
    """`from_torch` with a preprocessing step; a device needs a memory config.

    Shapes    any; kept
    Dtypes    torch's, to any of the library's
    Differs   the device's library keeps converted tensors in `cache_file_name`; here nothing is written
    Source    recorded contract, op `ttnn.as_tensor`
    """
    if device is not None and memory_config is None:
        raise DeviceRejects("memory_config must be specified when device is specified")
    if preprocess is not None:
        tensor = preprocess(tensor)
    return from_torch(tensor, dtype, layout=layout, device=device, memory_config=memory_config, mesh_mapper=mesh_mapper)


@op("ttnn.to_torch")
def to_torch(
    tensor: Tensor, dtype=None, *, torch_rank: int | None = None, mesh_composer=None, device: MeshDevice | None = None,
    cq_id=None,
) -> torch.Tensor:  # fmt: skip
    """The values as a torch tensor in logical shape, all chips put together by `mesh_composer`.

    Shapes    any; kept, or as the composer joins the shares
    Dtypes    block formats come as float32
    Raises    a spread tensor without a composer; a freed one; a rank that the leading ones do not allow
    Source    recorded contract, op `ttnn.to_torch`
    """
    if not tensor.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    if tensor.buffer is not None:
        tensor.buffer.device.transfer("Reads", cq_id)
    shape, kind = tensor.spec.shape, RETURNED_AS[tensor.dtype]
    chips = tensor.chips
    if chips > 1 and mesh_composer is None:
        mesh = tensor.buffer.device.shape if tensor.buffer is not None else tensor.topology.distribution_shape()
        raise DeviceRejects(
            f"Can't convert a tensor distributed on {mesh} mesh to row-major logical tensor. Supply a mesh composer to "
            "concatenate multi-device shards."
        )
    if state.spec_only:
        values = [torch.zeros(tuple(shape), dtype=kind)]
    else:
        held = tensor.held()
        values = [v.whole(kind).cpu() if type(v) is Repeated else v.to("cpu", kind, copy=True) for v in held]
    if mesh_composer is not None:
        values = [mesh_composer.join(values * chips if len(values) == 1 else values)]
    out = values[0]
    if torch_rank is not None:
        while out.dim() > torch_rank:
            if out.shape[0] != 1:
                raise DeviceRejects("ttnn: Unable to squeeze to desired rank!")
            out = out.squeeze(0)
    return out if dtype is None else out.to(dtype)


@op("ttnn.to_device")
def to_device(tensor: Tensor, device: MeshDevice, memory_config: MemoryConfig | None = None, cq_id=None) -> Tensor:
    """A host tensor on a device (DRAM unless said); a device tensor comes back as it is, wherever it is.

    Shapes    any; kept
    Dtypes    all; kept
    Source    recorded contract, op `ttnn.to_device`
    """
    if tensor.buffer is not None:
        return same(tensor)
    made = tensor.spec.with_memory_config(memory_config or DRAM_MEMORY_CONFIG)
    chips = tensor.topology.distribution_shape().mesh_size()
    topology = tensor.topology if chips == device.chips else replicated(device.chips)
    fresh = {id(v): v.clone() for v in tensor.host}
    return upload([fresh[id(v)] for v in tensor.host], made, device, topology)


@op("ttnn.from_device")
def from_device(tensor: Tensor, *, cq_id=None, blocking: bool = True) -> Tensor:
    """A copy on the host; a host tensor comes back as it is.

    Shapes    any; kept
    Dtypes    all; kept
    Source    recorded contract, op `ttnn.from_device`
    """
    if tensor.buffer is None:
        return same(tensor)
    if not tensor.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    tensor.buffer.device.transfer("Reads", cq_id)
    if state.spec_only:
        host = [constant(tensor.spec.shape, 0, tensor.dtype)]
    else:
        host = on_host(tensor.contents())
    return Tensor(tensor.spec.with_memory_config(None), host=host, topology=tensor.topology)


@op("ttnn.deallocate")
def deallocate(tensor: Tensor, force: bool = True) -> None:
    """Frees a tensor's device memory at once; with force=False only what nobody shares. Host tensors are left alone.

    Shapes    any
    Dtypes    all
    Source    recorded contract, op `ttnn.deallocate`
    """
    buffer = tensor.buffer
    if buffer is not None and (force or not buffer.shared):
        buffer.free()


def _same_pages(host: Tensor, device: Tensor) -> None:
    """What a copy between host and device asks of the two, in the library's order."""
    if host.buffer is not None:
        raise DeviceRejects("Expected Tensor with HostStorage, got StorageType::DEVICE")
    on_device(device)
    if host.spec.shape != device.spec.shape:
        raise DeviceRejects(
            "Host tensor has different shape", f"{host.spec.shape} on the host, {device.spec.shape} on the device"
        )
    if host.dtype is not device.dtype:
        raise DeviceRejects(
            "Host tensor has different dtype", f"{host.dtype} on the host, {device.dtype} on the device"
        )
    if host.layout is not device.layout:
        raise DeviceRejects("Host tensor has different page config", f"{host.layout} and {device.layout}")


@op("ttnn.copy_host_to_device_tensor")
def copy_host_to_device_tensor(host_tensor: Tensor, device_tensor: Tensor, cq_id=None) -> None:
    """Writes a host tensor into the memory of a device tensor, for instance the input of a captured trace.

    Shapes    both the same
    Dtypes    both the same
    Raises    other shapes, dtypes or layouts; a device tensor as the source; inside a trace capture
    Source    recorded contract, op `ttnn.copy_host_to_device_tensor`
    """
    _same_pages(host_tensor, device_tensor)
    check_alone("ttnn.copy_host_to_device_tensor", device_tensor)
    device = device_tensor.buffer.device
    queue = device.transfer("Writes", cq_id)
    device.wrote(device_tensor.buffer.store, queue)
    if state.spec_only:
        return
    if len(host_tensor.host) not in (1, device.chips):
        raise DeviceRejects(f"A host tensor of {len(host_tensor.host)} pieces does not fit {device.chips} chips")
    device_tensor.buffer.store.data = placed(on_host(host_tensor.host))


@op("ttnn.copy_device_to_host_tensor")
def copy_device_to_host_tensor(device_tensor: Tensor, host_tensor: Tensor, blocking: bool = True, cq_id=None) -> None:
    """Writes a device tensor into the memory of a host tensor.

    Shapes    both the same
    Dtypes    both the same
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    _same_pages(host_tensor, device_tensor)
    device_tensor.buffer.device.transfer("Reads", cq_id)
    if not state.spec_only:
        host_tensor.host[:] = on_host(device_tensor.contents())


def has_storage_type_of(tensor: Tensor, storage_type) -> bool:
    """Whether the tensor is on the host, or on a device."""
    return tensor.storage_type() == storage_type


def is_tensor_storage_on_device(tensor: Tensor) -> bool:
    """Whether the tensor is on a device."""
    return tensor.buffer is not None
