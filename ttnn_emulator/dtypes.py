"""Data types and layouts: what a device tensor can hold, and in which torch dtype its values live here."""

from __future__ import annotations

import enum

import torch

from .enums import Named


class DataType(Named):
    """ttnn's data types. Block formats are held as the bfloat16 values of their grid, which is lossless."""

    BFLOAT16, FLOAT32, UINT32, BFLOAT8_B, BFLOAT4_B, UINT8, UINT16, INT32, FP8_E4M3, INT8, INVALID = range(11)


class Layout(Named):
    ROW_MAJOR, TILE, INVALID = range(3)


class StorageType(Named):
    HOST = 0
    DEVICE = 1


bfloat16, float32 = DataType.BFLOAT16, DataType.FLOAT32
bfloat8_b, bfloat4_b = DataType.BFLOAT8_B, DataType.BFLOAT4_B
uint8, uint16, uint32, int32 = DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.INT32
int8, fp8_e4m3 = DataType.INT8, DataType.FP8_E4M3  # names only: no tensor here holds them
TILE_LAYOUT, ROW_MAJOR_LAYOUT = Layout.TILE, Layout.ROW_MAJOR

BLOCK_FORMATS = frozenset((bfloat8_b, bfloat4_b))
FLOATS = frozenset((bfloat16, float32, bfloat8_b, bfloat4_b))
INTEGERS = frozenset((uint8, uint16, uint32, int32))

#: Bytes of one 32x32 tile (ttnn 0.81.1: `Buffers` in the recorded limits; block formats carry 64 shared exponents).
TILE_BYTES = {
    bfloat16: 2048, float32: 4096, uint32: 4096, int32: 4096, uint16: 2048, uint8: 1024, bfloat8_b: 1088,
    bfloat4_b: 576,
}  # fmt: skip
#: Bytes of one element in a row-major buffer; block formats have no row-major form.
ELEMENT_BYTES = {bfloat16: 2, float32: 4, uint32: 4, int32: 4, uint16: 2, uint8: 1}

#: The torch dtype in which the emulator holds values. Unsigned 32 and 16 bit need a wider signed type for arithmetic.
HELD_AS = {
    bfloat16: torch.bfloat16, float32: torch.float32, bfloat8_b: torch.bfloat16, bfloat4_b: torch.bfloat16,
    uint32: torch.int64, uint16: torch.int32, uint8: torch.uint8, int32: torch.int32,
}  # fmt: skip
#: The torch dtype that `to_torch` returns.
RETURNED_AS = {
    bfloat16: torch.bfloat16, float32: torch.float32, bfloat8_b: torch.float32, bfloat4_b: torch.float32,
    uint32: torch.uint32, uint16: torch.uint16, uint8: torch.uint8, int32: torch.int32,
}  # fmt: skip
#: The device dtype that `from_torch` chooses when none is given.
DEFAULT_OF = {
    torch.float32: float32, torch.bfloat16: bfloat16, torch.float16: bfloat16, torch.int32: int32, torch.int64: uint32,
    torch.int16: uint16, torch.uint8: uint8, torch.bool: uint8, torch.uint32: uint32, torch.uint16: uint16,
}  # fmt: skip

#: Names by which the numerics know a dtype.
NAME = {d: d.name.lower() for d in DataType}


def cpp(value: enum.Enum) -> str:
    """An enum as the library prints it in its messages: `DataType::BFLOAT16`."""
    return f"{type(value).__name__}::{value.name}"


def listed(dtypes) -> str:
    """Dtypes as docstrings name them."""
    return ", ".join(NAME[d] for d in DataType if d in dtypes)
