"""Norms and softmax."""

from . import distributed, normalization, softmax
