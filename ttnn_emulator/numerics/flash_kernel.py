"""The compiled loop of decode attention on the CPU: what `flash._Flash` says in many torch operations, in one pass, bit
for bit; `fast` takes other products in it. All values are patterns or float32 in numpy arrays."""

import math

import numpy as np
from numba import njit, prange

from . import vector
from .flash_values import exponential, exponentials_fast, inverse_of, polynomial, rna, taken
from .matrix_unit import LARGE_PRODUCT, PHASES, _bf16, _bits, _float, _kernel, _pair
from .row_sums import ONES, ONES_EXPONENTS, _row_sum

# As globals: in a closure they would change the key of numba's cache with every process.
_product_bf16, _product_fp32 = _kernel(False, False), _kernel(True, False)
_sum_bf16, _sum_fp32 = _row_sum(False, False), _row_sum(True, False)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _product_fast(x, w, transposed, n_phases, out):
    """out [M, N] = x [M, K] @ w as `fast` has it (`product`): operands without the bits that phases drop, fp32 sums.

    x and out fp32 patterns, int32; w bfloat16 patterns, uint16 [K, N], or [N, K] when transposed
    """
    rows, k_size = x.shape
    columns = out.shape[1]
    keep_x = np.int32(-(1 << 17) if n_phases < 3 else -(1 << 16))
    keep_w = np.uint16(0xFFF8 if n_phases == 1 else 0xFFFF)
    opened, row = np.empty(w.shape[1], np.float32), np.empty((rows, k_size), np.float32)
    sums = np.zeros((rows, columns), np.float32)
    for r in range(rows):
        for i in range(k_size):
            row[r, i] = _float(np.int32(x[r, i] & keep_x))
    for line in range(w.shape[0]):
        for i in range(opened.size):
            opened[i] = _float(np.int32(np.int32(w[line, i] & keep_w) << 16))
        for r in range(rows):
            if transposed:
                total = np.float32(0)
                for i in range(k_size):
                    total += row[r, i] * opened[i]
                sums[r, line] = total
            else:
                factor = row[r, line]
                for i in range(columns):
                    sums[r, i] += factor * opened[i]
    for r in range(rows):
        for j in range(columns):
            out[r, j] = _bits(sums[r, j])


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


@njit(inline="always")
def _shrunk(old, new, scale, approximate, a, b, y):
    """The pattern of exp((old - new) * scale), a correction of an fp32 destination; a, b and y are of `_plus32`."""
    a[0], b[0] = np.int32(np.int64(old) << 16), np.int32((np.int64(new) ^ 0x8000) << 16)
    _plus32(a, b, y)
    x = np.float32(_float(y[0]) * scale)
    return rna(_bits(np.float32(math.exp(np.float64(x))) if approximate else polynomial(x)))


@njit(inline="always")
def _shrink(values, factor, phases, a, b, y):
    """values (of a multiple of 16) * factor by the FPU, in place; bfloat16 patterns."""
    for i in range(0, values.size, 16):
        for lane in range(16):
            a[lane], b[lane] = np.int32(np.int64(values[i + lane]) << 16), np.int32(np.int64(factor) << 16)
        _times32(a, b, y, phases)
        for lane in range(16):
            values[i + lane] = rna(y[lane])


@njit(cache=True, nogil=True, error_model="numpy")
def _merged(maxima, total, acc, scale, phases, a, b, y):
    """Folds the results of cores [core, ...] into the first one's by a tree, see `flash_decode._merge`."""
    cores, group = maxima.shape
    stride = 1
    while stride < cores:
        for core in range(0, cores - stride, 2 * stride):
            for r in range(group):
                top = max(_bf16(maxima[core, r]), _bf16(maxima[core + stride, r]))
                both = np.float32(0)
                for i in (core, core + stride):
                    x = np.float32(np.float32(_bf16(maxima[i, r]) - top) * scale)
                    e = np.float32(math.exp(np.float64(x)))
                    both = np.float32(both + np.float32(e * _bf16(total[i, r])))
                    _shrink(acc[i, r], rna(_bits(e)), phases, a, b, y)
                total[core, r] = rna(_bits(both))
                for i in range(0, acc.shape[2], 16):
                    for lane in range(16):
                        a[lane] = np.int32(np.int64(acc[core, r, i + lane]) << 16)
                        b[lane] = np.int32(np.int64(acc[core + stride, r, i + lane]) << 16)
                    _plus32(a, b, y)
                    for lane in range(16):
                        acc[core, r, i + lane] = rna(y[lane])
                maxima[core, r] = np.uint16((_bits(top) >> 16) & 0xFFFF)
        stride *= 2


