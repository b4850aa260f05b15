"""A bf16 destination in the fast numerics where results are no random sums: one sign, outliers, mostly zeros."""

import pytest
import torch

from tests.numerics import fpu_reference
from ttnn_emulator import numerics
from ttnn_emulator.numerics import ComputeConfig, destination, exact, fast

ONE_BLOCK, L1 = ComputeConfig("HiFi2", False, False, False), ComputeConfig("HiFi2", False, False, True)


def multiplied(x, w, config, **settings):
    return fast.matmul(x.bfloat16(), w.bfloat16(), config, dtype="bfloat16", **settings)


@pytest.mark.parametrize(
    ("k", "config", "want"), [(1024, ONE_BLOCK, 1024), (16384, ONE_BLOCK, 8192), (16384, L1, 16320)]
)
def test_a_sum_by_ones_stands_still_where_the_destination_does(k, config, want):
    """Past 8192 a bfloat16 does not see 16 more; sums of 64, as L1 adds them, it sees to the
    end, but the last 64, which a register that holds the others adds up by 16."""
    y = multiplied(torch.ones(2, k), torch.ones(32, k).T, config, block_w=2)
    assert (y == want).all(), y
    if not config.packer_l1_acc:
        x, w = (torch.ones(shape).bfloat16().view(torch.int16).numpy().view("uint16") for shape in ((1, k), (k, 1)))
        assert fpu_reference.f32(fpu_reference.matmul(x, w, "HiFi2")).item() == want


@pytest.mark.parametrize("fidelity", ["LoFi", "HiFi2", "HiFi4"])
@pytest.mark.parametrize("w_dtype", ["bfloat16", "bfloat8_b"])
def test_long_sums_of_one_sign_are_the_devices(fidelity, w_dtype):
    g = torch.Generator().manual_seed(2)
    x, w = torch.rand(3, 4096, generator=g).bfloat16(), torch.rand(40, 4096, generator=g).bfloat16()
    w = numerics.rounding.typecast(w, "bfloat16", w_dtype).T if w_dtype != "bfloat16" else w.T
    config = ComputeConfig(fidelity, False, False, False)
    ours, device = (m.matmul(x, w, config, dtype="bfloat16", w_dtype=w_dtype) for m in (fast, exact))
    assert torch.equal(ours, device)
    assert float((device.double() / (x.double() @ w.double()) - 1).abs().max()) > 0.005  # it is off


def test_a_column_of_one_sign_leaves_the_others():
    g = torch.Generator().manual_seed(3)
    x, w = torch.rand(40, 4096, generator=g) + 1, torch.randn(4096, 64, generator=g)
    w -= w.mean(0)
    plain = multiplied(x, w, ONE_BLOCK)
    w[:, 5] = 1
    y = multiplied(x, w, ONE_BLOCK)
    assert torch.equal(y[:, 5], exact.matmul(x.bfloat16(), w.bfloat16(), ONE_BLOCK, dtype="bfloat16")[:, 5])
    assert torch.equal(y[:, 6:], plain[:, 6:])


@pytest.mark.parametrize("value", [1e4, 1e9, 1e19, 3e38])
@pytest.mark.parametrize("turned", [True, False])
def test_an_outlier_among_weights_moves_its_own_column_only(value, turned):
    x, w = torch.ones(32, 32), torch.ones(32, 32)
    w[0, 0] = value
    y = multiplied(x, w.T.contiguous().T if turned else w, numerics.default_config("matmul"))
    assert float((y[:, 1:].double() / 32 - 1).abs().max()) < 0.01
    assert float((y[:, 0].double() / value - 1).abs().max()) < 0.01


@pytest.mark.parametrize("value", [1e9, 1e19, 3e38])
@pytest.mark.parametrize("k", [32, 256])
def test_an_outlier_among_activations_moves_what_it_is_multiplied_with(value, k):
    x, w = torch.ones(4, k), torch.ones(k, 32)
    x[0, 0], w[0, :16] = value, 0
    y = multiplied(x, w, numerics.default_config("matmul"))
    assert float((y[0, :16].double() / (k - 1) - 1).abs().max()) < 0.02
    assert float((y[0, 16:].double() / value - 1).abs().max()) < 0.02
    assert float((y[1:, 16:].double() / k - 1).abs().max()) < 0.02


