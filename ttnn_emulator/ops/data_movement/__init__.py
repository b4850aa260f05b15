"""Ops that move values and change none."""

from . import embedding, joining, permute, repeat, reshape, slicing
