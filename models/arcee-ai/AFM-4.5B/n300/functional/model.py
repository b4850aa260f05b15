"""AFM-4.5B on n300: the n150 file, tensor parallel over two chips, with 10 query and 2 KV heads each.

The vocabulary of 128004 is padded with zeros to 128064, so that each chip has whole tiles of it.
"""

from bringup.blocks import delegate

MESH_SHAPE = (1, 2)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
