"""Gated units: one half of the last dim times a function of the other."""

from __future__ import annotations

from ... import numerics
from ...config import GeluVariant, UnaryOpType, UnaryWithParam
from ...dtypes import INTEGERS, NAME, Layout, cpp, uint8
from ...errors import DeviceRejects, NotEmulated
from ...launch import finish
from ...memory import MemoryConfig
from ...op import described, op
from ...tensor import Tensor
from ..core.sharding import binary_memory, result
from .binary import PRODUCTS, from_numerics, operand, run
from .elementwise import multiply
from .special import check_softcap, softcap
from .unary import sigmoid


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


def _both(name: str, gate: Tensor, up: Tensor) -> None:
    for t in (gate, up):
        if operand(t, "A" if t is gate else "B").dtype in INTEGERS - {uint8}:
            raise NotEmulated(f"ttnn.{name} of {cpp(t.dtype)} has no model in the emulator")


@op("ttnn.clamped_silu_glu")
def clamped_silu_glu(
    gate: Tensor, up: Tensor, limit: float, *, memory_config: MemoryConfig | None = None, sub_core_grids=None,
    sub_device_id=None,
) -> Tensor:  # fmt: skip
    """silu(min(gate, limit)) * clamp(up, -limit, limit), one program.

    Shapes    two that broadcast (the last two dims only 1 against n)
    Dtypes    floats; the gate's comes out (integers, of which the library takes the bits, are not emulated)
    Numerics  as multiply with activations on its operands
    Source    ttnn 0.81.1: asked dtype by dtype; the activations in the kernel that it builds
    """
    if not limit > 0:
        raise DeviceRejects(f"clamped_silu_glu: limit must be positive, got {limit:g}")
    _both("clamped_silu_glu", gate, up)
    on_gate = (UnaryWithParam(UnaryOpType.MINIMUM, limit), UnaryWithParam(UnaryOpType.SILU))
    on_up = (UnaryWithParam(UnaryOpType.CLAMP_TSS, -limit, limit),)
    return run(
        "ttnn.clamped_silu_glu", "MUL", from_numerics("mul"), PRODUCTS, gate, up, None, memory_config,
        on_a=on_gate, on_b=on_up,
    )  # fmt: skip


@op("ttnn.situ_glu")
def situ_glu(
    gate: Tensor, up: Tensor, beta1: float, beta2: float, *, memory_config: MemoryConfig | None = None,
    sub_core_grids=None, sub_device_id=None,
) -> Tensor:  # fmt: skip
    """softcap(gate, beta1) * sigmoid(gate) * softcap(up, beta2), on Blackhole only.

    Shapes    two that broadcast (the last two dims only 1 against n)
    Dtypes    bfloat16, bfloat8_b
    Layout    TILE
    Numerics  five programs, every step stored
    Raises    on Wormhole; for a beta of 0
    Source    ttnn 0.81.1: asked on n150 and p150; the steps by graph capture
    """
    if not beta1 or not beta2:
        raise DeviceRejects("situ_glu: beta1 and beta2 must be non-zero")
    check_softcap(operand(gate, "A"), beta1)
    check_softcap(operand(up, "B"), beta2)
    if gate.layout is not Layout.TILE:
        raise DeviceRejects(
            "Optional output tensor with Row Major input is not supported right now for Elementwise operations"
        )
    memory = {"memory_config": memory_config}
    capped = multiply(softcap(gate, beta1, **memory), sigmoid(gate, **memory), **memory)
    return multiply(capped, softcap(up, beta2, **memory), **memory)
