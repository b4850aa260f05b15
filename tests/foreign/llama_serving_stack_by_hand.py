"""A Llama on a line of chips in the manner of the vendor's serving stack.

Meta's RoPE layout with q and k rotated in one op, decode activations width sharded in L1, weights width sharded over
the DRAM banks with a program config for decode and `minimal_matmul` for prefill, collectives that wait on the caller's
semaphores (the gathering fused into o_proj where the chips make a ring), a paged cache, a decode step that can be
traced, and the next token sampled on the devices.
"""

import torch
import ttnn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

MESH_SHAPE = (1, 2)
USERS, BLOCK, TILE, BANKS = 32, 32, 32, 12
WIDTH, HEIGHT = ttnn.ShardStrategy.WIDTH, ttnn.ShardStrategy.HEIGHT


def to_meta_layout(weight, heads):
    """HF keeps the halves of a head apart; Meta's rotation wants the pairs side by side."""
    out, width = weight.shape
    return weight.view(heads, 2, out // heads // 2, width).transpose(1, 2).reshape(out, width)


def rotation_matrix(copies=1):
    turn = torch.zeros(1, 1, TILE, TILE)
    turn[..., torch.arange(0, TILE, 2), torch.arange(1, TILE, 2)] = 1
    turn[..., torch.arange(1, TILE, 2), torch.arange(0, TILE, 2)] = -1
    return turn.repeat(1, 1, copies, 1)


def rectangle(x0, y0, x1, y1):
    return ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(x0, y0), ttnn.CoreCoord(x1, y1))})


def sharded(shape, cores, strategy):
    return ttnn.create_sharded_memory_config(
        shape, core_grid=cores, strategy=strategy, use_height_and_width_as_shard_shape=True
    )


class Collectives:
    """Semaphores for the asynchronous collectives, handed out in turn, and the cores that wait on them."""

    def __init__(self, mesh_device):
        self.chips = mesh_device.get_num_devices()
        self.ring = self.chips == 8
        self.topology = ttnn.Topology.Ring if self.ring else ttnn.Topology.Linear
        grid = mesh_device.compute_with_storage_grid_size()
        cores = rectangle(0, 0, grid.x - 1, grid.y - 1)
        make = lambda n: [ttnn.create_global_semaphore(mesh_device, cores, 0) for _ in range(n)]  # noqa: E731
        self.sets = [{"gather": make(2), "scatter": make(3), "barrier": make(1)[0]} for _ in range(2)]
        self.turn = 0

    def take(self, name):
        self.turn = 1 - self.turn
        chosen = self.sets[self.turn]
        return {"multi_device_global_semaphore": chosen[name], "barrier_semaphore": chosen["barrier"]}

    def gather(self, x, memory_config=ttnn.DRAM_MEMORY_CONFIG):
        return ttnn.experimental.all_gather_async(
            x, persistent_output_buffer=None, dim=3, num_links=1, topology=self.topology, memory_config=memory_config,
            subdevice_id=ttnn.SubDeviceId(0), chunks_per_sync=10, num_workers_per_link=2, num_buffers_per_channel=2,
            **self.take("gather"),
        )  # fmt: skip

    def sum(self, x, memory_config):
        x = ttnn.to_memory_config(x, ttnn.DRAM_MEMORY_CONFIG)
        parts = ttnn.experimental.reduce_scatter_minimal_async(
            x, persistent_output_buffers=None, dim=3, num_links=1, topology=self.topology,
            memory_config=ttnn.DRAM_MEMORY_CONFIG, intermediate_memory_config=ttnn.DRAM_MEMORY_CONFIG,
            subdevice_id=ttnn.SubDeviceId(0), chunks_per_sync=10, num_workers_per_link=2, num_buffers_per_channel=2,
            **self.take("scatter"),
        )  # fmt: skip
        return ttnn.to_memory_config(self.gather(parts), memory_config)


