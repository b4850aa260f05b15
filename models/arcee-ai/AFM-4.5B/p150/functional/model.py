"""AFM-4.5B on one Blackhole (p150): the n150 file, with weights in bfloat16 and room for 32 users of 8192 tokens."""

import ttnn

from bringup.blocks import Precision, delegate

MESH_SHAPE = (1, 1)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = Precision.of(ttnn.bfloat16), 8192


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    return FULL.build_model(hf_model, tt_device, max_seq_len, precision, data_parallel)
