"""Activations of the vector unit step by step, float32 in and out, before the rounding to the destination.

Source    ttnn 0.81.1: `ckernel_sfpu_xielu.h` (wormhole_b0), `ckernel_sfpu_softcap.h` and `ckernel_sfpu_tanh.h`
          (blackhole); not recorded on a chip
"""

import torch

from .vector import f32, fma

#: expm1(x) - x over x^2 near 0, lowest power first.
_NEAR = (0.5000000596046448, 0.1666666716337204, 0.041665088385343552, 0.008333188481628895, 0.0014003907563164830,
         0.00019958837947342545)  # fmt: skip
_TAYLOR = tuple(f32(v) for v in (1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040))
#: tanh(|x|) for a bf16 destination, lowest power first.
_TANH = (0.0, 0.999004364013671875, 3.0897438526153564e-2, -0.4890659749507904, 0.28191763162612915,
         -6.6649019718170166e-2, 5.876733921468258e-3)  # fmt: skip


def polynomial(x, coefficients):
    """The polynomial with these coefficients, lowest power first, by multiply-adds."""
    y = torch.full_like(x, f32(coefficients[-1]))
    for c in reversed(coefficients[:-1]):
        y = fma(y, x, f32(c))
    return y


def _exp_of_negative(x):
    """exp(x) of x <= 0: x less a multiple of ln 2 in two steps, a Taylor series, the exponent."""
    k = (x * f32(1.4426950408889634)).clamp(min=-126.5).round()
    r = fma(k, f32(-3.19461832987e-05), fma(k, f32(-0.693115234375), x))
    return torch.where(k > -127, torch.ldexp(polynomial(r, _TAYLOR), k.to(torch.int32)), 0.0)


def xielu(x, alpha_p=0.8, alpha_n=0.8):
    """alpha_p x^2 + x / 2 above 0, below alpha_n (expm1(min(x, -1e-6)) - x) + x / 2."""
    half, p, n = 0.5 * x, f32(alpha_p), f32(alpha_n)
    grown = torch.where(x > -0.5, x * x * polynomial(x, _NEAR), (_exp_of_negative(x) - 1.0) - x)
    grown = torch.where(x >= f32(-1e-6), f32(-0.0000009999995427) - x, grown)
    return torch.where(x > 0, fma(p * x, x, half), fma(grown, n, half))


def softcap(x, beta):
    """beta tanh(x / beta), tanh by the polynomial of a bf16 destination."""
    y = x * f32(1 / f32(beta))
    return torch.copysign(polynomial(y.abs(), _TANH).clamp(max=1.0), y) * f32(beta)