class Stack(torch.nn.Module, GenerationMixin):
    main_input_name = "input_ids"

    def __init__(self, hf_model, mesh_device, max_seq_len):
        super().__init__()
        c = self.config = hf_model.config
        self.generation_config, self.mesh_device = hf_model.generation_config, mesh_device
        self.ccl = Collectives(mesh_device)
        self.chips = self.ccl.chips
        self.n_q, self.n_kv = c.num_attention_heads // self.chips, c.num_key_value_heads // self.chips
        self.hd, self.dim, self.eps = c.head_dim, c.hidden_size, c.rms_norm_eps
        self.high = ttnn.WormholeComputeKernelConfig(
            math_fidelity=ttnn.MathFidelity.HiFi3, math_approx_mode=False, fp32_dest_acc_en=True, packer_l1_acc=True
        )
        tiles = self.dim // TILE
        self.across = next(n for n in (8, 6, 4, 3, 2, 1) if tiles % n == 0)  # cores of the decode residual
        self.residual = sharded((TILE, self.dim // self.across), rectangle(0, 0, self.across - 1, 0), WIDTH)
        self.norm_program = ttnn.LayerNormShardedMultiCoreProgramConfig(
            compute_with_storage_grid_size=[self.across, 1], subblock_w=1, block_h=1, block_w=tiles // self.across,
            inplace=False,
        )  # fmt: skip
        self.minimal = ttnn.MinimalMatmulConfig(
            M_block_size=8, K_block_size=8, N_block_size=8, compute_with_storage_grid_size=ttnn.CoreCoord(8, 8)
        )
        grid = mesh_device.compute_with_storage_grid_size()
        both = rectangle(0, 0, 7, 7)  # q on the first half of these, k on the second
        self.rope_memory = sharded((TILE, self.hd), both, HEIGHT)
        self.user_a_core = sharded((TILE, self.hd), rectangle(0, 0, 7, USERS // 8 - 1), HEIGHT)
        self.turn = self.put(rotation_matrix())
        self.turn_decode = self.put(rotation_matrix(2 * USERS), memory_config=sharded((TILE, TILE), both, HEIGHT))
        self.attention_program = ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=(grid.x, 8), exp_approx_mode=False, q_chunk_size=0, k_chunk_size=0
        )
        blocks = -(-max_seq_len // BLOCK)
        shuffled = torch.randperm(blocks, generator=torch.Generator().manual_seed(0)).int()
        rows = dict(layout=ttnn.ROW_MAJOR_LAYOUT)
        self.page_table = self.put(shuffled.repeat(USERS, 1), dtype=ttnn.int32, **rows)
        cos, sin = hf_model.model.rotary_emb(torch.zeros(1), torch.arange(max_seq_len)[None])
        half = self.hd // 2
        self.tables = [self.put(t[0, :, :half].repeat_interleave(2, -1), **rows) for t in (cos, sin)]
        self.embed = self.put(hf_model.model.embed_tokens.weight, **rows)
        self.lm_head = self.banked(hf_model.lm_head.weight.T, -1)
        self.final_norm = self.norm_weight(hf_model.model.norm)
        self.layers = [self.load(layer, blocks) for layer in hf_model.model.layers]
        self.set_sampling(hf_model.config.vocab_size)
        self.traced, self.trace, self.steps, self.seen = False, None, 0, 0

    @property
    def device(self):
        return torch.device("cpu")

    # ---- weights
    def put(self, value, dim=None, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG):
        mesh = self.mesh_device
        mapper = ttnn.ReplicateTensorToMesh(mesh) if dim is None else ttnn.ShardTensorToMesh(mesh, dim=dim)
        return ttnn.as_tensor(
            value.detach(), dtype=dtype, layout=layout, device=mesh, memory_config=memory_config, mesh_mapper=mapper
        )

    def banked(self, weight, dim, dtype=ttnn.bfloat8_b):
        """A weight [k, n], cut over the chips on `dim`, whose columns lie side by side in the banks of each."""
        k, n = weight.shape
        k, n = (k // self.chips, n) if dim == -2 else (k, n // self.chips)
        shard = ttnn.ShardSpec(
            rectangle(0, 0, BANKS - 1, 0), [k, -(-n // (TILE * BANKS)) * TILE], ttnn.ShardOrientation.ROW_MAJOR
        )
        memory = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.DRAM, shard)
        return self.put(weight, dim, dtype, memory_config=memory)

    def norm_weight(self, norm):
        return self.put(norm.weight.reshape(1, 1, -1, TILE), layout=ttnn.ROW_MAJOR_LAYOUT)

    def load(self, layer, blocks):
        a, m, chips = layer.self_attn, layer.mlp, self.chips
        q = to_meta_layout(a.q_proj.weight, self.n_q * chips).chunk(chips)
        k = to_meta_layout(a.k_proj.weight, self.n_kv * chips).chunk(chips)
        qkv = torch.cat([torch.cat(parts) for parts in zip(q, k, a.v_proj.weight.chunk(chips))]).T
        wo, empty = a.o_proj.weight.T, torch.zeros(blocks, self.n_kv, BLOCK, self.hd)
        return {
            "attention_norm": self.norm_weight(layer.input_layernorm),
            "ffn_norm": self.norm_weight(layer.post_attention_layernorm),
            "wqkv": self.banked(qkv, -1, ttnn.bfloat16),
            "wo": self.put(wo[None, None], -1) if self.ccl.ring else self.banked(wo, -2, ttnn.bfloat16),
            "w1": self.banked(m.gate_proj.weight.T, -1),
            "w3": self.banked(m.up_proj.weight.T, -1),
            "w2": self.banked(m.down_proj.weight.T, -2),
            "keys": self.put(empty),
            "values": self.put(empty),
        }

    # ---- products and norms
    def product(self, x, weight, decode):
        if not decode:
            return ttnn.experimental.minimal_matmul(x, weight, config=self.minimal, compute_kernel_config=self.high)
        k, n = (size // TILE for size in tuple(weight.shape)[-2:])
        cores = next(c for c in (8, 6, 4, 3, 2, 1) if k % c == 0)
        x = ttnn.to_memory_config(x, sharded((TILE, k * TILE // cores), rectangle(0, 0, cores - 1, 0), WIDTH))
        program = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
            in0_block_w=k // cores, per_core_M=1, per_core_N=-(-n // cores), fused_activation=None
        )
        return ttnn.linear(
            x, weight, program_config=program, compute_kernel_config=self.high, dtype=ttnn.bfloat16,
            memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG,
        )  # fmt: skip

    def normed(self, x, weight, decode):
        return ttnn.rms_norm(
            x, epsilon=self.eps, weight=weight, compute_kernel_config=self.high,
            program_config=self.norm_program if decode else None,
            memory_config=self.residual if decode else ttnn.DRAM_MEMORY_CONFIG,
        )  # fmt: skip

    # ---- attention
    def prefill_attention(self, layer, x, cos, sin):
        qkv = self.product(x, layer["wqkv"], decode=False)
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            qkv, num_heads=self.n_q, num_kv_heads=self.n_kv, transpose_k_heads=False
        )
        q = ttnn.experimental.rotary_embedding_llama(q, cos, sin, self.turn, is_decode_mode=False)
        k = ttnn.experimental.rotary_embedding_llama(k, cos, sin, self.turn, is_decode_mode=False)
        ttnn.experimental.paged_fill_cache(layer["keys"], k, self.page_table, batch_idx=0)
        ttnn.experimental.paged_fill_cache(layer["values"], v, self.page_table, batch_idx=0)
        y = ttnn.transformer.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=self.hd**-0.5, compute_kernel_config=self.high,
            program_config=ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=(8, 8), exp_approx_mode=False, q_chunk_size=64, k_chunk_size=64),
        )  # fmt: skip
        return ttnn.experimental.nlp_concat_heads(y)

    def decode_attention(self, layer, x, cos, sin, positions):
        qkv = self.product(x, layer["wqkv"], decode=True)
        qkv = ttnn.to_memory_config(qkv, sharded((TILE, TILE), rectangle(0, 0, qkv.shape[-1] // TILE - 1, 0), WIDTH))
        q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
            qkv, num_heads=self.n_q, num_kv_heads=self.n_kv, overlap_qk_coregrid=False,
            memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG,
        )  # fmt: skip
        q, k = ttnn.experimental.rotary_embedding_llama_fused_qk(q, k, cos, sin, self.turn_decode)
        ttnn.experimental.paged_fused_update_cache(
            layer["keys"], k, layer["values"], v, update_idxs_tensor=positions, page_table=self.page_table
        )
        y = ttnn.transformer.paged_scaled_dot_product_attention_decode(
            q, layer["keys"], layer["values"], self.page_table, cur_pos_tensor=positions, scale=self.hd**-0.5,
            compute_kernel_config=self.high, program_config=self.attention_program,
        )  # fmt: skip
        y = ttnn.to_memory_config(y, self.user_a_core)
        return ttnn.experimental.nlp_concat_heads_decode(y, num_heads=self.n_q)

    def output(self, layer, y, decode, where):
        """o_proj: on a ring of the gathered heads with this chip's columns, elsewhere of its heads, then summed."""
        if not self.ccl.ring:
            return self.ccl.sum(self.product(y, layer["wo"], decode), where)
        if not decode:
            y = self.product(self.ccl.gather(y), layer["wo"], decode)
            return self.ccl.gather(y, where)
        tiles = layer["wo"].shape[-1] // TILE
        program = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
            compute_with_storage_grid_size=(tiles, 1), in0_block_w=1, out_subblock_h=1, out_subblock_w=1, per_core_M=1,
            per_core_N=1, fuse_batch=True, fused_activation=None, mcast_in0=True,
        )  # fmt: skip
        _, y = ttnn.experimental.all_gather_matmul_async(
            ttnn.to_memory_config(y, ttnn.DRAM_MEMORY_CONFIG), layer["wo"], persistent_output_buffer=None, dim=3,
            all_gather_core_grid_offset=(0, 4), num_links=1, memory_config_ag=ttnn.DRAM_MEMORY_CONFIG,
            memory_config_mm=ttnn.DRAM_MEMORY_CONFIG, program_config=program, compute_kernel_config=self.high,
            **self.ccl.take("gather"),
        )  # fmt: skip
        return ttnn.to_memory_config(self.ccl.gather(y), where)

    # ---- the model
    def rope(self, at, decode):
        cos, sin = (ttnn.unsqueeze_to_4D(ttnn.embedding(at, t, layout=ttnn.TILE_LAYOUT)) for t in self.tables)
        if not decode:
            return cos, sin
        return [ttnn.interleaved_to_sharded(ttnn.transpose(t, 1, 2), self.rope_memory) for t in (cos, sin)]

    def run(self, ids, at, positions, decode):
        where = self.residual if decode else ttnn.DRAM_MEMORY_CONFIG
        cos, sin = self.rope(at, decode)
        x = ttnn.unsqueeze_to_4D(ttnn.embedding(ids, self.embed, layout=ttnn.TILE_LAYOUT))
        x = ttnn.to_memory_config(x, where)
        for layer in self.layers:
            h = self.normed(x, layer["attention_norm"], decode)
            if decode:
                y = self.decode_attention(layer, h, cos, sin, positions)
            else:
                y = self.prefill_attention(layer, h, cos, sin)
            x = ttnn.add(x, self.output(layer, y, decode, where), memory_config=where)
            h = self.normed(x, layer["ffn_norm"], decode)
            gate, up = self.product(h, layer["w1"], decode), self.product(h, layer["w3"], decode)
            h = ttnn.mul(
                gate, up, input_tensor_a_activations=[ttnn.UnaryOpType.SILU], memory_config=gate.memory_config()
            )
            x = ttnn.add(x, self.ccl.sum(self.product(h, layer["w2"], decode), where), memory_config=where)
        logits = self.product(self.normed(x, self.final_norm, decode), self.lm_head, decode)
        return ttnn.to_memory_config(logits, ttnn.DRAM_MEMORY_CONFIG)

    def set_sampling(self, vocabulary):
        mine = vocabulary // self.chips
        labels = torch.arange(mine).repeat(1, 1, USERS, 1)
        self.labels = self.put(labels.int(), dtype=ttnn.uint16)
        first = (torch.arange(self.chips) * mine).repeat_interleave(TILE).repeat(1, 1, USERS, 1)
        self.first = self.put(first.int(), dtype=ttnn.int32)
        rows = dict(layout=ttnn.ROW_MAJOR_LAYOUT)
        self.k = self.put(torch.ones(USERS).int(), dtype=ttnn.uint32, **rows)
        self.p, self.temperature = (self.put(torch.ones(USERS), **rows) for _ in range(2))

    def sample(self, logits):
        """A token for each user, with k = 1 the likeliest: of each chip's 32 best."""
        values, labels = ttnn.topk(logits, k=TILE, dim=-1, indices_tensor=self.labels)
        values, labels = self.ccl.gather(values), self.ccl.gather(labels)
        labels = ttnn.add(ttnn.typecast(labels, ttnn.int32), self.first)
        labels = ttnn.untilize(labels, use_multicore=True)
        return ttnn.sampling(values, labels, k=self.k, p=self.p, temp=self.temperature, seed=1)

    def inputs(self, ids, length, decode, device):
        """Tokens, rows of the rotation's tables, positions of the users; on the host where `device` is None."""
        count = USERS if decode else -(-length // TILE) * TILE
        tokens, positions = torch.zeros(1, count, dtype=torch.int32), torch.full((USERS,), -1, dtype=torch.int32)
        tokens[:, :length], positions[0] = ids, self.seen
        at = torch.full((1, 2 * USERS), self.seen) if decode else torch.arange(count)[None]
        values = ((tokens, ttnn.uint32), (at.int(), ttnn.uint32), (positions, ttnn.int32))
        mapper = ttnn.ReplicateTensorToMesh(self.mesh_device)
        return [ttnn.from_torch(v, dtype=t, device=device, mesh_mapper=mapper) for v, t in values]

    def decode(self, ids):
        """One step; with `traced`, the first compiles, the second is captured, the others are replayed."""
        if not self.traced or not self.steps:
            self.kept = self.inputs(ids, 1, True, self.mesh_device)
            logits = self.run(*self.kept, decode=True)
            self.best = self.sample(logits)
        else:
            for host, kept in zip(self.inputs(ids, 1, True, None), self.kept):
                ttnn.copy_host_to_device_tensor(host, kept)
            if self.trace is None:
                self.trace = ttnn.begin_trace_capture(self.mesh_device, cq_id=0)
                self.logits = self.run(*self.kept, decode=True)
                self.best = self.sample(self.logits)
                ttnn.end_trace_capture(self.mesh_device, self.trace, cq_id=0)
            ttnn.execute_trace(self.mesh_device, self.trace, cq_id=0, blocking=False)
            logits = self.logits
        self.steps += 1
        return logits

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        started = past_key_values == "on device"
        return {"input_ids": input_ids[:, -1:] if started else input_ids, "past_key_values": past_key_values}

    @torch.no_grad()
    def forward(self, input_ids, past_key_values=None, **kwargs):
        decode, length = past_key_values == "on device", input_ids.shape[1]
        self.seen = self.seen if decode else 0
        if decode:
            logits = self.decode(input_ids)
        else:
            logits = self.run(*self.inputs(input_ids, length, False, self.mesh_device), decode=False)
        self.seen += length
        logits = ttnn.to_torch(logits, mesh_composer=ttnn.ConcatMeshToTensor(self.mesh_device, dim=3))
        return CausalLMOutputWithPast(logits=logits[0, :, :length].float(), past_key_values="on device")


def build_model(hf_model, tt_device, max_seq_len):
    return Stack(hf_model, tt_device, max_seq_len)
