"""Collectives, on every system. The references work on the pieces of all chips, concatenated on dim 0 in mesh order."""

import dataclasses

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Device, Refused, Semaphore, T
from ttnn_emulator.chips import SYSTEMS

#: bfloat16 after every one of the up to seven additions: 2^-9 of the partial sums at each.
SUM = 1e-2
BLOCKS = 3e-2


def everywhere(device):
    return ttnn.ShardTensorToMesh(device, dim=0)


def replicated(device):
    return ttnn.ReplicateTensorToMesh(device)


def stacked(device):
    return ttnn.ConcatMeshToTensor(device, dim=0)


def groups(mesh, axis):
    chips = torch.arange(mesh[0] * mesh[1]).view(mesh)
    return [chips.flatten()] if axis is None else list(chips.T if axis == 0 else chips)


def collective(mesh, combine):
    """A reference: `combine(pieces of a group)` -> the group's results."""

    def reference(x, *args, cluster_axis=None, **kwargs):
        pieces = list(x.chunk(mesh[0] * mesh[1], 0))
        out = list(pieces)
        for group in groups(mesh, cluster_axis):
            for chip, value in zip(group.tolist(), combine([pieces[i] for i in group], *args, **kwargs), strict=True):
                out[chip] = value
        return torch.cat(out, 0)

    return reference


def gather(pieces, dim=None, **kwargs):
    return [torch.cat(pieces, dim)] * len(pieces)


def from_second(pieces, sender, **kwargs):
    return [pieces[1]] * len(pieces)


def each_of_all(made, axis):
    """A reference that gives as many results as a group has chips, the n-th of them all groups' n-th pieces."""
    mesh = SYSTEMS[made.system].mesh_shape

    def reference(x, **kwargs):
        ways = mesh[0] * mesh[1] if axis is None else mesh[axis]
        nth = [collective(mesh, lambda pieces, n=n: [pieces[n]] * len(pieces)) for n in range(ways)]
        return [one(x, cluster_axis=axis) for one in nth]

    return reference


def add(pieces, **kwargs):
    return [sum(pieces)] * len(pieces)


def add_and_cut(pieces, dim=None, **kwargs):
    return list(sum(pieces).chunk(len(pieces), dim))


def case(op, system, args=(), axis=None, shape=(1, 1, 20, 256), dtype=ttnn.bfloat16, tolerance=0.0):
    mesh = SYSTEMS[system].mesh_shape
    chips = mesh[0] * mesh[1]
    return Case(
        (T((chips * shape[0], *shape[1:]), dtype, mapper=everywhere), *args),
        {} if axis is None else dict(cluster_axis=axis),
        collective(mesh, op), tolerance, system, stacked,
    )  # fmt: skip


def after(semaphores, made, **more):
    """A case with that many semaphores, and more keywords."""
    return Case(
        made.args, {**made.kwargs, **more, "multi_device_global_semaphore": [Semaphore] * semaphores}, made.reference,
        made.tolerance, made.system, made.compose,
    )  # fmt: skip


def case_with(made, **more):
    return Case(made.args, {**made.kwargs, **more}, made.reference, made.tolerance, made.system, made.compose)


ALL_THREE = dict(
    barrier_semaphores=[Semaphore] * 2, rs_global_semaphores=[Semaphore] * 3, ag_global_semaphores=[Semaphore] * 2,
    math_op=ttnn.ReduceType.Sum,
)  # fmt: skip


def summing(made, **more):
    return case_with(made, **more, **ALL_THREE)


def refused_sum(words, **changed):
    given = {"num_devices": 2, **ALL_THREE, **changed}
    return Refused((SHARED,), {k: v for k, v in given.items() if v is not None}, words, system="n300")


def shards(width):
    """[32, 8 * width] on a row of eight cores."""
    row = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(7, 0))})
    spec = ttnn.ShardSpec(row, [32, width], ttnn.ShardOrientation.ROW_MAJOR)
    return ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.L1, spec)


def in_shards(width, dtype=ttnn.bfloat16, **how):
    return T((1, 1, 32, 8 * width), dtype=dtype, memory_config=shards(width), **how)