def _head(fp32: bool, fast: bool):
    """Attention of a destination; `fast`: by the products of an fp32 one that `fast` has."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def attend(job, inputs, last, chunk, scales, choices, tables, ones, out, large):
        """One KV head of one user, see `decode`. scales: of the exponential, its slope, of corrections; choices:
        exp_approx, Newton steps, cores, window, phases; ones: as `_row_sum` takes them."""
        q, k, v, sink = inputs
        exps, corrections, inverses = tables
        user, head = job // k.shape[1], job % k.shape[1]
        scale, slope, correction_scale = scales[0], scales[1], scales[2]
        approximate, steps, phases = choices[0] != 0, choices[1], choices[4]
        width, group = k.shape[3], q.shape[1] // k.shape[1]
        ones_pieces, ones_exponents = ones
        keys = (last[user] // 32 + 1) * 32  # what is behind the position is not looked at
        words = np.empty((1, group, width), np.int32)
        top_q, top_k, top_v = np.int64(0), np.int64(0), np.int64(0)
        for r in range(group):
            for i in range(width):
                words[0, r, i] = np.int32(np.int64(q[user, head * group + r, i]) << 16)
                top_q = max(top_q, (np.int64(q[user, head * group + r, i]) >> 7) & 255)
        first_seen = max(0, last[user] + 1 - choices[3]) if choices[3] else 0
        origin = first_seen // chunk * chunk
        copied = 0 if fast else keys
        own_k, own_v = np.empty((1, copied, width), np.uint16), np.empty((1, copied, width), np.uint16)
        for j in range(origin, copied):
            for i in range(width):
                own_k[0, j, i], own_v[0, j, i] = k[user, head, j, i], v[user, head, j, i]
                top_k = max(top_k, (np.int64(own_k[0, j, i]) >> 7) & 255)
                top_v = max(top_v, (np.int64(own_v[0, j, i]) >> 7) & 255)
        if max(top_q + top_k, top_v + 129) - 127 > LARGE_PRODUCT:
            large[0] = 1
            return
        scores = np.empty((1, group, keys), np.int32)
        if fast:
            _product_fast(words[0], k[user, head][origin:keys], True, phases, scores[0, :, origin:])
        elif fp32:
            _product_fp32(words, own_k[:, origin:], True, phases, width // 32, False, scores[:, :, origin:])
        else:
            _product_bf16(words, own_k[:, origin:], True, phases, width // 32, False, scores[:, :, origin:])
        a, b, y = np.zeros(16, np.int32), np.zeros(16, np.int32), np.zeros(16, np.int32)
        ua, ub, uy = np.zeros(16, np.uint16), np.zeros(16, np.uint16), np.zeros(16, np.uint16)
        chunks = (keys - origin + chunk - 1) // chunk
        cores = min(choices[2], chunks)
        core_maxima, core_total = np.empty((cores, group), np.uint16), np.zeros((cores, group), np.uint16)
        core_acc = np.zeros((cores, group, width), np.uint16)
        share, rest = chunks // cores, chunks % cores
        for number in range(chunks):
            # The first cores of a line have a chunk more; the last chunks are those of core 0.
            place = number // (share + 1) if number < rest * (share + 1) else (number - rest) // share
            opening = number == place * share + min(place, rest)
            core = cores - 1 - place
            maxima, total, acc = core_maxima[core], core_total[core], core_acc[core]
            start = origin + number * chunk
            n = min(chunk, keys - start)
            p, sums = np.zeros((group, n), np.int32), np.zeros((group + 15) // 16 * 16, np.int32)
            partial = np.empty((1, group, width), np.int32)
            factors = np.empty(group, np.uint16)
            for r in range(group):
                old = maxima[r]
                best = np.float32(-np.inf) if opening else _bf16(old)
                hidden, seen = max(0, first_seen - start), min(n, last[user] + 1 - start)
                for j in range(hidden, seen):
                    bits = scores[0, r, start + j]
                    pattern = rna(bits) if fp32 else np.uint16((bits >> 16) & 0xFFFF)
                    scores[0, r, start + j] = pattern
                    best = max(best, _bf16(pattern))
                maxima[r] = np.uint16((_bits(best) >> 16) & 0xFFFF)
                minus = np.int64(maxima[r]) ^ 0x8000
                if fast:
                    these = scores[0, r, start + hidden : start + seen]
                    exponentials_fast(these, best, scale, slope, approximate, p[r, hidden:])
                for first in range(hidden, 0 if fast else seen, 16):
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
                            e = rna(exponential(_float(y[lane]), scale, slope, approximate))
                        else:
                            e = taken(exps, uy[lane])
                        p[r, first + lane] = np.int32(np.int64(e) << 16)
                if not opening:
                    if fp32:
                        factors[r] = _shrunk(old, maxima[r], correction_scale, approximate, a, b, y)
                    else:
                        ua[0], ub[0] = old, np.uint16(minus)
                        _plus16(ua, ub, uy)
                        factors[r] = taken(corrections, uy[0])
            rows, values = p.reshape(1, group, n), own_v[:, start : start + n]
            if fp32:
                _sum_fp32(p, ones_pieces, ones_exponents, phases, sums)
                if fast:
                    _product_fast(p, v[user, head][start : start + n], False, phases, partial[0])
                else:
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
                            uy[lane] = rna(part)
                        else:
                            ua[lane], ub[lane] = held, factors[r]
                            uy[lane] = np.uint16((part >> 16) & 0xFFFF)
                    if not opening:
                        if fp32:
                            _times32(a, b, y, phases)
                            for lane in range(16):
                                a[lane] = np.int32(np.int64(rna(y[lane])) << 16)
                                b[lane] = np.int32(np.int64(uy[lane]) << 16)
                            _plus32(a, b, y)
                            for lane in range(16):
                                uy[lane] = rna(y[lane])
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
        maxima, total, acc = core_maxima[0], core_total[0], core_acc[0]
        if fp32:
            _merged(core_maxima, core_total, core_acc, correction_scale, phases, a, b, y)
            for r in range(group if sink.size else 0):
                extra = sink[head * group + r]
                new = maxima[r] if _bf16(maxima[r]) > _bf16(extra) else extra
                factor = _shrunk(maxima[r], new, correction_scale, approximate, a, b, y)
                _shrink(acc[r], factor, phases, a, b, y)
                own = _shrunk(extra, new, correction_scale, approximate, a, b, y)
                for lane in range(16):
                    a[lane], b[lane] = np.int32(np.int64(total[r]) << 16), np.int32(np.int64(factor) << 16)
                _times32(a, b, y, phases)
                a[0], b[0] = np.int32(np.int64(rna(y[0])) << 16), np.int32(np.int64(own) << 16)
                _plus32(a, b, y)
                total[r] = rna(y[0])
        for r in range(group):
            if fp32:
                cut = _float(np.int32(np.int64(total[r]) << 16))
                inverse = rna(_bits(inverse_of(cut, steps)))
            else:
                inverse = taken(inverses, total[r])
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


_head_bf16, _head_fp32, _head_fast = _head(False, False), _head(True, False), _head(True, True)


# Each by itself: a branch between the three would compile all of them for the first that is needed.
@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _decode_bf16(inputs, last, chunk, scales, choices, tables, ones, out, large):
    for job in prange(inputs[1].shape[0] * inputs[1].shape[1]):
        _head_bf16(job, inputs, last, chunk, scales, choices, tables, ones, out, large)


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _decode_fp32(inputs, last, chunk, scales, choices, tables, ones, out, large):
    for job in prange(inputs[1].shape[0] * inputs[1].shape[1]):
        _head_fp32(job, inputs, last, chunk, scales, choices, tables, ones, out, large)


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _decode_fast(inputs, last, chunk, scales, choices, tables, ones, out, large):
    for job in prange(inputs[1].shape[0] * inputs[1].shape[1]):
        _head_fast(job, inputs, last, chunk, scales, choices, tables, ones, out, large)


def decode(q, k, v, sink, last, chunk, scales, choices, tables, fidelity, fp32, fast):
    """Attention of one token of every user against its cache: fp32 patterns, int32 [users, nq, hd]; None where a
    product could overflow. A bf16 destination has one core a head and no sinks here.

    q uint16 [users, nq, hd], k and v uint16 [users, nk, L, hd], hd a multiple of 32; sink uint16 [nq] or empty; last
    int64 [users]; choices: exp_approx, Newton steps, cores of a head, window (0: none); tables: of a
    bf16 destination, uint16 by `unary.tabulate`: exponentials, corrections, reciprocals; fast: the products of an fp32
    destination are those of `fast`
    """
    out, large = np.empty(q.shape, np.int32), np.zeros(1, np.int32)
    scale, correction_scale = scales
    slope = np.float32(np.float32(vector.SCALE) * np.float32(scale))
    scales = np.array([scale, slope, correction_scale], np.float32)
    choices = np.array([*choices, PHASES[fidelity]], np.int64)
    kernel = (_decode_fast if fast else _decode_fp32) if fp32 else _decode_bf16
    kernel((q, k, v, sink), last, chunk, scales, choices, tuple(tables), (ONES, ONES_EXPONENTS), out, large)
    return None if large[0] else out
