"""The vector unit's own functions, float32 in and out on torch tensors of any device, bit for bit.

These are the variants that kernels call with constants or shortcuts of their own; the public unary functions are
tables. A multiply-add rounds once (`fma`: it is computed in float64 here, which is exact enough to round the same);
where sums cancel it is `partly_fused`.

Source    ttnn 0.81.1, the kernels that the wheel ships: `ckernel_sfpu_exp.h`, `ckernel_sfpu_sdpa.h`,
          `ckernel_sfpu_recip.h`, `ckernel_sfpu_sqrt.h` (wormhole_b0); checked against the recorded norms, softmax
          and attention.
"""

import math

import torch

from .rounding import bits_of, of_bits

SCALE = 256 * 1.4426950408889634  # 2^8 / ln 2
OFFSET = 32500.818359375  # 127 * 2^8 less an adjustment that spreads the error
#: exp(f) for |f| <= ln(2) / 2 by degree, lowest coefficient first; the quadratic seed of 1 / x, highest first.
POLYNOMIAL = {
    2: (0.99984879292439531, 1.0150876009852106, 0.50628367056745569),
    4: (1.0000001510806179, 0.99996228117047652, 0.49998365704615426, 0.16792157982882225, 0.041959439860014344),
}
RECIPROCAL = (0.3232325017452239990234375, 1.4545459747314453125, 2.121212482452392578125)


def fma(a, b, c) -> torch.Tensor:
    """a * b + c in float32, rounded once; a a tensor, b and c tensors or numbers that are float32 values."""
    b, c = (t.double() if torch.is_tensor(t) else t for t in (b, c))
    return (a.double() * b + c).float()


def _jammed(integer, keep):
    """Cut to an integer that is odd where something was cut off; `keep`: also where nothing else is left."""
    whole = integer.trunc()
    odd = (whole != integer) & (keep | (whole != 0))
    return torch.where(odd & (whole % 2 == 0), whole + torch.ones_like(whole).copysign(integer), whole)


def partly_fused(a, b, c) -> torch.Tensor:
    """a * b + c as Wormhole adds: of the product, and of the smaller of the two below the last bit of the larger,
    three more bits than float32 has are kept, the last set where anything behind it was cut; one rounding. It is `fma`
    except where the sum is much smaller than the product.

    Source    tt-isa-documentation, `SFPMAD` of WormholeB0; the recorded float32 quotients and remainders
    """
    a, b, c = (torch.as_tensor(t, dtype=torch.float64, device=a.device) for t in (a, b, c))
    a, b, c = torch.broadcast_tensors(a, b, c)
    product = a * b
    at = torch.where(product == 0, -127, torch.frexp(a).exponent + torch.frexp(b).exponent - 2)
    other = torch.where(c == 0, -127, torch.frexp(c).exponent - 1)
    top = torch.maximum(at, other)
    p = torch.ldexp(_jammed(torch.ldexp(product, 26 - at), True), at - top)
    total = torch.ldexp(_jammed(p, False) + _jammed(torch.ldexp(c, 26 - top), False), top - 26)
    return torch.where(product.isfinite() & c.isfinite() & (product != 0), total, product + c).float()


def divide(a, b) -> torch.Tensor:
    """a / b of float32: a quotient of the significands by one Newton step, and one correction.

    Source    ttnn 0.81.1: `calculate_sfpu_binary_div` of `ckernel_sfpu_binary.h` (wormhole_b0)
    """
    a, b = torch.broadcast_tensors(a.float(), b.float())
    (x, up), (y, down) = torch.frexp(a), torch.frexp(b)
    x, y = 2 * x, 2 * y
    inverse = reciprocal(y, 1)
    q = x * inverse
    q = partly_fused(partly_fused(q, -y, x), inverse, q)
    q = torch.ldexp(q.double(), up - down).float()
    usual = a.isfinite() & b.isfinite() & (a != 0) & (b != 0)
    return torch.where(usual, q, a / b)


def f32(value: float) -> float:
    return of_bits(bits_of(value))


def bf16_scale(value: float) -> float:
    """A scale that a kernel takes as the upper half of a float32."""
    return of_bits(bits_of(value) & 0xFFFF0000)


def _schraudolph(v, scale):
    return fma(v, f32(f32(SCALE) * f32(scale)), OFFSET).double()


