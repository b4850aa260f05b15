"""Sums, extremes, top-k and cumulative sums."""

from . import reduction
