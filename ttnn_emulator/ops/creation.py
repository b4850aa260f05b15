"""Tensors in and out: from torch and back, between host and device, and made on the device."""

from __future__ import annotations

import torch

from .. import blockfloat
from ..dtypes import (
    BLOCK_FORMATS, DEFAULT_OF, HELD_AS, INTEGERS, NAME, RETURNED_AS, ROW_MAJOR_LAYOUT, TILE_LAYOUT, DataType, Layout, bfloat16,
    cpp,
)  # fmt: skip
from ..device import MeshDevice
from ..errors import DeviceRejects
from ..memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ..op import allocate, op, refuse_unmodelled, state
from ..tensor import Tensor, TensorSpec, replicated, spec

_WRAP = {DataType.UINT32: 32, DataType.UINT16: 16, DataType.UINT8: 8, DataType.INT32: 32}


def host_cast(values: torch.Tensor, dtype: DataType) -> torch.Tensor:
    """Host values as the emulator holds them: rounded to the grid of `dtype`, in memory of their own.

    Numerics  bfloat16: nearest even; block formats: recorded limits, "Block formats"; floats truncate to integers,
              integers wrap modulo 2^n
    """
    held = HELD_AS[dtype]
    if dtype in BLOCK_FORMATS:
        return blockfloat.quantise(values if values.dtype is torch.bfloat16 else values.float(), NAME[dtype])
    if dtype in INTEGERS:
        bits = _WRAP[dtype]
        whole = values.to(torch.int64) & ((1 << bits) - 1)
        if dtype is DataType.INT32:
            whole = torch.where(whole >= 1 << 31, whole - (1 << 32), whole)
        return whole.to(held)
    return values.to(held, copy=True)


def _upload(host: list[torch.Tensor], made: TensorSpec, device: MeshDevice, topology) -> Tensor:
    tensor = allocate(made, device, topology)
    if not state.spec_only:
        tensor.buffer.data = host
    return tensor


@op("ttnn.from_torch")
def from_torch(
    tensor, dtype: DataType | None = None, *, spec=None, tile=None, pad_value=None, layout: Layout | None = None,
    device: MeshDevice | None = None, memory_config: MemoryConfig | None = None, mesh_mapper=None, cq_id=None,
    preserve_nan_values: bool = False, col_tilize: bool = False, enable_bfloat_opt: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor from a torch tensor, on the host or on a device.

    Dtypes    by default the one nearest to torch's (int64 becomes uint32); block formats are rounded on the host
    Layout    ROW_MAJOR by default, TILE for block formats
    Raises    block formats in ROW_MAJOR; sharded memory without a shard spec; shards that do not fit; out of memory
    Source    recorded contract, op `ttnn.from_torch`
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"ttnn.from_torch(): incompatible function arguments.\n  got    tensor = {tensor!r:.100}")
    if spec is not None:
        if dtype is not None:
            raise DeviceRejects("ttnn.from_torch: dtype must be None when spec is specified")
        if tuple(spec.shape) != tuple(tensor.shape):
            raise DeviceRejects(
                f"ttnn.from_torch: spec shape {spec.shape} must be the same as tensor shape {tensor.shape}"
            )
        dtype, layout, memory_config = spec.dtype, spec.layout, memory_config or spec.memory_config
    if dtype is None:
        dtype = DEFAULT_OF.get(tensor.dtype)
        if dtype is None:
            raise DeviceRejects(f"from_torch has no default dtype for {tensor.dtype}", "say dtype=")
    if layout is None:
        layout = TILE_LAYOUT if dtype in BLOCK_FORMATS else ROW_MAJOR_LAYOUT
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects("Layout must be Layout::TILE for bfloat8_b or bfloat4_b!")
    if memory_config is not None and memory_config.is_sharded() and memory_config.shard_spec is None:
        raise DeviceRejects("ttnn.from_torch: Shard spec must not be None for sharded tensors")
    pieces, topology = [tensor.detach()], None
    if mesh_mapper is not None:
        pieces, topology = mesh_mapper.split(pieces[0]), mesh_mapper.topology
    elif device is not None:
        topology = replicated(device.chips)
    made = _spec(pieces[0].shape, dtype, layout, None if device is None else memory_config or DRAM_MEMORY_CONFIG)
    if state.spec_only:
        return allocate(made, device, topology) if device is not None else Tensor(made, host=pieces, topology=topology)
    own = {id(p): p for p in pieces}
    own = {i: host_cast(p, dtype) for i, p in own.items()}
    host = [own[id(p)] for p in pieces]
    return Tensor(made, host=host, topology=topology) if device is None else _upload(host, made, device, topology)


