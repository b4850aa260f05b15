"""gpt-oss-20b on p300: the p150 file, tensor parallel over two chips.

Each has 32 query and 4 KV heads.
"""

from bringup.blocks import delegate

MESH_SHAPE = (1, 2)
FULL = delegate(__file__, "p150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
