"""Block floats: the recorded host conversions bit for bit, the library's own bytes, and the properties of a format."""

import pathlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.numerics import fpu_reference as oracle
from ttnn_emulator import blockfloat

DATA = pathlib.Path(__file__).parents[1] / "data"
FORMATS = list(blockfloat.MAGNITUDE_BITS)
RECORDED = np.load(DATA / "block_formats.npz")
SETS = sorted({name.split(".")[0] for name in RECORDED.files})


def patterns(t):
    return t.contiguous().view(torch.int16)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", SETS)
def test_recorded_host_conversion(name, dtype):
    """ttnn 0.81.1: to_torch(from_torch(x, dtype, TILE)), infinities, nans, denormals, ties and saturation included."""
    x = torch.from_numpy(RECORDED[f"{name}.in"].view(np.float32))
    want = RECORDED[f"{name}.{'bfp8' if dtype == 'bfloat8_b' else 'bfp4'}"]
    np.testing.assert_array_equal(blockfloat.quantise(x, dtype).float().numpy().view(np.uint32), want)


@pytest.mark.parametrize("dtype", FORMATS)
def test_bytes_are_the_librarys(dtype):
    """Tiles as ttnn 0.81.1 writes them (`ttnn.dump_tensor` of a host tensor): 64 exponents, then the values."""
    sample = np.load(DATA / "block_tiles.npz")
    x = blockfloat.quantise(torch.from_numpy(sample["x"]), dtype)
    packed = blockfloat.pack(x, dtype)
    assert packed.shape == (2, 3, blockfloat.TILE_BYTES[dtype])
    np.testing.assert_array_equal(packed.flatten().numpy(), sample[dtype])
    assert torch.equal(blockfloat.unpack(packed, dtype), x)


@pytest.mark.parametrize("dtype", FORMATS)
def test_known_values(dtype):
    """A block whose largest value is in [1, 2): steps of 2^-6 or 2^-2, saturating at one step below 2."""
    step, top = (2.0**-6, 1.984375) if dtype == "bfloat8_b" else (0.25, 1.75)
    x = torch.tensor([1.0, 1.9999, -1.9999, step, step / 2, 1.5 * step, 2.5 * step, -0.0, 1e-40, -step / 4] + [0.0] * 6)
    want = [1.0, top, -top, step, 0.0, 2 * step, 2 * step, 0.0, 0.0, 0.0] + [0.0] * 6
    got = blockfloat.quantise(x, dtype)
    assert got.tolist() == want
    assert not torch.signbit(got[7:]).any()


def sample(seed, rows, width, spread, dtype):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=g) * torch.exp2(
        torch.randint(-spread, spread + 1, (rows, width), generator=g)
    )
    return x.to(dtype)


samples = st.builds(
    sample, st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 70), st.integers(0, 12),
    st.sampled_from([torch.float32, torch.bfloat16]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(samples, st.sampled_from(FORMATS), st.sampled_from(blockfloat.ROUNDINGS))
def test_properties(x, dtype, rounding):
    q = blockfloat.quantise(x, dtype, rounding)
    assert q.dtype == torch.bfloat16
    assert q.shape == x.shape
    # odd
    assert torch.equal(blockfloat.quantise(-x, dtype, rounding), -q)
    # scales by powers of two
    assert torch.equal(blockfloat.quantise(x * 8, dtype, rounding), q * 8)
    # idempotent: a block's largest value keeps its exponent
    assert torch.equal(blockfloat.quantise(q, dtype, rounding), q)
    # bounded error: half a step of the block's largest value, a whole one when cut or saturated
    bits = blockfloat.MAGNITUDE_BITS[dtype]
    blocks = torch.nn.functional.pad(x.float(), (0, -x.shape[-1] % 16)).reshape(x.shape[0], -1, 16)
    exponent = torch.frexp(blocks.abs().amax(-1, keepdim=True)).exponent - 1
    step = torch.exp2((exponent - (bits - 1)).float()).expand(blocks.shape).reshape(x.shape[0], -1)[:, : x.shape[-1]]
    saturated = q.float().abs() == step * (2**bits - 1)
    limit = torch.where(saturated | (rounding == "trunc"), 1.0, 0.5) * step
    assert ((q.float() - x.float()).abs() <= limit).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS), st.sampled_from(blockfloat.ROUNDINGS))
def test_bfloat16_input_is_the_oracle(seed, dtype, rounding):
    u = np.random.default_rng(seed).integers(0, 0x7F80, (8, 32)).astype(np.uint16)
    u ^= (np.random.default_rng(seed + 1).integers(0, 2, u.shape) << 15).astype(np.uint16)
    x = torch.from_numpy(u.view(np.int16)).view(torch.bfloat16)
    want = oracle.bfp_quantise(u, blockfloat.MAGNITUDE_BITS[dtype], rounding)
    keep = want & 0x7F80 != 0  # the oracle does not spell out denormal results
    np.testing.assert_array_equal(
        patterns(blockfloat.quantise(x, dtype, rounding)).numpy().view(np.uint16)[keep], want[keep]
    )


@pytest.mark.parametrize("rounding", blockfloat.ROUNDINGS)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
@pytest.mark.parametrize("turned", [False, True])
def test_compiled_kernel_is_the_torch_formula(kind, dtype, rounding, turned):
    """On all kinds of bit patterns; a transposed view is neither copied nor given other strides."""
    g = torch.Generator().manual_seed(4)
    shape = (3, 40, 528)
    if kind == "bfloat16":
        x = torch.randint(-(2**15), 2**15, shape, generator=g).to(torch.int16).view(torch.bfloat16)
    else:
        x = torch.randint(-(2**31), 2**31, shape, generator=g).to(torch.int32).view(torch.float32)
    x = x.mT.contiguous().mT if turned else x
    got = blockfloat._quantise_compiled(x, blockfloat.MAGNITUDE_BITS[dtype], rounding)
    want = blockfloat._quantise_torch(x, blockfloat.MAGNITUDE_BITS[dtype], rounding)
    assert torch.equal(patterns(got), patterns(want))
    assert got.stride() == want.stride() == x.stride()


def test_large_tensors_take_the_kernel(monkeypatch):
    seen = []
    monkeypatch.setattr(blockfloat, "_quantise_compiled", lambda x, *rest: seen.append(x.shape) or x)
    for shape in ((64, 512), (64, 511), (4, 16)):
        blockfloat.quantise(torch.ones(shape), "bfloat8_b")
    assert seen == [(64, 512)]


@pytest.mark.parametrize("shape", [(), (1,), (0, 16), (2, 0), (1, 1, 1, 17)])
def test_odd_shapes(shape):
    q = blockfloat.quantise(torch.ones(shape), "bfloat8_b")
    assert q.shape == shape
    assert (q == 1).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match="bfloat16"):
        blockfloat.quantise(torch.ones(16), "bfloat16")
    with pytest.raises(ValueError, match="up"):
        blockfloat.quantise(torch.ones(16), "bfloat8_b", "up")
    with pytest.raises(ValueError, match="33"):
        blockfloat.pack(torch.ones(33, 32), "bfloat8_b")
    with pytest.raises(ValueError, match="1088"):
        blockfloat.unpack(torch.zeros(1, 1, 1000, dtype=torch.uint8), "bfloat8_b")
