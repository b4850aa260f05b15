"""What a bfloat16 destination register does to a product, in `fast`.

Where the terms of a sum have mixed signs, its many roundings are one pseudo-random error, made from the result's own
bits, with the measured size, gain and dependence on the element. Where they have one sign (averages, sums by ones,
logits of a trained head), the running sum grows past its addends, which are then lost whole: no error of a fixed size
says that, and such elements are computed by the matrix unit's own rule.
"""

import functools
import math
from typing import NamedTuple

import numpy
import torch

from . import fpu

TILE = 32
#: Measured on random normal operands with the exact matrix unit: the error that a bf16 destination adds to the
#: product of the operands' kept bits, for K = 32 * 2^i in one block: relative rms about the mean gain, and gain - 1.
#: By passes: 1 (LoFi; also HiFi2 with bfloat4_b weights), 2 (HiFi2), 4 (HiFi3 and HiFi4), 3 (those with bfloat4_b
#: weights).
_ONE_BLOCK = {
    1: ((0.0021, 0.0027, 0.0037, 0.0051, 0.0080, 0.0118, 0.0196, 0.0343, 0.0652, 0.137),
        (0.0004, 0.0007, 0.0014, 0.0026, 0.0057, 0.0108, 0.0222, 0.0465, 0.0937, 0.201)),
    2: ((0.0032, 0.0041, 0.0053, 0.0079, 0.0118, 0.0184, 0.0292, 0.0465, 0.0790, 0.154),
        (0.0010, 0.0018, 0.0030, 0.0057, 0.0102, 0.0175, 0.0309, 0.0545, 0.1010, 0.206)),
    3: ((0.0030, 0.0037, 0.0045, 0.0060, 0.0082, 0.0123, 0.0195, 0.0335, 0.0650, 0.137),
        (0.0001, 0.0002, 0.0008, 0.0017, 0.0039, 0.0093, 0.0205, 0.0445, 0.0940, 0.200)),
    4: ((0.0039, 0.0047, 0.0060, 0.0082, 0.0119, 0.0177, 0.0284, 0.0469, 0.0825, 0.153),
        (0.0009, 0.0012, 0.0023, 0.0043, 0.0084, 0.0154, 0.0275, 0.0512, 0.1009, 0.203)),
}  # fmt: skip
#: The same within blocks of 2^i tiles whose sums are added in L1, without the error of those additions.
_BLOCKS = {
    1: ((0.0038, 0.0047, 0.0064, 0.0088, 0.0128), (0.0009, 0.0019, 0.0040, 0.0076, 0.0140)),
    2: ((0.0046, 0.0060, 0.0083, 0.0120, 0.0184), (0.0018, 0.0034, 0.0062, 0.0115, 0.0202)),
    3: ((0.0042, 0.0056, 0.0072, 0.0095, 0.0130), (0.0009, 0.0013, 0.0035, 0.0070, 0.0135)),
    4: ((0.0051, 0.0068, 0.0091, 0.0124, 0.0186), (0.0017, 0.0029, 0.0052, 0.0101, 0.0178)),
}  # fmt: skip
_ROUNDING = 0.00166  # relative rms of one rounding to bfloat16
#: A sum of so many standard deviations of random terms is not random: 1 in 10^9.
ONE_SIGNED = 6.0
SAMPLE, GROUPS = 32, 4  # elements of a column that its size is told by: so many in each of so many places


class Sum(NamedTuple):
    """How a product is summed: the fidelity, the dtype of w, tiles in a block whose sum is added in L1 (0: one
    block)."""

    fidelity: str
    w_dtype: str = "bfloat16"
    block_w: int = 0
    sum_all: bool = False  # the last block's too

    @property
    def passes(self) -> int:
        """How many products of operand pieces are added."""
        four = self.w_dtype == "bfloat4_b"
        return {"LoFi": 1, "HiFi2": 1 if four else 2}.get(self.fidelity, 3 if four else 4)


def _at(table, log2):
    """Linear interpolation of a table over 0, 1, 2, ..."""
    log2 = min(max(log2, 0.0), len(table) - 1)
    i = min(int(log2), len(table) - 2)
    return table[i] + (table[i + 1] - table[i]) * (log2 - i)


@functools.cache
def error_of(passes: int, k: int, block_w: int) -> tuple[float, float, float]:
    """What a bf16 destination adds: relative rms error, gain - 1, and the share of the error's variance that does not
    scale with the element. block_w 0: one block."""
    blocks = -(-k // (TILE * block_w)) if block_w else 1
    if blocks == 1:
        size, gain = (_at(t, math.log2(max(k, TILE) / TILE)) for t in _ONE_BLOCK[passes])
        return size, gain, min(1.0, max(0.1, 0.22 + 0.13 * math.log2(k / 64)))
    within, gain = (_at(t, math.log2(block_w)) for t in _BLOCKS[passes])
    variance = within**2 * (1 - 1 / (2 * blocks)) + _ROUNDING**2 * blocks / 2
    return math.sqrt(variance), gain, 0.42


@functools.lru_cache(64)
def _salt(n: int, device: str) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.int64) * 0x9E3779B1 >> 7).to(torch.int16).to(device)


