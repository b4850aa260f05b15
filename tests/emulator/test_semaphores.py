"""Global semaphores, and the collectives that need a ring."""

import pytest
import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Semaphore, build, open_system
from tests.emulator.cases.ccl import PROGRAM
from ttnn_emulator import chips


def cores(x, y):
    return ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(x, y))])


def test_memory_and_refusals():
    device = open_system("n150")
    level = device.allocators[ttnn.BufferType.L1].allocated
    one, two = (ttnn.create_global_semaphore(device, cores(x, x), 1) for x in (7, 0))
    assert device.allocators[ttnn.BufferType.L1].allocated - level == 2 * 32
    assert ttnn.get_global_semaphore_address(one) == 1499104  # the last 32 bytes, as on the library
    ttnn.reset_global_semaphore_value(two, 0)
    del one, two
    assert device.allocators[ttnn.BufferType.L1].allocated == level
    for given, words in [
        ((cores(7, 7), 0, ttnn.BufferType.DRAM), "only be created for L1"),
        ((ttnn.CoreRangeSet([]), 0), "at least one core"),
        ((cores(8, 8), 0), "has no L1 bank"),
        ((cores(0, 0), 0, ttnn.BufferType.L1_SMALL), "L1_SMALL buffer"),
    ]:
        with pytest.raises(ttnn.DeviceRejects, match=words):
            ttnn.create_global_semaphore(device, *given)
    with pytest.raises(TypeError):
        ttnn.create_global_semaphore(device, cores(0, 0))
    ttnn.close_device(device)


@pytest.mark.parametrize("fabric", ["FABRIC_1D", "FABRIC_1D_RING", "FABRIC_2D"])
def test_gathering_in_a_product(fabric):
    open_system("t3000_1x8")  # the machine
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, fabric))
    device = ttnn.open_mesh_device(ttnn.MeshShape(1, 8))
    x, w = torch.randn(1, 1, 32, 256).bfloat16(), torch.randn(1, 1, 256, 512).bfloat16()
    how = dict(dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    parts = ttnn.from_torch(x, **how, mesh_mapper=ttnn.ShardTensorToMesh(device, dim=3))
    weight = ttnn.from_torch(w, **how, mesh_mapper=ttnn.ReplicateTensorToMesh(device))
    config = ttnn.WormholeComputeKernelConfig(math_fidelity=ttnn.MathFidelity.HiFi4, fp32_dest_acc_en=True)
    given = dict(dim=3, multi_device_global_semaphore=build([Semaphore] * 2, device, None), program_config=PROGRAM)
    gathered, product = ttnn.experimental.all_gather_matmul_async(
        parts, weight, **given, all_gather_core_grid_offset=(0, 6), compute_kernel_config=config
    )
    first = ttnn.to_torch(ttnn.get_device_tensors(gathered)[5])
    assert torch.equal(first, x)
    want, got = (x.float() @ w.float()), ttnn.to_torch(ttnn.get_device_tensors(product)[5]).float()
    assert (got - want).norm() < 1e-2 * want.norm()
    with pytest.raises(ttnn.DeviceRejects, match="linear is not support"):
        ttnn.experimental.all_gather_matmul_async(
            parts, weight, **given, all_gather_core_grid_offset=(0, 6), topology=ttnn.Topology.Linear
        )
    with pytest.raises(ttnn.DeviceRejects, match="another circular buffer already exists"):
        ttnn.experimental.all_gather_matmul_async(parts, weight, **given, all_gather_core_grid_offset=(0, 0))
    with pytest.raises(ttnn.DeviceRejects, match="off the worker grid"):
        ttnn.experimental.all_gather_matmul_async(parts, weight, **given, all_gather_core_grid_offset=(0, 8))
    ttnn.close_mesh_device(device)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


@pytest.mark.parametrize(
    ("shape", "topology", "fabric", "words"),
    [
        ((2, 4), "Linear", "FABRIC_1D", r"src \(M0, D3\) to dst \(M0, D4\)"),
        ((2, 4), "Ring", "FABRIC_1D_RING", r"src \(M0, D3\) to dst \(M0, D4\)"),
        ((4, 2), "Ring", "FABRIC_1D", r"src \(M0, D4\) to dst \(M0, D1\)"),
        ((1, 4), "Ring", "FABRIC_1D", r"src \(M0, D0\) to dst \(M0, D3\)"),
        ((1, 4), "Linear", "FABRIC_1D", None),
        ((1, 4), "Ring", "FABRIC_2D", None),
        ((2, 4), "Ring", "FABRIC_2D", None),
        ((1, 8), "Ring", "FABRIC_1D", None),
    ],
)
def test_a_line_of_chips_goes_from_neighbour_to_neighbour(shape, topology, fabric, words):
    open_system("t3000")  # the machine
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, fabric))
    mesh = ttnn.open_mesh_device(ttnn.MeshShape(*shape))
    x = ttnn.from_torch(torch.ones(1, 1, 32, 256), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=mesh)
    given = dict(dim=3, topology=getattr(ttnn.Topology, topology), num_links=1)

    def gather(**axis):
        two = build([Semaphore] * 2, mesh, None)
        return ttnn.experimental.all_gather_async(
            x, persistent_output_buffer=None, **given, **axis, multi_device_global_semaphore=two
        )

    def scatter():
        three = build([Semaphore] * 3, mesh, None)
        return ttnn.experimental.reduce_scatter_minimal_async(
            x, persistent_output_buffers=None, **given, multi_device_global_semaphore=three
        )

    for call in (gather, scatter):
        if words:
            with pytest.raises(ttnn.DeviceRejects, match=words):
                call()
        else:
            call()
    gather(cluster_axis=1)
    if 1 not in shape and fabric != "FABRIC_2D":
        with pytest.raises(ttnn.DeviceRejects, match="requires cluster_axis"):
            ttnn.all_gather(x, dim=3)
    ttnn.close_mesh_device(mesh)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


@pytest.mark.parametrize(
    ("shape", "kept"),  # ttnn 0.81.1 on p300x2, free L1 before and after: 384 or 128 bytes a bank, in steps of 64
    [
        ((1, 1, 32, 2048), 6), ((1, 1, 256, 320), 6), ((1, 1, 64, 320), 2), ((1, 1, 128, 320), 6), ((1, 1, 97, 320), 2),
        ((1, 4, 32, 320), 6), ((4, 1, 32, 320), 6), ((8, 3, 32, 320), 6), ((2, 2, 32, 320), 2), ((1, 1, 256, 352), 6),
    ],
)  # fmt: skip
def test_a_sum_is_scattered_along_the_last_dim_that_divides_or_else_broadcast(shape, kept):
    device = open_system("p300x2")
    level = device.allocators[ttnn.BufferType.L1].allocated
    x = ttnn.zeros(shape, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    ttnn.deallocate(ttnn.all_reduce(x))
    assert device.allocators[ttnn.BufferType.L1].allocated - level == kept * 32
    ttnn.close_mesh_device(device)
    ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
    chips.use("n150")
