"""Tokens on their way to experts on other chips, and back.

A mapping [1, 1, experts, chips] says which chip has which expert; on a chip its experts are numbered in the order of
the mapping. A chip's tokens go to the chips of its group (of the mesh, or along a cluster axis) that have one of their
experts. Rows that no token fills are zeros here; on the device they hold what was in memory.
"""

from __future__ import annotations

import torch

from ...dtypes import Layout, bfloat16, uint16
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device, output_memory, unmodelled
from ...memory import MemoryConfig
from ...op import op
from ...tensor import Tensor, spec
from ...warning import NO_LINKS, warn
from .groups import check_links, fabric_of, groups, keep_semaphores, unsigned_axis, ways_of


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _neighbours(device, axis: int | None, num_links: int | None) -> int:
    """The chips of a group, or the refusal of an axis without any."""
    _want(axis is None or axis < len(device.shape), f"Invalid cluster axis {axis}. Must be 0 or 1")
    ways = ways_of(device, axis)
    if ways == 1 and num_links is None:
        warn(NO_LINKS)
    _want(ways > 1, "No neighbors found", "there is one chip along this axis")
    check_links(device, axis, num_links)
    return ways


def _check_tokens(x: Tensor, ids: Tensor, what: str) -> None:
    """Refuses tokens, and what says of each which experts it is for, of another layout or dtype."""
    _want(x.layout is Layout.ROW_MAJOR, "Input tensor must be in row major layout")
    _want(ids.layout is Layout.ROW_MAJOR, f"{what} tensor must be in row major layout")
    _want(x.dtype is bfloat16, "Input tensor must be bfloat16")
    _want(ids.dtype is uint16, f"{what} tensor must be uint16")


