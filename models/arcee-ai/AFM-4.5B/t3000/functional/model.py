"""AFM-4.5B on t3000: the n150 file, tensor parallel over eight chips.

There are 4 KV heads for 8 chips: two chips hold the same KV head and share its 5 query heads as 3 and 2, the latter
padded with a head of zeros. The vocabulary of 128004 is padded to 128256.
"""

from bringup.blocks import delegate

MESH_SHAPE = (2, 4)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, FULL.MAX_SEQ_LEN
build_model = FULL.build_model
