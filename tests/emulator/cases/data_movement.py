"""Cases of the data-movement ops. Values only move, so every tolerance is 0 unless a block format is packed anew."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
from ttnn_emulator import NotEmulated

RM = ttnn.ROW_MAJOR_LAYOUT
L1 = ttnn.L1_MEMORY_CONFIG
#: One more rounding to a block format whose shared exponents moved: half a step of 2^-6 (or 2^-2) below the block
#: maximum.
REPACKED = {ttnn.bfloat8_b: 2.0**-6, ttnn.bfloat4_b: 0.2}


def sharded(kind, shard, x, y):
    grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (x - 1, y - 1))])
    return ttnn.MemoryConfig(
        getattr(ttnn.TensorMemoryLayout, f"{kind}_SHARDED"), ttnn.BufferType.L1, ttnn.ShardSpec(grid, shard)
    )


HEADS = sharded("HEIGHT", (32, 64), 8, 4)
indices = torch.arange(64).flip(0).expand(1, 1, 32, 64).int()


def take(*starts_ends_steps):
    cut = tuple(slice(*each) for each in starts_ends_steps)
    return lambda x, *_, **__: x[cut]


def to(shape):
    return lambda x, *_, **__: x.reshape(shape)


def swapped(x, a, b, **_):
    return x.transpose(a, b)


def ordered(x, dims, **_):
    return x.permute(tuple(dims))


def joined(tensors, dim=0, **_):
    return torch.cat(list(tensors), dim)


def halves(x, size, dim=0, **_):
    return list(torch.split(x, size, dim))


PLACES = T((1, 1, 32, 64), ttnn.int32, high=64)


def added(x, dim, i, source, **_):
    return x.scatter_add(dim, i, source)


CASES = {
    "ttnn.reshape_on_device": [
        Case((T((1, 1, 64, 32)), 1, 2, 32, -1), reference=lambda x, *_: x.reshape(1, 2, 32, 32)),
        Refused((T((1, 1, 64, 32)), 1, 2, 32, 33), match="Invalid arguments to reshape"),
    ],
    "ttnn.reshape": [
        Case((T((1, 1, 32, 64)), (1, 32, 64)), reference=to((1, 32, 64))),
        Case((T((1, 1, 20, 50)), (1, 1, 50, -1)), reference=to((1, 1, 50, 20))),
        Case((T((1, 32, 8, 64)), (1, 1, 256, 64), (1, 1, 256, 64)), reference=to((1, 1, 256, 64))),
        Case((T((1, 32, 8, 64), memory_config=HEADS), (1, 1, 256, 64)), reference=to((1, 1, 256, 64))),
        Case((T((1, 32, 1, 64), memory_config=HEADS), (1, 1, 32, 64)), reference=to((1, 1, 32, 64))),
        Case((T((2, 3, 4, 5), layout=RM), (6, 20)), {"memory_config": L1}, reference=to((6, 20))),
        Case((T((1, 1, 32, 64), ttnn.int32), (1, 2, 32, 32)), reference=to((1, 2, 32, 32))),
        Case(
            (T((1, 1, 32, 64), ttnn.bfloat8_b), (1, 2, 32, 32)),
            reference=to((1, 2, 32, 32)),
            tolerance=REPACKED[ttnn.bfloat8_b],
        ),
        Case((T((1, 1, 32, 64)), (1, 1, 20, 64), (1, 1, 32, 64)), reference=lambda x, *_: x[:, :, :20]),
        Case(
            (T((1, 1, 20, 64)), (1, 1, 32, 64), (1, 1, 32, 64)),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 0, 0, 12)),
        ),
        Refused((T((1, 1, 32, 64)), (1, 1, 32, 65)), match="Invalid arguments to reshape"),
        Refused(
            (T((1, 1, 32, 64)), (-1, -1, 32, 64)), match="Shape cannot have more than 1 elements that is set to -1"
        ),
        Refused(
            (T((1, 1, 32, 64), ttnn.uint16), (1, 1, 64, 32)),
            match="Can only work with bfloat16/float32 or int32/uint32",
        ),
        Refused((T((1, 1, 32, 64)), (1.5, 64)), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.view": [
        Case((T((1, 1, 64, 64)), (1, 2, 32, 64)), reference=to((1, 2, 32, 64))),
        Case((T((1, 32, 8, 64), layout=RM), (1, 1, 256, 64)), reference=to((1, 1, 256, 64))),
        Refused(
            (T((1, 1, 32, 64)), (1, 2, 32, 32)), match="The last dimension can not change in view, .* from 64 to 32"
        ),
        Refused(
            (T((1, 32, 8, 64)), (1, 1, 256, 64)), match="Invalid second last dims for TILED reshape, from 8 to 256"
        ),
    ],
    "ttnn.experimental.view": [
        Case((T((1, 1, 64, 64)), 1, 2, 32, 64), reference=lambda x, *dims: x.reshape(dims)),
        Case((T((1, 32, 8, 64), layout=RM), (1, 1, 256, 64)), reference=to((1, 1, 256, 64))),
        Refused((T((1, 1, 32, 64)), 1, 1, 64, 32), match="copies where a view cannot be", error=NotEmulated),
    ],
    "ttnn.squeeze": [
        Case((T((1, 1, 32, 64)), 0), reference=to((1, 32, 64))),
        Case((T((1, 2, 1, 64)),), reference=to((2, 64))),
        Case((T((1, 1, 32, 64)), [0, 1]), reference=to((32, 64))),
        Refused((T((1, 1, 32, 64)), 5), match=r"expected to be in range of \[-4,3\], but got 5"),
    ],
    "ttnn.unsqueeze": [
        Case((T((32, 64)), 1), reference=to((32, 1, 64))),
        Case((T((32, 64), layout=RM), -1), reference=to((32, 64, 1))),
        Refused((T((32, 64)), 3), match=r"expected to be in range of \[-3,2\], but got 3"),
    ],
    "ttnn.unsqueeze_to_4D": [
        Case((T((7,)),), reference=to((1, 1, 1, 7))),
        Refused((T((1, 1, 1, 1, 32)),), match="Tensor rank is greater than 4"),
    ],
    "ttnn.transpose": [
        Case((T((1, 32, 8, 64)), 1, 2), reference=swapped),
        Case((T((1, 2, 20, 50), ttnn.float32), -2, -1), reference=swapped),
        Case((T((1, 1, 64, 64), memory_config=sharded("HEIGHT", (32, 64), 2, 1)), 2, 3), reference=swapped),
        Case((T((1, 32, 8, 64), memory_config=HEADS), 1, 2), reference=swapped),
        Case((T((1, 2, 20, 50), ttnn.bfloat8_b), -2, -1), reference=swapped, tolerance=REPACKED[ttnn.bfloat8_b]),
        Refused((T((1, 1, 32, 64)), 4, 1), match="should be between 0 and 3 however is 4"),
        Refused((T((1, 1, 32, 64), host=True), 1, 2), match="Device Operations expect device tensors as inputs"),
    ],
    "ttnn.permute": [
        Case((T((1, 2, 20, 50)), (0, 3, 1, 2)), reference=ordered),
        Case((T((1, 2, 20, 50), ttnn.uint32, RM), (3, 2, 1, 0)), reference=ordered),
        Case((T((1, 2, 20, 50)), (0, 1, 2, 3)), {"memory_config": L1}, reference=ordered),
        Refused((T((1, 2, 32, 64)), (0, 2, 1)), match="does not match the length of the desired ordering"),
        Refused((T((1, 2, 32, 64), host=True), (0, 2, 1, 3)), match="Tensor must already be on device"),
    ],
    "ttnn.slice": [
        Case((T((1, 2, 64, 128)), (0, 0, 5, 7), (1, 2, 20, 50)), reference=take((0, 1), (0, 2), (5, 20), (7, 50))),
        Case(
            (T((1, 2, 64, 128)), (0, 1, 32, 64), (1, 2, 64, 128)), reference=take((0, 1), (1, 2), (32, 64), (64, 128))
        ),
        Case((T((1, 2, 20, 50)), (0, 0, -5, 0), (1, 2, 20, -10)), reference=take((0, 1), (0, 2), (15, 20), (0, 40))),
        Case(
            (T((1, 2, 64, 128)), (0, 0, 0, 0), (1, 2, 32, 64), (1, 1, 2, 2)),
            {"memory_config": L1},
            reference=take((0, 1), (0, 2), (0, 32, 2), (0, 64, 2)),
        ),
        Case(
            (T((1, 32, 32, 64), memory_config=HEADS), [0] * 4, (1, 32, 8, 64)),
            reference=take((0, 1), (0, 32), (0, 8), (0, 64)),
        ),
        Case(
            (T((1, 2, 64, 128), ttnn.bfloat8_b), [0] * 4, (1, 2, 64, 100)),
            reference=take((0, 1), (0, 2), (0, 64), (0, 100)),
        ),
        Case(
            (T((1, 1, 20, 64)), [0] * 4, (1, 1, 32, 64)),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 0, 0, 12)),
        ),
        Refused(
            (T((1, 2, 64, 128)), [0] * 4, (1, 2, 64, 256)), match="Ends 256 must be less than or equal to .* tensor 128"
        ),
        Refused(
            (T((1, 2, 64, 128)), (0, 0, 40, 0), (1, 2, 32, 64)),
            match="End 32 must be greater than or equal to start 40",
        ),
        Refused((T((1, 2, 64, 128)), (0, 0), (1, 2)), match="Input rank 4 and begins 2 must have the same size"),
        Refused(
            (T((1, 2, 64, 128), ttnn.bfloat4_b), (0, 0, 5, 0), (1, 2, 64, 128)), match="Only TILE layout is supported"
        ),
        Refused(
            (T((1, 2, 64, 128), ttnn.bfloat8_b), [0] * 4, (1, 2, 64, 128), (1, 1, 2, 1)),
            match="Strided slice is not supported",
        ),
    ],
    "ttnn.split": [
        Case((T((1, 1, 32, 128)), 64, -1), reference=halves),
        Case((T((1, 1, 32, 128), layout=RM), 50, 3), reference=halves),
        Case((T((1, 1, 32, 128)), [32, 96]), {"dim": 3}, reference=halves),
        Refused((T((1, 1, 32, 128)), [32, 32], 3), match=r"sizes \{32, 32\} under-cover it by 64"),
        Refused((T((1, 1, 32, 128)), 0, 3), match="split_size must be greater than 0"),
    ],
    "ttnn.chunk": [
        Case((T((1, 1, 32, 128)), 3, -1), reference=lambda x, n, dim: list(torch.chunk(x, n, dim))),
        Refused((T((1, 1, 32, 128)), 0, -1), match="Number of chunks must be greater than zero"),
    ],
    "ttnn.concat": [
        Case(([T((1, 1, 32, 50)), T((1, 1, 32, 20))], -1), reference=joined),
        Case(
            ([T((1, 1, 20, 64), layout=RM), T((1, 1, 7, 64), layout=RM)],),
            {"dim": 2, "memory_config": L1},
            reference=joined,
        ),
        Case(([T((1, 2, 32, 64), ttnn.bfloat8_b), T((1, 3, 32, 64), ttnn.bfloat8_b)], 1), reference=joined),
        Case(([T((1, 1, 20, 50), ttnn.bfloat8_b)] * 2, 2), reference=joined),
        Case(
            ([T((1, 1, 64, 64), memory_config=sharded("HEIGHT", (32, 64), 2, 1))] * 2, -1),
            {"memory_config": sharded("HEIGHT", (32, 128), 2, 1)},
            reference=joined,
        ),
        Refused(([T((1, 1, 32, 64)), T((1, 1, 64, 64))], 3), match="All dimensions must be the same size except"),
        Refused(([T((1, 1, 32, 64)), T((1, 1, 32, 64), ttnn.float32)], 3), match="All Tensors should have same dtypes"),
        Refused(([T((1, 1, 20, 50), ttnn.bfloat4_b)] * 2, 2), match="Only TILE layout is supported"),
        Refused(([], 0), match="expected a non-empty list of Tensors"),
    ],
    "ttnn.stack": [
        Case(([T((32, 64), layout=RM)] * 2, 0), reference=lambda tensors, dim: torch.stack(list(tensors), dim)),
        Case(([T((32, 64))] * 2, -1), reference=lambda tensors, dim: torch.stack(list(tensors), dim)),
        Refused(([], 0), match="Stack expects at least one tensor"),
    ],
    "ttnn.pad": [
        Case(
            (T((1, 1, 20, 50)), [(0, 0), (0, 0), (0, 5), (0, 3)], 1.5),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 3, 0, 5), value=1.5),
        ),
        Case(
            (T((1, 1, 20, 50)), [(0, 30), (0, 0)], 0.0),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 0, 0, 30)),
        ),
        Case(
            (T((1, 1, 32, 64), layout=RM), [(0, 0), (0, 0), (5, 0), (3, 0)]),
            {"value": 0},
            reference=lambda x, *_, **__: torch.nn.functional.pad(x, (3, 0, 5, 0)),
        ),
        Case(
            (T((1, 2, 20, 50)), [1, 2, 64, 64], [0, 0, 0, 0], 2.0),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 14, 0, 44), value=2.0),
        ),
        Case(
            (T((1, 1, 32, 64), ttnn.int32), [(0, 32), (0, 0)], 0),
            reference=lambda x, *_: torch.nn.functional.pad(x, (0, 0, 0, 32)),
        ),
        Refused(
            (T((1, 1, 32, 64)), [(32, 0), (0, 0)], 0.0), match="on device tile padding does not support front padding"
        ),
        Refused((T((32, 64)), [(0, 0)] * 3, 0.0), match="padding len can't be larger than input tensor rank"),
        Refused((T((32, 64)), [(0, -1), (0, 0)], 0.0), match="incompatible function arguments", error=TypeError),
    ],
    "ttnn.repeat": [
        Case((T((1, 2, 20, 50)), [2, 1, 1, 3]), reference=lambda x, times: x.repeat(times)),
        Case((T((1, 2, 20, 50), layout=RM), [1, 4]), reference=lambda x, times: x.repeat(1, 1, *times)),
        Case(
            (T((1, 1, 128, 128), memory_config=sharded("HEIGHT", (32, 128), 4, 1)), [1, 1, 2, 1]),
            reference=lambda x, t: x.repeat(t),
        ),
        Refused((T((1, 1, 32, 64)), [1, 1, -1, 1]), match="incompatible function arguments", error=TypeError),
        Refused((T((1, 2, 20, 50), ttnn.bfloat4_b), [1, 1, 2, 1]), match="Only TILE layout is supported"),
    ],
    "ttnn.repeat_interleave": [
        Case((T((1, 2, 32, 64)), 4, 1), reference=lambda x, n, dim: x.repeat_interleave(n, dim)),
        Case((T((1, 2, 20, 50)), 2, -1), reference=lambda x, n, dim: x.repeat_interleave(n, dim)),
        Refused((T((1, 2, 20, 50)), 0, 1), match="expected a non-empty list of Tensors"),
    ],
    "ttnn.expand": [
        Case((T((1, 1, 32, 1)), [-1, 4, -1, 64]), reference=lambda x, shape: x.expand(shape)),
        Refused((T((1, 1, 32, 64)), [2, 4, 64, 64]), match="Only size 1 dimensions can be expanded"),
        Refused((T((1, 1, 32, 64)), [32, 64]), match="Output rank must be >= input rank"),
    ],
    "ttnn.gather": [
        Case(
            (T((1, 1, 32, 64)), 3, T(dtype=ttnn.uint32, values=indices)), reference=lambda x, dim, i: x.gather(dim, i)
        ),
        Refused(
            (T((1, 1, 32, 64)), 3, T((32, 64), ttnn.uint32)),
            match="same number of dimensions. Got input dim: 4 and index dim: 2",
        ),
    ],
    "ttnn.scatter": [
        Case(
            (T((1, 1, 32, 64)), 3, T(dtype=ttnn.uint32, values=indices), T((1, 1, 32, 64))),
            reference=lambda x, dim, i, source: x.scatter(dim, i, source),
        ),
        Case((T((1, 1, 32, 64)), 3, PLACES, T((1, 1, 32, 64))), {"reduce": "add"}, reference=added, tolerance=4e-3),
        Case(
            (T((1, 1, 32, 64)), 3, PLACES, T((1, 1, 32, 64))),
            {"reduce": "multiply"},
            tolerance=4e-3,
            reference=lambda x, dim, i, source, reduce: x.scatter_reduce(dim, i, source, "prod"),
        ),
        *(
            Case(
                (T((1, 1, 32, 64), a), 3, T(dtype=ttnn.uint32, values=indices), T((1, 1, 32, 64), b)),
                reference=lambda x, dim, i, source: x.scatter(dim, i, source),
                note="comes out as bfloat16",
            )
            for a, b in ((ttnn.bfloat8_b, ttnn.bfloat16), (ttnn.bfloat16, ttnn.bfloat8_b))
        ),
        *(
            Refused((T((1, 1, 32, 64), a), 3, PLACES, T((1, 1, 32, 64), b)), match=match)
            for a, b, match in (
                (ttnn.bfloat4_b, ttnn.bfloat4_b, "Only TILE layout is supported for BFLOAT8_B dtype!"),
                (ttnn.bfloat4_b, ttnn.bfloat16, "input_dtype: BFLOAT4_B, src_dtype: BFLOAT16"),
                (ttnn.bfloat8_b, ttnn.bfloat4_b, "input_dtype: BFLOAT8_B, src_dtype: BFLOAT4_B"),
            )
        ),
        Refused(
            (T((1, 1, 32, 64)), 3, PLACES, T((1, 1, 32, 64))), {"reduce": "amax"}, match="either 'add' or 'multiply'"
        ),
        Refused(
            (T((1, 1, 32, 64)), 3, T((1, 1, 32, 64)), T((1, 1, 32, 64))),
            match="index_dtype is not integer, it is BFLOAT16",
        ),
    ],
    "ttnn.scatter_add": [
        Case((T((1, 1, 32, 64)), 3, PLACES, T((1, 1, 32, 64))), reference=added, tolerance=4e-3),
        Case(
            (T((4, 32), ttnn.float32, RM), 0, T((9, 32), ttnn.int32, RM, high=4), T((9, 32), ttnn.float32, RM)),
            reference=added,
            tolerance=1e-6,
        ),
        Case((T((1, 8), ttnn.int32), -1, T((1, 8), ttnn.uint16, high=8), T((1, 8), ttnn.int32)), reference=added),
        Case(
            (T((1, 1, 32, 64), ttnn.bfloat8_b), 3, PLACES, T((1, 1, 32, 64), ttnn.bfloat8_b)),
            reference=added,
            tolerance=4e-3,
            note="comes out as bfloat16",
        ),
        Refused((T((1, 1, 32, 64)), 4, PLACES, T((1, 1, 32, 64))), match="dim 4 is out of range for tensor rank 4"),
        Refused(
            (T((1, 1, 32, 64)), 3, PLACES, T((1, 1, 32, 8))), match=r"index_shape\[3\] <= source_shape\[3\] == false"
        ),
        Refused(
            (T((1, 1, 16, 64)), 3, PLACES, T((1, 1, 32, 64))), match=r"index_shape\[2\] <= input_shape\[2\] == false"
        ),
        Refused((T((1, 1, 32, 64)), 3, T((32, 64), ttnn.int32), T((32, 64))), match=r"3 not in \[-4, 2\)"),
        Refused(
            (T((1, 1, 32, 64), ttnn.float32), 3, PLACES, T((1, 1, 32, 64), ttnn.float32)), match="fp32 tiled tensors"
        ),
    ],
    "ttnn.tril": [Case((T((1, 1, 32, 64)),), {"diagonal": 1}, reference=torch.tril)],
    "ttnn.triu": [
        Case((T((1, 1, 32, 64)),), reference=torch.triu),
        Refused((T((32, 32), ttnn.uint8),), match="dtype DataType::UINT8 is not supported for binary operation"),
        Refused((T((32, 32), ttnn.uint16),), match="dtype A: DataType::UINT16, dtype B: DataType::BFLOAT16"),
        Case((T((32, 32), layout=RM),), reference=torch.triu),
    ],
    "ttnn.roll": [
        Refused((T((1, 1, 32, 64)), [1, 2], [2]), match="Roll expects shifts 2 and dims 1 to have the same length"),
        Refused((T((1, 1, 32, 64)), 1, 7), match=r"must be within the range \[-4, 3\]"),
        Case((T((1, 1, 32, 64)), 3, -1), reference=lambda x, n, dim: torch.roll(x, n, dim)),
        Case((T((1, 1, 32, 64)), [1, 2], [2, 3]), reference=lambda x, n, dim: torch.roll(x, n, dim)),
    ],
}
