"""Element-wise ops of one, two and three tensors."""

from . import division, elementwise, gated, ternary, unary
