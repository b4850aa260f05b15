"""Roundings, packs and casts on torch tensors of any device, shared by `exact` and `fast`.

RNE: to nearest even. RNA: half away from zero. Denormals are zero. Host conversions and vector-unit kernels round
RNE; the packer, which carries a destination register to L1, rounds RNA.
"""

import struct

import torch

from .. import blockfloat

BLOCK_FORMATS = ("bfloat8_b", "bfloat4_b")
FLOATS = ("bfloat16", "float32", *BLOCK_FORMATS)
#: The torch dtype that holds a device dtype.
HELD_AS = {
    "bfloat16": torch.bfloat16, "float32": torch.float32, "bfloat8_b": torch.bfloat16, "bfloat4_b": torch.bfloat16,
    "uint32": torch.int64, "uint16": torch.int32, "uint8": torch.uint8, "int32": torch.int32,
}  # fmt: skip
SIGN = -0x80000000


def bits(x: torch.Tensor) -> torch.Tensor:
    """The bit pattern of x as float32, int32."""
    return x.to(torch.float32).contiguous().view(torch.int32)


def rna(x: torch.Tensor, keep: int = 8) -> torch.Tensor:
    """float32 rounded half away from zero to `keep` significand bits."""
    drop = 24 - keep
    return ((bits(x) + (1 << (drop - 1))) & -(1 << drop)).view(torch.float32)


def truncate(x: torch.Tensor, keep: int) -> torch.Tensor:
    """bfloat16 cut to its `keep` leading significand bits (hidden bit included), as the matrix unit's passes see it."""
    return (x.view(torch.int16) & -(1 << (8 - keep))).view(torch.bfloat16)  # strides are kept


def to_bf16_rna(x: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16, half away from zero."""
    return ((bits(x) + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)


def truncate_fp32(x: torch.Tensor, keep: int = 11) -> torch.Tensor:
    """float32 cut to the 11 significand bits that a source register holds, or to the `keep` that a pass sees."""
    return (bits(x) & -(1 << (24 - keep))).view(torch.float32)


def to_bf16_truncated(x: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16, keeping the upper half: a vector-unit store into a bf16 destination."""
    return (bits(x) >> 16).to(torch.int16).view(torch.bfloat16)


def pack(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """What a kernel writes to L1 from a destination register that holds x (float32, or bfloat16 for a bf16
    destination).

    Numerics  to bfloat16: RNA, denormals and -0 to +0, nan to infinity. To bfloat8_b: RNA to 7 significand bits,
              then RNA to the shared grid. To bfloat4_b: as bfloat8_b, then the low four magnitude bits are dropped.
    """
    if dtype == "float32":
        return x.to(torch.float32)
    if dtype == "bfloat16":
        u = bits(x)
        if x.dtype != torch.bfloat16:
            u = (u + 0x8000) & -0x10000
        special = (u & 0x7F800000) == 0x7F800000
        u = torch.where((u & 0x7F800000) == 0, 0, torch.where(special, u & -0x800000, u))
        return (u >> 16).to(torch.int16).view(torch.bfloat16)
    if dtype in BLOCK_FORMATS:
        rounded = rna(x, 7)
        eight = blockfloat.quantise(rounded, "bfloat8_b", "rna")
        return eight if dtype == "bfloat8_b" else blockfloat.quantise(eight, "bfloat4_b", "trunc")
    return cast_integer(x, dtype)


def cast_integer(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """To an integer dtype: floats truncate towards zero, integers wrap modulo 2^n."""
    if x.is_floating_point():
        x = torch.nan_to_num(x.to(torch.float64).trunc(), nan=0.0).clamp(-(2.0**31), 2.0**32 - 1)
    x = x.to(torch.int64)
    width = {"uint8": 8, "uint16": 16, "uint32": 32}.get(dtype)
    if width:
        x = x & ((1 << width) - 1)
    return x.to(HELD_AS[dtype])


def to_integer(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """ttnn.typecast to an integer dtype.

    Numerics  Floats go towards zero (to uint16 half away from zero) and saturate, but to uint8 keep the low 8 bits and
              are 0 from 2^31 on; a nan counts as its infinity. Integers wrap, but saturate to uint16.
    """
    if not x.is_floating_point():
        return x.to(torch.int64).clamp(0, 65535).to(HELD_AS[dtype]) if dtype == "uint16" else cast_integer(x, dtype)
    v = x.to(torch.float64)
    v = torch.where(torch.isnan(v), torch.copysign(torch.full_like(v, torch.inf), v), v)
    if dtype == "uint8":
        return cast_integer(torch.where(v.abs() < 2.0**31, v, 0.0), dtype)
    if dtype == "uint16":
        v = (v + 0.5).floor()
    low, high = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "uint16": (0, 65535)}[dtype]
    return v.trunc().clamp(low, high).to(torch.int64).to(HELD_AS[dtype])


def typecast(x: torch.Tensor, from_dtype: str, to_dtype: str) -> torch.Tensor:
    """ttnn.typecast on the device.

    Numerics  float32 -> bfloat16 RNE; -> bfloat8_b one RNA to the shared grid; -> bfloat4_b RNA to 7 significand
              bits, RNA to the bfloat8_b grid, then the low four bits are dropped. Integers -> bfloat16 RNA, and from
              there to block formats. Denormals become zero. To integers: `to_integer`.
    """
    if to_dtype not in FLOATS:
        return to_integer(x, to_dtype)
    if from_dtype == to_dtype:
        return x
    if not x.is_floating_point():
        x = x.to(torch.float32)
        x = x if to_dtype == "float32" else to_bf16_rna(x)
    if to_dtype in BLOCK_FORMATS:
        return blockfloat.quantise(x, "bfloat8_b", "rna") if to_dtype == "bfloat8_b" else pack(x, to_dtype)
    y = x.to(HELD_AS[to_dtype])
    return torch.where(y.abs() < 2.0**-126, torch.zeros_like(y), y)


def bits_of(value: float) -> int:
    """The pattern of a number as float32."""
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def of_bits(pattern: int) -> float:
    return struct.unpack("<f", struct.pack("<I", pattern))[0]


def scalar(value: float) -> float:
    """A scalar operand as a kernel sees it: rounded to bfloat16 (RNE)."""
    pattern = bits_of(value)
    return value if value != value else of_bits(pattern + 0x7FFF + (pattern >> 16 & 1) & 0xFFFF0000)
