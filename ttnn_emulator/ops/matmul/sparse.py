"""sparse_matmul: the products of some of the matrices of a batch, as experts are computed.

Source    ttnn 0.81.1: the recorded contract and vectors; refusals and sizes asked one by one
"""

from __future__ import annotations

import math

import torch

from ... import numerics
from ...config import MatmulMultiCoreReuseMultiCast1DProgramConfig, WormholeComputeKernelConfig, resolve
from ...dtypes import FLOATS, NAME, TILE_BYTES, DataType, Layout, bfloat16, cpp, float32, uint16
from ...errors import DeviceRejects, NotEmulated
from ...grid import CoreCoord, num_cores_to_corerangeset
from ...launch import launch, on_device
from ...memory import DRAM_MEMORY_CONFIG, MemoryConfig
from ...op import op, refuse_unmodelled
from ...shape import TILE, round_up
from ...tensor import Tensor, spec
from ...warning import check_fidelity
from ..core.buffers import buffers_end, check_room
from ..eltwise.fused import activation, fuse
from .operands import other_tile

_DEFAULT = numerics.default_config("sparse_matmul")


def _want(holds: bool, reason: str, hint: str | None = None) -> None:
    if not holds:
        raise DeviceRejects(reason, hint)


def _check_program(c, tiles: tuple[int, int, int], grid: CoreCoord) -> int:
    """The refusals of the program config, in the library's order; the blocks of the result, one a core."""
    m, k, n = tiles
    width, height = c.out_block_w or c.per_core_N, c.out_block_h or c.per_core_M
    _want(
        width % c.out_subblock_w == 0,
        f"sparse_matmul: out_block_w ({width}) must be divisible by out_subblock_w ({c.out_subblock_w}); otherwise "
        "in1_num_subblocks becomes 0 and the mcast_in0 kernel deadlocks",
    )
    _want(
        height % c.out_subblock_h == 0,
        f"sparse_matmul: out_block_h ({height}) must be divisible by out_subblock_h ({c.out_subblock_h})",
    )
    _want(c.mcast_in0, "Only mcast_in0 is supported for sparse matmul")
    _want(k % c.in0_block_w == 0, f"Kt ({k}) must be divisible by in0_block_w ({c.in0_block_w})")
    blocks, cores = -(-m // c.per_core_M) * -(-n // c.per_core_N), grid.x * grid.y
    _want(blocks <= cores, f"Number of blocks exceeds number of cores available: {blocks} blocks > {cores} cores")
    receivers = blocks if blocks <= grid.x else round_up(blocks, grid.x)
    _want(
        blocks == receivers,
        f"num_cores_with_work ({blocks}) must be equal to in0_mcast_receiver_num_cores ({receivers}), please adjust "
        "the core grid to make it rectangular.",
    )
    return blocks


def _check_bias(bias: Tensor, experts: int, width: int) -> None:
    _want(bias.layout is Layout.TILE, f"bias must be TILE layout, got {cpp(bias.layout)}")
    _want(
        bias.dtype is bfloat16,
        f"bias must be BFLOAT16 (it is added at bias precision, not the weight dtype), got {cpp(bias.dtype)}",
    )
    padded = tuple(bias.spec.padded_shape)
    _want(
        len(padded) >= 3 and padded[-3:] == (experts, TILE, width) and math.prod(padded[:-3]) == 1,
        f"bias must have padded shape [E, tile_height, N] with E the number of groups: [{experts}, {TILE}, {width}]",
        f"it is {bias.spec.padded_shape}",
    )


@op("ttnn.sparse_matmul")
def sparse_matmul(
    input_tensor_a: Tensor, input_tensor_b: Tensor, *, sparsity: Tensor, program_config, nnz: int | None = None,
    is_input_a_sparse: bool = False, is_input_b_sparse: bool = True, memory_config: MemoryConfig | None = None,
    dtype: DataType | None = None, compute_kernel_config: WormholeComputeKernelConfig | None = None, core_grid=None,
    output_tile=None, optional_output_tensor: Tensor | None = None, global_cb=None, sub_device_id=None,
    indices: Tensor | None = None, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The products a @ b of which `sparsity` says that they count (is not 0), or whose b `indices` name.

    Shapes    b [1, E, K, N] always. b sparse: a [A, B, M, K], sparsity [A, B, 1, E] -> [A, B, 1, E, M, N]; both:
              a [1, E, M, K], sparsity [1, 1, 1, E] -> [1, E, M, N]; a sparse: a [A, E, M, K], sparsity [1, 1, A, E] ->
              [A, E, M, N]. With indices their number in the place of E; bias, with indices only, [E, 1 or 32, N]
    Dtypes    floats; as a; sparsity any, indices uint16
    Layout    TILE; sparsity and indices ROW_MAJOR
    Numerics  by default LoFi, a bfloat16 destination and L1 accumulation, in blocks of the program config
    Raises    what the program does not take; an `nnz` that is not what the sparsity holds, for which the device waits
              for ever
    Differs   what is skipped is 0 here, which the library does not promise
    Source    recorded contract and vectors, op `ttnn.sparse_matmul`
    """
    name = "ttnn.sparse_matmul"
    refuse_unmodelled(name, output_tile=other_tile(output_tile), global_cb=global_cb)
    a, b, counts = on_device(input_tensor_a), on_device(input_tensor_b), on_device(sparsity)
    _want(core_grid is None, "Cannot use both user core grid/coordinates and a program config")
    for label, t in (("A", a), ("B", b)):
        _want(t.layout is Layout.TILE, f"Input tensor {label} must be TILE layout, got {cpp(t.layout)}")
        _want(t.dtype in FLOATS, f"Input tensor {label} must be a floating point type, got {cpp(t.dtype)}")
    _want(
        is_input_a_sparse or is_input_b_sparse,
        "sparse_matmul requires at least one of is_input_a_sparse or is_input_b_sparse to be true",
    )
    depth, other = a.spec.padded_shape[-1], b.spec.padded_shape[-2]
    _want(
        depth == other,
        f"Dimension K (A.shape[-1] {depth}) and B.shape[-2] ({other}) must match for A and B",
    )
    _want(counts.layout is Layout.ROW_MAJOR, f"Sparsity tensor must be ROW_MAJOR layout, got {cpp(counts.layout)}")
    _want(nnz is None or nnz > 0, f"nnz ({nnz}) must be greater than 0")
    outer, groups = list(a.spec.shape[:-2]), list(b.spec.shape[:-2])
    experts = math.prod(groups)
    rows = math.prod(outer) if not is_input_a_sparse else math.prod(outer) // experts
    if not is_input_a_sparse:
        batch = math.prod(outer) * experts
    else:
        batch = experts if is_input_b_sparse else math.prod(outer)
    said = ", ".join(
        (
            f"sparsity_shape=Shape({list(counts.spec.shape)})",
            f"is_input_a_sparse={str(is_input_a_sparse).lower()}",
            f"is_input_b_sparse={str(is_input_b_sparse).lower()}",
        )
    )
    volume = counts.spec.shape.volume()
    _want(volume == batch, f"sparsity logical_volume ({volume}) must equal batch_length ({batch}) [{said}]")
    _want(
        nnz is None or nnz <= batch,
        f"nnz ({nnz}) must be less than or equal to the length of all batch dimensions ({batch})",
    )
    shape = [*outer, *(() if is_input_a_sparse else groups), a.spec.shape[-2], b.spec.shape[-1]]
    if indices is not None:
        on_device(indices)
        chosen = indices.spec.shape.volume()
        _want(
            is_input_b_sparse,
            "Indexed/gather mode requires is_input_b_sparse=true (the indexed operand is the expert weight tensor B, "
            "laid out as [..., E, K, N]).",
        )
        _want(indices.layout is Layout.ROW_MAJOR, f"indices must be ROW_MAJOR layout, got {cpp(indices.layout)}")
        _want(indices.dtype is uint16, f"indices must be UINT16 dtype, got {cpp(indices.dtype)}")
        _want(
            nnz is None,
            f"nnz ({nnz}) must not be supplied together with indices: the indexed/gather loop count is num_active "
            "(the length of indices), so nnz would be ignored",
        )
        _want(
            chosen <= experts,
            f"indices length / num_active ({chosen}) must be <= the number of sparse groups in input B ({experts})",
        )
        shape[-3] = chosen
    if bias is not None:
        _want(indices is not None, "sparse_matmul bias requires indices (indexed/gather mode)")
        _check_bias(on_device(bias), experts, b.spec.padded_shape[-1])
    if not isinstance(program_config, MatmulMultiCoreReuseMultiCast1DProgramConfig):
        raise DeviceRejects("std::get: wrong index for variant", "it takes a 1D multicast program config")
    check_fidelity(compute_kernel_config, a.buffer.device.chip)
    how = resolve(compute_kernel_config, _DEFAULT)
    dtype = dtype or a.dtype
    out = spec(shape, dtype, Layout.TILE, memory_config or DRAM_MEMORY_CONFIG)
    into, compact = optional_output_tensor, False
    if into is not None:
        packed = (1, nnz, *shape[-2:])
        compact = nnz is not None and tuple(on_device(into).spec.shape) == packed
        _want(
            compact or tuple(into.spec.shape) == tuple(shape),
            f"Optional output tensor shape Shape({list(into.spec.shape)}) must match expanded output shape "
            f"Shape({shape})" + (" when nnz is not provided" if nnz is None else f" or {list(packed)}"),
        )
        out, dtype = into.spec, into.dtype
    c, chip, device = program_config, a.buffer.device.chip, a.buffer.device
    grid = CoreCoord(*c.compute_with_storage_grid_size)
    tiles = tuple(n // TILE for n in (a.spec.padded_shape[-2], depth, b.spec.padded_shape[-1]))
    blocks = _check_program(c, tiles, grid)
    partial = float32 if how.fp32_dest_acc_en else bfloat16
    size = 2 * c.in0_block_w * (c.per_core_M * TILE_BYTES[a.dtype] + c.per_core_N * TILE_BYTES[b.dtype])
    size += c.per_core_M * c.per_core_N * (TILE_BYTES[dtype] + (TILE_BYTES[partial] if partial is not dtype else 0))
    size += 2 * round_up(2 * experts, 32)
    where, hint = (
        num_cores_to_corerangeset(blocks, grid, row_wise=True).ranges()[0],
        "smaller in0_block_w or per_core_N",
    )
    check_room(device, buffers_end(chip, size, where, hint), where, hint)
    within, made, w_dtype = fuse(activation(c.fused_activation), chip), NAME[dtype], NAME[b.dtype]
    if indices is not None and is_input_a_sparse and outer[-1] not in (chosen, experts):
        raise NotEmulated(f"{name}: indices of {chosen} groups over operands of {outer[-1]}")

    def compute(x, w, marks, at=None, row=None):
        ops = numerics.now()
        x, w = x.reshape(-1, *x.shape[-2:]), w.reshape(-1, *w.shape[-2:])
        if x.shape[-1] != w.shape[-2]:  # the padding of K differs
            x, w = (
                torch.nn.functional.pad(x, (0, depth - x.shape[-1])),
                torch.nn.functional.pad(w, (0, 0, 0, depth - w.shape[-2])),
            )

        def product(left, group, beside=None):
            return ops.matmul(
                x[left], w[group], how, dtype=made, block_w=c.in0_block_w, bias=beside, activation=within,
                w_dtype=w_dtype,
            )  # fmt: skip

        if at is not None:
            ids = at.flatten().tolist()
            beside = [None if row is None else row.reshape(experts, -1, row.shape[-1])[g, :1] for g in ids]
            if is_input_a_sparse:
                lefts = range(len(ids)) if outer[-1] == len(ids) else ids
                ys = [product(i, g, v) for i, g, v in zip(lefts, ids, beside)]
            else:
                ys = [product(i, g, v) for i in range(rows) for g, v in zip(ids, beside)]
            return torch.stack(ys).reshape(shape)
        active = [i for i, mark in enumerate(marks.flatten().tolist()) if mark]
        if nnz is not None and nnz != len(active):
            raise DeviceRejects(
                f"nnz ({nnz}) is not the number of values in the sparsity tensor that are not 0 ({len(active)})",
                "the device would wait for ever; leave nnz out to have them counted",
            )
        ys = [product(i if is_input_a_sparse else i // experts, i % experts) for i in active]
        if compact:
            return torch.stack(ys)[None]
        y = x.new_zeros((batch, *shape[-2:]), dtype=ys[0].dtype if ys else torch.bfloat16)
        for i, value in zip(active, ys):
            y[i] = value
        return y.reshape(shape)

    counted = (nnz or batch) if indices is None else rows * chosen
    flops = 2 * counted * math.prod((a.spec.shape[-2], a.spec.shape[-1], b.spec.shape[-1]))
    inputs = (a, b, counts) if indices is None else (a, b, counts, indices, bias)
    return launch(
        name, inputs, out, compute, flops=flops, into=into,
        attrs={"math_fidelity": how.math_fidelity, "fp32_dest": how.fp32_dest_acc_en},
    )  # fmt: skip
