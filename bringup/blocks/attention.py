"""Grouped-query attention with a KV cache on the device.

A prompt is one user's: its keys and values go to that user's part of the cache. A decode step is one token for each of
32 users, who may be at different positions.
"""

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.norm import HeadNorm
from bringup.blocks.parallel import TILE, Heads, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.rope import Rope

MAX_CHUNK = 128  # of the flash attention: 512 x head_dim 128 is beyond a core's L1 (ttnn 0.81.1, recorded contract)


class Attention(torch.nn.Module):
    """x [1, 1, rows, hidden] -> [1, 1, rows, hidden]; q, k, v are one column-parallel product, o is row-parallel.

    Biases of q, k, v and norms over each head of q and k are there where the HF layer has them. `cache` is the model's
    (`Rows` or `Blocks`).
    """

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, precision: Precision):
        super().__init__()
        self.mesh, self.compute, self.sdpa_compute = mesh, precision.linear, precision.sdpa
        self.exact_exp = precision.exact_exp
        self.head_dim = config.head_dim
        self.heads = Heads.over(mesh.tensor_ways, config.num_attention_heads, config.num_key_value_heads)
        hf = hf_attention
        if hf.o_proj.bias is not None:
            raise ValueError("o_proj has a bias, which this block does not add")
        q, k, v = hf.q_proj, hf.k_proj, hf.v_proj
        self.qkv_proj = weights.fused_qkv(
            q.weight, k.weight, v.weight, self.heads, self.head_dim, mesh, precision.attention
        )
        self.qkv_bias = None
        if q.bias is not None:
            self.qkv_bias = weights.fused_qkv_bias(q.bias, k.bias, v.bias, self.heads, self.head_dim, mesh)
        self.o_proj = weights.attention_output(hf.o_proj.weight, self.heads, self.head_dim, mesh, precision.attention)
        self.q_norm, self.k_norm = (self._head_norm(hf, name, config, precision) for name in ("q_norm", "k_norm"))
        self.q_rope, self.k_rope = Rope(), Rope()

        self.cache = cache.layer(self.heads, self.head_dim, mesh, precision)
        self.cache_len = cache.length
        self.one_user_a_core = mesh.one_user_a_core(round_up(self.heads.n_query, TILE), self.head_dim)

    def _head_norm(self, hf_attention, name: str, config, precision: Precision) -> torch.nn.Module:
        hf_norm = getattr(hf_attention, name, None)
        if hf_norm is None:
            return torch.nn.Identity()
        return HeadNorm(hf_norm, config.rms_norm_eps, self.head_dim, self.mesh, precision)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        qkv = ttnn.linear(
            x, self.qkv_proj, bias=self.qkv_bias, memory_config=x.memory_config(), compute_kernel_config=self.compute
        )
        heads = self.decode(qkv, step) if step.is_decode else self.prefill(qkv, step)
        out = ttnn.linear(heads, self.o_proj, memory_config=x.memory_config(), compute_kernel_config=self.compute)
        ttnn.deallocate(heads)
        return self.mesh.all_reduce(out)

    def prefill(self, qkv: ttnn.Tensor, step) -> ttnn.Tensor:
        """One user's prompt, or a chunk of it: qkv [1, 1, S, ...] -> [1, 1, S, n_query * head_dim]; fills the cache."""
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv, transpose_k_heads=False
        )
        ttnn.deallocate(qkv)
        q, k = self.q_rope(self.q_norm(q), step), self.k_rope(self.k_norm(k), step)
        if self.cache.dtype != ttnn.bfloat16:  # a prompt is filled in in the cache's dtype only
            k, v = ttnn.typecast(k, self.cache.dtype), ttnn.typecast(v, self.cache.dtype)
        self.cache.fill(k, v, step)
        attended = self.cache.attend_prompt(q, k, v, step, **self._sdpa(q.shape[-2], k.shape[-2]))
        for used in (q, k, v):
            ttnn.deallocate(used)
        return ttnn.experimental.nlp_concat_heads(attended)

    def decode(self, qkv: ttnn.Tensor, step) -> ttnn.Tensor:
        """One token of 32 users: qkv [1, 1, 32, ...] -> [1, 1, 32, n_query * head_dim]; a position of -1 is no user.

        The heads stay height sharded, one user a core, and are never reshaped: with one KV head a chip that would come
        out width sharded, which the rotation refuses (ttnn 0.81.1).
        """
        q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv
        )
        ttnn.deallocate(qkv)
        q, k = self.q_rope(self.q_norm(q), step), self.k_rope(self.k_norm(k), step)
        self.cache.update(k, v, step)
        attended = self.cache.attend(q, step, **self._sdpa(TILE, self.cache_len))
        for used in (q, k, v):
            ttnn.deallocate(used)
        attended = ttnn.to_memory_config(attended, self.one_user_a_core)
        return ttnn.experimental.nlp_concat_heads_decode(  # users on cores that are no rectangle need the cores named
            attended, num_heads=self.heads.n_query, sub_core_grids=self.mesh.cores
        )

    def _sdpa(self, queries: int, keys: int) -> dict:
        """Chunks that divide both lengths, and the compute config; the scale is the library's, 1 / sqrt(head_dim).

        A program config keeps a step to 16 cores a head; without one, few heads get more than the library can join
        (ttnn 0.81.1: 64, and 110 cores on Blackhole).
        """
        program = ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=self.mesh.grid,
            q_chunk_size=min(MAX_CHUNK, queries & -queries),
            k_chunk_size=min(MAX_CHUNK, keys & -keys),
            exp_approx_mode=not self.exact_exp,
        )
        return {"program_config": program, "compute_kernel_config": self.sdpa_compute}
