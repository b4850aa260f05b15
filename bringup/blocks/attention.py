"""Grouped-query attention with a KV cache on the device.

A prompt is one user's: its keys and values go to that user's part of the cache. A decode step is one token for each of
32 users, who may be at different positions.
"""

from typing import NamedTuple

import torch
import ttnn

from bringup.blocks import weights
from bringup.blocks.cache import Rows
from bringup.blocks.hf import named
from bringup.blocks.norm import CutRMSNorm, HeadNorm, epsilon
from bringup.blocks.parallel import TILE, USERS, Heads, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.rope import Rope, Rotation, v_order

MAX_CHUNK = 128  # of the flash attention: 512 x head_dim 128 is beyond a core's L1 (ttnn 0.81.1, recorded contract)
MASKED = -1e9  # of a score that is not to be seen
#: HF's names of what stands where.
OUTPUT = ("o_proj", "dense", "out_proj")
GATES = ("gate_proj", "g_proj")
NORMS = {
    "q_norm": ("q_norm", "q_layernorm", "query_layernorm"),
    "k_norm": ("k_norm", "k_layernorm", "key_layernorm"),
    "v_norm": ("v_norm",),
}


class Linear(NamedTuple):
    """Weight [out, in] and bias [out] or None of HF's linear layer, or of a part of one."""

    weight: torch.Tensor
    bias: torch.Tensor | None


