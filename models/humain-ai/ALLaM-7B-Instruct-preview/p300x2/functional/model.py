"""ALLaM-7B on p300x2: the p150 file, tensor parallel over four chips, with 8 query and 8 KV heads each."""

from bringup.blocks import delegate

MESH_SHAPE = (1, 4)
FULL = delegate(__file__, "p150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
