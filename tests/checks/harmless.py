"""Changes that leave a bring-up right: other orders of the same operations, other places, other programs.

Planted as in `faults`. The checklist must pass each, and the finder find nothing.
"""

import dataclasses
from contextlib import ExitStack, contextmanager
from types import MethodType

import torch
import ttnn

from bringup.blocks import GatedMLP, RMSNorm
from bringup.blocks.cache import RowCache
from bringup.blocks.parallel import TILE
from bringup.blocks.rope import Rope, RopeTables
from tests.checks.faults import of_hf, of_model, on_host, replaced

HARMLESS = []


@dataclasses.dataclass(frozen=True)
class Harmless:
    name: str
    plant: object
    checkpoint: str
    system: str


def harmless(checkpoint, system="n150"):
    def register(plant):
        HARMLESS.append(Harmless(plant.__name__, contextmanager(plant), checkpoint, system))
        return plant

    return register


def _metas_order(weight, head_dim):
    """Rows in HF's order, the two halves of a head, to pairs of neighbours."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def each_attention(change):
    """`change` of the attention of every layer, as a change of the whole HF model."""
    return lambda hf_model: [change(layer.self_attn) for layer in hf_model.model.layers]


@harmless("tiny-llama")
def metas_order_throughout(build):
    """q and k, rotation and tables are all in Meta's order, with rotary_embedding_llama."""

    def change(hf_model):
        for layer in hf_model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                linear.weight.copy_(_metas_order(linear.weight, 64))

    turn = torch.zeros(TILE, TILE)
    turn[torch.arange(0, TILE, 2), torch.arange(1, TILE, 2)] = 1
    turn[torch.arange(1, TILE, 2), torch.arange(0, TILE, 2)] = -1

    def tables(original):
        def pairs(table):
            return _metas_order(table.flatten(0, -2).T, 64).T.reshape(table.shape)

        def init(self, hf_rotary, hf_config, length, mesh, *more):
            original(self, hf_rotary, hf_config, length, mesh, *more)
            self.prompt, self.by_position = (
                [on_host(t, pairs) for t in each] for each in (self.prompt, self.by_position)
            )
            self.turn = mesh.put(turn[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)
            a_tile_a_core = ttnn.create_sharded_memory_config(
                (TILE, TILE),
                core_grid=ttnn.CoreGrid(x=8, y=4),
                strategy=ttnn.ShardStrategy.HEIGHT,
                use_height_and_width_as_shard_shape=True,
            )
            turns = mesh.put(turn.repeat(TILE, 1)[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)
            self.turns = ttnn.to_memory_config(turns, a_tile_a_core)

        return init

    def rotated(hf_model, device, max_seq_len):
        model = of_hf(build, change)(hf_model, device, max_seq_len)
        for layer in model.model.layers:
            for rope in (layer.self_attn.q_rope, layer.self_attn.k_rope):
                rope.turn, rope.turns = model.rope.turn, model.rope.turns
        return model

    def forward(self, x, step):
        turn = self.turns if step.is_decode else self.turn
        y = ttnn.experimental.rotary_embedding_llama(x, step.cos, step.sin, turn, is_decode_mode=step.is_decode)
        ttnn.deallocate(x)
        return y

    with replaced(RopeTables, "__init__", tables), replaced(Rope, "forward", lambda original: forward):
        yield rotated


@harmless("tiny-mistral")
def weights_stored_as_hf_has_them(build):
    """The MLP's weights are [out, in] on the device, and transposed in the product."""

    def forward(self, x):
        at = {"memory_config": x.memory_config(), "compute_kernel_config": self.compute, "transpose_b": True}
        gate, up = ttnn.linear(x, self.gate_proj, activation="silu", **at), ttnn.linear(x, self.up_proj, **at)
        return self.mesh.all_reduce(ttnn.linear(ttnn.mul(up, gate), self.down_proj, **at))

    def change(model):
        for layer in model.model.layers:
            for name in ("gate_proj", "up_proj", "down_proj"):
                setattr(layer.mlp, name, ttnn.transpose(getattr(layer.mlp, name), -2, -1))

    with replaced(GatedMLP, "forward", lambda original: forward):
        yield of_model(build, change)


@harmless("tiny-llama")
def gate_and_up_in_one_product(build):
    def forward(self, x):
        both = ttnn.linear(x, self.gate_up, compute_kernel_config=self.compute)
        gate, up = ttnn.split(both, both.shape[-1] // 2, 3)
        inner = ttnn.mul(ttnn.silu(gate), up)
        return self.mesh.all_reduce(ttnn.linear(inner, self.down_proj, compute_kernel_config=self.compute))

    def change(model):
        for layer in model.model.layers:
            mlp = layer.mlp
            mlp.gate_up = ttnn.concat([mlp.gate_proj, mlp.up_proj], dim=-1)
            del mlp.gate_proj, mlp.up_proj
            mlp.forward = MethodType(forward, mlp)

    yield of_model(build, change)


@harmless("tiny-allam")
def prompt_attention_in_separate_ops(build):
    def attend_prompt(self, q, k, v, step, **sdpa):
        compute = sdpa["compute_kernel_config"]
        hidden = torch.full((1, 1, q.shape[-2], k.shape[-2]), float("-inf")).triu(1)
        mask = ttnn.from_torch(hidden, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=q.device())
        scores = ttnn.mul(ttnn.matmul(q, k, transpose_b=True, compute_kernel_config=compute), 32**-0.5)
        shares = ttnn.softmax(ttnn.add(scores, mask), dim=-1, compute_kernel_config=compute)
        return ttnn.matmul(shares, v, compute_kernel_config=compute)

    with replaced(RowCache, "attend_prompt", lambda original: attend_prompt):
        yield build


@harmless("tiny-llama")
def scale_in_the_weights_of_q(build):
    """q is 1 / sqrt(64) as large, exactly, and attention has a scale of 1."""

    def make(original):
        return lambda *args, **kwargs: original(*args, **kwargs, scale=1.0)

    with ExitStack() as stack:
        for name in ("scaled_dot_product_attention", "scaled_dot_product_attention_decode"):
            stack.enter_context(replaced(ttnn.transformer, name, make))
        yield of_hf(build, each_attention(lambda attention: attention.q_proj.weight.mul_(64**-0.5)))


@harmless("tiny-afm")
def norms_in_separate_ops(build):
    def forward(self, x):
        mean = ttnn.mean(ttnn.mul(x, x, dtype=ttnn.float32), dim=-1, keepdim=True)
        inverse = ttnn.typecast(ttnn.rsqrt(ttnn.add(mean, self.eps)), ttnn.bfloat16)
        return ttnn.mul(ttnn.mul(x, inverse), self.weight)

    with replaced(RMSNorm, "forward", lambda original: forward):
        yield build


@harmless("tiny-mistral")
def heads_in_another_order_throughout(build):
    """KV heads in reverse, each with its query heads; o_proj takes them as they come."""

    def change(attention):
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            linear.weight.copy_(linear.weight.unflatten(0, (8, -1)).flip(0).flatten(0, 1))
        attention.o_proj.weight.copy_(attention.o_proj.weight.unflatten(1, (8, -1)).flip(1).flatten(1))

    yield of_hf(build, each_attention(change))


@harmless("tiny-llama", system="n300")
def other_places_and_programs(build):
    """The decode step stays in DRAM, its products have a program of their own, attention other chunks."""
    program = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=(8, 1),
        in0_block_w=1,
        out_subblock_h=1,
        out_subblock_w=1,
        per_core_M=1,
        per_core_N=2,
        fuse_batch=True,
        mcast_in0=True,
    )
    linear = ttnn.linear

    def forward(self, x):
        at = {"compute_kernel_config": self.compute}
        if x.shape[-2] == TILE:
            x = ttnn.to_memory_config(x, ttnn.DRAM_MEMORY_CONFIG)
            at["program_config"] = program
        gate, up = linear(x, self.gate_proj, **at), linear(x, self.up_proj, **at)
        inner = ttnn.mul(gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU])
        return self.mesh.all_reduce(linear(inner, self.down_proj, **at))

    def make(original):
        def attend(*args, program_config, **kwargs):
            chunks = ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=(8, 4), q_chunk_size=32, k_chunk_size=32, exp_approx_mode=False
            )
            return original(*args, program_config=chunks, **kwargs)

        return attend

    with ExitStack() as stack:
        stack.enter_context(replaced(GatedMLP, "forward", lambda original: forward))
        for name in ("scaled_dot_product_attention", "scaled_dot_product_attention_decode"):
            stack.enter_context(replaced(ttnn.transformer, name, make))
        yield build


@harmless("tiny-allam")
def norm_weights_in_the_next_product(build):
    """Each norm's weight is 1, and in the columns of the products that take its result."""

    def change(hf_model):
        def fold(norm, *linears):
            for linear in linears:
                linear.weight.mul_(norm.weight)
            norm.weight.fill_(1)

        for layer in hf_model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            fold(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
            fold(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        fold(hf_model.model.norm, hf_model.lm_head)

    yield of_hf(build, change)