def exp_approx(v, scale: float = 1.0) -> torch.Tensor:
    """exp(v * scale) by building the float's upper bits (Schraudolph); up to 3.4 % off. Inputs are clamped at -88.5
    / scale."""
    u = _schraudolph(v.float().clamp(min=-88.5 / scale), scale).clamp(0, 65535).add(0.5).floor().to(torch.int32)
    return (u << 15).view(torch.float32)


def exp_unclamped(v, scale: float = 1.0) -> torch.Tensor:
    """As `exp_approx` without the clamp; what comes out negative the packer cuts to 0. It saturates at exp(0.72)."""
    z = _schraudolph(v.float(), scale)
    u = z.nan_to_num(nan=0.0).abs().add(0.5).floor().clamp(max=32767).to(torch.int32)
    return torch.where(z < 0, 0.0, (u << 15).view(torch.float32))


def exp_21f(v) -> torch.Tensor:
    """exp for a bf16 destination, before its rounding to bfloat16 (Moroz et al. 2022, exp_21f)."""
    x = fma(v, f32(1.4426950216293335), 127.0).clamp(0, 255)
    bits = x.view(torch.int32)
    e = ((bits >> 23) & 255) - 127
    m = ((bits & 0x7FFFFF) | 0x800000).to(torch.int64)
    z = torch.where(e >= 0, m << e.clamp(min=0), m >> (-e).clamp(0, 40))
    fraction = (z & 0x7FFFFF).float()
    p = fma(fma(fraction, f32(4.791750143340323e-15), f32(7.839635491371155e-08)), fraction, f32(1.0017248))
    return ((p.view(torch.int32) & -0x7F800001) | (((z >> 23) & 255) << 23).to(torch.int32)).view(torch.float32)


def exp_accurate(v) -> torch.Tensor:
    """exp for an fp32 destination (within an ulp of float32; taken as correctly rounded)."""
    return v.double().exp().float()


def exp_polynomial(v, degree: int) -> torch.Tensor:
    """The polynomial exponential of attention's corrections without approximate mode: degree 2 (bf16) or 4 (fp32)."""
    coefficients = POLYNOMIAL[degree]
    j = (v * f32(1.4426950408889634)).double().nan_to_num(neginf=-1e9)
    n = ((j.abs() + 0.5).floor().clamp(max=127) * j.sign()).float()
    f = fma(n, f32(-math.log(2)), v)
    r = torch.full_like(f, f32(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        r = fma(r, f, f32(c))
    return torch.where(n <= -127, 0.0, torch.ldexp(r, n.to(torch.int32)))


def reciprocal(x, steps: int) -> torch.Tensor:
    """1 / x by Newton steps from a quadratic seed: 1 for a bf16 destination and the approximate mode, 2 for fp32; with
    none, the estimate by an instruction that Blackhole has: 8 bits, of the middle of the inputs that share 7 bits.

    Source    also tt-isa-documentation, `SFPARECIP` of BlackholeA0
    """
    bits = x.float().contiguous().view(torch.int32)
    if not steps:
        size = bits & 0x7FFFFFFF
        y = 256 / ((size >> 16 & 0x7F) + 128.5)  # of a significand in [1, 2), doubled
        y = ((253 - (size >> 23)).clamp(min=0) << 23 | (128 * y).round().to(torch.int32) - 128 << 16).view(
            torch.float32
        )
        y = torch.where(size < 0x00800000, math.inf, torch.where(size < 0x7E800000, y, 0.0))
        return torch.copysign(y, x.float())
    minus = -((bits & 0x7FFFFF) | 0x3F800000).view(torch.float32)
    y = partly_fused(minus, RECIPROCAL[0], RECIPROCAL[1])
    y = partly_fused(y, minus, RECIPROCAL[2])
    for _ in range(steps):
        y = partly_fused(y, partly_fused(minus, y, 1.0), y)
    y = y * ((254 - ((bits >> 23) & 255)).clamp(min=0) << 23).view(torch.float32)
    y = torch.where((bits & 0x7F800000) == 0, math.inf, y)
    return torch.copysign(y, x.float())


def rsqrt_approx(x) -> torch.Tensor:
    """1 / sqrt(x), the 10-bit variant of math_approx_mode."""
    bits = x.float().contiguous().view(torch.int32)
    y = (0x5F0B3892 - (bits >> 1)).view(torch.float32)
    y = y * fma(-y, x.float() * y, f32(1.89099014875))
    return torch.where((bits & 0x7FFFFFFF) == 0, math.inf, torch.where(bits == 0x7F800000, 0.0, y))
