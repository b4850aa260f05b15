"""Attention of layers without keys and values of their own: Gemma-4's last ones, which read those of a layer before."""

import ttnn

from bringup.blocks import weights
from bringup.blocks.attention import Attention, Linear
from bringup.blocks.parallel import USERS
from bringup.blocks.precision import Precision


class SharedAttention(Attention):
    """Queries over the keys and values that the last layer before of the same type has in the cache.

    That layer has put this pass's keys there when the queries come. q is column-parallel, o row-parallel, as in
    `Attention`.
    """

    def _load(self, q: Linear, k: Linear | None, v: Linear | None, precision: Precision):
        if k is not None:
            raise ValueError("attention over another layer's keys: HF's has a k_proj of its own")
        order = self.heads, self.qk_order, self.mesh
        self.q_proj = weights.queries(q.weight, *order, precision.format("qkv"))
        self.q_bias = None if q.bias is None else weights.queries(q.bias[:, None], *order, ttnn.bfloat16)

    def _cache(self, cache, layer_type: str | None, precision: Precision):
        if layer_type not in cache.latest:
            raise ValueError(f"attention over another layer's keys: no layer before is of type {layer_type}")
        return cache.latest[layer_type]

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        given = {"memory_config": x.memory_config(), "compute_kernel_config": self.compute}
        q = ttnn.linear(x, self.q_proj, bias=self.q_bias, **given)
        return self.output(self.decode(q, step) if step.is_decode else self.prefill(q, step))

    def prefill(self, q: ttnn.Tensor, step) -> ttnn.Tensor:
        """q [1, 1, S, n_query * width] of one user's prompt, or of a chunk of it -> the same"""
        rows = q.shape[-2]
        by_head = ttnn.permute(ttnn.reshape(q, (1, rows, self.heads.n_query, self.width)), (0, 2, 1, 3))
        ttnn.deallocate(q)
        q = self.q_rope(self.q_norm(by_head), step)
        k, v = self.cache.filled(rows, step)
        attended = self.attend_prompt(q, k, v, step)
        for used in (q, k, v):
            if used is not None:
                ttnn.deallocate(used)
        return ttnn.experimental.nlp_concat_heads(attended)

    def decode(self, q: ttnn.Tensor, step) -> ttnn.Tensor:
        """q [1, 1, 32, n_query * width] of one token of 32 users -> the same"""
        by_user = ttnn.reshape(q, (1, USERS, self.heads.n_query, self.width))
        q = self.q_rope(self.q_norm(ttnn.to_memory_config(by_user, self.one_user_a_core)), step)
        attended = self.attend(q, step)
        ttnn.deallocate(q)
        return self.side_by_side(attended)
