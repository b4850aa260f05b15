"""Linear attention by the gated delta rule (Qwen3-Next, Qwen3.5): a matrix for each head and user instead of its keys.

The matrix decays, forgets what a key held, and learns a value for it; a query reads it. A prompt goes through it in
chunks, a decode step token by token, both in ops of the library.
"""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.parallel import USERS, Mesh
from bringup.blocks.precision import Precision, compute_config
from bringup.blocks.state import CausalConv

EPSILON = 1e-6  # under which HF takes the length of a key as 0
CHUNK = 64  # tokens of a prompt that the op solves at once: the library's default (ttnn 0.81.1)


class GatedDeltaNet(torch.nn.Module):
    """x [1, 1, rows, hidden] -> the same. Heads are cut over the chips: in is column-parallel, out row-parallel.

    State: `CausalConv`'s, and [users, value heads, key dim, value dim] float32 for as many users as the op takes at
    once, which is a core for each user's head (ttnn 0.81.1).
    """

    def __init__(self, hf_linear_attn: torch.nn.Module, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        hf, ways = hf_linear_attn, mesh.tensor_ways
        self.mesh, self.compute, self.norm_compute = mesh, precision.linear, precision.norm
        self.exact = compute_config("HiFi4")  # the only arithmetic that the rule's ops take
        if hf.num_k_heads % ways or hf.num_v_heads % ways:
            raise ValueError(
                f"linear attention: {hf.num_k_heads} key and {hf.num_v_heads} value heads are not equal shares of "
                f"{ways} chips"
            )
        self.k_heads, self.v_heads = hf.num_k_heads // ways, hf.num_v_heads // ways
        self.k_dim, self.v_dim = hf.head_k_dim, hf.head_v_dim
        sizes = (hf.key_dim, hf.key_dim, hf.value_dim)
        qkv, z, b, a = projections(hf)
        put = lambda w, parts, dtype: weights.blocks(w, parts, mesh, dtype)[0]  # noqa: E731
        self.in_proj_qkv = put(qkv, sizes, precision.attention)
        self.in_proj_z = put(z, (hf.value_dim,), precision.attention)
        self.in_proj_b, self.in_proj_a = (put(w, (hf.num_v_heads,), ttnn.bfloat16) for w in (b, a))
        self.dt_bias, self.decay = (
            mesh.put(v[None, None, None], ttnn.float32, ttnn.TILE_LAYOUT, shard_dim=3 if ways > 1 else None)
            for v in (hf.dt_bias.detach().float(), -hf.A_log.detach().float().exp())
        )
        self.conv1d = CausalConv(hf.conv1d, sizes, cache.states, mesh)
        #: A head's length is its root mean square times sqrt(dim).
        self.unit = weights.vector(torch.full((self.k_dim,), self.k_dim**-0.5), mesh)
        self.norm, self.eps = weights.vector(hf.norm.weight, mesh), hf.layer_norm_epsilon
        self.out_proj = weights.row(hf.out_proj.weight, mesh, precision.attention)
        cores = mesh.grid.x * mesh.grid.y
        if self.v_heads > cores:
            raise ValueError(f"linear attention: {self.v_heads} value heads a chip, which has {cores} cores")
        self.at_once = 1 << ((min(USERS, cores // self.v_heads)).bit_length() - 1)  # users: a power of two
        shape = (self.at_once, self.v_heads, self.k_dim, self.v_dim)
        self.states = [cache.states.zeros(shape, ttnn.float32) for _ in range(USERS // self.at_once)]

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        place = x.memory_config()
        linear = lambda w, **more: ttnn.linear(x, w, compute_kernel_config=self.compute, **more)  # noqa: E731
        mixed = ttnn.silu(self.conv1d(linear(self.in_proj_qkv), step))
        beta = ttnn.sigmoid(linear(self.in_proj_b, dtype=ttnn.float32))
        g = ttnn.mul(ttnn.softplus(ttnn.add(linear(self.in_proj_a, dtype=ttnn.float32), self.dt_bias)), self.decay)
        q, k, v = self.heads(ttnn.typecast(mixed, ttnn.bfloat16), step)
        out = self.decode(q, k, v, g, beta) if step.is_decode else self.prefill(q, k, v, g, beta, step)
        z = ttnn.silu(linear(self.in_proj_z))
        gated = ttnn.mul(out, z, memory_config=place)
        out = ttnn.linear(gated, self.out_proj, memory_config=place, compute_kernel_config=self.compute)
        ttnn.deallocate(gated)
        return self.mesh.all_reduce(out)

    def heads(self, mixed: ttnn.Tensor, step) -> list[ttnn.Tensor]:
        """[1, 1, rows, q | k | v] -> q and k of length 1 [users, tokens, heads, key dim], v [.., heads, value dim]."""
        rows, at, found = mixed.shape[-2], 0, []
        users, tokens = (USERS, 1) if step.is_decode else (1, rows)
        for count, dim in ((self.k_heads, self.k_dim), (self.k_heads, self.k_dim), (self.v_heads, self.v_dim)):
            part = ttnn.slice(mixed, (0, 0, 0, at), (1, 1, rows, at + count * dim))
            found.append(ttnn.reshape(part, (users, tokens, count, dim)))
            at += count * dim
        q, k = (
            ttnn.rms_norm(x, epsilon=EPSILON / self.k_dim, weight=self.unit, compute_kernel_config=self.norm_compute)
            for x in found[:2]
        )
        return [q, k, found[2]]

    def prefill(self, q, k, v, g, beta, step) -> ttnn.Tensor:
        """One user's prompt; padding neither decays nor teaches its matrix."""
        rows, state = g.shape[-2], None
        group, user = self.states[step.row // self.at_once], step.row % self.at_once
        if step.start:
            state = ttnn.slice(group, (user, 0, 0, 0), (user + 1, *tuple(group.shape)[1:]))
        g, beta = (ttnn.reshape(ttnn.mul(x, step.tokens.mask), (1, rows, self.v_heads)) for x in (g, beta))
        out, state = ttnn.transformer.chunk_gated_delta_rule(
            q, k, v, g, beta, initial_state=state, output_final_state=True, chunk_size=CHUNK, output_head_major=True,
            compute_kernel_config=self.exact,
        )  # fmt: skip
        ttnn.fill_cache(group, state, user)
        out = self.normed(ttnn.reshape(out, (1, self.v_heads, rows, self.v_dim)))
        return ttnn.experimental.nlp_concat_heads(out)

    def decode(self, q, k, v, g, beta) -> ttnn.Tensor:
        """One token of every user."""
        g, beta = (ttnn.reshape(x, (USERS, 1, self.v_heads)) for x in (g, beta))
        found = []
        for i, state in enumerate(self.states):
            start, end = i * self.at_once, (i + 1) * self.at_once
            of_group = [
                ttnn.slice(x, (start, *[0] * (len(x.shape) - 1)), (end, *tuple(x.shape)[1:]))
                for x in (q, k, v, g, beta)
            ]
            out, moved = ttnn.transformer.fused_recurrent_gated_delta_rule(
                *of_group, initial_state=state, output_final_state=True, compute_kernel_config=self.exact
            )
            ttnn.copy(moved, state)
            ttnn.deallocate(moved)
            found.append(out)
        out = self.normed(ttnn.concat(found, dim=0))  # [32, 1, heads, value dim]
        return ttnn.reshape(out, (1, 1, USERS, self.v_heads * self.v_dim))

    def normed(self, out: ttnn.Tensor) -> ttnn.Tensor:
        normed = ttnn.rms_norm(out, epsilon=self.eps, weight=self.norm, compute_kernel_config=self.norm_compute)
        return ttnn.typecast(normed, ttnn.bfloat16)


def projections(hf) -> tuple[torch.Tensor, ...]:
    """HF's weights [out, hidden] of q | k | v, z, b and a: of their own, or two matrices by key head (Qwen3-Next)."""
    if hasattr(hf, "in_proj_qkv"):
        return hf.in_proj_qkv.weight, hf.in_proj_z.weight, hf.in_proj_b.weight, hf.in_proj_a.weight
    per_key = hf.num_v_heads // hf.num_k_heads
    sizes = (hf.head_k_dim, hf.head_k_dim, per_key * hf.head_v_dim, per_key * hf.head_v_dim)
    qkvz = hf.in_proj_qkvz.weight.detach().unflatten(0, (hf.num_k_heads, -1)).split(sizes, 1)
    ba = hf.in_proj_ba.weight.detach().unflatten(0, (hf.num_k_heads, -1)).split((per_key, per_key), 1)
    q, k, v, z = (part.flatten(0, 1) for part in qkvz)
    b, a = (part.flatten(0, 1) for part in ba)
    return torch.cat((q, k, v)), z, b, a
