"""Host floats as integers: what ttnn 0.81.1 makes of values that do not fit (`from_torch` and `to_torch`, x86-64)."""

import math

import pytest
import torch

import ttnn_emulator as ttnn

LEAST, INF = -(2**31), math.inf
VALUES = [math.nan, INF, -INF, 1e20, -1e20, 2.5, -2.5, -1.0, -0.5, 3e9, -3e9, 65535.0, 65536.0, 300.0, -300.0, 2.0**31]
NO = [LEAST] * 5
WANT = {
    ("int32", torch.float32): [*NO, 2, -2, -1, 0, LEAST, LEAST, 65535, 65536, 300, -300, LEAST],
    ("int32", torch.float64): [*NO, 2, -2, -1, 0, LEAST, LEAST, 65535, 65536, 300, -300, LEAST],
    ("uint32", torch.float32): [
        *[2**31] * 5, 2, 2**32 - 2, 2**32 - 1, 0, 3 * 10**9, 2**31, 65535, 65536, 300, 2**32 - 300, 2**31,
    ],
    ("uint32", torch.float64): [
        2**31, 0, 2**31, 0, 2**31, 2, 2**32 - 2, 2**32 - 1, 0, 3 * 10**9, 2**31, 65535, 65536, 300, 2**32 - 300, 2**31,
    ],
    ("uint16", torch.float32): [*[0] * 5, 2, 0, 0, 0, 0, 0, 65535, 65535, 300, 0, 0],
    ("uint16", torch.float64): [*[0] * 5, 2, 65534, 65535, 0, 0, 0, 65535, 0, 300, 65236, 0],
    ("uint8", torch.float32): [*[0] * 5, 2, 0, 0, 0, 0, 0, 255, 255, 255, 0, 0],
    ("uint8", torch.float64): [*[0] * 5, 2, 254, 255, 0, 0, 0, 255, 0, 44, 212, 0],
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "given"), WANT)
def test_floats(dtype, given):
    got = ttnn.to_torch(ttnn.from_torch(torch.tensor(VALUES, dtype=given), dtype=getattr(ttnn, dtype)))
    assert [int(v) for v in got.tolist()] == WANT[dtype, given]


def test_integers_wrap():
    values = torch.tensor([-1, -300, 256, 70000, 2**31, 2**32 + 5])
    want = {"int32": [-1, -300, 256, 70000, LEAST, 5], "uint32": [2**32 - 1, 2**32 - 300, 256, 70000, 2**31, 5]}
    want |= {"uint16": [65535, 65236, 256, 4464, 0, 5], "uint8": [255, 212, 0, 112, 0, 5]}
    for dtype, numbers in want.items():
        got = ttnn.to_torch(ttnn.from_torch(values, dtype=getattr(ttnn, dtype)))
        assert [int(v) for v in got.tolist()] == numbers, dtype
