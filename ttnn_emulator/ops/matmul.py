"""matmul and linear."""

from __future__ import annotations

from .. import numerics
from ..config import WormholeComputeKernelConfig, resolve
from ..dtypes import NAME, TILE_LAYOUT, DataType
from ..errors import DeviceRejects
from ..grid import CoreGrid
from ..memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ..op import launch, on_device, op, refuse_unmodelled
from ..tensor import Tensor, spec
from .unary import activation as fused_activation
from .unary import finish, fuse


@op("ttnn.matmul")
def matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None, activation=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
) -> Tensor:  # fmt: skip
    """a @ b."""
    return _matmul(
        "ttnn.matmul", input_tensor_a, input_tensor_b, None, transpose_a, transpose_b, memory_config, dtype, program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


@op("ttnn.linear")
def linear(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, bias: Tensor | None = None, transpose_a: bool = False,
    transpose_b: bool = False, memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None,
    activation=None, compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
    in0_column_offset: int | None = None,
) -> Tensor:  # fmt: skip
    """a @ b + bias."""
    return _matmul(
        "ttnn.linear", input_tensor_a, input_tensor_b, bias, transpose_a, transpose_b, memory_config, dtype, program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


def _matmul(
    name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation, compute_kernel_config, core_grid, target
):
    on_device(a), on_device(b)
    ashape, bshape = list(a.shape), list(b.shape)
    if transpose_a:
        ashape[-2:] = ashape[:-3:-1]
    if transpose_b:
        bshape[-2:] = bshape[:-3:-1]
    m, k, n = ashape[-2] if len(ashape) > 1 else 1, ashape[-1], bshape[-1]
    height = bshape[-2] if len(bshape) > 1 else bshape[0]
    if k != height:
        raise DeviceRejects(
            "The width of the first tensor must be equal to the height of the second tensor. Mismatch: "
            f"width={k} height={height}"
        )
    rank = max(len(ashape), len(bshape))
    batch = [max(p, q) for p, q in zip([1] * (rank - len(ashape)) + ashape[:-2], [1] * (rank - len(bshape)) + bshape[:-2])]
    dtype = dtype or a.dtype
    out = spec((*batch, m, n), dtype, TILE_LAYOUT, memory_config or DRAM_MEMORY_CONFIG)
    config = resolve(compute_kernel_config, numerics.default_config("matmul", NAME[a.dtype], NAME[b.dtype]))
    act = fuse(fused_activation(activation))
    made, block_w = NAME[dtype], getattr(program_config, "in0_block_w", None)

    def compute(x, w, c):
        if transpose_a:
            x = x.mT
        if transpose_b:
            w = w.mT
        return numerics.now().matmul(x, w, config, dtype=made, block_w=block_w, bias=c, activation=act)

    return launch(
        name, (a, b, bias), out, compute, flops=2 * out.shape.volume() * k, attrs={"math_fidelity": config.math_fidelity}
    )
