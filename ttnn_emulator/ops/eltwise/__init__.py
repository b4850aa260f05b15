"""Element-wise ops of one, two and three tensors."""

from . import division, dropout, elementwise, gated, ternary, unary
