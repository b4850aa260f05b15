"""What a division leaves over, and whole quotients: `remainder`, `fmod`, `floor_div`."""

from __future__ import annotations

import torch

from ... import numerics
from ...dtypes import INTEGERS, DataType, Layout, cpp, float32, int32, uint8, uint16, uint32
from ...errors import DeviceRejects, NotEmulated
from ...memory import MemoryConfig
from ...numerics import rounding, vector
from ...op import op
from ...oplog import describe
from ...tensor import Tensor
from .binary import PAIRS, QUOTIENTS, WIDE, float_of_two, from_numerics, run


def _tensor_first(name: str, a, b) -> None:
    if not isinstance(a, Tensor):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    {describe(a)} as the first operand, {describe(b)}\n"
            "  want   a tensor"
        )


def _no_integer(kind: str, dtype: DataType) -> DeviceRejects:
    return DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(dtype)}")


def _steps(x, y, whole):
    """x - y * whole(x / y) in float32, every step rounded; of tensors with the vector unit's reciprocal."""
    return x - y * whole(x * (vector.reciprocal(y, 2) if y.ndim else 1 / y))


def _remainder_of(x, y):
    """The remainder of float32 tensors in the steps of `_sfpu_binary_remainder_` of the wheel."""
    left = _steps(x, y, torch.floor)
    left = torch.where((left != 0) & (left.signbit() != y.signbit()), left + y, left)
    less = left - y
    over = ((x > 0) & (y > 0) & (less >= 0)) | ((x < 0) & (y < 0) & (less <= 0))
    return torch.where(y == 0, torch.nan, torch.where(over, less, left))


def _fmod_of(x, y):
    """The same of `_sfpu_binary_fmod_`."""
    left, size = _steps(x, y, torch.trunc), y.abs()
    left = torch.where(left.abs() >= size, torch.where(left >= 0, left - size, left + size), left)
    short, over = (x >= 0) & (left < 0), (x < 0) & (left > 0)
    left = torch.where(short, left + size, torch.where(over, left - size, left))
    return torch.where(y == 0, torch.nan, torch.where(x == y, 0.0, left))


def _of_integers(name, exact, x, y, dtype):
    y = torch.as_tensor(y).to(torch.int64)
    if not bool(y.all()):
        raise NotEmulated(f"{name} of integers by 0 has no model in the emulator")
    return rounding.cast_integer(exact(x.to(torch.int64), y), dtype)


def _narrow(dtype) -> bool:
    """Whether values of this dtype come to the vector unit as bfloat16."""
    return dtype == "bfloat16" or dtype in rounding.BLOCK_FORMATS


def _remainder_by(x, y):
    """The same by a number."""
    left = _steps(x.abs(), y.abs(), torch.trunc).copysign(x)
    return torch.where((left != 0) & (left.sign() != y.sign()), left + y, left)


def _fmod_by(x, y):
    return _steps(x, y, torch.trunc)


def _left_over(name, exact, of_tensor, by_number):
    """What is left of a division: of integers `exact`, of float32 values by a tensor or by a number."""

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        if dtype not in rounding.FLOATS:
            return _of_integers(name, exact, x, y, dtype)
        if torch.is_tensor(y):
            left, stored = of_tensor(x.float(), y.float()), rounding.to_bf16_rna
        else:
            y = torch.tensor(y, dtype=torch.float32, device=x.device)
            left, stored = by_number(x.float(), y), rounding.to_bf16_truncated
        return rounding.pack(stored(left) if _narrow(a_dtype) else left, dtype)

    return compute


_remainder = _left_over("ttnn.remainder", torch.remainder, _remainder_of, _remainder_by)
_fmod = _left_over("ttnn.fmod", torch.fmod, _fmod_of, _fmod_by)


_RESULT = PAIRS._replace(makes=float_of_two)


