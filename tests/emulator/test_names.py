"""A program that runs here finds every name it uses in ttnn 0.81.1 too, and what it finds does the same."""

import dataclasses
import importlib
import sys
import types

import pytest
import torch

import ttnn_emulator as ttnn
from bringup import backends
from ttnn_emulator import NotEmulated, chips
from ttnn_emulator.names import library_names

backends.activate("emulator")
#: What the emulator offers beside the library's names, for the tools around it. A model file has no use for them.
OURS = {"DeviceRejects", "NotEmulated", "Untested", "record", "spec_only"}


@pytest.fixture
def device():
    opened = ttnn.open_device(device_id=0)
    yield opened
    ttnn.close_device(opened)


def test_every_name_is_the_librarys():
    for namespace, theirs in library_names().items():
        module = ttnn
        for part in namespace.split(".")[1:]:
            module = getattr(module, part)
        mine = {n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
        assert mine - OURS <= set(theirs), f"{namespace}: ttnn 0.81.1 lacks {sorted(mine - OURS - set(theirs))}"


def test_ours_are_not_the_librarys():
    assert not OURS & set(library_names()["ttnn"])


@pytest.mark.parametrize("path", sorted(library_names()))
def test_every_namespace_can_be_imported(path):
    space = importlib.import_module(path)
    assert space is importlib.import_module(path)
    with pytest.raises(AttributeError, match="neither emulated nor a name of ttnn 0.81.1"):
        _ = space.no_such_name_at_all
    for name in library_names()[path]:
        try:
            getattr(space, name)
        except NotEmulated as error:
            assert "has no model" in str(error)  # noqa: PT017


def test_what_stands_twice_is_one_thing():
    from ttnn.operations.transformer import SDPAProgramConfig

    assert SDPAProgramConfig is ttnn.SDPAProgramConfig
    assert ttnn._ttnn.tensor.MemoryConfig is ttnn.MemoryConfig
    assert ttnn._ttnn.multi_device.MeshDevice is ttnn.MeshDevice is ttnn.device.Device
    assert (ttnn.core.divup(5, 2), ttnn.core.roundup(5, 4)) == (3, 8)
    assert sys.modules["ttnn.device"] is ttnn.device


def test_classes_without_a_model_can_be_named():
    """A file that says them in an annotation, as the vendor's do, is imported; what makes one is refused."""

    @dataclasses.dataclass
    class Config:
        compute: ttnn.DeviceComputeKernelConfig | None = None
        shards: "list[ttnn.NdShardSpec]" = ()
        algorithm: ttnn.DispatchAlgorithm = ttnn.DispatchAlgorithm.SPARSE_MCAST_SHORTEST_PATH

    assert Config().algorithm.value == 3
    assert ttnn._ttnn.tensor.NdShardSpec is ttnn.types.NdShardSpec is ttnn.NdShardSpec
    assert ttnn._ttnn.global_semaphore.global_semaphore is type(
        ttnn.create_global_semaphore(ttnn.open_device(device_id=0), ttnn.num_cores_to_corerangeset(1, (8, 8)), 0)
    )
    assert not isinstance(ttnn.WormholeComputeKernelConfig(), ttnn.DeviceComputeKernelConfig)
    for use in (lambda: ttnn.NdShardSpec([32, 32], None), lambda: ttnn.Conv2dConfig(), lambda: ttnn.Conv2dConfig.dtype):
        with pytest.raises(NotEmulated, match="has no model in the emulator"):
            use()


def test_the_machine_is_told():
    chips.use("n150")
    device = ttnn.open_device(device_id=0)
    assert ttnn.get_arch_name() == "wormhole_b0"
    assert (ttnn.device.is_wormhole_b0(device), ttnn.device.is_blackhole()) == (True, False)
    assert ttnn.cluster.get_cluster_type() is ttnn.cluster.ClusterType.N150
    assert ttnn._ttnn.multi_device.SystemMeshDescriptor().shape() == ttnn.MeshShape(1, 1)
    assert not ttnn.using_distributed_env()
    assert not ttnn.graph.is_graph_capture_active()
    ttnn.close_device(device)


RANGES = ttnn.CoreRangeSet([ttnn.CoreRange((1, 0), (3, 7)), ttnn.CoreRange((5, 0), (6, 7))])


@pytest.mark.parametrize(
    ("cores", "row_wise", "found"),
    [  # ttnn 0.81.1, asked
        (1, True, "{[1-0 - 1-0]}"), (3, False, "{[1-0 - 1-2]}"), (8, True, "{[1-0 - 3-1], [1-2 - 2-2]}"),
        (10, False, "{[1-0 - 1-7], [2-0 - 2-1]}"), (24, True, "{[1-0 - 3-7]}"),
        (32, True, "{[1-0 - 3-7], [5-0 - 6-3]}"), (32, False, "{[1-0 - 3-7], [5-0 - 5-7]}"),
        (40, True, "{[1-0 - 3-7], [5-0 - 6-7]}"),
    ],
)  # fmt: skip
def test_cores_of_ranges(cores, row_wise, found):
    start = ttnn.CoreCoord(1, 0)
    assert repr(ttnn.num_cores_to_corerangeset_in_subcoregrids(start, cores, RANGES, row_wise)) == found


def test_cores_of_ranges_from_another_start_and_too_many():
    cores = ttnn.num_cores_to_corerangeset_in_subcoregrids(ttnn.CoreCoord(2, 3), 8, RANGES, True)
    assert repr(cores) == "{[2-3 - 3-3], [1-4 - 3-5]}"
    with pytest.raises(RuntimeError, match="Target number of cores 41 is greater than total available cores 40"):
        ttnn.num_cores_to_corerangeset_in_subcoregrids(ttnn.CoreCoord(1, 0), 41, RANGES)
    with pytest.raises(RuntimeError, match="Start core must be inside sub_core_grids"):
        ttnn.num_cores_to_corerangeset_in_subcoregrids(ttnn.CoreCoord(0, 0), 4, RANGES)
    with pytest.raises(RuntimeError, match="Target number of cores must be greater than 0"):
        ttnn.num_cores_to_corerangeset_in_subcoregrids(ttnn.CoreCoord(1, 0), 0, RANGES)
    with pytest.raises(RuntimeError, match="Failed to assign all 20 requested cores"):
        ttnn.num_cores_to_corerangeset_in_subcoregrids(ttnn.CoreCoord(5, 0), 20, RANGES)


def test_work_is_split():
    whole = ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (7, 7))])
    n, _, more, less, units, fewer = ttnn.split_work_to_cores(whole, 100)  # ttnn 0.81.1, asked
    assert (n, units, fewer) == (64, 2, 1)
    assert (repr(more), repr(less)) == ("{[0-0 - 3-7], [4-0 - 4-3]}", "{[4-4 - 4-7], [5-0 - 7-7]}")


