"""Random calls of the data-movement ops, legal and illegal, against torch.

What is accepted moves the values as torch does; what is not is one of the two refusals,
or the error of a wrong argument. Nothing
stays allocated.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttnn_emulator as ttnn

REFUSALS = (ttnn.DeviceRejects, ttnn.NotEmulated, TypeError, IndexError)
DTYPES = [ttnn.bfloat16, ttnn.float32, ttnn.int32, ttnn.uint32, ttnn.uint16, ttnn.uint8, ttnn.bfloat8_b, ttnn.bfloat4_b]
BLOCKS = (ttnn.bfloat8_b, ttnn.bfloat4_b)
T, RM, DRAM, L1 = ttnn.TILE_LAYOUT, ttnn.ROW_MAJOR_LAYOUT, ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG
sizes = st.sampled_from([1, 1, 2, 3, 5, 8, 20, 31, 32, 33, 40, 64])
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple).filter(lambda s: math.prod(s) <= 1 << 16)


@pytest.fixture(scope="module")
def device():
    opened = ttnn.open_device(device_id=0)
    yield opened
    ttnn.close_device(opened)


@st.composite
def sharded(draw, shape, layout):
    """A sharded config that may or may not fit."""
    unit = 32 if layout is T else 1
    rows, columns = math.prod(shape[:-1]), shape[-1]
    if layout is T:
        rows = math.prod(shape[:-2]) * -(-(shape[-2] if len(shape) > 1 else 1) // 32) * 32
        columns = -(-columns // 32) * 32
    x, y = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (2, 2), (8, 4), (8, 9)]))
    kind = draw(st.sampled_from(["HEIGHT", "WIDTH", "BLOCK"]))
    down, across = {"HEIGHT": (x * y, 1), "WIDTH": (1, x * y), "BLOCK": (y, x)}[kind]
    up = lambda n: -(-n // unit) * unit  # noqa: E731
    shard = [up(-(-rows // down)), up(-(-columns // across))]
    shard[draw(st.integers(0, 1))] += draw(st.sampled_from([0, 0, 0, 0, unit, 1]))
    grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (x - 1, y - 1))])
    layout_of = getattr(ttnn.TensorMemoryLayout, f"{kind}_SHARDED")
    return ttnn.MemoryConfig(layout_of, ttnn.BufferType.L1, ttnn.ShardSpec(grid, shard))


@st.composite
def operands(draw):
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    layout = T if dtype in BLOCKS else draw(st.sampled_from([T, RM]))
    memory = draw(st.one_of(st.just(DRAM), st.just(DRAM), st.just(L1), sharded(shape, layout)))
    return shape, dtype, layout, memory


def cuts(draw, shape):
    ends = [draw(st.integers(0, n + 2)) for n in shape]
    starts = [draw(st.integers(-2, max(e, 0))) for e in ends]
    return starts, ends


def padded(x, ends):
    """With zeros up to `ends`: what lies behind the end of a tile's dim is padding, which reads as zero."""
    return torch.nn.functional.pad(
        x, [n for e, d in zip(ends[::-1], x.shape[::-1], strict=True) for n in (0, max(0, e - d))]
    )


def sliced(x, starts, ends, steps):
    """torch's slice."""
    starts = [s + n if s < 0 else s for s, n in zip(starts, x.shape, strict=True)]
    return padded(x, ends)[tuple(map(slice, starts, ends, steps))]


