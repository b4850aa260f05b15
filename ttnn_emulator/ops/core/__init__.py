"""Tensors to and from the host, between layouts, memories and chips: what ttnn calls core."""

from . import creation, layout, mesh, methods
