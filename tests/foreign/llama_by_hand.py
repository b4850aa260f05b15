"""A Llama written straight against ttnn, in the manner of bring-ups that know nothing of this project.

One flat class, `as_tensor` for weights, layers as dicts, decode heads moved to DRAM and transposed so that
`rotary_embedding` can take a token index, all 32 rows of a decode step at one position.
"""

import torch
import ttnn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

TILE = 32
BATCH = 32


def _pad(n):
    return (n + TILE - 1) // TILE * TILE


class TtLlama(torch.nn.Module, GenerationMixin):
    main_input_name = "input_ids"
    _is_stateful = False
    _supports_cache_class = False

    def __init__(self, hf_model, device, max_seq_len):
        super().__init__()
        self.config, self.generation_config = hf_model.config, hf_model.generation_config
        self.tt_device, self.max_seq_len = device, max_seq_len
        c = hf_model.config
        self.nh, self.nkv = c.num_attention_heads, c.num_key_value_heads
        self.hd = c.head_dim
        self.eps, self.scale = c.rms_norm_eps, self.hd**-0.5
        self.compute = ttnn.init_device_compute_kernel_config(
            device.arch(),
            math_fidelity=ttnn.MathFidelity.HiFi4,
            math_approx_mode=False,
            fp32_dest_acc_en=True,
            packer_l1_acc=True,
        )
        self.kv_mem = ttnn.create_sharded_memory_config(
            (TILE, self.hd), ttnn.CoreGrid(y=4, x=8), ttnn.ShardStrategy.HEIGHT, ttnn.ShardOrientation.ROW_MAJOR, True
        )
        with torch.no_grad():
            self.embed = self._up(hf_model.model.embed_tokens.weight[None, None], layout=ttnn.ROW_MAJOR_LAYOUT)
            head = hf_model.lm_head.weight
            self.head = self._up(head.T[None, None])
            self.final_norm = self._up(hf_model.model.norm.weight.reshape(1, 1, 1, -1))
            cos, sin = hf_model.model.rotary_emb(torch.zeros(1, 1), torch.arange(_pad(max_seq_len))[None])
            self.cos, self.sin = self._up(cos[None]), self._up(sin[None])
            self.blocks = [self._layer(layer) for layer in hf_model.model.layers]
        shape = (BATCH, self.nkv, _pad(max_seq_len), self.hd)
        for block in self.blocks:
            block["k"], block["v"] = self._up(torch.zeros(shape)), self._up(torch.zeros(shape))
        self.seen, self.cache = 0, object()

    def _up(self, t, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT):
        return ttnn.as_tensor(
            t.detach().to(torch.bfloat16), dtype=dtype, layout=layout, device=self.tt_device,
            memory_config=ttnn.DRAM_MEMORY_CONFIG,
        )  # fmt: skip

    def _layer(self, layer):
        a, m = layer.self_attn, layer.mlp
        qkv = torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]).T
        return {
            "n1": self._up(layer.input_layernorm.weight.reshape(1, 1, 1, -1)),
            "n2": self._up(layer.post_attention_layernorm.weight.reshape(1, 1, 1, -1)),
            "qkv": self._up(qkv[None, None]),
            "o": self._up(a.o_proj.weight.T[None, None]),
            "gate": self._up(m.gate_proj.weight.T[None, None]),
            "up": self._up(m.up_proj.weight.T[None, None]),
            "down": self._up(m.down_proj.weight.T[None, None]),
        }

    @property
    def device(self):
        return torch.device("cpu")

    def can_generate(self):
        return True

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        return {
            "input_ids": input_ids[:, -1:] if past_key_values is self.cache else input_ids,
            "past_key_values": past_key_values,
        }

    def _linear(self, x, w, **kw):
        return ttnn.linear(x, w, compute_kernel_config=self.compute, **kw)

    def _rope_decode(self, x, heads, pos):
        # [1, 32, heads, hd], one user a core -> DRAM -> [1, heads, 32, hd] -> rotate at `pos` -> back
        x = ttnn.to_memory_config(x, ttnn.DRAM_MEMORY_CONFIG)
        x = ttnn.transpose(x, 1, 2)
        x = ttnn.experimental.rotary_embedding(x, self.cos, self.sin, pos)
        return ttnn.transpose(x[:, :heads], 1, 2)

    def _attention(self, block, x, pos, length):
        qkv = self._linear(x, block["qkv"])
        if pos is None:
            q, k, v = ttnn.experimental.nlp_create_qkv_heads(
                qkv, num_heads=self.nh, num_kv_heads=self.nkv, transpose_k_heads=False,
                memory_config=ttnn.DRAM_MEMORY_CONFIG,
            )  # fmt: skip
            cos, sin = self.cos[:, :, :length, :], self.sin[:, :, :length, :]
            q = ttnn.experimental.rotary_embedding(q, cos, sin)
            k = ttnn.experimental.rotary_embedding(k, cos, sin)
            ttnn.fill_cache(block["k"], k, batch_idx=0)
            ttnn.fill_cache(block["v"], v, batch_idx=0)
            y = ttnn.transformer.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=self.scale, compute_kernel_config=self.compute,
                program_config=ttnn.SDPAProgramConfig(
                    compute_with_storage_grid_size=(8, 8), q_chunk_size=32, k_chunk_size=32, exp_approx_mode=False),
            )  # fmt: skip
            y = ttnn.experimental.nlp_concat_heads(y, memory_config=ttnn.DRAM_MEMORY_CONFIG)
        else:
            q, k, v = ttnn.experimental.nlp_create_qkv_heads_decode(
                qkv, num_heads=self.nh, num_kv_heads=self.nkv, memory_config=ttnn.L1_HEIGHT_SHARDED_MEMORY_CONFIG
            )
            q, k = self._rope_decode(q, self.nh, pos), self._rope_decode(k, self.nkv, pos)
            k = ttnn.interleaved_to_sharded(k, self.kv_mem)
            at = ttnn.from_torch(torch.full((BATCH,), pos, dtype=torch.int32), dtype=ttnn.int32, device=self.tt_device)
            ttnn.experimental.paged_update_cache(block["k"], k, update_idxs_tensor=at)
            ttnn.experimental.paged_update_cache(block["v"], v, update_idxs_tensor=at)
            y = ttnn.transformer.scaled_dot_product_attention_decode(
                q, block["k"], block["v"], cur_pos_tensor=at, scale=self.scale, compute_kernel_config=self.compute
            )
            y = ttnn.reshape(y, (1, 1, BATCH, self.nh * self.hd))
        return self._linear(y, block["o"])

    @torch.no_grad()
    def forward(self, input_ids, past_key_values=None, attention_mask=None, use_cache=True, **kwargs):
        batch, length = input_ids.shape
        assert batch == 1, "one prompt at a time"
        decoding = past_key_values is self.cache  # generate() starts with a cache of its own
        if not decoding:
            self.seen = 0
        pos = self.seen if decoding else None
        width = BATCH if decoding else _pad(length)
        ids = torch.zeros(1, 1, 1, width, dtype=torch.int64)
        ids[..., :length] = input_ids
        tokens = ttnn.from_torch(ids, dtype=ttnn.uint32, device=self.tt_device)
        x = ttnn.embedding(tokens, self.embed, layout=ttnn.TILE_LAYOUT)
        x = ttnn.unsqueeze_to_4D(x)
        for block in self.blocks:
            normed = ttnn.rms_norm(x, weight=block["n1"], epsilon=self.eps, compute_kernel_config=self.compute)
            x = x + self._attention(block, normed, pos, width)
            normed = ttnn.rms_norm(x, weight=block["n2"], epsilon=self.eps, compute_kernel_config=self.compute)
            gate = self._linear(normed, block["gate"], activation="silu")
            up = self._linear(normed, block["up"])
            x = ttnn.add(x, self._linear(ttnn.multiply(gate, up), block["down"]), memory_config=ttnn.DRAM_MEMORY_CONFIG)
            gate.deallocate(True)
            up.deallocate(True)
        x = ttnn.rms_norm(x, weight=self.final_norm, epsilon=self.eps, compute_kernel_config=self.compute)
        logits = ttnn.to_torch(self._linear(x, self.head)).float()[0, :, :length]
        self.seen += length
        return CausalLMOutputWithPast(logits=logits, past_key_values=self.cache if use_cache else None)


def build_model(hf_model, tt_device, max_seq_len):
    return TtLlama(hf_model, tt_device, max_seq_len)
