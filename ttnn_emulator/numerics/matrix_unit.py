"""The matrix unit's integer arithmetic as a compiled kernel (numba, parallel, cached), bit for bit.

One step adds 16 products to the destination: two groups of eight. In a group every product of pieces (at most 12
bits) is rounded, half away from zero, to a grid of 2^-10 of the group's largest exponent; the group's sum is exact.
The two sums and the destination are then aligned to the largest of their exponents and added: on a 24-bit grid into
an fp32 destination, on an 11-bit grid into a bf16 destination, where the result is rounded to bf16. Operands come in
pieces, one pair for each phase of the fidelity. Order: tiles of K (32) outermost, then phases, then halves of 16.

How it is fast: a product of pieces is rounded to the group's grid by one fused multiply-add with 1.5 * 2^23 times
the grid as addend; the low bits of the result are then the integer, so that a group's sum is an integer sum of bit
patterns. A fused multiply-add rounds ties to even where the hardware rounds them up: the pieces of in1 are scaled by
1 + 2^-13, which lifts ties and, since products have 12 bits, nothing else. Sixteen columns go at a time, in vector
lanes.

Source    the rule: official functional simulator v1.10, Wormhole B0; `tests/numerics/fpu_reference.py` states it
          plainly.
"""

import functools
import math

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from . import lanes, rules

PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}
PANEL = 64  # columns that a thread works on at a time
NOTHING = -4096  # exponent of a zero operand
LIFT = 1 + 2.0**-13
#: Above this biased exponent of a product the vector kernel's floats could overflow; the plain one takes over.
LARGE_PRODUCT = 225


