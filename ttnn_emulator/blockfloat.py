"""Block floats: bfloat8_b and bfloat4_b.

Sixteen neighbours of a row share one exponent, the largest of theirs; each keeps a sign and 7 (bfloat8_b) or 3
(bfloat4_b) magnitude bits without a hidden one:  value = sign * magnitude * 2^(exponent - 127 - 6)  (bfloat4_b: - 2).

    dtype        bits a value   bytes a 32x32 tile         smallest step below a block maximum in [1, 2)
    bfloat8_b    8.5            64 exponents + 1024        2^-6
    bfloat4_b    4.5            64 exponents +  512        2^-2

A tensor of these formats is kept as the bfloat16 values of its grid, which is lossless. Blocks start at multiples of 16
of the last dimension; a short tail is padded with zeros, which never changes a shared exponent.

Source    ttnn 0.81.1: recorded host conversions (`block_formats.npz`), packer rules on the functional simulator v1.10.
"""

import numpy as np
import torch

MAGNITUDE_BITS = {"bfloat8_b": 7, "bfloat4_b": 3}
TILE_BYTES = {"bfloat8_b": 1088, "bfloat4_b": 576}
ROUNDINGS = ("rne", "rna", "trunc")
COMPILED_FROM = 1 << 15  # elements; below it, torch operations are quick and need no compiler


def quantise(x: torch.Tensor, dtype: str, rounding: str = "rne") -> torch.Tensor:
    """The nearest values of a block format, as bfloat16, with the strides of `x`.

    Shapes    any; blocks run along the last dimension, whatever its stride
    Dtypes    bfloat16 or float32 -> bfloat16 (every value of a block format is a bfloat16)
    Numerics  The shared exponent is the block's largest (255 with an inf or nan); values of exponent 0 count as 0. A
              significand of 24 bits is shifted right to the shared exponent, dropping what falls off, then rounded to 7
              or 3 bits: `rne` to nearest even (host conversion), `rna` half away from zero (the packer), `trunc`. It
              saturates and never raises the exponent, so 1.9999 becomes 1.984375. A zero has no sign. An infinity
              stays; a nan stays unless rounding leaves only its hidden bit.
    """
    if dtype not in MAGNITUDE_BITS:
        raise ValueError(f"{dtype!r} is not a block format; they are {', '.join(MAGNITUDE_BITS)}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding {rounding!r} is not one of {', '.join(ROUNDINGS)}")
    if x.dtype not in (torch.bfloat16, torch.float32):
        x = x.to(torch.float32)
    if x.numel() == 0:
        return x.to(torch.bfloat16)
    if x.dim() == 0:
        return quantise(x.reshape(1), dtype, rounding).reshape(())
    if x.device.type == "cpu" and x.numel() >= COMPILED_FROM and x.shape[-1] % 16 == 0:
        return _quantise_compiled(x, MAGNITUDE_BITS[dtype], rounding)
    return _quantise_torch(x, MAGNITUDE_BITS[dtype], rounding)


def is_turned(x: torch.Tensor) -> bool:
    """Whether the last dim but one is contiguous in memory: a transposed weight, or a part of one."""
    return x.dim() > 1 and x.stride(-2) == 1 and x.stride(-1) >= x.shape[-2] > 1 and not x.is_contiguous()


