"""Ops that the library runs as several programs: bit for bit the same calls one after another, in both numerics."""

import pytest
import torch

import ttnn_emulator as ttnn
from tests.numerics import recorded
from ttnn_emulator import numerics

BF16, BF8, BF4, FP32 = ttnn.bfloat16, ttnn.bfloat8_b, ttnn.bfloat4_b, ttnn.float32


def halves(x):
    return (ttnn.slice(x, (0, 0, 0, start), (1, 2, 64, start + 32)) for start in (0, 32))


def cast_between(move):
    """A move of a block format: in bfloat16, and packed anew."""
    return lambda x, *_: ttnn.typecast(move(ttnn.typecast(x, BF16)), x.dtype)


def moved(move):
    return (lambda x, *_: move(x)), cast_between(move)


def gated(op, function):
    def steps(x, *_):
        a, b = halves(x)
        return ttnn.multiply(a, function(b))

    return (lambda x, *_: op(x)), steps


def along_the_last(op):
    def steps(x, *_):
        turned = cast_between(lambda v: ttnn.permute(v, (3, 2, 1, 0)))
        return turned(op(turned(x), 0))

    return (lambda x, *_: op(x, -1)), steps


def without_the_dim(op):
    return (lambda x, *_: op(x, -1)), (lambda x, *_: ttnn.reshape(op(x, -1, keepdim=True), (1, 2, 64)))


FLOAT = {
    "addmm": (
        lambda x, y, z: ttnn.addmm(x, y, z, alpha=1.5, beta=0.3),
        lambda x, y, z: ttnn.add(ttnn.multiply(ttnn.matmul(y, z), 1.5), ttnn.multiply(x, 0.3)),
    ),
    "glu": gated(ttnn.glu, ttnn.sigmoid),
    "swiglu": gated(ttnn.swiglu, ttnn.silu),
    "geglu": gated(ttnn.geglu, ttnn.gelu),
    "reglu": gated(ttnn.reglu, ttnn.relu),
    "bias_gelu": (lambda x, *_: ttnn.bias_gelu(x, 0.7), lambda x, *_: ttnn.gelu(ttnn.add(x, 0.7))),
    "floor_div": (lambda x, y, _: ttnn.floor_div(x, y), lambda x, y, _: ttnn.floor(ttnn.div(x, y))),
    "polyval": (
        lambda x, *_: ttnn.polyval(x, [0.3, -1.7, 2.1]),
        lambda x, *_: ttnn.add(ttnn.multiply(x, ttnn.add(ttnn.multiply(x, 0.3), -1.7)), 2.1),
    ),
    "mac": (lambda x, *_: ttnn.mac(x, 0.3, 1.7), lambda x, *_: ttnn.add(ttnn.multiply(x, 0.3), 1.7)),
    "attention_softmax": (
        lambda x, *_: ttnn.transformer.attention_softmax(x, head_size=48),
        lambda x, *_: ttnn.softmax(ttnn.multiply(x, 48**-0.5), -1),
    ),
}
BLOCKS = {
    "addcdiv": (
        lambda x, y, z: ttnn.addcdiv(x, y, z, value=0.7),
        lambda x, y, z: ttnn.add(x, ttnn.div(ttnn.multiply(y, 0.7), z)),
    ),
    "reshape": moved(lambda x: ttnn.reshape(x, (1, 2, 32, 128))),
    "transpose": moved(lambda x: ttnn.transpose(x, -2, -1)),
    "permute": moved(lambda x: ttnn.permute(x, (0, 1, 3, 2))),
    "repeat_interleave": moved(lambda x: ttnn.repeat_interleave(x, 2, 3)),
    "cumsum": along_the_last(ttnn.cumsum),
    "cumprod": along_the_last(ttnn.cumprod),
    "sum": without_the_dim(ttnn.sum),
    "mean": without_the_dim(ttnn.mean),
    "max": without_the_dim(ttnn.max),
}
CASES = [(name, BF16) for name in FLOAT] + [(name, BF8) for name in (*FLOAT, *BLOCKS)]
CASES += [(name, FP32) for name in FLOAT if name != "mac"]


@pytest.mark.parametrize("mode", numerics.MODES)
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda v: v if isinstance(v, str) else v.name)
def test_as_its_steps(name, dtype, mode):
    op, steps = (FLOAT | BLOCKS)[name]
    random = torch.Generator().manual_seed(3)
    values = (torch.randn(1, 2, 64, 64, generator=random).exp().clamp(0.3, 3) for _ in range(3))
    operands = [ttnn.from_torch(v, dtype=dtype, layout=ttnn.TILE_LAYOUT, device=recorded.device()) for v in values]
    with numerics.use(mode):
        got, want = (ttnn.to_torch(f(*operands)) for f in (op, steps))
    assert got.dtype == want.dtype
    assert torch.equal(got, want)
