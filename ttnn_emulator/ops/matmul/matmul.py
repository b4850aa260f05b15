"""matmul, linear and addmm.

Source    ttnn 0.81.1: the recorded contract; refusals asked one by one
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

from ... import numerics
from ...config import UnaryWithParam, WormholeComputeKernelConfig
from ...dtypes import NAME, DataType, Layout
from ...errors import DeviceRejects
from ...launch import finish
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...numerics.product import TOGETHER
from ...numerics.rows import Slices
from ...op import op, refuse_unmodelled
from ...tensor import Tensor, TensorSpec, spec
from ...warning import check_fidelity
from ..eltwise.elementwise import add, multiply
from ..eltwise.fused import activation as fused_activation
from ..eltwise.fused import fuse
from .operands import Call, Operands, Sizes, check_on_device, checked, other_tile
from .plan import Plan, check_clash
from .program import planned


@op("ttnn.matmul")
def matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None, activation=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
) -> Tensor:  # fmt: skip
    """a @ b, rounded once to `dtype`.

    Shapes    a [..., M, K], b [..., K, N] -> [..., M, N]; the batch dims are equal, or all 1 in one operand; vectors
              work
    Dtypes    bfloat16, float32, bfloat8_b and bfloat4_b in any mix; by default the first operand's comes out
    Layout    TILE
    Numerics  by default HiFi2, LoFi where both operands are in block formats or a program config or core grid is given,
              HiFi3 for two float32; a bfloat16 destination with L1 accumulation, a float32 one for a float32 result
    Raises    sizes that do not match, program configs that do not fit the operands, the grid or L1
    Source    recorded contract, op `ttnn.matmul`
    """
    refuse_unmodelled(
        "ttnn.matmul", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes, output_tile=other_tile(output_tile)
    )
    return _matmul(
        "ttnn.matmul", input_tensor_a, input_tensor_b, None, transpose_a, transpose_b, memory_config, dtype,
        program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


@op("ttnn.linear")
def linear(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, bias: Tensor | None = None, transpose_a: bool = False,
    transpose_b: bool = False, memory_config: MemoryConfig | None = None, dtype: DataType | None = None,
    program_config=None,
    activation=None, compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None, prefetcher_pipes=(),
    in0_column_offset: int | None = None,
) -> Tensor:  # fmt: skip
    """activation(a @ b + bias): `matmul` with a bias that broadcasts to the result.

    Weights are [in, out]; Hugging Face stores [out, in].

    Shapes    a [..., M, K], b [..., K, N], bias [..., N] -> [..., M, N]
    Dtypes    as matmul; the bias's may be another
    Source    recorded contract, op `ttnn.linear`
    """
    refuse_unmodelled(
        "ttnn.linear", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes, in0_column_offset=in0_column_offset,
        output_tile=other_tile(output_tile),
    )  # fmt: skip
    return _matmul(
        "ttnn.linear", input_tensor_a, input_tensor_b, bias, transpose_a, transpose_b, memory_config, dtype,
        program_config,
        activation, compute_kernel_config, core_grid, optional_output_tensor,
    )  # fmt: skip


@op("ttnn.addmm")
def addmm(
    input_tensor: Tensor, mat1_tensor: Tensor, mat2_tensor: Tensor, *, alpha: float = 1.0, beta: float = 1.0,
    memory_config: MemoryConfig | None = None, dtype: DataType | None = None, program_config=None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None, output_tile=None,
    optional_output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (mat1 @ mat2), as a matmul followed by element-wise ops.

    Shapes    input [..., M, N], mat1 [..., M, K], mat2 [..., K, N] -> [..., M, N]
    Dtypes    as matmul
    Source    recorded contract, op `ttnn.addmm`
    """
    refuse_unmodelled("ttnn.addmm", optional_output_tensor=optional_output_tensor, output_tile=other_tile(output_tile))

    y = matmul(
        mat1_tensor, mat2_tensor, memory_config=memory_config, dtype=dtype, program_config=program_config,
        compute_kernel_config=compute_kernel_config, core_grid=core_grid,
    )  # fmt: skip
    if input_tensor.spec.shape != y.spec.shape:
        raise DeviceRejects("input_tensor must have shape matching one of result of mat1_tensor @ mat2_tensor")
    if alpha != 1.0:
        y = multiply(y, alpha)
    if beta == 0.0:
        return y
    return add(y, input_tensor if beta == 1.0 else multiply(input_tensor, beta))


class Product(NamedTuple):
    """What a call comes to: what it is launched with, and the program that may clash with tensors in L1."""

    out: TensorSpec
    compute: Callable
    how: dict
    plan: Plan
    sizes: Sizes


def _matmul(
    name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation,
    compute_kernel_config, core_grid, target,
):  # fmt: skip
    """Check, plan, memory, values and log of a product, in this order."""
    act = fused_activation(activation)
    check_on_device(a, b)
    chip = a.buffer.device.chip
    check_fidelity(compute_kernel_config, chip)
    product = _product(Call(
        name, a.spec, b.spec, None if bias is None else bias.spec, transpose_a, transpose_b, memory_config, dtype,
        program_config, act and (act.op_type, *act.params), compute_kernel_config, core_grid,
        None if target is None else target.spec, chip,
    ))  # fmt: skip
    if product.plan.end:
        check_clash(product.plan, product.sizes, a.buffer.device)
    operands = (a, b) if bias is None else (a, b, bias)
    return finish(name, operands, product.out, product.compute, target, **product.how)


