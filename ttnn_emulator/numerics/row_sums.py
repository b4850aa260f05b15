"""Rows summed by the matrix unit, which multiplies them by ones: a compiled kernel, bit for bit."""

import functools

import numpy as np
from numba import njit, prange

from .matrix_unit import LIFT, NOTHING, PHASES, _adjust, _exponents, _float, _phase

#: The other operand of a row sum: ones, in pieces, and their exponents.
ONES = np.array([LIFT] * 32 + [0.0] * 32, np.float32)


ONES_EXPONENTS = np.zeros(32, np.int32)


@njit(cache=True, nogil=True, error_model="numpy")
def sum_tile(xf, xe, ones, ones_exponents, exponents, dst, n_phases, fp32, positive):
    """Add a tile of K of 16 rows, in pieces xf float32 [2, 32, 16] and xe int32 [32, 16], to dst [16].

    positive: no value is negative. Then the phases of the ones' second piece, which is zero, change nothing: the sum is
    already at least the largest term, so that it is not aligned anew.
    """
    _exponents(xe, 0, 16, ones_exponents, 0, exponents)
    for phase in range(0, n_phases, 2 if positive else 1):
        at_x, at_one = 512 if phase & 2 else 0, 32 if phase & 1 else 0
        if fp32:
            _phase(xf, at_x, 16, ones, at_one, exponents, _adjust(phase), dst, 0, True)
        else:
            _phase(xf, at_x, 16, ones, at_one, exponents, _adjust(phase), dst, 0, False)


@functools.cache
def _row_sum(fp32: bool, threads: bool):
    @njit(parallel=threads, cache=True, nogil=True, error_model="numpy")
    def kernel(x, ones, ones_exponents, n_phases, out):
        """out int32 [16 n] = row sums of x int32 [M, K] (fp32 patterns)."""
        _ = threads
        m_size, k_size = x.shape
        for group in prange(out.size // 16):
            xf, xe = np.empty(2 * 32 * 16, np.float32), np.empty(32 * 16, np.int32)
            exponents, dst = np.empty(64, np.int32), np.zeros(16, np.int32)
            for k0 in range(0, k_size, 32):
                for r in range(16):
                    m = 16 * group + r
                    for k in range(32):
                        u = x[m, k0 + k] if m < m_size else np.int32(0)
                        e = (u >> 23) & 255
                        live = e > 0
                        high = _float(np.int32(u & -(1 << 17)))
                        xf[16 * k + r] = high if live else np.float32(0)
                        xf[16 * (32 + k) + r] = _float(np.int32(u & -(1 << 13))) - high if live else np.float32(0)
                        xe[16 * k + r] = e if live else NOTHING
                sum_tile(xf, xe, ones, ones_exponents, exponents, dst, n_phases, fp32, False)
            for r in range(16):
                out[16 * group + r] = dst[r]

    return kernel


def row_sum(x, fidelity, fp32=False):
    """x [M, K] (int32, fp32 patterns) times a column of ones -> destination bits, int32 [M]."""
    out = np.zeros(-(-x.shape[0] // 16) * 16, np.int32)
    kernel = _row_sum(bool(fp32), x.size > 1 << 18)
    kernel(np.ascontiguousarray(x), ONES, ONES_EXPONENTS, PHASES[fidelity], out)
    return out[: x.shape[0]]