def buffered(made, ways, **more):
    """The case with its operand in shards and a buffer that holds the pieces of all chips."""
    x = dataclasses.replace(made.args[0], memory_config=shards(64))
    return Case(
        (x, in_shards(64 * ways, mapper=replicated)),
        {**made.kwargs, **more, "mesh_device": Device, "multi_device_global_semaphore": Semaphore},
        lambda x, buffer, **kwargs: made.reference(x, **kwargs), made.tolerance, made.system, made.compose,
    )  # fmt: skip


def refused_buffer(words, parts=2, buffer=ttnn.bfloat16, axis=1, **more):
    given = dict(cluster_axis=axis, mesh_device=Device, multi_device_global_semaphore=Semaphore, **more)
    operands = in_shards(64, mapper=replicated), in_shards(64 * parts, buffer, mapper=replicated)
    return Refused(operands, given, words, system="n300")


def own_part(pieces, dim=None, **kwargs):
    return [piece.chunk(len(pieces), dim)[i] for i, piece in enumerate(pieces)]


LINEAR, RING = ttnn.Topology.Linear, ttnn.Topology.Ring
TWO, THREE = (dict(multi_device_global_semaphore=[Semaphore] * n) for n in (2, 3))
PROGRAM = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
    compute_with_storage_grid_size=(8, 2), in0_block_w=2, out_subblock_h=1, out_subblock_w=1, per_core_M=1,
    per_core_N=1, fuse_batch=True, mcast_in0=True,
)  # fmt: skip
FUSED = dict(dim=3, **TWO, all_gather_core_grid_offset=(0, 6))
SHARED = T((1, 1, 32, 256), mapper=replicated)
OWN = T((2, 1, 32, 64), mapper=everywhere)  # another tensor on each of two chips


def ends(source, target):
    return ttnn.MeshCoordinate(0, source), ttnn.MeshCoordinate(0, target)


def at_receiver(source, target):
    """What one chip has, on another; the rest as in the output that was given, or zeros."""

    def reference(x, *args, output_tensor=None, **kwargs):
        y = torch.zeros_like(x) if output_tensor is None else output_tensor.clone()
        y[target] = x[source]
        return y

    return reference


#: Which check meets an axis that the mesh does not have (ttnn 0.81.1, n300 and t3000).
INVALID, RANK = "Invalid cluster axis 2. Must be 0 or 1", "cluster axis 2 is out of range for mesh shape rank 2"
SHAPE = r"ShapeBase\[\] index out of range. 2 not in \[-4, 2\)"


def no_axis(args, kwargs, linear, linear_1, ring, ring_1):
    """Axis 2, by topology and with one link or none named."""
    words = {(LINEAR, None): linear, (LINEAR, 1): linear_1, (RING, None): ring, (RING, 1): ring_1}
    return [
        Refused(args, dict(kwargs, cluster_axis=2, topology=topology, num_links=links), text, system="n300")
        for (topology, links), text in words.items()
    ]


