"""Meshes: what a program asks of one, the shares of a tensor, where collectives leave it, and work that is done
once."""

import contextlib
import re

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator import chips
from ttnn_emulator.launch import launch
from ttnn_emulator.numerics import rows


@contextlib.contextmanager
def opened(system, fabric=ttnn.FabricConfig.FABRIC_2D, **kwargs):
    ttnn.set_fabric_config(fabric)
    device = ttnn.open_mesh_device(ttnn.MeshShape(*chips.use(system).mesh_shape), **kwargs)
    try:
        yield device
    finally:
        ttnn.close_mesh_device(device)
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


@pytest.fixture(scope="module")
def t3000():
    with opened("t3000") as device:
        yield device


def put(device, values, placements=None):
    """placements: None replicates, one dim cuts over the flattened mesh, two (or None) over rows and columns."""
    if placements is None:
        mapper = ttnn.ReplicateTensorToMesh(device)
    elif len(placements) == 1:
        mapper = ttnn.ShardTensorToMesh(device, dim=placements[0])
    else:
        kinds = [ttnn.PlacementReplicate() if d is None else ttnn.PlacementShard(d) for d in placements]
        mapper = ttnn.create_mesh_mapper(device, ttnn.MeshMapperConfig(kinds))
    return ttnn.from_torch(values, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device, mesh_mapper=mapper)


