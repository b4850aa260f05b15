"""Compiled loops for the CPU that do in one pass what `fast` and `common` say in several torch operations."""

import functools

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from . import lanes, rules
from .matrix_unit import NOTHING, PHASES, _bits, _float, _flush, _rne
from .row_sums import ONES, ONES_EXPONENTS, sum_tile

# ---------------------------------------------------------------- the error of a bf16 destination


@intrinsic
def _perturb16(typingctx, y, at, salt, sizes, at_column, gain, along, constant):
    """`destination.in_bf16` on sixteen elements of y, in place; sizes float32, of the columns."""

    def codegen(context, builder, signature, args):
        t = signature.args
        py = lanes.pointer(context, builder, t[0], args[0], args[1], lanes.I16)
        ps = lanes.pointer(context, builder, t[2], args[2], args[4], lanes.I16)
        pc = lanes.pointer(context, builder, t[3], args[3], args[4], lanes.F32)
        u = lanes.load_uint16(builder, py, 0)
        h = (u * 0x6255 + lanes.load_uint16(builder, ps, 0)) & 0xFFFF
        h = ((h ^ (h >> 8)) * 0x2F35) & 0xFFFF
        h = h ^ (h >> 8)
        noise = ((h & 0x80FF) | 0x3F00) << 16
        value, magnitude = (u << 16).as_float(), ((u & 0x7FFF) << 16).as_float()
        size = lanes.load(builder, pc, 0, floats=True).by(lanes.same(builder, args[7]))
        amplitude = magnitude.fma(lanes.same(builder, args[6]), size)
        error = value.fma(lanes.same(builder, args[5]), lanes.constant(builder, 0.0))
        error = noise.as_float().fma(amplitude, error)
        bits = error.plus(value).as_int()
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF
        lanes.store_uint16(builder, py, 0, ((rounded & 0x7F80) > 0x7F7F).choose(u, rounded))
        return context.get_dummy_value()

    return types.void(y, at, salt, sizes, at_column, gain, along, constant), codegen


@njit(cache=True, nogil=True, error_model="numpy")
def _perturb_row(y, salt, gain, along, constant, rms, typical, column_rms, column_typical, one_signed):
    """One row; returns how many elements are not random sums, which are marked in `one_signed` and stay."""
    n, found = y.size, 0
    for c in range(n):
        v = abs(_float(np.int32(np.int64(y[c]) << 16)))
        found += (v > rms * column_rms[c]) | ((typical * column_typical[c] == 0) & (v > 0))
    before = y.copy() if found else y
    whole = n - n % 16
    for c in range(0, whole, 16):
        _perturb16(y, c, salt, column_typical, c, gain, along, np.float32(constant * typical))
    if n % 16:
        tail, salts, sizes = np.zeros(16, np.uint16), np.zeros(16, np.uint16), np.zeros(16, np.float32)
        for c in range(whole, n):
            tail[c - whole], salts[c - whole], sizes[c - whole] = y[c], salt[c], column_typical[c]
        _perturb16(tail, 0, salts, sizes, 0, gain, along, np.float32(constant * typical))
        for c in range(whole, n):
            y[c] = tail[c - whole]
    if found:
        for c in range(n):
            v = abs(_float(np.int32(np.int64(before[c]) << 16)))
            one_signed[c] = (v > rms * column_rms[c]) | ((typical * column_typical[c] == 0) & (v > 0))
            if one_signed[c]:
                y[c] = before[c]
    return found


@functools.cache
def _perturb(threads: bool):
    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
    def kernel(y, m, salt, gain, along, constant, rms, typical, column_rms, column_typical, one_signed):
        _ = threads
        total, n = 0, y.shape[1]
        for row in prange(y.shape[0]):
            at = row // m * n
            total += _perturb_row(
                y[row], salt, gain, along, constant, rms[row], typical[row], column_rms[at : at + n],
                column_typical[at : at + n], one_signed[row],
            )  # fmt: skip
        return total

    return kernel


def perturb(y, m, salt, factors, sizes, limit):
    """`destination.in_bf16` on y, uint16 [batch * m, n], in place: returns where results are no random sums, uint8
    [batch * m, n], or None.

    sizes: rms and typical size of rows [batch * m], then of columns [batch * n]; limit: of a random sum, in rms
    """
    rms, typical, column_rms, column_typical = sizes
    one_signed = np.zeros(y.shape, np.uint8)
    with np.errstate(over="ignore"):
        limits = rms * np.float32(limit)
    found = _perturb(y.size > 1 << 17)(
        y, m, salt, *map(np.float32, factors), limits, typical, column_rms, column_typical, one_signed
    )
    return one_signed if found else None