class Attention(torch.nn.Module):
    """x [1, 1, rows, hidden] -> [1, 1, rows, hidden]; q, k, v are one column-parallel product, o is row-parallel.

    Biases, and norms of q, k and v (by `norm`, each head on its own), are there where the HF layer has them. A position
    sees `window` positions, its own the last; `scale` is that of scores, where it is not 1 / sqrt(head_dim). `rope`
    turns q and k, by the tables of `layer_type` where there are several. `cache` is the model's (`Rows`, `Blocks`).
    """

    def __init__(
        self,
        hf_attention: torch.nn.Module,
        config,
        cache,
        mesh: Mesh,
        precision: Precision,
        norm: type[HeadNorm] = HeadNorm,
        window: int | None = None,
        scale: float | None = None,
        rope: type[Rope] = Rope,
        layer_type: str | None = None,
    ):
        super().__init__()
        self.mesh, self.compute, self.sdpa_compute = mesh, precision.linear, precision.sdpa
        self.exact_exp = precision.exact_exp
        self.head_dim = config.head_dim
        self.heads = Heads.over(mesh.tensor_ways, config.num_attention_heads, config.num_key_value_heads)
        self.qk_order, self.v_order = Rotation.of(config).order(self.head_dim), v_order(self.head_dim)
        self.width = len(self.v_order)
        q, k, v, o = projections(hf_attention, config)
        self._load(q, k, v, precision)
        self.o_proj = weights.attention_output(o.weight, self.heads, self.v_order, mesh, precision.format("o"))
        self.o_bias = weights.row_bias(o.bias, mesh)
        self.q_norm, self.k_norm = (self._norm(hf_attention, name, norm, precision) for name in ("q_norm", "k_norm"))
        hf_norm = named(hf_attention, NORMS["v_norm"])
        self.v_norm = torch.nn.Identity() if hf_norm is None else HeadNorm(hf_norm, self.v_order, mesh, precision)
        self.q_rope, self.k_rope = rope(layer_type), rope(layer_type)
        sinks, factor = getattr(hf_attention, "sinks", None), self.head_dim**-0.5 if scale is None else scale
        self.prompt_sinks, self.step_sinks = weights.sinks(sinks, self.heads, factor, mesh)

        self.sdpa: dict[str, float] = {} if window is None else {"sliding_window_size": window}
        if scale is not None or self.width != self.head_dim:
            self.sdpa["scale"] = self.head_dim**-0.5 if scale is None else scale
        self.cache = self._cache(cache, layer_type, precision)
        self.cache_len = cache.length
        self.one_user_a_core = mesh.one_user_a_core(round_up(self.heads.n_query, TILE), self.width)

    def _load(self, q: Linear, k: Linear | None, v: Linear | None, precision: Precision):
        if k is None or v is None:
            raise ValueError(
                "attention over keys of its own: HF's has no k_proj; `SharedAttention` reads another layer's"
            )
        orders = self.heads, self.qk_order, self.v_order, self.mesh
        self.qkv_proj = weights.fused_qkv(q.weight, k.weight, v.weight, *orders, precision.format("qkv"))
        self.qkv_bias = None if q.bias is None else weights.fused_qkv_bias(q.bias, k.bias, v.bias, *orders)

    def _cache(self, cache, layer_type: str | None, precision: Precision):
        return cache.layer(self.heads, self.width, self.mesh, precision, layer_type)

    def _norm(self, hf_attention: torch.nn.Module, name: str, norm: type[HeadNorm], precision: Precision):
        hf_norm = named(hf_attention, NORMS[name])
        return torch.nn.Identity() if hf_norm is None else norm(hf_norm, self.qk_order, self.mesh, precision)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        qkv = self.project(x)
        heads = self.decode(qkv, step) if step.is_decode else self.prefill(qkv, step)
        return self.output(heads)

    def project(self, x: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 1, rows, hidden] -> [1, 1, rows, q | k | v of the chip's heads]"""
        return ttnn.linear(
            x, self.qkv_proj, bias=self.qkv_bias, memory_config=x.memory_config(), compute_kernel_config=self.compute
        )

    def turn(self, q: ttnn.Tensor, k: ttnn.Tensor, step) -> tuple[ttnn.Tensor, ttnn.Tensor]:
        """q and k, normed where they are, at their positions."""
        return self.q_rope(self.q_norm(q), step), self.k_rope(self.k_norm(k), step)

    def output(self, heads: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 1, rows, heads side by side] -> [1, 1, rows, hidden]; frees its input."""
        return self.mesh.linear_sum(heads, self.o_proj, self.o_bias, self.compute)

    def prefill(self, qkv: ttnn.Tensor, step) -> ttnn.Tensor:
        """One user's prompt, or a chunk of it: qkv [1, 1, S, ...] -> [1, 1, S, n_query * width]; fills the cache."""
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv, transpose_k_heads=False
        )
        ttnn.deallocate(qkv)
        (q, k), v = self.turn(q, k, step), self.v_norm(v)
        if self.cache.dtype != ttnn.bfloat16:  # a prompt is filled in in the cache's dtype only
            k, v = ttnn.typecast(k, self.cache.dtype), ttnn.typecast(v, self.cache.dtype)
        self.cache.fill(k, v, step)
        attended = self.attend_prompt(q, k, v, step)
        for used in (q, k, v):
            ttnn.deallocate(used)
        return ttnn.experimental.nlp_concat_heads(attended)

    def attend_prompt(self, q: ttnn.Tensor, k: ttnn.Tensor, v: ttnn.Tensor, step) -> ttnn.Tensor:
        """q [1, n_query, S, width] over k and v, and over what the cache holds of this prompt"""
        return self.cache.attend_prompt(q, k, v, step, **self._sdpa(q.shape[-2], q.shape[-2], self.prompt_sinks))

    def decode(self, qkv: ttnn.Tensor, step) -> ttnn.Tensor:
        """One token of 32 users: qkv [1, 1, 32, ...] -> [1, 1, 32, n_query * width]; a position of -1 is no user.

        The heads stay height sharded, one user a core, and are never reshaped: with one KV head a chip that would come
        out width sharded, which the rotation refuses (ttnn 0.81.1).
        """
        q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
            qkv, num_heads=self.heads.n_query, num_kv_heads=self.heads.n_kv
        )
        ttnn.deallocate(qkv)
        (q, k), v = self.turn(q, k, step), self.v_norm(v)
        self.cache.update(k, v, step)
        attended = self.attend(q, step)
        for used in (q, k, v):
            ttnn.deallocate(used)
        return self.side_by_side(attended)

    def side_by_side(self, attended: ttnn.Tensor) -> ttnn.Tensor:
        """[1, 32, n_query, width] of a step -> [1, 1, 32, n_query * width]"""
        attended = ttnn.to_memory_config(attended, self.one_user_a_core)
        return ttnn.experimental.nlp_concat_heads_decode(  # users on cores that are no rectangle need the cores named
            attended, num_heads=self.heads.n_query, sub_core_grids=self.mesh.cores
        )

    def attend(self, q: ttnn.Tensor, step) -> ttnn.Tensor:
        """q [1, 32, n_query, width], one token of every user, over what the cache holds of it"""
        return self.cache.attend(q, step, **self._sdpa(TILE, self.cache_len, self.step_sinks))

    def _sdpa(self, queries: int, keys: int, sinks: ttnn.Tensor | None) -> dict:
        """Chunks that divide both lengths, the compute config, and what of scale and window is not the library's.

        A program config keeps a step to 16 cores a head; without one, few heads get more than the library can join
        (ttnn 0.81.1: 64, and 110 cores on Blackhole).
        """
        program = ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=self.mesh.grid,
            q_chunk_size=min(MAX_CHUNK, queries & -queries),
            k_chunk_size=min(MAX_CHUNK, keys & -keys),
            exp_approx_mode=not self.exact_exp,
        )
        found = {"program_config": program, "compute_kernel_config": self.sdpa_compute, **self.sdpa}
        return found if sinks is None else found | {"attention_sink": sinks}


