"""A small random Llama, and the model file of Llama-3.2-1B built from it on an open n150."""

import pytest
import torch
import ttnn

from bringup import backends
from tests.blocks.common import APPROXIMATE_EXP, as_stored, load_model_file, small_hf_model

FILE, MAX = "meta-llama/Llama-3.2-1B/n150", 128
# Of logits, relative L2: twice what HF in bfloat16 is from HF in fp32 here (0.0134); in decode the device's exp adds.
TOLERANCE = 0.027
DECODE = TOLERANCE + APPROXIMATE_EXP


@pytest.fixture(scope="module")
def hf():
    return as_stored(small_hf_model("Llama-3.2-1B"), ttnn.bfloat16)


@pytest.fixture(scope="module")
def model(hf):
    with backends.open_system("n150") as device:
        yield load_model_file(FILE).build_model(hf, device, MAX)


def prompt(tokens, users=1, seed=0):
    return torch.randint(3, 500, (users, tokens), generator=torch.Generator().manual_seed(seed))
