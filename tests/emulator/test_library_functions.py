"""What the library answers beside ops; every answer here was asked of ttnn 0.81.1 on its mock clusters."""

import pytest
import torch

import ttnn_emulator as ttnn
from ttnn_emulator import NotEmulated, chips
from ttnn_emulator.instead import MEMBERS

RANGES = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (3, 1))])
SHARDS = ttnn.ShardSpec(RANGES, [32, 64], ttnn.ShardOrientation.ROW_MAJOR)
SHARDED = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, SHARDS)


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (ttnn.CoreCoord(1, 2), '{"x":1,"y":2}'),
        (ttnn.CoreRange((0, 0), (3, 1)), '{"end":{"x":3,"y":1},"start":{"x":0,"y":0}}'),
        (RANGES, '[{"end":{"x":3,"y":1},"start":{"x":0,"y":0}}]'),
        (SHARDS, '{"grid":[{"end":{"x":3,"y":1},"start":{"x":0,"y":0}}],"orientation":0,"shape":[32,64]}'),
        (
            SHARDED,
            '{"buffer_type":1,"created_with_nd_shard_spec":false,"memory_layout":2,"per_core_allocation":false,'
            '"shard_spec":{"grid":[{"end":{"x":3,"y":1},"start":{"x":0,"y":0}}],"orientation":0,"shape":[32,64]}}',
        ),
        (
            ttnn.DRAM_MEMORY_CONFIG,
            '{"buffer_type":0,"created_with_nd_shard_spec":false,"memory_layout":0,"per_core_allocation":false}',
        ),
    ],
)
def test_json(thing, text):
    assert thing.to_json() == text
    assert type(thing).from_json(text) == thing


#: System, mesh, fabric -> links in all and by axis, topology by default, and of a ring in all and by axis.
ASKED = [
    ("n300", (1, 2), "FABRIC_1D_RING", (1, 1, 1), "Linear", "Linear Linear Linear"),
    ("t3000", (2, 4), "FABRIC_1D_RING", (1, 1, 1), "Linear", "Linear Linear Linear"),
    ("t3000", (1, 8), "FABRIC_1D", (1, 1, 1), "Linear", "Ring Linear Ring"),
    ("t3000", (1, 8), "FABRIC_1D_RING", (1, 1, 1), "Ring", "Ring Linear Ring"),
    ("t3000", (8, 1), "FABRIC_1D", (1, 1, 1), "Linear", "Ring Ring Linear"),
    ("t3000", (1, 4), "FABRIC_1D", (1, 1, 1), "Linear", "Ring Linear Linear"),
    ("t3000", (1, 3), "FABRIC_1D", (1, 1, 1), "Linear", "Ring Linear Linear"),
    ("p300", (1, 2), "FABRIC_1D", (2, 1, 2), "Linear", "Linear Linear Linear"),
    ("p300x2", (1, 4), "FABRIC_1D_RING", (2, 1, 2), "Ring", "Ring Linear Ring"),
    ("p300x2", (2, 2), "FABRIC_1D", (2, 2, 2), "Linear", "Linear Linear Linear"),
    ("p150x4", (2, 2), "FABRIC_1D", (4, 4, 4), "Linear", "Linear Linear Linear"),
    ("p150x8", (1, 8), "FABRIC_1D", (2, 1, 2), "Linear", "Ring Linear Ring"),
]