def in_bf16(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, how: Sum) -> torch.Tensor:
    """y = x @ w, rounded to bfloat16, as a bf16 destination leaves it: y (1 + gain + a h) + b h s.

    Shapes    x [..., M, K], w [..., K, N], y [..., M, N]; batch dimensions broadcast
    Numerics  h is a pseudo-random number from a hash of y's bits and the column, +-[0.5, 2), mean square 1.46: the
              same input gives the same output, whatever row it is in. s is the size of a random sum: that of x's row
              and of w's column, less what sticks out (an outlier counts in y where it is multiplied, nowhere else).
              A result greater than random sums are, or of operands that are mostly zeros, is the matrix unit's own.
    """
    k, n = w.shape[-2:]
    size, gain, constant = error_of(how.passes, k, how.block_w)
    variance = size**2 - 2 * _ROUNDING**2  # the product is rounded, and the sum below once more
    a, b = math.sqrt(1 - constant), math.sqrt(constant)
    unit = math.sqrt(max(0.0, variance) / (1.458 * (a * a + b * b + 1.6 * a * b)))
    factors = (gain if variance > 0 else 0.0, unit * a, unit * b)
    batch = y.shape[:-2]
    rows = [(r * math.sqrt(k)).float().expand(y.shape[:-1]).reshape(-1) for r in _sizes(x, k)]
    columns = [c.float().expand(*batch, n).reshape(-1) for c in _sizes(w.mT, SAMPLE)]
    if y.device.type == "cpu":
        from . import fused  # numba and its compiler: imported when first needed

        words, salt = (
            t.reshape(-1).numpy().view("uint16") for t in (y.contiguous().view(torch.int16), _salt(n, "cpu"))
        )
        sizes = [t.contiguous().numpy() for t in (*rows, *columns)]
        one_signed = fused.perturb(words.reshape(-1, n), y.shape[-2], salt, factors, sizes, ONE_SIGNED)
        y = torch.from_numpy(words.view("int16")).view(torch.bfloat16).view(y.shape)
        one_signed = None if one_signed is None else torch.from_numpy(one_signed).view(y.shape)
    else:
        y, one_signed = _perturbed(y, rows, columns, factors)
    return y if one_signed is None else _followed(y, one_signed, x, w, how)


def _words(x: torch.Tensor):
    """16-bit patterns in memory of their own, flat, in numpy."""
    return x.contiguous().view(torch.int16).reshape(-1).numpy().view("uint16")


def _perturbed(y, rows, columns, factors):
    """`fused.perturb` in torch operations."""
    gain, along, constant = factors
    h = (y.view(torch.int16) * 0x6255).add_(_salt(y.shape[-1], str(y.device)))
    h.bitwise_xor_((h >> 8) & 0xFF).mul_(0x2F35).bitwise_xor_((h >> 8) & 0xFF).bitwise_and_(-0x7F01).bitwise_or_(0x3F00)
    rms, typical = (r.view(*y.shape[:-1], 1) * c.view(*y.shape[:-2], 1, -1) for r, c in zip(rows, columns, strict=True))
    value = y.float()
    noisy = (value + (value * gain + h.view(torch.bfloat16).float() * (value.abs() * along + typical * constant))).to(y)
    one_signed = (value.abs() > ONE_SIGNED * rms) | ((typical == 0) & (value != 0))
    y = torch.where(one_signed | ~noisy.isfinite(), y, noisy)
    return y, one_signed if bool(one_signed.any()) else None


def _sizes(v: torch.Tensor, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of rows v [..., K] the root mean square, and that of the second smallest of four groups, scaled to what the
    whole has in random rows; from `sample` elements of each group. float64."""
    k = v.shape[-1]
    width, step = max(1, min(sample, k // GROUPS)), max(1, k // GROUPS)
    starts = [min(i * step, k - width) for i in range(GROUPS)]
    whole = v.is_contiguous() and v.device.type == "cpu"
    if not whole:
        v = torch.cat([v[..., s : s + width] for s in starts], -1).contiguous()
        starts = [i * width for i in range(GROUPS)]
    if v.device.type == "cpu":
        from . import fused

        squares = torch.from_numpy(
            fused.squares(
                v.reshape(-1, v.shape[-1]).view(torch.int16).numpy().view("uint16"), numpy.array(starts), width
            )
        ).view(*v.shape[:-1], GROUPS)
    else:
        squares = v.double().square().unflatten(-1, (GROUPS, width)).mean(-1)
    a, b, c, d = squares.unbind(-1)
    second = torch.minimum(
        torch.maximum(torch.minimum(a, b), torch.minimum(c, d)), torch.minimum(torch.maximum(a, b), torch.maximum(c, d))
    )
    return squares.mean(-1).sqrt(), (second / (1 - 0.297 * math.sqrt(2 / max(width, 2)))).sqrt()


def _followed(y, one_signed, x, w, how):
    """Those elements by the matrix unit's rule, 32 rows at a time."""
    batch = y.shape[:-2]
    x, w = (t.expand(*batch, *t.shape[-2:]) for t in (x, w))
    for at in one_signed.flatten(-2).any(-1).nonzero().tolist():
        here = tuple(at)
        for start in range(0, y.shape[-2], TILE):
            wanted = one_signed[here][start : start + TILE].bool()
            rows, columns = (wanted.any(d).nonzero().flatten() for d in (1, 0))
            if not len(rows):
                continue
            z = fpu.matmul(
                x[here][start + rows], w[here].T[columns].T, how.fidelity, False, how.block_w, sum_all=how.sum_all
            )
            part = y[here][start : start + TILE]
            part[wanted] = z[wanted[rows][:, columns]]
    return y
