"""Binary ops with rules of their own: isclose, atan2, addalpha and subalpha, logical shifts."""

from __future__ import annotations

import functools
import math

import torch

from ...config import UnaryOpType, UnaryWithParam
from ...dtypes import FLOATS, INTEGERS, NAME, bfloat16, cpp, float32, int32, uint8, uint32
from ...errors import NotEmulated
from ...memory import MemoryConfig
from ...numerics import rounding, vector
from ...numerics.activations import polynomial
from ...op import described, op
from ...oplog import describe
from ...tensor import Tensor
from ..core.copying import typecast
from .binary import FLOAT_PAIRS, SUMS, WHOLE, Rule, first_dtype, from_numerics, operand, plain, run
from .elementwise import bitwise, combination


def _two(name: str, *given) -> None:
    if not all(isinstance(v, Tensor) for v in given):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    {', '.join(map(describe, given))}\n"
            "  want   two tensors"
        )


# ---------------------------------------------------------------- isclose


def _alike_or_wide(a, b) -> bool:
    """Both the same, or bfloat16 with float32."""
    return a is b or {a, b} == {bfloat16, float32}


CLOSE = Rule(FLOATS, _alike_or_wide, first_dtype)


@functools.lru_cache(256)
def _close(rtol: float, atol: float, equal_nan: bool):
    """The compute for these tolerances: one function each, by which `run` knows a call again."""

    def compute(x, y, dtype, a_dtype=None, b_dtype=None):
        x, y = torch.broadcast_tensors(x.float(), y.float())
        near = (x - y).abs() <= vector.fma(y.abs(), vector.f32(rtol), vector.f32(atol))
        special = ~(x.isfinite() & y.isfinite())
        same = (x.isinf() & (x == y)) | ((x.isnan() & y.isnan()) if equal_nan else torch.zeros_like(near))
        return rounding.pack(torch.where(special, same, near).float(), dtype)

    return compute


