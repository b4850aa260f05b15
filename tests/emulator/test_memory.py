"""Allocators, bank bytes, padded shapes and the life of buffers.

Figures: ttnn 0.81.1 on a mock n150 (`get_memory_view` and buffer addresses after the call).
"""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttnn_emulator as ttnn
from ttnn_emulator.chips.wormhole import WORMHOLE
from ttnn_emulator.memory import (
    Allocator,
    BufferType,
    MemoryConfig,
    ShardSpec,
    TensorMemoryLayout,
    banks_of,
    buffer_bytes,
)  # fmt: skip
from ttnn_emulator.tensor import spec

T, RM, DRAM, L1 = ttnn.TILE_LAYOUT, ttnn.ROW_MAJOR_LAYOUT, ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG
b16, b8, b4, f32, u32, u16, u8 = (
    ttnn.bfloat16, ttnn.bfloat8_b, ttnn.bfloat4_b, ttnn.float32, ttnn.uint32, ttnn.uint16, ttnn.uint8,
)  # fmt: skip


@pytest.fixture
def device():
    opened = ttnn.open_device(device_id=0)
    yield opened
    ttnn.close_device(opened)


# ---------------------------------------------------------------- allocators
class Blocks:
    """First fit by address, written as plainly as possible: a byte map of what is taken."""

    def __init__(self, size, top_down):
        self.taken, self.top_down = [False] * size, top_down

    def allocate(self, n):
        starts = range(len(self.taken) - n, -1, -1) if self.top_down else range(len(self.taken) - n + 1)
        for start in starts:
            if not any(self.taken[start : start + n]):
                self.taken[start : start + n] = [True] * n
                return start
        return None

    def release(self, start, n):
        self.taken[start : start + n] = [False] * n

    def largest_free(self):
        runs = "".join("x" if t else " " for t in self.taken).split("x")
        return max(map(len, runs))


steps = st.lists(st.tuples(st.booleans(), st.integers(1, 24), st.integers(0, 1000)), max_size=60)


@pytest.mark.parametrize("kind", [BufferType.DRAM, BufferType.L1])
@given(steps=steps)
@settings(max_examples=150, deadline=None)
def test_allocator_places_as_first_fit_by_address(kind, steps):
    unit, size = 32, 64
    whole = banks_of(WORMHOLE, kind)
    real, plain = Allocator(kind, WORMHOLE, whole.bytes - size * unit), Blocks(size, kind is BufferType.L1)
    base, live = whole.base, []
    for allocate, n, pick in steps:
        if allocate or not live:
            want = plain.allocate(n)
            if want is None:
                with pytest.raises(ttnn.DeviceRejects, match="Out of Memory: Not enough space to allocate"):
                    real.allocate(n * unit, n * unit)
                continue
            address = real.allocate(n * unit, n * unit)
            assert address == base + want * unit, f"{n} units: at {(address - base) // unit}, first fit says {want}"
            live.append((want, n))
        else:
            start, n = live.pop(pick % len(live))
            plain.release(start, n)
            real.release(base + start * unit, n * unit)
        assert real.largest_free == plain.largest_free() * unit
        assert real.allocated == sum(n for _, n in live) * unit
    for start, n in live:
        real.release(base + start * unit, n * unit)
    assert real.free_blocks == [[base, size * unit]], "everything freed is one block again"


def test_a_fresh_device_reports_the_recorded_capacities(device):
    for kind, banks, size in ((BufferType.DRAM, 12, 1_072_693_184), (BufferType.L1, 64, 1_393_312)):
        view = ttnn.get_memory_view(device, kind)
        assert (view.num_banks, view.total_bytes_per_bank) == (banks, size)
        assert (view.total_bytes_allocated_per_bank, view.largest_contiguous_bytes_free_per_bank) == (0, size)


@pytest.mark.parametrize(
    ("region", "taken"), [(10 << 20, 876_544), (1000, 8192), (98_305, 16_384), (23_887_872, 1_990_656)]
)
def test_the_trace_region_is_cut_off_dram(region, taken):
    device = ttnn.open_device(device_id=0, trace_region_size=region)
    view = ttnn.get_memory_view(device, BufferType.DRAM)
    assert view.total_bytes_per_bank == 1_072_693_184 - taken
    ttnn.close_device(device)


