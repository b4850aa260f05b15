"""Element-wise ops that are steps of others: `hypot`, `bias_gelu`, `div_no_nan`, `polyval`."""

from __future__ import annotations

import functools

import torch

from ... import numerics
from ...dtypes import BLOCK_FORMATS, FLOATS, INTEGERS, DataType, bfloat16, cpp, uint8
from ...errors import DeviceRejects
from ...memory import MemoryConfig
from ...numerics import fpu, rounding
from ...op import op
from ...oplog import describe
from ...tensor import Tensor
from ..core.creation import full_like
from .binary import (
    BUT_BYTES,
    FLOAT_PAIRS,
    QUOTIENTS,
    WIDE,
    Rule,
    check_scalar,
    float_of_two,
    floats_mix,
    from_numerics,
    number,
    run,
)
from .elementwise import add, multiply


def _tensors(name: str, *given) -> None:
    if not all(isinstance(v, Tensor) for v in given):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    {', '.join(map(describe, given))}\n"
            "  want   a tensor first" + ("" if len(given) == 1 else ", and another one")
        )


def _hypotenuse(x, y, dtype, a_dtype=None, b_dtype=None):
    if x.dtype == torch.float32:
        return torch.sqrt(x * x + y * y)
    root = torch.sqrt(fpu.add(x * x, y * y, False).float())
    return rounding.pack(root, dtype) if dtype in rounding.BLOCK_FORMATS else root.to(rounding.HELD_AS[dtype])


@op("ttnn.hypot")
def hypot(input_tensor_a: Tensor, input_tensor_b: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """sqrt(a^2 + b^2).

    Shapes    two that broadcast (the last two dims only 1 against n)
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, both the same
    Numerics  the squares rounded, their sum the FPU's
    Source    recorded vectors `hypot`; ttnn 0.81.1, dtypes asked one by one
    """
    a, b = input_tensor_a, input_tensor_b
    _tensors("ttnn.hypot", a, b)
    return run("ttnn.hypot", "HYPOT", _hypotenuse, FLOAT_PAIRS, a, b, memory_config=memory_config)


def _gelu_of_sum(how: dict, x, y, dtype, a_dtype=None, b_dtype=None):
    # Of two tensors it is one program; with a number two, and the sum is stored between them.
    n, between = numerics.now(), "bfloat16" if torch.is_tensor(y) and dtype != "float32" else dtype
    return n.unary("gelu", n.add(x, y, between, a_dtype, b_dtype), dtype, **how)


#: By `fast_and_approximate_mode`.
_GELU = {
    False: functools.partial(_gelu_of_sum, {}),
    True: functools.partial(_gelu_of_sum, {"fast_and_approximate_mode": True}),
}


@op("ttnn.bias_gelu")
def bias_gelu(
    input_tensor_a: Tensor, input_tensor_b, *, fast_and_approximate_mode: bool = False, dtype: DataType | None = None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, activations=(),
    input_tensor_a_activations=(), input_tensor_b_activations=(), sub_core_grids=None, sub_device_id=None,
) -> Tensor:  # fmt: skip
    """gelu(a + b).

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, both the same
    Numerics  the sum rounded before gelu
    Source    recorded vectors `bias_gelu`; ttnn 0.81.1, dtypes asked one by one
    """
    a, b = input_tensor_a, input_tensor_b
    _tensors("ttnn.bias_gelu", a)
    if not isinstance(b, Tensor) and a.dtype in INTEGERS:
        if a.dtype is uint8:
            raise DeviceRejects(
                f"Input tensor A dtype {cpp(a.dtype)} is not supported for binary operation BinaryOpType::ADD"
            )
        check_scalar("ADD", a.dtype, number("ttnn.bias_gelu", b))
        raise DeviceRejects(f"Unary: UnaryOpType::GELU does not support integer input dtype {cpp(a.dtype)}")
    return run(
        "ttnn.bias_gelu", "BIAS_GELU", _GELU[fast_and_approximate_mode], FLOAT_PAIRS, a, b, dtype, memory_config,
        output_tensor, activations, input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip


@op("ttnn.bias_gelu_")
def bias_gelu_(
    input_a: Tensor, input_b, *, activations=(), input_tensor_a_activations=(), input_tensor_b_activations=(),
    sub_core_grids=None, sub_device_id=None,
) -> Tensor:  # fmt: skip
    """gelu(a + b), written into a.

    Shapes    two that broadcast to a's, or a tensor and a number
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, both the same
    Numerics  as bias_gelu
    Source    ttnn 0.81.1, dtypes asked one by one
    """
    _tensors("ttnn.bias_gelu_", input_a)
    return run(
        "ttnn.bias_gelu_", "BIAS_GELU", _GELU[False], FLOAT_PAIRS, input_a, input_b, None, None, input_a,
        activations, input_tensor_a_activations, input_tensor_b_activations,
    )  # fmt: skip


def _or_zero(x, y, dtype, a_dtype=None, b_dtype=None):
    q = from_numerics("div")(x, y, dtype, a_dtype, b_dtype)
    return torch.where(y == 0, torch.zeros((), dtype=q.dtype, device=q.device), q)


@op("ttnn.div_no_nan")
def div_no_nan(
    input_tensor_a: Tensor, input_tensor_b=None, *, value=None, memory_config: MemoryConfig | None = None
) -> Tensor:
    """a / b, 0 where b is 0; a number is a factor of 1 / b.

    Shapes    two that broadcast, or a tensor and a number
    Dtypes    as `div`, but floats that differ: the quotient's dtype must be b's where that is a float
    Source    recorded vectors `div_no_nan`; ttnn 0.81.1, dtypes asked one by one
    """
    name, a, b = "ttnn.div_no_nan", input_tensor_a, value if input_tensor_b is None else input_tensor_b
    _tensors(name, a)
    if not isinstance(b, Tensor):
        b = number(name, b)
        factor = 1 / b if b else 0.0
        return run(
            name, "MUL", from_numerics("mul"), Rule(BUT_BYTES, floats_mix, float_of_two), a, factor,
            memory_config=memory_config, integral=False,
        )  # fmt: skip
    if a.dtype in WIDE and b.dtype in FLOATS:
        made = a.dtype if a.dtype in FLOATS else bfloat16 if b.dtype in BLOCK_FORMATS else b.dtype
        if made is not b.dtype:
            raise DeviceRejects(
                "Mixed dtype is not supported for binary operation BinaryOpType::WHERE_TST, "
                f"dtype A: {cpp(b.dtype)}, dtype B: {cpp(made)}"
            )
    return run(name, "DIV", _or_zero, QUOTIENTS, a, b, memory_config=memory_config)


@op("ttnn.polyval")
def polyval(input_tensor_a: Tensor, coeffs, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """The polynomial with these coefficients, the highest power first.

    Shapes    any; kept
    Dtypes    as a product with a float: int32 and uint32 give float32
    Numerics  Horner's rule, every step as `multiply` and `add`
    Source    recorded vector `polyval`; ttnn 0.81.1, dtypes asked one by one
    """
    x = input_tensor_a
    _tensors("ttnn.polyval", x)
    if not coeffs:
        raise DeviceRejects("polyval requires at least one coefficient")
    first, *rest = map(float, coeffs)
    if not rest:
        return full_like(x, first, memory_config=memory_config)
    y = multiply(x, first, memory_config=memory_config)
    for i, c in enumerate(rest):
        y = add(y if i == 0 else multiply(x, y, memory_config=memory_config), c, memory_config=memory_config)
    return y
