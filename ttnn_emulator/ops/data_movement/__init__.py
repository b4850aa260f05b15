"""Ops that move values and change none."""

from . import embedding, filling, joining, narrow, permute, repeat, reshape, slicing
