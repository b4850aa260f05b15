"""Products."""

from . import by_user, matmul, minimal, outer, sparse
