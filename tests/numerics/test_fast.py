"""The fast numerics: the device's error in size and in bias, on every recorded product, norm, softmax and attention."""

import pytest
import torch

from tests.numerics import recorded
from ttnn_emulator import numerics
from ttnn_emulator.numerics import exact, fast, fpu, rounding

SIZE = (0.75, 1.33)  # our rms error over the device's
GAIN = 0.003  # our mean gain less the device's


@pytest.fixture(autouse=True)
def _fast():
    with numerics.use("fast"):
        yield


def error(y, ideal):
    """Relative rms error, and the gain: the least-squares slope of y on the ideal."""
    y = y.double().reshape(ideal.shape)
    return float((y - ideal).norm() / ideal.norm()), float((y * ideal).sum() / ideal.square().sum())


@pytest.mark.parametrize("file", ["matmul.npz", "norm.npz", "softmax.npz", "sdpa.npz", "sdpa_decode.npz"])
def test_error_is_the_devices(file):
    cases = [c for c in recorded.cases(file) if file != "softmax.npz" or c.op == "softmax"]
    wrong = []
    for case in cases:
        ideal = case.ideal()
        (device, gain), (ours, our_gain) = error(case.recorded()[0], ideal), error(case.results()[0], ideal)
        if not (SIZE[0] <= ours / device <= SIZE[1] and abs(our_gain - gain) <= GAIN):
            wrong.append(f"{case}: rms {ours:.2e}, device {device:.2e}; gain {our_gain:.4f}, device {gain:.4f}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "file", ["eltwise.npz", "unary.npz", "cast.npz", "norm.npz", "softmax.npz", "rope.npz", "sdpa_decode.npz"]
)
def test_bits_where_fast_is_exact(file):
    for case in recorded.cases(file):
        assert case.differing()[0] == 0, case


@pytest.mark.parametrize("exp_approx", [False, True])
@pytest.mark.parametrize("fidelity", ["LoFi", "HiFi2", "HiFi3", "HiFi4"])
def test_decode_over_many_keys_has_the_error_of_the_device(fidelity, exp_approx):
    """Against float64: the products of `fast` in an fp32 destination, no other size of the error, and no other gain."""
    g = torch.Generator().manual_seed(7)
    q, k, v = (torch.randn(s, generator=g).bfloat16() for s in ((1, 2, 32, 64), (2, 8, 512, 64), (2, 8, 512, 64)))
    weights = (q[0].double().unflatten(1, (8, 4)) @ k.double().mT / 8)[:, :, :, :401].softmax(-1)
    ideal = (weights @ v[:, :, :401].double()).flatten(1, 2)[None]
    config = numerics.ComputeConfig(fidelity, False, True, False)
    results = [
        module.attention_decode(q, k, v, [400, 400], config=config, exp_approx=exp_approx, k_chunk=64, cores=2)
        for module in (fast, exact)
    ]
    assert not torch.equal(*results)  # else this tests nothing
    (ours, our_gain), (device, gain) = (error(y, ideal) for y in results)
    assert SIZE[0] <= ours / device <= SIZE[1], (ours, device)
    assert abs(our_gain - gain) < 0.005, (our_gain, gain)


@pytest.mark.parametrize("fidelity", ["LoFi", "HiFi2", "HiFi3", "HiFi4"])
@pytest.mark.parametrize(("k", "block_w"), [(128, 0), (2048, 0), (2048, 2), (4096, 1)])
def test_bf16_destination_error_at_larger_sizes(fidelity, k, block_w):
    """Against the exact matrix unit on fresh data: size and gain of the whole error, and no favourite sign."""
    g = torch.Generator().manual_seed(k + block_w)
    x, w = torch.randn(8, k, generator=g).bfloat16(), (torch.randn(256, k, generator=g) * 0.02).bfloat16().T
    config = numerics.ComputeConfig(fidelity, False, False, block_w > 0)
    ideal = x.double() @ w.double()
    device, gain = error(exact.matmul(x, w, config, dtype="bfloat16", block_w=block_w or None), ideal)
    y = fast.matmul(x, w, config, dtype="bfloat16", block_w=block_w or None)
    ours, our_gain = error(y, ideal)
    assert SIZE[0] <= ours / device <= SIZE[1], (ours, device)
    assert abs(our_gain - gain) < 0.005, (our_gain, gain)
    positive = ideal > 0
    gains = [error(y.double()[p], ideal[p])[1] for p in (positive, ~positive)]
    assert abs(gains[0] - gains[1]) < 0.006, gains


