"""Tokens to experts on other chips and back, against loops over tokens. They move values: every result is exact."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T
from tests.emulator.cases.ccl import everywhere, groups, replicated, stacked
from ttnn_emulator.chips import SYSTEMS

RM, U16 = ttnn.ROW_MAJOR_LAYOUT, ttnn.uint16
DISPATCH, COMBINE, REMAP = "ttnn.all_to_all_dispatch", "ttnn.all_to_all_combine", "ttnn.moe_expert_token_remap"


def homes(mapping, chips):
    """Expert -> (chip, number there)."""
    one_hot = mapping[:1, 0].reshape(-1, chips)
    chip = [row.index(1) for row in one_hot.tolist()]
    return [(c, chip[:e].count(c)) for e, c in enumerate(chip)]


def dispatched(mesh):
    chips = mesh[0] * mesh[1]

    def reference(x, ids, mapping, cluster_axis=None, output_concat_dim=1):
        home, parts, told = homes(mapping, chips), list(x.chunk(chips)), list(ids.chunk(chips))
        tokens, experts = [None] * chips, [None] * chips
        for group in groups(mesh, cluster_axis):
            every, chosen = (
                torch.cat([p[i][:, 0][None] for i in group.tolist()], output_concat_dim) for p in (parts, told)
            )
            for chip in group.tolist():
                tokens[chip], experts[chip] = torch.zeros_like(every), chosen
                for b in range(every.shape[1]):
                    for s in range(every.shape[2]):
                        if any(home[e][0] == chip for e in chosen[0, b, s].tolist()):
                            tokens[chip][0, b, s] = every[0, b, s]
        return torch.cat(tokens), torch.cat(experts)

    return reference


def combined(mesh):
    chips = mesh[0] * mesh[1]

    def reference(y, told, mapping, cluster_axis=None, output_shard_dim=1):
        home, parts, out = homes(mapping, chips), list(y.chunk(chips)), [None] * chips
        told = list(told.chunk(chips))
        for group in groups(mesh, cluster_axis):
            group = group.tolist()
            for i, chip in enumerate(group):
                b0, s0 = (told[0].shape[d] // len(group) * i * (output_shard_dim == d) for d in (1, 2))
                size = [told[0].shape[3], *told[0].shape[1:3], y.shape[3]]
                size[output_shard_dim] //= len(group)
                out[chip] = torch.zeros(size)
                for k in range(size[0]):
                    for b in range(size[1]):
                        for s in range(size[2]):
                            home_chip, number = home[int(told[chip][0, b0 + b, s0 + s, k])]
                            if home_chip in group:
                                out[chip][k, b, s] = parts[home_chip][number, b0 + b, s0 + s]
        return torch.cat(out)

    return reference


def remapped(mesh):
    chips = mesh[0] * mesh[1]

    def reference(scores, mapping, told, reduction_size=16):
        home, own, groups_of = homes(mapping, chips), [], []
        for chip in range(chips):
            experts = [e for e, (c, _) in enumerate(home) if c == chip]
            made = torch.zeros(1, *scores.shape[1:3], len(experts))
            chose = torch.zeros(scores.shape[1] * scores.shape[2], len(experts), dtype=torch.int64)
            for b in range(scores.shape[1]):
                for s in range(scores.shape[2]):
                    for number, e in enumerate(experts):
                        if e in told[0, b, s].tolist():
                            made[0, b, s, number] = scores[0, b, s, e]
                            chose[b * scores.shape[2] + s, number] = 1
            own.append(made)
            groups_of.append(chose.reshape(1, 1, -1, reduction_size, len(experts)).amax(-2))
        return torch.cat(own), torch.cat(groups_of)

    return reference


def mapping(chips, each):
    order = torch.arange(chips * each).reshape(each, chips).T.flatten() // each  # neighbours on different chips
    return T(values=torch.nn.functional.one_hot(order, chips)[None, None], dtype=U16, layout=RM, mapper=replicated)


def to_experts(system, axis=None, dim=1, each=2):
    mesh = SYSTEMS[system].mesh_shape
    chips = mesh[0] * mesh[1]
    args = (
        T((chips * 3, 1, 4, 16), layout=RM, mapper=everywhere),
        T((chips * 3, 1, 4, 2), U16, RM, mapper=everywhere, high=chips * each), mapping(chips, each),
    )  # fmt: skip
    how = dict(output_concat_dim=dim) | ({} if axis is None else dict(cluster_axis=axis))
    return Case(args, how, dispatched(mesh), 0, system, stacked)


def back(system, axis, dim=1, each=2):
    mesh = SYSTEMS[system].mesh_shape
    chips = mesh[0] * mesh[1]
    told = torch.randint(0, chips * each, (1, 8, 8, 2), generator=torch.Generator().manual_seed(3))
    args = (
        T((chips * each, 8, 8, 16), layout=RM, mapper=everywhere),
        T(values=told, dtype=U16, layout=RM, mapper=replicated), mapping(chips, each),
    )  # fmt: skip
    return Case(args, dict(cluster_axis=axis, output_shard_dim=dim), combined(mesh), 0, system, stacked)


def remap(system, each=2, **how):
    mesh = SYSTEMS[system].mesh_shape
    chips = mesh[0] * mesh[1]
    scores = torch.rand(1, 4, 8, chips * each, generator=torch.Generator().manual_seed(4)).bfloat16()
    args = (
        T(values=scores, layout=RM, mapper=replicated), mapping(chips, each),
        T((1, 4, 8, 2), U16, RM, mapper=replicated, high=chips * each),
    )  # fmt: skip
    return Case(args, how, remapped(mesh), 0, system, stacked)


def shared(shape, dtype=ttnn.bfloat16, layout=RM):
    return T(shape, dtype, layout, mapper=replicated)


X, IDS, MAP = shared((4, 1, 8, 64)), shared((4, 1, 8, 2), U16), mapping(2, 4)
Y, TOLD, SCORES = shared((4, 8, 8, 64)), shared((1, 8, 8, 2), U16), shared((1, 8, 8, 8))


def no(args, how, words, error=ttnn.DeviceRejects):
    return Refused(args, how, words, error, "n300")


CASES = {
    DISPATCH: [
        to_experts("n300"),
        to_experts("t3000", dim=2),
        to_experts("t3000", 1),
        to_experts("t3000", 0, 2),
        to_experts("t3000_1x8", 1),
        no((shared((4, 1, 8, 64), layout=ttnn.TILE_LAYOUT), IDS, MAP), {}, "Input tensor must be in row major layout"),
        no((X, shared((4, 1, 8, 2), U16, ttnn.TILE_LAYOUT), MAP), {}, "Indices tensor must be in row major layout"),
        no((shared((4, 1, 8, 64), ttnn.float32), IDS, MAP), {}, "must be bfloat16"),
        no((X, shared((4, 1, 8, 2), ttnn.int32), MAP), {}, "must be uint16"),
        no((X, shared((3, 1, 8, 2), U16), MAP), {}, "Mismatch at dimension 0 with shape 4 and 3"),
        no((X, IDS, MAP), dict(output_concat_dim=3), "must be 1 or 2, got 3"),
        no((X, IDS, MAP), dict(cluster_axis=0), "No neighbors found"),
        no((X, IDS, MAP), dict(cluster_axis=2), "Invalid cluster axis 2. Must be 0 or 1"),
        no((X, IDS, MAP), dict(num_links=3), "Requested link index 2"),
        no((X, IDS, MAP), dict(output_tensors=[X, IDS]), "does not ask", ttnn.NotEmulated),
        Refused(
            (T((4, 1, 8, 64), layout=RM), T((4, 1, 8, 2), U16, RM), T((1, 1, 4, 1), U16, RM)), {}, "fabric context"
        ),
    ],
    COMBINE: [
        back("n300", 1),
        back("t3000", 0),
        back("t3000", 1, 2),
        back("t3000_1x8", 1),
        no((Y, TOLD, MAP), {}, "Axis must be specified at the moment"),
        no((shared((1, 8, 8, 64)), TOLD, MAP), {}, "dim 0: 1 to be equal to expert mapping dim 2: 8"),
        no((Y, TOLD, MAP), dict(local_reduce=True), "equal to num devices: 2, got: 4"),
        no((Y, TOLD, MAP), dict(cluster_axis=0), "No neighbors found"),
        no((Y, TOLD, MAP), dict(cluster_axis=1, output_shard_dim=3), "must be 1 or 2, got 3"),
        no((shared((4, 3, 8, 64)), shared((1, 3, 8, 2), U16), MAP), dict(cluster_axis=1), "Batch 3 must be divisible"),
        no((Y, shared((1, 8, 8, 2), ttnn.int32), MAP), {}, "Metadata tensor must be uint16"),
        no((Y, TOLD, shared((1, 1, 9, 2), U16)), {}, "Number of experts 9 should be evenly divisible by devices: 2"),
    ],
    REMAP: [
        remap("n300"),
        remap("t3000", reduction_size=8),
        no((SCORES, MAP, TOLD), dict(reduction_size=7), r"batch \* seq \(64\) must be divisible by reduction_size"),
        no((SCORES, MAP, TOLD), dict(reduction_size=0), "must be positive, got 0"),
        no((shared((1, 8, 8, 4)), MAP, TOLD), {}, "number of experts.*, got 8 and 4"),
        no((SCORES, shared((1, 1, 8, 3), U16), TOLD), {}, "should be num_devices 2, got 3"),
        no((shared((1, 4, 8, 8)), MAP, TOLD), {}, "got 8 and 4, respectively"),
        no((SCORES, MAP, shared((1, 8, 8, 2), ttnn.int32)), {}, "Metadata tensor must be uint16"),
    ],
}
