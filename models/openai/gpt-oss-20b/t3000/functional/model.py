"""gpt-oss-20b on t3000: the p150 file, tensor parallel over eight chips.

Each has 8 query and 1 KV heads.
"""

from bringup.blocks import delegate

MESH_SHAPE = (2, 4)
FULL = delegate(__file__, "p150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
