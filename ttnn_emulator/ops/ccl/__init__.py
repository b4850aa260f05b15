"""Collectives: what chips of a mesh exchange."""

from . import asynchronous, ccl, experts, sending, summing
