"""Qwen3.5-0.8B on n300: the n150 file, tensor parallel over two chips.

Each has 4 query and 1 KV heads.
"""

from bringup.blocks import delegate

MESH_SHAPE = (1, 2)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
