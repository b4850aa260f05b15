"""The ops, by family. Importing a family registers its ops under ttnn's names."""

from . import (
    attention,
    cache,
    ccl,
    creation,
    data_movement,
    elementwise,
    embedding,
    heads,
    layout,
    matmul,
    mesh,
    methods,
    normalization,
    reduction,
    rotary,
    unary,
)