def _homes(mapping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every expert the chip that has it, and its number there."""
    held = mapping[0, 0] != 0  # [experts, chips]
    chip = held.to(torch.int64).argmax(-1)
    return chip, (held.to(torch.int64).cumsum(0) - 1).gather(1, chip[:, None])[:, 0]


@op("ttnn.all_to_all_dispatch")
def all_to_all_dispatch(
    input_tensor: Tensor, expert_indices_tensor: Tensor, expert_mapping_tensor: Tensor, *,
    cluster_axis: int | None = None, output_tensors=None, num_links: int | None = None, topology=None,
    memory_config: MemoryConfig | None = None, subdevice_id=None, output_concat_dim: int | None = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Every chip gets the tokens of its group that one of its experts is for, and the experts of all of them.

    Shapes    tokens [B, 1, S, H], experts [B, 1, S, K], mapping [1, 1, experts, chips] -> ([1, B * chips, S, H],
              [1, B * chips, S, K]), or with `output_concat_dim` 2 [1, B, S * chips, ...]
    Dtypes    tokens bfloat16, experts uint16
    Layout    ROW_MAJOR
    Raises    no fabric, an axis without neighbours, shapes that differ
    Differs   tokens along dim 1, which the library leaves out of its result's shape, give a result without contents
    Source    recorded contract, op `ttnn.all_to_all_dispatch`; refusals and semaphores asked of ttnn 0.81.1
    """
    name = "ttnn.all_to_all_dispatch"
    unsigned_axis(name, cluster_axis)
    x, ids, mapping = on_device(input_tensor), on_device(expert_indices_tensor), on_device(expert_mapping_tensor)
    _check_tokens(x, ids, "Indices")
    _want(
        len(x.spec.shape) == len(ids.spec.shape) == 4,
        "Input and indices tensor must have the same number of dimensions",
    )
    for d, (a, b) in enumerate(zip(x.spec.shape[:-1], ids.spec.shape[:-1])):
        _want(
            a == b,
            "Input and indices tensor must have the same shape for all dimensions except the last. Mismatch at "
            f"dimension {d} with shape {a} and {b}",
        )
    _want(
        output_concat_dim in (1, 2),
        f"Output concat dimension must be 1 or 2, got {output_concat_dim}. Output concat dimension is used to "
        "determine the dimension to concat the output tokens along.",
    )
    device = fabric_of(x)
    ways = _neighbours(device, cluster_axis, num_links)
    batch, lost, rows = x.spec.shape[:3]
    shape = [1, batch, rows]
    shape[output_concat_dim] *= ways
    memory = output_memory(x, memory_config)
    made = [spec((*shape, t.spec.shape[-1]), t.dtype, Layout.ROW_MAJOR, memory) for t in (x, ids)]
    if lost != 1:
        return tuple(unmodelled((x, ids, mapping), made))
    if output_tensors is not None and [t.spec for t in output_tensors] != made:
        raise NotEmulated(f"{name}: the library does not ask whether its output tensors are {made[0]} and {made[1]}")
    members = groups(tuple(device.shape), cluster_axis)

    def together(values):
        return torch.cat([v.transpose(0, 1) for v in values], output_concat_dim)

    def dispatch(tokens, experts, mappings):
        home, _ = _homes(mappings[0])
        sent, told = [None] * device.chips, [None] * device.chips
        for group in members:
            every = together([tokens[chip] for chip in group])
            chosen = together([experts[chip] for chip in group])
            for chip in group:
                mine = (home[chosen.to(torch.int64)] == chip).any(-1, keepdim=True)
                sent[chip], told[chip] = torch.where(mine, every, torch.zeros_like(every)), chosen
        return sent, told

    out = launch(name, (x, ids, mapping), made, dispatch, collective=True, into=output_tensors)
    keep_semaphores(device, name, cluster_axis, x.spec, made[0])
    return tuple(out)


@op("ttnn.all_to_all_combine")
def all_to_all_combine(
    input_tensor: Tensor, expert_metadata_tensor: Tensor, expert_mapping_tensor: Tensor, *, local_reduce: bool = False,
    output_shard_dim: int | None = 1, cluster_axis: int | None = None, subdevice_id=None,
    memory_config: MemoryConfig | None = None, output_tensor: Tensor | None = None, num_links: int | None = None,
    topology=None,
) -> Tensor:  # fmt: skip
    """What the experts made of the tokens, back on the chips that the tokens came from: one slice per choice.

    Shapes    made by experts [experts of a chip, B, S, H], metadata [1, B, S, K], mapping [1, 1, experts, chips] ->
              [K, B / chips, S, H], or with `output_shard_dim` 2 [K, B, S / chips, H]
    Dtypes    bfloat16, metadata and mapping uint16
    Layout    ROW_MAJOR
    Raises    no fabric, no axis or one without neighbours, sizes that do not fit
    Differs   with `local_reduce` the result has no contents
    Source    recorded contract, op `ttnn.all_to_all_combine`; refusals and semaphores asked of ttnn 0.81.1
    """
    name = "ttnn.all_to_all_combine"
    unsigned_axis(name, cluster_axis)
    x, told, mapping = on_device(input_tensor), on_device(expert_metadata_tensor), on_device(expert_mapping_tensor)
    _check_tokens(x, told, "Metadata")
    _want(mapping.dtype is uint16, "Indices tensor must be uint32", "the library means the mapping, and uint16")
    device, experts = fabric_of(x), mapping.spec.shape[-2]
    chips, first = device.chips, x.spec.shape[0]
    _want(experts % chips == 0, f"Number of experts {experts} should be evenly divisible by devices: {chips}")
    if local_reduce:
        _want(first == 1, f"Expecting input dim 0 equal to num devices: {chips}, got: {first}")
    else:
        _want(
            first == experts // chips,
            f"Expected input shape dim 0: {first} to be equal to expert mapping dim 2: {experts}",
            f"a chip has {experts // chips} of the {experts}",
        )
    _want(
        output_shard_dim in (1, 2),
        f"Output shard dimension must be 1 or 2, got {output_shard_dim}. Output shard dimension is used to determine "
        "the dimension to shard the output tokens along.",
    )
    _want(cluster_axis is not None, "Axis must be specified at the moment")
    _, batch, rows, choices = told.spec.shape
    ways = ways_of(device, cluster_axis) if cluster_axis < len(device.shape) else 1
    size, what = (batch, "Batch") if output_shard_dim == 1 else (rows, "Sequence length")
    _want(size % ways == 0, f"{what} {size} must be divisible by axis group", f"there are {ways} chips in one")
    _neighbours(device, cluster_axis, num_links)
    shape = [choices, batch, rows, x.spec.shape[-1]]
    shape[output_shard_dim] //= ways
    made = spec(shape, x.dtype, Layout.ROW_MAJOR, output_memory(x, memory_config))
    if output_tensor is not None and output_tensor.spec != made:
        raise DeviceRejects(
            f"Optional sparse output token tensor spec {output_tensor.spec} does not match computed output spec {made}"
        )
    inputs = (x, told, mapping)
    if local_reduce or x.spec.shape[1:3] != told.spec.shape[1:3]:
        return unmodelled(inputs, made)
    members = groups(tuple(device.shape), cluster_axis)

    def combine(values, metadata, mappings):
        home, number = _homes(mappings[0])
        out = [None] * device.chips
        for group in members:
            for chip, chosen in zip(group, torch.chunk(metadata[group[0]].to(torch.int64), ways, output_shard_dim)):
                out[chip] = values[0].new_zeros(shape)
                for k in range(choices):
                    for other in group:
                        mine = home[chosen[0, ..., k]] == other
                        parts = torch.chunk(values[other], ways, output_shard_dim)[group.index(chip)]
                        where = number[chosen[0, ..., k]] * mine
                        b, s = torch.meshgrid(*(torch.arange(n, device=mine.device) for n in mine.shape), indexing="ij")
                        out[chip][k] = torch.where(mine[..., None], parts[where, b, s], out[chip][k])
        return out

    result = launch(name, inputs, made, combine, collective=True, into=output_tensor)
    keep_semaphores(device, name, cluster_axis, x.spec, made)
    return result


@op("ttnn.moe_expert_token_remap")
def moe_expert_token_remap(
    topk_tensor: Tensor, expert_mapping_tensor: Tensor, expert_metadata_tensor: Tensor, *,
    memory_config: MemoryConfig | None = None, optional_output_mapping_tensor: Tensor | None = None,
    optional_output_reduced_tensor: Tensor | None = None, reduction_size: int = 16,
) -> list[Tensor]:  # fmt: skip
    """[the scores of a chip's experts for the tokens that chose them, which of its experts a group of tokens chose].

    Shapes    scores [1, B, S, experts], mapping [1, 1, experts, chips], metadata [1, B, S, K] ->
              [1, B, S, experts of a chip] and [1, 1, B * S / reduction_size, experts of a chip]
    Dtypes    scores as they are, mapping and metadata uint16; the second result uint16
    Layout    ROW_MAJOR
    Raises    sizes that do not fit
    Source    recorded contract, op `ttnn.moe_expert_token_remap`; refusals asked of ttnn 0.81.1, its documentation
    """
    name = "ttnn.moe_expert_token_remap"
    x, mapping, told = on_device(topk_tensor), on_device(expert_mapping_tensor), on_device(expert_metadata_tensor)
    _want(x.layout is Layout.ROW_MAJOR, "topk tensor must be in row major layout")
    _want(told.layout is Layout.ROW_MAJOR, "Metadata tensor must be in row major layout")
    _want(told.dtype is uint16, "Metadata tensor must be uint16")
    _want(mapping.dtype is uint16, "Mapping tensor must be uint16")
    device, (experts, chips) = x.buffer.device, mapping.spec.shape[-2:]
    _want(chips == device.chips, f"Last mapping_tensor dim should be num_devices {device.chips}, got {chips}")
    _want(
        experts == x.spec.shape[-1],
        f"Expected mapping shape dim 2 to be equal to topk dim 3 (number of experts), got {experts} and "
        f"{x.spec.shape[-1]} respectively",
    )
    _, batch, rows, _ = told.spec.shape
    _want(
        batch == x.spec.shape[1],
        f"Expected metadata dim 1 to be equal to topk dim 1 (batch size), got {batch} and {x.spec.shape[1]}, "
        "respectively",
    )
    _want(reduction_size > 0, f"reduction_size must be positive, got {reduction_size}")
    _want(
        batch * rows % reduction_size == 0,
        f"batch * seq ({batch * rows}) must be divisible by reduction_size ({reduction_size}); the writer emits one "
        "reduced page every reduction_size metadata pages and does not flush a partial trailing group",
    )
    each, memory = experts // chips, output_memory(x, memory_config)
    made = [
        spec((1, batch, rows, each), x.dtype, Layout.ROW_MAJOR, memory),
        spec((1, 1, batch * rows // reduction_size, each), uint16, Layout.ROW_MAJOR, memory),
    ]
    given = [optional_output_mapping_tensor, optional_output_reduced_tensor]
    if any(t is not None for t in given):
        if [t and t.spec for t in given] != made:
            raise NotEmulated(f"{name}: output tensors other than {made[0]} and {made[1]}")
    else:
        given = None
    if experts % chips or x.spec.shape[2] != rows:
        return unmodelled((x, mapping, told), made)

    def remap(scores, mappings, metadata):
        mapped, reduced = [], []
        for chip in range(device.chips):
            own = (mappings[chip][0, 0, :, chip] != 0).nonzero().flatten()[:each]
            chose = (metadata[chip].to(torch.int64)[..., None] == own).any(-2)  # [1, B, S, each]
            mapped.append(torch.where(chose, scores[chip][..., own], 0).to(scores[chip].dtype))
            reduced.append(chose.reshape(1, 1, -1, reduction_size, each).any(-2).to(torch.int32))
        return mapped, reduced

    return launch(name, (x, mapping, told), made, remap, collective=True, into=given)
