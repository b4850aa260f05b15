"""What ops hold beside their results: tables and semaphores of cached programs, and what their steps hand on.

Figures: ttnn 0.81.1 on mock clusters, bytes per bank as its graph capture and `get_memory_view` tell them. A list is
how much was allocated in DRAM after each allocation within the op, of which the largest is the peak.
"""

import functools

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator.memory import BufferType

T, RM = ttnn.TILE_LAYOUT, ttnn.ROW_MAJOR_LAYOUT
b16, b8, f32, u32 = ttnn.bfloat16, ttnn.bfloat8_b, ttnn.float32, ttnn.uint32


@pytest.fixture
def mesh(request):
    shape, fabric = request.param if isinstance(request.param[0], tuple) else (request.param, "FABRIC_1D")
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, fabric))
    opened = ttnn.open_mesh_device(ttnn.MeshShape(*shape))
    yield opened
    ttnn.close_mesh_device(opened)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


def made(device, *shape, dtype=b16, layout=T):
    return ttnn.zeros(shape, dtype=dtype, layout=layout, device=device)


def held(device):
    """Bytes per bank of DRAM and of L1."""
    return tuple(device.allocators[kind].allocated for kind in (BufferType.DRAM, BufferType.L1))


def cost(device, call):
    """(peak and rest in DRAM while the result lives, rest in L1) of a call, in bytes per bank."""
    device.reset_peak()
    dram, l1 = held(device)
    result = call()
    after = held(device)
    del result
    return device.allocators[BufferType.DRAM].peak - dram, after[0] - dram, after[1] - l1


# -- reshape


@pytest.mark.parametrize(
    ("old", "new", "table"),
    [
        ((1, 1, 128, 2048), (1, 128, 32, 64), 22528),
        ((1, 1, 128, 2048), (1, 1, 2048, 128), 22528),
        ((1, 1, 128, 2048), (1, 128, 1, 2048), 43712),
        ((1, 1, 128, 2048), (1, 1, 1, 262144), 43712),
        ((1, 1, 1, 2048), (1, 32, 1, 64), 384),
        ((1, 32, 1, 64), (1, 1, 1, 2048), 384),
        ((1, 1, 32, 2048), (1, 32, 32, 64), 6144),
        ((1, 32, 1, 64), (1, 1, 32, 64), 1024),
    ],
)
def test_a_reshape_that_moves_tiles_leaves_a_table(device, old, new, table):
    x = made(device, *old)
    start = held(device)
    y = ttnn.reshape(x, new)
    result = y.buffer.bank_bytes
    assert held(device) == (start[0] + result + table, 0)
    again = ttnn.reshape(x, new)
    assert held(device) == (start[0] + 2 * result + table, 0), "one table for a program"
    del y, again
    assert held(device) == (start[0] + table, 0), "it stays"
    device.clear_program_cache()
    assert held(device) == start


def test_a_view_and_rows_have_no_table(device):
    x, rows = made(device, 1, 1, 128, 2048), made(device, 1, 1, 128, 2048, layout=RM)
    start = held(device)
    ttnn.reshape(x, (1, 2, 64, 2048))
    ttnn.reshape(rows, (1, 128, 32, 64))
    assert held(device) == start


def test_without_a_program_cache_nothing_stays(device):
    x = made(device, 1, 1, 32, 2048)
    device.disable_and_clear_program_cache()
    assert cost(device, lambda: ttnn.reshape(x, (1, 32, 32, 64))) == (12288 + 6144, 12288, 0)


# -- steps of one op


def test_steps_of_ops(device):
    x, w = made(device, 1, 1, 128, 2048), made(device, 2048, 3072)
    assert cost(device, lambda: ttnn.linear(x, w, activation="silu")) == (2 * 65536, 65536, 0)
    assert cost(device, lambda: ttnn.linear(x, w, activation="silu", core_grid=device.core_grid)) == (65536, 65536, 0)
    assert cost(device, lambda: x[:, :, -1:, :]) == (45056 + 4096 + 12288, 12288, 0)
    heads = made(device, 1, 32, 128, 64, dtype=b8)
    assert cost(device, lambda: ttnn.transpose(heads, 1, 2)) == (2 * 45056 + 23936, 23936, 0)
    ids, table = made(device, 1, 100, dtype=u32, layout=RM), made(device, 1000, 2048, layout=RM)
    assert cost(device, lambda: ttnn.embedding(ids, table, layout=T)) == (36864 + 45056, 45056, 0)
    q = made(device, 1, 32, 128, 64)
    mask = made(device, 1, 1, 128, 128)

    def attention():
        return ttnn.transformer.scaled_dot_product_attention(q, q, q, attn_mask=mask, is_causal=False)

    assert cost(device, attention) == (4096 + 45056, 45056, 0)


