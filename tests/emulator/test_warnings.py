"""The library's warnings: given with its words, when it gives them, on its channel.

`data/warnings.json` holds what ttnn 0.81.1 said to each recorded call on an n150 (mock cluster, one process, its log
open); to all others it said nothing.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ttnn_emulator as ttnn
from tests.mock import contract
from ttnn_emulator import chips, warning

RECORDED = json.loads((Path(__file__).parents[1] / "data/warnings.json").read_text())
NEWER = Path(__file__).parents[1] / "data/contract_newer.jsonl.gz"
SILENT = 40  # recorded calls of each op beside those, which say nothing


@pytest.fixture(scope="module")
def device():
    device = ttnn.open_device(device_id=0, trace_region_size=1 << 20)
    yield device
    ttnn.close_device(device)


@pytest.fixture
def mesh_device():
    before = chips.machine().name
    chips.use("n300")
    ttnn.set_fabric_config(ttnn.FabricConfig.FABRIC_1D)
    mesh = ttnn.open_mesh_device(ttnn.MeshShape(1, 2))
    yield mesh
    ttnn.close_mesh_device(mesh)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
    chips.use(before)


def test_experts_warn_of_links_and_not_of_semaphores(mesh_device):
    def put(shape, dtype):
        return ttnn.from_torch(torch.zeros(shape, dtype=torch.int32), dtype=dtype, device=mesh_device)

    x, experts, where = (
        put((1, 1, 32, 64), ttnn.bfloat16),
        put((1, 1, 32, 2), ttnn.uint16),
        put((1, 1, 4, 2), ttnn.uint16),
    )
    with warning.collected() as found, ttnn.spec_only():
        with pytest.raises(ttnn.DeviceRejects, match="No neighbors found"):
            ttnn.all_to_all_dispatch(x, experts, where, cluster_axis=0)
    assert found == [warning.NO_LINKS]
    with warning.collected() as found, ttnn.spec_only():
        ttnn.all_to_all_dispatch(x, experts, where, cluster_axis=1)
    assert found == []


def test_recorded_calls_warn_as_the_library_did(device):
    calls, wrong, asked = contract.Calls(ttnn, device), {}, 0
    cases = contract.cases("n150", *contract.RECORDS, NEWER)
    ops = {case["op"] for case in cases if case["id"] in RECORDED}
    left = dict.fromkeys(ops, SILENT)
    for case in cases:
        left[case["op"]] = left.get(case["op"], 0) - (case["id"] not in RECORDED)
        if case.get("error", {}).get("type") == "ProcessCrash" or left[case["op"]] < 0:
            continue
        with warning.collected() as found, ttnn.spec_only():
            calls.disagreement(case)
        asked += 1
        want = set(RECORDED.get(case["id"], ()))
        # Once in a process, which the record has at its first linear with such a config.
        if set(found) - {warning.HIFI4_FP32} != want - {warning.HIFI4_FP32} or not want <= set(found):
            wrong[case["id"]] = found
    assert not wrong
    assert asked > len(RECORDED) + 100


def config(fidelity="HiFi4", fp32=True):
    return ttnn.WormholeComputeKernelConfig(
        math_fidelity=getattr(ttnn.MathFidelity, fidelity), math_approx_mode=False, fp32_dest_acc_en=fp32
    )


def sparse(x, w, how):
    program = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=(2, 1), in0_block_w=1, out_subblock_h=1, out_subblock_w=1, per_core_M=1,
        per_core_N=1, fuse_batch=True, mcast_in0=True,
    )  # fmt: skip
    experts = ttnn.reshape(w, (1, 1, 64, 64))
    marks = ttnn.to_layout(ttnn.slice(experts, [0, 0, 0, 0], [1, 1, 1, 1]), ttnn.ROW_MAJOR_LAYOUT)
    return ttnn.sparse_matmul(x, experts, sparsity=marks, program_config=program, **how)


# ttnn 0.81.1 on a mock n150, each in a process of its own: which ops look for HiFi4 with an fp32 destination.
LOOKS = {
    "linear": lambda x, w, k: ttnn.linear(x, w, **k),
    "matmul": lambda x, w, k: ttnn.matmul(x, w, **k),
    "addmm": lambda x, w, k: ttnn.addmm(w, w, w, **k),
    "softmax": lambda x, w, k: ttnn.softmax(x, dim=-1, **k),
    "softmax_in_place": lambda x, w, k: ttnn.softmax_in_place(x, **k),
    "sum": lambda x, w, k: ttnn.sum(x, dim=-1, **k),
    "mean": lambda x, w, k: ttnn.mean(x, dim=-1, **k),
    "max": lambda x, w, k: ttnn.max(x, dim=-1, **k),
    "minimal_matmul": lambda x, w, k: ttnn.experimental.minimal_matmul(x, w, **k),
    "sparse_matmul": sparse,
}
DOES_NOT = {
    "rms_norm": lambda x, w, k: ttnn.rms_norm(x, **k),
    "layer_norm": lambda x, w, k: ttnn.layer_norm(x, **k),
    "std": lambda x, w, k: ttnn.std(x, dim=-1, **k),
    "fast_reduce_nc": lambda x, w, k: ttnn.experimental.fast_reduce_nc(x, dims=[1], **k),
    "ema": lambda x, w, k: ttnn.ema(x, 0.5, **k),
    "attention": lambda x, w, k: ttnn.transformer.scaled_dot_product_attention(x, x, x, is_causal=True, **k),
}


@pytest.mark.parametrize("op", [*LOOKS, *DOES_NOT])
def test_hifi4_with_an_fp32_destination(op, device):
    x, w = (
        ttnn.from_torch(torch.zeros(s), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
        for s in ((1, 1, 32, 64), (64, 64))
    )
    call = (LOOKS | DOES_NOT)[op]
    for given, said in ((config(), op in LOOKS), (config("HiFi3"), False), (config(fp32=False), False)):
        with warning.collected() as found:
            call(x, w, {"compute_kernel_config": given})
        assert found == [warning.HIFI4_FP32] * said, given


PROGRAM = """
import torch, ttnn_emulator as ttnn
device = ttnn.open_device(device_id=0, trace_region_size=1 << 20)
x = ttnn.from_torch(torch.zeros(64, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
c = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=True)
for _ in range(3):
    ttnn.matmul(x, x, compute_kernel_config=c)
    ttnn.to_layout(x, ttnn.TILE_LAYOUT, dtype=ttnn.float32)
ttnn.add(x, x)
trace = ttnn.begin_trace_capture(device, cq_id=0)
ttnn.add(x, x)
ttnn.end_trace_capture(device, trace, cq_id=0)
ttnn.add(x, x), ttnn.add(x, x)
"""


@pytest.mark.parametrize("level", [None, "Fatal"])
def test_they_are_lines_on_standard_output(level, monkeypatch):
    for name in ("TT_LOGGER_LEVEL", "TT_METAL_LOGGER_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    if level:
        monkeypatch.setenv("TT_METAL_LOGGER_LEVEL", level)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = [line.split(" | ")[1:] for line in done.stdout.splitlines()]
    same = "ttnn::to_layout: dtype is specified but the tensor is already in the requested layout! So, the dtype won't "
    once = [["warning ", "             Op", warning.HIFI4_FP32]]
    always = [["warning ", "             Op", same + "be changed!"]] * 3
    trace = [["warning ", "          Metal", warning.ACTIVE_TRACE]]
    assert lines == ([] if level else once + always + trace)
    assert not done.stderr


def test_collectives(mesh_device):
    def put():
        mapper = ttnn.ShardTensorToMesh(mesh_device, dim=3)
        width = 64 * mesh_device.get_num_devices()
        return ttnn.from_torch(
            torch.zeros(1, 1, 32, width), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh_device,
            mesh_mapper=mapper,
        )  # fmt: skip

    x = put()
    for given, want in (({}, [warning.SEMAPHORES_IN_L1]), ({}, []), ({"num_links": 1}, [warning.GATHER_DEPRECATED])):
        with warning.collected() as found:
            ttnn.all_gather(x, dim=3, **given)
        assert found == want


def test_shards_filled_on_a_mesh(mesh_device):
    grid = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(1, 0))])
    shards = ttnn.ShardSpec(grid, [32, 64], ttnn.ShardOrientation.ROW_MAJOR)
    memory = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, shards)
    mapper = ttnn.ReplicateTensorToMesh(mesh_device)
    for given, want in (({"mesh_mapper": mapper}, [warning.LEGACY_TILIZE]), ({}, [])):
        with warning.collected() as found:
            ttnn.from_torch(
                torch.zeros(1, 1, 64, 64), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh_device,
                memory_config=memory, **given,
            )  # fmt: skip
        assert found == want
