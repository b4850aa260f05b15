"""Collectives: what chips of a mesh exchange."""

from . import ccl
