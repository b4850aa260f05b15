"""Rows times a large bfloat16 matrix, which is read as it is: fp32 sums, one rounding at the end.

One or two rows, as in decode, take the time of reading the matrix once: torch's own product of this size reaches two
thirds of the memory's speed on the CPU tried (AMD EPYC, AVX-512). More rows go in tiles of 4 by 4 sums, and nothing is
opened to float32 beforehand: with AVX2 that is faster than torch's fp32 product of up to some hundred rows.

A word holds two neighbours of a row of the stored matrix [N, K]: the even one, shifted up, and the odd one, its upper
half, are float32; x has its even and its odd columns apart.
"""

import functools

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from . import compiling  # noqa: F401  says when kernels are compiled

#: Smaller matrices are not worth waking other threads for; torch has them.
WORTH = 1 << 18
BAND = 64  # columns of the result that a thread takes at a time
CACHED = 1 << 18  # elements of x beside them: 1 MiB in float32
COLUMNS, ROWS = 4, 4  # sums that are in registers at a time
#: The order of a sum is free, infinities and nans are kept.
REORDER = {"reassoc", "contract", "nsz"}
I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


@njit(cache=True, nogil=True)
def _rounded(value):
    """The bfloat16 pattern nearest to a float32, to even."""
    bits = np.int64(np.float32(value).view(np.int32)) & 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        return np.int16(0x7FC0)
    return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


@njit(cache=True, nogil=True)
def _halves(x):
    """bfloat16 patterns [B, M, K] as float32, the even and the odd columns apart, [B, M padded to ROWS, K / 2]."""
    batch, rows, k = x.shape
    m = -(-rows // ROWS) * ROWS if rows > 2 else rows
    even, odd = np.zeros((batch, m, k // 2), np.float32), np.zeros((batch, m, k // 2), np.float32)
    for b in range(batch):
        for m in range(rows):
            for k in range(even.shape[2]):
                even[b, m, k] = np.int32(np.int64(x[b, m, 2 * k]) << 16).view(np.float32)
                odd[b, m, k] = np.int32(np.int64(x[b, m, 2 * k + 1]) << 16).view(np.float32)
    return even, odd


@intrinsic(prefer_literal=True)
def _sums(typingctx, even, odd, at_x, words, at_w, depth, mask, out, at_out, rows, width):
    """out[at_out + r * COLUMNS + c] = the sum of `depth` words' products of row r of x and column c of four.

    Flat arrays: even, odd and out float32, words int32; depth a multiple of `width`, the lanes of a vector. For one or
    two rows, which wait for the memory, the words of the next four columns are called for.
    """
    n_rows, lanes = rows.literal_value, width.literal_value
    floats, ints = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)

    def codegen(context, builder, signature, args):
        def element(array, *terms):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.gep(data, [functools.reduce(builder.add, terms)])

        def vector(array, kind, *terms):
            return builder.load(builder.bitcast(element(array, *terms), kind.as_pointer()), align=4)

        def down(i):
            return builder.mul(args[5], ir.Constant(I64, i))

        def intrinsic_of(name, kind, *operands):
            return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, operands), name)

        def same(value):
            return ir.Constant(ints, [value] * lanes)

        fma = intrinsic_of(f"llvm.fma.v{lanes}f32", floats, floats, floats, floats)
        add = intrinsic_of(f"llvm.vector.reduce.fadd.v{lanes}f32", F32, F32, floats)
        prefetch = intrinsic_of("llvm.prefetch.p0i8", ir.VoidType(), ir.IntType(8).as_pointer(), I32, I32, I32)
        read, level, of_data = (ir.Constant(I32, i) for i in (0, 2, 1))
        zero = ir.Constant(floats, [0.0] * lanes)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(COLUMNS)] for _ in range(n_rows)]
        one = builder.insert_element(ir.Constant(ints, ir.Undefined), args[6], ir.Constant(I32, 0))
        counted = builder.shuffle_vector(one, ir.Constant(ints, ir.Undefined), same(0))
        step = ir.Constant(I64, lanes)
        with cgutils.for_range_slice(builder, ir.Constant(I64, 0), args[5], step, I64) as (k, _):
            for c in range(COLUMNS if n_rows <= 2 else 0):
                ahead = builder.bitcast(element(3, args[4], down(COLUMNS + c), k), ir.IntType(8).as_pointer())
                builder.call(prefetch, [ahead, read, level, of_data])
            halves = []
            for c in range(COLUMNS):
                w = builder.and_(vector(3, ints, args[4], down(c), k), counted)
                pair = builder.shl(w, same(16)), builder.and_(w, same(-65536))
                halves.append([builder.bitcast(half, floats) for half in pair])
            for r in range(n_rows):
                x = [vector(array, floats, args[2], down(r), k) for array in (0, 1)]
                for c in range(COLUMNS):
                    total = builder.load(sums[r][c])
                    for pair in zip(x, halves[c]):
                        total = builder.call(fma, [*pair, total])
                    builder.store(total, sums[r][c])
        for r in range(n_rows):
            for c in range(COLUMNS):
                total = builder.call(add, [ir.Constant(F32, -0.0), builder.load(sums[r][c])], fastmath=("reassoc",))
                builder.store(total, element(7, args[8], ir.Constant(I64, r * COLUMNS + c)))
        return context.get_dummy_value()

    return types.void(even, odd, at_x, words, at_w, depth, mask, out, at_out, rows, width), codegen


