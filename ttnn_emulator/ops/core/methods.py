"""Methods and operators of `ttnn.Tensor`, put on the class here because they are ops."""

from __future__ import annotations

import torch

from ...device import MeshDevice
from ...dtypes import BLOCK_FORMATS, ELEMENT_BYTES, ROW_MAJOR_LAYOUT, TILE_BYTES, Layout
from ...errors import DeviceRejects, NotEmulated
from ...memory import banks_of, buffer_bytes, pages_of
from ...op import REGISTRY, op
from ...shape import Shape, tile_padded
from ...tensor import Tensor, spec
from ..data_movement.moving import filled_to, integers, on_host
from ..data_movement.reshape import reshaped, resolved
from ..data_movement.slicing import sliced
from . import transfer
from .layout import to_layout


def _mistaken(name: str, args) -> TypeError:
    shown = ", ".join(f"{a!r:.60}" for a in args)
    return TypeError(
        f"{name}(): incompatible function arguments. The following argument types are supported:\n  got    {shown}"
    )


# ---------------------------------------------------------------- indexing
def _index(x: Tensor, index) -> tuple[list, list, list, set]:
    """Starts, ends and steps of `x[index]`, and the dims that an integer takes away."""
    rank = len(x.spec.shape)
    if isinstance(index, (int, slice)) or index is Ellipsis:
        index = (index,)
    elif isinstance(index, Tensor):
        raise TypeError(f"Invalid slice type: {index}")
    index = list(index)  # None and numbers that are not integers are "not iterable", as in the library
    if sum(i is Ellipsis for i in index) > 1:
        raise ValueError("Only one ellipsis ('...') is allowed in a slice.")
    given = sum(i is not Ellipsis for i in index)
    if given > rank:
        raise IndexError(f"Too many indices for tensor of dimension {rank}")
    at = next((i for i, each in enumerate(index) if each is Ellipsis), None)
    if at is None:
        index += [slice(None)] * (rank - given)
    else:
        index[at : at + 1] = [slice(None)] * (rank - given)
    starts, ends, steps, gone = [], [], [], set()
    for d, (each, n) in enumerate(zip(index, x.spec.shape)):
        if isinstance(each, slice):
            starts.append(0 if each.start is None else each.start)
            ends.append(n if each.stop is None else each.stop)
            steps.append(1 if each.step is None else each.step)
        elif isinstance(each, int):
            where = each + n if each < 0 else each
            if not 0 <= where < n:
                raise IndexError(f"Index {each} (converted to {where}) is out of bounds for dimension {d} of size {n}")
            starts.append(where), ends.append(where + 1), steps.append(1), gone.add(d)
        else:
            raise TypeError(f"Invalid slice type: {each}")
    return starts, ends, steps, gone


def _listed(index) -> tuple:
    return index if isinstance(index, tuple) else (index,)


@op("ttnn.Tensor.__getitem__")
def getitem(tensor: Tensor, index) -> Tensor:
    """tensor[...]: integers drop their dim, slices may have steps, one ellipsis.

    Shapes    by index: an int takes its dim away, a slice cuts it
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.Tensor.__getitem__`
    """
    x = tensor
    starts, ends, steps, gone = _index(x, index)
    if x.buffer is None:
        if x.dtype in BLOCK_FORMATS and any(each != slice(None) for each in _listed(index)):
            raise DeviceRejects(
                "Tensor layout must be ROW_MAJOR for unpadding", "slice before the cast, or on the device"
            )
        part = _host_part(x, starts, ends, steps)
    else:
        part = sliced("ttnn.slice", x, starts, ends, steps)
    if not gone:
        return part
    return reshaped("ttnn.reshape", part, Shape(n for d, n in enumerate(part.spec.shape) if d not in gone))


def _host_part(x: Tensor, starts, ends, steps) -> Tensor:
    """The part of a host tensor; positions count from the front, without steps.

    Source    ttnn 0.81.1, asked
    """
    if any(n < 0 for n in (*starts, *ends)):
        raise TypeError("ttnn.Tensor.__getitem__(): incompatible function arguments: negative positions on the host")
    if any(s != 1 for s in steps):
        raise DeviceRejects(
            "Host tensors cannot be accessed with non-unit stride", "ttnn.to_torch(x)[...], or on the device"
        )
    if any(b > e for b, e in zip(starts, ends)):
        raise DeviceRejects("std::bad_alloc", "a slice of a host tensor ends before it starts")
    if any(e > n > 0 and b != e for b, e, n in zip(starts, ends, x.spec.shape)):
        raise NotEmulated(f"{x.spec} cut from {starts} to {ends}: the library reads what lies behind the tensor")
    cut = tuple(slice(b, e) for b, e in zip(starts, ends))
    return on_host(x, tuple(e - b for b, e in zip(starts, ends)), lambda v: v[cut].contiguous())