def bf16(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()


# ---------------------------------------------------------------- queries (values of ttnn 0.81.1 on the recorded
# systems)
def test_what_a_mesh_says_of_itself(t3000):
    assert t3000.get_num_devices() == 8
    assert t3000.shape == ttnn.MeshShape(2, 4)
    assert t3000.get_device_ids() == [4, 0, 2, 6, 5, 1, 3, 7]
    assert t3000.get_device_id(ttnn.MeshCoordinate(1, 1)) == 1
    assert (t3000.get_view().num_devices(), t3000.get_system_mesh_id(), t3000.get_submeshes()) == (8, 0, [])
    assert repr(t3000) == "MeshDevice(2x4 grid, 8 devices)"
    assert str(t3000.arch()) == "Arch.WORMHOLE_B0"
    with pytest.raises(ttnn.DeviceRejects, match="not in the mesh"):
        t3000.get_device_id(ttnn.MeshCoordinate(2, 0))


def test_the_names_of_fabric_and_topology_are_the_library_s():
    assert [c.name for c in ttnn.FabricConfig] == [
        "DISABLED", "FABRIC_1D_NEIGHBOR_EXCHANGE", "FABRIC_1D", "FABRIC_1D_RING", "FABRIC_2D", "FABRIC_2D_TORUS_X",
        "FABRIC_2D_TORUS_Y", "FABRIC_2D_TORUS_XY", "CUSTOM",
    ]  # fmt: skip
    assert [(t.name, t.value) for t in ttnn.Topology] == [("Linear", 1), ("Ring", 2), ("Mesh", 3), ("Torus", 4)]
    with pytest.raises(TypeError):
        ttnn.set_fabric_config("FABRIC_1D")


# Placed: (system, shape, offset, physical ids). Refused: the library's words.
PLACED = [
    ("n150", (1, 1), (0, 0), [0]), ("n300", (1, 2), (0, 0), [0, 1]), ("n300", (2, 1), (0, 0), [0, 1]),
    ("n300", (1, 2), (0, 1), [1, 0]), ("n300", (1, 1), (0, 1), [1]),
    ("t3000", (2, 4), (0, 0), [4, 0, 2, 6, 5, 1, 3, 7]), ("t3000", (4, 2), (0, 0), [4, 5, 0, 1, 2, 3, 6, 7]),
    ("t3000", (1, 8), (0, 0), [4, 0, 2, 6, 7, 3, 1, 5]), ("t3000", (8, 1), (0, 0), [4, 0, 2, 6, 7, 3, 1, 5]),
    ("t3000", (1, 8), (0, 1), [0, 2, 6, 7, 3, 1, 5, 4]), ("t3000", (1, 6), (1, 3), [7, 3, 1, 5, 4, 0]),
    ("t3000", (1, 4), (1, 2), [3, 1, 5, 4]), ("t3000", (2, 2), (0, 1), [0, 2, 1, 3]),
    ("t3000", (2, 3), (0, 0), [4, 0, 2, 5, 1, 3]), ("t3000", (3, 2), (0, 1), [4, 5, 0, 1, 2, 3]),
    ("t3000_1x8", (1, 8), (0, 0), [4, 0, 2, 6, 7, 3, 1, 5]),
]  # fmt: skip
NOT_PLACED = [
    ("n150", (1, 2), (0, 0), "shape MeshShape([1, 2]) requires 2 devices, but only 1 devices are available in the "
                             "system mesh MeshShape([1, 1])."),
    ("n300", (2, 4), (0, 0), "requires 8 devices, but only 2 devices are available in the system mesh "
                             "MeshShape([1, 2])."),
    ("t3000", (4, 4), (0, 0), "requires 16 devices, but only 8 devices"),
    ("t3000", (0, 1), (0, 0), "Requested mesh shape MeshShape([0, 1]) has zero devices (mesh_size=0)."),
    ("t3000", (2, 4), (0, 1), "Requested mesh is too big and is not rotatable: MeshShape([2, 4]) and SystemMesh "
                              "MeshShape([2, 4]), offset MeshCoordinate([0, 1])"),
    ("t3000", (3, 2), (0, 2), "is not rotatable"), ("t3000", (4, 2), (0, 1), "is not rotatable"),
    ("t3000", (1, 1), (2, 0), "The specified offset MeshCoordinate([2, 0]) is out of bounds for the system mesh shape "
                              "MeshShape([2, 4])"),
    ("t3000", (1, 1, 1), (0, 0), "MeshDeviceViewImpl is not 2D!"),
]  # fmt: skip


@pytest.mark.parametrize(("system", "shape", "offset", "ids"), PLACED)
def test_a_mesh_lies_on_the_machine_as_the_library_lays_it(system, shape, offset, ids):
    chips.use(system)
    device = ttnn.open_mesh_device(ttnn.MeshShape(*shape), offset=ttnn.MeshCoordinate(*offset))
    assert (tuple(device.shape), device.get_device_ids()) == (shape, ids)
    ttnn.close_mesh_device(device)


@pytest.mark.parametrize(("system", "shape", "offset", "words"), NOT_PLACED)
def test_a_mesh_that_the_machine_does_not_have_is_refused(system, shape, offset, words):
    chips.use(system)
    with pytest.raises(ttnn.DeviceRejects, match=re.escape(words)):
        ttnn.open_mesh_device(ttnn.MeshShape(*shape), offset=ttnn.MeshCoordinate(*offset))


@pytest.mark.parametrize(("system", "ids", "pcie"), [("n150", [0], [0]), ("n300", [0, 1], [0]),
                                                     ("t3000_1x8", list(range(8)), [0, 1, 2, 3])])  # fmt: skip
def test_what_the_machine_says_of_itself(system, ids, pcie):
    whole = chips.use(system).machine_shape
    assert (ttnn.get_device_ids(), ttnn.get_pcie_device_ids()) == (ids, pcie)
    assert (ttnn.get_num_devices(), ttnn.GetNumPCIeDevices()) == (len(ids), len(pcie))
    assert ttnn.get_arch_name() == "wormhole_b0"
    with pytest.raises(ttnn.DeviceRejects, match=f"Chip to board mapping for chip {len(ids)} not found"):
        ttnn.open_device(device_id=len(ids))
    device = ttnn.open_mesh_device()
    assert tuple(device.shape) == whole
    ttnn.close_mesh_device(device)


def test_the_environment_names_the_machine(monkeypatch):
    monkeypatch.setattr(chips.systems, "_machine", None)
    monkeypatch.delenv(chips.systems.VARIABLE, raising=False)
    assert chips.machine().name == "n150"
    monkeypatch.setattr(chips.systems, "_machine", None)
    monkeypatch.setenv(chips.systems.VARIABLE, "n300")
    assert chips.machine().name == "n300"
    with pytest.raises(ValueError, match="unknown system 'n301'.*n150, n300, t3000"):
        chips.use("n301")


def test_a_mesh_takes_another_shape(t3000):
    """ttnn 0.81.1 on T3000: the ids of the chips, shape after shape."""
    for shape, ids in (
        ((1, 8), [4, 0, 2, 6, 7, 3, 1, 5]), ((2, 4), [4, 0, 2, 6, 5, 1, 3, 7]), ((4, 2), [4, 5, 0, 1, 2, 3, 6, 7]),
        ((8, 1), [4, 5, 1, 3, 7, 6, 2, 0]), ((2, 4), [4, 0, 2, 6, 5, 1, 3, 7]),
    ):  # fmt: skip
        t3000.reshape(ttnn.MeshShape(*shape))
        assert (tuple(t3000.shape), t3000.get_device_ids()) == (shape, ids)
    with pytest.raises(ttnn.DeviceRejects, match="same number of devices as current shape"):
        t3000.reshape(ttnn.MeshShape(2, 2))
    with pytest.raises(TypeError, match="incompatible function arguments"):
        t3000.reshape((1, 8))
    x = put(t3000, bf16(1, 1, 32, 32))
    with pytest.raises(ttnn.NotEmulated, match="Reshape the mesh before the first tensor"):
        t3000.reshape(ttnn.MeshShape(1, 8))
    ttnn.deallocate(x)


def test_a_config_names_another_shape_for_the_mesh(t3000):
    """ttnn 0.81.1: shapes of one axis, smaller ones for what all chips have alike, and its refusals."""
    x = torch.arange(8 * 32 * 32).float().view(8, 1, 32, 32)
    mapper = ttnn.create_mesh_mapper(t3000, ttnn.MeshMapperConfig([ttnn.PlacementShard(0)], ttnn.MeshShape([8])))
    spread = ttnn.from_torch(x, ttnn.float32, layout=ttnn.TILE_LAYOUT, device=t3000, mesh_mapper=mapper)
    assert (tuple(spread.shape), tuple(spread.tensor_topology().distribution_shape())) == ((1, 1, 32, 32), (8,))

    def together(dims, *shape):
        config = ttnn.MeshComposerConfig(dims, ttnn.MeshShape(shape))
        return ttnn.to_torch(spread, mesh_composer=ttnn.create_mesh_composer(t3000, config))

    assert together([0], 8).equal(x)
    assert together([0, 1], 1, 1).equal(x[:1])
    assert together([0, 1], 2, 2).equal(x[[0, 1, 4, 5]].view(2, 2, 32, 32))  # a rectangle
    assert together([0, 1], 4, 1).equal(x[:4])  # row by row, where it does not fit
    with pytest.raises(ttnn.DeviceRejects, match=r"supplied mesh shape MeshShape\(\[9\]\) does not match the device"):
        together([0], 9)
    with pytest.raises(
        ttnn.DeviceRejects, match=r"dimensions in the config MeshComposerConfig\(dims: \[0\], mesh_shape"
    ):
        together([0], 2, 4)


def test_where_the_fabric_and_programs_find_chips_and_cores(t3000):
    assert repr(t3000.get_fabric_node_id(ttnn.MeshCoordinate(1, 2))) == "FabricNodeId(M0, D6)"
    with pytest.raises(ttnn.DeviceRejects, match=r"not found in mesh MeshShape\(\[2, 4\]\)"):
        t3000.get_fabric_node_id(ttnn.MeshCoordinate(0, 4))
    core = t3000.worker_core_from_logical_core(ttnn.CoreCoord(7, 6))
    assert (core.x, core.y) == (25, 24)
    assert t3000.logical_core_from_worker_core(core) == ttnn.CoreCoord(7, 6)
    for ask, place in (("worker_core_from_logical_core", (8, 0)), ("logical_core_from_worker_core", (17, 18))):
        with pytest.raises(ttnn.DeviceRejects, match="No core coordinate found at location"):
            getattr(t3000, ask)(ttnn.CoreCoord(*place))


def test_new_programs_can_be_forbidden(t3000):
    x = put(t3000, bf16(1, 1, 32, 32))
    ttnn.add(x, 1.0)
    t3000.set_program_cache_misses_allowed(False)
    ttnn.add(x, 1.0)
    with pytest.raises(ttnn.DeviceRejects, match="program cache miss occurred, but cache misses are forbidden"):
        ttnn.subtract(x, 1.0)
    t3000.set_program_cache_misses_allowed(True)
    ttnn.subtract(x, 1.0)


def test_submeshes_have_chips_of_the_mesh_and_memory_of_their_own(t3000):
    rows = t3000.create_submeshes(ttnn.MeshShape(1, 4))
    assert [s.get_device_ids() for s in rows] == [[4, 0, 2, 6], [5, 1, 3, 7]]
    one = t3000.create_submesh(ttnn.MeshShape(1, 1), ttnn.MeshCoordinate(1, 2))
    assert (one.get_device_ids(), len(t3000.get_submeshes())) == ([3], 3)
    a, b = put(rows[0], bf16(1, 1, 32, 32)), put(rows[1], bf16(1, 1, 32, 32))
    assert a.buffer_address() == b.buffer_address()
    with pytest.raises(ttnn.DeviceRejects, match="does not fit within parent mesh"):
        t3000.create_submesh(ttnn.MeshShape(1, 4), ttnn.MeshCoordinate(0, 1))
    with pytest.raises(ttnn.DeviceRejects, match="not divisible"):
        t3000.create_submeshes(ttnn.MeshShape(1, 3))


def test_a_closed_mesh_takes_nothing():
    with opened("n300") as device:
        x = put(device, bf16(1, 1, 32, 32))
    with pytest.raises(ttnn.DeviceRejects, match="closed"):
        ttnn.relu(x)


# ---------------------------------------------------------------- shares
def test_shares_are_on_the_memory_of_the_whole(t3000):
    values = bf16(1, 1, 32, 512)
    whole = put(t3000, values, (3,))
    shares = ttnn.get_device_tensors(whole)
    assert len(shares) == 8
    for i, share in enumerate(shares):
        assert (tuple(share.shape), share.buffer_address()) == ((1, 1, 32, 64), whole.buffer_address())
        assert torch.equal(ttnn.to_torch(share), values[..., 64 * i : 64 * (i + 1)])
    assert torch.equal(read(ttnn.combine_device_tensors(tensors=shares), 3), values)
    with pytest.raises(ttnn.DeviceRejects, match="each of 8 chips once"):
        ttnn.combine_device_tensors(tensors=shares[:3])
    ttnn.deallocate(shares[2])
    assert not whole.is_allocated()


def read(tensor, dim):
    return ttnn.to_torch(tensor, mesh_composer=ttnn.ConcatMeshToTensor(tensor.device(), dim=dim))


def test_shares_on_the_host(t3000):
    values = bf16(8, 1, 32, 32)
    host = ttnn.from_device(put(t3000, values, (0,)))
    shares = ttnn.get_device_tensors(host)
    assert torch.equal(torch.cat([ttnn.to_torch(s) for s in shares]), values)
    whole = ttnn.aggregate_tensor(host, ttnn.concat_mesh_to_tensor_composer(t3000, 0))
    assert torch.equal(ttnn.to_torch(whole), values)


@pytest.mark.parametrize("system", ["n300", "t3000", "t3000_1x8"])
def test_mappers_and_composers_are_inverse(system):
    with opened(system) as device:
        values = bf16(2, 1, 64, 256)
        rows, columns = device.shape
        both = ttnn.from_torch(values, mesh_mapper=ttnn.ShardTensor2dMesh(device, device.shape, (2, 3)), device=device)
        assert tuple(both.shape) == (2, 1, 64 // rows, 256 // columns)
        assert torch.equal(
            ttnn.to_torch(both, mesh_composer=ttnn.ConcatMesh2dToTensor(device, device.shape, (2, 3))), values
        )
        config = ttnn.MeshComposerConfig(dims=[2, 3])
        assert torch.equal(ttnn.to_torch(both, mesh_composer=ttnn.create_mesh_composer(device, config)), values)
        flat = put(device, values, (3,))
        assert torch.equal(read(flat, 3), values)
        assert tuple(read(put(device, values), 0).shape) == (2 * device.get_num_devices(), 1, 64, 256)


# ---------------------------------------------------------------- where collectives leave a tensor
#: (placements of the operand) -> all_gather(dim 3), reduce_scatter(dim 3), all_reduce along no axis, axis 0, axis 1
#: (ttnn 0.81.1).
R = None
LEFT = {
    (): (((R,), (R, R), (R, R)), ((3,), (3, R), (R, 3)), ((R, R), (R, R), (R, R))),
    (3,): (((R,), (3,), (3, R)), ((3,), (3,), (3,)), ((R, R), (R, 3), (3, R))),
    (2,): (((R,), (R, 2), (2, R)), ((3,), (3, 2), (2, 3)), ((R, R), (R, 2), (2, R))),
    (2, 3): (((R, R), (R, 3), (2, R)), ((2, 3), (2, 3), (2, 3)), ((R, R), (R, 3), (2, R))),
    (3, 2): (((R, R), (R, 2), (3, R)), ((3,), (3, 2), (3,)), ((R, R), (R, 2), (3, R))),
    (R, 3): (((R, R), (R, 3), (R, R)), ((R, 3), (R, 3), (R, 3)), ((R, R), (R, 3), (R, R))),
    (3, R): (((R, R), (R, R), (3, R)), ((3,), (3, R), (3,)), ((R, R), (R, R), (3, R))),
    (0, 3): (((R, R), (R, 3), (0, R)), ((0, 3), (0, 3), (0, 3)), ((R, R), (R, 3), (0, R))),
}


def placements(tensor):
    topology = tensor.tensor_topology()
    assert topology.distribution_shape() == ((8,) if len(topology.placements()) == 1 else (2, 4))
    return tuple(p.dim if isinstance(p, ttnn.PlacementShard) else None for p in topology.placements())


@pytest.mark.parametrize("given", LEFT)
def test_placements_after_collectives(t3000, given):
    shape = [1, 1, 64, 256]
    for dim, ways in zip(given, (8,) if len(given) == 1 else (2, 4)):
        if dim is not None:
            shape[dim] *= ways
    x = put(t3000, bf16(*shape), given or None)
    ops = (lambda a: ttnn.all_gather(x, 3, cluster_axis=a), lambda a: ttnn.reduce_scatter(x, 3, cluster_axis=a),
           lambda a: ttnn.all_reduce(x, cluster_axis=a))  # fmt: skip
    for op, wanted in zip(ops, LEFT[given], strict=True):
        assert tuple(placements(op(axis)) for axis in (None, 0, 1)) == wanted


def test_no_fabric_no_collective():
    with opened("n300", ttnn.FabricConfig.DISABLED) as device:
        with pytest.raises(ttnn.DeviceRejects, match="un-initialized fabric context"):
            ttnn.all_reduce(put(device, bf16(1, 1, 32, 64)))


def test_a_fabric_that_is_a_ring_makes_one_of_collectives_that_name_no_topology():
    for fabric, words in (("FABRIC_1D", "Invalid cluster axis 2"), ("FABRIC_1D_RING", "index out of range. 2")):
        with opened("n300", getattr(ttnn.FabricConfig, fabric)) as device:
            with pytest.raises(ttnn.DeviceRejects, match=words):
                ttnn.all_reduce(put(device, bf16(1, 1, 32, 64)), cluster_axis=2)


# ---------------------------------------------------------------- done once
def computed(tensor, spec, **kwargs):
    """How often a compute runs for a tensor."""
    calls = []
    out = launch("test", (tensor,), spec, lambda v: calls.append(1) or v + 1, **kwargs)
    return len(calls), out


def test_what_all_chips_hold_is_computed_once(t3000):
    x = put(t3000, bf16(1, 1, 32, 64))
    calls, y = computed(x, x.spec)
    assert (calls, len(y.contents())) == (1, 1)
    calls, _ = computed(put(t3000, bf16(1, 1, 32, 512), (3,)), x.spec)
    assert calls == 8
    calls, y = computed(put(t3000, bf16(1, 1, 32, 256), (None, 3)), x.spec)
    assert (calls, len({id(v) for v in y.contents()})) == (4, 4)


def test_a_sum_over_the_mesh_is_one_tensor(t3000):
    total = ttnn.all_reduce(put(t3000, bf16(8, 1, 32, 64), (0,)))
    assert len(total.contents()) == 1
    gathered = ttnn.all_gather(put(t3000, bf16(1, 1, 32, 512), (3,)), 3)
    assert len(gathered.contents()) == 1
    by_rows = ttnn.all_reduce(put(t3000, bf16(8, 1, 32, 64), (0,)), cluster_axis=1)
    assert len({id(v) for v in by_rows.contents()}) == 2


def test_writes_into_what_chips_share_stay_apart(t3000):
    cache = put(t3000, torch.zeros(1, 1, 32, 64))
    ttnn.fill_cache(cache, put(t3000, bf16(8, 1, 32, 64), (0,)), 0)
    assert torch.equal(read(cache, 0), bf16(8, 1, 32, 64))


def test_memory_is_charged_per_chip(t3000):
    before = t3000.memory()["dram"]["allocated"]
    x = put(t3000, bf16(1, 1, 1024, 4096), (3,))
    assert t3000.memory()["dram"]["allocated"] - before == 12 * 43 * 2048, (
        "1024 x 512 bfloat16 on each chip, dealt over 12 banks"
    )
    del x


@pytest.mark.parametrize("dtype", [ttnn.bfloat16, ttnn.bfloat8_b])
@pytest.mark.parametrize(("rows", "biased"), [(32, False), (32, True), (70, False)])
def test_a_weight_cut_in_columns_is_one_product(t3000, dtype, rows, biased, monkeypatch):
    """The shards lie beside one another, and eight chips find what one with the whole weight finds."""
    from ttnn_emulator.ops.matmul import matmul as room

    found = []
    real = room.beside
    monkeypatch.setattr(room, "beside", lambda ws: found.append(real(ws)) or found[-1])
    config = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi3, fp32_dest_acc_en=True)
    weight, bias = bf16(1024, 512).T, bf16(1, 1024)
    x = bf16(1, 1, rows, 512)
    x[:, :, 1:] = x[:, :, 1:2] if rows == 32 else x[:, :, 1:]  # a decode step: one user, and padding
    how = dict(layout=ttnn.TILE_LAYOUT, device=t3000)
    rows_of, cut = ttnn.ReplicateTensorToMesh(t3000), ttnn.ShardTensorToMesh(t3000, dim=-1)
    x = ttnn.from_torch(x, mesh_mapper=rows_of, **how)
    ys = []
    for mapper in (cut, rows_of):
        w = ttnn.from_torch(weight, dtype=dtype, mesh_mapper=mapper, **how)
        b = ttnn.from_torch(bias, mesh_mapper=mapper, **how) if biased else None
        y = ttnn.linear(x, w, bias=b, compute_kernel_config=config)
        ys.append(ttnn.to_torch(y, mesh_composer=ttnn.ConcatMeshToTensor(t3000, dim=-1)))
    assert len(found) == 1
    assert found[0].shape == (512, 1024)
    assert torch.equal(ys[0], ys[1][..., :1024])


def test_weights_that_are_no_neighbours_are_not_taken_for_one():
    from ttnn_emulator.ops.matmul.matmul import beside

    whole = bf16(96, 64).T
    bands = list(whole.split(32, -1))
    assert torch.equal(beside(bands), whole)
    assert beside(bands[::-1]) is None
    assert beside([bands[0], bands[0]]) is None
    assert beside([bands[0], bands[1].clone()]) is None
    assert beside(list(bf16(64, 96).split(32, -1))) is None  # held the other way round


@pytest.mark.parametrize("positions", [64, 128])
def test_heads_of_a_prompt_over_chips_are_those_of_one(t3000, positions):
    g = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, heads, positions, 64, generator=g).bfloat16() for heads in (32, 8, 8)]
    whole, cut = (
        ttnn.transformer.scaled_dot_product_attention(*(put(t3000, t, over) for t in qkv), is_causal=True)
        for over in (None, (1,))
    )
    assert torch.equal(read(cut, 1), read(whole, 1)[:, :32])


