"""minimal_matmul: a product in blocks of the caller's, with a bias, an activation or a gated unit in one program.

Source    ttnn 0.81.1: the recorded contract and vectors; refusals and sizes asked one by one
"""

from __future__ import annotations

import torch

from ... import numerics
from ...config import MinimalMatmulConfig, WormholeComputeKernelConfig, resolve
from ...dtypes import FLOATS, NAME, TILE_BYTES, DataType, Layout, bfloat16, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord, CoreRange
from ...launch import launch, on_device, output_memory
from ...memory import MemoryConfig
from ...numerics import fpu
from ...numerics.common import activated
from ...numerics.rounding import pack, truncate_fp32
from ...op import op
from ...oplog import describe
from ...shape import TILE, round_up
from ...tensor import Tensor, spec
from ...warning import check_fidelity
from ..core.buffers import buffers_end, check_room
from ..eltwise.fused import activation, fuse

NAMES = ("ttnn.experimental.minimal_matmul", "ttnn.experimental.minimal_matmul_split")
_DEFAULT = numerics.default_config("minimal_matmul")
#: Tiles of M, N and K in a block where no config is given.
_BLOCK = 8


def _check_config(c: MinimalMatmulConfig, fp32: bool, full_sync: bool, chip) -> None:
    """The refusals of a config, in the library's order."""

    def want(holds: bool, text: str) -> None:
        if not holds:
            raise DeviceRejects(text, f"it is {c}")

    grid = CoreCoord(*(c.compute_with_storage_grid_size or (0, 0)))
    want(min(c.M_block_size, c.K_block_size, c.N_block_size) > 0, "Block sizes must be > 0")
    want(min(c.subblock_h, c.subblock_w) > 0, "Subblock sizes must be > 0")
    for side, block, part in (("M", c.M_block_size, c.subblock_h), ("N", c.N_block_size, c.subblock_w)):
        what = "subblock_h" if side == "M" else "subblock_w"
        want(block % part == 0, f"{side}_block_size ({block}) must be divisible by {what} ({part})")
    want(grid.x >= 2 and grid.y >= 2, "compute_with_storage_grid_size must be >= 2x2")
    want(
        grid.x <= chip.grid[0] and grid.y <= chip.grid[1],
        "compute_with_storage_grid_size must be <= device grid size",
    )
    most = (4 if fp32 else 8) * (2 if full_sync else 1)
    want(c.subblock_h * c.subblock_w <= most, "subblock_h * subblock_w must be <= max_dest_volume")


