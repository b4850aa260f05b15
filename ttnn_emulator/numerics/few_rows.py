"""Rows times a large bfloat16 matrix, which is read as it is: fp32 sums, one rounding at the end.

One or two rows, as in decode, take the time of reading the matrix once: torch's own product of this size reaches two
thirds of the memory's speed on the CPU tried (AMD EPYC, AVX-512). More rows go in tiles of 4 by 4 sums, and nothing is
opened to float32 beforehand: with AVX2 that is faster than torch's fp32 product of up to some hundred rows.
"""

import numpy as np
import torch
from numba import njit, prange

from . import compiling  # noqa: F401  says when kernels are compiled

#: Smaller matrices are not worth waking other threads for; torch has them.
WORTH = 1 << 18
BAND = 64  # columns of the result that a thread takes at a time
CACHED = 1 << 18  # elements of x beside them: 1 MiB in float32
#: The order of a sum is free, infinities and nans are kept.
REORDER = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True)
def _halves(x):
    """bfloat16 patterns [M, K] as float32, the even and the odd columns apart."""
    even, odd = np.empty((x.shape[0], x.shape[1] // 2), np.float32), np.empty((x.shape[0], x.shape[1] // 2), np.float32)
    for m in range(x.shape[0]):
        for k in range(x.shape[1] // 2):
            even[m, k] = np.int32(np.int64(x[m, 2 * k]) << 16).view(np.float32)
            odd[m, k] = np.int32(np.int64(x[m, 2 * k + 1]) << 16).view(np.float32)
    return even, odd


@njit(cache=True, nogil=True)
def _rounded(value):
    """The bfloat16 pattern nearest to a float32, to even."""
    bits = np.int64(np.float32(value).view(np.int32)) & 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        return np.int16(0x7FC0)
    return np.int16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


@njit(inline="always")
def _pair(word, mask):
    """The two neighbours in a word of a row of w; the first is in the low half."""
    word = word & mask
    return np.int32(word << 16).view(np.float32), np.int32(word & np.int32(-65536)).view(np.float32)


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _one(x, words, mask, out):
    even, odd = _halves(x)
    for group in prange((words.shape[0] + 3) // 4):  # four columns of w share what is read of x
        n = min(4 * group, words.shape[0] - 4)
        a0, a1, a2, a3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for k in range(words.shape[1]):
            e, o = even[0, k], odd[0, k]
            first, second = _pair(words[n, k], mask)
            a0 += e * first + o * second
            first, second = _pair(words[n + 1, k], mask)
            a1 += e * first + o * second
            first, second = _pair(words[n + 2, k], mask)
            a2 += e * first + o * second
            first, second = _pair(words[n + 3, k], mask)
            a3 += e * first + o * second
        out[0, n], out[0, n + 1], out[0, n + 2], out[0, n + 3] = _rounded(a0), _rounded(a1), _rounded(a2), _rounded(a3)


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _two(x, words, mask, out):
    even, odd = _halves(x)
    for group in prange((words.shape[0] + 3) // 4):
        n = min(4 * group, words.shape[0] - 4)
        a0, a1, a2, a3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        b0, b1, b2, b3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for k in range(words.shape[1]):
            e, o, f, p = even[0, k], odd[0, k], even[1, k], odd[1, k]
            first, second = _pair(words[n, k], mask)
            a0 += e * first + o * second
            b0 += f * first + p * second
            first, second = _pair(words[n + 1, k], mask)
            a1 += e * first + o * second
            b1 += f * first + p * second
            first, second = _pair(words[n + 2, k], mask)
            a2 += e * first + o * second
            b2 += f * first + p * second
            first, second = _pair(words[n + 3, k], mask)
            a3 += e * first + o * second
            b3 += f * first + p * second
        out[0, n], out[0, n + 1], out[0, n + 2], out[0, n + 3] = _rounded(a0), _rounded(a1), _rounded(a2), _rounded(a3)
        out[1, n], out[1, n + 1], out[1, n + 2], out[1, n + 3] = _rounded(b0), _rounded(b1), _rounded(b2), _rounded(b3)


@njit(inline="always")
def _put(out, m, n, a, b, c, d):
    """Four neighbours of a row of the result; rows behind it are padding."""
    if m < out.shape[0]:
        out[m, n], out[m, n + 1], out[m, n + 2], out[m, n + 3] = _rounded(a), _rounded(b), _rounded(c), _rounded(d)


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _many(even, odd, words, mask, rows, out):
    """even, odd [M, K / 2], M a multiple of 4; `rows` of them stay in the cache while BAND columns are computed."""
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
                        a0 += e * w0 + o * v0
                        a1 += e * w1 + o * v1
                        a2 += e * w2 + o * v2
                        a3 += e * w3 + o * v3
                        e, o = even[m + 1, k], odd[m + 1, k]
                        b0 += e * w0 + o * v0
                        b1 += e * w1 + o * v1
                        b2 += e * w2 + o * v2
                        b3 += e * w3 + o * v3
                        e, o = even[m + 2, k], odd[m + 2, k]
                        c0 += e * w0 + o * v0
                        c1 += e * w1 + o * v1
                        c2 += e * w2 + o * v2
                        c3 += e * w3 + o * v3
                        e, o = even[m + 3, k], odd[m + 3, k]
                        d0 += e * w0 + o * v0
                        d1 += e * w1 + o * v1
                        d2 += e * w2 + o * v2
                        d3 += e * w3 + o * v3
                    _put(out, m + 0, n, a0, a1, a2, a3)
                    _put(out, m + 1, n, b0, b1, b2, b3)
                    _put(out, m + 2, n, c0, c1, c2, c3)
                    _put(out, m + 3, n, d0, d1, d2, d3)


def fits(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether x [M, K] @ w [K, N] is a case for `product`: w a large transposed view, as weights are held."""
    return (
        w.numel() >= WORTH
        and w.shape[1] >= 4
        and w.stride(0) == 1
        and w.stride(1) == w.shape[0]
        and w.shape[0] % 2 == 0
        and w.storage_offset() % 2 == 0
        and x.device.type == "cpu"
        and x.dtype == w.dtype == torch.bfloat16
    )


def product(x: torch.Tensor, w: torch.Tensor, drop: int = 0) -> torch.Tensor:
    """x [M, K] @ w [K, N] in fp32, rounded once to bfloat16; `drop` low bits of w count as zeros."""
    out = torch.empty(x.shape[0], w.shape[1], dtype=torch.int16)
    half = 0x10000 - (1 << drop)  # the bits that count, of both neighbours
    words, mask = w.T.view(torch.int32).numpy(), np.int32((half << 16 | half) - (1 << 32))
    if x.shape[0] <= 2:
        patterns = x.contiguous().view(torch.int16).numpy()
        (_one if x.shape[0] == 1 else _two)(patterns, words, mask, out.numpy())
    else:
        x = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[0] % 4))
        even, odd = (x[:, i::2].to(torch.float32).contiguous().numpy() for i in (0, 1))
        _many(even, odd, words, mask, max(4, CACHED // x.shape[1] // 4 * 4), out.numpy())
    return out.view(torch.bfloat16)
