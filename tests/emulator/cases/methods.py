"""Cases of tensor methods and operators."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Device, Refused, T
from ttnn_emulator import NotEmulated

from .data_movement import L1, RM

#: One operation on bfloat16: a rounding of 2^-9, twice where the operands are rounded on the way.
ROUNDED = 2.0**-8
#: 32 products of bfloat16 summed with the matrix unit's defaults (HiFi2, a bfloat16 running sum): recorded error
#: below 1 %.
PRODUCT = 0.01


def picked(index):
    return lambda x, _: x[index]


def matched(x, y):
    return x @ y


EVERY, PAIR = slice(None), (T((1, 1, 32, 64)), T((1, 1, 32, 64)))


def compare(function):
    return lambda x, y: function(x, y).float()


CASES = {
    "ttnn.Tensor.__getitem__": [
        Case(
            (T((1, 2, 64, 128)), (EVERY, EVERY, slice(63, 64), EVERY)), reference=picked((EVERY, EVERY, slice(63, 64)))
        ),
        Case(
            (T((1, 2, 64, 128)), (0, 0, slice(5, 9), slice(3, 100, 2))),
            reference=picked((0, 0, slice(5, 9), slice(3, 100, 2))),
        ),
        Case((T((1, 2, 64, 128)), (EVERY, EVERY, -1)), reference=picked((EVERY, EVERY, -1))),
        Case((T((1, 2, 64, 128)), (..., slice(0, 64))), reference=picked((..., slice(0, 64)))),
        Case((T((1, 2, 64, 128), layout=RM), 0), reference=picked(0)),
        Case((T((1, 2, 64, 128)), (0, 0, 3, 5)), reference=picked((0, 0, 3, 5))),
        Case((T((1, 2, 64, 128), host=True), (EVERY, 1)), reference=picked((EVERY, 1))),
        Refused(
            (T((1, 2, 32, 64)), 5), match="Index 5 .* is out of bounds for dimension 0 of size 1", error=IndexError
        ),
        Refused(
            (T((1, 2, 32, 64)), (0, 0, 0, 0, 0)), match="Too many indices for tensor of dimension 4", error=IndexError
        ),
        Refused((T((1, 2, 32, 64)), (..., 0, ...)), match="Only one ellipsis", error=ValueError),
        Refused((T((1, 2, 32, 64)), (..., None)), match="Invalid slice type: None", error=TypeError),
        Refused(
            (T((1, 2, 32, 64)), (EVERY, EVERY, slice(40, None))),
            match="End 32 must be greater than or equal to start 40",
        ),
        # Behind the end, asked of ttnn 0.81.1: padding is there to be had, what lies behind it is not.
        Case(
            (T((1, 1, 40, 64)), (EVERY, EVERY, slice(32, 64))),
            reference=lambda x, _: torch.nn.functional.pad(x[:, :, 32:], (0, 0, 0, 24)),
        ),
        Case((T((1, 1, 40, 64)), (EVERY, EVERY, slice(40, 40))), reference=picked((EVERY, EVERY, slice(40, 40)))),
        Refused((T((1, 1, 40, 64)), (EVERY, EVERY, slice(0, 65))), match="Ends 96 must be .* of the tensor 64"),
        Refused((T((1, 1, 40, 64)), (EVERY, EVERY, slice(10, 50))), match="Ends 50 must be .* of the tensor 40"),
        Refused(
            (T((1, 1, 40, 64)), (EVERY, EVERY, slice(64, 70))), match=r"Slice start\[2\] \(64\) must be less .* \(64\)"
        ),
        Refused((T((1, 1, 40, 64), layout=RM), (EVERY, EVERY, slice(0, 50))), match="Ends 50 must be .* tensor 40"),
        Refused((T((1, 1, 40, 64)), (EVERY, slice(2, 3))), match=r"Slice start\[1\] \(2\) must be less than .* \(1\)"),
        Refused((T((1, 1, 40, 64), host=True), (EVERY, slice(-1, None))), match="on the host", error=TypeError),
        Refused((T((1, 1, 40, 64), host=True), (EVERY, EVERY, slice(0, 40, 2))), match="non-unit stride"),
        Refused(
            (T((1, 1, 40, 64), host=True), (EVERY, EVERY, slice(0, 50))), match="behind the tensor", error=NotEmulated
        ),
    ],
    "ttnn.Tensor.reshape": [
        Case((T((1, 1, 32, 64)), [1, 32, 1, 64]), reference=lambda x, shape: x.reshape(shape)),
        Case((T((1, 1, 32, 64)), 1, 1, 64, -1), reference=lambda x, *shape: x.reshape(shape)),
        Refused((T((1, 1, 32, 64)), 32, 64), match="incompatible function arguments", error=TypeError),
        Refused((T((1, 1, 32, 64)), [1, 65]), match="Invalid arguments to reshape"),
    ],
    "ttnn.Tensor.cpu": [Case((T((1, 1, 20, 50), ttnn.bfloat8_b),), reference=lambda x: x)],
    "ttnn.Tensor.to": [
        Case((T((1, 1, 20, 50), host=True), Device(), L1), reference=lambda x, *_: x),
        Case((T((1, 1, 20, 50)), RM), reference=lambda x, *_: x),
        Refused((T((1, 1, 20, 50)), ttnn.float32), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.Tensor.to_torch": [Case((T((1, 1, 20, 50), ttnn.uint32),), reference=lambda x: x)],
    "ttnn.Tensor.__add__": [Case(PAIR, reference=torch.add, tolerance=ROUNDED)],
    "ttnn.Tensor.__radd__": [Case((PAIR[0], 2.0), reference=lambda x, n: n + x, tolerance=ROUNDED)],
    "ttnn.Tensor.__sub__": [Case(PAIR, reference=torch.sub, tolerance=ROUNDED)],
    "ttnn.Tensor.__mul__": [Case(PAIR, reference=torch.mul, tolerance=ROUNDED)],
    "ttnn.Tensor.__rmul__": [Case((PAIR[0], 2.0), reference=lambda x, n: n * x, tolerance=ROUNDED)],
    "ttnn.Tensor.__truediv__": [
        Case((PAIR[0], T((1, 1, 32, 64), low=1.0, high=2.0)), reference=torch.div, tolerance=ROUNDED),
    ],
    "ttnn.Tensor.__matmul__": [Case((T((1, 1, 32, 64)), T((1, 1, 64, 32))), reference=matched, tolerance=PRODUCT)],
    "ttnn.Tensor.__eq__": [Case((PAIR[0], 0.0), reference=compare(torch.eq))],
    "ttnn.Tensor.__ne__": [Case(PAIR, reference=compare(torch.ne))],
    "ttnn.Tensor.__lt__": [Case(PAIR, reference=compare(torch.lt))],
    "ttnn.Tensor.__le__": [Case(PAIR, reference=compare(torch.le))],
    "ttnn.Tensor.__gt__": [Case(PAIR, reference=compare(torch.gt))],
    "ttnn.Tensor.__ge__": [Case((PAIR[0], 0.5), reference=compare(torch.ge))],
}
