"""matmul, linear and addmm.

Source    ttnn 0.81.1: the recorded contract; refusals asked one by one
"""

from __future__ import annotations

import math

from ... import numerics
from ...config import MatmulMultiCoreReuseMultiCast1DProgramConfig, WormholeComputeKernelConfig, resolve
from ...dtypes import FLOATS, NAME, TILE_BYTES, DataType, Layout, bfloat16, cpp, float32
from ...errors import DeviceRejects
from ...grid import CoreGrid
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...numerics.rows import Slices
from ...op import Plans, describe, op, refuse_unmodelled
from ...shape import Shape
from ...tensor import Tensor, spec
from ..core.sharding import WIDTH
from ..eltwise.elementwise import add, multiply
from ..eltwise.unary import activation as fused_activation
from ..eltwise.unary import finish, fuse, fused
from .matmul_checks import check_l1, check_program, check_weight
from .matmul_program import check_bias, default_config, output_memory, program, sizes


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
    """
    refuse_unmodelled("ttnn.matmul", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes)
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
    """
    refuse_unmodelled(
        "ttnn.linear", global_cb=global_cb, prefetcher_pipes=prefetcher_pipes, in0_column_offset=in0_column_offset
    )
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
    """beta * input + alpha * (mat1 @ mat2), as a matmul followed by element-wise ops."""
    refuse_unmodelled("ttnn.addmm", optional_output_tensor=optional_output_tensor)

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


def check_operands(a: Tensor, b: Tensor) -> None:
    """Refuses operands by place, layout and dtype, in the library's order."""
    if a.buffer is None or not a.buffer.alive:
        raise DeviceRejects("Operand to matmul must be on device", "it is on the host, or was deallocated")
    if b.buffer is None or not b.buffer.alive:
        raise DeviceRejects("Device Operations expect device tensors as inputs")
    if a.layout is not Layout.TILE or b.layout is not Layout.TILE:
        raise DeviceRejects("Inputs to matmul must be tilized", "ttnn.to_layout(x, ttnn.TILE_LAYOUT)")
    for label, t in (("A", a), ("B", b)):
        if t.dtype not in FLOATS:
            raise DeviceRejects(f"Unsupported data format for input {label}: {cpp(t.dtype)}")


#: Rows of the first operand, without and with a bias.
_ROWS = (Slices((-2, None), -2, search=True), Slices((-2, None, None), -2, search=True))


_PLANS = Plans()


def _matmul(
    name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation,
    compute_kernel_config, core_grid, target,
):  # fmt: skip
    key = None
    if bias is None and program_config is None and core_grid is None and target is None and activation is None:
        compute = None if compute_kernel_config is None else tuple(vars(compute_kernel_config).values())
        key = (
            name,
            a.spec,
            b.spec,
            transpose_a,
            transpose_b,
            memory_config,
            dtype,
            compute,
            a.buffer and a.buffer.device.chip,
        )
    plan = _PLANS.get(key)
    if plan is None:
        plan = _PLANS.remember(key, _planned(
            name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation,
            compute_kernel_config, core_grid, target,
        ))  # fmt: skip
    else:
        check_operands(a, b)
    out, compute, how = plan
    return finish(name, (a, b) if bias is None else (a, b, bias), out, compute, target, **how)