VALUES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    "make",
    [
        lambda d: ttnn.Tensor(VALUES),
        lambda d: ttnn.Tensor(VALUES.numpy()),
        lambda d: ttnn.Tensor(VALUES, ttnn.bfloat16),
        lambda d: ttnn.Tensor(tensor=VALUES, data_type=ttnn.float32, layout=ttnn.TILE_LAYOUT),
        lambda d: ttnn.Tensor(VALUES, device=d, layout=ttnn.TILE_LAYOUT),
        lambda d: ttnn.Tensor(VALUES, device=d, layout=ttnn.TILE_LAYOUT, mem_config=ttnn.L1_MEMORY_CONFIG),
        lambda d: ttnn.Tensor([1.0, 2.0, 3.0, 4.0], [2, 2], ttnn.float32, ttnn.ROW_MAJOR_LAYOUT),
        lambda d: ttnn.Tensor([1, 2, 3, 4], [2, 2], ttnn.int32, ttnn.ROW_MAJOR_LAYOUT, d),
        lambda d: ttnn.Tensor([1.0, 2, 3, 4], [2, 2], ttnn.bfloat16, ttnn.TILE_LAYOUT, d, ttnn.L1_MEMORY_CONFIG),
        lambda d: ttnn.Tensor(ttnn.Tensor(VALUES)),
    ],
)
def test_the_constructor_s_forms(device, make):
    made = make(device)
    assert isinstance(made, ttnn.Tensor)
    assert torch.equal(ttnn.to_torch(made).float(), VALUES)


