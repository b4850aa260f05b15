"""Copies, into another dtype, another tensor or another place."""

from __future__ import annotations

from ...dtypes import (
    BLOCK_FORMATS,
    TILE_LAYOUT,
    DataType,
    cpp,
)  # fmt: skip
from ...errors import DeviceRejects
from ...launch import launch, output_memory
from ...memory import MemoryConfig, extent
from ...numerics.rows import EACH
from ...op import op, refuse_unmodelled
from ...tensor import Tensor, padded, spec
from ..data_movement.moving import (
    device_tensor,
    on_host,
    page_bytes,
)
from ..data_movement.permute import clone_memory
from .layout import converted, tile_only
from .placing import moved
from .transfer import host_cast


@op("ttnn.typecast")
def typecast(
    input_tensor: Tensor, dtype: DataType | None = None, output_dtype: DataType | None = None, *,
    input_dtype: DataType | None = None, memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None,
    sub_core_grids=None,
) -> Tensor:  # fmt: skip
    """The values in another dtype, rounded as the device rounds; also to the same dtype a new tensor.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32, uint16, uint8 (recorded)
    Forms     typecast(x, dtype) or typecast(x, input_dtype, output_dtype)
    Raises    block formats in ROW_MAJOR; another sharding than the operand's
    Source    recorded contract, op `ttnn.typecast`; numerics as in `numerics.rounding.typecast`
    """
    x = input_tensor
    if output_dtype is not None:
        input_dtype, dtype = input_dtype or dtype, output_dtype
    if dtype is None:
        raise TypeError("ttnn.typecast(): incompatible function arguments.\n  want   typecast(input_tensor, dtype)")
    if input_dtype is not None and input_dtype is not x.dtype:
        raise DeviceRejects("input dtype and input tensor's dtype provided should match")
    if dtype is DataType.INVALID:
        raise DeviceRejects(f"Unsupported dtype {cpp(dtype)}")
    if x.buffer is None:
        return _cast_on_host(x, dtype)
    device_tensor(x)
    if x.is_sharded() and (page := page_bytes(x, x.spec.memory_config)) % 16:
        raise DeviceRejects(
            f"Typecast operation requires sharded input tensor page size ({page} bytes) to be aligned to L1 (16 bytes)"
        )
    if output_tensor is not None:
        if output_tensor.dtype is not dtype:
            raise DeviceRejects("If both output dtype and output tensor provided dtype should match")
        return moved("ttnn.typecast", x, output_tensor.spec.memory_config, dtype, output_tensor)
    tile_only(dtype, x.layout)
    memory = output_memory(x, memory_config)
    if memory.memory_layout is not x.spec.memory_config.memory_layout:
        raise DeviceRejects(
            "Typecast operation requires Input and Output memory layout to match. Input layout: "
            f"{cpp(x.spec.memory_config.memory_layout)}, Output layout: {cpp(memory.memory_layout)}"
        )
    made = spec(x.spec.shape, dtype, x.layout, memory)
    return launch("ttnn.typecast", (x,), made, converted(x, dtype), flops=x.spec.shape.volume(), rows=EACH)


def _cast_on_host(x: Tensor, dtype: DataType) -> Tensor:
    """A host tensor in another dtype; block formats bring TILE with them."""
    layout = TILE_LAYOUT if dtype in BLOCK_FORMATS else x.layout
    before, after = extent(x.spec.padded_shape), extent(padded(x.spec.shape, layout, None))
    if before != after:
        raise DeviceRejects(
            f"to_dtype: Converting layout to {cpp(layout)} implicitly changed physical shape from {before} to "
            f"{after} due to alignment constraints. This is currently unsupported. Please pad the tensor explicitly "
            "before conversion."
        )
    return on_host(x, x.spec.shape, lambda v: host_cast(v, dtype), dtype, layout)


