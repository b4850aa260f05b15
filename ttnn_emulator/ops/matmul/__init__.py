"""Products."""

from . import matmul
