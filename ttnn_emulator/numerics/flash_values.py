"""Compiled values of attention on the CPU, what `vector` says in torch operations, bit for bit: exponentials and
reciprocals of one float32, and passes over many. All values are patterns or float32 in numpy arrays."""

import math

import numpy as np
from numba import njit

from . import vector
from .matrix_unit import _bits, _float, _pair

_SCALE, _OFFSET = vector.f32(vector.SCALE), vector.OFFSET
_MINUS_INFINITY = np.uint16(0xFF80)
_LOG2E, _LN2 = vector.f32(1.4426950408889634), vector.f32(math.log(2))
_C0, _C1, _C2, _C3, _C4 = (vector.f32(c) for c in vector.POLYNOMIAL[4])
_R0, _R1, _R2 = (vector.f32(c) for c in vector.RECIPROCAL)


@njit(inline="always")
def _fma(a, b, c):
    """a * b + c, rounded once to float32."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@njit
def _jammed(integer, keep):
    """`vector._jammed` of one float64."""
    whole = np.trunc(integer)
    if whole != integer and (keep or whole != 0) and whole % 2 == 0:
        return whole + math.copysign(1.0, integer)
    return whole


@njit
def _partly_fused(a, b, c):
    """`vector.partly_fused` of three float32."""
    a, b, c = np.float64(a), np.float64(b), np.float64(c)
    product = a * b
    if product == 0 or not np.isfinite(product + c):
        return np.float32(product + c)
    at = math.frexp(a)[1] + math.frexp(b)[1] - 2
    top = at if c == 0 else max(at, math.frexp(c)[1] - 1)
    p = _jammed(math.ldexp(_jammed(math.ldexp(product, 26 - at), True), at - top), False)
    return np.float32(math.ldexp(p + _jammed(math.ldexp(c, 26 - top), False), top - 26))


@njit(inline="always")
def rna(bits):
    """The upper half of an fp32 pattern, rounded half away from zero."""
    return np.uint16((np.int64(bits) + 0x8000) >> 16)


@njit(inline="always")
def exponential(x, scale, slope, approximate):
    """The fp32 pattern of exp(x * scale); approximate: by the exponent's bits."""
    if not approximate:
        return _bits(np.float32(math.exp(np.float64(np.float32(x * scale)))))
    z = _fma(x, slope, _OFFSET)
    return np.int32(np.int64(min(math.floor(np.float64(z) + 0.5), 32767.0)) << 15) if z >= 0 else np.int32(0)


@njit(inline="always")
def polynomial(v):
    """`vector.exp_polynomial` of degree 4 of one float32."""
    j = np.float64(np.float32(v * np.float32(_LOG2E)))
    if np.isnan(j):
        j = 0.0
    size = min(math.floor(abs(j) + 0.5), 127.0) if abs(j) < 1e9 else 127.0
    n = np.float32(-size if j < 0 else size)
    if n <= -127:
        return np.float32(0)
    f = _fma(n, -_LN2, v)
    r = _fma(np.float32(_C4), f, _C3)
    r = _fma(r, f, _C2)
    r = _fma(r, f, _C1)
    r = _fma(r, f, _C0)
    return np.float32(math.ldexp(np.float64(r), int(n)))


@njit(inline="always")
def inverse_of(x, steps):
    """`vector.reciprocal` of one float32."""
    bits = _bits(x)
    if steps == 0:
        size = bits & 0x7FFFFFFF
        if size < 0x00800000:
            size = 0x7F800000
        elif size < 0x7E800000:
            y = np.int64(np.rint(128 * 256 / ((size >> 16 & 0x7F) + 128.5))) - 128
            size = (253 - (size >> 23)) << 23 | y << 16
        else:
            size = 0
        return _float(np.int32(size | (bits & np.int32(-0x80000000))))
    minus = -_float(np.int32((bits & 0x7FFFFF) | 0x3F800000))
    y = _partly_fused(minus, _R0, _R1)
    y = _partly_fused(y, minus, _R2)
    for _ in range(steps):
        y = _partly_fused(y, _partly_fused(minus, y, 1.0), y)
    y = np.float32(y * _float(np.int32(max(254 - ((bits >> 23) & 255), 0) << 23)))
    if bits & 0x7F800000 == 0:
        y = np.float32(np.inf)
    return _float(np.int32((_bits(y) & 0x7FFFFFFF) | (bits & np.int32(-0x80000000))))


@njit(inline="always")
def taken(table, pattern):
    """A table of `unary.tabulate` at a bfloat16 pattern."""
    return table[np.int64(np.int16(pattern)) + 32768]


@njit(cache=True, nogil=True, error_model="numpy")
def exponentials(scores, maxima, scale, approximate, out):
    """out = exp((scores - maxima) * scale) of an fp32 destination, packed to bfloat16.

    scores, out uint16 [rows, n], n a multiple of 16; maxima uint16 [rows]; approximate: by the exponent's bits
    """
    rows, n = scores.shape
    a, b, v = np.empty(16, np.int32), np.empty(16, np.int32), np.empty(16, np.int32)
    scale = np.float32(scale)
    slope = np.float32(np.float32(_SCALE) * scale)
    for row in range(rows):
        minus = np.int32((np.int64(maxima[row]) ^ 0x8000) << 16)
        for lane in range(16):
            b[lane] = minus
        for start in range(0, n, 16):
            for lane in range(16):
                a[lane] = np.int32(np.int64(scores[row, start + lane]) << 16)
            _pair(a, b, v, 0, 0, True)
            for lane in range(16):
                hidden = scores[row, start + lane] == _MINUS_INFINITY
                e = np.int32(0) if hidden else exponential(_float(v[lane]), scale, slope, approximate)
                out[row, start + lane] = rna(e)


@njit(cache=True, nogil=True, error_model="numpy")
def exp_polynomial(v, out):
    """`vector.exp_polynomial` of degree 4."""
    for i in range(v.size):
        out[i] = polynomial(v[i])


@njit(cache=True, nogil=True, error_model="numpy")
def reciprocal(x, steps, out):
    """`vector.reciprocal`."""
    for i in range(x.size):
        out[i] = inverse_of(x[i], steps)


#: 2^f for f from -1/2 to 1/2, to a relative 2e-7: Taylor's series.
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (vector.f32(math.log(2) ** i / math.factorial(i)) for i in range(7))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def exponentials_fast(scores, top, scale, slope, approximate, out):
    """out = exp((score - top) * scale), packed, of bfloat16 patterns (int32); out fp32 patterns, int32."""
    for j in range(scores.size):
        x = _float(np.int32(scores[j] << 16)) - top
        if approximate:
            z = max(np.float32(x * slope + np.float32(_OFFSET)) + np.float32(0.5), np.float32(0))
            bits = np.int32(min(z, np.float32(32767))) << 15
        else:
            z = max(np.float32(x * np.float32(scale * np.float32(_LOG2E))), np.float32(-127))
            n = np.floor(z + np.float32(0.5))
            f = np.float32(z - n)
            y = np.float32(_P5) + f * np.float32(_P6)
            y = np.float32(_P4) + f * y
            y = np.float32(_P3) + f * y
            y = np.float32(_P2) + f * y
            y = np.float32(_P1) + f * y
            y = np.float32(_P0) + f * y
            bits = _bits(np.float32(y * _float(np.int32((np.int32(n) + 127) << 23))))
        out[j] = (bits + 0x8000) & -0x10000