def test_fp32_destination_is_close_to_exact():
    g = torch.Generator().manual_seed(5)
    x, w = torch.randn(16, 512, generator=g).bfloat16(), torch.randn(512, 64, generator=g).bfloat16()
    for fidelity in fpu.PHASES:
        config = numerics.ComputeConfig(fidelity, False, True, False)
        for dtype, limit in (("bfloat16", 2e-3), ("float32", 5e-4)):
            ours, device = (m.matmul(x, w, config, dtype=dtype).double() for m in (fast, exact))
            assert float((ours - device).norm() / device.norm()) < limit, (fidelity, dtype)


def test_same_row_same_result_wherever_it_is():
    g = torch.Generator().manual_seed(6)
    x, w = torch.randn(1, 1, 48, 128, generator=g).bfloat16(), torch.randn(96, 128, generator=g).bfloat16().T
    config = numerics.default_config("matmul")
    whole = fast.matmul(x, w, config, dtype="bfloat16", block_w=2)
    padded = torch.zeros(1, 1, 32, 128).bfloat16()
    padded[0, 0, :3] = x[0, 0, 20:23]
    assert torch.equal(fast.matmul(padded, w, config, dtype="bfloat16", block_w=2)[0, 0, :3], whole[0, 0, 20:23])


@pytest.mark.parametrize("dtype", rounding.FLOATS)
def test_results_are_on_their_grid(dtype):
    x, w = torch.randn(1, 1, 32, 64).bfloat16(), torch.randn(64, 96).bfloat16()
    bias = torch.ones(1, 1, 1, 96).bfloat16()
    y = fast.matmul(x, w, numerics.default_config("matmul"), dtype=dtype, activation="silu", bias=bias)
    assert y.shape == (1, 1, 32, 96)
    assert y.dtype == rounding.HELD_AS[dtype]
    if dtype in rounding.BLOCK_FORMATS:
        assert torch.equal(rounding.typecast(y, "bfloat16", dtype) if dtype == "bfloat8_b" else y, y)


@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (3, 5), (2, 4, 33, 31), (1, 7)])
def test_batched_and_odd_shapes(shape):
    g = torch.Generator().manual_seed(8)
    *batch, m, k = shape
    x, w = torch.randn(shape, generator=g).bfloat16(), torch.randn(*batch, k, 9, generator=g).bfloat16()
    config = numerics.ComputeConfig("HiFi4", False, True, False)
    for module in (fast, exact):
        y = module.matmul(x, w, config, dtype="bfloat16")
        assert y.shape == (*batch, m, 9)
        torch.testing.assert_close(y.double(), x.double() @ w.double(), rtol=0.01, atol=0.02)


def test_bias_and_padding_rows_together():
    g = torch.Generator().manual_seed(9)
    x, w = torch.zeros(1, 1, 32, 64).bfloat16(), torch.randn(48, 64, generator=g).bfloat16().T
    x[0, 0, 0] = torch.randn(64, generator=g)
    bias, config = torch.randn(1, 1, 1, 48, generator=g).bfloat16(), numerics.ComputeConfig("LoFi", False, True, False)
    for module in (fast, exact):
        y = module.matmul(x, w[None, None], config, dtype="bfloat16", bias=bias)
        assert y.shape == (1, 1, 32, 48)
        want = x.double() @ w.double() + bias.double()
        assert float((y.double() - want).norm() / want.norm()) < 0.03


def test_lofi_cut_keeps_the_layout_of_weights():
    w = torch.randn(48, 64).bfloat16().T
    cut = rounding.truncate(w, 5)
    assert cut.stride() == w.stride()
    x, config = torch.randn(4, 64).bfloat16(), numerics.ComputeConfig("LoFi", False, True, False)
    ours = fast.matmul(x, w, config, dtype="bfloat16", w_truncated=cut)
    assert torch.equal(ours, fast.matmul(x, w, config, dtype="bfloat16"))


def test_integers_are_plain_arithmetic():
    a, b = torch.tensor([1, 250, 2**31]), torch.tensor([3, 10, 2**31])
    assert fast.add(a, b, "uint32").tolist() == [4, 260, 0]
    assert fast.sub(a, 2, "int32").tolist() == [-1, 248, 2**31 - 2]
    assert fast.mul(a[:2], b[:2], "uint16").tolist() == [3, 2500]
    assert fast.sum(a[:2], None, False, "uint32", numerics.default_config("reduce")).item() == 251


def test_the_switch():
    assert numerics.now() is fast
    with numerics.use("exact"):
        assert numerics.now() is exact
        assert numerics.mode() == "exact"
    assert numerics.mode() == "fast"
    with pytest.raises(ValueError, match="bogus"):
        numerics.set_mode("bogus")


def test_both_modes_have_the_same_functions():
    import inspect

    assert fast.__all__ == exact.__all__
    for name in fast.__all__:
        a, b = (list(inspect.signature(getattr(m, name)).parameters) for m in (fast, exact))
        assert a == b, name
