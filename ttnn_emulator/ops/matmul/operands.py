"""What a call of a product says: its operands and settings, their checks, and the sizes that come of them.

Source    ttnn 0.81.1: the recorded contract; refusals asked one by one
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from ...chips import Chip
from ...config import MatmulMultiCoreReuseMultiCast1DProgramConfig, UnaryWithParam, WormholeComputeKernelConfig, resolve
from ...dtypes import BLOCK_FORMATS, FLOATS, DataType, Layout, cpp, float32
from ...errors import DeviceRejects
from ...grid import CoreGrid
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...numerics import ComputeConfig
from ...oplog import describe
from ...shape import TILE, Shape
from ...tensor import Tensor, TensorSpec, Tile
from ..core.sharding import WIDTH
from ..eltwise.fused import fused


def other_tile(tile):
    """The tile that is asked for, unless it is 32x32, which comes out anyway."""
    return None if isinstance(tile, Tile) else tile


class Call(NamedTuple):
    """A call as everything but the values decides it; specs stand for tensors."""

    name: str
    a: TensorSpec
    b: TensorSpec
    bias: TensorSpec | None
    transpose_a: bool
    transpose_b: bool
    memory_config: MemoryConfig | None
    dtype: DataType | None
    program_config: object
    activation: tuple | None  # (UnaryOpType, its parameters)
    compute_kernel_config: WormholeComputeKernelConfig | None
    core_grid: CoreGrid | None
    target: TensorSpec | None
    chip: Chip

    @property
    def chosen(self) -> bool:
        """Whether the call says how the product is laid out over cores."""
        return self.program_config is not None or self.core_grid is not None


class Operands(NamedTuple):
    """What the checks come to: sizes, shape and dtype of the result, where it was asked to be, how it is computed.

    `in_dram`: both operands and the result lie in DRAM, interleaved. `named` is the activation that the call names, as
    (function of the numerics, keywords).
    """

    sizes: Sizes
    shape: tuple
    dtype: DataType
    memory_config: MemoryConfig
    config: ComputeConfig
    in_dram: bool
    named: tuple | None


def check_held(t: Tensor) -> None:
    """Refuses a tensor on the host, or one that was freed, in the words of a launch."""
    if t.buffer is None:
        raise DeviceRejects("Device Operations expect device tensors as inputs")
    if not t.buffer.alive:
        raise DeviceRejects("Input Tensor is not allocated", "it was deallocated")


def check_on_device(a: Tensor, b: Tensor) -> None:
    """Refuses operands by place, in the library's order."""
    if a.buffer is None or not a.buffer.alive:
        raise DeviceRejects("Operand to matmul must be on device", "it is on the host, or was deallocated")
    check_held(b)


def checked(c: Call) -> Operands:
    """The operands of a call, or its refusal, in the library's order."""
    if c.a.layout is not Layout.TILE or c.b.layout is not Layout.TILE:
        raise DeviceRejects("Inputs to matmul must be tilized", "ttnn.to_layout(x, ttnn.TILE_LAYOUT)")
    for label, t in (("A", c.a), ("B", c.b)):
        if t.dtype not in FLOATS:
            raise DeviceRejects(f"Unsupported data format for input {label}: {cpp(t.dtype)}")
    named = None if c.activation is None else fused(UnaryWithParam(c.activation), c.chip)
    if c.core_grid is not None:
        if c.program_config is not None:
            raise DeviceRejects("Cannot use both user core grid/coordinates and a program config")
        if not isinstance(c.core_grid, CoreGrid):
            raise TypeError(
                f"{c.name}(): incompatible function arguments.\n  got    core_grid = {describe(c.core_grid)}"
            )
    own, other = c.a.memory_config, c.b.memory_config
    if c.activation is not None and own.is_sharded():
        raise DeviceRejects(
            f"Sharded matmul run with UnaryOpType::{c.activation[0].name} activation: this should be placed in the "
            "program config's fused_activation field"
        )
    if (
        c.program_config is None
        and own.is_sharded()
        and own.memory_layout is WIDTH
        and any(n != 1 for n in c.b.shape[:-2])
    ):
        raise DeviceRejects(f"Input A memory layout must not be WIDTH_SHARDED, got: {cpp(own.memory_layout)}")
    to = c.memory_config if c.target is None else c.target.memory_config
    in_dram = all(m in (None, DRAM_MEMORY_CONFIG) for m in (own, other, to))
    if c.program_config is None:
        in0_reuse = c.core_grid is None and in_dram
    else:
        one_d = isinstance(c.program_config, MatmulMultiCoreReuseMultiCast1DProgramConfig)
        in0_reuse = one_d and not (c.program_config.fuse_batch or c.program_config.mcast_in0)
    by_grid = c.core_grid is not None or own.is_sharded()
    s = sizes(c.a.shape, c.b.shape, c.transpose_a, c.transpose_b, by_grid, in0_reuse)
    shape, dtype, memory_config = s.shape, c.dtype, c.memory_config
    if c.bias is not None:
        if c.bias.memory_config is None:
            raise DeviceRejects("Device Operations expect device tensors as inputs")
        shape = check_bias(shape, c.bias.shape)
    if c.target is not None:
        if dtype is not None and dtype is not c.target.dtype:
            raise DeviceRejects(
                f"Type mismatch between optional output tensor {cpp(c.target.dtype)} & output tensor {cpp(dtype)}"
            )
        if c.target.shape != tuple(shape):
            raise DeviceRejects("Invalid optional output tensor", f"its shape is {c.target.shape}, not {list(shape)}")
        dtype, memory_config = c.target.dtype, c.target.memory_config
    dtype, memory_config = dtype or c.a.dtype, memory_config or DRAM_MEMORY_CONFIG
    config = resolve(c.compute_kernel_config, default_config(c.a.dtype, c.b.dtype, dtype, c.chosen))
    if c.program_config is None and own.is_sharded():
        if other.is_sharded() and not s.batched:
            raise DeviceRejects(f"Input tensor B must have INTERLEAVED memory layout, got: {cpp(other.memory_layout)}")
        if memory_config.is_sharded() and memory_config.memory_layout is not own.memory_layout:
            raise DeviceRejects(
                f"Input A and output memory layouts must match, got input: {cpp(own.memory_layout)} vs output: "
                f"{cpp(memory_config.memory_layout)}"
            )
    return Operands(s, shape, dtype, memory_config, config, in_dram, named)


