"""Compiled loops of decode attention on the CPU: what `vector` and `exact._Flash` say in many torch operations, in one
pass each, bit for bit. All values are patterns or float32 in flat numpy arrays."""

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


@njit(cache=True, nogil=True, error_model="numpy")
def exponentials(scores, maxima, scale, approximate, out):
    """out = exp((scores - maxima) * scale) of an fp32 destination, packed to bfloat16.

    scores, out uint16 [rows, n], n a multiple of 16; maxima uint16 [rows]; approximate: by the exponent's bits
    """
    rows, n = scores.shape
    a, b, v = np.empty(16, np.int32), np.empty(16, np.int32), np.empty(16, np.int32)
    slope = np.float32(np.float32(_SCALE) * np.float32(scale))
    for row in range(rows):
        minus = np.int32((np.int64(maxima[row]) ^ 0x8000) << 16)
        for lane in range(16):
            b[lane] = minus
        for start in range(0, n, 16):
            for lane in range(16):
                a[lane] = np.int32(np.int64(scores[row, start + lane]) << 16)
            _pair(a, b, v, 0, 0, True)
            for lane in range(16):
                if scores[row, start + lane] == _MINUS_INFINITY:
                    out[row, start + lane] = 0
                    continue
                x = _float(v[lane])
                if approximate:
                    z = _fma(x, slope, _OFFSET)
                    e = np.int32(0)
                    if z >= 0:
                        e = np.int32(np.int64(min(math.floor(np.float64(z) + 0.5), 32767.0)) << 15)
                else:
                    e = _bits(np.float32(math.exp(np.float64(np.float32(x * np.float32(scale))))))
                out[row, start + lane] = np.uint16((np.int64(e) + 0x8000) >> 16)


@njit(cache=True, nogil=True, error_model="numpy")
def exp_polynomial(v, out):
    """`vector.exp_polynomial` of degree 4."""
    for i in range(v.size):
        j = np.float64(np.float32(v[i] * np.float32(_LOG2E)))
        if np.isnan(j):
            j = 0.0
        size = min(math.floor(max(abs(j), 0.0) + 0.5), 127.0) if abs(j) < 1e9 else 127.0
        n = np.float32(-size if j < 0 else size)
        if n <= -127:
            out[i] = 0
            continue
        f = _fma(n, -_LN2, v[i])
        r = _fma(np.float32(_C4), f, _C3)
        r = _fma(r, f, _C2)
        r = _fma(r, f, _C1)
        r = _fma(r, f, _C0)
        out[i] = np.float32(math.ldexp(np.float64(r), int(n)))


@njit(cache=True, nogil=True, error_model="numpy")
def reciprocal(x, steps, out):
    """`vector.reciprocal`."""
    for i in range(x.size):
        bits = _bits(x[i])
        minus = -_float(np.int32((bits & 0x7FFFFF) | 0x3F800000))
        y = _fma(minus, _R0, _R1)
        y = _fma(y, minus, _R2)
        for _ in range(steps):
            y = _fma(y, _fma(minus, y, 1.0), y)
        y = np.float32(y * _float(np.int32(max(254 - ((bits >> 23) & 255), 0) << 23)))
        if bits & 0x7F800000 == 0:
            y = np.float32(np.inf)
        out[i] = _float(np.int32((_bits(y) & 0x7FFFFFFF) | (bits & np.int32(-0x80000000))))