class NormAfterRotation(Attention):
    """q and k are normed after they were turned: HunYuan's."""

    def turn(self, q: ttnn.Tensor, k: ttnn.Tensor, step) -> tuple[ttnn.Tensor, ttnn.Tensor]:
        return self.q_norm(self.q_rope(q, step)), self.k_norm(self.k_rope(k, step))


class NormOverHeads(Attention):
    """q and k are normed over all heads together, before they are heads: OLMo-2's."""

    def _norm(self, hf_attention: torch.nn.Module, name: str, norm: type[HeadNorm], precision: Precision):
        hf_norm = named(hf_attention, NORMS[name])
        shares = self.heads.query if name == "q_norm" else self.heads.kv
        slots = [head for share in shares for head in share]
        size = len(hf_norm.weight)
        copies = sum(head is not None for head in slots) * self.head_dim // size
        weight = weights.of_heads(hf_norm.weight[:, None], tuple(slots), self.qk_order)[:, 0]
        return CutRMSNorm(weight, size, epsilon(hf_norm), self.mesh, precision, copies)

    def project(self, x: ttnn.Tensor) -> ttnn.Tensor:
        qkv = super().project(x)
        rows, q_end = qkv.shape[-2], self.heads.n_query * self.width
        k_end = q_end + self.heads.n_kv * self.width
        q, k, v = (
            ttnn.slice(qkv, (0, 0, 0, start), (1, 1, rows, stop))
            for start, stop in ((0, q_end), (q_end, k_end), (k_end, qkv.shape[-1]))
        )
        place = qkv.memory_config()
        ttnn.deallocate(qkv)
        normed = [self.q_norm(q), self.k_norm(k), v]
        together = ttnn.concat(normed, dim=3, memory_config=place)
        for used in (q, k, *normed):
            ttnn.deallocate(used)
        return together

    def turn(self, q: ttnn.Tensor, k: ttnn.Tensor, step) -> tuple[ttnn.Tensor, ttnn.Tensor]:
        return self.q_rope(q, step), self.k_rope(k, step)


class SubNormAttention(Attention):
    """What the heads give is normed before the output projection: BitNet's."""

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, precision: Precision, **more):
        super().__init__(hf_attention, config, cache, mesh, precision, **more)
        hf_norm = hf_attention.attn_sub_norm
        slots = tuple(head for share in self.heads.query for head in share)
        weight = weights.of_heads(hf_norm.weight[:, None], slots, self.v_order)[:, 0]
        self.attn_sub_norm = CutRMSNorm(weight, len(hf_norm.weight), epsilon(hf_norm), mesh, precision)

    def output(self, heads: ttnn.Tensor) -> ttnn.Tensor:
        if heads.is_sharded():  # of a step; the norm would want a program config of that
            heads = ttnn.to_memory_config(heads, ttnn.L1_MEMORY_CONFIG)
        normed = self.attn_sub_norm(heads)
        ttnn.deallocate(heads)
        return super().output(normed)