def test_steps_that_do_not_fit_are_out_of_memory_and_leave_nothing(device):
    x = made(device, 1, 1, 128, 2048)
    allocator = device.allocators[BufferType.DRAM]
    filler = allocator.allocate(allocator.free - 45056 - 4096, 0)
    start = held(device)
    with pytest.raises(ttnn.DeviceRejects, match="Out of Memory"):
        x[:, :, -1:, :]
    assert held(device) == start
    allocator.release(filler, allocator.allocated - 45056)


# -- tensors to a mesh


@pytest.mark.parametrize("mesh", [(1, 2)], indirect=True)
@pytest.mark.parametrize(
    ("source", "dtype", "layout", "steps"),
    [
        ("bfloat16", b16, T, [24576, 47104]),
        ("bfloat16", b16, RM, [24576]),
        ("bfloat16", f32, T, [24576, 47104, 67584]),
        ("bfloat16", f32, RM, [24576, 47104, 67584, 94208]),
        ("float32", b16, T, [49152, 94208, 67584]),
        ("float32", b16, RM, [49152, 94208, 67584, 47104]),
        ("float32", f32, T, [49152, 94208]),
        ("float32", b8, T, [11968]),
        ("int32", b16, T, [22528]),
        ("bfloat16", u32, T, [45056]),
    ],
)
def test_a_mapper_converts_floats_on_the_device(mesh, source, dtype, layout, steps):
    value = torch.zeros(1, 1, 64, 2048, dtype=getattr(torch, source))

    def put(mapper):
        return ttnn.from_torch(value, dtype=dtype, layout=layout, device=mesh, mesh_mapper=mapper)

    peak, rest, _ = cost(mesh, lambda: put(ttnn.ReplicateTensorToMesh(mesh)))
    assert peak == max(steps)
    assert cost(mesh, lambda: put(None)) == (rest, rest, 0), "without a mapper the host does it"


@pytest.mark.parametrize("mesh", [(1, 2)], indirect=True)
@pytest.mark.parametrize(("tiles", "steps"), [(324, [55296, 55296]), (325, [57344, 62400, 57344, 57344])])
def test_rows_too_wide_for_a_core_become_tiles_in_pages(mesh, tiles, steps):
    """A weight's columns in the 12 banks: all that ttnn 0.81.1 has there on the way, seen by its graph capture."""
    each = -(-tiles // 12) * 32
    grid = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (11, 0))])
    shards = ttnn.ShardSpec(grid, [32, each], ttnn.ShardOrientation.ROW_MAJOR)
    place = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.DRAM, shards)
    value = torch.zeros(1, 1, 32, 64 * tiles, dtype=torch.bfloat16)

    def put():
        mapper = ttnn.ShardTensorToMesh(mesh, dim=3)
        return ttnn.from_torch(value, dtype=b16, layout=T, device=mesh, mesh_mapper=mapper, memory_config=place)

    assert cost(mesh, put) == (sum(steps), steps[-1], 0)


# -- collectives: an addition is an allocation, after which the bytes of subtractions are free again


def peak(steps):
    level = highest = 0
    for step in steps.split():
        level += int(step)
        highest = max(highest, level)
    return highest