# ---------------------------------------------------------------- bytes
INTERLEAVED = [
    ((1, 1, 32, 384), b16, T, DRAM, 2048), ((1, 1, 32, 416), b16, T, DRAM, 4096), ((1, 1, 32, 416), b8, T, DRAM, 2176),
    ((1, 1, 32, 416), b4, T, DRAM, 1152), ((4096, 14336), b8, T, DRAM, 5_199_552), ((128256, 2048), b16, RM, DRAM,
    43_778_048),
    ((128256, 2048), b16, T, DRAM, 43_778_048), ((1, 32), u32, RM, DRAM, 128), ((1, 1, 1, 1), u32, RM, DRAM, 32),
    ((1, 1, 13, 17), b16, RM, DRAM, 128), ((1, 1, 13, 100), b16, RM, DRAM, 448), ((3, 5, 7, 40), u16, RM, DRAM, 864),
    ((3, 5, 7, 41), u8, RM, DRAM, 576), ((1, 1, 1, 128256), b16, T, DRAM, 684_032), ((1, 1, 1, 128256), b16, RM,
    DRAM, 256_512),
    ((8, 1, 1024, 128), b8, T, DRAM, 93_568), ((1, 8, 1024, 128), b16, T, DRAM, 176_128), ((1, 1, 32, 32), b16, T,
    L1, 2048),
    ((1, 1, 32, 2080), b16, T, L1, 4096), ((1, 1, 32, 2080), b8, T, L1, 2176), ((1, 1, 32, 2080), b4, T, L1, 1152),
    ((1, 1, 5, 17), b16, RM, L1, 64), ((1, 1, 65, 17), b16, RM, L1, 96), ((1, 1, 65, 17), u8, RM, L1, 64), ((0,
    32), b16, T, DRAM, 0),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype", "layout", "memory", "want"), INTERLEAVED)
def test_bytes_in_every_bank(shape, dtype, layout, memory, want):
    assert buffer_bytes(spec(shape, dtype, layout, memory).padded_shape, dtype, layout, memory, WORMHOLE)[0] == want


@pytest.mark.parametrize(
    ("shape", "kind", "shard", "cores", "dtype", "layout", "where", "want"),
    [
        ((1, 1, 32, 2048), "WIDTH", (32, 64), (8, 4), b16, T, "L1", 4096),
        ((1, 1, 64, 128), "HEIGHT", (32, 128), (2, 1), b16, T, "L1", 8192),
        ((1, 1, 128, 128), "BLOCK", (64, 64), (2, 2), b8, T, "L1", 4352),
        ((1, 1, 4, 2048), "HEIGHT", (2, 2048), (2, 1), b16, RM, "L1", 8192),
        ((1, 1, 10, 40), "HEIGHT", (5, 40), (2, 1), b16, RM, "L1", 416),
        ((1, 1, 2048, 3072), "WIDTH", (2048, 256), (12, 1), b8, T, "DRAM", 557_056),
        ((1, 1, 2048, 3072), "WIDTH", (2048, 256), (12, 1), b16, T, "DRAM", 1_048_576),
    ],
)
def test_bytes_of_a_shard(shape, kind, shard, cores, dtype, layout, where, want):
    grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (cores[0] - 1, cores[1] - 1))])
    memory = MemoryConfig(
        getattr(TensorMemoryLayout, f"{kind}_SHARDED"), getattr(BufferType, where), ShardSpec(grid, shard)
    )
    assert buffer_bytes(spec(shape, dtype, layout, memory).padded_shape, dtype, layout, memory, WORMHOLE)[0] == want


shapes = st.lists(st.integers(1, 80), min_size=0, max_size=4).map(tuple)


@given(shape=shapes, dtype=st.sampled_from([b16, b8, b4, f32, u32]))
@settings(max_examples=200, deadline=None)
def test_tiles_pad_the_last_two_dims_and_no_more(shape, dtype):
    got = spec(shape, dtype, T).padded_shape
    whole = (1,) * (2 - len(shape)) + shape
    assert len(got) == len(whole)
    assert tuple(got[:-2]) == whole[:-2]
    for n, p in zip(whole[-2:], got[-2:], strict=True):
        assert p % 32 == 0
        assert 0 <= p - n < 32


