"""The hardware's integer rules, written once over vectors of 32-bit integers.

A vector is anything with the operators of `Tensors` below: torch tensors on any device, or the LLVM lanes of a compiled
kernel (`lanes.Lanes`). A destination register is its bit pattern: fp32, or bf16 in the upper half.

Source    official functional simulator v1.10, Wormhole B0; `tests/numerics/fpu_reference.py` states the rules plainly.
"""

import torch

INFINITY = 0x7F800000


class Tensors:
    """A torch int32 tensor with the operators that the rules use."""

    def __init__(self, value: torch.Tensor):
        self.value = value

    @staticmethod
    def _of(other):
        return other.value if isinstance(other, Tensors) else other

    def __add__(self, other):
        return Tensors(self.value + self._of(other))

    def __sub__(self, other):
        return Tensors(self.value - self._of(other))

    def __mul__(self, other):
        return Tensors(self.value * self._of(other))

    def __and__(self, other):
        return Tensors(self.value & self._of(other))

    def __or__(self, other):
        return Tensors(self.value | self._of(other))

    def __xor__(self, other):
        return Tensors(self.value ^ self._of(other))

    def __lshift__(self, other):
        return Tensors(self.value << self._of(other))

    def __rshift__(self, other):
        return Tensors(self.value >> self._of(other))

    def __gt__(self, other):
        return Tensors(self.value > self._of(other))

    def equals(self, other):
        return Tensors(self.value == self._of(other))

    def choose(self, yes, no):
        """self is a vector of booleans."""
        return Tensors(torch.where(self.value, self._of(yes), self._of(no)))

    def max(self, other):
        return Tensors(torch.maximum(self.value, torch.as_tensor(self._of(other), dtype=torch.int32)))

    def min(self, other):
        return Tensors(torch.minimum(self.value, torch.as_tensor(self._of(other), dtype=torch.int32)))

    def to_float(self):
        """The bit pattern of the integer as float32 (here always below 2^24, so exact)."""
        return Tensors(self.value.to(torch.float32).view(torch.int32))

    def leading_zeros(self):
        return Tensors(158 - (self.value.to(torch.float64).to(torch.float32).view(torch.int32) >> 23))


def accumulate_bf16(dst, terms, overflow=True):
    """dst + terms (exponent, signed significand of 2^-10) -> bf16 pattern.

    All are aligned to the largest exponent and each rounded to an 11-bit grid: dst half away from zero, a term half up
    (first to 24 bits, then to 11). The exact sum is rounded half away from zero to 8 bits. Underflow gives +0.
    Without `overflow` the caller knows that nothing passes 2^127.
    """
    ed = (dst >> 23) & 255
    e = ed
    for te, _ in terms:
        e = e.max(te)
    significand = (ed > 0).choose(((dst >> 12) & 0x7F0) | 0x800, 0)  # 11 bits, times 2
    md = ((significand >> (e - ed).min(31)) + 1) >> 1
    sign = dst >> 31
    man = (md ^ sign) - sign
    for te, s in terms:
        man = man + ((((s << 14) >> (e - te).min(31)) + 8193) >> 14)
    r = (man.to_float() + 0x8000) & -0x10000
    e2 = ((r >> 23) & 255) + e - 137
    out = r + ((e - 137) << 23)
    if overflow:
        out = (e2 > 254).choose((r & -0x80000000) | INFINITY, out)
    out = (e2 > 0).choose(out, 0)
    return man.equals(0).choose(0, out)


def accumulate_fp32(dst, terms, overflow=True):
    """dst + terms -> fp32 pattern: a 24-bit grid, the sum rounded half away from zero to 24 bits."""
    ed = (dst >> 23) & 255
    e = ed
    for te, _ in terms:
        e = e.max(te)
    significand = (ed > 0).choose((dst & 0x7FFFFF) | 0x800000, 0)
    md = (((significand << 1) >> (e - ed).min(31)) + 1) >> 1
    sign = dst >> 31
    man = (md ^ sign) - sign
    for te, s in terms:
        man = man + ((((s << 14) >> (e - te).min(31)) + 1) >> 1)
    sign = man >> 31
    size = (man ^ sign) - sign
    shift = size.leading_zeros() - 8  # to 24 bits: up, or down with rounding
    down = ((shift ^ -1) + 1).max(0)
    half = (down > 0).choose(1, shift & 0) << (down - 1).max(0)
    m2 = (down > 0).choose((size + half) >> down, size << shift.max(0).min(23))
    quirk = man.equals(-1)  # Wormhole renormalises -1 by 27 places too few
    m2 = quirk.choose(0x800000, m2)
    e2 = quirk.choose(e + 4, e - shift) + (m2 >> 24)
    out = (sign & -0x80000000) | (e2 << 23) | (m2 & 0x7FFFFF)
    if overflow:
        out = (e2 > 254).choose((sign & -0x80000000) | INFINITY, out)
    return man.equals(0).choose(0, (e2 > 0).choose(out, 0))


def accumulate(dst, terms, fp32, overflow=True):
    return (accumulate_fp32 if fp32 else accumulate_bf16)(dst, terms, overflow)


def source(u):
    """fp32 pattern -> sign (0 or -1), exponent, significand of 11 bits (0 for zeros and denormals): what a source
    holds."""
    e = (u >> 23) & 255
    return u >> 31, e, (e > 0).choose(((u >> 13) & 0x3FF) | 0x400, 0)


def add(a, b, fp32=False):
    """a + b of fp32 or bf16 patterns: the smaller is rounded half up to the larger one's 11-bit grid."""
    swap = (b & 0x7FFFFFFF) > (a & 0x7FFFFFFF)
    a, b = swap.choose(b, a), swap.choose(a, b)
    sa, ea, ma = source(a)
    sb, eb, mb = source(b)
    mb = (((mb << 1) >> (ea - eb).min(31)) + 1) >> 1
    m = ((ma ^ sa) - sa) + ((mb ^ sb) - sb)
    return accumulate(a & 0, [(ea, m)], fp32)


def mul(a, b, phases, fp32=False, onto=None):
    """a (the operand in 5-bit pieces) * b (in 7 and 4): every phase of the fidelity is added to the destination, which
    starts as 0 or as the pattern `onto`."""
    sa, ea, ma = source(a)
    sb, eb, mb = source(b)
    sign = sa ^ sb
    zero = ma.equals(0).choose(1, 0) | mb.equals(0).choose(1, 0)
    dst = a & 0 if onto is None else onto
    for phase in range(phases):
        m1 = (ma >> 1) & 31 if phase & 1 else ma >> 6
        m2 = (mb & 15) << 3 if phase & 2 else mb >> 4
        e = ea + eb - 127 - (5 if phase & 1 else 0) - (7 if phase & 2 else 0)
        e = (zero > 0).choose(0, e).max(0)
        p = (e > 0).choose(((m1 * m2) ^ sign) - sign, 0)
        dst = accumulate(dst, [(e, p)], fp32)
    return dst
