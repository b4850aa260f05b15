"""assert_with_pcc passes what is close, refuses what is not, and says what explains it."""

import pytest
import torch

from bringup.evaluation.pcc import assert_with_pcc, pcc, rel_l2, rel_l2_for

X = torch.randn(2, 8, 16, 32, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))


def test_is_the_correlation_coefficient():
    y = X + 0.3 * NOISE
    want = torch.corrcoef(torch.stack([X.flatten(), y.flatten()]).double())[0, 1]
    assert pcc(X, y) == pytest.approx(float(want), abs=1e-12)
    assert pcc(X, 3 * X + 1) == pytest.approx(1)


def test_noise_of_the_size_that_a_bar_stands_for():
    for bar in (0.99, 0.999):
        y = X + rel_l2_for(bar) * NOISE
        assert rel_l2(X, y) == pytest.approx(rel_l2_for(bar), rel=0.05)
        # noise of its own adds to actual's spread, so the PCC is a little under 1 - r^2 / 2
        assert 1 - pcc(X, y) == pytest.approx(1 - bar, rel=0.1)


def test_passes_and_returns_the_pcc():
    assert 0.99 < assert_with_pcc(X, X + 0.1 * NOISE) < 0.996
    assert assert_with_pcc(torch.zeros(3), torch.zeros(3)) == 1


@pytest.mark.parametrize("actual", [torch.zeros(4), 2 * torch.ones(4), torch.arange(4.0)])
def test_a_constant_is_like_itself_only(actual):
    with pytest.raises(AssertionError, match="PCC 0"):
        assert_with_pcc(torch.ones(4), actual)
    with pytest.raises(AssertionError, match="PCC 0"):
        assert_with_pcc(actual, torch.ones(4))


def pairs(x):
    a, b = x[..., :16], x[..., 16:]
    return torch.stack([a, b], -1).flatten(-2)


MISTAKES = {
    "NaN or infinite, the first at \\[1, 0, 0, 5\\]": X.index_put(
        (torch.tensor(1), torch.tensor(0), torch.tensor(0), torch.tensor(5)), torch.tensor(float("nan"))
    ),
    "all zeros": 0 * X,
    "expected\\^T read in expected's shape": X.transpose(-1, -2).reshape(X.shape),
    "halves of the last dim are swapped": X.roll(16, -1),
    "interleaved: halves": pairs(X),
    "dim 2 is shifted by one \\(later\\)": X.roll(1, 2) + 0.01 * NOISE,
    "dim 1 is reversed": X.flip(1),
    "slices of dim 1 are in another order: actual has \\[2, 3, 0, 1": X[:, [2, 3, 0, 1, 6, 7, 4, 5]],
    "slices of dim 1 are mixed up": X[:, [0, 0, 0, 0, 4, 4, 4, 4]],
    "in 3-4 of dim 2": torch.cat([X[:, :, :3], NOISE[:, :, 3:5], X[:, :, 5:]], 2),
}


@pytest.mark.parametrize("why", MISTAKES)
def test_says_what_explains_it(why):
    with pytest.raises(AssertionError, match=why):
        assert_with_pcc(X, MISTAKES[why], 0.999)


def test_a_factor_needs_the_distance():
    assert_with_pcc(X, 8 * X)
    with pytest.raises(AssertionError, match=r"actual is 8 \(the square root of 64\) times expected"):
        assert_with_pcc(X, 8 * X, rel_l2=0.1)


def test_shapes_and_the_largest_error():
    with pytest.raises(AssertionError, match=r"expected \[2, 8, 16, 32\], actual \[8, 16, 32\]"):
        assert_with_pcc(X, X[0])
    wrong = X.clone()
    wrong[1, 2, 3, 4] = 1e6
    with pytest.raises(AssertionError, match=r"at \[1, 2, 3, 4\]: 1e\+06 instead of"):
        assert_with_pcc(X, wrong)
