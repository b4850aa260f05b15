"""Products."""

from . import matmul, minimal, sparse
