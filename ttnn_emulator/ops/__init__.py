"""The ops, in rooms named as the library names them. Importing a room registers its ops under ttnn's names."""

from . import (
    ccl,
    core,
    data_movement,
    eltwise,
    experimental,
    matmul,
    normalization,
    reduction,
    transformer,
)