@functools.cache
def _squares(threads: bool):
    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
    def kernel(v, starts, width, out):
        _ = threads
        for row in prange(v.shape[0]):
            for g in range(starts.size):
                total = 0.0
                for i in range(starts[g], starts[g] + width):
                    value = np.float64(_float(np.int32(np.int64(v[row, i]) << 16)))
                    total += value * value
                out[row, g] = total / width

    return kernel


def squares(v, starts, width):
    """Mean squares, float64 [rows, groups], of v[:, start : start + width] (uint16 patterns) for every start."""
    out = np.empty((v.shape[0], starts.size))
    _squares(v.shape[0] * starts.size * width > 1 << 17)(v, starts, width, out)
    return out


# ---------------------------------------------------------------- rms_norm


@intrinsic(prefer_literal=True)
def _square(typingctx, x, at, out, phases, fp32):
    """out int32 [16] = the FPU's squares of sixteen columns x[at : + 16] of a row."""
    n_phases, is_fp32 = phases.literal_value, fp32.literal_value

    def codegen(context, builder, signature, args):
        t = signature.args
        px = lanes.pointer(context, builder, t[0], args[0], args[1], lanes.I16)
        po = lanes.pointer(context, builder, t[2], args[2], ir.Constant(ir.IntType(64), 0), lanes.I32)
        v = lanes.load_uint16(builder, px, 0) << 16
        lanes.store(builder, po, 0, rules.mul(v, v, n_phases, is_fp32))
        return context.get_dummy_value()

    return types.void(x, at, out, phases, fp32), codegen


@intrinsic
def _in_pieces(typingctx, words, at, xf, xe):
    """Sixteen rows at one column, fp32 patterns words[at : + 16], in pieces for `sum_tile` (xf [2, 32, 16], xe)."""

    def codegen(context, builder, signature, args):
        t = signature.args
        pw, pf, pe = (
            lanes.pointer(context, builder, t[i], args[i], args[1], kind)
            for i, kind in ((0, lanes.I32), (2, lanes.F32), (3, lanes.I32))
        )
        s = lanes.load(builder, pw, 0)
        e = (s >> 23) & 255
        high = (s & -(1 << 17)).as_float()
        lanes.store(builder, pf, 0, high)
        lanes.store(builder, pf, 32 * 16, (s & -(1 << 13)).as_float().minus(high))
        lanes.store(builder, pe, 0, (e > 0).choose(e, NOTHING))
        return context.get_dummy_value()

    return types.void(words, at, xf, xe), codegen


@intrinsic(prefer_literal=True)
def _scaled(typingctx, x, at, factor, weight, at_weight, out, phases, weighted, fp32):
    """out[at : + 16] = x * factor (* weight) by the FPU, packed to bfloat16; factor an fp32 or bf16 pattern."""
    n_phases, has_weight, is_fp32 = phases.literal_value, weighted.literal_value, fp32.literal_value

    def codegen(context, builder, signature, args):
        t = signature.args
        px, po = (lanes.pointer(context, builder, t[i], args[i], args[1], lanes.I16) for i in (0, 5))
        y = rules.mul(lanes.load_uint16(builder, px, 0) << 16, lanes.same(builder, args[2]), n_phases, is_fp32)
        if has_weight:
            pw = lanes.pointer(context, builder, t[3], args[3], args[4], lanes.I16)
            y = rules.mul(y, lanes.load_uint16(builder, pw, 0) << 16, n_phases, is_fp32)
        lanes.store_uint16(builder, po, 0, (y + 0x8000 if is_fp32 else y) >> 16)
        return context.get_dummy_value()

    return types.void(x, at, factor, weight, at_weight, out, phases, weighted, fp32), codegen


@intrinsic(prefer_literal=True)
def _sum_of_two(typingctx, a, b, fp32):
    """The FPU's sum of two patterns."""
    is_fp32 = fp32.literal_value

    def codegen(context, builder, signature, args):
        va, vb = (lanes.same(builder, v) for v in args[:2])
        return builder.extract_element(rules.add(va, vb, is_fp32).value, ir.Constant(lanes.I32, 0))

    return types.int32(types.int32, types.int32, fp32), codegen


