"""Sums, extremes, top-k and cumulative sums."""

from . import accumulation, ranking, reduction, sampling
