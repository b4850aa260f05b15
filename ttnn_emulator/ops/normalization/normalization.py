"""rms_norm, layer_norm and softmax in its forms.

Source    ttnn 0.81.1: recorded contract; refusals and L1 sizes asked one by one
"""

from __future__ import annotations

from ... import numerics
from ...config import (
    LayerNormDefaultProgramConfig,
    LayerNormShardedMultiCoreProgramConfig,
    SoftmaxShardedMultiCoreProgramConfig,
    WormholeComputeKernelConfig,
    resolve,
)
from ...dtypes import NAME, TILE_BYTES, DataType, Layout, bfloat8_b, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import num_cores_to_corerangeset
from ...launch import launch, on_device, update, view
from ...memory import MemoryConfig, ShardOrientation
from ...numerics import rounding
from ...numerics.rows import Slices
from ...op import op
from ...shape import TILE, round_up
from ...tensor import Tensor, spec
from ..core.sharding import BLOCK, HEIGHT, plane, result, unspecified
from ..eltwise.elementwise import multiply

FLOAT_INPUTS = (float32, bfloat16, bfloat8_b)


def check_dtype(x: Tensor) -> None:
    if x.dtype not in FLOAT_INPUTS:
        raise DeviceRejects(f"Input tensor must be FLOAT32, BFLOAT16, or BFLOAT8_B, got: {cpp(x.dtype)}")


# ---------------------------------------------------------------- norms


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
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last dim, x = input + residual; see rms_norm."""
    return _norm(
        "layer_norm", input_tensor, epsilon, weight, bias, residual_input_tensor, memory_config, program_config,
        compute_kernel_config,
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
    else:
        if isinstance(program_config, LayerNormShardedMultiCoreProgramConfig):
            raise DeviceRejects("bad optional access", "the input is interleaved: it takes no sharded program config")
        check_l1(function, x, weight, bias, residual, c)
        out = memory_config or own
    dtype = NAME[x.dtype]

    def compute(v, w=None, b=None, r=None):
        w, b = (None if p is None else p.reshape(-1)[: v.shape[-1]] for p in (w, b))
        return getattr(numerics.now(), function)(v, w, b, epsilon, c, dtype, residual=r)

    return launch(
        name, (x, weight, bias, residual), spec(x.spec.shape, x.dtype, x.layout, out), compute, flops=6 * x.volume(),
        attrs={"math_fidelity": c.math_fidelity}, rows=_ROWS,
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
        rows = plane(x.spec.padded_shape)[0] // TILE
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
        rows, columns = (n // TILE for n in plane(x.spec.padded_shape))
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


# ---------------------------------------------------------------- softmax


@op("ttnn.softmax")
def softmax(
    input_tensor: Tensor, dim: int = -1, *, memory_config: MemoryConfig | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """exp(x - max) / sum(exp(x - max)) over `dim`.

    Dtypes    bfloat16, float32, bfloat8_b; the input's comes out
    Layout    TILE comes out
    Numerics  by default an approximate exponential and a float32 destination
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    if unspecified(memory_config):
        raise DeviceRejects("bad optional access", "say the shard spec of memory_config")
    check_dtype(x)
    if x.layout is not Layout.TILE and dim not in (-1, rank - 1):
        raise DeviceRejects("Inputs to softmax must be tilized")
    run, attrs = _softmax(x, dim, compute_kernel_config, numeric_stable)
    out = result(x.spec.shape, x.dtype, Layout.TILE, memory_config or x.spec.memory_config)
    return launch("ttnn.softmax", (x,), out, run, flops=5 * x.volume(), attrs=attrs)


def _softmax(x: Tensor, dim, config, stable, scale=None, tall=1):
    """(compute, attrs) of a softmax; with a mask its rows repeat `tall` times, one tile of rows after the other."""
    default = numerics.default_config("softmax", NAME[x.dtype])
    if x.dtype is float32:  # ttnn 0.81.1: EXP_APPROX 0 in the kernels that it builds for float32
        default = default._replace(math_approx_mode=False)
    c, dtype = resolve(config, default), NAME[x.dtype]

    def compute(v, mask=None):
        n = numerics.now()
        if mask is not None:
            v = v if scale is None else n.mul(v, scale, dtype, dtype)
            mask = mask.repeat(*(1,) * (mask.dim() - 2), tall, 1) if tall > 1 else mask
            v = n.add(v, mask.to(v.dtype), dtype, dtype, dtype)
        return n.softmax(v, dim, c, dtype, stable)

    return compute, {"math_fidelity": c.math_fidelity}


