"""What a layer without keys keeps of each user: a state of fixed size, instead of a cache that grows.

A prompt leaves the state of its last token in the user's row, and starts from zeros; a decode step moves all rows on.
Tensors stay where they are, so that a traced step finds them.
"""

from dataclasses import dataclass

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.parallel import TILE, USERS, Mesh
from bringup.blocks.precision import Precision, compute_config


@dataclass(frozen=True)
class Tokens:
    """Which rows of a piece of a prompt are tokens, and not padding: by them states end where the prompt does."""

    mask: ttnn.Tensor  # [1, 1, rows, 1] float32, 1 where a token is
    ends: ttnn.Tensor  # [1, 32 * inputs that a convolution keeps] uint32: their number 32 times, one more, ...
    user: ttnn.Tensor  # [1, 1, 32, 1] bfloat16, 1 in the user's row


class States:
    """All states of a model: what forgets them."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.kept: list = []
        self.inputs = 1  # that a convolution keeps

    def zeros(self, shape: tuple[int, ...], dtype) -> ttnn.Tensor:
        self.kept.append(ttnn.zeros(shape, dtype=dtype, layout=ttnn.TILE_LAYOUT, device=self.mesh.device))
        return self.kept[-1]

    def clear(self):
        """Every user's is zero again, as before the first token."""
        for state in self.kept:
            nothing = ttnn.zeros_like(state)
            ttnn.copy(nothing, state)
            ttnn.deallocate(nothing)

    def of_prompt(self, lengths: list[int], rows: int, row: int) -> Tokens | None:
        """For a piece of `rows` rows of the user in `row`, of which each chip group has so many tokens, all or none;
        None where no layer has a state."""
        if not self.kept:
            return None
        idle = [0] * (self.mesh.data_ways - len(lengths))
        lengths = torch.tensor(lengths + idle)[:, None].clamp(0, rows)
        at = torch.arange(rows)[None]
        mask = self.mesh.put_users((at < lengths).float()[:, None, :, None], ttnn.float32)
        ends = (lengths + torch.arange(self.inputs)).int().repeat_interleave(USERS, 1)
        user = (torch.arange(USERS) == row).float()[None, None, :, None]
        return Tokens(
            ttnn.to_layout(mask, ttnn.TILE_LAYOUT),
            self.mesh.put_users(ends, ttnn.uint32),
            self.mesh.put(user, ttnn.bfloat16, ttnn.TILE_LAYOUT),
        )


class CausalConv(torch.nn.Module):
    """y[t] = sum over j of w[j] x[t - taps + 1 + j], column by column: x [1, 1, rows, width] -> the same, float32.

    `sizes` are blocks of HF's columns that are each cut over the chips. The last inputs of every user are its state
    [taps - 1, 1, 32, width], the oldest first.
    """

    def __init__(self, hf_conv: torch.nn.Conv1d, sizes: tuple[int, ...], states: States, mesh: Mesh):
        super().__init__()
        taps = weights.dealt(hf_conv.weight.detach()[:, 0], sizes, mesh.tensor_ways).T[:, None, None]
        cut = 3 if mesh.tensor_ways > 1 else None
        self.weight = mesh.put(taps, ttnn.bfloat16, ttnn.TILE_LAYOUT, shard_dim=cut)  # [taps, 1, 1, width]
        self.bias = None
        if hf_conv.bias is not None:
            bias = weights.dealt(hf_conv.bias.detach()[:, None], sizes, mesh.tensor_ways).T[None, None]
            self.bias = mesh.put(bias, ttnn.bfloat16, ttnn.TILE_LAYOUT, shard_dim=cut)
        self.compute = compute_config()
        self.taps, self.width = self.weight.shape[0], self.weight.shape[-1]
        states.inputs = self.taps - 1
        self.state = states.zeros((self.taps - 1, 1, USERS, self.width), ttnn.bfloat16)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        y = self.decode(x) if step.is_decode else self.prefill(x, step)
        return y if self.bias is None else ttnn.add(y, self.bias)

    def prefill(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        rows, before = x.shape[-2], self.taps - 1
        if step.start:
            past = ttnn.slice(self.state, (0, 0, step.row, 0), (before, 1, step.row + 1, self.width))
            past = ttnn.reshape(past, (1, 1, before, self.width))
        else:
            past = ttnn.zeros(
                (1, 1, before, self.width), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=self.state.device()
            )
        whole = ttnn.concat([past, x], dim=2)
        # The last inputs, looked up as rows of a table, once for each user. (update_cache takes no row wider than 512.)
        last = ttnn.embedding(step.tokens.ends, whole, layout=ttnn.TILE_LAYOUT)
        last = ttnn.reshape(last, (before, 1, USERS, self.width))
        ttnn.copy(ttnn.where(step.tokens.user, last, self.state), self.state)
        total = None
        for j in range(self.taps):
            tap = ttnn.slice(self.weight, (j, 0, 0, 0), (j + 1, 1, 1, self.width))
            late = ttnn.slice(whole, (0, 0, j, 0), (1, 1, j + rows, self.width))
            term = ttnn.mul(late, tap, dtype=ttnn.float32)
            total = term if total is None else ttnn.add(total, term)
        return total

    def decode(self, x: ttnn.Tensor) -> ttnn.Tensor:
        window = ttnn.concat([self.state, x], dim=0)  # [taps, 1, 32, width]
        moved = ttnn.slice(window, (1, 0, 0, 0), (self.taps, 1, USERS, self.width))
        ttnn.copy(moved, self.state)
        terms = ttnn.mul(window, self.weight, dtype=ttnn.float32)
        return ttnn.experimental.fast_reduce_nc(terms, dims=[0], compute_kernel_config=self.compute)


class ShortConv(torch.nn.Module):
    """out(C * conv(B * x)) of B, C and x = in(h): LFM2's layers without attention. h [1, 1, rows, hidden].

    B, C and x are column-parallel, out is row-parallel.
    """

    def __init__(self, hf_conv: torch.nn.Module, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.mesh, self.compute = mesh, precision.linear
        hidden = hf_conv.out_proj.weight.shape[0]
        if hidden % (TILE * mesh.tensor_ways):
            raise ValueError(
                f"{hidden} columns of a convolution are not whole tiles on each of {mesh.tensor_ways} chips"
            )
        self.in_proj, self.in_bias = weights.blocks(hf_conv.in_proj, (hidden,) * 3, mesh, precision.attention)
        self.conv = CausalConv(hf_conv.conv, (hidden,), cache.states, mesh)
        self.out_proj = weights.row(hf_conv.out_proj.weight, mesh, precision.attention)
        self.out_bias = None if hf_conv.out_proj.bias is None else weights.vector(hf_conv.out_proj.bias, mesh)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        place, rows, width = x.memory_config(), x.shape[-2], self.conv.width
        both = ttnn.linear(x, self.in_proj, bias=self.in_bias, memory_config=place, compute_kernel_config=self.compute)
        b, c, inner = (ttnn.slice(both, (0, 0, 0, i * width), (1, 1, rows, (i + 1) * width)) for i in range(3))
        ttnn.deallocate(both)
        mixed = ttnn.typecast(ttnn.mul(self.conv(ttnn.mul(b, inner), step), c), ttnn.bfloat16)
        out = ttnn.linear(mixed, self.out_proj, memory_config=place, compute_kernel_config=self.compute)
        out = self.mesh.all_reduce(out)
        return out if self.out_bias is None else ttnn.add(out, self.out_bias)