def _planned(
    name, a, b, bias, transpose_a, transpose_b, memory_config, dtype, program_config, activation,
    compute_kernel_config, core_grid, target,
):  # fmt: skip
    """The result's spec, the compute and what else `launch` is told; or the refusal of the call."""
    act = fused_activation(activation)
    check_operands(a, b)
    chip = a.buffer.device.chip
    named = None if act is None else fused(act, chip)
    if core_grid is not None:
        if program_config is not None:
            raise DeviceRejects("Cannot use both user core grid/coordinates and a program config")
        if not isinstance(core_grid, CoreGrid):
            raise TypeError(f"{name}(): incompatible function arguments.\n  got    core_grid = {describe(core_grid)}")
    own, other = a.spec.memory_config, b.spec.memory_config
    if act is not None and own.is_sharded():
        raise DeviceRejects(
            f"Sharded matmul run with UnaryOpType::{act.op_type.name} activation: this should be placed in the program "
            "config's fused_activation field"
        )
    if (
        program_config is None
        and own.is_sharded()
        and own.memory_layout is WIDTH
        and any(n != 1 for n in b.spec.shape[:-2])
    ):
        raise DeviceRejects(f"Input A memory layout must not be WIDTH_SHARDED, got: {cpp(own.memory_layout)}")
    in_dram = all(
        m in (None, DRAM_MEMORY_CONFIG)
        for m in (own, other, memory_config if target is None else target.memory_config())
    )
    if program_config is None:
        in0_reuse = core_grid is None and in_dram
    else:
        one_d = isinstance(program_config, MatmulMultiCoreReuseMultiCast1DProgramConfig)
        in0_reuse = one_d and not (program_config.fuse_batch or program_config.mcast_in0)
    s = sizes(
        a.spec.shape, b.spec.shape, transpose_a, transpose_b, core_grid is not None or own.is_sharded(), in0_reuse
    )
    shape = s.shape
    if bias is not None:
        if bias.buffer is None:
            raise DeviceRejects("Device Operations expect device tensors as inputs")
        shape = check_bias(shape, bias.spec.shape)
    if target is not None:
        if dtype is not None and dtype is not target.dtype:
            raise DeviceRejects(
                f"Type mismatch between optional output tensor {cpp(target.dtype)} & output tensor {cpp(dtype)}"
            )
        if target.spec.shape != tuple(shape):
            raise DeviceRejects(
                "Invalid optional output tensor", f"its shape is {target.spec.shape}, not {list(shape)}"
            )
        dtype, memory_config = target.dtype, target.memory_config()
    dtype, memory_config = dtype or a.dtype, memory_config or DRAM_MEMORY_CONFIG
    to_dram = memory_config == DRAM_MEMORY_CONFIG
    config = resolve(
        compute_kernel_config,
        default_config(a.dtype, b.dtype, dtype, program_config is not None or core_grid is not None),
    )
    if program_config is None and own.is_sharded():
        if other.is_sharded() and not s.batched:
            raise DeviceRejects(f"Input tensor B must have INTERLEAVED memory layout, got: {cpp(other.memory_layout)}")
        if memory_config.is_sharded() and memory_config.memory_layout is not own.memory_layout:
            raise DeviceRejects(
                f"Input A and output memory layouts must match, got input: {cpp(own.memory_layout)} vs output: "
                f"{cpp(memory_config.memory_layout)}"
            )
    partial = float32 if config.fp32_dest_acc_en else bfloat16 if config.packer_l1_acc else dtype
    p = program(
        s, a.spec, memory_config, program_config, core_grid, in_dram,
        (TILE_BYTES[a.dtype], TILE_BYTES[b.dtype], TILE_BYTES[dtype], TILE_BYTES[partial]), chip,
    )  # fmt: skip
    if other.is_sharded() and p.kind != "dram":
        check_weight(p, other, program_config is not None or core_grid is not None or memory_config.is_sharded())
    if transpose_a and core_grid is not None and s.batch > 1 and s.m > 1 and p.fused_batch:
        turned = (*a.spec.padded_shape[:-2], a.spec.padded_shape[-1], a.spec.padded_shape[-2])
        raise DeviceRejects(
            "MatmulMultiCoreReuseMultiCast1DProgramConfig: transpose_a with fuse_batch is not supported when "
            "batch dimensions "
            f"exist and M_per_batch > 1 (batch_size={s.batch}, M_per_batch={s.m}, a_shape_padded={Shape(turned)})"
        )
    if program_config is not None:
        check_program(program_config, p, s, a.spec, b.spec, memory_config, config, chip)
    out = spec(
        shape,
        dtype,
        Layout.TILE,
        output_memory(p, s, s.shape, memory_config, own, chip) if target is None else memory_config,
    )
    if program_config is not None:
        check_l1(
            p,
            s,
            a.spec,
            b.dtype,
            None if bias is None else bias.dtype,
            dtype,
            out.memory_config,
            config,
            a.buffer.device,
        )
    made, w_dtype, block_w = NAME[dtype], NAME[b.dtype], p.block_w
    vector_a, vector_b, flat = len(a.spec.shape) == 1, len(b.spec.shape) == 1, len(s.shape) < 2

    # A bias that is not a row of the result's width, of a batched product, or where the library chooses the program by
    # where tensors lie, is added by an op of its own; so is an activation computed that the caller names.
    row = bias is None or (not vector_b and bias.spec.shape.volume() == bias.spec.shape[-1] == s.shape[-1])
    apart = bias is not None and not (
        row
        and (program_config is not None or not s.batched)
        and (program_config is not None or core_grid is not None or in_dram or (own.is_sharded() and to_dram))
    )
    after = None if core_grid is not None and not apart else named
    inner = (None if after else act) if program_config is None else getattr(program_config, "fused_activation", None)
    within, bias_dtype = fuse(fused_activation(inner), chip), None if bias is None else NAME[bias.dtype]

    def compute(x, w, c=None):
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
            x, w, config, dtype=made, block_w=block_w, bias=None if apart else c, activation=within, w_dtype=w_dtype
        )
        if apart:
            y = ops.add(y if row else y.reshape(s.shape), c, made, made, bias_dtype)
        if after is not None:
            y = ops.unary(after[0], y, made, **after[1])
        return y.reshape(shape) if flat or y.dim() != len(shape) else y

    # Rows are independent, unless they are what is summed over, or have a weight or bias of their own.
    shared = s.batch == 1 and row and not (flat or transpose_a or vector_a) and len(a.spec.shape) == len(shape)

    return out, compute, {
        "flops": 2 * math.prod(s.shape) * s.inner, "attrs": {"math_fidelity": config.math_fidelity},
        "through": (out,) if after or apart else (), "rows": _ROWS[bias is not None] if shared else None,
    }  # fmt: skip
