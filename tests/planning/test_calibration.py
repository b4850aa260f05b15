"""The fit finds rates that are known; what is kept is what it finds; and the rows are split as they say."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace

import pytest

from bringup import backends
from bringup.planning import calibration
from bringup.planning.calibration import START, Fit, Row, chip, key, published, rounded, stored
from bringup.planning.kernels import Kernel, Rates

KNOWN = replace(START, read_fraction=0.7, row_seconds=1.5e-6, product_start=8e-6, call_seconds=1e-4)


@pytest.fixture(scope="module", autouse=True)
def emulator():
    backends.activate("emulator")


def made_up():
    """Programs of several sizes with the times that KNOWN gives, single ones and in models."""
    programs = [
        Kernel("ttnn.linear", "weights", "product", read=size, products=size / 1e5, tile_bytes=3000, phases=2, steps=10)
        for size in (1e4, 1e6, 1e7, 1e8)
    ]
    programs += [Kernel("ttnn.rms_norm", "other", "row", tiles=tiles) for tiles in (1, 30, 200)]
    rows = [Row(str(i), "n150 programs", "n150", Counter([p]), 1.0) for i, p in enumerate(programs)]
    rows += [Row("model", "step", "n150", Counter(dict.fromkeys(programs[:2], 5)), 1.0, calls=900)]
    seconds = Fit(rows).predicted({"wormhole_b0": KNOWN})
    return [replace(row, seconds=float(s)) for row, s in zip(rows, seconds, strict=True)]


def test_the_fit_finds_known_rates():
    fit = Fit(made_up())
    found = fit.rates()["wormhole_b0"]
    assert fit.predicted({"wormhole_b0": found}) == pytest.approx(fit.seconds, rel=0.08)
    for name in ("read_fraction", "row_seconds", "call_seconds"):
        assert getattr(found, name) == pytest.approx(getattr(KNOWN, name), rel=0.05), name
    assert found.hop_seconds == START.hop_seconds  # nothing says anything of it
    assert asdict(Fit(made_up()).rates()["wormhole_b0"]) == asdict(found)


def test_errors_are_of_what_did_not_calibrate():
    rows = [replace(row, used=i != 1) for i, row in enumerate(made_up())]
    found = calibration.errors(rows, [2 * row.seconds for row in rows])
    assert found == {"n150 programs": {"rows": 1, "median": 1.0, "worst": 1.0, "worst_row": "1"}}


def test_half_of_the_products_calibrate():
    table = json.loads((calibration.HERE / "measured.json").read_text())["products"]["rows"]
    used = [row.used for row in calibration.products()]
    assert len(used) == len(table) == 229
    assert used == [i % 2 == 0 for i in range(229)]


def test_at_most_half_of_the_rows_calibrate_and_the_rule_is_by_position():
    rows = [r for r in published() if not r["kind"].startswith("vendor")]
    assert len(rows) == 17  # ALLaM n300 optimized ran on one chip
    order = list(dict.fromkeys(r["model"] for r in rows))
    halves = {("n150", "functional"): order[:2], ("n150", "optimized"): order[2:]}
    halves |= {("n300", "functional"): order[2:], ("n300", "optimized"): order[:2]}
    for r in rows:
        assert r["used_for_calibration"] == (r["model"] in halves.get((r["system"], r["kind"]), []))
    for name, source in (("wormhole_b0", "PERF.md"), ("blackhole", "")):
        vendor = [
            r for r in published() if r["kind"].startswith("vendor") and chip(r) == name and source in r["source"]
        ]
        vendor = [r for r in vendor if r["model"].endswith(("3.2-1B", "3.1-8B-Instruct"))]
        vendor = [r for r in vendor if name == "wormhole_b0" or r["system"] == "p150"]
        assert [r["used_for_calibration"] for r in vendor] == [i % 2 == 0 for i in range(len(vendor))]
    assert sum(r["used_for_calibration"] for r in published()) <= len(published()) / 2
    assert all(r["source"] for r in published() if r["kind"].startswith("vendor"))


def test_what_is_kept_is_what_the_rates_give_now():
    """A model file or a kernel that changed gives other predictions: python -m bringup.planning.calibration --write"""
    kept = stored()
    rates = {name: Rates(**found) for name, found in kept["rates"].items()}
    rows = [*calibration.products(), *calibration.programs()]
    predicted = Fit(rows).predicted(rates)
    errors = calibration.errors(rows, predicted)
    for name, found in errors.items():
        assert found["median"] == pytest.approx(kept["held_out"][name]["median"], rel=0.02), name
    assert [key(r) for r in published()] == [key(r) for r in kept["rows"]]


def test_the_errors_that_are_stated():
    held = stored()["held_out"]
    for group in ("n150 products, out of the box", "p150 products, out of the box"):
        assert held[group]["median"] < 0.15
    step = held["wormhole_b0 step, one chip, batch 1"]
    assert step["median"] <= 0.15
    assert abs(step["worst"]) <= 0.4
    assert held["wormhole_b0 step, one chip, batch 32"]["median"] <= 0.15
    assert held["wormhole_b0 step, several chips, batch 1"]["median"] <= 0.15
    assert held["wormhole_b0 prompt, one chip, batch 1"]["median"] <= 0.15
    assert "batch 1" in calibration.doubt("wormhole_b0")
    assert "batch 1" in calibration.doubt("blackhole")


def test_sharded_weights_win_on_wormhole_and_lose_on_blackhole_unless_lofi():
    """Published: decode products reach 70 to 80 % of DRAM's rate sharded and less plain on Wormhole; compiled models on
    p150 are 8 to 10 % slower with them (tt-mlir PR 9247), unless the fidelity is LoFi (tt-xla discussion 5972)."""
    from bringup.backends import systems
    from bringup.planning import kernels

    def product(system, phases, sharded):
        chip = systems.get(system).chip
        k, n = 128, 448
        across = -(-n // (chip.dram.count if sharded else chip.cores))
        form = "sharded" if sharded else "product"
        program = Kernel(
            "ttnn.linear", "weights", form, read=k * n * 1088, products=across * k, tile_bytes=2048 + 1088,
            phases=phases, steps=k / 4,
        )  # fmt: skip
        return float(kernels.seconds(program, systems.get(system), Rates.fitted(chip)))

    assert product("n150", 2, True) < product("n150", 2, False)
    assert product("p150", 2, True) > product("p150", 2, False)


@pytest.mark.slow
def test_the_whole_calibration_again():
    again = rounded(calibration.calibrate(), 3)
    assert again["held_out"] == rounded(stored(), 3)["held_out"]


def test_rounded_numbers_read_back():
    assert rounded({"a": [1 / 3, 2], "b": "x"}) == {"a": [0.333333, 2], "b": "x"}
    assert rounded(math.pi, 3) == 3.14