CASES = {
    "ttnn.all_gather": [
        case(gather, "n300", (3,)),
        case(gather, "t3000", (3,)),
        case(gather, "t3000", (2,), 0),
        case(gather, "t3000", (-1,), 1, dtype=ttnn.float32),
        case(gather, "t3000_1x8", (3,), 1, dtype=ttnn.bfloat8_b),
        Refused((T((1, 1, 32, 64)), 3), {}, "un-initialized fabric context"),
        Refused((SHARED, 4), {}, "Invalid gather dim 4 for 4D", system="n300"),
        Refused((SHARED, 3), dict(cluster_axis=0), "only work for num_devices > 1, got 1", system="n300"),
        Refused((SHARED, 3), dict(cluster_axis=2), SHAPE, system="t3000"),
        *no_axis((SHARED, 3), {}, SHAPE, SHAPE, SHAPE, SHAPE),
    ],
    "ttnn.all_reduce": [
        case(add, "n300", tolerance=SUM),
        case(add, "t3000", tolerance=SUM),
        case(add, "t3000", axis=0, tolerance=SUM),
        case(add, "t3000", axis=1, tolerance=SUM),
        case(add, "t3000_1x8", tolerance=1e-6, dtype=ttnn.float32),
        case(add, "t3000_1x8", tolerance=BLOCKS, dtype=ttnn.bfloat8_b, shape=(1, 1, 32, 256)),
        Refused((SHARED,), dict(cluster_axis=0), "forward_coord or backward_coord is null", system="n300"),
        Refused((SHARED,), dict(cluster_axis=2), INVALID, system="t3000"),
        *no_axis((SHARED,), {}, INVALID, RANK, SHAPE, SHAPE),
        Refused((SHARED,), dict(num_links=9), "Requested link index 2 is out of bounds", system="t3000"),
        Refused((T((1, 1, 32, 64)),), {}, "un-initialized fabric context"),
    ],
    "ttnn.reduce_scatter": [
        case(add_and_cut, "n300", (3,), tolerance=SUM),
        case(add_and_cut, "t3000", (2,), tolerance=SUM, shape=(1, 1, 40, 64)),
        case(add_and_cut, "n300", (3,), dtype=ttnn.int32),
        case(add_and_cut, "t3000", (3,), tolerance=SUM),
        case(add_and_cut, "t3000", (2,), 0, tolerance=SUM),
        case(add_and_cut, "t3000_1x8", (3,), 1, tolerance=SUM),
        Refused((SHARED, 1), {}, "Dimension 1 must be divisible by ring_size", system="n300"),
        Refused((T((1, 1, 32, 100), mapper=replicated), 3), {}, "Number of tiles at dimension 3", system="t3000"),
        Refused((SHARED, 3), dict(num_links=0), "num_links must be greater than 0", system="t3000"),
        Refused((SHARED, 3), dict(cluster_axis=-1), "incompatible", TypeError, "t3000"),
        *no_axis((SHARED, 3), {}, INVALID, RANK, SHAPE, SHAPE),
        Refused((SHARED, 4), {}, "should be between 0 and 3 however is 4", system="n300"),
    ],
    "ttnn.all_broadcast": [
        *(
            dataclasses.replace(made, reference=each_of_all(made, axis))
            for system, axis in (("n300", None), ("t3000", 0), ("t3000", 1), ("t3000_1x8", 1))
            for made in [case(gather, system, (), axis, dtype=ttnn.float32)]
        ),
        Refused((SHARED,), dict(cluster_axis=0), "only work for num_devices > 1, but has 1", system="n300"),
        Refused((SHARED,), dict(num_links=3), "Requested link index 2 is out of bounds", system="n300"),
        Refused((T((1, 1, 32, 64)),), {}, "un-initialized fabric context"),
    ],
    "ttnn.broadcast": [
        case(from_second, "n300", (ttnn.MeshCoordinate(0, 1),)),
        case(from_second, "t3000", (ttnn.MeshCoordinate(1, 3),), 0),
        case(from_second, "t3000", (ttnn.MeshCoordinate(1, 1),), 1, dtype=ttnn.bfloat8_b),
        case(from_second, "t3000_1x8", (ttnn.MeshCoordinate(0, 1),)),
        Refused((SHARED, ttnn.MeshCoordinate(0, 0)), dict(cluster_axis=0), "but has 1, shape", system="n300"),
        Refused((SHARED, (0, 1)), {}, "incompatible function arguments", TypeError, "n300"),
        Refused((T((1, 1, 32, 64)), ttnn.MeshCoordinate(0, 0)), {}, "un-initialized fabric context"),
    ],
    "ttnn.point_to_point": [
        Case((OWN, *ends(0, 1)), {}, at_receiver(0, 1), system="n300", compose=stacked),
        Case((OWN, *ends(1, 0)), {"topology": ttnn.Topology.Ring}, at_receiver(1, 0), system="n300", compose=stacked),
        Case((OWN, *ends(0, 1)), {"output_tensor": OWN}, at_receiver(0, 1), system="n300", compose=stacked),
        Case((OWN, *ends(1, 1)), {}, at_receiver(1, 1), system="n300", compose=stacked),
        Refused((SHARED, *ends(0, 2)), {}, "Mesh device must contain receiver coordinate device", system="n300"),
        Refused((SHARED, *ends(2, 0)), {}, "Mesh device must contain sender coordinate device", system="n300"),
        Refused((SHARED, (0, 0), (0, 1)), {}, "incompatible function arguments", TypeError, "n300"),
        Refused((T((1, 1, 32, 64), ttnn.bfloat8_b), *ends(0, 1)), {}, "datum for bfp2, bfp4, bfp8", ValueError, "n300"),
        Refused(
            (T((1, 1, 32, 4), layout=ttnn.ROW_MAJOR_LAYOUT), *ends(0, 1)), {}, "must be 16 byte aligned", system="n300"
        ),
        Refused(
            (SHARED, *ends(0, 1)), {"output_tensor": T((1, 1, 32, 64))}, "does not match the computed", system="n300"
        ),
    ],
    "ttnn.mesh_partition": [
        case(own_part, "n300", (3,)),
        case(own_part, "t3000", (-1,), 1),
        case(own_part, "t3000", (2,), 0, shape=(1, 1, 64, 32)),
        case(own_part, "t3000_1x8", (1,), shape=(1, 8, 20, 50)),
        Case((T((1, 1, 32, 64)), 3), {}, lambda x, dim: x, note="one chip has it all"),
        Refused((SHARED, 4), {}, r"4 not in \[-4, 4\)", system="n300"),
        Refused((SHARED, -5), {}, "dim must be less than the rank", system="n300"),
        Refused((SHARED, 3, 2), {}, "cluster axis of None, 0 or 1", system="n300"),
        Refused((SHARED, 0), {}, "must be divisible by cluster axis size 2", system="n300"),
        Refused((SHARED, 2), {}, "with height begin index aligned to tiles", system="n300"),
        Refused((T((1, 1, 32, 96), mapper=replicated), 3), {}, "with width begin", system="n300"),
    ],
    "ttnn.experimental.all_reduce_async": [
        *(summing(case(add, system, tolerance=SUM), num_devices=1) for system in ("n300", "t3000", "t3000_1x8")),
        summing(case(add, "t3000", axis=1, tolerance=SUM), mesh_device=Device),
        summing(case(add, "t3000", axis=0, shape=(1, 1, 20, 100), tolerance=SUM), mesh_device=Device),
        summing(case(add, "n300", dtype=ttnn.bfloat8_b, tolerance=BLOCKS), num_devices=2),
        case_with(case(add, "t3000", axis=1, tolerance=SUM), mesh_device=Device, math_op=ttnn.ReduceType.Sum),
        buffered(case(add, "t3000", axis=1, shape=(1, 1, 32, 512), tolerance=SUM), 4),
        buffered(case(add, "n300", axis=1, shape=(1, 1, 32, 512), tolerance=BLOCKS), 2, dtype=ttnn.bfloat8_b),
        refused_sum("Expected 3 semaphores but got 2", rs_global_semaphores=[Semaphore] * 2),
        refused_sum("requires 2 semaphores", ag_global_semaphores=[Semaphore]),
        refused_sum("moved-from state", barrier_semaphores=[Semaphore]),
        refused_sum("Requested link index 2", num_links=3),
        refused_sum("Cluster axis is required for all gather", mesh_device=Device, num_devices=None),
        refused_buffer("Require at least 4096 but has 2048", parts=1),
        refused_buffer("buffer bank size of 4352 B", buffer=ttnn.bfloat8_b),
        refused_buffer("even number of blocks", axis=0),
        refused_buffer("num_links should be more than 0", num_links=0),
        refused_buffer("Unsupported memory layout for output tensor", memory_config=ttnn.L1_MEMORY_CONFIG),
    ],
    "ttnn.experimental.all_gather_async": [
        after(2, case(gather, "n300"), dim=3),
        after(2, case(gather, "n300", shape=(1, 1, 32, 100)), dim=3),
        after(2, case(gather, "n300", dtype=ttnn.bfloat8_b), dim=2),
        after(2, case(gather, "t3000", axis=1), dim=3, mesh_device=Device, topology=LINEAR),
        after(2, case(gather, "t3000", axis=0, dtype=ttnn.float32), dim=2, barrier_semaphore=Semaphore),
        after(2, case(gather, "t3000_1x8"), persistent_output_buffer=T((1, 1, 20, 2048), mapper=replicated), dim=3),
        Refused(
            (SHARED,), dict(dim=3, multi_device_global_semaphore=Semaphore), "requires 2 semaphores", system="n300"
        ),
        Refused((SHARED,), dict(dim=3, **TWO, num_links=3), "Requested link index 2", system="n300"),
        Refused((SHARED,), dict(dim=3, **TWO, num_links=0), "num_links should be more than 0", system="n300"),
        Refused((SHARED,), dict(dim=4, **TWO), "in between -4 and 3, but has 4", system="n300"),
        Refused((SHARED,), dict(dim=3, **TWO, cluster_axis=0), "num_devices > 1, but has 1", system="n300"),
        Refused((SHARED,), dict(dim=3, **TWO, cluster_axis=2), INVALID, system="n300"),
        *no_axis((SHARED,), dict(dim=3, **TWO), INVALID, RANK, INVALID, SHAPE),
        *no_axis((SHARED,), dict(dim=3, **TWO, mesh_device=Device), INVALID, RANK, INVALID, SHAPE),
        Refused((SHARED,), dict(dim=3), "incompatible", TypeError, "n300"),
        Refused((SHARED, 3, [Semaphore] * 2), dict(cluster_axis=1), "incompatible", TypeError, "n300"),
        Refused(
            (SHARED, T((1, 1, 32, 512), ttnn.float32, mapper=replicated)),
            dict(dim=3, **TWO),
            "dtype should be same as input tensor dtype but has DataType::FLOAT32",
            system="n300",
        ),
        Refused(
            (SHARED, T((1, 1, 32, 512), mapper=replicated)),
            dict(dim=3, **TWO, memory_config=ttnn.L1_MEMORY_CONFIG),
            "should be same as output_mem_config",
            system="n300",
        ),
        Refused(
            (SHARED, T((1, 1, 32, 256), mapper=replicated)),
            dict(dim=3, **TWO),
            "persistent buffer",
            ttnn.NotEmulated,
            "n300",
        ),
        Refused((T((1, 1, 32, 64)),), dict(dim=3, **TWO), "un-initialized fabric context"),
    ],
    "ttnn.experimental.reduce_scatter_minimal_async": [
        after(3, case(add_and_cut, "n300", tolerance=SUM), dim=3),
        after(3, case(add_and_cut, "n300", shape=(1, 1, 32, 100), tolerance=SUM), dim=3),
        after(
            3,
            case(add_and_cut, "t3000", axis=1, tolerance=SUM),
            dim=3,
            intermediate_memory_config=ttnn.L1_MEMORY_CONFIG,
        ),
        after(3, case(add_and_cut, "t3000_1x8", dtype=ttnn.float32, tolerance=1e-6), dim=3, topology=LINEAR),
        after(
            3,
            case(add_and_cut, "n300", tolerance=SUM),
            dim=3,
            persistent_output_buffers=[T((1, 1, 20, 256), mapper=replicated), T((1, 1, 20, 128), mapper=replicated)],
        ),
        Refused((SHARED,), dict(dim=3, **TWO), "Expected 3 semaphores but got 2", system="n300"),
        Refused((SHARED,), dict(dim=3), "incompatible", TypeError, "n300"),
        Refused((SHARED,), dict(dim=3, multi_device_global_semaphore=[]), "_M_range_check", IndexError, "n300"),
        Refused((SHARED,), dict(dim=1, **THREE), "Dimension 1 must be divisible by ring_size", system="n300"),
        Refused((SHARED,), dict(dim=3, **THREE, cluster_axis=0), "num_devices > 1, but has 1", system="n300"),
        *no_axis((SHARED,), dict(dim=3, **THREE), INVALID, RANK, INVALID, RANK),
        Refused((SHARED,), dict(dim=3, **THREE, num_links=5), r"dst \(M0, D4\)", system="t3000_1x8"),
        Refused((SHARED,), dict(dim=3, **THREE, num_links=5, topology=LINEAR), r"D1\)", system="t3000_1x8"),
        Refused((T((1, 1, 20, 64), mapper=replicated),), dict(dim=2, **THREE), "tiles at dimension 2", system="t3000"),
    ],
    "ttnn.experimental.all_gather_matmul_async": [
        Refused((SHARED, T((1, 1, 512, 512), mapper=replicated)), FUSED, "bad optional access", system="n300"),
        Refused(
            (SHARED, T((1, 1, 512, 512), mapper=replicated)),
            dict(FUSED, program_config=PROGRAM),
            "linear is not support when using fused",
            system="n300",
        ),
        Refused(
            (SHARED, T((1, 1, 256, 512), mapper=replicated)),
            dict(FUSED, program_config=PROGRAM),
            "Dimension K",
            system="n300",
        ),
        Refused(
            (SHARED, T((512, 512), mapper=replicated)),
            dict(FUSED, program_config=PROGRAM),
            "to be of rank 4",
            system="n300",
        ),
        Refused(
            (SHARED, T((1, 1, 512, 512), mapper=replicated)),
            dict(FUSED, dim=2, program_config=PROGRAM),
            "requires dim=3",
            system="n300",
        ),
    ],
}
