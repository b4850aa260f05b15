"""Products."""

from . import matmul, minimal