REDUCED = {  # (shape, dtype, axis): (what comes and goes in DRAM, semaphores of a new program)
    ((1, 1, 32, 2048), b16, None): (
        "+6144 +22528 -22528 +12288 -6144 +4096 +22528 -22528 +12288 -4096 -12288", 12),
    ((1, 1, 32, 2048), b16, 0): ("+6144 +22528 -22528 +12288 -6144", 6),
    ((1, 1, 32, 2048), b8, 1): ("+2176 +11968 -11968 +6528 -2176", 6),
    ((1, 1, 64, 2048), b16, None): (
        "+12288 +45056 -45056 +22528 -12288 +6144 +45056 -45056 +22528 -6144 -22528", 12),
    ((1, 1, 32, 2080), b16, 1): (
        "+12288 +12288 +12288 +12288 +45056 -12288 -12288 -12288 -12288 +12288 -45056", 2),
    ((1, 1, 32, 2080), b8, 0): (
        "+6528 +6528 +11968 -6528 -6528 +22528 +12288 +6528 -12288 -22528 -11968", 2),
}  # fmt: skip


@pytest.mark.parametrize("mesh", [(2, 4)], indirect=True)
@pytest.mark.parametrize("case", REDUCED, ids=str)
def test_all_reduce_holds_its_parts_and_semaphores(mesh, case):
    (shape, dtype, axis), (steps, semaphores) = case, REDUCED[case]
    x = made(mesh, *shape, dtype=dtype)
    size = x.buffer.bank_bytes
    assert cost(mesh, lambda: ttnn.all_reduce(x, cluster_axis=axis)) == (peak(steps), size, 32 * semaphores)
    assert cost(mesh, lambda: ttnn.all_reduce(x, cluster_axis=axis)) == (peak(steps), size, 0), "the program is not new"
    mesh.clear_program_cache()
    assert held(mesh) == (size, 0)


@pytest.mark.parametrize("mesh", [(1, 2)], indirect=True)
def test_gathers_and_scatters(mesh):
    x, row = made(mesh, 1, 1, 32, 2048), made(mesh, 1, 1, 1, 2048)
    assert cost(mesh, lambda: ttnn.all_gather(x, 3)) == (22528, 22528, 2 * 32)
    assert cost(mesh, lambda: ttnn.all_gather(x, 1)) == (22528, 22528, 2 * 32)
    rows = "+12288 +12288 +4096 +4096 +4096 +12288"
    assert cost(mesh, lambda: ttnn.all_gather(row, 2)) == (peak(rows), 12288, 2 * 32)
    assert cost(mesh, lambda: ttnn.reduce_scatter(x, 3)) == (6144 + 22528, 6144, 4 * 32)


