"""A Llama on two chips in the manner of serving stacks: Meta's RoPE layout, a paged cache, sharded decode activations.

Weights go up through a 2D mapper, partial sums are reduced by reduce_scatter and all_gather, the decode residual is
width sharded in L1 over six cores, and the next token of greedy decoding can be picked on the device.
"""

import torch
import ttnn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

MESH_SHAPE = (1, 2)
USERS, BLOCK, TILE = 32, 32, 32


def to_meta_layout(weight, heads):
    """HF keeps the halves of a head apart; Meta's rotation wants the pairs side by side."""
    out, width = weight.shape
    return weight.view(heads, 2, out // heads // 2, width).transpose(1, 2).reshape(out, width)


def rotation_matrix(copies=1):
    turn = torch.zeros(1, 1, TILE, TILE)
    turn[..., torch.arange(0, TILE, 2), torch.arange(1, TILE, 2)] = 1
    turn[..., torch.arange(1, TILE, 2), torch.arange(0, TILE, 2)] = -1
    return turn.repeat(1, 1, copies, 1)


class MeshLlama(torch.nn.Module, GenerationMixin):
    main_input_name = "input_ids"

    def __init__(self, hf_model, mesh_device, max_seq_len):
        super().__init__()
        c = self.config = hf_model.config
        self.generation_config, self.mesh_device = hf_model.generation_config, mesh_device
        self.chips = mesh_device.get_num_devices()
        self.n_q, self.n_kv, self.hd = (
            c.num_attention_heads // self.chips,
            c.num_key_value_heads // self.chips,
            c.head_dim,
        )
        self.dim, self.eps, self.scale = c.hidden_size, c.rms_norm_eps, c.head_dim**-0.5
        self.high = ttnn.WormholeComputeKernelConfig(
            math_fidelity=ttnn.MathFidelity.HiFi4, math_approx_mode=False, fp32_dest_acc_en=True, packer_l1_acc=True
        )
        self.residual = ttnn.create_sharded_memory_config(
            (TILE, TILE),
            ttnn.CoreGrid(x=self.dim // TILE, y=1),
            ttnn.ShardStrategy.WIDTH,
            use_height_and_width_as_shard_shape=True,
        )
        self.norm_program = ttnn.LayerNormShardedMultiCoreProgramConfig(
            compute_with_storage_grid_size=[self.dim // TILE, 1], subblock_w=1, block_h=1, block_w=1, inplace=False
        )
        self.user_a_core = ttnn.create_sharded_memory_config(
            (TILE, self.hd),
            ttnn.CoreGrid(x=8, y=4),
            ttnn.ShardStrategy.HEIGHT,
            use_height_and_width_as_shard_shape=True,
        )
        blocks = -(-max_seq_len // BLOCK)
        shuffled = torch.randperm(blocks, generator=torch.Generator().manual_seed(0)).int()
        self.page_table = self.put(shuffled.repeat(USERS, 1), dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT)
        model = hf_model.model
        self.embed = self.put(model.embed_tokens.weight, layout=ttnn.ROW_MAJOR_LAYOUT)
        self.lm_head = self.put(hf_model.lm_head.weight.T, dims=(None, -1), dtype=ttnn.bfloat8_b)
        self.final_norm = self.norm_weight(model.norm)
        self.layers = [self.load(layer, blocks) for layer in model.layers]
        cos, sin = model.rotary_emb(torch.zeros(1), torch.arange(max_seq_len)[None])
        half = self.hd // 2
        self.cos, self.sin = (t[..., :half].repeat_interleave(2, -1) for t in (cos, sin))
        self.turn, self.turn_decode = self.put(rotation_matrix()), None
        tile_a_core = ttnn.create_sharded_memory_config(
            (TILE, TILE), ttnn.CoreGrid(x=8, y=4), ttnn.ShardStrategy.HEIGHT, use_height_and_width_as_shard_shape=True
        )
        self.turn_decode = ttnn.to_memory_config(self.put(rotation_matrix(USERS)), tile_a_core)
        self.seen = 0

    @property
    def device(self):
        return torch.device("cpu")

    def put(self, value, dims=(None, None), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT):
        mapper = ttnn.ShardTensor2dMesh(self.mesh_device, dims=dims, mesh_shape=list(self.mesh_device.shape))
        return ttnn.as_tensor(
            value.detach(), dtype=dtype, layout=layout, device=self.mesh_device,
            memory_config=ttnn.DRAM_MEMORY_CONFIG, mesh_mapper=mapper,
        )  # fmt: skip

    def norm_weight(self, norm):
        return self.put(norm.weight.reshape(1, 1, -1, TILE), layout=ttnn.ROW_MAJOR_LAYOUT)

    def load(self, layer, blocks):
        a, m, chips = layer.self_attn, layer.mlp, self.chips
        q = to_meta_layout(a.q_proj.weight, self.n_q * chips).chunk(chips)
        k = to_meta_layout(a.k_proj.weight, self.n_kv * chips).chunk(chips)
        v = a.v_proj.weight.chunk(chips)
        qkv = torch.cat([torch.cat(parts) for parts in zip(q, k, v)]).T
        empty = torch.zeros(blocks, self.n_kv, BLOCK, self.hd)
        return {
            "attention_norm": self.norm_weight(layer.input_layernorm),
            "ffn_norm": self.norm_weight(layer.post_attention_layernorm),
            "wqkv": self.put(qkv, (None, -1), ttnn.bfloat8_b),
            "wo": self.put(a.o_proj.weight.T, (None, -2), ttnn.bfloat8_b),
            "w1": self.put(m.gate_proj.weight.T, (None, -1), ttnn.bfloat8_b),
            "w3": self.put(m.up_proj.weight.T, (None, -1), ttnn.bfloat8_b),
            "w2": self.put(m.down_proj.weight.T, (None, -2), ttnn.bfloat8_b),
            "keys": self.put(empty),
            "values": self.put(empty),
        }

    def reduce(self, x, memory_config):
        x = ttnn.to_memory_config(x, ttnn.DRAM_MEMORY_CONFIG)
        scattered = ttnn.reduce_scatter(x, dim=3, num_links=1, topology=ttnn.Topology.Linear)
        gathered = ttnn.all_gather(scattered, dim=3, num_links=1, topology=ttnn.Topology.Linear)
        return ttnn.to_memory_config(gathered, memory_config)

    def normed(self, x, weight, decode):
        return ttnn.rms_norm(
            x, epsilon=self.eps, weight=weight, compute_kernel_config=self.high,
            program_config=self.norm_program if decode else None, memory_config=self.residual if decode else None,
        )  # fmt: skip

    def prefill_attention(self, layer, x, cos, sin):
        qkv = ttnn.linear(x, layer["wqkv"], compute_kernel_config=self.high)
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            qkv, num_heads=self.n_q, num_kv_heads=self.n_kv, transpose_k_heads=False
        )
        q = ttnn.experimental.rotary_embedding_llama(q, cos, sin, self.turn, is_decode_mode=False)
        k = ttnn.experimental.rotary_embedding_llama(k, cos, sin, self.turn, is_decode_mode=False)
        ttnn.experimental.paged_fill_cache(layer["keys"], k, self.page_table, batch_idx=0)
        ttnn.experimental.paged_fill_cache(layer["values"], v, self.page_table, batch_idx=0)
        y = ttnn.transformer.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=self.scale, compute_kernel_config=self.high,
            program_config=ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=(8, 7), exp_approx_mode=False, q_chunk_size=32, k_chunk_size=32),
        )  # fmt: skip
        return ttnn.experimental.nlp_concat_heads(y)

    def decode_attention(self, layer, x, cos, sin, positions):
        qkv = ttnn.linear(x, layer["wqkv"], compute_kernel_config=self.high, memory_config=ttnn.L1_MEMORY_CONFIG)
        q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
            qkv, num_heads=self.n_q, num_kv_heads=self.n_kv, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG
        )
        q = ttnn.experimental.rotary_embedding_llama(q, cos, sin, self.turn_decode, is_decode_mode=True)
        k = ttnn.experimental.rotary_embedding_llama(k, cos, sin, self.turn_decode, is_decode_mode=True)
        for cache, new in ((layer["keys"], k), (layer["values"], v)):
            ttnn.experimental.paged_update_cache(cache, new, update_idxs_tensor=positions, page_table=self.page_table)
        y = ttnn.transformer.paged_scaled_dot_product_attention_decode(
            q, layer["keys"], layer["values"], self.page_table, cur_pos_tensor=positions, scale=self.scale,
            compute_kernel_config=self.high,
            program_config=ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=(8, 8), exp_approx_mode=False, q_chunk_size=0, k_chunk_size=0),
        )  # fmt: skip
        y = ttnn.to_memory_config(y, self.user_a_core)
        return ttnn.experimental.nlp_concat_heads_decode(y, num_heads=self.n_q)

    def rope(self, at, decode):
        cos, sin = self.cos[:, at], self.sin[:, at]  # [1, L, hd]
        if not decode:
            return self.put(cos[None]), self.put(sin[None])
        rows = [self.put(t.repeat(1, USERS, 1).reshape(1, USERS, 1, self.hd)) for t in (cos, sin)]
        return [ttnn.interleaved_to_sharded(row, self.user_a_core) for row in rows]

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        started = past_key_values == "on device"
        return {"input_ids": input_ids[:, -1:] if started else input_ids, "past_key_values": past_key_values}

    @torch.no_grad()
    def forward(self, input_ids, past_key_values=None, **kwargs):
        decode, length = past_key_values == "on device", input_ids.shape[1]
        self.seen = self.seen if decode else 0
        rows = USERS if decode else -(-length // TILE) * TILE
        ids = torch.zeros(1, rows, dtype=torch.int32)
        ids[:, :length] = input_ids
        x = ttnn.embedding(
            self.put(ids, dtype=ttnn.uint32, layout=ttnn.ROW_MAJOR_LAYOUT), self.embed, layout=ttnn.TILE_LAYOUT
        )
        x = ttnn.unsqueeze_to_4D(x)
        where = self.residual if decode else ttnn.DRAM_MEMORY_CONFIG
        x = ttnn.to_memory_config(x, where)
        cos, sin = self.rope(slice(self.seen, self.seen + (1 if decode else rows)), decode)
        at = torch.full((USERS,), -1, dtype=torch.int32)
        at[0] = self.seen
        positions = self.put(at, dtype=ttnn.int32, layout=ttnn.ROW_MAJOR_LAYOUT)
        for layer in self.layers:
            h = self.normed(x, layer["attention_norm"], decode)
            if decode:
                y = self.decode_attention(layer, ttnn.to_memory_config(h, ttnn.L1_MEMORY_CONFIG), cos, sin, positions)
            else:
                y = self.prefill_attention(layer, h, cos, sin)
            y = ttnn.linear(
                ttnn.to_memory_config(y, ttnn.DRAM_MEMORY_CONFIG), layer["wo"], compute_kernel_config=self.high
            )
            x = ttnn.add(x, self.reduce(y, where), memory_config=where)
            h = ttnn.to_memory_config(self.normed(x, layer["ffn_norm"], decode), ttnn.DRAM_MEMORY_CONFIG)
            gate = ttnn.linear(h, layer["w1"], compute_kernel_config=self.high, core_grid=ttnn.CoreGrid(y=8, x=8))
            up = ttnn.linear(h, layer["w3"], compute_kernel_config=self.high, core_grid=ttnn.CoreGrid(y=8, x=8))
            h = ttnn.mul(gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU], dtype=ttnn.bfloat8_b)
            ttnn.deallocate(gate)
            ttnn.deallocate(up)
            y = ttnn.linear(h, layer["w2"], compute_kernel_config=self.high, dtype=ttnn.bfloat16)
            x = ttnn.add(x, self.reduce(y, where), memory_config=where)
        x = ttnn.to_memory_config(self.normed(x, self.final_norm, decode), ttnn.DRAM_MEMORY_CONFIG)
        logits = ttnn.linear(x, self.lm_head, compute_kernel_config=self.high, dtype=ttnn.bfloat16)
        self.best = ttnn.argmax(ttnn.untilize(ttnn.all_gather(logits, dim=3)), dim=3, keepdim=True)
        composer = ttnn.ConcatMesh2dToTensor(self.mesh_device, dims=(0, 3), mesh_shape=list(self.mesh_device.shape))
        logits = ttnn.to_torch(logits, mesh_composer=composer)[0, :, : 1 if decode else length]
        self.seen += length
        return CausalLMOutputWithPast(logits=logits.float(), past_key_values="on device")


def build_model(hf_model, tt_device, max_seq_len):
    return MeshLlama(hf_model, tt_device, max_seq_len)
