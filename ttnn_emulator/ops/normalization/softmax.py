"""Softmax, with a scale and a mask."""

from __future__ import annotations

from ... import numerics
from ...config import (
    SoftmaxShardedMultiCoreProgramConfig,
    WormholeComputeKernelConfig,
    resolve,
)
from ...dtypes import NAME, Layout, float32
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device, update, view
from ...memory import MemoryConfig
from ...op import op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor
from ...warning import check_fidelity
from ..core.sharding import result, unspecified
from ..eltwise.elementwise import multiply
from .normalization import check_dtype


@op("ttnn.softmax")
def softmax(
    input_tensor: Tensor, dim: int = -1, *, memory_config: MemoryConfig | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """exp(x - max) / sum(exp(x - max)) over `dim`.

    Shapes    any; kept
    Dtypes    bfloat16, float32, bfloat8_b; the input's comes out
    Layout    TILE comes out
    Numerics  by default an approximate exponential and a float32 destination
    Source    recorded contract, op `ttnn.softmax`
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
    check_fidelity(config, x.buffer.device.chip)
    default = numerics.default_config("softmax", NAME[x.dtype])
    if x.dtype is float32:  # ttnn 0.81.1: EXP_APPROX 0 in the kernels that it builds for float32
        default = default._replace(math_approx_mode=False)
    c, dtype, wide = resolve(config, default), NAME[x.dtype], config is not None or x.dtype is float32

    def compute(v, mask=None):
        n = numerics.now()
        if mask is not None and tall > 1:
            mask = mask.repeat(*(1,) * (mask.dim() - 2), tall, 1)
        return n.softmax(v, dim, c, dtype, stable, scale, mask, wide)

    return compute, {"math_fidelity": c.math_fidelity}


@op("ttnn.softmax_in_place")
def softmax_in_place(
    input_tensor: Tensor, dim: int = -1, *, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = True,
) -> Tensor:  # fmt: skip
    """softmax over the last dim, written into the input; the result is a view of it.

    Shapes    any; kept
    Dtypes    bfloat16 (recorded)
    Source    recorded contract, op `ttnn.softmax_in_place`
    """
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
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    refuse_unmodelled("ttnn.scale_mask_softmax", is_causal_mask=is_causal_mask)
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
    """`scale_mask_softmax`, written into the input.

    Shapes    as scale_mask_softmax
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    refuse_unmodelled("ttnn.scale_mask_softmax_in_place", is_causal_mask=is_causal_mask)
    x = on_device(input_tensor)
    tall = check_mask(x, scale, mask)
    run, attrs = _softmax(x, -1, compute_kernel_config, numeric_stable, scale, tall)
    return _in_place("ttnn.scale_mask_softmax_in_place", x, mask, run, attrs)


@op("ttnn.scale_causal_mask_hw_dims_softmax_in_place")
def scale_causal_mask_hw_dims_softmax_in_place(
    input_tensor: Tensor, scale: float | None = None, mask: Tensor | None = None, *, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, numeric_stable: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(scale * x + mask) over the last dim of a sharded tensor, written into it.

    Shapes    x [B, h, S, T], mask [1, 1, S, T]; kept
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Source    recorded contract, op `ttnn.scale_causal_mask_hw_dims_softmax_in_place`
    """
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
    """softmax(x / sqrt(head_size) + mask) over the last dim.

    Shapes    x [B, h, S, T]; kept
    Dtypes    bfloat16, float32, bfloat8_b; kept (the library takes uint32 and int32 too)
    Source    ttnn 0.81.1: asked dtype by dtype
    """
    refuse_unmodelled("ttnn.transformer.attention_softmax", causal_mask=causal_mask)
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
    """`attention_softmax` with a mask, written into the input.

    Shapes    x [B, h, S, T]; kept
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Source    ttnn 0.81.1: the binding's arguments; not in the recorded contract
    """
    refuse_unmodelled("ttnn.transformer.attention_softmax_", causal_mask=causal_mask)
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
