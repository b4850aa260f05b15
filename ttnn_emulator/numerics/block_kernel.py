"""Quantisation to block floats as a compiled kernel: the CPU's path of `blockfloat.quantise` for large tensors.

Sixteen lanes are either the sixteen values of a block (blocks along the contiguous dimension) or sixteen blocks side
by side (blocks along a strided dimension: weights that are transposed views), so that no transposition is needed.
"""

import functools

from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from . import lanes

_ROUNDING = {"rne": 0, "rna": 1, "trunc": 2}


def _parts(words):
    """exponent, 24-bit significand (0 for zeros and denormals)"""
    e = (words >> 23) & 255
    return e, (e > 0).choose((words & 0x7FFFFF) | 0x800000, 0)


def _quantised(builder, words, e, significand, shared, bits, rounding):
    """The float32 pattern of a value on the grid of exponent `shared`."""
    s = significand >> (shared - e).min(24)
    drop = 24 - bits
    if rounding == 0:
        s = s + ((1 << (drop - 1)) - 1) + ((s >> drop) & 1)
    elif rounding == 1:
        s = s + (1 << (drop - 1))
    q = (s >> drop).min((1 << bits) - 1)
    magnitude = q.to_float()
    shift = shared - (127 + bits - 1)
    small = magnitude.as_float().by(((shared & 0 | 1) << (shared + (23 - bits)).min(30)).as_float()).as_int()
    out = ((magnitude >> 23) + shift > 0).choose(magnitude + (shift << 23), small)
    return q.equals(0).choose(0, out | (words & -0x80000000))


def _load(builder, pointer, offset, wide):
    return lanes.load(builder, pointer, offset) if wide else lanes.load_uint16(builder, pointer, offset) << 16


@intrinsic(prefer_literal=True)
def _along(typingctx, x, at, out, bits, rounding, wide):
    """One block of 16 contiguous values: uint16 (bfloat16) or, wide, int32 (float32) patterns -> uint16."""
    n_bits, mode, is_wide = bits.literal_value, rounding.literal_value, wide.literal_value

    def codegen(context, builder, signature, args):
        kinds = (lanes.I32 if is_wide else lanes.I16, lanes.I16)
        px, po = (
            lanes.pointer(context, builder, signature.args[i], args[i], args[1], k)
            for i, k in zip((0, 2), kinds, strict=True)
        )
        words = _load(builder, px, 0, is_wide)
        e, significand = _parts(words)
        y = _quantised(builder, words, e, significand, e.largest(), n_bits, mode)
        lanes.store_uint16(builder, po, 0, y >> 16)
        return context.get_dummy_value()

    return types.void(x, at, out, bits, rounding, wide), codegen


@intrinsic(prefer_literal=True)
def _across(typingctx, x, at, stride, out, bits, rounding, wide):
    """Sixteen blocks side by side: value r of each is at x[at + r * stride : + 16]."""
    n_bits, mode, is_wide = bits.literal_value, rounding.literal_value, wide.literal_value

    def codegen(context, builder, signature, args):
        i64 = ir.IntType(64)
        places = [builder.add(args[1], builder.mul(args[2], ir.Constant(i64, r))) for r in range(16)]
        t, rows = signature.args, []
        for place in places:
            p = lanes.pointer(context, builder, t[0], args[0], place, lanes.I32 if is_wide else lanes.I16)
            rows.append(_load(builder, p, 0, is_wide))
        shared = None
        for words in rows:
            e = (words >> 23) & 255
            shared = e if shared is None else shared.max(e)
        for words, place in zip(rows, places, strict=True):
            y = _quantised(builder, words, *_parts(words), shared, n_bits, mode)
            po = lanes.pointer(context, builder, t[3], args[3], place, lanes.I16)
            lanes.store_uint16(builder, po, 0, y >> 16)
        return context.get_dummy_value()

    return types.void(x, at, stride, out, bits, rounding, wide), codegen


@functools.cache
def along(bits: int, rounding: str, wide: bool):
    """kernel(x, out): flat arrays, blocks of 16 contiguous values."""
    mode = _ROUNDING[rounding]

    @njit(parallel=True, cache=True, nogil=True, error_model="numpy")
    def kernel(x, out):
        for chunk in prange((out.size + 4095) // 4096):
            for i in range(4096 * chunk, min(4096 * (chunk + 1), out.size), 16):
                _along(x, i, out, bits, mode, wide)

    return kernel


@functools.cache
def across(bits: int, rounding: str, wide: bool):
    """kernel(x, out, rows, columns): flat arrays [.., rows, columns], blocks of 16 rows; columns >= 16."""
    mode = _ROUNDING[rounding]

    @njit(parallel=True, cache=True, nogil=True, error_model="numpy")
    def kernel(x, out, rows, columns):
        for band in prange(out.size // (16 * columns)):
            start = band * 16 * columns
            for c in range(0, columns, 16):
                _across(x, start + min(c, columns - 16), columns, out, bits, mode, wide)

    return kernel
