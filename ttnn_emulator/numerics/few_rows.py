"""One or two rows times a large bfloat16 matrix, as in decode: the time is that of reading the matrix once.

torch's own product of this size reaches two thirds of the memory's speed on the CPU tried (AMD EPYC, AVX-512), and
computes in the same way: fp32 sums, one rounding at the end.
"""

import numpy as np
import torch
from numba import njit, prange

#: Smaller matrices are not worth waking other threads for; torch has them.
WORTH = 1 << 20
#: The order of a sum is free, infinities and nans are kept.
REORDER = {"reassoc", "contract", "nsz"}


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _one(even, odd, words, mask, out):
    high = np.int32(-65536)
    for n in prange(words.shape[0]):
        total = np.float32(0)
        for k in range(words.shape[1]):
            pair = words[n, k] & mask  # two neighbours in a row: the first is in the low half
            first, second = np.int32(pair << 16).view(np.float32), np.int32(pair & high).view(np.float32)
            total += even[0, k] * first + odd[0, k] * second
        out[0, n] = total


@njit(parallel=True, cache=True, nogil=True, fastmath=REORDER)
def _two(even, odd, words, mask, out):
    high = np.int32(-65536)
    for n in prange(words.shape[0]):
        a, b = np.float32(0), np.float32(0)
        for k in range(words.shape[1]):
            pair = words[n, k] & mask
            first, second = np.int32(pair << 16).view(np.float32), np.int32(pair & high).view(np.float32)
            a += even[0, k] * first + odd[0, k] * second
            b += even[1, k] * first + odd[1, k] * second
        out[0, n], out[1, n] = a, b


def fits(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether x [M, K] @ w [K, N] is a case for `product`: w a large transposed view, as weights are held."""
    return (
        x.shape[0] <= 2
        and w.numel() >= WORTH
        and w.stride(0) == 1
        and w.stride(1) == w.shape[0]
        and w.shape[0] % 2 == 0
        and w.storage_offset() % 2 == 0
        and x.device.type == "cpu"
        and x.dtype == w.dtype == torch.bfloat16
    )


def product(x: torch.Tensor, w: torch.Tensor, drop: int = 0) -> torch.Tensor:
    """x [1 or 2, K] @ w [K, N] in fp32, rounded once to bfloat16; `drop` low bits of w count as zeros."""
    values = x.to(torch.float32)
    even, odd = values[:, ::2].contiguous().numpy(), values[:, 1::2].contiguous().numpy()
    out = np.empty((x.shape[0], w.shape[1]), np.float32)
    half = 0x10000 - (1 << drop)  # the bits that count, of both neighbours
    words, mask = w.T.view(torch.int32).numpy(), np.int32((half << 16 | half) - (1 << 32))
    (_one if x.shape[0] == 1 else _two)(even, odd, words, mask, out)
    return torch.from_numpy(out).to(torch.bfloat16)