@functools.cache
def _rms(n_phases: int, approximate: bool, weighted: bool, fp32: bool, threads: bool):
    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
    def kernel(x, weight, eps, ones, ones_exponents, out):
        _ = threads  # numba's cache tells functions apart by their code and constants, not by `parallel`
        rows, width = x.shape
        flat_x, flat_out = x.reshape(-1), out.reshape(-1)
        share = np.float32(1 / width)
        for group in prange((rows + 15) // 16):
            words, squares, dst = np.zeros(32 * 16, np.int32), np.zeros(16, np.int32), np.zeros(16, np.int32)
            xf, xe = np.empty(2 * 32 * 16, np.float32), np.empty(32 * 16, np.int32)
            exponents = np.empty(64, np.int32)
            live = min(16, rows - 16 * group)
            for k0 in range(0, width, 32):
                for r in range(live):
                    for half in range(0, 32, 16):
                        _square(flat_x, (16 * group + r) * width + k0 + half, squares, n_phases, fp32)
                        for k in range(16):
                            words[16 * (half + k) + r] = squares[k]
                for k in range(0, 512, 16):
                    _in_pieces(words, k, xf, xe)
                sum_tile(xf, xe, ones, ones_exponents, exponents, dst, n_phases, fp32, True)
            for r in range(live):
                mean = _bits(_float(dst[r]) * share)
                if not fp32:
                    mean = np.int32(mean & np.int32(-0x10000))
                v = _sum_of_two(np.int32(mean), eps, fp32)
                f = _float(v)
                if approximate:
                    guess = _float(np.int32(0x5F0B3892 - (v >> 1)))
                    c = np.float32(f * guess)
                    t = np.float32(np.float64(np.float32(1.89099014875)) - np.float64(guess) * np.float64(c))
                    inverse = np.float32(guess * t)
                else:
                    inverse = np.float32(1 / np.sqrt(np.float64(f)))
                factor = _bits(inverse) if fp32 else np.int32(_flush(_rne(inverse)) << 16)
                at = (16 * group + r) * width
                for k in range(0, width, 16):
                    _scaled(flat_x, at + k, factor, weight, k, flat_out, n_phases, weighted, fp32)

    return kernel


def rms_norm(x, weight, eps, fidelity, approximate, fp32):
    """x [M, W], weight [W] or None: uint16 patterns, W a multiple of 32; eps a bfloat16 pattern in the upper half."""
    out = np.empty_like(x)
    kernel = _rms(PHASES[fidelity], bool(approximate), weight is not None, bool(fp32), x.size > 1 << 16)
    kernel(x, x[0] if weight is None else weight, np.int32(eps), ONES, ONES_EXPONENTS, out)
    return out


# ---------------------------------------------------------------- rotary


@intrinsic(prefer_literal=True)
def _rotated(typingctx, x, at, turned, at_turned, change, cos, sin, at_table, out, phases, fp32):
    """out[at : + 16] = x * cos + turned * sin, packed to bfloat16 after each step; change: [bits that turned keeps, its
    sign's change]."""
    n_phases, is_fp32 = phases.literal_value, fp32.literal_value

    def packed(y):
        return (y + 0x8000) & -0x10000 if is_fp32 else y

    def codegen(context, builder, signature, args):
        t = signature.args
        px, pt, pc, ps, po = (
            lanes.pointer(context, builder, t[i], args[i], args[j], lanes.I16)
            for i, j in ((0, 1), (2, 3), (5, 7), (6, 7), (8, 1))
        )
        v, other, c, s = (lanes.load_uint16(builder, p, 0) << 16 for p in (px, pt, pc, ps))
        keep, flip = (lanes.same(builder, builder.extract_value(args[4], i)) for i in range(2))
        other = (other & keep) ^ flip
        first, second = (packed(rules.mul(*pair, n_phases, is_fp32)) for pair in ((v, c), (other, s)))
        lanes.store_uint16(builder, po, 0, packed(rules.add(first, second, is_fp32)) >> 16)
        return context.get_dummy_value()

    return types.void(x, at, turned, at_turned, change, cos, sin, at_table, out, phases, fp32), codegen


@functools.cache
def _rotary(n_phases: int, fp32: bool, threads: bool):
    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
    def kernel(x, cos, sin, where, width, keep, out):
        _ = threads
        half = width // 2
        first, second = (keep, np.int32(-0x80000000)), (keep, np.int32(0))
        for row in prange(where.size):
            at, table = row * width, where[row] * width
            for k in range(0, half, 16):
                _rotated(x, at + k, x, at + k + half, first, cos, sin, table + k, out, n_phases, fp32)
            for k in range(half, width, 16):
                _rotated(x, at + k, x, at + k - half, second, cos, sin, table + k, out, n_phases, fp32)

    return kernel


def rotary(x, cos, sin, where, width, fidelity, fp32, cut):
    """x * cos + rotate_half(x) * sin: flat uint16 patterns of rows of `width` (a multiple of 32); row i of x has row
    where[i] of the tables; cut: what is turned loses its last bit."""
    out = np.empty_like(x)
    kernel = _rotary(PHASES[fidelity], bool(fp32), x.size > 1 << 16)
    kernel(x, cos, sin, where, width, np.int32(-0x20000 if cut else -0x10000), out)
    return out
