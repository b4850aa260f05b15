"""One or two rows times a large bfloat16 matrix, as in decode: the time is that of reading the matrix once.

torch's own product of this size reaches two thirds of the memory's speed on the CPU tried (AMD EPYC, AVX-512), and
computes in the same way: fp32 sums, one rounding at the end.
"""

import numpy as np
import torch
from numba import njit, prange

from . import compiling  # noqa: F401  says when kernels are compiled

#: Smaller matrices are not worth waking other threads for; torch has them.
WORTH = 1 << 18
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


def fits(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether x [M, K] @ w [K, N] is a case for `product`: w a large transposed view, as weights are held."""
    return (
        x.shape[0] <= 2
        and w.numel() >= WORTH
        and w.shape[1] >= 4
        and w.stride(0) == 1
        and w.stride(1) == w.shape[0]
        and w.shape[0] % 2 == 0
        and w.storage_offset() % 2 == 0
        and x.device.type == "cpu"
        and x.dtype == w.dtype == torch.bfloat16
    )


def product(x: torch.Tensor, w: torch.Tensor, drop: int = 0) -> torch.Tensor:
    """x [1 or 2, K] @ w [K, N] in fp32, rounded once to bfloat16; `drop` low bits of w count as zeros."""
    out = torch.empty(x.shape[0], w.shape[1], dtype=torch.int16)
    half = 0x10000 - (1 << drop)  # the bits that count, of both neighbours
    words, mask = w.T.view(torch.int32).numpy(), np.int32((half << 16 | half) - (1 << 32))
    patterns = x.contiguous().view(torch.int16).numpy()
    (_one if x.shape[0] == 1 else _two)(patterns, words, mask, out.numpy())
    return out.view(torch.bfloat16)