@op("ttnn.remainder")
def remainder(
    input_tensor_a: Tensor, input_tensor_b, *, dtype: DataType | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None, activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(),
    sub_core_grids=None, sub_device_id=None,
) -> Tensor:  # fmt: skip
    """a - b * floor(a / b): it has the sign of b.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, int32, uint32, both the same; int32 and a float give float32
    Numerics  a - b * floor(a * (1 / b)) in float32, every step rounded, then corrected; stored half away from zero, by
              a number cut
    Source    recorded contract, op `ttnn.remainder`; newer vectors `binary`
    """
    a, b = input_tensor_a, input_tensor_b
    _tensor_first("ttnn.remainder", a, b)
    if not isinstance(b, Tensor):
        if a.dtype in (uint16, uint8):
            raise _no_integer("REMAINDER", a.dtype)
        if a.dtype is uint32 and not (isinstance(b, int) and b < 1 << 32):
            raise DeviceRejects("Expected integer scalar divisor (uint32 or int32)", f"it is {b}")
        if a.dtype is uint32 and b <= 0:
            raise DeviceRejects(f"Divisor must be positive, got {b}")
    return run(
        "ttnn.remainder", "REMAINDER", _remainder, _RESULT, a, b, dtype, memory_config, output_tensor, activations,
        input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip


@op("ttnn.fmod")
def fmod(
    input_tensor_a: Tensor, input_tensor_b=None, *, scalar=None, memory_config: MemoryConfig | None = None,
    sub_core_grids=None, sub_device_id=None,
) -> Tensor:  # fmt: skip
    """a - b * trunc(a / b): it has the sign of a.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, int32, both the same; int32 and a float give float32
    Numerics  a - b * trunc(a * (1 / b)) in float32, every step rounded, then corrected; stored half away from zero, by
              a number cut
    Source    recorded contract, op `ttnn.fmod`; newer vectors `binary`
    """
    a, b = input_tensor_a, scalar if input_tensor_b is None else input_tensor_b
    _tensor_first("ttnn.fmod", a, b)
    if not isinstance(b, Tensor) and a.dtype in INTEGERS and a.dtype is not int32:
        raise _no_integer("FMOD", a.dtype)
    rule = _RESULT._replace(accepted=WIDE - {uint32})
    return run("ttnn.fmod", "FMOD", _fmod, rule, a, b, memory_config=memory_config)


def _floored(x, y, dtype, a_dtype=None, b_dtype=None):
    q = from_numerics("div")(x, y, dtype, a_dtype, b_dtype)
    return numerics.now().unary("floor", q, dtype)


def _real(kind, a, b):
    """float32 of integers, else the dtype of the tensor."""
    return float32 if a in INTEGERS else a


@op("ttnn.floor_div")
def floor_div(
    input_tensor_a: Tensor, input_tensor_b=None, *, value=None, memory_config: MemoryConfig | None = None
) -> Tensor:
    """The quotient, rounded down; a float, also of integers.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    as `div`; integers by a number give float32
    Layout    two tensors: TILE
    Numerics  the quotient as `div` leaves it, then rounded down
    Source    recorded contract, op `ttnn.floor_div`; newer vectors `binary`
    """
    name, a, b = "ttnn.floor_div", input_tensor_a, value if input_tensor_b is None else input_tensor_b
    _tensor_first(name, a, b)
    if isinstance(b, Tensor):
        if a.layout is b.layout is Layout.ROW_MAJOR:
            raise DeviceRejects(
                "Ternary operation requires tensor to be in Tile layout when working with non-sharded input tensor. "
                "Input tensor layout: 0"
            )
        return run(name, "DIV", _floored, QUOTIENTS, a, b, memory_config=memory_config)
    if a.dtype is uint16:
        raise _no_integer("FLOOR", a.dtype)
    rule = QUOTIENTS._replace(makes=_real)
    return run(name, "MUL", _floored, rule, a, b, memory_config=memory_config, integral=False)
