"""The fit finds constants that are known; what is kept is what it finds; and the rows are split as they say."""

import math
from collections import Counter
from dataclasses import asdict, replace

import pytest

from bringup.backends import systems
from bringup.planning import calibration
from bringup.planning.calibration import (
    TARGET,
    chip,
    condensed,
    doubt,
    fit,
    group,
    judge,
    key,
    logs,
    published,
    rounded,
    speeds,
    stored,
)
from bringup.planning.roofline import Rates, Work

KNOWN = Rates(0.7, 0.4, traced_seconds=5e-6, untraced_seconds=50e-6, collective_seconds=3e-4,
              mesh_read_bytes_per_second=2e8)  # fmt: skip


def made_up():
    """Rows of models of several sizes with the speeds that KNOWN gives, and what they ask."""
    rows, works = [], {}
    for size in (1e9, 3e9, 7e9):
        for system in ("n150", "n300"):
            for kind in ("functional", "optimized"):
                chips = 1 + (system == "n300")
                matrix = Work("ttnn.linear", "weights", 1, size / chips / 100, 64 * size / chips / 100, 2, 0, 0, 0)
                small = Work("ttnn.add", "other", 1, 1e5, 0, 0, 0, 0, 0)
                ccl = Work("ttnn.all_reduce", "ccl", 2, 1e5, 0, 0, 1, 2.5e5, 0)
                read = Work("ttnn.to_torch", "other", 0, 0, 0, 0, 0, 0, size / 300)
                step = Counter({matrix: 100, small: int(size / 1e7)})
                if chips > 1:
                    step[ccl] = int(size / 1e8)
                if kind == "functional":
                    step[read] = 1
                prompt = Counter({matrix._replace(flops=2048 * size / chips / 100): 100, small: 100})
                row = {"model": f"{size:.0f}", "system": system, "kind": kind, "used_for_calibration": True}
                works[key(row)] = [prompt, step]
                rows.append(row | speeds(row, works[key(row)], KNOWN))
    return rows, works


def test_the_fit_finds_known_constants():
    rows, works = made_up()
    found = fit(rows, works)
    for name, value in asdict(found).items():
        assert value == pytest.approx(getattr(KNOWN, name), rel=0.02), name
    assert calibration.at_bounds(found) == []
    assert calibration.at_bounds(replace(found, dram_fraction=0.95)) == ["dram_fraction"]
    rows[-1]["used_for_calibration"] = False
    assert judge(rows, works, {"wormhole_b0": found})["held_out"]["wormhole_b0 1"]["tps"]["median"] < 0.01


def test_constants_that_no_row_determines_are_the_other_chips():
    rows, works = made_up()
    other = replace(KNOWN, dram_fraction=0.5, matrix_fraction=0.2)
    found = fit(rows, works, names=("dram_fraction", "matrix_fraction"), others=other)
    assert asdict(found) == pytest.approx(asdict(KNOWN), rel=0.02)
    assert found.traced_seconds == KNOWN.traced_seconds


def test_the_fit_is_the_same_every_time():
    rows, works = made_up()
    assert fit(rows[:4], works, sweeps=3) == fit(rows[:4], works, sweeps=3)


def test_at_most_half_of_the_rows_calibrate_and_the_rule_is_by_position():
    rows = [r for r in published() if r["kind"] != "vendor"]
    used = [r for r in rows if r["used_for_calibration"]]
    assert len(rows) == 18
    assert len(used) <= len(rows) / 2
    order = list(dict.fromkeys(r["model"] for r in rows))
    halves = {("n150", "functional"): order[:2], ("n150", "optimized"): order[2:]}
    halves |= {("n300", "functional"): order[2:], ("n300", "optimized"): order[:2]}
    for r in rows:
        assert r["used_for_calibration"] == (r["model"] in halves.get((r["system"], r["kind"]), []))


def test_of_the_vendors_rows_every_other_one_of_blackhole_calibrates():
    rows = [r for r in published() if r["kind"] == "vendor"]
    assert all(r["source"] for r in rows)
    assert not any(r["used_for_calibration"] for r in rows if chip(r) == "wormhole_b0")
    later = [r for r in rows if "gpt-oss" in r["model"]]  # not among the rows when the constants were fitted
    assert not any(r["used_for_calibration"] for r in later)
    used = [r["used_for_calibration"] for r in rows if chip(r) == "blackhole" and r not in later]
    assert used == [i % 2 == 0 for i in range(len(used))]


def test_errors_are_of_the_rows_held_out():
    kept = stored()
    held = [r for r in kept["rows"] if not r["used_for_calibration"]]
    assert list(kept["held_out"]) == ["wormhole_b0 1", "wormhole_b0 32", "blackhole 32", "blackhole 1"]
    for name, of_group in kept["held_out"].items():
        errors = sorted(abs(r["predicted"]["tps"] / r["tps"] - 1) for r in held if group(r) == name)
        found, n = of_group["tps"], len(errors)
        assert found["rows"] == n
        assert found["median"] == pytest.approx((errors[(n - 1) // 2] + errors[n // 2]) / 2, rel=1e-3)
        assert abs(found["worst"]) == pytest.approx(errors[-1], rel=1e-3)
        # No row of the vendor's calibrates Wormhole: its own code on T3000 is two to three times as fast as predicted.
        assert found["median"] <= (0.36 if name == "wormhole_b0 32" else TARGET)
    assert kept["at_bounds"] == {"wormhole_b0": [], "blackhole": ["matrix_fraction", "collective_seconds"]}
    assert "batch 32" in doubt("blackhole")
    assert "batch 1, 10 rows" in doubt("wormhole_b0")


@pytest.mark.parametrize("at", [0, 17, 29])
def test_what_is_kept_is_what_the_model_files_give_now(at):
    """A model file that runs other ops gives other predictions: python -m bringup.planning.calibration --write"""
    row, kept = published()[at], stored()["rows"][at]
    now = speeds(row, condensed(row, logs(row)), Rates.fitted(systems.get(row["system"]).chip))
    assert key(row) == key(kept)
    assert now == pytest.approx(kept["predicted"], rel=0.01)


@pytest.mark.slow
def test_the_whole_calibration_again():
    assert rounded(calibration.calibrate(), 3) == rounded(stored(), 3)


def test_rounded_numbers_read_back():
    assert rounded({"a": [1 / 3, 2], "b": "x"}) == {"a": [0.333333, 2], "b": "x"}
    assert rounded(math.pi, 3) == 3.14
