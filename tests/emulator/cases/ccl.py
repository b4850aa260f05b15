"""Collectives, on every system. The references work on the pieces of all chips, concatenated on dim 0 in mesh order."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
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


SHARED = T((1, 1, 32, 256), mapper=replicated)
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
        Refused((SHARED, 3), dict(cluster_axis=2), r"2 not in \[-4, 2\)", system="t3000"),
    ],
    "ttnn.all_reduce": [
        case(add, "n300", tolerance=SUM),
        case(add, "t3000", tolerance=SUM),
        case(add, "t3000", axis=0, tolerance=SUM),
        case(add, "t3000", axis=1, tolerance=SUM),
        case(add, "t3000_1x8", tolerance=1e-6, dtype=ttnn.float32),
        case(add, "t3000_1x8", tolerance=BLOCKS, dtype=ttnn.bfloat8_b, shape=(1, 1, 32, 256)),
        Refused((SHARED,), dict(cluster_axis=0), "forward_coord or backward_coord is null", system="n300"),
        Refused((SHARED,), dict(cluster_axis=2), "Invalid cluster axis 2. Must be 0 or 1", system="t3000"),
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
        Refused((SHARED, 4), {}, "should be between 0 and 3 however is 4", system="n300"),
    ],
}
