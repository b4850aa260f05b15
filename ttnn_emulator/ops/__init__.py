"""The ops, by family. Importing a family registers its ops under ttnn's names."""

from . import creation, elementwise, embedding, matmul, normalization, reduction, unary  # noqa: F401
from . import data_movement, layout, methods  # noqa: F401
from . import attention, cache, ccl, heads, mesh, rotary  # noqa: F401