@pytest.mark.parametrize("mesh", [(1, 8)], indirect=True)
def test_a_scatter_round_a_ring(mesh):
    cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(7, 7))})
    three = [ttnn.create_global_semaphore(mesh, cores, 0) for _ in range(3)]
    for shape, dtype, topology, tiles in (
        ((1, 1, 32, 512), b16, "Ring", (64, 8)),
        ((1, 1, 96, 1024), b16, "Ring", (128, 16)),
        ((1, 3, 32, 512), b16, "Ring", (192, 24)),
        ((1, 1, 32, 512), f32, "Ring", (32, 4)),
        ((1, 1, 32, 512), b16, "Linear", (32,)),
    ):
        x, how = made(mesh, *shape, dtype=dtype), getattr(ttnn.Topology, topology)
        page, volume = (4096 if dtype is f32 else 2048), x.volume() // 1024
        bytes_of = lambda count, page=page: -(-count // 12) * page  # noqa: E731
        group = 1 if topology == "Linear" else 4 if dtype is f32 else 8  # tiles of a page
        beside, out = sum(bytes_of(n // group) * group for n in tiles), bytes_of(volume // 8)
        scatter = functools.partial(
            ttnn.experimental.reduce_scatter_minimal_async, x, dim=3, multi_device_global_semaphore=three, topology=how
        )
        assert cost(mesh, scatter) == (beside + out, out, 0), f"{shape} {dtype} {topology}"
        plain = bytes_of(volume * (1 if topology == "Ring" else 2))
        assert cost(mesh, lambda x=x, how=how: ttnn.reduce_scatter(x, 3, topology=how))[0] == plain + out


#: (tiles of a chip's result, dtype): bytes of every bank of L1 beside the result, 0 where DRAM is taken instead.
DIRECT = {
    (1, b16): 262144, (8, b16): 262144, (9, b16): 524288, (24, b16): 16384, (32, b16): 16384, (40, b16): 0,
    (8, b8): 139264, (16, b8): 278528, (40, b8): 17408, (64, b8): 0, (4, f32): 262144, (8, f32): 524288,
    (16, f32): 16384,
}  # fmt: skip


@pytest.mark.parametrize("mesh", [((1, 8), "FABRIC_1D_RING")], indirect=True)
def test_a_small_scatter_round_a_fabric_that_is_a_ring(mesh):
    def beside(call):
        """(bytes of L1, bytes of DRAM, semaphores) beside the result of a call."""
        mesh.reset_peak()
        l1, dram = (mesh.allocators[kind] for kind in (BufferType.L1, BufferType.DRAM))
        before = l1.allocated, dram.allocated
        out = call()
        kept, size = l1.allocated - before[0], dram.allocated - before[1]
        assert out.buffer.bank_bytes == size
        return l1.peak - before[0] - kept, dram.peak - before[1] - size, kept // 32

    for (tiles, dtype), size in DIRECT.items():
        x = made(mesh, 1, 1, 32, 8 * 32 * tiles, dtype=dtype)
        got = beside(lambda x=x: ttnn.reduce_scatter(x, 3))
        assert got == ((size, 0, 12) if size else (0, x.buffer.bank_bytes, 4)), f"{tiles} tiles of {dtype}"
    x = made(mesh, 1, 1, 32, 2048)
    line = -(-2 * 64 // 12) * 2048
    for how in ({}, {"topology": ttnn.Topology.Ring, "cluster_axis": 1}, {"num_links": 1}):
        assert beside(lambda how=how: ttnn.reduce_scatter(x, 3, **how))[:2] == (262144, 0), how
    for how, dram in (
        ({"topology": ttnn.Topology.Linear}, line), ({"num_workers_per_link": 1}, x.buffer.bank_bytes),
        ({"intermediate_memory_config": ttnn.DRAM_MEMORY_CONFIG}, x.buffer.bank_bytes),
    ):  # fmt: skip
        assert beside(lambda how=how: ttnn.reduce_scatter(x, 3, **how))[:2] == (0, dram), how
    # A chip's part beside the sum; the gathering's semaphores come after what the parts took.
    assert beside(lambda: ttnn.all_reduce(x)) == (262144 - 2 * 32, 2048, 2)
    with pytest.raises(ttnn.DeviceRejects, match=r"num_links 2 must be in \[1, 1\]"):
        ttnn.reduce_scatter(x, 3, num_links=2)


@pytest.mark.parametrize("mesh", [(2, 4)], indirect=True)
def test_gathers_of_parts_of_tiles(mesh):
    row, columns = made(mesh, 1, 1, 1, 2048), made(mesh, 1, 1, 32, 40)
    assert cost(mesh, lambda: ttnn.all_gather(row, 2)) == (8 * 12288 + 9 * 4096 + 12288, 12288, 4 * 32)
    assert cost(mesh, lambda: ttnn.all_gather(columns, 3, cluster_axis=0)) == (3 * 2048, 2048, 2 * 32)


@pytest.mark.parametrize("mesh", [(2, 4)], indirect=True)
def test_a_scatter_over_both_axes_goes_one_by_one(mesh):
    x = made(mesh, 1, 1, 128, 4096)
    steps = "+45056 +176128 -176128 +12288 +88064 -88064 -45056"
    assert cost(mesh, lambda: ttnn.reduce_scatter(x, 3)) == (peak(steps), 12288, 8 * 32)


# -- updates of a cache


@pytest.mark.parametrize("mesh", [(1, 1)], indirect=True)
@pytest.mark.parametrize(
    ("users", "width", "dtype", "pages", "fp32", "end"),
    [
        (32, 1024, b16, 4, None, 2600304), (16, 1024, b16, 4, None, 1551728), (31, 1024, b16, 4, None, 2534768),
        (32, 2048, b16, 4, None, 5090672), (32, 1024, b8, 4, None, 1555824), (32, 1024, b16, 100, None, 2600688),
        (32, 1024, b16, 4, True, 2862448), (32, 1024, b16, 4, False, 2600304), (32, 1024, f32, 4, None, 5090672),
        (32, 2048, ttnn.bfloat4_b, 4, None, 1887600), (32, 768, b16, 0, None, 1977696),
    ],
)  # fmt: skip
def test_updates_that_hold_more_than_a_core_has_are_refused(mesh, users, width, dtype, pages, fp32, end):
    grid = ttnn.num_cores_to_corerangeset(users, ttnn.CoreCoord(8, 8), True)
    where = ttnn.create_sharded_memory_config(
        (32, width), core_grid=grid, strategy=ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True
    )
    cache = made(mesh, *((128, 1, 64, width) if pages else (users, 1, 256, width)), dtype=dtype)
    x = ttnn.zeros((1, users, 1, width), dtype=b16, layout=T, device=mesh, memory_config=where)
    how = {"update_idxs_tensor": made(mesh, users, dtype=ttnn.int32, layout=RM)}
    if pages:
        how["page_table"] = made(mesh, users, pages, dtype=ttnn.int32, layout=RM)
    if fp32 is not None:
        how["compute_kernel_config"] = ttnn.WormholeComputeKernelConfig(fp32_dest_acc_en=fp32)
    with pytest.raises(ttnn.DeviceRejects, match=rf"dataflow buffers on core range .* grow to {end} B which is"):
        ttnn.experimental.paged_update_cache(cache, x, **how)


@pytest.mark.parametrize("mesh", [(1, 1)], indirect=True)
@pytest.mark.parametrize(
    ("users", "width", "pages", "rows", "end"),
    [(16, 1024, 4, 3, 1547712), (32, 1024, 5, 7, 2596352), (8, 2048, 4, 1, 1940896)],
)
def test_updates_of_keys_and_values_at_once_that_hold_too_much(mesh, users, width, pages, rows, end):
    def shards(first):
        cores = ttnn.CoreRange(ttnn.CoreCoord(0, first), ttnn.CoreCoord(7, first + users // 8 - 1))
        where = ttnn.create_sharded_memory_config(
            (32, width), core_grid=ttnn.CoreRangeSet([cores]), strategy=ttnn.ShardStrategy.HEIGHT,
            use_height_and_width_as_shard_shape=True,
        )  # fmt: skip
        return ttnn.zeros((1, users, 1, width), dtype=b16, layout=T, device=mesh, memory_config=where)

    caches = [made(mesh, 128, 1, 32, width) for _ in "kv"]
    how = {"update_idxs_tensor": made(mesh, users, dtype=ttnn.int32, layout=RM),
           "page_table": made(mesh, users, pages, dtype=ttnn.int32, layout=RM)}  # fmt: skip
    with pytest.raises(ttnn.DeviceRejects, match=rf"core range \[0-0 - 7-{rows}\] grow to {end} B"):
        ttnn.experimental.paged_fused_update_cache(caches[0], shards(0), caches[1], shards(users // 8), **how)


@pytest.mark.parametrize("mesh", [(1, 1)], indirect=True)
def test_an_update_beside_much_in_l1_is_refused(mesh):
    """With 32 users of 512 columns, and taken with 16."""
    filler = ttnn.zeros((1, 1, 2048, 3200), dtype=b16, layout=T, device=mesh, memory_config=ttnn.L1_MEMORY_CONFIG)
    assert filler.buffer_address() == 1294336
    for users in (32, 16):
        grid = ttnn.num_cores_to_corerangeset(users, ttnn.CoreCoord(8, 8), True)
        where = ttnn.create_sharded_memory_config(
            (32, 512), core_grid=grid, strategy=ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True
        )
        x = ttnn.zeros((1, users, 1, 512), dtype=b16, layout=T, device=mesh, memory_config=where)
        how = {"update_idxs_tensor": made(mesh, users, dtype=ttnn.int32, layout=RM),
               "page_table": made(mesh, users, 4, dtype=ttnn.int32, layout=RM)}  # fmt: skip
        call = functools.partial(ttnn.experimental.paged_update_cache, made(mesh, 128, 1, 32, 512), x, **how)
        if users == 16:
            call()
            break
        with pytest.raises(ttnn.DeviceRejects, match="buffer allocated at 1261568 and static dataflow buffer region"):
            call()
        ttnn.deallocate(x)
