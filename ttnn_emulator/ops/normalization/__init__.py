"""Norms and softmax."""

from . import normalization