@given(shape=shapes.filter(lambda s: len(s) > 0))
@settings(max_examples=100, deadline=None)
def test_every_page_finds_a_bank(shape):
    for layout in (T, RM):
        s = spec(shape, b16, layout)
        per_bank, total = buffer_bytes(s.padded_shape, b16, layout, DRAM, WORMHOLE)
        assert per_bank % 32 == 0
        assert total <= 12 * per_bank < total + 12 * max(2048, 2 * s.padded_shape[-1] + 32)


# ---------------------------------------------------------------- buffers
def make(device, shape=(1, 1, 64, 64), layout=T, memory=None):
    return ttnn.from_torch(torch.randn(shape), dtype=b16, layout=layout, device=device, memory_config=memory)


def test_a_buffer_lives_as_long_as_its_last_handle(device):
    level = device.memory()["dram"]["allocated"]
    x = make(device)
    y = ttnn.to_layout(x, T)
    address = x.buffer_address()
    del x
    assert y.is_allocated()
    assert device.memory()["dram"]["allocated"] > level
    del y
    assert device.memory()["dram"]["allocated"] == level
    assert make(device).buffer_address() == address


#: What gives another handle on the same tensor, and what a view of its memory (ttnn 0.81.1, `is_allocated` and
#: addresses).
SAME = {
    "reshape": lambda x: ttnn.reshape(x, x.shape), "to_layout": lambda x: ttnn.to_layout(x, T, f32),
    "to_memory_config": lambda x: ttnn.to_memory_config(x, DRAM, b8),
    "permute": lambda x: ttnn.permute(x, (1, 0, 2, 3)),
    "transpose": lambda x: ttnn.transpose(x, 0, 1), "slice": lambda x: ttnn.slice(x, [0] * 4, x.shape, [1] * 4),
    "getitem": lambda x: x[...], "concat": lambda x: ttnn.concat([x], 0),
    "repeat": lambda x: ttnn.repeat(x, [1, 1, 1, 1]),
    "repeat_interleave": lambda x: ttnn.repeat_interleave(x, 1, 0), "expand": lambda x: ttnn.expand(x, x.shape),
    "pad": lambda x: ttnn.pad(x, [(0, 0), (0, 0)], 0.0),
    "to_device": lambda x: ttnn.to_device(x, x.device(), memory_config=L1),
    "unsqueeze_to_4D": ttnn.unsqueeze_to_4D, "sharded_to_interleaved": lambda x: ttnn.sharded_to_interleaved(x, L1),
    "tilize_with_zero_padding": ttnn.tilize_with_zero_padding, "chunk": lambda x: ttnn.chunk(x, 1, 0)[0],
}  # fmt: skip
VIEW = {
    "reshape": lambda x: ttnn.reshape(x, (64, 64)), "tensor.reshape": lambda x: x.reshape([1, 2, 32, 64]),
    "view": lambda x: ttnn.view(x, (2, 1, 32, 64)), "squeeze": lambda x: ttnn.squeeze(x, 0),
    "unsqueeze": lambda x: ttnn.unsqueeze(x, 0), "getitem": lambda x: x[0],
}  # fmt: skip
NEW = {
    "reshape": lambda x: ttnn.reshape(x, (1, 1, 32, 128)), "split rows": lambda x: ttnn.reshape(x, (1, 64, 1, 64)),
    "other memory": lambda x: ttnn.reshape(x, (64, 64), memory_config=L1), "typecast": lambda x: ttnn.typecast(x, b16),
    "clone": ttnn.clone, "identity": ttnn.identity, "transpose": lambda x: ttnn.transpose(x, -2, -1),
    "slice": lambda x: x[:, :, :60],
    "split": lambda x: ttnn.split(x, 64, -1)[0], "permute": lambda x: ttnn.permute(x, (0, 2, 1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same_tensor(name, device):
    x = make(device)
    y = SAME[name](x)
    assert y is not x
    assert (y.buffer_address(), y.dtype, y.layout, y.memory_config()) == (x.buffer_address(), b16, T, DRAM)
    ttnn.deallocate(y, force=False)
    assert x.is_allocated(), "force=False leaves what another handle uses"
    ttnn.deallocate(x)
    assert not y.is_allocated()
    ttnn.deallocate(y)


@pytest.mark.parametrize("name", VIEW)
def test_view_of_the_same_memory(name, device):
    level = device.memory()["dram"]["allocated"]
    x = make(device)
    y = VIEW[name](x)
    assert y.buffer_address() == x.buffer_address()
    assert torch.equal(ttnn.to_torch(y).flatten(), ttnn.to_torch(x).flatten())
    ttnn.deallocate(y)
    assert not x.is_allocated(), "freeing a view frees its source"
    x = make(device)
    y = VIEW[name](x)
    ttnn.deallocate(x)
    assert device.memory()["dram"]["allocated"] == level
    assert y.is_allocated(), "freeing the source leaves the view marked allocated"
    with pytest.raises(ttnn.NotEmulated, match="freed through the tensor it is a view of"):
        ttnn.to_torch(y)


@pytest.mark.parametrize("name", NEW)
def test_new_memory(name, device):
    x = make(device)
    y = NEW[name](x)
    assert y.buffer_address() != x.buffer_address()
    ttnn.deallocate(x)
    assert y.is_allocated()
    ttnn.to_torch(y)


def test_padding_inside_the_tiles_is_a_view(device):
    x = make(device, (1, 1, 20, 50))
    y = ttnn.pad(x, [(0, 4), (0, 2)], 7.0)
    assert y.buffer_address() == x.buffer_address()
    assert torch.equal(ttnn.to_torch(y), torch.nn.functional.pad(ttnn.to_torch(x), (0, 2, 0, 4), value=7.0))
    assert torch.equal(ttnn.to_torch(ttnn.reshape(y, (24, 52))), ttnn.to_torch(y)[0, 0])


def test_row_major_rows_are_a_view(device):
    x = make(device, (1, 32, 8, 64), RM)
    assert ttnn.reshape(x, (1, 1, 256, 64)).buffer_address() == x.buffer_address()
    assert ttnn.reshape(x, (1, 1, 512, 32)).buffer_address() != x.buffer_address()


def test_move_frees_its_operand(device):
    x = make(device)
    values = ttnn.to_torch(x)
    y = ttnn.move(x)
    assert not x.is_allocated()
    assert torch.equal(ttnn.to_torch(y), values)


def test_a_freed_tensor_keeps_its_spec_and_refuses_use(device):
    x = make(device)
    ttnn.deallocate(x)
    assert (tuple(x.shape), x.dtype, x.memory_config()) == ((1, 1, 64, 64), b16, DRAM)
    for use in (lambda: ttnn.reshape(x, (64, 64)), lambda: ttnn.to_torch(x), lambda: ttnn.to_memory_config(x, L1),
                lambda: ttnn.to_layout(x, RM), lambda: ttnn.concat([x, x], 0), lambda: x[0],
                lambda: ttnn.silu(x)):  # fmt: skip
        with pytest.raises(ttnn.DeviceRejects, match="is not allocated"):
            use()


def test_views_see_what_is_written_into_their_source(device):
    cache = ttnn.zeros((1, 2, 64, 32), dtype=b16, layout=T, device=device)
    seen = ttnn.reshape(cache, (2, 64, 32))
    host = ttnn.from_torch(torch.ones(1, 2, 64, 32), dtype=b16, layout=T)
    ttnn.copy_host_to_device_tensor(host, cache)
    assert ttnn.to_torch(seen).eq(1).all()


# ---------------------------------------------------------------- meshes
systems = st.sampled_from([(1, 1), (1, 2), (2, 4), (1, 8)])


@given(
    mesh=systems,
    dim=st.integers(-4, 3),
    dtype=st.sampled_from([b16, f32, u32]),
    factor=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_what_is_cut_on_a_dim_comes_back_whole(mesh, dim, dtype, factor, data):
    device = ttnn.open_mesh_device(ttnn.MeshShape(*mesh))
    shape = [data.draw(st.integers(1, 4)) for _ in range(4)]
    shape[dim] = device.chips * factor
    values = torch.arange(torch.Size(shape).numel()).reshape(shape).remainder(200)
    values = values.to(torch.int32) if dtype is u32 else values.float()
    layout = data.draw(st.sampled_from([T, RM]))
    x = ttnn.from_torch(
        values, dtype=dtype, layout=layout, device=device, mesh_mapper=ttnn.ShardTensorToMesh(device, dim)
    )
    assert x.shape[dim] == factor
    back = ttnn.to_torch(x, mesh_composer=ttnn.ConcatMeshToTensor(device, dim))
    assert torch.equal(back.float(), values.float())
    ttnn.close_mesh_device(device)


@given(
    mesh=st.sampled_from([(1, 2), (2, 4), (1, 8)]),
    dims=st.permutations([0, 1, 2, 3]),
    cut=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=40, deadline=None)
def test_two_axes_of_a_mesh(mesh, dims, cut):
    device = ttnn.open_mesh_device(ttnn.MeshShape(*mesh))
    dims = tuple(dims[:2])
    values = torch.arange(8**4).reshape(8, 8, 8, 8).remainder(256).float()
    mapper = ttnn.ShardTensor2dMesh(device, mesh, tuple(d if c else None for d, c in zip(dims, cut, strict=True)))
    x = ttnn.from_torch(values, dtype=b16, layout=RM, device=device, mesh_mapper=mapper)
    back = ttnn.to_torch(x, mesh_composer=ttnn.ConcatMesh2dToTensor(device, mesh, dims))
    times = [1] * 4
    for d, c, n in zip(dims, cut, mesh, strict=True):
        times[d] = 1 if c else n  # along an axis that replicates, the copies come back behind one another
    assert torch.equal(back.float(), values.repeat(times))
    ttnn.close_mesh_device(device)


def test_chips_that_hold_the_same_share_it():
    device = ttnn.open_mesh_device(ttnn.MeshShape(2, 4))
    x = ttnn.from_torch(torch.randn(1, 1, 32, 64), dtype=b16, layout=T, device=device)
    y = ttnn.concat([x, ttnn.transpose(x, -1, -2).reshape([1, 1, 32, 64])], -1)
    assert (len(x.contents()), len(y.contents())) == (1, 1)
    ttnn.close_mesh_device(device)


@pytest.mark.parametrize("dtype", [b16, b8, u32])
def test_files_keep_values_and_distribution(dtype, tmp_path):
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, 2))
    values = torch.randint(0, 50, (1, 1, 32, 128))
    values = values if dtype is u32 else values.float()
    x = ttnn.from_torch(values, dtype=dtype, layout=T, device=device, mesh_mapper=ttnn.ShardTensorToMesh(device, 3))
    ttnn.dump_tensor(tmp_path / "x.tensorbin", x)
    y = ttnn.load_tensor(tmp_path / "x.tensorbin", device=device)
    assert (y.spec, y.topology) == (x.spec, x.topology)
    join = ttnn.ConcatMeshToTensor(device, 3)
    assert torch.equal(ttnn.to_torch(y, mesh_composer=join), ttnn.to_torch(x, mesh_composer=join))
    (tmp_path / "y.tensorbin").write_bytes(b"another format")
    with pytest.raises(ttnn.NotEmulated, match="not written by the emulator"):
        ttnn.load_tensor(tmp_path / "y.tensorbin")
    ttnn.close_mesh_device(device)


def test_sets_of_cores():
    first, second = ttnn.CoreRange((0, 0), (2, 1)), ttnn.CoreRange((4, 4), (4, 5))
    cores = ttnn.CoreRangeSet([first, second])
    assert str(cores.merge(ttnn.CoreRangeSet([ttnn.CoreRange((3, 0), (3, 1))]))) == "{[0-0 - 3-1], [4-4 - 4-5]}"
    assert {*cores.subtract(ttnn.CoreRangeSet([second])).cores()} == {*ttnn.CoreRangeSet([first]).cores()}
    assert str(ttnn.corerange_to_cores(cores)) == "[0-0, 0-1, 1-0, 1-1, 2-0, 2-1, 4-4, 4-5]"
    assert str(ttnn.corerange_to_cores(cores, 4, True)) == "[0-0, 1-0, 2-0, 0-1]"
    assert str(ttnn.grid_to_cores(5, 8, 8, True)) == "[0-0, 1-0, 2-0, 3-0, 4-0]"
    assert str(ttnn.num_cores_to_corerangeset(12, ttnn.CoreCoord(8, 8), True)) == "{[0-0 - 7-0], [0-1 - 3-1]}"


def test_a_shape_is_no_tuple(device):
    shape = make(device, (1, 2, 32, 64)).shape
    assert shape == (1, 2, 32, 64) == shape
    assert shape == [1, 2, 32, 64]
    assert (len(shape), shape[-1], list(shape), shape.rank, shape.to_rank(5)) == (
        4,
        64,
        [1, 2, 32, 64],
        4,
        [1, 1, 2, 32, 64],
    )
    assert ttnn.reshape(make(device, (1, 2, 32, 64)), ttnn.Shape([2, 32, 64])).shape == (2, 32, 64)
    for wrong in (lambda: shape[1:], lambda: shape + (1,), lambda: torch.zeros(shape), lambda: ttnn.Shape([-1, 2])):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(RuntimeError, match=r"index out of range. 5 not in \[-4, 4\)"):
        shape[5]


# ---------------------------------------------------------------- text
def test_tensors_print_as_in_the_library(device):
    x = ttnn.from_torch(torch.arange(12).reshape(3, 4).float())
    assert repr(x) == (
        "ttnn.Tensor([[ 0.0000,  1.0000,  2.0000,  3.0000],\n"
        "             [ 4.0000,  5.0000,  6.0000,  7.0000],\n"
        "             [ 8.0000,  9.0000, 10.0000, 11.0000]], shape=Shape([3, 4]), dtype=DataType::FLOAT32, "
        "layout=Layout::ROW_MAJOR)"
    )
    x = ttnn.zeros((2, 1, 3, 5), dtype=ttnn.int32, layout=RM, device=device)
    row = "[    0,     0,  ...,     0,     0]"
    block = f"[[{row},\n               {row},\n               {row}]]"
    assert repr(x) == (
        f"ttnn.Tensor([{block},\n\n             {block}], shape=Shape([2, 1, 3, 5]), dtype=DataType::INT32, "
        "layout=Layout::ROW_MAJOR)"
    )
    ttnn.deallocate(x)
    assert "deallocated" in repr(x)


def test_a_cache_filled_in_inference_mode_is_written_outside_it(device):
    def tile():
        return ttnn.ones((1, 1, 32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)

    with torch.inference_mode():
        cache = ttnn.zeros((2, 1, 32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
        ttnn.fill_cache(cache, tile(), 0)
    ttnn.fill_cache(cache, tile(), 1)
    assert torch.equal(ttnn.to_torch(cache), torch.ones(2, 1, 32, 32, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("system", "shape", "new", "dtype", "kept"),  # ttnn 0.81.1: DRAM after the result was freed
    [
        ("n150", (1, 1, 32, 16), (32, 1, 16), f32, 1152),
        ("p150", (1, 1, 32, 16), (32, 1, 16), f32, 2048),
        ("n150", (1, 1, 32, 2048), (32, 1, 16, 128), b16, 67584),
        ("n150", (2, 4, 32, 64), (8, 1, 64, 32), f32, 24576),
    ],
)
def test_the_map_of_a_reshape_stays_once_for_all_ways_to_write_its_batches(system, shape, new, dtype, kept):
    from ttnn_emulator import chips

    before = chips.machine().name
    chips.use(system)
    device = ttnn.open_device(device_id=0)
    try:
        level = device.memory()["dram"]["allocated"]
        for target in (new, (new[0] * new[1], *new[2:]) if len(new) == 4 else (1, *new)):
            x = ttnn.zeros(shape, dtype=dtype, layout=T, device=device)
            made = ttnn.reshape(x, target)
            ttnn.deallocate(made)
            ttnn.deallocate(x)
            assert device.memory()["dram"]["allocated"] - level == kept
    finally:
        ttnn.close_device(device)
        chips.use(before)


def test_what_would_not_be_seen_in_a_part_is_not_written(device):
    """ttnn.narrow and a pad within the padding share memory; here their contents are held apart."""
    whole = ttnn.from_torch(torch.randn(1, 1, 768, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    host = ttnn.from_torch(torch.zeros(1, 1, 768, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT)
    part = ttnn.narrow(whole, 2, 384, 384)
    writes = [
        (ttnn.copy_host_to_device_tensor, host, whole),
        (ttnn.add_, whole, 1.0),
        (functools.partial(ttnn.add, output_tensor=part), part, 1.0),
    ]
    for op, *operands in writes:
        with pytest.raises(ttnn.NotEmulated, match="another tensor shows too"):
            op(*operands)
    del part, writes, op, operands
    ttnn.copy_host_to_device_tensor(host, whole)
    assert not ttnn.to_torch(whole).any()


def test_a_part_is_written_where_nothing_else_is_left(device):
    def part():
        whole = ttnn.zeros((1, 1, 768, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
        return ttnn.narrow(whole, 2, 384, 384)

    x = part()
    ttnn.add_(x, 1.0)
    assert (ttnn.to_torch(x) == 1).all()
