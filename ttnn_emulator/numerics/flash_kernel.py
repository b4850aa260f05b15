"""Compiled loops of decode attention on the CPU: what `vector` and `flash._Flash` say in many torch operations, in one
pass each, bit for bit. All values are patterns or float32 in numpy arrays."""

import functools
import math

import numpy as np
from numba import njit, prange

from . import vector
from .matrix_unit import LARGE_PRODUCT, PHASES, _bf16, _bits, _float, _kernel, _pair
from .row_sums import ONES, ONES_EXPONENTS, _row_sum

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
def _rna(bits):
    """The upper half of an fp32 pattern, rounded half away from zero."""
    return np.uint16((np.int64(bits) + 0x8000) >> 16)


@njit(inline="always")
def _exponential(x, scale, slope, approximate):
    """The fp32 pattern of exp(x * scale); approximate: by the exponent's bits."""
    if not approximate:
        return _bits(np.float32(math.exp(np.float64(np.float32(x * scale)))))
    z = _fma(x, slope, _OFFSET)
    return np.int32(np.int64(min(math.floor(np.float64(z) + 0.5), 32767.0)) << 15) if z >= 0 else np.int32(0)


@njit(inline="always")
def _polynomial(v):
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
def _inverse(x, steps):
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
def _taken(table, pattern):
    """A table of `unary.tabulate` at a bfloat16 pattern."""
    return table[np.int64(np.int16(pattern)) + 32768]


# As globals: in a closure they would change the key of numba's cache with every process.
_product_bf16, _product_fp32 = _kernel(False, False), _kernel(True, False)
_sum_bf16, _sum_fp32 = _row_sum(False, False), _row_sum(True, False)


def _unit(fp32: bool):
    """The FPU's sum and product of 16 values; `_pair` takes its last three as constants."""

    @njit(cache=True, nogil=True)
    def plus(a, b, out):
        _pair(a, b, out, 0, 0, fp32)

    @njit(cache=True, nogil=True)
    def times(a, b, out, phases):
        if phases == 1:
            _pair(a, b, out, 0, 1, fp32)
        elif phases == 2:
            _pair(a, b, out, 0, 2, fp32)
        elif phases == 3:
            _pair(a, b, out, 0, 3, fp32)
        else:
            _pair(a, b, out, 0, 4, fp32)

    return plus, times


(_plus32, _times32), (_plus16, _times16) = _unit(True), _unit(False)