@lru_cache(maxsize=4096)
def _product(c: Call) -> Product:
    o = checked(c)
    plan, memory = planned(c, o)
    out, s, own = spec(o.shape, o.dtype, Layout.TILE, memory), o.sizes, c.a.memory_config
    # A bias that is not a row of the result's width, of a batched product, or where the library chooses the program by
    # where tensors lie, is added by an op of its own; so is an activation computed that the caller names.
    row = c.bias is None or (len(c.b.shape) > 1 and c.bias.shape.volume() == c.bias.shape[-1] == s.shape[-1])
    placed = c.chosen or o.in_dram or (own.is_sharded() and o.memory_config == DRAM_MEMORY_CONFIG)
    apart = c.bias is not None and not (row and placed and (c.program_config is not None or not s.batched))
    after = None if c.core_grid is not None and not apart else o.named
    if c.program_config is not None:
        within = getattr(c.program_config, "fused_activation", None)
    else:
        within = None if after or c.activation is None else UnaryWithParam(c.activation)
    values = _values(c, o, plan.block_w, fuse(fused_activation(within), c.chip), after, row, apart)
    # Rows are independent, unless they are what is summed over, or have a weight or bias of their own.
    vector = len(c.a.shape) == 1 or len(s.shape) < 2
    shared = s.batch == 1 and row and not (vector or c.transpose_a) and len(c.a.shape) == len(o.shape)
    merged = shared and not (c.transpose_b or len(c.b.shape) < 2 or apart) and o.config.fp32_dest_acc_en
    how = {
        "together": _over_chips(values) if merged else None,
        "flops": 2 * math.prod(s.shape) * s.inner,
        "attrs": {"math_fidelity": o.config.math_fidelity, "fp32_dest": o.config.fp32_dest_acc_en} | plan.as_attrs(),
        "through": (out,) if after or apart else (), "rows": _ROWS[c.bias is not None] if shared else None,
    }  # fmt: skip
    return Product(out, values, how, plan, s)


def _over_chips(compute: Callable) -> Callable:
    """The values of chips that have weights beside one another in memory: one product. Of the same rows it comes in
    parts; rows of each chip's own, where they are few, are a batch."""

    def together(xs, ws, biases=None):
        if any(x is not xs[0] for x in xs):
            return None if biases or xs[0].shape[-2] > TOGETHER else _as_batch(xs, ws)
        w = beside(ws)
        if w is None:
            return None
        y = compute(xs[0], w, *(() if biases is None else (torch.cat(biases, -1),)))
        return [part.contiguous() for part in y.split(ws[0].shape[-1], -1)]

    def _as_batch(xs, ws):
        """Chips are the leading dim, which is 1."""
        w = beside(ws) if xs[0].dim() > 2 else None
        if w is None:
            return None
        ones, (k, n) = (1,) * (xs[0].dim() - 3), ws[0].shape[-2:]
        w = w.as_strided((len(ws), *ones, k, n), (k * n, *(k * n for _ in ones), 1, k))
        return list(compute(torch.cat(xs), w).split(1))

    return together


def beside(ws) -> torch.Tensor | None:
    """Bands of a weight that `from_torch` has cut, side by side, as the one tensor they are views of; None if they are
    no such views."""
    first = ws[0]
    k, n = first.shape[-2:]
    start, size = first.data_ptr(), k * n * first.element_size()
    if first.stride()[-2:] != (1, k) or first.numel() != k * n:
        return None
    storage = first.untyped_storage().data_ptr()
    for i, w in enumerate(ws):
        if w.untyped_storage().data_ptr() != storage or w.data_ptr() != start + i * size or w.shape != first.shape:
            return None
    return first.as_strided((*first.shape[:-1], n * len(ws)), first.stride(), first.storage_offset())


#: Rows of the first operand, without and with a bias.
_ROWS = (Slices((-2, None), -2, search=True), Slices((-2, None, None), -2, search=True))


def _values(c: Call, o: Operands, block_w: int, within, after, row: bool, apart: bool) -> Callable:
    """The values of a product: an activation `within` the kernel or `after` it; the bias (a `row`?) added `apart`?"""
    made, w_dtype, bias_dtype = NAME[o.dtype], NAME[c.b.dtype], None if c.bias is None else NAME[c.bias.dtype]
    transpose_a, transpose_b, config, shape, inner_shape = (
        c.transpose_a,
        c.transpose_b,
        o.config,
        o.shape,
        o.sizes.shape,
    )
    vector_a, vector_b, flat = len(c.a.shape) == 1, len(c.b.shape) == 1, len(inner_shape) < 2

    def compute(x, w, bias=None):
        if vector_a:
            x = x[None]
        if vector_b:
            w = w[:, None]
        if transpose_a:
            x = x.mT
        if transpose_b:
            w = w.mT
        ops = numerics.now()
        y = ops.matmul(
            x, w, config, dtype=made, block_w=block_w, bias=None if apart else bias, activation=within, w_dtype=w_dtype
        )
        if apart:
            y = ops.add(y if row else y.reshape(inner_shape), bias, made, made, bias_dtype)
        if after is not None:
            y = ops.unary(after[0], y, made, **after[1])
        return y.reshape(shape) if flat or y.dim() != len(shape) else y

    return compute
