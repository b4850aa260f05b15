"""Tensors to and from the host, between layouts, memories and chips: what ttnn calls core."""

from . import copying, creation, files, layout, mesh, methods, placing, random, transfer
