"""Llama-3.2-1B on p150x8: the p150 file, tensor parallel over eight chips, with 4 query and 1 KV head each."""

from bringup.blocks import delegate

MESH_SHAPE = (1, 8)
FULL = delegate(__file__, "p150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