def test_infinities_stay_and_nothing_else_becomes_one():
    x, w = torch.ones(2, 64), torch.ones(64, 32)
    w[0, 0], w[0, 1] = torch.inf, 3.38e38
    y = multiplied(x, w, numerics.default_config("matmul"))
    assert (y[:, 0] == torch.inf).all()
    assert y[:, 1:].isfinite().all()


def test_a_selection_selects():
    g = torch.Generator().manual_seed(4)
    w = torch.randn(512, 64, generator=g).bfloat16()
    x = torch.zeros(3, 512)
    x[0, 7], x[1, 300] = 1, 1
    y = multiplied(x, w, numerics.default_config("matmul"))
    assert torch.equal(y, torch.stack([w[7], w[300], torch.zeros(64).bfloat16()]))


def test_batches_have_sizes_of_their_own():
    g = torch.Generator().manual_seed(5)
    x, w = torch.randn(2, 3, 8, 64, generator=g), torch.randn(2, 3, 64, 32, generator=g)
    w[1, 2] *= 1e9
    y = multiplied(x, w, ONE_BLOCK)
    for a in range(2):
        for b in range(3):
            assert torch.equal(y[a, b], multiplied(x[a, b], w[a, b], ONE_BLOCK)), (a, b)


def test_torch_and_the_compiled_loop_agree():
    """What another device computes, on the CPU."""
    g = torch.Generator().manual_seed(6)
    x, w = torch.randn(33, 512, generator=g).bfloat16(), torch.randn(512, 100, generator=g).bfloat16()
    w[:, 3], x[4] = 1, 1
    y = x @ w
    how = destination.Sum("HiFi2", block_w=2)
    ours = destination.in_bf16(y.clone(), x, w, how)
    rows, columns = destination._sizes(x, 512), destination._sizes(w.T, destination.SAMPLE)
    size, gain, constant = destination.error_of(2, 512, 2)
    assert [r.shape for r in rows] == [(33,)] * 2
    assert [c.shape for c in columns] == [(100,)] * 2
    a, b = (1 - constant) ** 0.5, constant**0.5
    unit = ((size**2 - 2 * 0.00166**2) / (1.458 * (a * a + b * b + 1.6 * a * b))) ** 0.5
    rows = [(r * 512**0.5).float() for r in rows]
    theirs, one_signed = destination._perturbed(y, rows, [c.float() for c in columns], (gain, unit * a, unit * b))
    assert one_signed[4, 3]
    kept = ~one_signed
    assert float(((ours - theirs)[kept].abs() > 2**-7 * theirs[kept].abs()).float().mean()) == 0


@pytest.mark.parametrize("fp32", [True, False])
@pytest.mark.parametrize("values", ["ones", "random"])
def test_attention_over_many_chunks_is_the_devices(fp32, values):
    """Outputs of the chunks are added in bfloat16, also beside an fp32 destination."""
    g = torch.Generator().manual_seed(7)
    q, k = torch.randn(1, 1, 32, 64, generator=g).bfloat16(), torch.randn(1, 1, 4096, 64, generator=g).bfloat16() * 0.1
    v = (torch.ones(1, 1, 4096, 64) if values == "ones" else torch.randn(1, 1, 4096, 64, generator=g)).bfloat16()
    config = ComputeConfig("HiFi4", False, fp32, False)
    ours, device = (m.attention(q, k, v, config=config, exp_approx=False, dtype="bfloat16") for m in (fast, exact))
    ours, device = ours.double(), device.double()
    ideal = torch.softmax(q.double() @ k.double().mT / 8, -1) @ v.double()
    off = float((device - ideal).norm() / ideal.norm())
    assert off > 0.01
    assert float((ours - device).norm() / ideal.norm()) < off / 4


@pytest.mark.parametrize("value", [1e9, 1e19, 3e38])
@pytest.mark.parametrize("fp32", [True, False])
def test_an_outlier_among_values_stays_in_its_column(value, fp32):
    g = torch.Generator().manual_seed(8)
    q, k, v = (torch.randn(1, 1, n, 64, generator=g).bfloat16() for n in (32, 96, 96))
    config = ComputeConfig("HiFi4", False, fp32, False)
    plain = fast.attention(q, k, v, config=config, dtype="bfloat16")
    v[0, 0, 3, 5] = value
    y = fast.attention(q, k, v, config=config, dtype="bfloat16")
    others = [c for c in range(64) if c != 5]
    assert torch.equal(y[..., others], plain[..., others])
    assert y.isfinite().all()
    assert float(y[..., 5].max()) > value / 1000
