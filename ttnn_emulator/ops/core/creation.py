"""Tensors that are made on the device: constants and ranges."""

from __future__ import annotations

import math
import operator

import torch

from ...device import MeshDevice
from ...dtypes import (
    BLOCK_FORMATS,
    FLOATS,
    ROW_MAJOR_LAYOUT,
    TILE_LAYOUT,
    DataType,
    Layout,
    bfloat16,
)  # fmt: skip
from ...errors import DeviceRejects
from ...launch import same, update
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...op import described, op
from ...oplog import state
from ...tensor import PlacementReplicate, Tensor, TensorSpec, TensorTopology, replicated, spec
from .transfer import constant, host_cast, upload


def _made(op_name: str, shape, dtype, layout, device, memory_config, values) -> Tensor:
    """A new tensor with `values()` in it, on every chip of a device or on the host."""
    shape = tuple(shape)
    if any(n < 0 for n in shape):
        raise TypeError(f"{op_name}(): incompatible function arguments.\n  got    shape = {list(shape)}")
    dtype = dtype or bfloat16
    if dtype in BLOCK_FORMATS and layout not in (None, TILE_LAYOUT):
        raise DeviceRejects("Only TILE layout is supported for BFLOAT8_B dtype!")
    layout = layout or (TILE_LAYOUT if dtype in BLOCK_FORMATS else ROW_MAJOR_LAYOUT)
    if device is None:
        return Tensor(spec(shape, dtype, layout, None), host=[values()])
    made = spec(shape, dtype, layout, memory_config or DRAM_MEMORY_CONFIG)
    return upload(None if state.spec_only else [values()], made, device, replicated(device.chips))


def _filled(op_name: str, shape, value, dtype, layout, device, memory_config, optional_tensor=None) -> Tensor:
    try:
        shape = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"{op_name}(): incompatible function arguments.\n  got    shape = {shape!r:.100}") from None
    if optional_tensor is None:
        held = dtype or bfloat16
        return _made(op_name, shape, dtype, layout, device, memory_config, lambda: constant(shape, value, held))
    value = constant((), value, optional_tensor.dtype)
    update(op_name, optional_tensor, (), lambda target: target.fill_(value))
    return same(optional_tensor)


