"""rms_norm and layer_norm.

Source    ttnn 0.81.1: recorded contract; refusals and L1 sizes asked one by one
"""

from __future__ import annotations

import torch

from ... import numerics
from ...config import (
    LayerNormDefaultProgramConfig,
    LayerNormShardedMultiCoreProgramConfig,
    WormholeComputeKernelConfig,
    resolve,
)
from ...device import MeshDevice
from ...dtypes import NAME, TILE_BYTES, Layout, bfloat8_b, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreRangeSet, num_cores_to_corerangeset
from ...launch import launch, on_device
from ...memory import BufferType, MemoryConfig, ShardOrientation, ShardSpec, extent
from ...numerics.rows import Slices
from ...op import op
from ...shape import TILE, round_up
from ...tensor import Tensor, spec
from ..core.sharding import BLOCK, HEIGHT, unspecified
from ..core.transfer import from_torch

FLOAT_INPUTS = (float32, bfloat16, bfloat8_b)


def check_dtype(x: Tensor) -> None:
    if x.dtype not in FLOAT_INPUTS:
        raise DeviceRejects(f"Input tensor must be FLOAT32, BFLOAT16, or BFLOAT8_B, got: {cpp(x.dtype)}")


@op("ttnn.rms_norm")
def rms_norm(
    input_tensor: Tensor, *, epsilon: float = 1e-12, weight: Tensor | None = None, bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None,
) -> Tensor:  # fmt: skip
    """x / sqrt(mean(x^2) + epsilon) * weight + bias over the last dim, x = input + residual.

    Shapes    weight and bias: TILE [..., width], or ROW_MAJOR [..., width / 32, 32]
    Dtypes    bfloat16, float32, bfloat8_b; the input's comes out
    Raises    row-major weights of a width that does not fit L1 (bfloat16: above 6,752)
    Source    recorded contract, op `ttnn.rms_norm`
    """
    if input_tensor.layout is not Layout.TILE:
        raise DeviceRejects("ttnn::rms_norm does not support ROW_MAJOR input tensors. Use TILE layout.")
    return _norm(
        "rms_norm", input_tensor, epsilon, weight, bias, residual_input_tensor, memory_config, program_config,
        compute_kernel_config,
    )  # fmt: skip