class GatedAttention(Attention):
    """What the heads give is multiplied by sigmoid(gate(x)) before the output projection: Qwen3-Next's.

    HF has the gate's rows in q_proj, behind those of each head of q, or in a projection of its own, which may have one
    row for a whole head.
    """

    def __init__(self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, precision: Precision, **more):
        super().__init__(hf_attention, config, cache, mesh, precision, **more)
        gate = output_gate(hf_attention, config)
        place = self.heads, self.v_order, mesh
        self.gate_proj = weights.queries(gate.weight, *place, precision.attention)
        self.gate_bias = None if gate.bias is None else weights.queries(gate.bias[:, None], *place, ttnn.bfloat16)

    def forward(self, x: ttnn.Tensor, step) -> ttnn.Tensor:
        given = {"memory_config": x.memory_config(), "compute_kernel_config": self.compute}
        gate = ttnn.linear(x, self.gate_proj, bias=self.gate_bias, **given)
        qkv = self.project(x)
        heads = self.decode(qkv, step) if step.is_decode else self.prefill(qkv, step)
        if heads.is_sharded():
            heads = ttnn.to_memory_config(heads, x.memory_config())
        gated = ttnn.mul(heads, gate, input_tensor_b_activations=[ttnn.UnaryOpType.SIGMOID])
        for used in (heads, gate):
            ttnn.deallocate(used)
        return self.output(gated)


def projections(hf_attention: torch.nn.Module, config) -> tuple[Linear, Linear | None, Linear | None, Linear]:
    """q, k, v and o of HF's attention, whose q, k and v may be one matrix, one after the other, or k and v one; None
    for k and v where it has neither."""
    out = named(hf_attention, OUTPUT)
    if not any(hasattr(hf_attention, name) for name in ("qkv_proj", "k_proj")):  # it has another layer's keys
        q = hf_attention.q_proj
        return Linear(q.weight, q.bias), None, None, Linear(out.weight, out.bias)
    if hasattr(hf_attention, "qkv_proj"):
        fused = hf_attention.qkv_proj
        rows = [n * config.head_dim for n in (config.num_attention_heads, *[config.num_key_value_heads] * 2)]
        biases = [None] * 3 if fused.bias is None else fused.bias.split(rows)
        parts = [Linear(*part) for part in zip(fused.weight.split(rows), biases, strict=True)]
    else:
        k_proj, v_proj = hf_attention.k_proj, hf_attention.v_proj
        found = hf_attention.q_proj, k_proj, k_proj if v_proj is None else v_proj
        parts = [Linear(p.weight, p.bias) for p in found]
        if _holds_gate(hf_attention, config):
            parts[0] = _of_query(hf_attention.q_proj, config, 0)
    q, k, v = parts
    return q, k, v, Linear(out.weight, out.bias)


def is_gated(hf_attention: torch.nn.Module, config) -> bool:
    """Is there a gate, or does HF's q_proj give twice what its heads take?"""
    return named(hf_attention, GATES) is not None or _holds_gate(hf_attention, config)


def _holds_gate(hf_attention: torch.nn.Module, config) -> bool:
    q_proj = getattr(hf_attention, "q_proj", None)
    return q_proj is not None and len(q_proj.weight) == 2 * config.num_attention_heads * config.head_dim


def output_gate(hf_attention: torch.nn.Module, config) -> Linear:
    """A row for each value of the heads: HF's own gate, or the second half of each head's rows in q_proj."""
    gate = named(hf_attention, GATES)
    if gate is None:
        return _of_query(hf_attention.q_proj, config, 1)
    times = config.num_attention_heads * config.head_dim // len(gate.weight)
    return Linear(*(p if p is None else p.repeat_interleave(times, 0) for p in (gate.weight, gate.bias)))