# ---------------------------------------------------------------- to the host and back
@op("ttnn.Tensor.reshape")
def tensor_reshape(tensor: Tensor, *shape) -> Tensor:
    """ttnn.reshape, with a sequence or four integers.

    Shapes    [...] -> [...] of the same volume
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.Tensor.reshape`
    """
    if len(shape) == 4 and all(isinstance(n, int) for n in shape):
        wanted = shape
    elif len(shape) == 1 and not isinstance(shape[0], int):
        wanted = integers("reshape", "shape", shape[0])
    else:
        raise _mistaken("reshape", shape)
    return reshaped("ttnn.reshape", tensor, resolved(tuple(wanted), tensor.spec.shape.volume()))


@op("ttnn.Tensor.cpu")
def cpu(tensor: Tensor, blocking: bool = True, cq_id=None) -> Tensor:
    """A copy on the host.

    Shapes    any; kept
    Dtypes    all; kept
    Source    recorded contract, op `ttnn.Tensor.cpu`
    """
    return transfer.from_device(tensor)


@op("ttnn.Tensor.to")
def to(tensor: Tensor, target=None, mem_config=None, cq_id=None, *, device=None, target_layout=None) -> Tensor:
    """On a device, or in another layout.

    Shapes    any; kept
    Dtypes    all; kept
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    target = next((t for t in (target, device, target_layout) if t is not None), None)
    if isinstance(target, MeshDevice):
        return transfer.to_device(tensor, target, memory_config=mem_config)
    if isinstance(target, Layout):
        return to_layout(tensor, target)
    raise _mistaken("to", (target,))


@op("ttnn.Tensor.to_torch")
def tensor_to_torch(tensor: Tensor, mesh_composer=None) -> torch.Tensor:
    """The values as a torch tensor in logical shape.

    Shapes    any; kept
    Dtypes    all; as `to_torch`
    Source    recorded contract, op `ttnn.Tensor.to_torch`
    """
    return transfer.to_torch(tensor, mesh_composer=mesh_composer)


def to_numpy(tensor: Tensor, mesh_composer=None):
    """The values as a numpy array; bfloat16, which numpy lacks, as float32."""
    values = transfer.to_torch(tensor, mesh_composer=mesh_composer)
    return (values.float() if values.dtype is torch.bfloat16 else values).numpy()


def to_torch_with_padded_shape(tensor: Tensor) -> torch.Tensor:
    """The values in padded shape; padding is zero here, and on a device what kernels left there."""
    return filled_to(transfer.to_torch(tensor), tensor.spec.padded_shape)


def to_list(tensor: Tensor) -> list:
    """The values as nested lists."""
    return transfer.to_torch(tensor).tolist()


def item(tensor: Tensor):
    """The one value of a tensor that has one."""
    n = tensor.spec.shape.volume()
    if n != 1:
        raise DeviceRejects(f"tensor.item() requires tensor to have exactly one element, but got {n} elements")
    return transfer.to_torch(tensor).item()


def tensor_deallocate(tensor: Tensor, force: bool = False) -> None:
    """Frees the memory, with force=False only where no other tensor uses it. No entry in a log, as in ttnn."""
    transfer.deallocate.__wrapped__(tensor, force)


# ---------------------------------------------------------------- host tensors
def _host_only(x: Tensor) -> Tensor:
    if x.buffer is not None:
        raise DeviceRejects("Expected Tensor with HostStorage, got StorageType::DEVICE")
    return x


def _host_padded(tensor: Tensor, outer, start, value) -> Tensor:
    """A host tensor inside a larger padded shape. The logical shape stays; the padding that is made is zero here."""
    x = _host_only(tensor)
    if any(s for s in start):
        raise _unmodelled_start(start)
    made = spec(x.shape, x.dtype, x.layout, None)
    if tuple(outer) not in (tuple(x.spec.padded_shape), tuple(tile_padded(x.spec.shape))):
        raise DeviceRejects(f"Output size {list(outer)} is not the tile-padded shape of {x.spec.shape}")
    return Tensor(made, host=x.host, topology=x.topology)


def _unmodelled_start(start):
    return NotEmulated(f"Tensor.pad: a start of {list(start)} has no model in the emulator; ttnn.pad has")


def tensor_pad(tensor: Tensor, output_padded_shape, input_tensor_start, value: float) -> Tensor:
    """A host tensor in a larger padded shape, its logical shape kept."""
    outer = integers("pad", "output_padded_shape", output_padded_shape)
    return _host_padded(tensor, outer, integers("pad", "input_tensor_start", input_tensor_start), value)


def pad_to_tile(tensor: Tensor, value: float) -> Tensor:
    """A host tensor padded to whole tiles, its logical shape kept."""
    return _host_padded(tensor, tile_padded(tensor.spec.shape), (), value)


def unpad(tensor: Tensor, start, end) -> Tensor:
    """The part of a host tensor from `start` to `end` (exclusive)."""
    x = _host_only(tensor)
    cut = tuple(slice(b, e) for b, e in zip(integers("unpad", "start", start), integers("unpad", "end", end)))
    return on_host(x, tuple(c.stop - c.start for c in cut), lambda v: v[cut].contiguous())


def unpad_from_tile(tensor: Tensor, shape) -> Tensor:
    """The part of a host tensor in front of its padding."""
    shape = integers("unpad_from_tile", "shape", shape)
    return unpad(tensor, (0,) * len(shape), shape)


# ---------------------------------------------------------------- what a buffer looks like
def buffer_page_size(tensor: Tensor) -> int:
    """Bytes of one page: a tile, or a row."""
    s = tensor.spec
    if s.layout is not ROW_MAJOR_LAYOUT:
        return TILE_BYTES[s.dtype]
    sharded = s.memory_config.is_sharded()
    return (s.memory_config.shard_spec.shape[1] if sharded else (s.padded_shape or (1,))[-1]) * ELEMENT_BYTES[s.dtype]


def buffer_aligned_page_size(tensor: Tensor) -> int:
    """Bytes that one page takes."""
    s = tensor.spec
    banks = banks_of(tensor.buffer.device.chip, s.memory_config.buffer_type)
    return pages_of(s.padded_shape, s.dtype, s.layout, banks)[1]


def buffer_num_pages(tensor: Tensor) -> int:
    """Pages of the buffer on one chip."""
    s, chip = tensor.spec, tensor.buffer.device.chip
    if s.memory_config.is_sharded():
        total = buffer_bytes(s.padded_shape, s.dtype, s.layout, s.memory_config, chip)[1]
        return total // buffer_aligned_page_size(tensor)
    return pages_of(s.padded_shape, s.dtype, s.layout, banks_of(chip, s.memory_config.buffer_type))[0]


# ---------------------------------------------------------------- operators
def _operator(name: str, method: str, reflected: bool = False):
    """`a <op> b` as the op `name`; a number in front (`2 - x`) swaps the operands."""

    def call(self, other):
        run = REGISTRY[name]
        return run(other, self) if reflected else run(self, other)

    call.__name__, call.__doc__ = method, f"As `{name}`."
    call.op_name = f"ttnn.Tensor.{method}"
    REGISTRY[call.op_name] = call
    return call


_OPERATORS = {
    "__add__": "ttnn.add", "__radd__": "ttnn.add", "__sub__": "ttnn.subtract", "__mul__": "ttnn.multiply",
    "__rmul__": "ttnn.multiply", "__truediv__": "ttnn.divide", "__matmul__": "ttnn.matmul", "__eq__": "ttnn.eq",
    "__ne__": "ttnn.ne", "__lt__": "ttnn.lt", "__le__": "ttnn.le", "__gt__": "ttnn.gt", "__ge__": "ttnn.ge",
}  # fmt: skip


def _number_first(method: str, name: str):
    """`2 - x` and `2 / x`."""

    def call(self, other):
        if name not in REGISTRY:
            raise NotEmulated(f"{method}: {name} has no model in the emulator")
        return REGISTRY[name](self, other)

    call.__name__, call.__doc__ = method, f"{name} with the operands swapped."
    return call


def attach() -> None:
    """Puts methods and operators on the class."""
    for method, name in _OPERATORS.items():
        setattr(Tensor, method, _operator(name, method))
    Tensor.__hash__ = object.__hash__
    Tensor.__rsub__ = _number_first("__rsub__", "ttnn.rsub")
    Tensor.__rtruediv__ = _number_first("__rtruediv__", "ttnn.rdiv")
    Tensor.__getitem__, Tensor.reshape, Tensor.cpu, Tensor.to = getitem, tensor_reshape, cpu, to
    Tensor.to_torch, Tensor.deallocate, Tensor.pad = tensor_to_torch, tensor_deallocate, tensor_pad
    for each in (
        to_numpy, to_torch_with_padded_shape, to_list, item, pad_to_tile, unpad, unpad_from_tile, buffer_page_size,
        buffer_aligned_page_size, buffer_num_pages,
    ):  # fmt: skip
        setattr(Tensor, each.__name__, each)


attach()