@st.composite
def calls(draw):
    """(name, the call, torch's counterpart) for a tensor of the drawn operands."""
    given_operands = draw(operands())
    shape, rank = given_operands[0], len(given_operands[0])
    dim = draw(st.integers(-rank - 1, rank))
    memory = draw(st.sampled_from([None, None, None, DRAM, L1]))
    name = draw(st.sampled_from([
        "reshape", "transpose", "permute", "slice", "getitem", "concat", "pad", "repeat", "repeat_interleave",
        "split", "chunk",
        "unsqueeze", "squeeze", "expand", "stack", "to_layout", "to_memory_config", "clone", "move",
        "untilize", "tilize",
        "reshard", "typecast",
    ]))  # fmt: skip
    if name == "reshape":
        new = list(draw(st.permutations(shape)))
        if len(new) > 1 and draw(st.booleans()):
            new[-2:] = [new[-2] * new[-1]]
        new = [1] * draw(st.integers(0, 2)) + new
        if draw(st.integers(0, 9)) == 0:
            new[0] += 1
        return name, given_operands, lambda x: ttnn.reshape(x, new, memory_config=memory), lambda v: v.reshape(new)
    if name == "transpose":
        other = draw(st.integers(-rank, rank - 1))
        return (
            name,
            given_operands,
            lambda x: ttnn.transpose(x, dim, other, memory_config=memory),
            lambda v: v.transpose(dim, other),
        )
    if name == "permute":
        order = draw(st.permutations(range(rank)))
        return name, given_operands, lambda x: ttnn.permute(x, order, memory_config=memory), lambda v: v.permute(order)
    if name in ("slice", "getitem"):
        starts, ends = cuts(draw, shape)
        steps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in shape]
        if name == "getitem":
            index = tuple(slice(max(s, 0), e) for s, e in zip(starts, ends, strict=True))
            index = (*index[:-1], draw(st.integers(-shape[-1] - 1, shape[-1])))
            return name, given_operands, lambda x: x[index], lambda v: padded(v, (*ends[:-1], 0))[index]
        return (name, given_operands, lambda x: ttnn.slice(x, starts, ends, steps, memory_config=memory),
                lambda v: sliced(v, starts, ends, steps))  # fmt: skip
    if name == "concat":
        return (
            name,
            given_operands,
            lambda x: ttnn.concat([x, x, x], dim, memory_config=memory),
            lambda v: torch.cat([v] * 3, dim),
        )
    if name == "stack":
        return name, given_operands, lambda x: ttnn.stack([x, x], dim), lambda v: torch.stack([v, v], dim)
    if name == "pad":
        pairs = [(draw(st.sampled_from([0, 0, 0, 1])), draw(st.sampled_from([0, 1, 12, 32]))) for _ in shape]
        flat = [n for p in reversed(pairs) for n in p]
        return (
            name,
            given_operands,
            lambda x: ttnn.pad(x, pairs, 1),
            lambda v: torch.nn.functional.pad(v, flat, value=1),
        )
    if name in ("repeat", "expand"):
        times = [draw(st.integers(1, 3)) for _ in shape]
        if name == "repeat":
            return name, given_operands, lambda x: ttnn.repeat(x, times), lambda v: v.repeat(times)
        new = [n if n > 1 else t for n, t in zip(shape, times, strict=True)]
        return name, given_operands, lambda x: ttnn.expand(x, new), lambda v: v.expand(new)
    if name == "repeat_interleave":
        return name, given_operands, lambda x: ttnn.repeat_interleave(x, 2, dim), lambda v: v.repeat_interleave(2, dim)
    if name in ("split", "chunk"):
        n = draw(st.integers(1, 40))
        call = getattr(ttnn, name)
        return name, given_operands, lambda x: call(x, n, dim), lambda v: list(getattr(torch, name)(v, n, dim))
    if name == "unsqueeze":
        return name, given_operands, lambda x: ttnn.unsqueeze(x, dim), lambda v: v.unsqueeze(dim)
    if name == "squeeze":
        return name, given_operands, lambda x: ttnn.squeeze(x, dim), lambda v: v.squeeze(dim)
    if name in ("to_memory_config", "reshard"):
        target = draw(st.one_of(st.just(L1), sharded(shape, given_operands[2])))
        return name, given_operands, lambda x: getattr(ttnn, name)(x, target), lambda v: v
    if name == "to_layout":
        target = draw(st.sampled_from([T, RM]))
        return name, given_operands, lambda x: ttnn.to_layout(x, target, memory_config=memory), lambda v: v
    if name == "typecast":
        return name, given_operands, lambda x: ttnn.typecast(x, ttnn.float32), lambda v: v
    if name == "clone":
        return name, given_operands, lambda x: ttnn.clone(x, memory_config=memory), lambda v: v
    return name, given_operands, lambda x: getattr(ttnn, name)(x), lambda v: v


def compare(name, got, want):
    if isinstance(want, list):
        assert len(got) == len(want), f"{name}: {len(got)} parts, torch has {len(want)}"
        for g, w in zip(got, want, strict=True):
            compare(name, g, w)
        return
    assert tuple(got.shape) == tuple(want.shape), f"{name}: {got.spec}, torch has {tuple(want.shape)}"
    for held in got.contents():
        assert tuple(held.shape) == tuple(want.shape)
    read = ttnn.to_torch(got).double()
    if got.dtype in BLOCKS:  # packed anew: within a step of the format of the largest value
        step = 2.0 ** (-5 if got.dtype is ttnn.bfloat8_b else -1)
        assert read.numel() == 0 or (read - want).abs().max() <= step * want.abs().max(), (
            f"{name}: values moved wrongly"
        )
    else:
        assert torch.equal(read, want.double()), f"{name}: values moved wrongly"


def attempt(drawn, seed, device) -> None:
    name, (shape, dtype, layout, memory), call, reference = drawn
    values = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).float()
    try:
        x = ttnn.from_torch(values, dtype=dtype, layout=layout, device=device, memory_config=memory)
        held = ttnn.to_torch(x).double()
        got = call(x)
    except REFUSALS:
        return
    compare(name, got, reference(held))


@given(drawn=calls(), seed=st.integers(0, 3))
@settings(max_examples=600, deadline=None)
def test_calls_move_values_as_torch_does_or_are_refused(drawn, seed, device):
    attempt(drawn, seed, device)
    device.clear_program_cache()  # a program may keep tables in memory for as long as it is cached
    assert {kind: use["allocated"] for kind, use in device.memory().items()} == {"dram": 0, "l1": 0}
