"""attn_matmul and group_attn_matmul: the queries of every user times the keys or values of that user."""

from __future__ import annotations

import torch

from ... import numerics
from ...config import WormholeComputeKernelConfig, resolve
from ...dtypes import FLOATS, NAME, DataType, Layout, float32
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord, num_cores_to_corerangeset
from ...launch import launch, on_device, unmodelled
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig, ShardSpec
from ...op import op
from ...oplog import describe
from ...shape import TILE, at
from ...tensor import Tensor, spec
from ..core.sharding import unspecified

_DEFAULT = numerics.default_config("attn_matmul")


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _check_operands(name: str, a: Tensor, b: Tensor, grid) -> tuple:
    """The padded shapes of both."""
    if not isinstance(grid, CoreCoord):
        raise TypeError(
            f"{name}(): incompatible function arguments.\n  got    compute_with_storage_grid_size = {describe(grid)}\n"
            "  want   a ttnn.CoreCoord"
        )
    queries, keys = on_device(a).spec.padded_shape, on_device(b).spec.padded_shape
    at(queries, 2), at(keys, 3)
    _want(a.layout is b.layout is Layout.TILE, "Inputs to matmul must be tilized")
    _want(queries[0] == 1, "Input q_len must be 1!", f"the first operand is {a.spec.shape}")
    return queries, keys


def _multiplied(name, a, b, shape, dtype, memory, compute_kernel_config, into=None) -> Tensor:
    config = resolve(compute_kernel_config, _DEFAULT)
    out = spec(shape, dtype or a.dtype, Layout.TILE, memory) if into is None else into.spec
    _want(
        config.fp32_dest_acc_en or float32 not in (a.dtype, b.dtype, out.dtype),
        "when inputs/output are in fp32 format, fp32_dest_acc_en must be set",
    )
    if tuple(out.shape) != shape:
        raise NotEmulated(f"{name} into a tensor of {out.shape}, where {list(shape)} comes out, has no model")
    if a.dtype not in FLOATS or b.dtype not in FLOATS:
        return unmodelled([a, b], out)
    depth, users, n_kv = a.spec.padded_shape[3], shape[2], b.spec.shape[1]
    made, weights = NAME[out.dtype], NAME[b.dtype]

    def compute(x, w):
        x = torch.nn.functional.pad(x, (0, depth - x.shape[3], 0, users - x.shape[2]))
        w = torch.nn.functional.pad(w, (0, shape[3] - w.shape[3], 0, depth - w.shape[2]))
        x = x[0].unflatten(0, (n_kv, -1)).permute(2, 0, 1, 3)  # [users, kv heads, queries of one, K]
        y = numerics.now().matmul(x, w, config, dtype=made, w_dtype=weights)
        return y.flatten(1, 2).transpose(0, 1)[None].contiguous()

    return launch(
        name, (a, b), out, compute, flops=2 * out.shape.volume() * depth, attrs={"math_fidelity": config.math_fidelity},
        into=into,
    )  # fmt: skip


@op("ttnn.experimental.attn_matmul")
def attn_matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, compute_with_storage_grid_size, dtype: DataType | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, memory_config: MemoryConfig | None = None,
    output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Every user's queries times that user's one matrix.

    Shapes    [1, heads, users, K], [users, 1, K, N] -> [1, heads, users, N], users and N in whole tiles
    Dtypes    floats; as the first; float32 with an fp32 destination only
    Layout    TILE
    Numerics  by default LoFi with a bfloat16 destination, all of K in it
    Differs   values not recorded; integers, which the library takes, come out without contents
    Source    ttnn 0.81.1, asked call by call; its kernel `transformer_attn_matmul.cpp`
    """
    name, a, b = "ttnn.experimental.attn_matmul", input_tensor_a, input_tensor_b
    queries, keys = _check_operands(name, a, b, compute_with_storage_grid_size)
    _want(keys[1] == 1, "Number of kv_heads must be 1!", f"the second operand is {b.spec.shape}")
    _want(queries[2] == keys[0], "Num of users must match!", f"{queries[2]} and {keys[0]}")
    _want(
        queries[3] == keys[2],
        f"Dimension K (A.shape[3]and B.shape[2]) must match for A shape: {queries} and B shape: {keys} "
        "in attn_matmul op",
    )
    _want(not unspecified(memory_config), "bad optional access", "a sharded memory_config needs its shard_spec")
    shape = (1, queries[1], queries[2], keys[3])
    memory = memory_config or a.spec.memory_config
    return _multiplied(name, a, b, shape, dtype, memory, compute_kernel_config, output_tensor)


@op("ttnn.experimental.group_attn_matmul")
def group_attn_matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, compute_with_storage_grid_size,
    memory_config: MemoryConfig | None = DRAM_MEMORY_CONFIG, dtype: DataType | None = None,
    compute_kernel_config: WormholeComputeKernelConfig | None = None, optional_output_tensor: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Every user's queries times that user's matrix of the group of heads: head h takes h // (heads / kv heads).

    Shapes    [1, heads, 32, K], [32, kv heads, K, N] -> [1, heads, 32, N], N in whole tiles
    Dtypes    floats; as the first; float32 with an fp32 destination only
    Layout    TILE; a core for every head, at least 32
    Numerics  by default LoFi with a bfloat16 destination, all of K in it
    Differs   values not recorded; integers, which the library takes, come out without contents
    Source    ttnn 0.81.1, asked call by call; its kernel `transformer_group_attn_matmul.cpp`
    """
    name, a, b, grid = (
        "ttnn.experimental.group_attn_matmul", input_tensor_a, input_tensor_b, compute_with_storage_grid_size,
    )  # fmt: skip
    queries, keys = _check_operands(name, a, b, grid)
    _want(queries[1] % keys[1] == 0, "Number of q_heads must be divisible by kv_heads!", f"{queries[1]} and {keys[1]}")
    _want(queries[2] == keys[0], "Num of users must match!", f"{queries[2]} and {keys[0]}")
    _want(keys[0] == TILE, "Only batch 32 is supported for group attention matmul!", f"it is {keys[0]}")
    _want(
        queries[3] == keys[2], "Dimension K (A.shape[3] and B.shape[2]) must match for A and B in attn_matmul op",
        f"{queries[3]} and {keys[2]}",
    )  # fmt: skip
    _want(
        max(queries[1], TILE) <= grid.x * grid.y,
        "Compute grid size is too small for group attention matmul! For now, we require at most 1 q_heads per core.",
        f"{queries[1]} heads, {grid.x} x {grid.y} cores",
    )
    chip = a.buffer.device.chip
    _want(
        grid.x <= chip.grid[0] and grid.y <= chip.grid[1],
        f"Illegal Runtime Args: compute_with_storage_grid_size {grid.x} x {grid.y} is beyond the chip's {chip.grid}",
    )
    shape, memory = (1, queries[1], TILE, keys[3]), memory_config or a.spec.memory_config
    if unspecified(memory):
        own = a.spec.memory_config
        cores = own.shard_spec.grid if own.is_sharded() else num_cores_to_corerangeset(queries[1], grid)
        memory = MemoryConfig(memory.memory_layout, memory.buffer_type, ShardSpec(cores, (TILE, shape[3])))
    return _multiplied(name, a, b, shape, dtype, memory, compute_kernel_config, optional_output_tensor)