@op("ttnn.to_dtype")
def to_dtype(tensor: Tensor, dtype: DataType) -> Tensor:
    """A host tensor in another dtype; device tensors take `ttnn.typecast`.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, uint32, int32 (recorded)
    Source    recorded contract, op `ttnn.to_dtype`
    """
    if tensor.buffer is not None:
        raise DeviceRejects(
            "Expected Tensor with HostStorage, got StorageType::DEVICE", "ttnn.typecast converts on the device"
        )
    return _cast_on_host(tensor, dtype)


@op("ttnn.clone")
def clone(
    input: Tensor,
    *,
    dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None,
    compute_kernel_config=None,
) -> Tensor:
    """A copy, in another dtype or memory if said.

    Shapes    any; kept
    Dtypes    all; kept, or `dtype`
    Source    recorded contract, op `ttnn.clone`
    """
    x = device_tensor(input)
    if dtype not in (None, x.dtype) and x.layout is not TILE_LAYOUT:
        raise DeviceRejects("Clone: data type conversion is only supported with tile layout")
    memory = output_memory(x, memory_config)
    clone_memory(x, memory)
    return moved("ttnn.clone", x, memory, dtype)


@op("ttnn.assign")
def assign(
    input_tensor: Tensor | None = None, input_b: Tensor | None = None, *, input_a: Tensor | None = None,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy in the memory that is said, or into the tensor that is given.

    Shapes    any; kept
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.assign`
    """
    source = input_a if input_tensor is None else input_tensor
    if source is not None and input_b is not None:
        return _written("ttnn.assign", device_tensor(source), input_b)
    if source is None or (output_tensor is None and memory_config is None):
        raise TypeError(
            "ttnn.assign(): incompatible function arguments.\n  want   assign(input_tensor, *, memory_config=)"
        )
    x = device_tensor(source)
    if output_tensor is not None:
        if output_tensor.spec.memory_config != memory_config:
            raise DeviceRejects(
                "Mismatched output memory config. Check to see if the preallocated output tensor has a different shard "
                "spec than the one specified in the passed-in memory config."
            )
        return _written("ttnn.assign", x, output_tensor)
    return moved("ttnn.assign", x, memory_config, dtype)


@op("ttnn.copy")
def copy(input_a: Tensor, input_b: Tensor) -> Tensor:
    """The values of `input_a` written into `input_b`.

    Shapes    both the same
    Dtypes    all; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    return _written("ttnn.copy", device_tensor(input_a), input_b)


def _written(name: str, x: Tensor, target: Tensor) -> Tensor:
    """The values of a tensor written into another of its shape and layout, in the other's dtype."""
    device_tensor(target)
    if x.spec.shape != target.spec.shape:
        raise DeviceRejects(f"Input tensor shape {x.spec.shape} does not match output tensor shape {target.spec.shape}")
    if x.layout is not target.layout:
        raise DeviceRejects(
            f"Input tensor layout ({cpp(x.layout)}) must equal output tensor layout ({cpp(target.layout)})"
        )
    return moved(name, x, target.spec.memory_config, target.dtype, target)


@op("ttnn.move")
def move(input_tensor: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """The tensor in fresh memory, its own being freed first: closes gaps.

    Shapes    any; kept
    Dtypes    all; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    x = device_tensor(input_tensor)
    memory = output_memory(x, memory_config)
    from ...launch import allocate
    from ...oplog import state

    values = None if state.spec_only else x.contents()
    made = spec(x.spec.shape, x.dtype, x.layout, memory)
    device, topology = x.buffer.device, x.topology
    if device.capture is not None:
        refuse_unmodelled("ttnn.move", inside_a_trace_capture=True)
    x.buffer.free()
    out = allocate(made, device, topology)
    out.buffer.data = values
    return out


@op("ttnn.reallocate")
def reallocate(tensor: Tensor, memory_config: MemoryConfig | None = None) -> Tensor:
    """`move`: the tensor in fresh memory, its own being freed first.

    Shapes    any; kept
    Dtypes    all; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    return move(tensor, memory_config=memory_config)
