"""The ops, by family. Importing a family registers its ops under ttnn's names."""

from . import creation, elementwise, matmul, normalization  # noqa: F401