@op("ttnn.softmax_in_place")
def softmax_in_place(
    input_tensor: Tensor, dim: int = -1, *, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """softmax over the last dim, written into the input; the result is a view of it."""
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    if not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {dim})")
    if dim not in (-1, 3):
        raise DeviceRejects(f"Invalid dimension: {dim % rank}. Currently softmax inplace supports dim -1.")
    if rank != 4:
        raise DeviceRejects(f"Invalid dimension: {rank - 1}. Currently softmax inplace supports dim -1.")
    if x.layout is not Layout.TILE:
        raise DeviceRejects("Inputs to softmax must be tilized")
    check_dtype(x)
    return _in_place("ttnn.softmax_in_place", x, None, *_softmax(x, -1, compute_kernel_config, numeric_stable))


def _in_place(name, x, mask, run, attrs) -> Tensor:
    def write(target, v, *rest):
        target.copy_(run(v, *rest))

    update(name, x, (x,) if mask is None else (x, mask), write, flops=5 * x.volume(), attrs=attrs)
    return view(x, x.spec)


@op("ttnn.scale_mask_softmax")
def scale_mask_softmax(
    input_tensor: Tensor, scale: float | None = None, mask: Tensor | None = None, *,
    memory_config: MemoryConfig | None = None,
    is_causal_mask: bool = False, compute_kernel_config: WormholeComputeKernelConfig | None = None,
    numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """softmax(scale * x + mask) over the last dim.

    Shapes    x [B, n, S, W], mask [B, 1, 1 or 32, W]: 32 rows are used for every 32 rows of x
    """
    x = on_device(input_tensor)
    tall = check_mask(x, scale, mask)
    out = result(x.spec.shape, x.dtype, Layout.TILE, memory_config or x.spec.memory_config)
    run, attrs = _softmax(x, -1, compute_kernel_config, numeric_stable, scale, tall)
    return launch(
        "ttnn.scale_mask_softmax", (x,) if mask is None else (x, mask), out, run, flops=7 * x.volume(), attrs=attrs
    )


@op("ttnn.scale_mask_softmax_in_place")
def scale_mask_softmax_in_place(
    input_tensor: Tensor, scale: float | None = None, mask: Tensor | None = None, *, program_config=None,
    is_causal_mask: bool = False, compute_kernel_config: WormholeComputeKernelConfig | None = None,
    numeric_stable: bool = False,
) -> Tensor:  # fmt: skip
    """`scale_mask_softmax`, written into the input."""
    x = on_device(input_tensor)
    tall = check_mask(x, scale, mask)
    run, attrs = _softmax(x, -1, compute_kernel_config, numeric_stable, scale, tall)
    return _in_place("ttnn.scale_mask_softmax_in_place", x, mask, run, attrs)


@op("ttnn.scale_causal_mask_hw_dims_softmax_in_place")
def scale_causal_mask_hw_dims_softmax_in_place(
    input_tensor: Tensor, scale: float | None = None, mask: Tensor | None = None, *, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(scale * x + mask) over the last dim of a sharded tensor, written into it."""
    x = on_device(input_tensor)
    if mask is None:
        raise DeviceRejects(
            "Causal-mask softmax requires an attention mask (is_causal_mask=true with no mask is unsupported)."
        )
    if not isinstance(program_config, SoftmaxShardedMultiCoreProgramConfig):
        raise DeviceRejects("Scale causal mask HW dims softmax not supported in default program config")
    run, attrs = _softmax(x, -1, compute_kernel_config, numeric_stable, scale)
    return _in_place("ttnn.scale_causal_mask_hw_dims_softmax_in_place", x, mask, run, attrs)


def check_mask(x: Tensor, scale, mask) -> int:
    """Refuses operands of a masked softmax; how many times the mask's rows repeat."""
    if mask is None and scale is not None:
        raise DeviceRejects("Scale value must not be set when mask is not present")
    check_dtype(x)
    if mask is None:
        return 1
    on_device(mask)
    if mask.spec.shape[-1] != x.spec.shape[-1]:
        raise DeviceRejects(
            f"Input and mask inner dimensions must match, got input: {x.spec.shape[-1]} vs mask: {mask.spec.shape[-1]}"
        )
    if len(mask.spec.shape) != 4 or len(x.spec.shape) != 4:
        raise NotEmulated("a masked softmax of tensors that are not of rank 4 has no model in the emulator")
    if mask.spec.shape[0] != x.spec.shape[0]:
        raise DeviceRejects(
            f"Input and mask batch sizes must match, got input: {x.spec.shape[0]} vs mask: {mask.spec.shape[0]}"
        )
    if mask.spec.shape[1] != 1:
        raise DeviceRejects(
            f"Mask intermediate dimension 1 must be 1, got: {mask.spec.shape[1]}. This path requires head-uniform "
            "masks; apply a "
            "per-head bias with a separate ttnn::add before ttnn::softmax."
        )
    if mask.spec.shape[2] not in (1, TILE):
        raise DeviceRejects(
            f"Mask height must be 1 or input tensor tile height (32), got: {mask.spec.shape[2]}. A full causal mask "
            "is not accepted "
            "here; for causal attention use ttnn::transformer::scaled_dot_product_attention with is_causal=true."
        )
    if mask.spec.shape[2] == 1 or x.spec.shape[2] == TILE:
        return 1
    if x.spec.shape[2] % TILE:
        raise NotEmulated(f"a 32-row mask for {x.spec.shape[2]} rows has no model in the emulator")
    return x.spec.shape[2] // TILE


@op("ttnn.transformer.attention_softmax")
def attention_softmax(
    tensor: Tensor, *, head_size: int | None = None, attention_mask: Tensor | None = None, program_config=None,
    causal_mask: bool | None = False, memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """softmax(x / sqrt(head_size) + mask) over the last dim."""
    scale = None if head_size is None else head_size**-0.5
    if attention_mask is not None:
        return scale_mask_softmax(tensor, scale, attention_mask, memory_config=memory_config)

    x = tensor if scale is None else multiply(tensor, scale, memory_config=memory_config)
    return softmax(x, -1, memory_config=memory_config)


@op("ttnn.transformer.attention_softmax_")
def attention_softmax_(
    tensor: Tensor, *, head_size: int | None = None, attention_mask: Tensor | None = None, program_config=None,
    causal_mask: bool | None = False, memory_config: MemoryConfig | None = None,
) -> Tensor:  # fmt: skip
    """`attention_softmax` with a mask, written into the input."""
    if attention_mask is None:
        raise DeviceRejects(
            "Cannot apply divide by sqrt(head_size) using in-place version when attention_mask is not set."
        )
    if attention_mask.spec.shape[1] != 1:
        raise DeviceRejects(
            f"Non-sharded mask intermediate dimensions must be 1, got {attention_mask.spec.shape[1]} at dimension 1. "
            "This path requires head-uniform masks; "
            "apply a per-head bias with a separate ttnn::add before ttnn::softmax."
        )
    scale = None if head_size is None else head_size**-0.5
    return scale_mask_softmax_in_place(tensor, scale, attention_mask)


# ---------------------------------------------------------------- norms of a width that is spread over chips


def check_spread_input(name: str, x: Tensor, program_config) -> None:
    """Refuses sharded parts: without their program config the library does, with it there is no model."""
    if x.is_sharded():
        if not isinstance(program_config, LayerNormShardedMultiCoreProgramConfig):
            raise DeviceRejects("std::get: wrong index for variant")
        raise NotEmulated(f"{name} of sharded tensors has no model in the emulator")


def partial_norm(function: str, doc: str, sums: int):
    """The op `ttnn.<function>_pre_all_gather`: what a chip knows of the statistics, one tile column for each sum."""
    full = f"ttnn.{function}_pre_all_gather"

    @op(full)
    def call(
        input_tensor: Tensor, *, dtype: DataType | None = None, residual_input_tensor: Tensor | None = None,
        compute_kernel_config: WormholeComputeKernelConfig | None = None, program_config=None,
        memory_config: MemoryConfig | None = None, use_2d_core_grid: bool | None = None, recip_tensor=None,
        fast_and_approximate_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        x = on_device(input_tensor)
        if x.layout is not Layout.TILE:
            raise DeviceRejects("Only tilized inputs supported.")
        if x.dtype not in FLOAT_INPUTS:
            raise DeviceRejects("Input data format not supported.")
        c = resolve(compute_kernel_config, numerics.default_config(function, NAME[x.dtype]))
        if x.dtype is float32 and (compute_kernel_config is None or not c.fp32_dest_acc_en):
            raise DeviceRejects(
                f"{function}_pre_all_gather with Float32 input requires fp32_dest_acc_en=true in the compute kernel "
                "config; otherwise precision is silently lost in the unpacker format conversion."
            )
        if len(x.spec.shape) < 4:
            raise DeviceRejects(f"ShapeBase[] index out of range. 3 not in [-4, {len(x.spec.shape)})")
        check_spread_input(full, x, program_config)
        out = spec(
            (*x.spec.shape[:-1], sums * TILE), dtype or bfloat16, Layout.TILE, memory_config or x.spec.memory_config
        )
        made = NAME[out.dtype]

        def compute(v, r=None):
            v = v.float() if r is None else v.float() + r.float()
            stats = v.new_zeros(*v.shape[:-1], sums, TILE)
            stats[..., 0, 0] = v.square().sum(-1)
            if sums > 1:
                stats[..., 1, 0] = v.sum(-1)
            return rounding.pack(stats.flatten(-2), made)

        inputs = (x, residual_input_tensor)
        return launch(full, inputs, out, compute, flops=2 * sums * x.volume(), attrs={"math_fidelity": c.math_fidelity})

    call.__doc__ = doc
    return call


def gathered_norm(function: str, doc: str, sums: int):
    """The op `ttnn.<function>_post_all_gather`: the norm of a chip's part, from the statistics of all parts."""
    full = f"ttnn.{function}_post_all_gather"

    @op(full)
    def call(
        input_tensor: Tensor, stats: Tensor, *, epsilon: float = 1e-12, weight: Tensor | None = None,
        bias: Tensor | None = None, memory_config: MemoryConfig | None = None,
        compute_kernel_config: WormholeComputeKernelConfig | None = None, program_config=None,
        dtype: DataType | None = None, use_2d_core_grid: bool | None = None,
    ) -> Tensor:  # fmt: skip
        x = on_device(input_tensor)
        on_device(stats)
        if x.layout is not Layout.TILE:
            raise DeviceRejects(f"Input tensor must have TILE layout, got: {cpp(x.layout)}")
        check_dtype(x)
        c = resolve(compute_kernel_config, numerics.default_config(function, NAME[x.dtype]))
        if float32 in (x.dtype, stats.dtype) and (compute_kernel_config is None or not c.fp32_dest_acc_en):
            raise DeviceRejects("FLOAT32 input/stats require fp32_dest_acc_en=true in the compute kernel config.")
        if stats.spec.shape[-2] != x.spec.shape[-2]:
            raise DeviceRejects(
                f"Stats and input dim2 must match, got stats: {stats.spec.shape[-2]} vs input: {x.spec.shape[-2]}"
            )
        tiles = stats.spec.padded_shape[-1] // TILE
        if tiles % sums:
            raise DeviceRejects("Number of devices must divide number of stats tiles")
        for w, title in ((weight, "Gamma"), (bias, "Beta")):
            if w is None:
                continue
            on_device(w)
            volume, width = w.spec.padded_shape.volume(), w.spec.padded_shape[-1]
            if w.layout is not Layout.TILE and (width != TILE or volume != x.spec.padded_shape[-1]):
                raise DeviceRejects(
                    f"{title} tensor dimensions must align with input tensor. Got {title.lower()} padded shape: "
                    f"{width}, physical volume: {volume}, input padded shape: {x.spec.padded_shape[-1]}, tile_width: 32"
                )
        check_spread_input(full, x, program_config)
        out = spec(x.spec.shape, dtype or x.dtype, Layout.TILE, memory_config or x.spec.memory_config)
        made, n = NAME[out.dtype], x.spec.shape[-1] * tiles // sums

        def compute(v, s, w=None, b=None):
            v, s = v.float(), s.float()[..., ::TILE]
            mean = s[..., 1::2].sum(-1, keepdim=True) / n if sums > 1 else 0.0
            square = s[..., ::sums].sum(-1, keepdim=True) / n
            y = (v - mean) * (square - mean**2 + epsilon).rsqrt()
            w, b = (None if p is None else p.reshape(-1)[: v.shape[-1]].float() for p in (w, b))
            y = y if w is None else y * w
            return rounding.pack(y if b is None else y + b, made)

        inputs = (x, stats, weight, bias)
        return launch(full, inputs, out, compute, flops=4 * x.volume(), attrs={"math_fidelity": c.math_fidelity})

    call.__doc__ = doc
    return call


_DIFFERS = "\n\n    Differs   computed in float32 and rounded once; the device's steps have no recorded vectors"
rms_norm_pre_all_gather = partial_norm("rms_norm", f"sum(x^2) in column 0 of one tile column.{_DIFFERS}", 1)
layer_norm_pre_all_gather = partial_norm("layer_norm", f"sum(x^2) and sum(x) in columns 0 and 32.{_DIFFERS}", 2)
rms_norm_post_all_gather = gathered_norm("rms_norm", f"rms_norm of a part, from gathered sums.{_DIFFERS}", 1)
layer_norm_post_all_gather = gathered_norm("layer_norm", f"layer_norm of a part, from gathered sums.{_DIFFERS}", 2)