@intrinsic(prefer_literal=True)
def _exponents(typingctx, many, at_many, stride, one, at_one, out):
    """The largest exponent of each of the four groups of a tile's 32 products, on 16 lanes: out int32 [4, 16].

    many int32 [32, stride]: exponents that differ by lane; one int32 [32]: those that do not.
    """
    step = stride.literal_value

    def codegen(context, builder, signature, args):
        t, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        pm, po, pe = (
            lanes.pointer(context, builder, t[i], args[i], at, lanes.I32)
            for i, at in ((0, args[1]), (3, args[4]), (5, zero))
        )
        for g in range(4):
            sums = [lanes.load(builder, pm, k * step) + lanes.splat(builder, po, k) for k in range(8 * g, 8 * g + 8)]
            while len(sums) > 1:
                sums = [a.max(b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
            lanes.store(builder, pe, 16 * g, sums[0])
        return context.get_dummy_value()

    return types.void(many, at_many, stride, one, at_one, out), codegen


@intrinsic(prefer_literal=True)
def _phase(typingctx, many, at_many, stride, one, at_one, exponents, adjust, dst, at_dst, fp32):
    """One phase of a tile of K on 16 lanes: dst[at_dst : + 16] += 32 products of pieces many [32, stride] and one [32].

    exponents as `_exponents` leaves them; adjust: what the phase's pieces take off them.
    """
    step, is_fp32 = stride.literal_value, fp32.literal_value

    def codegen(context, builder, signature, args):
        t, zero = signature.args, ir.Constant(ir.IntType(64), 0)
        places = ((0, args[1], lanes.F32), (3, args[4], lanes.F32), (5, zero, lanes.I32), (7, args[8], lanes.I32))
        pm, po, pe, pd = (lanes.pointer(context, builder, t[i], args[i], at, kind) for i, at, kind in places)
        adjusted = lanes.same(builder, args[6])
        acc = lanes.load(builder, pd, 0)
        for half in range(2):
            terms = []
            for g in (2 * half, 2 * half + 1):
                e = lanes.load(builder, pe, 16 * g) + adjusted
                magic = ((e + 13) << 23) | 0x400000
                total = None
                for k in range(8 * g, 8 * g + 8):
                    a = lanes.load(builder, pm, k * step, floats=True)
                    r = a.fma(lanes.splat(builder, po, k), magic.as_float()).as_int()
                    total = r if total is None else total + r
                e = e.max(0)
                terms.append((e, (e > 0).choose(total - (magic << 3), 0)))
            acc = rules.accumulate(acc, terms, is_fp32, overflow=False)
        lanes.store(builder, pd, 0, acc)
        return context.get_dummy_value()

    return types.void(many, at_many, stride, one, at_one, exponents, adjust, dst, at_dst, fp32), codegen


@njit(inline="always")
def _adjust(phase):
    """What a phase's pieces take off the exponent: in1's second 5 bits, in0's low 4."""
    return np.int32(-(5 if phase & 1 else 0) - (7 if phase & 2 else 0))


@intrinsic
def _pieces(typingctx, u, at, wf, we):
    """Sixteen weights, bfloat16 (uint16) or fp32 (int32) patterns u[at : + 16], into their place in wf [2, 32, PANEL]
    and we [32, PANEL], flat."""
    wide = u.dtype == types.int32

    def codegen(context, builder, signature, args):
        t = signature.args
        p_u, p_f, p_e = (
            lanes.pointer(context, builder, t[i], args[i], args[1], kind)
            for i, kind in ((0, lanes.I32 if wide else ir.IntType(16)), (2, lanes.F32), (3, lanes.I32))
        )
        u = lanes.load(builder, p_u, 0) & -(1 << 14) if wide else lanes.load_uint16(builder, p_u, 0) << 16
        e = (u >> 23) & 255
        live = e > 0
        whole = live.choose(u, 0)
        high = (whole & -(1 << 19)).as_float()
        low = whole.as_float().minus(high)
        lanes.store(builder, p_f, 0, high.times(LIFT))
        lanes.store(builder, p_f, 32 * PANEL, low.times(LIFT))
        lanes.store(builder, p_e, 0, live.choose(e - 127, NOTHING))
        return context.get_dummy_value()

    return types.void(u, at, wf, we), codegen


@intrinsic(prefer_literal=True)
def _pair(typingctx, a, b, out, at, phases, fp32):
    """Sixteen elements: out = a + b (phases 0) or a * b, of uint16 (bfloat16) or, with fp32, int32 patterns."""
    n_phases, is_fp32 = phases.literal_value, fp32.literal_value

    def codegen(context, builder, signature, args):
        kind = lanes.I32 if is_fp32 else lanes.I16
        pa, pb, po = (lanes.pointer(context, builder, signature.args[i], args[i], args[3], kind) for i in range(3))
        if is_fp32:
            va, vb = lanes.load(builder, pa, 0), lanes.load(builder, pb, 0)
        else:
            va, vb = lanes.load_uint16(builder, pa, 0) << 16, lanes.load_uint16(builder, pb, 0) << 16
        y = rules.mul(va, vb, n_phases, is_fp32) if n_phases else rules.add(va, vb, is_fp32)
        if is_fp32:
            lanes.store(builder, po, 0, y)
        else:
            lanes.store_uint16(builder, po, 0, y >> 16)
        return context.get_dummy_value()

    return types.void(a, b, out, at, phases, fp32), codegen


@intrinsic
def _float(typingctx, bits):
    """The float32 of a bit pattern."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _bits(typingctx, x):
    """The bit pattern of a float32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@njit(inline="always")
def _flush(u):
    return 0 if (u & 0x7FFF) < 0x80 else u


@njit(inline="always")
def _packed(d, fp32):
    """destination register -> bfloat16 pattern"""
    return _flush(((d + 0x8000) >> 16 if fp32 else d >> 16) & 0xFFFF)


@njit(inline="always")
def _rne(f):
    b = np.int64(_bits(np.float32(f))) & 0xFFFFFFFF
    return ((b + 0x7FFF + ((b >> 16) & 1)) >> 16) & 0xFFFF


@njit(inline="always")
def _bf16(u):
    return _float(np.int32(np.int64(u) << 16))


#: Fewer multiply-adds than this are not worth waking other threads for.
SMALL = 1 << 21


@functools.cache
def _kernel(fp32: bool, threads: bool):
    """The kernel of one destination."""

    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
    def kernel(x, w, transposed, n_phases, tiles, sum_all, out):
        """out int32 [B, M, N] (destination bits) = x [B, M, K] (int32, fp32 patterns) @ w [B, K, N] (uint16, bf16, or
        int32).

        w is stored [B, N, K] when transposed. Of an fp32 pattern the matrix unit takes 11 significand bits, of w's 10.

        tiles: the length of a block of K. Each block starts from zero, sums of blocks are kept in L1 (bf16 RNE or
        fp32); the last block continues from that sum, or with sum_all is added like the others.
        """
        _ = threads  # numba's cache tells functions apart by their code and constants, not by `parallel`
        batch, m_size, k_size = x.shape
        n_size = w.shape[1] if transposed else w.shape[2]
        low = batch * m_size * k_size
        xf = np.empty(2 * low, np.float32)
        xe = np.empty(low, np.int32)
        for row in prange(batch * m_size):
            for k in range(k_size):
                u = x[row // m_size, row % m_size, k]
                i = row * k_size + k
                e = (u >> 23) & 255
                live = e > 0
                high = _float(np.int32(u & -(1 << 17)))
                xf[i] = high if live else np.float32(0)
                xf[low + i] = _float(np.int32(u & -(1 << 13))) - high if live else np.float32(0)
                xe[i] = e if live else NOTHING
        panels = (n_size + PANEL - 1) // PANEL
        for job in prange(batch * panels):
            b = job // panels
            first = (job % panels) * PANEL
            width = min(PANEL, n_size - first)
            exponents = np.empty(64, np.int32)
            wu = np.zeros(32 * PANEL, w.dtype)
            wf = np.empty(64 * PANEL, np.float32)
            we = np.empty(32 * PANEL, np.int32)
            dst = np.zeros(m_size * PANEL, np.int32)
            kept = np.zeros(m_size * PANEL, np.int32)
            blocks = (k_size // 32 + tiles - 1) // tiles
            chunks = (width + 15) // 16
            for block in range(blocks):
                last = block == blocks - 1
                if block > 0:
                    for i in range(m_size * PANEL):
                        dst[i] = kept[i] if last and not sum_all else 0
                for k0 in range(block * tiles * 32, min((block + 1) * tiles * 32, k_size), 32):
                    if transposed:
                        for n in range(width):
                            for k in range(32):
                                wu[k * PANEL + n] = w[b, first + n, k0 + k]
                    else:
                        for k in range(32):
                            for n in range(width):
                                wu[k * PANEL + n] = w[b, k0 + k, first + n]
                    for i in range(0, 32 * PANEL, 16):
                        _pieces(wu, i, wf, we)
                    for m in range(m_size):
                        for c in range(chunks):
                            at_x, at_dst = (b * m_size + m) * k_size + k0, m * PANEL + 16 * c
                            _exponents(we, 16 * c, PANEL, xe, at_x, exponents)
                            for phase in range(n_phases):
                                at_w = 16 * c + (32 * PANEL if phase & 1 else 0)
                                at_piece = at_x + (low if phase & 2 else 0)
                                _phase(
                                    wf, at_w, PANEL, xf, at_piece, exponents, _adjust(phase), dst, at_dst, fp32
                                )  # fmt: skip
                if not last or (sum_all and block > 0):
                    for i in range(m_size * PANEL):
                        if fp32:
                            part = _float(dst[i])
                            kept[i] = _bits(part if block == 0 else _float(kept[i]) + part)
                        elif block == 0:
                            kept[i] = dst[i]
                        else:
                            u = _flush(_rne(_float(kept[i]) + _bf16(_flush((dst[i] >> 16) & 0xFFFF))))
                            kept[i] = np.int32(u << 16)
            done = kept if sum_all and blocks > 1 else dst
            for m in range(m_size):
                for n in range(width):
                    out[b, m, first + n] = done[m * PANEL + n]

    return kernel


@njit(cache=True, nogil=True, error_model="numpy")
def _accumulate(dst, e0, s0, e1, s1, fp32):
    """`rules.accumulate` for one element in plain integers: infinities and overflow included."""
    sign, ed = (dst >> 31) & 1, (dst >> 23) & 255
    e = max(ed, e0, e1)
    if e <= 0:
        return 0
    man = ((((dst & 0x7FFFFF) | 0x800000) << 1) >> min(e - ed, 40)) + 1 >> 1 if ed > 0 else 0
    man = man if fp32 else (man + 4096) >> 13
    man = -man if sign else man
    for te, s in ((e0, s0), (e1, s1)):
        t = (s << 14) >> min(e - te, 40)
        man += (t + 1) >> 1 if fp32 else (t + 8193) >> 14
    if man == 0:
        return 0
    sign, size = (1, -man) if man < 0 else (0, man)
    length = 0
    while size >> length:
        length += 1
    keep = 24 if fp32 else 8
    e2 = e + length - (24 if fp32 else 11)
    if fp32 and man == -1:
        e2, size = e + 4, 1 << 23
    elif length > keep:
        size = (size + (1 << (length - keep - 1))) >> (length - keep)
    else:
        size <<= keep - length
    e2 += size >> keep
    size = (size & ((1 << (keep - 1)) - 1)) << (24 - keep)
    if e2 <= 0:
        return 0
    return (sign << 31) | (0x7F800000 if e2 >= 255 else (e2 << 23) | size)


@functools.cache
def _plain(fp32: bool):
    """The kernel for operands of any size (an infinity counts as 2^128): one element at a time."""

    @njit(parallel=True, cache=True, nogil=True, error_model="numpy")
    def kernel(x, w, transposed, n_phases, tiles, sum_all, out):
        batch, m_size, k_size = x.shape
        n_size = w.shape[1] if transposed else w.shape[2]
        up = 32 - 8 * w.itemsize
        blocks = (k_size // 32 + tiles - 1) // tiles
        for job in prange(batch * m_size * n_size):
            b, m, n = job // (m_size * n_size), job // n_size % m_size, job % n_size
            kept, dst = np.int64(0), np.int64(0)
            for block in range(blocks):
                last = block == blocks - 1
                dst = kept if block > 0 and last and not sum_all else np.int64(0)
                for k0 in range(block * tiles * 32, min((block + 1) * tiles * 32, k_size), 32):
                    for phase in range(n_phases):
                        adjust = -127 - (5 if phase & 1 else 0) - (7 if phase & 2 else 0)
                        for half in range(2):
                            es, ss = np.zeros(2, np.int64), np.zeros(2, np.int64)
                            for g in range(2):
                                at = k0 + 16 * half + 8 * g
                                largest = np.int64(0)
                                for turn in range(2):
                                    for k in range(at, at + 8):
                                        a = np.int64(w[b, n, k] if transposed else w[b, k, n]) << up
                                        u = np.int64(x[b, m, k]) & 0xFFFFFFFF
                                        ea, eb = (a >> 23) & 255, (u >> 23) & 255
                                        if ea == 0 or eb == 0:
                                            continue
                                        e = ea + eb + adjust
                                        if turn == 0:
                                            largest = max(largest, e)
                                            continue
                                        ma, mb = ((a >> 13) & 0x3FF) | 0x400, ((u >> 13) & 0x3FF) | 0x400
                                        p = ((ma >> 1) & 31 if phase & 1 else ma >> 6) * (
                                            (mb & 15) << 3 if phase & 2 else mb >> 4
                                        )
                                        d = min(largest - e, 30)
                                        v = (2 * p + (1 << d)) >> (d + 1)
                                        ss[g] += -v if ((a ^ u) >> 31) & 1 else v
                                es[g] = largest
                                ss[g] = ss[g] if largest > 0 else 0
                            dst = _accumulate(dst, es[0], ss[0], es[1], ss[1], fp32)
                if not last or (sum_all and block > 0):
                    if block == 0:
                        kept = dst
                    elif fp32:
                        kept = np.int64(_bits(_float(np.int32(kept)) + _float(np.int32(dst)))) & 0xFFFFFFFF
                    else:
                        kept = _flush(_rne(_float(np.int32(kept)) + _float(np.int32(dst)))) << 16
            out[b, m, n] = np.int32(kept if sum_all and blocks > 1 else dst)

    return kernel


def matmul(x, w, fidelity, fp32=False, tiles=0, sum_all=False):
    """x [..., M, K] @ w [..., K, N] -> destination bits, int32 [..., M, N]; the leading dimensions are equal.

    x and w are uint16 (bfloat16 patterns) or int32 (float32 patterns, of which 11 and 10 significand bits count), any
    strides; K is a multiple of 32. tiles: the block length of K when partial sums are added in L1 (0: one block);
    sum_all: the last block too.
    """
    *batch, m, k = x.shape
    n = w.shape[-1]
    if x.dtype == np.uint16:
        x = (x.astype(np.uint32) << 16).view(np.int32)
    transposed = k > 1 and w.strides[-2] == w.itemsize
    stored = np.ascontiguousarray(w.swapaxes(-1, -2) if transposed else w)
    out = np.empty((math.prod(batch), m, n), np.int32)
    largest = int((x >> 23 & 255).max(initial=0)) + int((stored >> (8 * w.itemsize - 9) & 255).max(initial=0)) - 127
    if largest <= LARGE_PRODUCT:
        kernel = _kernel(bool(fp32), out.size * k > SMALL)
    else:
        kernel = _plain(bool(fp32))
    kernel(
        np.ascontiguousarray(x).reshape(-1, m, k), stored.reshape(-1, *stored.shape[-2:]), transposed,
        PHASES[fidelity], tiles or k // 32, sum_all, out,
    )  # fmt: skip
    return out.reshape(*batch, m, n)


@functools.cache
def elementwise(phases: int, fp32: bool):
    """A function (a, b, out) of flat arrays of length 16 n, uint16 or (fp32) int32 patterns: a + b (phases 0) or a *
    b."""

    def build(threads):
        @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
        def loop(a, b, out):
            _ = threads
            for i in prange(out.size // 16):
                _pair(a, b, out, 16 * i, phases, fp32)

        return loop

    short, long = build(False), build(True)
    return lambda a, b, out: (long if out.size > 1 << 17 else short)(a, b, out)
