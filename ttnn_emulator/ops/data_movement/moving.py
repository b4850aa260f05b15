"""What the ops that move data share: their checks, host tensors, padding. Values are moved, never computed.

Contents are held in logical shape and padding counts as zero, so padding that a call brings into view (a slice to the
padded end, a reshape with a padded shape) reads as zeros here; a device reads what its kernels left there.
"""

from __future__ import annotations

import builtins

import torch

from ...dtypes import BLOCK_FORMATS, ELEMENT_BYTES, NAME, TILE_LAYOUT, DataType
from ...errors import DeviceRejects
from ...memory import MemoryConfig
from ...numerics import rounding
from ...tensor import Tensor, spec

ONLY_TILE = "Only TILE layout is supported for BFLOAT8_B dtype!"
#: What the tilize-with-padding and the reshape kernels take.
TILIZED = frozenset((DataType.BFLOAT16, DataType.FLOAT32, DataType.UINT32, DataType.INT32, DataType.UINT16))
RESHAPED = TILIZED - {DataType.UINT16}
RESHAPE_DTYPES = "Can only work with bfloat16/float32 or int32/uint32 tensors"
#: A tile is stored as four faces of 16x16.
FACE = 16


def integers(name: str, argument: str, values) -> tuple[int, ...]:
    """A sequence of integers, or the library's TypeError."""
    try:
        out = tuple(values)
        if builtins.all(isinstance(v, int) or hasattr(v, "__index__") for v in out):
            return tuple(int(v) for v in out)
    except TypeError:
        pass
    raise TypeError(f"{name}(): incompatible function arguments.\n  got    {argument} = {values!r:.120}")


def axis(dim: int, rank: int) -> int:
    """A dim counted from the front, or the refusal of one that is not there."""
    at = dim + rank if dim < 0 else dim
    if not 0 <= at < rank:
        shown = at + (1 << 64) if at < 0 else at
        raise DeviceRejects(
            f"Index is out of bounds for the rank, should be between 0 and {rank - 1} however is {shown}"
        )
    return at


def allocated(x: Tensor) -> Tensor:
    """The tensor, or the refusal of a freed one; host tensors pass."""
    if not x.is_allocated():
        raise DeviceRejects("Tensor is not allocated", "it was deallocated earlier")
    return x


def device_tensor(x: Tensor) -> Tensor:
    """The tensor, or the refusal that every device operation has for a host tensor or a freed one."""
    if x.buffer is None:
        raise DeviceRejects("Device Operations expect device tensors as inputs", "ttnn.to_device(tensor, device)")
    if not x.buffer.alive:
        raise DeviceRejects("Input Tensor is not allocated", "it was deallocated earlier")
    return x


def on_host(x: Tensor, shape, function, dtype=None, layout=None) -> Tensor:
    """`function` on the values of a host tensor, pieces that are one computed once."""
    done = {id(v): v for v in x.host}
    done = {i: function(v) for i, v in done.items()}
    made = spec(tuple(shape), dtype or x.dtype, layout or x.layout, None)
    return Tensor(made, host=[done[id(v)] for v in x.host], topology=x.topology)


def page_bytes(x: Tensor, memory: MemoryConfig) -> int:
    """Bytes of one row of a row-major shard; a tile counts as aligned."""
    return 0 if x.layout is TILE_LAYOUT else memory.shard_spec.shape[1] * ELEMENT_BYTES[x.dtype]


def moving(function, dtype: DataType):
    """A compute that only moves values; block formats get their shared exponents anew, as the packer writes them."""
    if dtype not in BLOCK_FORMATS:
        return function
    name = NAME[dtype]
    return lambda *values: rounding.pack(function(*values), name)


def filled_to(value: torch.Tensor, shape) -> torch.Tensor:
    """The value with zeros behind it in every dim, up to `shape`."""
    if tuple(value.shape) == tuple(shape):
        return value
    out = value.new_zeros(tuple(shape))
    out[tuple(builtins.slice(0, n) for n in value.shape)] = value
    return out
