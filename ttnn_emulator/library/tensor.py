"""The public constructor: `ttnn.Tensor(...)` in the forms that programs use; what it makes are the emulator's tensors.

Source    ttnn 0.81.1, the overloads in the constructor's text
"""

from __future__ import annotations

import torch

from ..dtypes import DataType, Layout, cpp
from ..ops.core import transfer
from ..tensor import Tensor as Held

__all__ = ["Tensor", "element_size", "tile_size"]


class _Public(type):
    """Calling it makes a tensor of the emulator; they are its instances."""

    def __call__(cls, *args, **kwargs) -> Held:
        if len(args) == 1 and isinstance(args[0], Held) and not kwargs:
            return Held(args[0].spec, args[0].buffer, args[0].host, args[0].topology, args[0].chip)
        first = args[0] if args else kwargs.get("tensor", kwargs.get("data"))
        if isinstance(first, (list, tuple)):
            return _of_numbers(*args, **kwargs)
        if isinstance(first, torch.Tensor) or type(first).__module__ == "numpy":
            return _of_array(*args, **kwargs)
        raise TypeError(
            "__init__(): incompatible function arguments. The following argument types are supported:\n"
            "    Tensor(tensor), Tensor(data, shape, data_type, layout, device=None, memory_config=None, tile=None,\n"
            "    pad_value=0), Tensor(array, data_type=None, device=None, layout=None, mem_config=None, ...)\n"
            f"  got    {type(first).__name__}"
        )

    def __instancecheck__(cls, value) -> bool:
        return isinstance(value, Held)

    def __subclasscheck__(cls, kind) -> bool:
        return issubclass(kind, Held)


class Tensor(Held, metaclass=_Public):
    __doc__ = Held.__doc__
    __slots__ = ()


def _of_numbers(
    data, shape, data_type: DataType, layout: Layout, device=None, memory_config=None, tile=None, pad_value=0
) -> Held:
    """A list of numbers in row order."""
    kind = torch.float64 if any(isinstance(n, float) for n in data) else torch.int64
    values = torch.tensor(list(data), dtype=kind)
    if values.numel() != torch.Size(shape).numel():
        raise RuntimeError(
            f"Current buffer size is {values.numel()} different from shape volume {torch.Size(shape).numel()}"
        )
    values = values.reshape(tuple(shape))
    return transfer.from_torch(
        values.float() if kind is torch.float64 else values, data_type, layout=layout, device=device,
        memory_config=memory_config if device is not None else None,
    )  # fmt: skip


def _of_array(
    tensor, data_type=None, device=None, layout=None, mem_config=None, tile=None, cq_id=None, pad_value=None,
    mesh_mapper=None, preserve_nan_values=False, col_tilize=False, enable_bfloat_opt=False,
) -> Held:  # fmt: skip
    """A torch tensor or a numpy array."""
    return transfer.from_torch(
        tensor, data_type, tile=tile, pad_value=pad_value, layout=layout, device=device, memory_config=mem_config,
        mesh_mapper=mesh_mapper, cq_id=cq_id, preserve_nan_values=preserve_nan_values, col_tilize=col_tilize,
        enable_bfloat_opt=enable_bfloat_opt,
    )  # fmt: skip


def element_size(dtype: DataType) -> int:
    """Bytes of an element."""
    from ..dtypes import ELEMENT_BYTES

    if dtype not in ELEMENT_BYTES:
        raise RuntimeError(f"Unsupported data type {cpp(dtype)}")
    return ELEMENT_BYTES[dtype]


def tile_size(dtype: DataType) -> int:
    """Bytes of a tile."""
    from ..dtypes import TILE_BYTES

    return TILE_BYTES[dtype]
