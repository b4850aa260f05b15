"""Drawing tokens on the device: sampling, and the seeds that it draws by."""

from __future__ import annotations

import torch

from ...device import MeshDevice
from ...dtypes import Layout, bfloat16, cpp, int32, uint32
from ...errors import DeviceRejects
from ...grid import num_cores_to_corerangeset
from ...launch import allocate, launch, on_device, run_into
from ...op import op
from ...shape import TILE, round_up
from ...tensor import PlacementReplicate, Tensor, TensorTopology, spec
from ...torch_device import chosen
from ...warning import SEEDS_ALONE, warn
from ..core.buffers import buffers_end, check_room

USERS = 32  # one core draws for one user


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _buffer_bytes(users: int, width: int, cores: int, alignment: int) -> int:
    """What a draw takes of a core's L1: the buffers of all `cores` of the first range lie in each of them.

    Source    ttnn 0.81.1, the refusals of 8,192 to 32,768 values for 1 to 32 users, on Wormhole and Blackhole
    """
    of_a_core = round_up(4 * users, alignment) + round_up(2 * users, alignment) + 128
    return width // TILE * 8192 + 23 * 2048 + cores * of_a_core + 2 * users


@op("ttnn.sampling")
def sampling(
    input_values_tensor: Tensor, input_indices_tensor: Tensor, k: Tensor, p: Tensor, temp: Tensor, *,
    seed: int | None = None, sub_core_grids=None, output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A token for each user: top-k, then top-p, then a draw, from values * temp (temp is 1 / temperature).

    Without a seed the draw goes on from what `ttnn.manual_seed` last set for the user.

    Shapes    values and indices [1, 1, users, W], k, p and temp [users] -> [1, 1, 1, users]; up to 32 users, W a power
              of two times 32
    Dtypes    values, p and temp bfloat16; indices and k uint32 or int32; uint32 comes out
    Layout    values TILE, all the others ROW_MAJOR
    Raises    shapes, dtypes and layouts other than these; 8,192 values and more, which L1 does not hold
    Differs   the draw is torch's for the same seed, not the device's; with k = 1 there is none
    Source    recorded contract, op `ttnn.sampling`; refusals asked one by one
    """
    v, ids = on_device(input_values_tensor), on_device(input_indices_tensor)
    for t in (k, p, temp):
        on_device(t)
    if seed is not None and seed < 0:
        raise TypeError(
            f"ttnn.sampling(): incompatible function arguments.\n  got    seed = {seed}\n  want   0 or more"
        )
    shape = tuple(v.spec.shape)
    _want(len(shape) > 2, f"ShapeBase[] index out of range. 2 not in [-4, {len(shape)})")
    _want(not v.is_sharded(), "Only INTERLEAVED memory layout is supported for inputs!")
    _want(v.dtype is bfloat16, "Only BFLOAT16 is supported for inputs!", f"they are {cpp(v.dtype)}")
    _want(v.layout is Layout.TILE, "Only TILE_LAYOUT is supported for inputs!")
    _want(ids.dtype in (uint32, int32), "Only UINT32 & INT32 dtypes are supported for input indices!")
    _want(ids.layout is Layout.ROW_MAJOR, "Only ROW_MAJOR is supported for input indices!")
    _want(v.spec.shape == ids.spec.shape, "Input values and indices must have the same shape!")
    _want(len(shape) == 4, f"Sampling input_values must be rank-4; got rank {len(shape)}")
    _want(shape[:2] == (1, 1), f"Sampling requires input dims 0 and 1 (N, C) to be 1; got {list(shape)}!")
    users, width = shape[2:]
    _want(1 <= users <= USERS, f"Sampling currently supports between 1 and 32 users (one core per user); got {users}!")
    _want(
        width and width % TILE == 0, f"Input inner dim ({width}) must be non-zero and divisible by 32, pad if needed!"
    )
    tiles = width // TILE
    _want(
        tiles & (tiles - 1) == 0,
        f"Input inner dim ({width}) must yield a power-of-2 number of tiles (Wt = W/32 = {tiles}); pad W up to the "
        "next power-of-2 multiple of 32 (e.g. with -inf values and dummy indices) if needed!",
    )
    if sub_core_grids is not None:
        cores = sub_core_grids.num_cores()
        _want(cores >= users, f"Subcore grid must supply at least num_users ({users}) cores, but found {cores}!")
    if output_tensor is not None:
        made, got = (1, 1, 1, users), tuple(on_device(output_tensor).spec.shape)
        _want(output_tensor.dtype in (uint32, int32), "Only UINT32 & INT32 dtypes are supported for outputs!")
        _want(len(got) == 4, f"Sampling preallocated output must be rank-4, got rank {len(got)}")
        _want(
            got == made,
            f"Sampling preallocated output logical shape must be [1,1,1,{users}] (input dim 2), got "
            f"[{','.join(map(str, got))}]",
        )
    _want(k.dtype in (uint32, int32), "Only UINT32 & INT32 dtypes are supported for k!")
    for name, t in (("p", p), ("temp", temp)):
        _want(t.dtype is bfloat16, f"Only BFLOAT16 dtypes are supported for {name}!")
    for name, t in (("k", k), ("p", p), ("temp", temp)):
        _want(t.layout is Layout.ROW_MAJOR, f"Only ROW_MAJOR layout is supported for {name}!")
        _want(tuple(t.spec.shape) == (users,), f"{name} must have shape [{users}] (one per user)!")
    device, hint = v.buffer.device, "take the top-k of parts first"
    where = (sub_core_grids or num_cores_to_corerangeset(users, device.chip.grid, row_wise=True)).ranges()[0]
    size = _buffer_bytes(users, width, where.size, device.chip.dram.page_alignment)
    check_room(device, buffers_end(device.chip, size, where, hint), where, hint)
    out = spec((1, 1, 1, users), uint32, Layout.ROW_MAJOR, v.spec.memory_config)

    def compute(values, indices, most, mass, inverse):
        once = None if seed is None else torch.Generator().manual_seed(seed)
        logits = values[0, 0].float() * inverse.float()[:, None]
        chosen = []
        for user, row in enumerate(logits):
            at = torch.argsort(row, descending=True, stable=True)[: int(most[user]) or row.numel()]
            weights = torch.softmax(row[at], 0)
            keep = weights.cumsum(0) - weights < float(mass[user])
            keep[0] = True
            generator = once or device.generators.get(user)
            drawn = at[0] if len(at) == 1 else at[torch.multinomial(weights * keep, 1, generator=generator)[0]]
            chosen.append(indices[0, 0, user, drawn])
        return torch.stack(chosen).reshape(1, 1, 1, users).to(torch.int64)

    return launch("ttnn.sampling", (v, ids, k, p, temp), out, compute, flops=5 * v.volume(), into=output_tensor)


#: What comes back from setting a seed, of no meaning.
_MADE = spec((1,), uint32, Layout.ROW_MAJOR)


@op("ttnn.manual_seed")
def manual_seed(seeds=0, *, device: MeshDevice | None = None, user_ids=None, sub_core_grids=None) -> Tensor:
    """Sets what `ttnn.sampling` draws by: one seed for all users or some of them, or a tensor of seeds, one a user.

    Shapes    seeds and user_ids [...] of as many elements; [1] comes out, of no meaning
    Dtypes    uint32
    Layout    ROW_MAJOR
    Differs   the generators are torch's; a tensor of seeds without user_ids is one a user here, where
              ttnn 0.81.1 warns and takes one for all
    Source    recorded contract, op `ttnn.manual_seed`; refusals asked one by one
    """
    for name, given in (("seeds", seeds), ("user_ids", user_ids)):
        number = isinstance(given, int) and given >= 0
        if not (isinstance(given, Tensor) or number or (name == "user_ids" and given is None)):
            raise TypeError(f"ttnn.manual_seed(): incompatible function arguments.\n  got    {name} = {given!r}")
    if isinstance(seeds, Tensor):
        return _seeded(on_device(seeds), user_ids)
    _want(device is not None, "Device must be provided when seeds is a uint32_t value.")
    if isinstance(user_ids, Tensor):
        return _seeded(None, user_ids, seeds)
    _want(user_ids is None or user_ids < USERS, "User IDs scalar must be in the range [0, 31].", f"it is {user_ids}")

    def compute():
        for user in range(USERS) if user_ids is None else [user_ids]:
            device.generators[user] = torch.Generator().manual_seed(seeds)
        return torch.zeros(1, dtype=torch.int64, device=chosen())

    whole = [PlacementReplicate()] * len(device.shape)
    out = allocate(_MADE, device, TensorTopology(device.shape, whole))
    run_into((), out, compute)
    return out


def _seeded(seeds: Tensor | None, users, seed: int | None = None) -> Tensor:
    """Seeds from a tensor, or one seed for the users that a tensor names."""
    if seeds is not None:
        _want(seeds.dtype is uint32, "Seeds tensor must be of type UINT32.")
        _want(seeds.layout is Layout.ROW_MAJOR, "Seeds tensor must have ROW_MAJOR layout.")
        _want(
            users is None or isinstance(users, Tensor),
            "Seeds were provided as a tensor, so user_ids must not be provided as a scalar.",
        )
    if users is not None:
        _want(on_device(users).dtype is uint32, "User IDs tensor must be of type UINT32.")
        _want(
            seeds is None or seeds.volume() == users.volume(),
            "Seeds tensor and User IDs tensor must have the same number of elements. Got seeds volume: "
            f"{0 if seeds is None else seeds.volume()} and user_ids volume: {users.volume()}",
        )
    if users is None:
        warn(SEEDS_ALONE, "Metal")
    device = (users if seeds is None else seeds).buffer.device

    def compute(values, ids):
        n = (values if ids is None else ids).numel()
        values = [seed] * n if values is None else values.flatten().tolist()
        for user, value in zip(range(n) if ids is None else ids.flatten().tolist(), values):
            device.generators[user] = torch.Generator().manual_seed(value)
        return torch.zeros(1, dtype=torch.int64, device=chosen())

    return launch("ttnn.manual_seed", (seeds, users), _MADE, compute)