@op("ttnn.full")
def full(
    shape, fill_value: float, dtype: DataType | None = None, layout: Layout | None = None,
    device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None, optional_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A tensor filled with one value: bfloat16, ROW_MAJOR (TILE for block formats), on the host unless said.

    Shapes    as given
    Dtypes    all; bfloat16 by default
    Source    recorded contract, op `ttnn.full`
    """
    return _filled("ttnn.full", shape, fill_value, dtype, layout, device, memory_config, optional_tensor)


@op("ttnn.empty")
def empty(
    shape, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """A tensor on a device that nothing was written into; it reads as zeros here.

    Shapes    as given
    Dtypes    all; bfloat16 by default
    Source    recorded contract, op `ttnn.empty`
    """
    if device is None:
        raise TypeError("ttnn.empty(): incompatible function arguments.\n  want   device=")
    return _filled("ttnn.empty", shape, 0, dtype, layout, device, memory_config)


def _like(op_name: str, tensor: Tensor, value, dtype, layout, device, memory_config, optional_tensor=None) -> Tensor:
    """As `tensor` is, except for what is said."""
    if device is None:
        device = tensor.device()
    memory = memory_config or (tensor.spec.memory_config if tensor.buffer is not None else None)
    made = _filled(
        op_name,
        tensor.spec.shape,
        value,
        dtype or tensor.dtype,
        layout or tensor.layout,
        device,
        memory,
        optional_tensor,
    )
    if optional_tensor is None and made.chips == tensor.chips:
        made.topology = tensor.topology
    return made


@op("ttnn.full_like")
def full_like(
    tensor: Tensor, fill_value: float, dtype: DataType | None = None, layout: Layout | None = None,
    device: MeshDevice | None = None, memory_config: MemoryConfig | None = None, optional_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A tensor of one value, otherwise like `tensor`.

    Shapes    the tensor's
    Dtypes    all; the tensor's by default
    Source    recorded contract, op `ttnn.full_like`
    """
    return _like("ttnn.full_like", tensor, fill_value, dtype, layout, device, memory_config, optional_tensor)


def constant_ops(name: str, value: int, doc: str):
    """The ops `ttnn.<name>`, a new tensor of one value, and `ttnn.<name>_like`, otherwise like another tensor."""
    full, like = f"ttnn.{name}", f"ttnn.{name}_like"

    @op(full)
    def call(
        shape, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
        memory_config: MemoryConfig | None = None,
    ) -> Tensor:  # fmt: skip
        return _filled(full, shape, value, dtype, layout, device, memory_config)

    @op(like)
    def call_like(
        tensor: Tensor, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
        memory_config: MemoryConfig | None = None, optional_tensor: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        return _like(like, tensor, value, dtype, layout, device, memory_config, optional_tensor)

    call.__doc__ = described(
        f"A tensor of {doc}: bfloat16, ROW_MAJOR (TILE for block formats), on the host unless said.", Shapes="as given",
        Dtypes="all; bfloat16 by default", Source=f"recorded contract, op `{full}`",
    )  # fmt: skip
    call_like.__doc__ = described(
        f"{doc.capitalize()}, otherwise like `tensor`.", Shapes="the tensor's", Dtypes="all; the tensor's by default",
        Source=f"recorded contract, op `{like}`",
    )  # fmt: skip


constant_ops("zeros", 0, "zeros")
constant_ops("ones", 1, "ones")


@op("ttnn.empty_like")
def empty_like(
    tensor: Tensor, *, dtype: DataType | None = None, layout: Layout | None = None, device: MeshDevice | None = None,
    memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """A tensor like `tensor` that nothing was written into; it reads as zeros here.

    Shapes    the tensor's
    Dtypes    all; the tensor's by default
    Raises    for a host tensor without a device (the library dies)
    Source    recorded contract, op `ttnn.empty_like`
    """
    if device is None and tensor.buffer is None:
        raise DeviceRejects("ttnn.empty_like of a host tensor needs a device", "say device=")
    return _like("ttnn.empty_like", tensor, 0, dtype, layout, device, memory_config)


@op("ttnn.arange")
def arange(
    start: int | None = None, end: int | None = None, step: int = 1, *, dtype: DataType = bfloat16,
    device: MeshDevice | None = None, memory_config: MemoryConfig | None = None, layout: Layout = ROW_MAJOR_LAYOUT,
) -> Tensor:  # fmt: skip
    """start, start + step, ... below end; arange(end) starts at 0.

    Shapes    -> [n]
    Dtypes    all but block formats; bfloat16 by default
    Source    recorded contract, op `ttnn.arange`
    """
    if end is None:
        start, end = 0, start
    if not all(isinstance(n, int) for n in (start, end, step)):
        raise TypeError(f"ttnn.arange(): incompatible function arguments.\n  got    {start!r}, {end!r}, {step!r}")
    if step == 0:
        raise DeviceRejects("Step must be nonzero")
    if (end - start) * step < 0:
        raise DeviceRejects("Invalid range: Step direction does not match range bounds")
    if dtype in BLOCK_FORMATS:
        raise DeviceRejects("Unsupported dtype")
    values = range(start, end, step)
    return _made(
        "ttnn.arange", (len(values),), dtype, layout, device, memory_config,
        lambda: host_cast(torch.tensor(values, dtype=torch.int64), dtype),
    )  # fmt: skip


@op("ttnn.allocate_tensor_on_device")
def allocate_tensor_on_device(*arguments) -> Tensor:
    """Memory that nothing was written into; it reads as zeros here.

    Shapes    as given
    Dtypes    all
    Forms     (spec, device) or (shape, dtype, layout, device, memory_config=DRAM), by position only
    Source    recorded contract, op `ttnn.allocate_tensor_on_device`
    """
    name = "ttnn.allocate_tensor_on_device"
    if len(arguments) == 2 and isinstance(arguments[0], TensorSpec) and isinstance(arguments[1], MeshDevice):
        s, device = arguments
        return _over_mesh(_filled(name, s.shape, 0, s.dtype, s.layout, device, s.memory_config))
    if len(arguments) not in (4, 5) or not isinstance(arguments[3], MeshDevice):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  want   (spec, device) or (shape, dtype, layout, device)"
        )
    shape, dtype, layout, device, *memory = arguments
    return _over_mesh(_filled(name, shape, 0, dtype, layout, device, *(memory or (None,))))


def _over_mesh(tensor: Tensor) -> Tensor:
    """Replicated along every axis of the mesh, instead of over the flattened one."""
    shape = tensor.device().shape
    if shape.mesh_size() > 1:
        tensor.topology = TensorTopology(shape, (PlacementReplicate(),) * len(shape))
    return tensor


@op("ttnn.allocate_tensor_on_host")
def allocate_tensor_on_host(*arguments) -> Tensor:
    """A tensor on the host for every chip of a mesh that nothing was written into; it reads as zeros here.

    Shapes    as given
    Dtypes    all
    Forms     (spec, device) or (shape, dtype, layout, device, memory_config=DRAM), by position only
    Source    ttnn 0.81.1, asked
    """
    name = "ttnn.allocate_tensor_on_host"
    if len(arguments) == 2 and isinstance(arguments[0], TensorSpec) and isinstance(arguments[1], MeshDevice):
        s, _ = arguments
        return _filled(name, s.shape, 0, s.dtype, s.layout, None, None)
    if len(arguments) not in (4, 5) or not isinstance(arguments[3], MeshDevice):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  want   (spec, device) or (shape, dtype, layout, device)"
        )
    return _filled(name, *arguments[:1], 0, *arguments[1:3], None, None)


@op("ttnn.from_buffer")
def from_buffer(
    buffer, shape, dtype: DataType, device: MeshDevice, layout: Layout | None = None,
    memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """A tensor on a device from a list of numbers; ROW_MAJOR in DRAM unless said.

    Shapes    as given; as many numbers
    Dtypes    all but block formats; whole numbers for integers
    Source    ttnn 0.81.1, asked dtype by dtype
    """
    values = list(buffer)
    if dtype in BLOCK_FORMATS:
        raise DeviceRejects("Unreachable", "block formats are not made from lists: ttnn.from_torch")
    if dtype not in FLOATS and any(not isinstance(v, int) for v in values):
        raise DeviceRejects("std::bad_cast", f"{dtype.value} takes whole numbers")
    shape = tuple(shape)
    if len(values) != math.prod(shape):
        raise DeviceRejects(f"Buffer size {len(values)} differs from shape volume {math.prod(shape)}")
    return _made(
        "ttnn.from_buffer", shape, dtype, layout, device, memory_config,
        lambda: host_cast(torch.tensor(values, dtype=torch.float32 if dtype in FLOATS else torch.int64), dtype).reshape(
            shape
        ),
    )  # fmt: skip