class Sizes(NamedTuple):
    """Sizes of a product: the result's logical shape, and in tiles M and N (of one batch), K, and the batches."""

    shape: tuple
    m: int
    k: int
    n: int
    batch: int
    batched: bool  # the second operand has batches of its own
    inner: int  # K in elements


@lru_cache(maxsize=65536)
def sizes(
    ashape: Shape, bshape: Shape, transpose_a: bool, transpose_b: bool, by_grid: bool = False, in0_reuse: bool = True
) -> Sizes:
    """The sizes of a @ b, or the refusal of shapes that do not multiply.

    by_grid     the library lays the product out over cores before it compares K, and words the refusal otherwise
    in0_reuse   one batch of a may go with all batches of b
    """
    vector_a, vector_b = len(ashape) == 1, len(bshape) == 1
    a, b = [1, *ashape] if vector_a else list(ashape), [*bshape, 1] if vector_b else list(bshape)
    if transpose_a:
        a[-2:] = a[-1], a[-2]
    if transpose_b:
        b[-2:] = b[-1], b[-2]
    if a[-1] != b[-2]:
        if by_grid:
            raise DeviceRejects("The k dimension does not match between tensors")
        raise DeviceRejects(
            "The width of the first tensor must be equal to the height of the second tensor. Mismatch: "
            f"width={a[-1]} height={b[-2]}",
            "ttnn weights are [in, out]; HF stores [out, in]" if len(b) > 1 and a[-1] == b[-1] else None,
        )
    left, right = a[:-2], b[:-2]
    front = right[: len(right) - len(left)] if left else right
    if len(right) > len(left) and any(n != 1 for n in front):
        raise DeviceRejects("When in1 rank greater than in0 rank front dimensions need to be 1")
    batched = any(n != 1 for n in right)
    if batched:
        if len(left) != len(right):
            raise DeviceRejects(
                f"Batched (non-bcast) matmul requires inputs of the same rank, got a_shape rank: {len(a)} vs "
                f"b_shape rank: {len(b)}"
            )
        reuse = in0_reuse and all(n == 1 for n in left)
        for i, (p, q) in enumerate(zip(left, right)):
            if p != q and not reuse:
                raise DeviceRejects(
                    "bmm (non-bcast matmul) expects input tensors of shapes BCMK*BCKN=BCMN or batch dimension "
                    f"{i} mismatch: a={p} vs b={q} (dimension mismatch only allowed when all batch dimensions "
                    "of a are size 1 "
                    "and using MatmulMultiCoreReuseMultiCast1DProgramConfig with fuse_batch=false, "
                    "fused_activation=none, "
                    "mcast_in0=false, and non-sharded inputs for in0 reuse optimization)"
                )
    rank = max(len(left), len(right))
    batch = [max(p, q) for p, q in zip([1] * (rank - len(left)) + left, [1] * (rank - len(right)) + right)]
    shape = (*batch, *(() if vector_a else (a[-2],)), *(() if vector_b else (b[-1],)))
    m, k, n = (-(-x // TILE) for x in (a[-2], a[-1], b[-1]))
    return Sizes(shape, m, k, n, math.prod(batch), batched, a[-1])


def check_bias(shape: tuple, bias) -> tuple:
    """The shape of result + bias, or the refusal of a bias that does not broadcast."""
    rank = max(len(shape), len(bias))
    y, c = (1,) * (rank - len(shape)) + tuple(shape), (1,) * (rank - len(bias)) + tuple(bias)
    if y[-1] == 1 != c[-1]:
        if -(-c[-1] // TILE) == 1:
            raise DeviceRejects("Attempting to reshape between two shapes with different volumes")
        raise DeviceRejects(
            f"Unsupported bias shape: padded last dimension of bias, {-(-c[-1] // TILE) * TILE}, not equal to "
            "second input's "
            "padded last dimension, 32."
        )
    same_width = c[-1] == y[-1]
    for i in range(1, rank + 1):
        if y[-i] != c[-i] and y[-i] != 1 and c[-i] != 1:
            if same_width and i == 2:
                short = -(-c[-2] // TILE) == 1
                raise DeviceRejects("Broadcast error: Invalid dimension" if short else "Invalid subtile broadcast type")
            raise DeviceRejects(
                f"Broadcasting rule violation at dimension index {-i} (output rank {rank}), dim a: {y[-i]}, "
                f"dim b: {c[-i]}"
            )
    return tuple(max(p, q) for p, q in zip(y, c))


@lru_cache(maxsize=1024)
def default_config(a: DataType, b: DataType, out: DataType, chosen: bool) -> ComputeConfig:
    """The config of a call that gives none; `chosen`: it gives a program config or a core grid.

    Source    ttnn 0.81.1, MATH_FIDELITY, DST_ACCUM_MODE and PACKER_L1_ACC of the kernels it builds
    """
    if a is float32 and b is float32:
        fidelity = "HiFi3"
    else:
        fidelity = "LoFi" if chosen or (a in BLOCK_FORMATS and b in BLOCK_FORMATS) else "HiFi2"
    return ComputeConfig(fidelity, False, out is float32, out is not float32)