def _of_query(q_proj: torch.nn.Linear, config, which: int) -> Linear:
    rows = lambda p: None if p is None else p.unflatten(0, (-1, 2, config.head_dim))[:, which].flatten(0, 1)  # noqa: E731
    return Linear(rows(q_proj.weight), rows(q_proj.bias))


class SoftCappedAttention(Attention):
    """Scores go through cap * tanh(scores / cap) before the softmax: Gemma-2's.

    The library's attention kernels have no step for that: products, tanh and softmax are ops here, and scores float32.
    Every user has a row of the cache; who sees whom is a table of rows, looked up by position.
    """

    def __init__(
        self, hf_attention: torch.nn.Module, config, cache, mesh: Mesh, precision: Precision, cap: float, **more
    ):
        super().__init__(hf_attention, config, cache, mesh, precision, **more)
        if not isinstance(cache, Rows):
            raise ValueError(
                "attention with a soft cap reads each user's row of the cache, and 32 rows of so many positions do not "
                "fit\n  hint   a shorter max_seq_len, or more chips"
            )
        self.cap, self.scale = cap, self.sdpa.get("scale", self.head_dim**-0.5)
        at = torch.arange(self.cache_len)
        window = self.sdpa.get("sliding_window_size", self.cache_len)
        hidden = (at[None] > at[:, None]) | (at[None] <= at[:, None] - window)
        mask = torch.zeros(hidden.shape).masked_fill(hidden, MASKED)
        #: For a prompt [1, 1, length, length], for look-up [length, length].
        self.masks = mesh.put(mask[None, None], ttnn.float32, ttnn.TILE_LAYOUT), mesh.put(mask, ttnn.bfloat16)

    def attend_prompt(self, q: ttnn.Tensor, k: ttnn.Tensor, v: ttnn.Tensor, step) -> ttnn.Tensor:
        length, group = q.shape[-2], self.heads.n_query // self.heads.n_kv
        mask = ttnn.slice(self.masks[0], (0, 0, 0, 0), (1, 1, length, length))
        q = ttnn.reshape(q, (1, self.heads.n_kv, group * length, self.width))
        attended = self.capped(q, k, v, mask, (self.heads.n_kv, group, length, length))
        return ttnn.reshape(attended, (1, self.heads.n_query, length, self.width))

    def attend(self, q: ttnn.Tensor, step) -> ttnn.Tensor:
        group = self.heads.n_query // self.heads.n_kv
        mask = ttnn.embedding(step.at, self.masks[1], layout=ttnn.TILE_LAYOUT)
        mask = ttnn.typecast(ttnn.reshape(mask, (USERS, 1, 1, self.cache_len)), ttnn.float32)
        q = ttnn.reshape(ttnn.to_memory_config(q, ttnn.DRAM_MEMORY_CONFIG), (USERS, self.heads.n_kv, group, self.width))
        shape = (USERS, self.heads.n_kv, group, self.cache_len)
        attended = self.capped(q, self.cache.keys, self.cache.values, mask, shape)
        return ttnn.reshape(attended, (1, USERS, self.heads.n_query, self.width))

    def capped(self, q, k, v, mask: ttnn.Tensor, shape: tuple[int, ...]) -> ttnn.Tensor:
        """softmax(cap * tanh(q @ k.T * scale / cap) + mask) @ v; `shape` of the scores beside the mask."""
        products = {"compute_kernel_config": self.compute}
        scores = ttnn.matmul(q, k, transpose_b=True, dtype=ttnn.float32, **products)
        turned = ttnn.multiply(ttnn.tanh(ttnn.multiply(scores, self.scale / self.cap)), self.cap)
        masked = ttnn.add(ttnn.reshape(turned, shape), mask)
        shares = ttnn.softmax(masked, dim=-1, numeric_stable=True, compute_kernel_config=self.sdpa_compute)
        shares = ttnn.reshape(ttnn.typecast(shares, ttnn.bfloat16), tuple(scores.shape))
        attended = ttnn.matmul(shares, v, **products)
        for used in (scores, turned, masked, shares):
            ttnn.deallocate(used)
        return attended
