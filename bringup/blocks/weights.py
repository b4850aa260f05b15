"""HF linear layers as device tensors, one at a time: [out, in] on the host -> [1, 1, in, out] in tiles in DRAM.

`column` cuts the outputs over the chips, `row` the inputs (its product is a partial sum: `Mesh.all_reduce` follows),
`replicated` gives every chip the same. On one chip the three are the same. No function looks at values, so that meta
tensors pass.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import ttnn

from bringup.blocks.parallel import TILE, Heads, Mesh
from bringup.blocks.precision import Precision

COLUMN, ROW = 3, 2  # the dims of [1, 1, in, out] that are cut


class Banked(NamedTuple):
    """A dtype of weights whose columns lie side by side in the banks of DRAM: each core beside one reads its own.

    `shares`: what is cut over the chips is padded so that each has whole tiles for so many cores.
    """

    dtype: Any
    shares: int = 1


def column(weight: torch.Tensor, mesh: Mesh, dtype) -> ttnn.Tensor:
    """[out, in] -> per chip [1, 1, in, out / ways]; the outputs are padded with zeros to whole tiles per chip."""
    if short := -weight.shape[0] % _multiple(mesh, dtype):
        weight = F.pad(weight, (0, 0, 0, short))
    return _put(weight, mesh, dtype, COLUMN)


def row(weight: torch.Tensor, mesh: Mesh, dtype) -> ttnn.Tensor:
    """[out, in] -> per chip [1, 1, in / ways, out]; the inputs are padded with zeros to whole tiles per chip."""
    if short := -weight.shape[1] % _multiple(mesh, dtype):
        weight = F.pad(weight, (0, short))
    return _put(weight, mesh, dtype, ROW)


def replicated(weight: torch.Tensor, mesh: Mesh, dtype) -> ttnn.Tensor:
    """[out, in] -> [1, 1, in, out] on every chip."""
    return _put(weight, mesh, dtype, None)


def experts(weight: torch.Tensor, mesh: Mesh, dtype) -> ttnn.Tensor:
    """[experts, out, in] -> per chip [1, experts / ways, in, out]; padded with experts of zeros to equal shares."""
    weight = weight.detach()
    if -len(weight) % mesh.tensor_ways:
        weight = F.pad(weight, (0, 0, 0, 0, 0, -len(weight) % mesh.tensor_ways))
    dim = 1 if mesh.tensor_ways > 1 else None
    return mesh.put(weight.transpose(1, 2)[None], dtype, ttnn.TILE_LAYOUT, shard_dim=dim)


def dealt(weight: torch.Tensor, sizes: tuple[int, ...], ways: int) -> torch.Tensor:
    """[sum of sizes, in] -> its rows so that an even cut into `ways` gives each an equal share of every block."""
    if ways == 1:
        return weight
    shares = [block.chunk(ways) for block in weight.split(sizes)]
    return torch.cat([share[chip] for chip in range(ways) for share in shares])


def blocks(hf_linear, sizes: tuple[int, ...], mesh: Mesh, dtype) -> tuple[ttnn.Tensor, ttnn.Tensor | None]:
    """Weight and bias of a column-parallel layer, or a weight [out, in], whose outputs are blocks of these sizes."""
    weight, bias = (hf_linear, None) if isinstance(hf_linear, torch.Tensor) else (hf_linear.weight, hf_linear.bias)
    device = _put(dealt(weight.detach(), sizes, mesh.tensor_ways), mesh, dtype, COLUMN)
    if bias is None:
        return device, None
    return device, _put(dealt(bias.detach()[:, None], sizes, mesh.tensor_ways), mesh, ttnn.bfloat16, COLUMN)


def vector(weight: torch.Tensor, mesh: Mesh) -> ttnn.Tensor:
    """[n] -> [1, 1, 1, n] bfloat16 on every chip: a norm's weight."""
    return mesh.put(weight.detach()[None, None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)


def cut_vector(weight: torch.Tensor, mesh: Mesh) -> ttnn.Tensor:
    """[n] -> per chip [1, 1, 1, n / ways] bfloat16: what goes with the columns of a column-parallel product."""
    return _put(weight[:, None], mesh, ttnn.bfloat16, COLUMN)


def column_bias(bias: torch.Tensor | None, mesh: Mesh) -> ttnn.Tensor | None:
    """[out] -> per chip [1, 1, 1, out / ways] bfloat16, padded as `column` pads; None without one."""
    return None if bias is None else column(bias[:, None], mesh, ttnn.bfloat16)


def row_bias(bias: torch.Tensor | None, mesh: Mesh) -> ttnn.Tensor | None:
    """[out] -> [1, 1, 1, out] bfloat16 on every chip, for `Mesh.linear_sum`; None without one."""
    return None if bias is None else vector(bias, mesh)


Order = tuple[int | None, ...]  # HF's dim in each column of a head, None: zeros


def fused_qkv(q, k, v, heads: Heads, qk_order: Order, v_order: Order, mesh: Mesh, dtype) -> ttnn.Tensor:
    """Three HF weights [n * head_dim, in] -> one column-parallel weight whose share on chip i is [q_i | k_i | v_i]."""
    parts = []
    for query, kv in zip(heads.query, heads.kv, strict=True):
        parts += [of_heads(q, query, qk_order), of_heads(k, kv, qk_order), of_heads(v, kv, v_order)]
    return _put(torch.cat(parts), mesh, dtype, COLUMN)


def fused_qkv_bias(q, k, v, heads: Heads, qk_order: Order, v_order: Order, mesh: Mesh) -> ttnn.Tensor:
    """Three HF biases [n * head_dim] in the order of `fused_qkv`: per chip [1, 1, 1, its columns] bfloat16."""
    q, k, v = (bias[:, None] for bias in (q, k, v))
    return fused_qkv(q, k, v, heads, qk_order, v_order, mesh, ttnn.bfloat16)


def queries(weight: torch.Tensor, heads: Heads, order: Order, mesh: Mesh, dtype) -> ttnn.Tensor:
    """HF's [n * head_dim, in] of the query heads -> column-parallel, the outputs in the order of the chips' heads."""
    return _put(torch.cat([of_heads(weight, query, order) for query in heads.query]), mesh, dtype, COLUMN)


def sinks(values: torch.Tensor | None, heads: Heads, scale: float, mesh: Mesh):
    """A score of each query head without a key, as the library wants it in prompts [1, n, 1, 1] and in steps [n, 32];
    (None, None) where there is none. It multiplies them by the scale, HF does not."""
    if values is None:
        return None, None
    values, cut = values.detach().float()[:, None] / scale, mesh.tensor_ways > 1
    each = torch.cat([of_heads(values, query, (0,)) for query in heads.query])[:, 0]
    put = lambda x, dim: mesh.put(x, ttnn.bfloat16, ttnn.TILE_LAYOUT, shard_dim=dim if cut else None)  # noqa: E731
    return put(each[None, :, None, None], 1), put(each[:, None].expand(-1, TILE).contiguous(), 0)


def attention_output(o: torch.Tensor, heads: Heads, v_order: Order, mesh: Mesh, dtype) -> ttnn.Tensor:
    """HF o_proj [out, n * head_dim] -> row-parallel, the inputs in the order of the chips' query heads."""
    shares = [of_heads(o.T, query, v_order).T for query in heads.query]
    return _put(shares[0] if len(shares) == 1 else torch.cat(shares, dim=1), mesh, dtype, ROW)


def of_heads(weight: torch.Tensor, which: tuple[int | None, ...], order: Order) -> torch.Tensor:
    """The rows [n * head_dim, in] of the heads `which` in `order`, zeros for None; a view where nothing moves."""
    weight, head_dim = weight.detach(), len(order) - order.count(None)
    first = which[0]
    if first is not None and which == tuple(range(first, first + len(which))):
        rows = weight[first * head_dim : (first + len(which)) * head_dim]
    else:
        zeros = weight.new_zeros(head_dim, weight.shape[1])
        rows = torch.cat([zeros if h is None else weight[h * head_dim : (h + 1) * head_dim] for h in which])
    return columns(rows.unflatten(0, (-1, head_dim)), order, 1).flatten(0, 1)


def columns(x: torch.Tensor, order: Order, dim: int = 0) -> torch.Tensor:
    """x with its `dim`, a head's dims, in `order`, zeros for None; x itself where nothing moves."""
    if order == tuple(range(x.shape[dim])):
        return x
    found = x.index_select(dim, torch.tensor([d or 0 for d in order], device=x.device))
    if None in order:
        there = torch.tensor([d is not None for d in order], device=x.device)
        found = found * there.view(-1, *[1] * (x.dim() - dim - 1))
    return found


def _multiple(mesh: Mesh, dtype) -> int:
    """What is cut over the chips is padded to a multiple of this."""
    shares = dtype.shares if isinstance(dtype, Banked) else 1
    return TILE * mesh.tensor_ways * shares if mesh.tensor_ways * shares > 1 else 1


def _put(weight: torch.Tensor, mesh: Mesh, dtype, dim: int | None) -> ttnn.Tensor:
    dim = dim if mesh.tensor_ways > 1 else None
    if not isinstance(dtype, Banked):
        return mesh.put(weight.detach().T[None, None], dtype, ttnn.TILE_LAYOUT, shard_dim=dim)
    size = list(weight.shape)
    if dim is not None:
        size[COLUMN - dim] //= mesh.tensor_ways
    place = mesh.in_banks(size[1], size[0])
    return mesh.put(weight.detach().T[None, None], dtype.dtype, ttnn.TILE_LAYOUT, shard_dim=dim, memory_config=place)


class LMHead(torch.nn.Module):
    """x [1, 1, rows, hidden] -> logits [1, 1, rows, vocab]; the vocabulary is column-parallel, the bias too.

    It is padded to whole tiles per chip; `CausalLM` gathers the shards on the host and trims them.
    """

    def __init__(self, weight: torch.Tensor, mesh: Mesh, precision: Precision, bias: torch.Tensor | None = None):
        super().__init__()
        self.weight, self.bias = column(weight, mesh, precision.head), column_bias(bias, mesh)
        self.compute = precision.linear

    def forward(self, x: ttnn.Tensor) -> ttnn.Tensor:
        return ttnn.linear(x, self.weight, bias=self.bias, compute_kernel_config=self.compute)
