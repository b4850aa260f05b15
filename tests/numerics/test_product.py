"""Products of `fast` by each way that a machine may choose: the same sums, rounded once."""

import pytest
import torch

from ttnn_emulator.numerics import product as room
from ttnn_emulator.numerics.product import MOST, PART, WAYS, product

SHAPES = {
    "one row": ((1, 512), (512, 640)),
    "three rows": ((3, 512), (512, 1030)),
    "rows behind a band": ((70, 4096), (4096, 129)),
    "two rows, odd sizes": ((2, 33), (33, 65)),
    "several parts": ((5, 4096), (4096, PART // 4096 * 2 + 40)),
    "folded batch": ((2, 3, 64), (64, 96)),
    "batched": ((2, 4, 33, 64), (2, 4, 64, 31)),
    "broadcast": ((2, 4, 3, 64), (1, 4, 64, 31)),
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(room, "choice", lambda: (request.param, "a test"))
    return request.param


def operands(shapes, turned):
    g = torch.Generator().manual_seed(1)
    x, w = (torch.randn(shape, generator=g).bfloat16() for shape in shapes)
    return x, w.mT.contiguous().mT if turned else w


def ulps(y, ideal):
    """The greatest distance from the ideal, in units of the last place of bfloat16; sums that cancel aside."""
    whole = ideal.abs().clamp(min=float(ideal.abs().mean()) / 8)
    return float(((y.double() - ideal).abs() / 2.0 ** (whole.log2().floor() - 7)).max())


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_one_rounding(way, name, turned):
    x, w = operands(SHAPES[name], turned)
    ideal = x.double() @ w.double()
    y = product(x, w)
    assert y.dtype == torch.bfloat16
    assert y.shape == ideal.shape
    assert ulps(y, ideal) <= 0.51
    wide = product(x, w, wide=True)
    assert wide.dtype == torch.float32
    assert ulps(wide, ideal) < 0.01


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_low_bits_of_the_weight_are_dropped(way, name, turned):
    x, w = operands(SHAPES[name], turned)
    cut = (w.view(torch.int16) & ~7).view(torch.bfloat16)
    assert ulps(product(x, w, drop=3), x.double() @ cut.double()) <= 0.51


def test_large_batches_go_one_by_one(monkeypatch):
    x, w = operands(SHAPES["broadcast"], False)
    whole = product(x, w, wide=True)
    monkeypatch.setattr(room, "MOST", 10)
    assert torch.equal(product(x, w, wide=True), whole)
    assert MOST > 10


def test_infinities_and_large_values_stay(way):
    x, w = torch.ones(3, 64).bfloat16(), torch.ones(64, 32).bfloat16()
    w[0, 0], w[0, 1], w[0, 2] = 3e38, float("inf"), float("nan")
    y = product(x, w)
    assert float(y[0, 0]) == float(torch.tensor(3e38).bfloat16())
    assert y[0, 1] == float("inf")
    assert y[0, 2].isnan()
    assert (y[:, 3:] == 64).all()


def test_the_variable_overrides(monkeypatch):
    room.choice.cache_clear()
    for name in WAYS:
        monkeypatch.setenv(room.VARIABLE, name)
        assert room.choice() == (name, "TTNN_EMULATOR_PRODUCT says so")
        room.choice.cache_clear()
    monkeypatch.setenv(room.VARIABLE, "int4")
    with pytest.raises(ValueError, match=r"'int4' is not one of bf16, rows, fp32"):
        room.choice()
    monkeypatch.delenv(room.VARIABLE)
    assert room.choice()[0] in WAYS


def test_an_unknown_processor_is_measured_once(monkeypatch, tmp_path):
    monkeypatch.setenv("BRINGUP_CACHE", str(tmp_path))
    monkeypatch.setattr(room.platform, "machine", lambda: "riscv64")
    room.choice.cache_clear()
    try:
        way, why = room.choice()
        assert way in WAYS
        assert why.startswith("measured: bf16 ")
        assert "rows" in why
        kept = (tmp_path / "product.json").read_text()
        room.choice.cache_clear()
        assert room.choice() == (way, why)
        assert (tmp_path / "product.json").read_text() == kept
    finally:
        room.choice.cache_clear()