@op("ttnn.layer_norm")
def layer_norm(
    input_tensor: Tensor, *, epsilon: float = 1e-12, weight: Tensor | None = None, bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None, memory_config: MemoryConfig | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, recip_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last dim, x = input + residual; see rms_norm.

    Shapes    as rms_norm
    Dtypes    as rms_norm
    Differs   `recip_tensor` (`create_layer_norm_reciprocals`) is a table of what is divided by here
    Source    recorded contract, op `ttnn.layer_norm`; recip_tensor asked of ttnn 0.81.1
    """
    if recip_tensor is not None and on_device(recip_tensor).dtype is not float32:
        raise NotEmulated(f"ttnn.layer_norm: recip_tensor of {cpp(recip_tensor.dtype)} has no model in the emulator")
    return _norm(
        "layer_norm", input_tensor, epsilon, weight, bias, residual_input_tensor, memory_config, program_config,
        compute_kernel_config,
    )  # fmt: skip


@op("ttnn.create_layer_norm_reciprocals")
def create_layer_norm_reciprocals(device: MeshDevice, core_range_set: CoreRangeSet, width: int) -> Tensor:
    """1/1, 1/2, ... 1/width on every core: what a layer norm by Welford's way looks up.

    Shapes    -> [cores, width], a row on each core
    Dtypes    float32
    Source    ttnn 0.81.1: `ttnn/operations/normalization.py`
    """
    cores = core_range_set.num_cores()
    values = torch.tensor([1.0 / (i + 1) for i in range(width)], dtype=torch.float32).expand(cores, width)
    shard = ShardSpec(core_range_set, (1, width))
    return from_torch(
        values, dtype=float32, layout=Layout.ROW_MAJOR, device=device,
        memory_config=MemoryConfig(HEIGHT, BufferType.L1, shard),
    )  # fmt: skip


_ROWS = Slices((-2, None, None, -2), -2, search=True)


def _norm(function, x, epsilon, weight, bias, residual, memory_config, program_config, config) -> Tensor:
    name = f"ttnn.{function}"
    on_device(x)
    for t in (weight, bias, residual):
        if t is not None and (t.buffer is None or not t.buffer.alive):
            raise DeviceRejects("Device Operations expect device tensors as inputs")
    if unspecified(memory_config) and not x.is_sharded():
        raise DeviceRejects("bad optional access", "say the shard spec of memory_config")
    check_dtype(x)
    if x.layout is not Layout.TILE and x.spec.shape[-1] % TILE:
        raise DeviceRejects(f"ROW_MAJOR input requires W ({x.spec.shape[-1]}) to be a multiple of tile width (32)")
    if residual is not None:
        if residual.layout is not Layout.TILE:
            raise DeviceRejects(f"Residual tensor must have TILE layout, got: {cpp(residual.layout)}")
        if (residual.spec.shape, residual.spec.padded_shape) != (x.spec.shape, x.spec.padded_shape):
            raise DeviceRejects(
                f"Input and residual logical and padded shapes must match, got input: logical={x.spec.shape} "
                f"padded={x.spec.padded_shape} "
                f"vs residual: logical={residual.spec.shape} padded={residual.spec.padded_shape}"
            )
    if weight is not None and bias is not None and weight.layout is not bias.layout:
        raise DeviceRejects("Gamma and beta must have the same layout!")
    check_weight(x, weight, "gamma")
    check_weight(x, bias, "beta")
    c = resolve(config, numerics.default_config(function, NAME[x.dtype]))
    own = x.spec.memory_config
    if own.is_sharded():
        out = check_sharded(function, x, residual, memory_config, program_config, c)
        shard = own.shard_spec.shape
        cores, high = -(-x.spec.padded_shape[-1] // shard[1]), max(1, shard[0] // TILE)
    else:
        cores = high = 1
        if isinstance(program_config, LayerNormShardedMultiCoreProgramConfig):
            raise DeviceRejects("bad optional access", "the input is interleaved: it takes no sharded program config")
        check_l1(function, x, weight, bias, residual, c)
        out = memory_config or own
    dtype = NAME[x.dtype]

    def compute(v, w=None, b=None, r=None):
        w, b = (None if p is None else p.reshape(-1)[: v.shape[-1]] for p in (w, b))
        return getattr(numerics.now(), function)(v, w, b, epsilon, c, dtype, residual=r, cores=cores, high=high)

    return launch(
        name, (x, weight, bias, residual), spec(x.spec.shape, x.dtype, x.layout, out), compute, flops=6 * x.volume(),
        attrs={"math_fidelity": c.math_fidelity, "fp32_dest": c.fp32_dest_acc_en}, rows=_ROWS,
    )  # fmt: skip


def check_weight(x: Tensor, w: Tensor | None, name: str) -> None:
    """Refuses a weight ("gamma") or bias ("beta") that does not suit the width."""
    if w is None:
        return
    title = name.capitalize()
    if w.layout is Layout.TILE:
        if w.spec.padded_shape[-1] != x.spec.padded_shape[-1] or w.spec.shape[-1] < x.spec.shape[-1]:
            effect = "multiplied" if name == "gamma" else "offset"
            raise DeviceRejects(
                f"Input and {name} padded widths must match and {name} logical width must be >= input logical "
                "width (otherwise "
                f"valid input columns would be {effect} by {name} padding). Got input: logical[-1]={x.spec.shape[-1]} "
                f"padded[-1]={x.spec.padded_shape[-1]} vs {name}: logical[-1]={w.spec.shape[-1]} "
                f"padded[-1]={w.spec.padded_shape[-1]}"
            )
        if w.spec.padded_shape[-2] != TILE:
            raise DeviceRejects(f"{title} tensor height must equal tile height (32), got: {w.spec.padded_shape[-2]}")
        return
    volume, width = w.spec.padded_shape.volume(), w.spec.padded_shape[-1]
    if width != TILE or volume != x.spec.padded_shape[-1]:
        if name == "gamma":
            raise DeviceRejects(
                "Gamma's last padded dim needs to equal tile width and gamma's volume needs to align with last "
                "padded dim of "
                f"input. Error with gamma.value().padded_shape(): {w.spec.padded_shape}, tile_width: 32, "
                f"gamma.value().physical_volume(): {volume}, a.padded_shape(): {x.spec.padded_shape}",
                f"a ROW_MAJOR weight has the shape [1, 1, {x.spec.padded_shape[-1] // TILE}, 32]",
            )
        raise DeviceRejects(
            f"Beta tensor dimensions must align with input tensor. Got beta padded shape: {width}, physical "
            f"volume: {volume}, "
            f"input padded shape: {x.spec.padded_shape[-1]}, tile_width: 32"
        )
    if w.dtype not in (float32, bfloat16):
        raise DeviceRejects(f"{title} tensor must be FLOAT32 or BFLOAT16, got: {cpp(w.dtype)}")


def check_l1(function, x, weight, bias, residual, config) -> None:
    """Refuses a width whose rows do not fit L1 with row-major weights (with others the library takes smaller steps).

    Source    ttnn 0.81.1, 104 sizes asked: per tile of the width the input, one or two intermediates and the weights;
              plus two output blocks and constants
    """
    weights = [w for w in (weight, bias) if w is not None]
    if not weights or weights[0].layout is Layout.TILE:
        return
    rms, wide = function == "rms_norm", config.fp32_dest_acc_en
    block = 4 if wide else 8
    tiles = round_up(x.spec.padded_shape[-1] // TILE, block)
    own, between = TILE_BYTES[x.dtype], TILE_BYTES[float32 if wide else bfloat16]
    per_tile = own + between * (1 if rms else 2) + sum(TILE_BYTES[w.dtype] for w in weights)
    chip = x.buffer.device.chip
    end = chip.l1.base + tiles * per_tile + 2 * block * own
    end += (81_920 if wide else 61_440) if rms else (90_112 if wide else 65_536)
    if residual is not None:
        end += 4 * block * TILE_BYTES[residual.dtype] + (0 if rms else tiles * TILE_BYTES[residual.dtype])
    if end > chip.l1_end:
        rows = extent(x.spec.padded_shape)[0] // TILE
        cores = num_cores_to_corerangeset(min(rows, chip.cores), chip.grid, row_wise=True)
        raise DeviceRejects(
            f"Statically allocated dataflow buffers on core range {cores.ranges()[0]} grow to {end} B which is "
            "beyond max L1 size "
            f"of {chip.l1_end} B",
            "give the weight in TILE layout",
        )


def check_sharded(function, x: Tensor, residual, memory_config, c, config) -> MemoryConfig:
    """Where the norm of a sharded tensor goes; refuses what the sharded program does not do."""
    own = x.spec.memory_config
    shard = own.shard_spec
    if own.memory_layout is HEIGHT:
        raise DeviceRejects("Height sharded inputs are not supported.")
    if isinstance(c, LayerNormDefaultProgramConfig):
        raise DeviceRejects(
            "std::get: wrong index for variant", "a sharded input takes a LayerNormShardedMultiCoreProgramConfig"
        )
    if memory_config is not None:
        if not memory_config.is_sharded():
            raise DeviceRejects("Sharded inputs require sharded outputs.")
        if memory_config.memory_layout is not own.memory_layout:
            raise DeviceRejects(
                f"Input and output memory layouts must match, got input: {cpp(own.memory_layout)} vs output: "
                f"{cpp(memory_config.memory_layout)}"
            )
    if residual is not None and not residual.is_sharded():
        raise DeviceRejects("residual tensor b should be sharded if input a is sharded")
    if c is not None:
        if c.use_welford and function == "rms_norm":
            raise DeviceRejects("Welford's algorithm is not supported for RMSNorm")
        (gx, gy), (most_x, most_y) = c.compute_with_storage_grid_size, x.buffer.device.chip.grid
        if gx > most_x or gy > most_y:
            raise DeviceRejects(
                f"program_config grid ({gx}x{gy}) must be contained within device grid ({most_x}x{most_y})"
            )
        sx, sy = shard.grid.bounding_box().grid_size()
        if sx > gx or sy > gy:
            raise DeviceRejects(f"shard_spec.grid size {sx}x{sy} does not fit within program_config grid {gx}x{gy}")
        rows, columns = (n // TILE for n in extent(x.spec.padded_shape))
        high, wide = 1, shard.num_cores()
        if own.memory_layout is BLOCK:
            high, wide = (sy, sx) if shard.orientation is ShardOrientation.ROW_MAJOR else (sx, sy)
        if c.block_w != -(-columns // wide):
            raise DeviceRejects(f"block_w ({c.block_w}) must equal to K (in tiles) / num_cores ({-(-columns // wide)})")
        if c.block_h != -(-rows // high):
            raise DeviceRejects(
                f"block_h ({c.block_h}) must equal ceil(Mt / num_cores_r) ({-(-rows // high)}); Mt={rows}, "
                f"num_cores_r={high}"
            )
        if not c.subblock_w:
            raise DeviceRejects("subblock_w must be greater than 0.")
        if c.block_w % c.subblock_w:
            raise DeviceRejects("block_w must be divisible by subblock_w.")
        most = 4 if config.fp32_dest_acc_en else 8
        if c.subblock_w > most:
            mode = "4 tiles in fp32 mode" if most == 4 else "8 tiles"
            raise DeviceRejects(
                f"subblock_wt={c.subblock_w}, but subblock width must less than {mode} when dst_full_sync_en is false"
            )
    return own if memory_config is None or unspecified(memory_config) else memory_config
