"""Reductions: sum, mean, max, min, prod, std, var.

Source    ttnn 0.81.1: recorded contract; layouts, shards and refusals asked one by one
"""

from __future__ import annotations

import builtins

import torch

from ... import numerics
from ...config import WormholeComputeKernelConfig, resolve
from ...dtypes import (
    BLOCK_FORMATS,
    INTEGERS,
    NAME,
    Layout,
    bfloat4_b,
    bfloat8_b,
    bfloat16,
    cpp,
    float32,
    int32,
    uint8,
    uint16,
    uint32,
)
from ...errors import DeviceRejects, NotEmulated
from ...launch import launch, on_device
from ...memory import MemoryConfig, ShardSpec, extent
from ...numerics import rounding
from ...op import described, op, refuse_unmodelled
from ...shape import TILE
from ...tensor import Tensor, padded, spec
from ...warning import check_fidelity
from ..core.sharding import HEIGHT, WIDTH, rescaled


def reduced_dims(dim, rank: int) -> tuple[int, ...]:
    """The dims to reduce, none of them negative, in order; none given or an empty list: all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return tuple(range(rank))
    dims = []
    if not isinstance(dim, (int, list, tuple)):
        raise TypeError(
            f"incompatible function arguments.\n  got    dim = {dim!r}\n  want   an int, a list of ints or None"
        )
    for i, d in enumerate((dim,) if isinstance(dim, int) else dim):
        at = d + rank if d < 0 else d
        if not 0 <= at < rank:
            raise DeviceRejects(
                f"Unsupported dim {at} at index {i}. After possible adjustment, needs to be at least 0 and "
                "less than rank "
                f"{rank}, or exactly 0 for a rank 0 tensor."
            )
        dims.append(at)
    dims.sort()
    for i in range(1, len(dims)):
        if dims[i] == dims[i - 1]:
            raise DeviceRejects(
                f"reduce dim list contains a duplicate axis after sorting (indices {i - 1} and {i}, value {dims[i]})"
            )
    return tuple(dims)


def reduced_shape(shape, dims, keepdim: bool) -> tuple[int, ...]:
    return tuple(1 if i in dims else n for i, n in enumerate(shape) if keepdim or i not in dims)


def reduced_memory(x: Tensor, shape, memory_config: MemoryConfig | None) -> MemoryConfig:
    """As asked, else where the operand is; shards follow the shape, and a single row of tiles is width sharded."""
    own = x.spec.memory_config
    if memory_config is not None or not own.is_sharded():
        return memory_config or own
    height, width = extent(padded(shape, Layout.TILE, None))
    s = own.shard_spec
    if own.memory_layout is HEIGHT and height > TILE:
        return rescaled(own, x.spec.padded_shape, padded(shape, Layout.TILE, None))
    if own.memory_layout in (HEIGHT, WIDTH):
        columns = width if own.memory_layout is HEIGHT else builtins.min(s.shape[1], width)
        return MemoryConfig(WIDTH, own.buffer_type, ShardSpec(s.grid, (height, columns), s.orientation))
    shard = (builtins.min(s.shape[0], height), builtins.min(s.shape[1], width))
    return MemoryConfig(own.memory_layout, own.buffer_type, ShardSpec(s.grid, shard, s.orientation))


def check_tilizes(x: Tensor) -> None:
    """Refuses row-major bytes, which the library cannot tilize on its way."""
    if x.dtype is uint8 and x.layout is not Layout.TILE:
        raise DeviceRejects("Can only tilize bfloat16/float32 or int32/uint32/uint16 or fp8_e4m3 tensors")


def check_generic(name: str, x: Tensor) -> None:
    """Refuses the dtypes that sums and extrema do not take."""
    check_tilizes(x)
    if x.dtype is uint8:
        raise DeviceRejects(f"Unsupported datatype {cpp(x.dtype)}")
    if name == "mean" and x.dtype in (uint32, int32):
        raise DeviceRejects(f"ttnn.mean does not support integer inputs - got {cpp(x.dtype)}.")
    if x.dtype in (bfloat4_b, uint16):
        raise DeviceRejects(
            "Only FLOAT32, BFLOAT16, BFLOAT8_B, and UINT32 are supported for generic reduction (INT32 is supported for "
            f"MAX/MIN/SUM) - got {cpp(x.dtype)}."
        )


def check_spread(name: str, x: Tensor) -> None:
    """Refuses the dtypes that std and var do not take."""
    check_tilizes(x)
    if x.dtype not in (float32, bfloat16, bfloat8_b):
        raise DeviceRejects(
            f"Only FLOAT32, BFLOAT16, and BFLOAT8_B are supported for Std/Var reduction - got {cpp(x.dtype)}"
        )


def stays_row_major(name: str, x: Tensor, dims) -> bool:
    """Whether sum and mean of a row-major tensor come out row-major: they have kernels for some dims only."""
    if x.layout is Layout.TILE or name not in ("sum", "mean") or x.dtype in INTEGERS:
        return False
    rank = len(x.spec.shape)
    if len(dims) == 1 and dims[0] >= rank - 2:
        return True
    leading = all(d < rank - 2 for d in dims) or len(dims) == rank
    return leading and (x.dtype is float32 or name == "mean")


def _reduce(name, compute, check, x, dim, keepdim, memory_config, config, scalar=1.0) -> Tensor:
    on_device(x)
    if check is check_generic:  # std and var do not warn
        check_fidelity(config, x.buffer.device.chip)
    dims = reduced_dims(dim, len(x.spec.shape))
    check(name, x)
    shape = reduced_shape(x.spec.shape, dims, keepdim)
    layout = Layout.ROW_MAJOR if stays_row_major(name, x, dims) else Layout.TILE
    out = spec(shape, x.dtype, layout, reduced_memory(x, shape, memory_config))
    c, dtype = resolve(config, numerics.default_config("reduce", NAME[x.dtype])), NAME[x.dtype]
    refuse_unmodelled(f"ttnn.{name}", scalar=None if scalar == 1.0 else scalar)
    over = dims if isinstance(dim, int) or dim else None  # None: all
    # Where the dim goes a block format is packed again, in other blocks, by the reshape (ttnn 0.81.1, graph capture).
    repack = x.dtype in BLOCK_FORMATS and not keepdim
    regrouped = (lambda v: rounding.pack(v, dtype)) if repack else (lambda v: v)
    return launch(
        f"ttnn.{name}", (x,), out, lambda v: regrouped(compute(v, over, keepdim, dtype, c)), flops=x.volume(),
        attrs={"math_fidelity": c.math_fidelity},
    )  # fmt: skip


def reduction(name: str, doc: str):
    """The op `ttnn.<name>` over one dim, several or all, computed by the numerics' function of that name."""

    @op(f"ttnn.{name}", lacks=("output_layout",) if name in ("max", "min") else ())
    def call(
        input_tensor: Tensor, dim=None, keepdim: bool = False, *, memory_config: MemoryConfig | None = None,
        compute_kernel_config: WormholeComputeKernelConfig | None = None, scalar: float = 1.0,
        correction: bool | None = None,
        sub_core_grids=None, fast_and_approximate_mode: bool = False, output_layout: Layout | None = None,
    ) -> Tensor:  # fmt: skip
        fast = fast_and_approximate_mode
        refuse_unmodelled(f"ttnn.{name}", output_layout=output_layout, fast_and_approximate_mode=fast)
        return _reduce(
            name, lambda *args: getattr(numerics.now(), name)(*args), check_generic, input_tensor, dim, keepdim,
            memory_config,
            compute_kernel_config, scalar,
        )  # fmt: skip

    call.__doc__ = described(
        doc, Shapes="`dim` goes, or stays as 1 with keepdim; all dims by default",
        Dtypes="bfloat16, float32, bfloat8_b, uint32, int32 (mean: no integers); kept",
        Source="ttnn 0.81.1: recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


sum = reduction("sum", "The sum over `dim`.")
mean = reduction("mean", "The mean over `dim`.")
max = reduction("max", "The largest value over `dim`.")
min = reduction("min", "The smallest value over `dim`.")


def spread(name: str, doc: str, function):
    """The op `ttnn.<name>`: a measure of spread, by default with n - 1 in the denominator."""

    @op(f"ttnn.{name}")
    def call(
        input_tensor: Tensor, dim=None, keepdim: bool = False, *, memory_config: MemoryConfig | None = None,
        compute_kernel_config: WormholeComputeKernelConfig | None = None, scalar: float = 1.0, correction: bool = True,
        sub_core_grids=None,
    ) -> Tensor:  # fmt: skip
        def compute(v, dims, keep, dtype, config):
            return rounding.pack(function(v.to(torch.float32), dims, correction=int(correction), keepdim=keep), dtype)

        return _reduce(
            name, compute, check_spread, input_tensor, dim, keepdim, memory_config, compute_kernel_config, scalar
        )

    call.__doc__ = described(
        doc, Shapes="`dim` goes, or stays as 1 with keepdim; all dims by default",
        Dtypes="bfloat16, float32, bfloat8_b; kept", Source="ttnn 0.81.1: recorded contract; refusals asked one by one",
    )  # fmt: skip
    return call


std = spread("std", "The standard deviation over `dim`.", torch.std)
var = spread("var", "The variance over `dim`.", torch.var)


@op("ttnn.prod")
def prod(
    input_tensor: Tensor, dim=None, keepdim: bool = False, *, memory_config: MemoryConfig | None = None, dims=None,
    output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The product over one dim, or of everything.

    Shapes    `dim` goes, or stays as 1 with keepdim; all dims by default
    Dtypes    bfloat16, float32, bfloat8_b; kept
    Source    recorded contract, op `ttnn.prod`
    """
    x, rank = on_device(input_tensor), len(input_tensor.spec.shape)
    if dims is not None or output_tensor is not None or isinstance(dim, Tensor):
        raise NotEmulated("ttnn.prod(input, output, dims=) has no model in the emulator; one dim at a time has")
    if dim is not None and not -rank <= dim < rank:
        raise DeviceRejects(f"Dimension for prod is out of range (expected to be in range of [{-rank}, {rank - 1}])")
    check_tilizes(x)
    if x.dtype is uint8:
        raise DeviceRejects(f"Unsupported datatype {cpp(x.dtype)}")
    takes = "BFLOAT16, FLOAT32 or BFLOAT8_B" if dim is not None else "BFLOAT16, FLOAT32, BFLOAT8_B or BFLOAT4_B"
    if x.dtype in INTEGERS:
        raise DeviceRejects(f"Error - unsupported data type for prod, expected {takes} but got {cpp(x.dtype)}.")
    if x.dtype is bfloat4_b and dim is not None:
        raise DeviceRejects("ttnn.prod with a dim argument does not support bfloat4_b")
    if x.is_sharded() and x.spec.memory_config.memory_layout is HEIGHT and memory_config is None:
        rows = x.spec.padded_shape[-2]
        raise DeviceRejects(
            f"Number of shards along height {rows} must not exceed number of cores "
            f"{x.spec.memory_config.shard_spec.num_cores()}"
        )
    dims = reduced_dims(dim, rank)
    shape = reduced_shape(x.spec.shape, dims, keepdim)
    out, dtype = spec(shape, x.dtype, Layout.TILE, reduced_memory(x, shape, memory_config)), NAME[x.dtype]

    return launch("ttnn.prod", (x,), out, lambda v: numerics.now().prod(v, dim, keepdim, dtype), flops=x.volume())
