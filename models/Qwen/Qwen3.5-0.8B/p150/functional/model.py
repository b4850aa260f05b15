"""Qwen3.5-0.8B on p150: the n150 file, on one chip, where its parallel plan is the identity."""

from bringup.blocks import delegate

MESH_SHAPE = (1, 1)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
