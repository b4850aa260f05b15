"""Sums, extremes, top-k and cumulative sums."""

from . import accumulation, outer, ranking, reduction, sampling, state_space
