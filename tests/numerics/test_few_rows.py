"""Rows times a large matrix: the compiled loop against torch in float64."""

import pytest
import torch

from ttnn_emulator.numerics import few_rows, rounding


def weights(k, n):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(1)).bfloat16().T


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("rows", [1, 2, 3, 33, 300])
@pytest.mark.parametrize(("columns", "drop"), [(1024, 0), (1027, 3)])
def test_is_the_product_rounded_once(rows, columns, drop, width, monkeypatch):
    """Also columns that are no multiple of four, and without dropped bits, in vectors of any processor."""
    monkeypatch.setattr(few_rows, "_width", lambda: width)
    x, w = torch.randn(rows, 1024, generator=torch.Generator().manual_seed(0)).bfloat16(), weights(1024, columns)
    assert few_rows.fits(x, w)
    want = x.double() @ (rounding.truncate(w, 8 - drop) if drop else w).double()
    # Half a bfloat16 step of the result, and fp32 sums of 1024 products of size one.
    assert ((few_rows.product(x, w, drop).double() - want).abs() <= want.abs() * 2**-8 + 1024 * 2**-23).all()


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize(("rows", "columns"), [(1, 512), (2, 513), (3, 510), (7, 512)])
def test_a_batch_is_its_products_bit_for_bit(rows, columns, width, monkeypatch):
    monkeypatch.setattr(few_rows, "_width", lambda: width)
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(3, rows, 256, generator=g).bfloat16(), torch.randn(3, columns, 256, generator=g).bfloat16().mT
    monkeypatch.setattr(few_rows, "WORTH", 1)
    assert few_rows.fits(x, w)
    alone = torch.stack([few_rows.product(*pair, 3) for pair in zip(x, w)])
    want = x.double() @ rounding.truncate(w, 5).double()
    assert ((alone.double() - want).abs() <= want.abs() * 2**-8 + 256 * 2**-23).all()
    together = few_rows.product(x, w, 3)
    assert torch.equal(together, alone) or (rows > few_rows.ROWS and width == 8)  # more rows alone go by another loop
    assert ((together.double() - want).abs() <= want.abs() * 2**-8 + 256 * 2**-23).all()


def test_infinities_and_nans_stay():
    x, w = torch.zeros(1, 1024).bfloat16(), weights(1024, 1024)
    x[0, 3] = torch.inf
    assert torch.equal(few_rows.product(x, w), x @ w)
    x[0, 3] = torch.nan
    assert few_rows.product(x, w).isnan().all()


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (torch.zeros(1, 1024).bfloat16(), weights(1024, 1024).contiguous()),  # held the other way round
        (torch.zeros(1, 32).bfloat16(), weights(32, 32)),  # small
        (torch.zeros(1, 1024), weights(1024, 1024)),  # float32
    ],
)
def test_other_products_are_left_to_torch(x, w):
    assert not few_rows.fits(x, w)
