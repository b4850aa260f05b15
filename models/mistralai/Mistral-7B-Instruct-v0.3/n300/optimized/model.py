"""Mistral-7B on two Wormholes (n300), optimised: the n150 file with choices of its own."""

from pathlib import Path

from bringup.blocks import delegate
from bringup.blocks.optimized import Choices

MESH_SHAPE = (1, 2)
FULL = delegate(__file__, "n150")
PRECISION = Choices.read(Path(__file__).with_name("choices.json"))
MAX_SEQ_LEN = FULL.MAX_SEQ_LEN


def build_model(hf_model, tt_device, max_seq_len=MAX_SEQ_LEN, precision=PRECISION, data_parallel=False):
    return FULL.build_model(hf_model, tt_device, max_seq_len, precision, data_parallel)
