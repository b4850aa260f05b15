"""Element-wise arithmetic of two operands, on the unit that the library's kernel takes, bit for bit in both modes.

Sums and differences are the FPU's unless both operands are float32; products and quotients the vector unit's unless a
block format is among the factors. The FPU's destination is fp32 where an operand or the result is float32.

Source    ttnn 0.81.1, BINARY_OP, BINARY_SFPU_OP and DST_ACCUM_MODE of the kernels that it builds, asked for ten ops in
          ten mixes of dtypes each
"""

import torch

from . import fpu, vector
from .common import operand, stored
from .rounding import BLOCK_FORMATS, FLOATS, HELD_AS, cast_integer, pack, scalar
from .unary import unary


def _on_fpu(a, b) -> bool:
    """Whether floats meet of which one at least is no float32 (a number is of the tensor's dtype)."""
    if not a.is_floating_point() or (torch.is_tensor(b) and not b.is_floating_point()):
        return False
    return a.dtype == torch.bfloat16 or (torch.is_tensor(b) and b.dtype == torch.bfloat16)


def _wide(a, b, dtype) -> bool:
    """Whether the destination is fp32."""
    return dtype == "float32" or a.dtype == torch.float32 or (torch.is_tensor(b) and b.dtype == torch.float32)


def _on_vector_unit(op, a, b, dtype):
    """One rounding of the float32 (or integer) result."""
    if not torch.is_tensor(b):
        if a.is_floating_point():
            b = scalar(b) if a.dtype == torch.bfloat16 else float(b)
        else:
            b = int(b) if float(b).is_integer() and op is not torch.true_divide else float(b)
    if not a.is_floating_point() and (not torch.is_tensor(b) or not b.is_floating_point()):
        y = op(a.to(torch.int64), b)
        return y.to(HELD_AS[dtype]) if dtype in FLOATS else cast_integer(y, dtype)
    if a.dtype == torch.bfloat16 and (not torch.is_tensor(b) or b.dtype == torch.bfloat16) and dtype != "float32":
        y = op(a, b)
        if dtype == "bfloat16":
            return y
    else:
        y = op(a.to(torch.float32), b.to(torch.float32) if torch.is_tensor(b) else b)
    return pack(y, dtype) if dtype in FLOATS else cast_integer(y, dtype)


def add(a, b, dtype, a_dtype=None, b_dtype=None):
    """a + b; b a tensor or a number (rounded to bfloat16 beside a bfloat16 tensor)."""
    if not _on_fpu(a, b):
        return _on_vector_unit(torch.add, a, b, dtype)
    return stored(fpu.add(a, operand(a, b), _wide(a, b, dtype)), dtype)


def sub(a, b, dtype, a_dtype=None, b_dtype=None):
    """a - b, as `add`."""
    if not _on_fpu(a, b):
        return _on_vector_unit(torch.sub, a, b, dtype)
    return stored(fpu.sub(a, operand(a, b), _wide(a, b, dtype)), dtype)


def rsub(a, b, dtype, a_dtype=None, b_dtype=None):
    """b - a, as `add`."""
    if not _on_fpu(a, b):
        return _on_vector_unit(torch.rsub, a, b, dtype)
    return stored(fpu.add(-a, operand(a, b), _wide(a, b, dtype)), dtype)


def squared_difference(a, b, dtype, a_dtype=None, b_dtype=None):
    """(a - b)^2: the difference as `sub` leaves it in the destination, squared by the vector unit."""
    if not _on_fpu(a, b):
        return _on_vector_unit(lambda x, y: (x - y) ** 2, a, b, dtype)
    d = fpu.sub(a, operand(a, b), _wide(a, b, dtype))
    return pack(d * d, dtype) if dtype in FLOATS else cast_integer(d * d, dtype)


def mul(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * b: one rounding; with a block format by the FPU, in four phases."""
    if _on_fpu(a, b) and {a_dtype, b_dtype} & set(BLOCK_FORMATS):
        return mul_on_fpu(a, b, dtype)
    return _on_vector_unit(torch.mul, a, b, dtype)


def mul_on_fpu(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * b by the FPU, in four phases."""
    if not _on_fpu(a, b):
        return _on_vector_unit(torch.mul, a, b, dtype)
    return stored(fpu.mul(a, operand(a, b), "HiFi4", _wide(a, b, dtype)), dtype)


def div(a, b, dtype, a_dtype=None, b_dtype=None):
    """a / b: one rounding, of float32 `vector.divide`; b a tensor or a number (rounded to bfloat16 beside a bfloat16
    tensor)."""
    if a.is_floating_point() and _wide(a, b, dtype) and dtype in FLOATS:
        b = b.float() if torch.is_tensor(b) else torch.tensor(float(b), dtype=torch.float32, device=a.device)
        return pack(vector.divide(a.float(), b), dtype)
    return _on_vector_unit(torch.true_divide, a, b, dtype)


def _activated(a, b, function: str):
    """A unary function of the second operand, in its own dtype."""
    b = operand(a, b) if a.dtype == torch.bfloat16 or torch.is_tensor(b) else torch.full_like(a, b)
    return unary(function, b, "float32" if b.dtype == torch.float32 else "bfloat16")


def div_fast(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * (1 / b), the reciprocal rounded, the product the FPU's."""
    return mul_on_fpu(a, _activated(a, b, "reciprocal"), dtype)


def ldexp(a, b, dtype, a_dtype=None, b_dtype=None):
    """a * 2^b, the power rounded, the product the FPU's."""
    return mul_on_fpu(a, _activated(a, b, "exp2"), dtype)