_spec = spec


@op("ttnn.as_tensor")
def as_tensor(
    tensor, dtype: DataType | None = None, *, layout: Layout | None = ROW_MAJOR_LAYOUT, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None, cache_file_name=None, preprocess=None, mesh_mapper=None,
    cache_dump_mode=None,
) -> Tensor:  # fmt: skip
    """`from_torch` with a preprocessing step; a device needs a memory config.

    Differs   the device's library keeps converted tensors in `cache_file_name`; here nothing is written
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

    Dtypes    block formats come as float32
    Raises    a spread tensor without a composer; a freed one; a rank that the leading ones do not allow
    """
    if not tensor.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    shape, kind = tensor.shape, RETURNED_AS[tensor.dtype]
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
        values = [v.to(kind, copy=True) for v in tensor.contents()]
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
def to_device(tensor: Tensor, device: MeshDevice, *, memory_config: MemoryConfig | None = None, cq_id=None) -> Tensor:
    """A host tensor on a device (DRAM unless said); a device tensor comes back as it is."""
    if tensor.buffer is not None:
        return tensor
    made = tensor.spec.with_memory_config(memory_config or DRAM_MEMORY_CONFIG)
    chips = tensor.topology.distribution_shape().mesh_size()
    topology = tensor.topology if chips == device.chips else replicated(device.chips)
    fresh = {id(v): v.clone() for v in tensor.host}
    return _upload([fresh[id(v)] for v in tensor.host], made, device, topology)


@op("ttnn.from_device")
def from_device(tensor: Tensor, *, cq_id=None, blocking: bool = True) -> Tensor:
    """A copy on the host; a host tensor comes back as it is."""
    if tensor.buffer is None:
        return tensor
    if not tensor.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    host = [torch.zeros(tuple(tensor.shape), dtype=HELD_AS[tensor.dtype])] if state.spec_only else [v.clone() for v in tensor.contents()]
    return Tensor(tensor.spec.with_memory_config(None), host=host, topology=tensor.topology)


@op("ttnn.deallocate")
def deallocate(tensor: Tensor, force: bool = True) -> None:
    """Frees a tensor's device memory at once; with force=False only what nobody shares. Host tensors are left alone."""
    buffer = tensor.buffer
    if buffer is not None and (force or not buffer.shared):
        buffer.free()


def _filled(shape, value, dtype, layout, device, memory_config) -> Tensor:
    dtype, layout = dtype or bfloat16, layout or ROW_MAJOR_LAYOUT
    if dtype in BLOCK_FORMATS and layout is not TILE_LAYOUT:
        raise DeviceRejects(f"Only TILE layout is supported for {dtype.name} dtype!")
    made = spec(tuple(shape), dtype, layout, None if device is None else memory_config or DRAM_MEMORY_CONFIG)
    values = None
    if not state.spec_only or device is None:
        values = [host_cast(torch.full(tuple(shape), value, dtype=torch.float32 if isinstance(value, float) else torch.int64).float()
                            if dtype not in INTEGERS else torch.full(tuple(shape), value), dtype)]  # fmt: skip
    return Tensor(made, host=values) if device is None else _upload(values, made, device, replicated(device.chips))


@op("ttnn.full")
def full(
    shape, fill_value: float, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None, optional_tensor=None,
) -> Tensor:  # fmt: skip
    """A tensor filled with one value."""
    refuse_unmodelled("ttnn.full", optional_tensor=optional_tensor)
    return _filled(shape, fill_value, dtype, layout, device, memory_config)


@op("ttnn.zeros")
def zeros(
    shape, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """A tensor of zeros."""
    return _filled(shape, 0.0, dtype, layout, device, memory_config)


@op("ttnn.ones")
def ones(
    shape, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """A tensor of ones."""
    return _filled(shape, 1.0, dtype, layout, device, memory_config)
