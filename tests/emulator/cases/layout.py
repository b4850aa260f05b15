"""Cases of layouts, memory configs, dtypes and copies."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

from .data_movement import HEADS, L1, RM, sharded

TILE, DRAM = ttnn.TILE_LAYOUT, ttnn.DRAM_MEMORY_CONFIG
HEIGHT, WIDTH = sharded("HEIGHT", (32, 128), 2, 1), sharded("WIDTH", (64, 32), 4, 1)
#: A rounding to bfloat8_b: half a step of 2^-6 below a block maximum in [1, 2). On the device bfloat4_b is
#: truncated: an rms
#: of step / sqrt(3), the step being 0.5 where the largest of 16 normal values is above 2.
EIGHT, FOUR = 2.0**-6, 0.29


def alike(x, *_, **__):
    return x


def whole(x, *_, **__):
    return x.trunc().to(torch.int64)


SMALL = torch.arange(0, 64).reshape(1, 1, 1, 64).expand(1, 1, 32, 64).float() + 0.5
grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (1, 0))])
Height = ttnn.TensorMemoryLayout.HEIGHT_SHARDED

CASES = {
    "ttnn.to_layout": [
        Case((T((1, 1, 20, 50)), RM), reference=alike),
        Case((T((1, 1, 20, 50), layout=RM), TILE), {"memory_config": L1}, reference=alike),
        Case((T((1, 1, 64, 128), memory_config=HEIGHT), RM), reference=alike),
        Case((T((1, 1, 20, 50), ttnn.bfloat8_b), RM), reference=alike),
        Case((T((1, 1, 20, 50), ttnn.float32, RM), TILE, ttnn.bfloat16), reference=alike, tolerance=2.0**-8),
        Case((T((2, 3, 33), ttnn.int32, RM, host=True), TILE), reference=alike),
        Refused(
            (T((1, 1, 20, 50), ttnn.float32), RM, ttnn.bfloat16), match="dtype cannot be different from tensor dtype"
        ),
        Refused((T((1, 1, 20, 50), ttnn.bfloat4_b), RM), match="Only TILE layout is supported for BFLOAT8_B dtype!"),
        Refused(
            (T((1, 1, 20, 50), ttnn.bfloat8_b, host=True), RM), match="Tensor layout must be ROW_MAJOR for unpadding"
        ),
        Refused(
            (T((1, 1, 50, 128), layout=RM, memory_config=sharded("HEIGHT", (25, 128), 2, 1)), TILE),
            match="must be tile",
        ),
    ],
    "ttnn.tilize": [
        Case((T((1, 1, 32, 64), layout=RM),), reference=alike),
        Case((T((1, 1, 32, 64), layout=RM),), {"dtype": ttnn.bfloat8_b}, reference=alike, tolerance=EIGHT),
        Refused(
            (T((1, 1, 20, 50), layout=RM),), match=r"Input tensor width \(50\) must be divisible by tile width \(32\)"
        ),
        Refused((T((1, 1, 32, 64)),), match="Can only tilize row major data"),
    ],
    "ttnn.tilize_with_val_padding": [
        Case((T((1, 1, 20, 50), layout=RM), (1, 1, 32, 64), 0.0), reference=alike),
        Refused((T((1, 1, 32, 64)), (1, 1, 64, 64), 0.0), match="Can only tilize row major data"),
    ],
    "ttnn.tilize_with_zero_padding": [Case((T((1, 1, 20, 50), layout=RM),), reference=alike)],
    "ttnn.untilize": [
        Case((T((1, 1, 20, 50)),), reference=alike),
        Refused((T((1, 1, 20, 50), layout=RM),), match="Can only untilize tile major data"),
        Refused((T((1, 1, 32, 64), ttnn.bfloat4_b),), match="Only TILE layout is supported for BFLOAT8_B dtype!"),
    ],
    "ttnn.untilize_with_unpadding": [
        Case((T((1, 1, 32, 64)), (0, 0, 15, 31)), reference=lambda x, _: x[..., :16, :32]),
        Refused((T((1, 1, 32, 64), layout=RM), (0, 0, 15, 31)), match="Can only untilize tile major data"),
    ],
    "ttnn.fill_implicit_tile_padding": [Case((T((1, 1, 20, 50)), 0.0), reference=alike)],
    "ttnn.to_memory_config": [
        Case((T((1, 1, 64, 128)), HEIGHT), reference=alike),
        Case((T((1, 1, 64, 128), memory_config=HEIGHT), WIDTH), reference=alike),
        Case((T((1, 1, 64, 128), memory_config=HEIGHT), DRAM), reference=alike),
        Case((T((1, 1, 64, 128)), L1, ttnn.bfloat8_b), reference=alike, tolerance=EIGHT),
        Refused(
            (T((1, 1, 64, 128)), sharded("HEIGHT", (30, 128), 2, 1)),
            match=r"\(30, 128\) must be tile \{32, 32\} sized!",
        ),
        Refused(
            (T((1, 1, 64, 128)), sharded("HEIGHT", (32, 64), 2, 1)),
            match="Shard width 64 must match physical width 128",
        ),
        Refused((T((1, 1, 64, 128)), sharded("HEIGHT", (32, 128), 1, 1)), match="2 must not exceed number of cores 1"),
        Refused((T((1, 1, 64, 128)), sharded("HEIGHT", (32, 128), 8, 9)), match=r"shard core \(0, 8\) has no L1 bank"),
        Refused((T((1, 1, 32, 64), layout=RM), L1, ttnn.float32), match="Only tile layout supports dtype conversion"),
        Refused((T((1, 1, 64, 128)), ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG), match="bad optional access"),
        Refused((T((1, 1, 32, 64), host=True), L1), match="Device Operations expect device tensors as inputs"),
    ],
    "ttnn.interleaved_to_sharded": [
        Case((T((1, 1, 64, 128)), HEIGHT), reference=alike),
        Case((T((1, 1, 64, 128)), grid, [32, 128], Height, ttnn.ShardOrientation.ROW_MAJOR), reference=alike),
        Refused((T((1, 1, 64, 128)), DRAM), match="Output memory config must be sharded"),
        Refused(
            (T((1, 1, 64, 128), memory_config=HEIGHT), HEIGHT), match="must be INTERLEAVED, but got .*HEIGHT_SHARDED"
        ),
        Refused(
            (T((1, 1, 64, 128)), ttnn.CoreGrid(x=2, y=1), [32, 128], Height), match="incompatible", error=TypeError
        ),
    ],
    "ttnn.sharded_to_interleaved": [
        Case((T((1, 1, 64, 128), memory_config=WIDTH),), reference=alike),
        Case((T((1, 1, 64, 128), memory_config=HEIGHT), L1, ttnn.bfloat8_b), reference=alike, tolerance=EIGHT),
        Refused((T((1, 1, 64, 128), memory_config=HEIGHT), WIDTH), match="Output memory config must be Interleaved"),
    ],
    "ttnn.reshard": [
        Case((T((1, 1, 64, 128), memory_config=WIDTH), HEIGHT), reference=alike),
        Refused((T((1, 1, 64, 128)), HEIGHT), match="input must be sharded"),
        Refused((T((1, 1, 64, 128), memory_config=WIDTH), DRAM), match="output must be sharded"),
    ],
    "ttnn.get_memory_config": [
        Case((T((1, 32, 8, 64), memory_config=HEADS),), note="returns a config; specs cover it")
    ],
    "ttnn.is_sharded": [Case((T((1, 32, 8, 64), memory_config=HEADS),), note="returns a bool")],
    "ttnn.typecast": [
        Case((T((1, 1, 20, 50)), ttnn.float32), reference=alike),
        Case((T((1, 1, 20, 50), ttnn.float32), ttnn.bfloat16), reference=alike, tolerance=2.0**-8),
        Case((T((1, 1, 20, 50)), ttnn.bfloat8_b), reference=alike, tolerance=EIGHT),
        Case((T((1, 1, 20, 50), ttnn.bfloat8_b), ttnn.bfloat4_b), reference=alike, tolerance=FOUR),
        Case((T(values=SMALL), ttnn.bfloat16, ttnn.int32), reference=whole),
        Case((T(values=SMALL), ttnn.uint16), {"memory_config": L1}, reference=lambda x, *_, **__: (x + 0.5).floor()),
        Case((T((1, 1, 20, 50), ttnn.int32, high=100), ttnn.bfloat16), reference=lambda x, _: x.float()),
        Case((T((1, 1, 20, 50), layout=RM), ttnn.float32), reference=alike),
        Case((T((1, 1, 20, 50), host=True), ttnn.bfloat8_b), reference=alike, tolerance=EIGHT),
        Refused(
            (T((1, 1, 20, 50), layout=RM), ttnn.bfloat8_b), match="Only TILE layout is supported for BFLOAT8_B dtype!"
        ),
        Refused(
            (T((1, 1, 32, 64)), ttnn.float32, ttnn.bfloat16),
            match="input dtype and input tensor's dtype provided should match",
        ),
        Refused(
            (T((1, 1, 64, 128), memory_config=HEIGHT), ttnn.float32),
            {"memory_config": DRAM},
            match="Typecast operation requires Input and Output memory layout to match",
        ),
    ],
    "ttnn.to_dtype": [
        Case((T((1, 1, 20, 50), host=True), ttnn.bfloat8_b), reference=alike, tolerance=EIGHT),
        Case((T((1, 1, 20, 50), ttnn.int32, host=True, high=100), ttnn.float32), reference=lambda x, _: x.float()),
        Refused((T((1, 1, 20, 50)), ttnn.float32), match="Expected Tensor with HostStorage, got StorageType::DEVICE"),
    ],
    "ttnn.clone": [
        Case((T((1, 1, 64, 128), memory_config=HEIGHT),), reference=alike),
        Case((T((1, 1, 32, 64)),), {"dtype": ttnn.float32, "memory_config": L1}, reference=alike),
        Refused((T((1, 1, 32, 64), layout=RM),), {"dtype": ttnn.float32}, match="only supported with tile layout"),
        Refused(
            (T((1, 1, 64, 128), memory_config=HEIGHT),), {"memory_config": DRAM}, match="mixed sharded/interleaved"
        ),
    ],
    "ttnn.assign": [
        Case((T((1, 1, 32, 64)),), {"memory_config": L1}, reference=alike),
        Case((T((1, 1, 32, 64)), T((1, 1, 32, 64))), reference=lambda x, _: x, changes=1),
        Refused((T((1, 1, 32, 64)),), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.copy": [
        Refused((T((1, 1, 32, 64)), T((1, 1, 32, 32))), match="does not match output tensor shape"),
        Refused((T((1, 1, 32, 64)), T((1, 1, 32, 64), layout=RM)), match="must equal output tensor layout"),
        Case((T((1, 1, 32, 64)), T((1, 1, 32, 64))), reference=lambda x, _: x, changes=1),
    ],
    "ttnn.move": [Case((T((1, 1, 32, 64)),), {"memory_config": L1}, reference=alike)],
    "ttnn.reallocate": [Case((T((1, 1, 32, 64)),), reference=alike)],
}
