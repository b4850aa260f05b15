"""Norms of a width that is spread over chips."""

from __future__ import annotations

from ... import numerics
from ...config import (
    LayerNormShardedMultiCoreProgramConfig,
    WormholeComputeKernelConfig,
    resolve,
)
from ...dtypes import NAME, DataType, Layout, bfloat16, cpp, float32
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device
from ...memory import MemoryConfig
from ...op import described, op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor, spec
from .normalization import FLOAT_INPUTS, check_dtype


def _facts(config) -> dict:
    return {"math_fidelity": config.math_fidelity, "fp32_dest": config.fp32_dest_acc_en}


def check_spread_input(name: str, x: Tensor, program_config) -> None:
    """Refuses sharded parts: without their program config the library does, with it there is no model."""
    if x.is_sharded():
        if not isinstance(program_config, LayerNormShardedMultiCoreProgramConfig):
            raise DeviceRejects("std::get: wrong index for variant")
        raise NotEmulated(f"{name} of sharded tensors has no model in the emulator")


STEPS = "default HiFi4, bf16 destination and the 10-bit rsqrt, also for layer_norm"


def partial_norm(function: str, doc: str, sums: int):
    """The op `ttnn.<function>_pre_all_gather`: what a chip knows of the statistics, one tile column for each sum."""
    full = f"ttnn.{function}_pre_all_gather"

    @op(full, lacks=("recip_tensor",) if function == "rms_norm" else ("use_2d_core_grid",))
    def call(
        input_tensor: Tensor, *, dtype: DataType | None = None, residual_input_tensor: Tensor | None = None,
        compute_kernel_config: WormholeComputeKernelConfig | None = None, program_config=None,
        memory_config: MemoryConfig | None = None, use_2d_core_grid: bool | None = None, recip_tensor=None,
        fast_and_approximate_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        refuse_unmodelled(full, recip_tensor=recip_tensor, fast_and_approximate_mode=fast_and_approximate_mode)
        x = on_device(input_tensor)
        if x.layout is not Layout.TILE:
            raise DeviceRejects("Only tilized inputs supported.")
        if x.dtype not in FLOAT_INPUTS:
            raise DeviceRejects("Input data format not supported.")
        c = resolve(compute_kernel_config, numerics.default_config("rms_norm"))
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
            return numerics.now().norm_sums(v, sums, c, made, residual=r)

        inputs = (x, residual_input_tensor)
        return launch(full, inputs, out, compute, flops=2 * sums * x.volume(), attrs=_facts(c))

    call.__doc__ = described(
        doc, Shapes="[..., S, W] -> [..., S, 32] for each sum",
        Dtypes="bfloat16, bfloat8_b, float32 with an fp32 destination; bfloat16 by default", Layout="TILE",
        Numerics=STEPS, Source="recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


def gathered_norm(function: str, doc: str, sums: int):
    """The op `ttnn.<function>_post_all_gather`: the norm of a chip's part, from the statistics of all parts."""
    full = f"ttnn.{function}_post_all_gather"

    @op(full, lacks=() if function == "rms_norm" else ("use_2d_core_grid",))
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
        c = resolve(compute_kernel_config, numerics.default_config("rms_norm"))
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
        made = NAME[out.dtype]

        def compute(v, s, w=None, b=None):
            w, b = (None if p is None else p.reshape(-1)[: v.shape[-1]] for p in (w, b))
            return numerics.now().norm_from_sums(v, s, w, b, epsilon, sums, c, made)

        inputs = (x, stats, weight, bias)
        return launch(full, inputs, out, compute, flops=4 * x.volume(), attrs=_facts(c))

    call.__doc__ = described(
        doc, Shapes="x [..., S, W], stats [..., S, 32 for each sum and chip]; x's",
        Dtypes="bfloat16, float32, bfloat8_b", Layout="TILE", Numerics=STEPS,
        Source="recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


rms_norm_pre_all_gather = partial_norm("rms_norm", "sum(x^2) in column 0 of one tile column.", 1)
layer_norm_pre_all_gather = partial_norm("layer_norm", "sum(x^2) and sum(x) in columns 0 and 32.", 2)
rms_norm_post_all_gather = gathered_norm("rms_norm", "rms_norm of a part, from gathered sums.", 1)
layer_norm_post_all_gather = gathered_norm("layer_norm", "layer_norm of a part, from gathered sums.", 2)