@functools.cache
def _kernel(rows: int, width: int):
    """The product of tiles of so many rows, in vectors of `width`."""

    @njit(parallel=True, cache=True, nogil=True)
    def kernel(x, words, mask, most, out):
        """`most` rows of x stay in the cache while BAND columns are computed. x [B, M, K], words [B, N, K / 2]."""
        even, odd = _halves(x)
        batch, m, depth = even.shape
        n = words.shape[1]
        even, odd, flat = even.reshape(-1), odd.reshape(-1), words.reshape(-1)
        bands = (n + BAND - 1) // BAND
        for job in prange(batch * bands):
            b, band = job // bands, job % bands
            sums = np.empty(rows * COLUMNS, np.float32)
            for start in range(0, m, most):
                for column in range(BAND * band, min(BAND * band + BAND, n), COLUMNS):
                    first = min(column, n - COLUMNS)
                    at = (b * n + first) * depth
                    for row in range(start, min(start + most, m), rows):
                        _sums(even, odd, (b * m + row) * depth, flat, at, depth, mask, sums, 0, rows, width)
                        for r in range(min(rows, out.shape[1] - row)):
                            for c in range(COLUMNS):
                                out[b, row + r, first + c] = _rounded(sums[r * COLUMNS + c])

    return kernel


@njit(inline="always")
def _pair(word, mask):
    """The two neighbours in a word of a row of w; the first is in the low half."""
    word = word & mask
    return np.int32(word << 16).view(np.float32), np.int32(word & np.int32(-65536)).view(np.float32)


@njit(inline="always")
def _put(out, m, n, a, b, c, d):
    """Four neighbours of a row of the result; rows behind it are padding."""
    if m < out.shape[0]:
        out[m, n], out[m, n + 1], out[m, n + 2], out[m, n + 3] = _rounded(a), _rounded(b), _rounded(c), _rounded(d)


