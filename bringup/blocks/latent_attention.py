"""Latent attention (DeepSeek-V3): the cache has one short vector for all heads, from which HF makes keys and values.

Here queries go to the latent's side instead: a head's q_nope times its part of kv_b_proj is held against the latents,
and what attention gives of them becomes its value afterwards. So it is attention with one KV head, whose values are
its keys.
"""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.norm import RMSNorm, epsilon
from bringup.blocks.parallel import TILE, USERS, Heads, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.rope import Rope, Rotation

CHUNK = 32  # of the flash attention: a key of 576 columns is 18 tiles wide


class LatentAttention(torch.nn.Module):
    """x [1, 1, rows, hidden] -> the same. Heads are cut over the chips, the latents [users, 1, length, rank + rope] are
    on each."""

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, precision: Precision, rank: int):
        super().__init__()
        hf, n = hf_attention, config.num_attention_heads
        if n % mesh.tensor_ways:
            raise ValueError(f"latent attention: {n} heads are not equal shares of {mesh.tensor_ways} chips")
        self.mesh, self.compute, self.sdpa_compute = mesh, precision.linear, precision.sdpa
        self.exact_exp, self.scale, self.rank = precision.exact_exp, hf.scaling, rank
        self.nope, self.rope_dim, self.v_dim = hf.qk_nope_head_dim, hf.qk_rope_head_dim, hf.v_head_dim
        self.heads = Heads.over(mesh.tensor_ways, n, n)
        self.n = self.heads.n_query
        order = Rotation.of(config).order(self.rope_dim)
        norm = lambda hf_norm: RMSNorm(hf_norm, epsilon(hf_norm), mesh, precision)  # noqa: E731
        self.q_a_proj, q = None, hf.q_proj
        if hf.q_lora_rank is not None:
            self.q_a_proj = weights.replicated(hf.q_a_proj.weight, mesh, precision.attention)
            self.q_a_bias = None if hf.q_a_proj.bias is None else weights.vector(hf.q_a_proj.bias, mesh)
            self.q_a_layernorm, q = norm(hf.q_a_layernorm), hf.q_b_proj
        nope, rope = q.weight.detach().unflatten(0, (n, -1)).split((self.nope, self.rope_dim), 1)
        self.q_nope, self.q_turned = (
            weights.column(part.flatten(0, 1), mesh, precision.attention)
            for part in (nope, weights.columns(rope, order, 1))
        )
        kv_a = hf.kv_a_proj_with_mqa
        turned = lambda w: torch.cat((w[:rank], weights.columns(w[rank:], order)))  # noqa: E731
        self.kv_a_proj = weights.replicated(turned(kv_a.weight.detach()), mesh, precision.attention)
        self.kv_a_bias = None if kv_a.bias is None else weights.vector(turned(kv_a.bias.detach()), mesh)
        self.kv_a_layernorm = norm(hf.kv_a_layernorm)
        up_k, up_v = hf.kv_b_proj.weight.detach().unflatten(0, (n, -1)).split((self.nope, self.v_dim), 1)
        self.up_k = weights.experts(up_k.transpose(1, 2), mesh, precision.attention)  # [1, heads, nope, rank]
        self.up_v = weights.experts(up_v, mesh, precision.attention)  # [1, heads, rank, v]
        self.o_proj = weights.row(hf.o_proj.weight, mesh, precision.attention)
        self.o_bias = weights.row_bias(hf.o_proj.bias, mesh)
        self.q_rope, self.k_rope = Rope(), Rope()
        self.width = rank + self.rope_dim
        self.cache = cache.latents(self.width, mesh, precision)
        self.cache_len = cache.length
        self.q_rows = mesh.one_user_a_core(round_up(self.n, TILE), self.rope_dim)
        self.k_row = mesh.one_user_a_core(TILE, self.rope_dim)
        self.latent_row = mesh.one_user_a_core(TILE, self.width)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        given = {"compute_kernel_config": self.compute}
        q = x
        if self.q_a_proj is not None:
            q = self.q_a_layernorm(ttnn.linear(x, self.q_a_proj, bias=self.q_a_bias, **given))
        nope, turned = (ttnn.linear(q, w, **given) for w in (self.q_nope, self.q_turned))
        q_latent = ttnn.matmul(self.by_head(nope), self.up_k, **given)  # [1, heads, rows, rank]
        kv, rows = ttnn.linear(x, self.kv_a_proj, bias=self.kv_a_bias, **given), x.shape[-2]
        latent = self.kv_a_layernorm(ttnn.slice(kv, (0, 0, 0, 0), (1, 1, rows, self.rank)))
        k_turned = ttnn.slice(kv, (0, 0, 0, self.rank), (1, 1, rows, self.width))
        attend = self.decode if step.is_decode else self.prefill
        attended = attend(q_latent, turned, latent, k_turned, step)  # [1, heads, rows, rank]
        heads = ttnn.experimental.nlp_concat_heads(ttnn.matmul(attended, self.up_v, **given))
        heads = ttnn.to_memory_config(heads, x.memory_config())
        return self.mesh.linear_sum(heads, self.o_proj, self.o_bias, self.compute)

    def by_head(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 1, rows, heads * dim] -> [1, heads, rows, dim]"""
        return ttnn.permute(ttnn.reshape(x, (1, x.shape[-2], self.n, x.shape[-1] // self.n)), (0, 2, 1, 3))

    def prefill(self, q_latent, q_turned, latent, k_turned, step) -> ttnn.Tensor:
        q = ttnn.concat([q_latent, self.q_rope(self.by_head(q_turned), step)], dim=3)
        k = ttnn.concat([latent, self.k_rope(k_turned, step)], dim=3)
        if self.cache.dtype != ttnn.bfloat16:
            k = ttnn.typecast(k, self.cache.dtype)
        self.cache.fill(k, k, step)
        return self.of_latent(self.cache.attend_prompt(q, k, k, step, **self._sdpa()))

    def decode(self, q_latent, q_turned, latent, k_turned, step) -> ttnn.Tensor:
        q_turned = ttnn.reshape(q_turned, (1, USERS, self.n, self.rope_dim))
        k_turned = ttnn.reshape(k_turned, (1, USERS, 1, self.rope_dim))
        q_turned = self.q_rope(ttnn.to_memory_config(q_turned, self.q_rows), step)
        k_turned = self.k_rope(ttnn.to_memory_config(k_turned, self.k_row), step)
        q_turned, k_turned = (ttnn.to_memory_config(t, ttnn.DRAM_MEMORY_CONFIG) for t in (q_turned, k_turned))
        q = ttnn.concat([ttnn.permute(q_latent, (0, 2, 1, 3)), q_turned], dim=3)  # [1, users, heads, width]
        k = ttnn.concat([ttnn.reshape(latent, (1, USERS, 1, self.rank)), k_turned], dim=3)
        k = ttnn.to_memory_config(k, self.latent_row)
        self.cache.update(k, k, step)
        return ttnn.permute(self.of_latent(self.cache.attend(q, step, **self._sdpa())), (0, 2, 1, 3))

    def of_latent(self, attended: ttnn.Tensor) -> ttnn.Tensor:
        """Without the columns that turn, which are no part of a value."""
        return ttnn.slice(attended, (0, 0, 0, 0), (*tuple(attended.shape)[:3], self.rank))

    def _sdpa(self) -> dict:
        program = ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=self.mesh.grid, q_chunk_size=CHUNK, k_chunk_size=CHUNK,
            exp_approx_mode=not self.exact_exp,
        )  # fmt: skip
        return {"program_config": program, "compute_kernel_config": self.sdpa_compute, "scale": self.scale}