def _head(fp32: bool):
    @njit(cache=True, nogil=True, error_model="numpy")
    def attend(q, k, v, user, head, last, chunk, scales, choices, exps, corrections, inverses, ones, out, large):
        """One KV head of one user, see `decode`. scales: of the exponential, its slope, of corrections; choices:
        exp_approx, Newton steps, phases; ones: as `_row_sum` takes them."""
        scale, slope, correction_scale = scales[0], scales[1], scales[2]
        approximate, steps, phases = choices[0] != 0, choices[1], choices[2]
        width, group = k.shape[3], q.shape[1] // k.shape[1]
        ones_pieces, ones_exponents = ones
        keys = (last[user] // 32 + 1) * 32  # what is behind the position is not looked at
        words = np.empty((1, group, width), np.int32)
        top_q, top_k, top_v = np.int64(0), np.int64(0), np.int64(0)
        for r in range(group):
            for i in range(width):
                words[0, r, i] = np.int32(np.int64(q[user, head * group + r, i]) << 16)
                top_q = max(top_q, (np.int64(q[user, head * group + r, i]) >> 7) & 255)
        own_k, own_v = np.empty((1, keys, width), np.uint16), np.empty((1, keys, width), np.uint16)
        for j in range(keys):
            for i in range(width):
                own_k[0, j, i], own_v[0, j, i] = k[user, head, j, i], v[user, head, j, i]
                top_k = max(top_k, (np.int64(own_k[0, j, i]) >> 7) & 255)
                top_v = max(top_v, (np.int64(own_v[0, j, i]) >> 7) & 255)
        if max(top_q + top_k, top_v + 129) - 127 > LARGE_PRODUCT:
            large[0] = 1
            return
        scores = np.empty((1, group, keys), np.int32)
        if fp32:
            _product_fp32(words, own_k, True, phases, width // 32, False, scores)
        else:
            _product_bf16(words, own_k, True, phases, width // 32, False, scores)
        a, b, y = np.zeros(16, np.int32), np.zeros(16, np.int32), np.zeros(16, np.int32)
        ua, ub, uy = np.zeros(16, np.uint16), np.zeros(16, np.uint16), np.zeros(16, np.uint16)
        maxima, total = np.empty(group, np.uint16), np.zeros(group, np.uint16)
        acc = np.zeros((group, width), np.uint16)
        for start in range(0, keys, chunk):
            n = min(chunk, keys - start)
            p, sums = np.zeros((group, n), np.int32), np.zeros((group + 15) // 16 * 16, np.int32)
            partial = np.empty((1, group, width), np.int32)
            factors = np.empty(group, np.uint16)
            for r in range(group):
                old = maxima[r]
                best = np.float32(-np.inf) if start == 0 else _bf16(old)
                seen = min(n, last[user] + 1 - start)
                for j in range(seen):
                    bits = scores[0, r, start + j]
                    pattern = _rna(bits) if fp32 else np.uint16((bits >> 16) & 0xFFFF)
                    scores[0, r, start + j] = pattern
                    best = max(best, _bf16(pattern))
                maxima[r] = np.uint16((_bits(best) >> 16) & 0xFFFF)
                minus = np.int64(maxima[r]) ^ 0x8000
                for first in range(0, seen, 16):
                    for lane in range(16):
                        at = min(first + lane, seen - 1)
                        if fp32:
                            a[lane], b[lane] = np.int32(scores[0, r, start + at] << 16), np.int32(minus << 16)
                        else:
                            ua[lane], ub[lane] = np.uint16(scores[0, r, start + at]), np.uint16(minus)
                    if fp32:
                        _plus32(a, b, y)
                    else:
                        _plus16(ua, ub, uy)
                    for lane in range(min(16, seen - first)):
                        if fp32:
                            e = _rna(_exponential(_float(y[lane]), scale, slope, approximate))
                        else:
                            e = _taken(exps, uy[lane])
                        p[r, first + lane] = np.int32(np.int64(e) << 16)
                if start:
                    if fp32:
                        a[0], b[0] = np.int32(np.int64(old) << 16), np.int32(minus << 16)
                        _plus32(a, b, y)
                        x = np.float32(_float(y[0]) * correction_scale)
                        c = np.float32(math.exp(np.float64(x))) if approximate else _polynomial(x)
                        factors[r] = _rna(_bits(c))
                    else:
                        ua[0], ub[0] = old, np.uint16(minus)
                        _plus16(ua, ub, uy)
                        factors[r] = _taken(corrections, uy[0])
            rows, values = p.reshape(1, group, n), own_v[:, start : start + n]
            if fp32:
                _sum_fp32(p, ones_pieces, ones_exponents, phases, sums)
                _product_fp32(rows, values, False, phases, n // 32, False, partial)
            else:
                _sum_bf16(p, ones_pieces, ones_exponents, phases, sums)
                _product_bf16(rows, values, False, phases, n // 32, False, partial)
            for r in range(group):
                for i in range(0, width + 16, 16):  # the columns of the output, then the sum
                    for lane in range(16):
                        if i < width:
                            held, part = acc[r, i + lane], partial[0, r, i + lane]
                        else:
                            held, part = total[r], sums[r]
                        if fp32:
                            a[lane], b[lane] = np.int32(np.int64(held) << 16), np.int32(np.int64(factors[r]) << 16)
                            uy[lane] = _rna(part)
                        else:
                            ua[lane], ub[lane] = held, factors[r]
                            uy[lane] = np.uint16((part >> 16) & 0xFFFF)
                    if start:
                        if fp32:
                            _times32(a, b, y, phases)
                            for lane in range(16):
                                a[lane] = np.int32(np.int64(_rna(y[lane])) << 16)
                                b[lane] = np.int32(np.int64(uy[lane]) << 16)
                            _plus32(a, b, y)
                            for lane in range(16):
                                uy[lane] = _rna(y[lane])
                        else:
                            for lane in range(16):
                                a[lane] = np.int32(uy[lane])
                            _times16(ua, ub, uy, phases)
                            for lane in range(16):
                                ua[lane], ub[lane] = uy[lane], np.uint16(a[lane])
                            _plus16(ua, ub, uy)
                    for lane in range(16):
                        if i < width:
                            acc[r, i + lane] = uy[lane]
                    if i == width:
                        total[r] = uy[0]
        for r in range(group):
            if fp32:
                cut = _float(np.int32(np.int64(total[r]) << 16))
                inverse = _rna(_bits(_inverse(cut, steps)))
            else:
                inverse = _taken(inverses, total[r])
            for i in range(0, width, 16):
                for lane in range(16):
                    if fp32:
                        a[lane] = np.int32(np.int64(acc[r, i + lane]) << 16)
                        b[lane] = np.int32(np.int64(inverse) << 16)
                    else:
                        ua[lane], ub[lane] = acc[r, i + lane], inverse
                if fp32:
                    _times32(a, b, y, phases)
                else:
                    _times16(ua, ub, uy, phases)
                for lane in range(16):
                    at = head * group + r
                    out[user, at, i + lane] = y[lane] if fp32 else np.int32(np.int64(uy[lane]) << 16)

    return attend


_head_bf16, _head_fp32 = _head(False), _head(True)


@functools.cache
def _decode(fp32: bool):
    @njit(parallel=True, cache=True, nogil=True, error_model="numpy")
    def kernel(q, k, v, last, chunk, scales, choices, exps, corrections, inverses, ones, out, large):
        kv_heads = k.shape[1]
        for pair in prange(k.shape[0] * kv_heads):
            user, head = pair // kv_heads, pair % kv_heads
            if fp32:
                _head_fp32(
                    q, k, v, user, head, last, chunk, scales, choices, exps, corrections, inverses, ones, out, large
                )  # fmt: skip
            else:
                _head_bf16(
                    q, k, v, user, head, last, chunk, scales, choices, exps, corrections, inverses, ones, out, large
                )  # fmt: skip

    return kernel


def decode(q, k, v, last, chunk, scales, choices, tables, fidelity, fp32):
    """Attention of one token of every user against its cache on one core a head: fp32 patterns, int32 [users, nq, hd];
    None where a product could overflow.

    q uint16 [users, nq, hd], k and v uint16 [users, nk, L, hd], hd a multiple of 32; last int64 [users]; tables: of a
    bf16 destination, uint16 by `unary.tabulate`: exponentials, corrections, reciprocals
    """
    out, large = np.empty(q.shape, np.int32), np.zeros(1, np.int32)
    scale, correction_scale = scales
    slope = np.float32(np.float32(_SCALE) * np.float32(scale))
    scales = np.array([scale, slope, correction_scale], np.float32)
    choices = np.array([*choices, PHASES[fidelity]], np.int64)
    _decode(bool(fp32))(q, k, v, last, chunk, scales, choices, *tables, (ONES, ONES_EXPONENTS), out, large)
    return None if large[0] else out


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
                e = np.int32(0) if hidden else _exponential(_float(v[lane]), scale, slope, approximate)
                out[row, start + lane] = _rna(e)


@njit(cache=True, nogil=True, error_model="numpy")
def exp_polynomial(v, out):
    """`vector.exp_polynomial` of degree 4."""
    for i in range(v.size):
        out[i] = _polynomial(v[i])


@njit(cache=True, nogil=True, error_model="numpy")
def reciprocal(x, steps, out):
    """`vector.reciprocal`."""
    for i in range(x.size):
        out[i] = _inverse(x[i], steps)