def empty_like(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A new tensor without gaps, of the shape of `x`, turned as `x` is.

    Large ones on the CPU come from numpy, which asks for huge pages: filling them is up to eight times as fast.
    """
    if x.device.type != "cpu" or x.numel() < COMPILED_FROM:
        return torch.empty_like(x, dtype=dtype)
    if is_turned(x):
        return empty_like(x.mT, dtype).mT
    size = dtype.itemsize
    return torch.from_numpy(np.empty(x.numel() * size, np.uint8)).view(dtype).view(x.shape)


def _quantise_compiled(x: torch.Tensor, bits: int, rounding: str) -> torch.Tensor:
    """`quantise` by the compiled kernel, without a copy for a tensor or a transposed view that is contiguous."""
    from .numerics import block_kernel  # numba and its compiler: imported when first needed

    wide = x.dtype == torch.float32
    pattern, kind = (torch.int32, "int32") if wide else (torch.int16, "uint16")
    turned = x.dim() > 1 and x.shape[-2] >= 16 and is_turned(x)
    stored = (x.mT if turned else x).contiguous()
    out = empty_like(stored, torch.bfloat16)
    flat_x, flat_out = (
        stored.view(pattern).view(-1).numpy().view(kind),
        out.view(torch.int16).view(-1).numpy().view("uint16"),
    )
    if turned:
        block_kernel.across(bits, rounding, wide)(flat_x, flat_out, *stored.shape[-2:])
        return out.mT
    block_kernel.along(bits, rounding, wide)(flat_x, flat_out)
    return out


def _quantise_torch(x: torch.Tensor, bits: int, rounding: str) -> torch.Tensor:
    """`quantise` in torch operations: any device; also the cross-check of the compiled kernel."""
    width, blocks = x.shape[-1], -(-x.shape[-1] // 16)
    u = x.to(torch.float32).view(torch.int32) if x.dtype == torch.bfloat16 else x.contiguous().view(torch.int32)
    u = torch.nn.functional.pad(u, (0, 16 * blocks - width)).reshape(*x.shape[:-1], blocks, 16)
    exponent = (u >> 23) & 255
    significand = torch.where(exponent > 0, (u & 0x7FFFFF) | 0x800000, 0)
    shared = exponent.amax(-1, keepdim=True)
    significand = significand >> (shared - exponent).clamp(max=24)
    drop = 24 - bits
    if rounding == "rne":
        significand = significand + ((1 << (drop - 1)) - 1) + ((significand >> drop) & 1)
    elif rounding == "rna":
        significand = significand + (1 << (drop - 1))
    q = (significand >> drop).clamp(max=(1 << bits) - 1)
    value = _from_parts(u < 0, q, shared, bits).reshape(*x.shape[:-1], 16 * blocks)[..., :width]
    return torch.empty_like(x, dtype=torch.bfloat16).copy_(value)  # the strides of x


def _from_parts(negative: torch.Tensor, q: torch.Tensor, shared: torch.Tensor, bits: int) -> torch.Tensor:
    """sign, magnitude and shared exponent -> bfloat16; exponent 255 gives inf and nan."""
    shift = shared - (127 + bits - 1)
    f = q.to(torch.float32)
    normal = f.view(torch.int32) + (shift << 23)
    small = torch.ldexp(torch.ldexp(f, shift + 64), torch.full_like(shift, -64)).view(torch.int32)
    tiny = (f.view(torch.int32) >> 23) + shift <= 0
    out = torch.where(tiny, small, normal)
    out = torch.where(q == 0, 0, torch.where(negative, out ^ -0x80000000, out))
    return (out >> 16).to(torch.int16).view(torch.bfloat16)


# ---------------------------------------------------------------- bytes of tiles


def pack(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """A tensor of grid values [..., H, W] (multiples of 32) as uint8 [..., H / 32, W / 32, 1088 or 576], tiles
    row-major.

    A tile is its 64 shared exponents (16 rows of each 16x16 face; faces left to right, then down), then the values
    in the same order: a byte each, sign and 7 bits; or half a byte, the earlier value in the low half.
    """
    bits = MAGNITUDE_BITS[dtype]
    *batch, h, w = x.shape
    if h % 32 or w % 32:
        raise ValueError(f"pack needs whole tiles: the last two dims of {tuple(x.shape)} are not multiples of 32")
    faces = x.to(torch.float32).contiguous().view(torch.int32).reshape(*batch, h // 32, 2, 16, w // 32, 2, 16)
    n = len(batch)
    faces = faces.permute(
        *range(n), n, n + 3, n + 1, n + 4, n + 2, n + 5
    )  # tile row, tile col, face row, face col, row, col
    exponent = (faces >> 23) & 255
    shared = exponent.amax(-1, keepdim=True)
    significand = torch.where(exponent > 0, (faces & 0x7FFFFF) | 0x800000, 0) >> (shared - exponent).clamp(max=24)
    q = (significand >> (24 - bits)) | torch.where((faces < 0) & (exponent > 0), 1 << bits, 0)
    tiles = (*batch, h // 32, w // 32)
    q = q.reshape(*tiles, 1024)
    if bits == 3:
        q = q[..., 0::2] | (q[..., 1::2] << 4)
    return torch.cat([shared.reshape(*tiles, 64), q], -1).to(torch.uint8)


def unpack(data: torch.Tensor, dtype: str) -> torch.Tensor:
    """The inverse of `pack`: uint8 [..., tile rows, tile columns, 1088 or 576] -> bfloat16 [..., H, W]."""
    bits = MAGNITUDE_BITS[dtype]
    *batch, rows, cols, size = data.shape
    if size != TILE_BYTES[dtype]:
        raise ValueError(f"a {dtype} tile has {TILE_BYTES[dtype]} bytes, not {size}")
    shared, q = data[..., :64].to(torch.int32), data[..., 64:].to(torch.int32)
    if bits == 3:
        q = torch.stack([q & 15, q >> 4], -1).flatten(-2)
    q = q.reshape(*batch, rows, cols, 2, 2, 16, 16)
    value = _from_parts((q >> bits) > 0, q & ((1 << bits) - 1), shared.reshape(*batch, rows, cols, 2, 2, 16, 1), bits)
    n = len(batch)
    return value.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3, n + 5).reshape(*batch, 32 * rows, 32 * cols)
