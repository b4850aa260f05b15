"""Calls that the device takes and whose values have no model: the specs are right, and reading the result says why
not."""

import pytest
import torch

import ttnn_emulator as ttnn
from tests.emulator.case import T, build, open_system
from tests.emulator.test_ops import function

TABLE = T((1, 1, 64, 64))
CALLS = {
    "head dim 80 comes out as 96, in tiles that straddle heads": (
        "ttnn.experimental.nlp_create_qkv_heads", (T((1, 1, 32, 960)),), dict(num_heads=8, num_kv_heads=2),
        [(1, 8, 32, 96), (1, 2, 96, 32), (1, 2, 32, 96)],
    ),
    "heads of 80 are copied with their padding": (
        "ttnn.experimental.nlp_concat_heads", (T((1, 4, 32, 80)),), {}, [(1, 1, 32, 320)],
    ),
    "rotary of integers": (
        "ttnn.experimental.rotary_embedding", (T((1, 2, 32, 64), ttnn.uint32), TABLE, TABLE), {}, [(1, 2, 32, 64)],
    ),
    "tables shorter than the prompt": (
        "ttnn.experimental.rotary_embedding_llama", (T((1, 8, 96, 64)), TABLE, TABLE, T((1, 1, 32, 32))), {}, [(1, 8,
        96, 64)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_specs_but_no_values(what):
    name, args, kwargs, shapes = CALLS[what]
    device = open_system("n150")
    try:
        result = function(name)(*build(args, device, torch.Generator().manual_seed(0)), **kwargs)
        tensors = [result] if isinstance(result, ttnn.Tensor) else result
        assert [tuple(t.shape) for t in tensors] == shapes
        for tensor in tensors:
            with pytest.raises(ttnn.NotEmulated, match="has no contents"):
                ttnn.to_torch(tensor)
    finally:
        ttnn.close_device(device)
