"""Sums, extremes, top-k and cumulative sums."""

from . import accumulation, outer, ranking, reduction, router, sampling, state_space
