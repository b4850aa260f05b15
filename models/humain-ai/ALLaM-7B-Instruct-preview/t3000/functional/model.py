"""ALLaM-7B on t3000: the n150 file, tensor parallel over eight chips, with 4 heads each."""

from bringup.blocks import delegate

MESH_SHAPE = (2, 4)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
