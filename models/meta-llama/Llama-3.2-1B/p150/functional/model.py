"""Llama-3.2-1B on one Blackhole (p150): the n150 file, with room for 32 users of 16384 tokens."""

from bringup.blocks import delegate

MESH_SHAPE = (1, 1)
FULL = delegate(__file__, "n150")
PRECISION, MAX_SEQ_LEN = FULL.PRECISION, 16384


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    return FULL.build_model(hf_model, tt_device, max_seq_len, precision, data_parallel)