@pytest.mark.parametrize(("system", "shape", "fabric", "links", "usual", "ring"), ASKED)
@pytest.mark.filterwarnings("ignore::ttnn_emulator.Untested")
def test_links_and_topologies(system, shape, fabric, links, usual, ring):
    chips.use(system)
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, fabric))
    device = ttnn.open_mesh_device(ttnn.MeshShape(*shape))
    try:
        x = ttnn.from_torch(torch.ones(32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
        assert tuple(ttnn.get_num_links(device, axis) for axis in (None, 0, 1)) == links
        assert ttnn.get_usable_topology(x).name == usual
        round_ = [ttnn.get_usable_topology(x, ttnn.Topology.Ring, axis).name for axis in (None, 0, 1)]
        assert " ".join(round_) == ring
        assert ttnn.get_usable_topology(x, ttnn.Topology.Linear, 1) is ttnn.Topology.Linear
        assert ttnn.get_tt_fabric_max_payload_size_bytes() == 4352
    finally:
        ttnn.close_mesh_device(device)
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
        chips.use("n150")


def test_without_a_fabric():
    device = ttnn.open_device(device_id=0)
    x = ttnn.from_torch(torch.ones(32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    for ask in (lambda: ttnn.get_usable_topology(x), ttnn.get_tt_fabric_packet_header_size_bytes):
        with pytest.raises(RuntimeError, match="un-initialized fabric context"):
            ask()
    assert (device.sfpu_eps(), ttnn.MeshCoordinate(0, 1).dims()) == (1.1920899822825959e-07, 2)
    assert (str(ttnn.distributed_context_get_rank()), int(ttnn.distributed_context_get_size())) == ("0", 1)
    assert ttnn.Tile((32, 32)).get_tile_size(ttnn.bfloat8_b) == 1088
    ttnn.close_device(device)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relu_bw", "inference"),
        ("conv2d", "image models"),
        ("experimental.llama_rs_matmul", "use ttnn.linear and then ttnn.reduce_scatter"),
        ("transformer.ring_mla", "flash_mla_prefill"),
        ("graph_report.import_graph", "bringup run --log"),
        ("experimental.send_async", "sockets"),
        ("core.math", "import it yourself"),
    ],
)
def test_a_name_without_a_model_says_what_to_use(name, words):
    space, _, last = ("ttnn." + name).rpartition(".")
    place = ttnn
    for part in space.split(".")[1:]:
        place = getattr(place, part)
    with pytest.raises(NotEmulated, match=words):
        getattr(place, last)


def test_a_function_without_a_model_can_be_imported_not_called():
    from ttnn_emulator.experimental.moe_compute_utils import get_weight_mem_configs, prepare_w2_tensor_with_bias

    from ttnn_emulator import moreh_adam

    for function in (moreh_adam, get_weight_mem_configs, prepare_w2_tensor_with_bias):
        with pytest.raises(NotEmulated, match="has no model"):
            function(1)
    assert not hasattr(ttnn, "moreh_sgd")
    with pytest.raises(ImportError):
        from ttnn_emulator.experimental import no_such_name  # noqa: F401


@pytest.mark.parametrize(("owner", "names"), MEMBERS.items())
def test_members_without_a_model(owner, names):
    for name in names.split():
        with pytest.raises(NotEmulated, match=f"ttnn.{owner}.{name} has no model"):
            getattr(getattr(ttnn, owner), name)


def test_random_numbers():
    device = ttnn.open_device(device_id=0)
    normal = ttnn.to_torch(ttnn.randn((256, 256), device, dtype=ttnn.float32, seed=3))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert normal.equal(ttnn.to_torch(ttnn.randn((256, 256), device, dtype=ttnn.float32, seed=3)))
    x = ttnn.full((256, 256), 0.25, ttnn.float32, ttnn.TILE_LAYOUT, device)
    assert abs(ttnn.to_torch(ttnn.bernoulli(x)).mean() - 0.25) < 0.02
    even = ttnn.to_torch(ttnn.uniform(x, -1.0, 3.0))
    assert -1 <= even.min() < even.max() <= 3
    assert abs(even.mean() - 1) < 0.03
    assert ttnn.to_torch(x).equal(even)
    ttnn.close_device(device)


def test_random_numbers_are_a_program_that_a_trace_may_hold():
    device = ttnn.open_device(device_id=0, trace_region_size=1 << 20)
    before = device.num_program_cache_entries()
    ttnn.randn((32, 32), device)
    ttnn.rand((32, 32), device)
    assert device.num_program_cache_entries() == before + 2
    trace = ttnn.begin_trace_capture(device, cq_id=0)
    drawn = ttnn.randn((32, 32), device)
    ttnn.end_trace_capture(device, trace, cq_id=0)
    ttnn.execute_trace(device, trace, cq_id=0)
    first = ttnn.to_torch(drawn)
    ttnn.execute_trace(device, trace, cq_id=0)
    assert not ttnn.to_torch(drawn).equal(first)
    ttnn.close_device(device)