@op("ttnn.isclose")
def isclose(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, rtol: float = 9.999999747378752e-06,
    atol: float = 9.99999993922529e-09, equal_nan: bool = False, memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """1 where |a - b| <= atol + rtol * |b|.

    Shapes    two that broadcast (the last two dims only 1 against n)
    Dtypes    floats, both the same or bfloat16 with float32; int32 is cast to float32 first; a's comes out
    Numerics  in float32; of infinities only equal ones are close, nans where equal_nan says so
    Source    ttnn 0.81.1: asked pair by pair; the kernel's steps
    """
    name = "ttnn.isclose"
    _two(name, input_tensor_a, input_tensor_b)
    a, b = (
        typecast(t, float32) if operand(t, label).dtype is int32 else t
        for t, label in ((input_tensor_a, "A"), (input_tensor_b, "B"))
    )
    return run(name, "ISCLOSE", _close(rtol, atol, equal_nan), CLOSE, a, b, memory_config=memory_config)


# ---------------------------------------------------------------- atan2

#: atan(a) / a - 1 over a^2 on [0, 1], lowest power of a^2 first, by the destination.
_ATAN = {
    False: ("-0x1.54p-2", "0x1.668p-3", "-0x1.de8p-5"),
    True: ("-0x1.555558p-2", "0x1.99938ap-3", "-0x1.24p-3", "0x1.bd4p-4", "-0x1.48cp-4", "0x1.93p-5", "-0x1.4bcp-6",
           "0x1.01cp-8"),
}  # fmt: skip


def _angle(y, x, dtype, a_dtype=None, b_dtype=None):
    wide = y.dtype == torch.float32
    y, x = torch.broadcast_tensors(y.float(), x.float())
    low, high = torch.minimum(x.abs(), y.abs()), torch.maximum(x.abs(), y.abs())
    a = low * vector.reciprocal(high, 2 if wide else 1)
    s = a * a
    r = vector.fma(polynomial(s, [float.fromhex(c) for c in _ATAN[wide]]) * s, a, a)
    half = vector.f32(math.pi / 2)
    r = torch.where(x.abs() <= y.abs(), half - r, r)
    r = torch.where(low == high, torch.where(high == 0, 0.0, half / 2), r)
    r = torch.where(torch.signbit(x), 2 * half - r, r)
    r = torch.copysign(r if wide else r.bfloat16().float(), y)
    return rounding.pack(torch.where(x.isnan() | y.isnan(), torch.nan, r), dtype)


@op("ttnn.atan2")
def atan2(input_tensor_a: Tensor, input_tensor_b: Tensor, *, memory_config: MemoryConfig | None = None) -> Tensor:
    """The angle of the point (b, a).

    Shapes    two that broadcast (the last two dims only 1 against n)
    Dtypes    bfloat16, float32, bfloat8_b, bfloat4_b, both the same
    Numerics  the smaller over the larger by its reciprocal, a polynomial, one rounding
    Source    ttnn 0.81.1: asked dtype by dtype; `ckernel_sfpu_atan2.h`, not recorded on a chip
    """
    _two("ttnn.atan2", input_tensor_a, input_tensor_b)
    return run("ttnn.atan2", "ATAN2", _angle, FLOAT_PAIRS, input_tensor_a, input_tensor_b, memory_config=memory_config)


# ---------------------------------------------------------------- addalpha, subalpha


def scaled(name: str, kind: str, numeric: str, doc: str):
    """The op `ttnn.<name>`: a and b times a number."""
    full = f"ttnn.{name}"

    @op(full)
    def call(
        input_tensor_a: Tensor, input_tensor_b: Tensor, alpha: float, *, memory_config: MemoryConfig | None = None,
        output_tensor: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        a, b = input_tensor_a, input_tensor_b
        _two(full, a, b)
        if {a.dtype, b.dtype} <= INTEGERS - {uint8}:
            raise NotEmulated(f"{full} of {cpp(a.dtype)} has no model in the emulator: ttnn.multiply, then ttnn.add")
        on_b = (UnaryWithParam(UnaryOpType.MUL_UNARY_SFPU, alpha),)
        return run(
            full, kind, from_numerics(numeric), SUMS, a, b, None, memory_config, output_tensor, on_b=on_b
        )  # fmt: skip

    call.__doc__ = described(
        doc, Shapes="two that broadcast (the last two dims only 1 against n)",
        Dtypes="floats; the first's comes out (integers, whose bits the library scales, are not emulated)",
        Numerics="the product cut to the dtype of b, then as the sum",
        Source="ttnn 0.81.1: asked dtype by dtype; the kernel that it builds",
    )  # fmt: skip
    return call


addalpha = scaled("addalpha", "ADD", "add", "a + alpha * b, one program.")
subalpha = scaled("subalpha", "SUB", "sub", "a - alpha * b, one program.")


# ---------------------------------------------------------------- logical shifts


def _unsigned_shift(x, y):
    """The bits of a 32-bit integer towards the low end, zeros behind them; none is left of a shift out of range."""
    bits = x & 0xFFFFFFFF
    return torch.where((y < 0) | (y > 31), 0, bits >> y.clamp(0, 31))


def shift(form, name: str, kind: str, function, rule: Rule, doc: str):
    """The op `ttnn.<name>`, called as the ops of `form`."""
    call = form(f"ttnn.{name}", kind, plain(function), rule)
    call.__doc__ = described(
        doc, Shapes="two that broadcast (the last two dims only 1 against n), or a tensor and an integer",
        Dtypes=", ".join(sorted(NAME[d] for d in rule.accepted)) + ", both the same; kept",
        Source="ttnn 0.81.1: asked dtype by dtype; the kernel's steps",
    )  # fmt: skip
    return op(f"ttnn.{name}")(call)


#: One takes whole numbers only, the other any.
logical_left_shift = shift(
    bitwise, "logical_left_shift", "LEFT_SHIFT", torch.bitwise_left_shift, WHOLE, "a * 2^b, bit by bit."
)
logical_right_shift = shift(
    combination, "logical_right_shift", "LOGICAL_RIGHT_SHIFT", _unsigned_shift,
    Rule(frozenset((int32, uint32)), *WHOLE[1:]),
    "The bits of a towards the low end, without its sign.",
)  # fmt: skip