def test_what_the_constructor_does_not_take():
    with pytest.raises(TypeError, match="incompatible function arguments"):
        ttnn.Tensor("text")
    with pytest.raises(RuntimeError, match="buffer size is 3 different from shape volume 4"):
        ttnn.Tensor([1.0, 2.0, 3.0], [2, 2], ttnn.float32, ttnn.ROW_MAJOR_LAYOUT)
    with pytest.raises(NotEmulated, match="INT8"):
        ttnn.Tensor(VALUES, ttnn.int8)


def test_sub_devices(device):
    left, right = (ttnn.CoreRangeSet([ttnn.CoreRange((x, 0), (x + 3, 7))]) for x in (0, 4))
    manager = device.create_sub_device_manager([ttnn.SubDevice([left]), ttnn.SubDevice([right])], 0)
    with pytest.raises(RuntimeError, match="SubDevice index 1 out of bounds 1"):
        device.set_sub_device_stall_group([ttnn.SubDeviceId(1)])
    device.load_sub_device_manager(manager)
    device.set_sub_device_stall_group([ttnn.SubDeviceId(1)])
    device.reset_sub_device_stall_group()
    device.clear_loaded_sub_device_manager()
    device.remove_sub_device_manager(manager)
    with pytest.raises(RuntimeError, match="must be within device grid"):
        device.create_sub_device_manager([ttnn.SubDevice([ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (8, 7))])])], 0)
    with pytest.raises(RuntimeError, match="intersect"):
        device.create_sub_device_manager([ttnn.SubDevice([left])] * 2, 0)
    with pytest.raises(TypeError):
        ttnn.SubDevice(left)


def test_parameters_of_a_torch_model(device):
    from ttnn.model_preprocessing import preprocess_model_parameters

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = torch.nn.Embedding(8, 32), torch.nn.LayerNorm(32)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(32, 64), torch.nn.Linear(64, 32, bias=False)])
            self.scale = torch.nn.Parameter(torch.ones(4))

    model = Model()
    found = preprocess_model_parameters(initialize_model=lambda: model, device=device)
    assert found.layers[0].weight.shape == ttnn.Shape([32, 64])
    torch.testing.assert_close(ttnn.to_torch(found.layers[0].bias), model.layers[0].bias[None].bfloat16())
    assert "bias" not in found.layers[1]
    assert (found.norm.weight.shape, found.scale.layout) == (ttnn.Shape([1, 32]), ttnn.ROW_MAJOR_LAYOUT)
    assert found.embed.weight.device() is device
    own = preprocess_model_parameters(
        initialize_model=lambda: model, custom_preprocessor=lambda m, n: {"kind": n} if n == "layers.1" else None
    )
    assert own.layers[1].kind == "layers.1"


def test_golden_and_own_operations(device):
    x = ttnn.rand([32, 32], device=device, seed=3)
    assert torch.equal(ttnn.to_torch(x), ttnn.to_torch(ttnn.rand([32, 32], device=device, seed=3)))
    assert 0 <= ttnn.to_torch(x).min() <= ttnn.to_torch(x).max() <= 1
    assert ttnn.get_golden_function(ttnn.add) is torch.add
    assert ttnn.get_fallback_function(ttnn.exp)(x).device() is device
    with pytest.raises(NotEmulated, match="golden function"):
        ttnn.get_golden_function(ttnn.transformer.scaled_dot_product_attention)

    @ttnn.register_python_operation(name="mine.twice", golden_function=lambda v: 2 * v)
    def twice(v):
        return ttnn.add(v, v)

    assert twice(x).shape == x.shape
    assert ttnn.get_golden_function(twice)(2) == 4
    with ttnn.manage_config("enable_logging", True):
        assert ttnn.CONFIG.enable_logging
    assert not ttnn.CONFIG.enable_logging
