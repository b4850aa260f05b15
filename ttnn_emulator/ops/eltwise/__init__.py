"""Element-wise ops of one, two and three tensors."""

from . import composite, division, dropout, elementwise, gated, pairs, special, ternary, unary