def _in_turns(x: torch.Tensor, w: torch.Tensor, product, block_k: int, per_core: int, block_n: int) -> torch.Tensor:
    """The product of which every second block of a core's columns goes through K from the end."""
    tiles = -(-w.shape[-1] // TILE)
    odd = torch.arange(tiles) % per_core // block_n % 2 == 1
    if not odd.any() or x.shape[-1] <= block_k:
        return product(x, w)
    missing = -x.shape[-1] % block_k
    x, w = torch.nn.functional.pad(x, (0, missing)), torch.nn.functional.pad(w, (0, 0, 0, missing))
    forward = product(x, w)
    x, w = x.unflatten(-1, (-1, block_k)).flip(-2).flatten(-2), w.unflatten(-2, (-1, block_k)).flip(-3).flatten(-3, -2)
    backward = product(x, w)
    columns = odd.repeat_interleave(TILE)[: w.shape[-1]].to(x.device)
    return torch.where(columns, backward, forward)


def _product(
    name, input_tensor, weight_tensor, bias_tensor, fused_activation, config, memory_config, dtype,
    compute_kernel_config, fuse_swiglu, chunks=1,
):  # fmt: skip
    act = activation(fused_activation)
    parts = list(input_tensor) if isinstance(input_tensor, (list, tuple)) else [input_tensor]
    if isinstance(input_tensor, (list, tuple)) and len(parts) != 2:
        raise DeviceRejects(
            "minimal_matmul: list input must be exactly 2 tensors [prefix, suffix] for fused concat over K, got "
            f"{len(parts)}"
        )
    w, bias = on_device(weight_tensor), None if bias_tensor is None else on_device(bias_tensor)
    x = on_device(parts[0])
    if any(t.layout is not Layout.TILE for t in (*parts, w)):
        raise DeviceRejects("minimal_matmul requires TILE layout for activation and weight")
    if bias is not None and bias.layout is not Layout.TILE:
        raise DeviceRejects("minimal_matmul requires TILE layout for bias")
    if any(t.dtype not in FLOATS for t in (*parts, w)):
        raise DeviceRejects("minimal_matmul supports only BFLOAT16, BFLOAT8_B, BFLOAT4_B, and FLOAT32 for inputs")
    if bias is not None and bias.dtype not in FLOATS:
        raise DeviceRejects("minimal_matmul supports only BFLOAT16, BFLOAT8_B, and BFLOAT4_B for bias")
    if any(n != 1 for n in w.spec.shape[:-2]):
        raise DeviceRejects("minimal_matmul weight must have 1 in all dims < -2", f"it is {w.spec.shape}")
    k, n = x.spec.shape[-1], w.spec.shape[-1]
    if len(parts) == 2:
        _check_parts(*parts, w)
    elif k != w.spec.shape[-2]:
        raise DeviceRejects(f"minimal_matmul inner dimensions must match, got K={k} and K_w={w.spec.shape[-2]}")
    if fuse_swiglu and act is not None:
        raise DeviceRejects("minimal_matmul cannot combine fuse_swiglu with a unary fused_activation")
    if fuse_swiglu and n // chunks % (2 * TILE):
        raise DeviceRejects(
            f"minimal_matmul fuse_swiglu requires weight width N={n // chunks} to be a multiple of "
            f"2*TILE_WIDTH={2 * TILE}"
        )
    if bias is not None and any(d != 1 for d in bias.spec.shape[:-1]):
        raise DeviceRejects("minimal_matmul bias must be 1 in all dims except the last", f"it is {bias.spec.shape}")
    if bias is not None and bias.spec.shape[-1] != n:
        raise DeviceRejects(f"minimal_matmul bias last dimension must equal N ({n}), got {bias.spec.shape[-1]}")
    if dtype is not None and dtype not in FLOATS:
        raise NotEmulated(f"{name}: a result of {dtype.value} has no model in the emulator")
    device, chip = x.buffer.device, x.buffer.device.chip
    check_fidelity(compute_kernel_config, chip)
    how = resolve(compute_kernel_config, _DEFAULT)._replace(packer_l1_acc=True)
    fp32, full_sync = how.fp32_dest_acc_en, bool(compute_kernel_config and compute_kernel_config.dst_full_sync_en)
    if config is not None:
        _check_config(config, fp32, full_sync, chip)
        block_m, block_k, block_n = config.M_block_size, config.K_block_size, config.N_block_size
        grid = CoreCoord(*config.compute_with_storage_grid_size)
    else:
        block_m, block_k, block_n, grid = _BLOCK, _BLOCK, _BLOCK, CoreCoord(*chip.grid)
    tiles = -(-n // TILE)
    per_core = -(-tiles // grid.x)
    if fuse_swiglu:
        per_core = round_up(per_core, 2)
        if block_n % 2:
            raise DeviceRejects(
                f"minimal_matmul fuse_swiglu requires N_tiles ({tiles}), N_tiles_per_core ({per_core}) and "
                f"N_block_tiles ({block_n}) all even"
            )
    dtype, shape = dtype or x.dtype, list(x.spec.shape)
    shape[-1] = n // chunks // (2 if fuse_swiglu else 1)
    out = spec(shape, dtype, Layout.TILE, output_memory(x, memory_config))
    size = 2 * block_k * (block_m * TILE_BYTES[x.dtype] + block_n * TILE_BYTES[w.dtype])
    size += block_m * block_n * (1 if fuse_swiglu else 2) * TILE_BYTES[dtype]
    size += block_m * block_n * TILE_BYTES[float32 if fp32 else bfloat16]
    size += 0 if bias is None else block_n * TILE_BYTES[bias.dtype]
    where = CoreRange((0, 0), (grid.x - 1, grid.y - 1))
    hint = "smaller M_block_size, K_block_size or N_block_size"
    check_room(device, buffers_end(chip, size, where, hint), where, hint)
    within, made, w_dtype = fuse(act, chip), NAME[dtype], NAME[w.dtype]

    operands, biased = len(parts), bias is not None  # a trace keeps `compute`, and must keep no tensor with it

    def compute(*values):
        *xs, m = values[: operands + 1]
        c = values[-1] if biased else None
        if len(xs) == 2:
            xs = [torch.nn.functional.pad(v, (0, -v.shape[-1] % TILE)) for v in xs]
        ops, m = numerics.now(), m.reshape(m.shape[-2:])
        v = xs[0] if len(xs) == 1 else torch.cat(xs, -1)
        m = torch.nn.functional.pad(m, (0, 0, 0, v.shape[-1] - m.shape[-2]))

        def product(x, w):
            return ops.matmul(x, w, how, dtype="float32", block_w=block_k, w_dtype=w_dtype, sum_all=True)

        turns = not fp32 and numerics.mode() == "exact"  # `fast` sums in one go
        y = _in_turns(v, m, product, block_k * TILE, per_core, block_n) if turns else product(v, m)
        y = y if fuse_swiglu else truncate_fp32(y) if fp32 else y.to(torch.bfloat16)
        if c is not None:
            y = fpu.add(y, c.reshape(-1), fp32)
        if fuse_swiglu:
            gate, up = y.unflatten(-1, (-1, 2, TILE)).unbind(-2)
            y = (activated(gate, "silu").float() * up.float()).flatten(-2)
        elif within is not None:
            y = activated(y, within)
        ys = [pack(part, made).contiguous() for part in y.chunk(chunks, -1)]
        return ys if chunks > 1 else ys[0]

    inputs = (*parts, w) if bias is None else (*parts, w, bias)
    made_of = [out] * chunks if chunks > 1 else out
    return launch(
        name, inputs, made_of, compute, flops=2 * x.volume() // k * w.volume(),
        attrs={
            "math_fidelity": how.math_fidelity, "fp32_dest": how.fp32_dest_acc_en, "program": "minimal",
            "in0_block_w": block_k, "per_core": (-(-x.volume() // k // TILE // grid.y), per_core),
        },
    )  # fmt: skip


def _check_parts(prefix: Tensor, suffix: Tensor, w: Tensor) -> None:
    """Two operands that are one, side by side on K."""
    on_device(suffix)
    for d, (a, b) in enumerate(zip(prefix.spec.shape[:-1], suffix.spec.shape[:-1])):
        if a != b:
            raise DeviceRejects(
                f"minimal_matmul fused concat: inputs must differ only on the K (last) axis; dim {d} differs "
                f"(input={a}, second={b})"
            )
    first, second, whole = (s.padded_shape[d] for s, d in ((prefix.spec, -1), (suffix.spec, -1), (w.spec, -2)))
    if first + second != whole:
        raise DeviceRejects(
            f"minimal_matmul fused concat: prefix_padded_K({first}) + suffix_padded_K({second}) must equal "
            f"weight_padded_K({whole}) — use prepare_weight_for_concatenated_input to build the weight."
        )


@op(NAMES[0])
def minimal_matmul(
    input_tensor, weight_tensor: Tensor, *, bias_tensor: Tensor | None = None, fused_activation=None, config=None,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, fuse_swiglu: bool = False,
) -> Tensor:  # fmt: skip
    """activation(x @ w + bias), or silu(gate) * up where the columns of w are tiles of gate and up in turn.

    Shapes    x [..., M, K] or two such side by side on K, w [1..., K, N], bias [1..., N] -> [..., M, N], with
              `fuse_swiglu` [..., M, N / 2]
    Dtypes    bfloat16, float32, bfloat8_b and bfloat4_b in any mix; as x
    Layout    TILE
    Numerics  by default HiFi2 and an fp32 destination, which is read back with 11 bits; K in blocks of 8 tiles, each
              from zero and all added in L1; a bfloat16 destination: every second block of columns backwards
    Raises    sizes that do not match, a config that does not fit the grid, the destination or L1
    Source    recorded contract and vectors, op `ttnn.experimental.minimal_matmul`
    """
    _of_config(NAMES[0], config, fused_activation)
    return _product(
        NAMES[0], input_tensor, weight_tensor, bias_tensor, fused_activation, config, memory_config, dtype,
        compute_kernel_config, fuse_swiglu,
    )  # fmt: skip


@op(NAMES[1])
def minimal_matmul_split(
    input_tensor: Tensor, weight_tensor: Tensor, *, chunks: int = 3, dim: int = -1, bias_tensor: Tensor | None = None,
    fused_activation=None, config=None, memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, fuse_swiglu: bool = False,
) -> list[Tensor]:  # fmt: skip
    """`minimal_matmul`, its result in `chunks` equal parts along the last dim, as q, k and v are made.

    Shapes    x [..., M, K], w [1..., K, N] -> `chunks` of [..., M, N / chunks]
    Dtypes    as minimal_matmul
    Raises    what `minimal_matmul` raises; parts that are not whole tiles
    Source    ttnn 0.81.1: its documentation, and asked one by one
    """
    _of_config(NAMES[1], config, fused_activation)
    n = weight_tensor.spec.shape[-1]
    if chunks < 1:
        raise DeviceRejects(f"minimal_matmul_split requires chunks >= 1, got chunks={chunks}")
    if dim != -1:
        raise DeviceRejects(f"minimal_matmul_split currently only supports dim=-1, got dim={dim}")
    if n % chunks:
        raise DeviceRejects(f"Output width N={n} must be divisible by chunks={chunks}")
    if n // chunks % TILE:
        raise DeviceRejects(f"Each chunk size N/chunks={n // chunks} must be a multiple of TILE_WIDTH={TILE}")
    made = _product(
        NAMES[1], input_tensor, weight_tensor, bias_tensor, fused_activation, config, memory_config, dtype,
        compute_kernel_config, fuse_swiglu, chunks,
    )  # fmt: skip
    return made if chunks > 1 else [made]


def _of_config(name: str, config, act) -> None:
    """The binding's types: names of activations it does not take."""
    if (config is not None and not isinstance(config, MinimalMatmulConfig)) or isinstance(act, str):
        given = f"config = {describe(config)}, fused_activation = {describe(act)}"
        raise TypeError(f"{name}(): incompatible function arguments.\n  got    {given}")
