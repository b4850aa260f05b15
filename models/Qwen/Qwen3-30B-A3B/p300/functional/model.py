"""Qwen3-30B-A3B on p300: the t3000 file, tensor parallel over two chips.

Each has 16 query and 2 KV heads.
"""

from bringup.blocks import delegate

MESH_SHAPE = (1, 2)
FULL = delegate(__file__, "t3000")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