@njit(inline="always")
def _row(a, b, c, d, e, o, w0, v0, w1, v1, w2, v2, w3, v3):
    """Four sums of a row of x with its next two elements times those of four rows of w."""
    return a + (e * w0 + o * v0), b + (e * w1 + o * v1), c + (e * w2 + o * v2), d + (e * w3 + o * v3)


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _many(x, words, mask, rows, out):
    """As `_kernel`'s without batches, in plain loops."""
    even, odd = _halves(x.reshape((1, *x.shape)))
    even, odd = even[0], odd[0]
    for band in prange((words.shape[0] + BAND - 1) // BAND):
        zero = np.float32(0)
        first, end = BAND * band, min(BAND * band + BAND, words.shape[0])
        for start in range(0, even.shape[0], rows):
            for column in range(first, end, 4):
                n = min(column, words.shape[0] - 4)
                for m in range(start, min(start + rows, even.shape[0]), 4):
                    a0, a1, a2, a3 = zero, zero, zero, zero
                    b0, b1, b2, b3 = zero, zero, zero, zero
                    c0, c1, c2, c3 = zero, zero, zero, zero
                    d0, d1, d2, d3 = zero, zero, zero, zero
                    for k in range(words.shape[1]):
                        w0, v0 = _pair(words[n, k], mask)
                        w1, v1 = _pair(words[n + 1, k], mask)
                        w2, v2 = _pair(words[n + 2, k], mask)
                        w3, v3 = _pair(words[n + 3, k], mask)
                        e, o = even[m + 0, k], odd[m + 0, k]
                        a0, a1, a2, a3 = _row(a0, a1, a2, a3, e, o, w0, v0, w1, v1, w2, v2, w3, v3)
                        e, o = even[m + 1, k], odd[m + 1, k]
                        b0, b1, b2, b3 = _row(b0, b1, b2, b3, e, o, w0, v0, w1, v1, w2, v2, w3, v3)
                        e, o = even[m + 2, k], odd[m + 2, k]
                        c0, c1, c2, c3 = _row(c0, c1, c2, c3, e, o, w0, v0, w1, v1, w2, v2, w3, v3)
                        e, o = even[m + 3, k], odd[m + 3, k]
                        d0, d1, d2, d3 = _row(d0, d1, d2, d3, e, o, w0, v0, w1, v1, w2, v2, w3, v3)
                    _put(out, m + 0, n, a0, a1, a2, a3)
                    _put(out, m + 1, n, b0, b1, b2, b3)
                    _put(out, m + 2, n, c0, c1, c2, c3)
                    _put(out, m + 3, n, d0, d1, d2, d3)


def fits(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether x [M, K] @ w [K, N] is a case for `product`: w a large transposed view, as weights are held. Or [B, M, K]
    and [B, K, N], views that lie beside one another."""
    k, n = w.shape[-2:]
    return (
        w.numel() >= WORTH
        and n >= 4
        and w.stride()[-2:] == (1, k)
        and (w.dim() == 2 or w.stride(0) == k * n)
        and k % 32 == 0  # whole vectors of words
        and w.storage_offset() % 2 == 0
        and x.device.type == "cpu"
        and x.dtype == w.dtype == torch.bfloat16
    )


def product(x: torch.Tensor, w: torch.Tensor, drop: int = 0) -> torch.Tensor:
    """x [M, K] @ w [K, N], or [B, M, K] @ [B, K, N], in fp32, rounded once to bfloat16; `drop` low bits of w count as
    zeros."""
    *batch, m, k = x.shape
    out = np.empty((*batch, m, w.shape[-1]), np.int16)
    half = 0x10000 - (1 << drop)  # the bits that count, of both neighbours
    words, mask = w.mT.view(torch.int32).numpy(), np.int32((half << 16 | half) - (1 << 32))
    most = max(ROWS, CACHED // k // ROWS * ROWS)
    patterns, width = x.contiguous().view(torch.int16).numpy(), _width()
    if m <= ROWS or width > 8 or batch:
        whole = (t if batch else t[None] for t in (patterns, words))
        _kernel(m if m <= 2 else ROWS, width)(*whole, mask, most, out if batch else out[None])
    else:
        _many(patterns, words, mask, most, out)
    return torch.from_numpy(out).view(torch.bfloat16)


@functools.cache
def _width() -> int:
    """Lanes of a vector. With eight numba's own code of `_many` is the faster one for many rows."""
    return 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8
