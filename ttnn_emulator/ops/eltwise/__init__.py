"""Element-wise ops of one, two and three tensors."""

from . import composite, division, dropout, elementwise, gated, ternary, unary