@pytest.mark.parametrize("dtype", [ttnn.bfloat16, ttnn.bfloat8_b, ttnn.float32])
@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (1, 2, 40, 32)])
def test_chips_that_go_together_have_what_each_has_alone(dtype, shape, t3000, monkeypatch):
    g = torch.Generator().manual_seed(0)
    values = [torch.randn(8 * shape[0], *shape[1:], generator=g) for _ in range(2)]
    values[0][:, :, 5:] = 1.0  # rows that repeat
    cut = ttnn.ShardTensorToMesh(t3000, dim=0)
    how = {"dtype": dtype, "layout": ttnn.TILE_LAYOUT, "device": t3000, "mesh_mapper": cut}
    seen, found = [], {}
    monkeypatch.setattr(torch, "cat", lambda *args, cat=torch.cat: seen.append(1) or cat(*args))
    for small in (0, 1 << 15):
        monkeypatch.setattr(rows, "SMALL", small)
        a, b = (ttnn.from_torch(v, **how) for v in values)
        before = len(seen)
        results = [
            ttnn.mul(a, b, input_tensor_a_activations=[ttnn.UnaryOpType.SILU]), ttnn.add(a, 2.0), ttnn.silu(b),
            ttnn.typecast(a, ttnn.bfloat8_b), ttnn.add(a, ttnn.slice(b, (0, 0, 0, 0), (*shape[:2], 1, shape[3]))),
        ]  # fmt: skip
        found[small] = [v for r in results for v in r.contents()], len(seen) - before
    (alone, none), (together, some) = found.values()
    assert some >= none + 4
    for x, y in zip(alone, together, strict=True):
        assert torch.equal(x, y)
