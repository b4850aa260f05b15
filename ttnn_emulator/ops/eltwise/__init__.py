"""Element-wise ops of one, two and three tensors."""

from . import elementwise, gated, ternary, unary
