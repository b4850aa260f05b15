"""Gated units: one half of the last dim times a function of the other."""

from __future__ import annotations

from ... import numerics
from ...config import GeluVariant
from ...dtypes import INTEGERS, NAME, cpp, uint8
from ...errors import DeviceRejects
from ...launch import finish
from ...memory import MemoryConfig
from ...op import described, op
from ...tensor import Tensor
from ..core.sharding import binary_memory, result
from .binary import operand


def gated(name: str, kind: str, doc: str, gate: str):
    """The op `ttnn.<name>`: the first half of the last dim times `gate` of the second."""
    full = f"ttnn.{name}"

    @op(full, lacks=() if name == "geglu" else ("variant",))
    def call(
        input_tensor: Tensor, dim: int = -1, *, memory_config: MemoryConfig | None = None,
        variant: GeluVariant = GeluVariant.Accurate,
    ) -> Tensor:  # fmt: skip
        x = operand(input_tensor, "A")
        rank = len(x.spec.shape)
        if dim not in (-1, rank - 1):
            raise DeviceRejects(f"glu-family ops only support the last dimension, got dim={dim}")
        if rank < 4:
            raise DeviceRejects(f"ShapeBase[] index out of range. 3 not in [-4, {rank})")
        if x.spec.padded_shape[-1] % 64 or x.spec.shape[-1] != x.spec.padded_shape[-1]:
            raise DeviceRejects("Split tensor dimension should be in full tile")
        if x.dtype in INTEGERS and (kind != "RELU" or x.dtype is uint8):
            if kind == "RELU":
                raise DeviceRejects(
                    f"Input tensor A dtype {cpp(x.dtype)} is not supported for binary operation BinaryOpType::MUL"
                )
            raise DeviceRejects(f"Unary: UnaryOpType::{kind} does not support integer input dtype {cpp(x.dtype)}")
        function = "gelu_tanh" if variant is GeluVariant.Tanh else gate
        params = {"fast_and_approximate_mode": True} if variant is GeluVariant.FastLut else {}
        half, dtype = x.spec.shape[-1] // 2, NAME[x.dtype]
        out = result((*x.spec.shape[:-1], half), x.dtype, x.layout, binary_memory(x, None, x.spec.shape, memory_config))

        def compute(v):
            n = numerics.now()
            return n.mul(v[..., :half], n.unary(function, v[..., half:], dtype, **params), dtype, dtype, dtype)

        return finish(full, (x,), out, compute, flops=2 * out.shape.volume())

    call.__doc__ = described(
        doc, Shapes="[..., 2n] -> [..., n], n in whole tiles, rank 4", Dtypes="floats; kept", Layout="TILE",
        Source="ttnn 0.81.1: recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


glu = gated("glu", "SIGMOID", "a * sigmoid(b), of the halves a and b of the last dim.", "sigmoid")
swiglu = gated("swiglu", "SILU", "a * silu(b), of the halves a and b of the last dim.", "silu")
geglu = gated("geglu", "GELU", "a * gelu(b), of the halves a and b of the last dim.", "gelu")
reglu = gated("reglu", "RELU", "a * relu(b), of the halves a and b of the last dim.", "relu")
