"""A Llama of plain ops only: attention by matmul, mask and softmax, RoPE by halves, RMSNorm by mean and rsqrt.

The keys and values grow by `concat`, on the device, with no cache op; the mask is made on the host for each call.
"""

import math

import torch
import ttnn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

BF16, TILE = ttnn.bfloat16, ttnn.TILE_LAYOUT


class Norm:
    def __init__(self, weight, eps, device):
        self.weight = ttnn.from_torch(weight.detach().reshape(1, 1, -1), dtype=BF16, layout=TILE, device=device)
        self.eps = eps

    def __call__(self, x):
        variance = ttnn.mean(ttnn.pow(x, 2), dim=-1, keepdim=True)
        x = ttnn.mul(x, ttnn.rsqrt(ttnn.add(variance, self.eps)))
        return ttnn.mul(x, self.weight)


class Linear:
    def __init__(self, linear, device):
        self.weight = ttnn.to_device(
            ttnn.to_layout(ttnn.from_torch(linear.weight.detach().T.contiguous(), dtype=BF16), TILE), device
        )

    def __call__(self, x):
        return ttnn.matmul(x, self.weight)


class Layer:
    def __init__(self, hf, config, device):
        a, m = hf.self_attn, hf.mlp
        self.config = config
        self.norm1 = Norm(hf.input_layernorm.weight, config.rms_norm_eps, device)
        self.norm2 = Norm(hf.post_attention_layernorm.weight, config.rms_norm_eps, device)
        self.q, self.k, self.v, self.o = (Linear(x, device) for x in (a.q_proj, a.k_proj, a.v_proj, a.o_proj))
        self.gate, self.up, self.down = (Linear(x, device) for x in (m.gate_proj, m.up_proj, m.down_proj))

    def heads(self, x, n):
        batch, length, width = x.shape
        x = ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT)
        x = ttnn.reshape(x, (batch, length, n, width // n))
        return ttnn.to_layout(ttnn.permute(x, (0, 2, 1, 3)), TILE)

    def rotate(self, x, cos, sin):
        half = x.shape[-1] // 2
        turned = ttnn.concat([ttnn.neg(x[:, :, :, half:]), x[:, :, :, :half]], dim=-1)
        return ttnn.add(ttnn.mul(x, cos), ttnn.mul(turned, sin))

    def __call__(self, x, cos, sin, mask, past):
        c = self.config
        h = self.norm1(x)
        q = self.rotate(self.heads(self.q(h), c.num_attention_heads), cos, sin)
        k = self.rotate(self.heads(self.k(h), c.num_key_value_heads), cos, sin)
        v = self.heads(self.v(h), c.num_key_value_heads)
        if past is not None:
            k, v = ttnn.concat([past[0], k], dim=2), ttnn.concat([past[1], v], dim=2)
        groups = c.num_attention_heads // c.num_key_value_heads
        keys, values = ttnn.repeat_interleave(k, groups, dim=1), ttnn.repeat_interleave(v, groups, dim=1)
        scores = ttnn.matmul(q, ttnn.permute(keys, (0, 1, 3, 2)))
        scores = ttnn.add(ttnn.multiply(scores, 1 / math.sqrt(c.head_dim)), mask)
        y = ttnn.matmul(ttnn.softmax(scores, dim=-1), values)
        y = ttnn.to_layout(ttnn.permute(y, (0, 2, 1, 3)), ttnn.ROW_MAJOR_LAYOUT)
        y = ttnn.to_layout(ttnn.reshape(y, (y.shape[0], y.shape[1], y.shape[2] * y.shape[3])), TILE)
        x = x + self.o(y)
        h = self.norm2(x)
        return x + self.down(ttnn.silu(self.gate(h)) * self.up(h)), (k, v)


class PlainLlama(torch.nn.Module, GenerationMixin):
    main_input_name = "input_ids"

    def __init__(self, hf_model, device, max_seq_len):
        super().__init__()
        self.config, self.generation_config, self.tt = hf_model.config, hf_model.generation_config, device
        self.max_seq_len = max_seq_len
        self.embedding = ttnn.from_torch(
            hf_model.get_input_embeddings().weight.detach(), dtype=BF16, layout=ttnn.ROW_MAJOR_LAYOUT, device=device
        )
        self.rotary = hf_model.model.rotary_emb
        self.stack = [Layer(layer, hf_model.config, device) for layer in hf_model.model.layers]
        self.norm = Norm(hf_model.model.norm.weight, hf_model.config.rms_norm_eps, device)
        self.head = Linear(hf_model.get_output_embeddings(), device)

    @property
    def device(self):
        return torch.device("cpu")

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        seen = past_key_values[0][0].shape[2] if isinstance(past_key_values, list) else 0
        return {"input_ids": input_ids[:, seen:], "past_key_values": past_key_values}

    def put(self, value):
        return ttnn.from_torch(value.to(torch.bfloat16), layout=TILE, device=self.tt)

    @torch.no_grad()
    def forward(self, input_ids, past_key_values=None, **kwargs):
        past = past_key_values if isinstance(past_key_values, list) else [None] * len(self.stack)
        seen = 0 if past[0] is None else past[0][0].shape[2]
        length = input_ids.shape[1]
        if seen + length > self.max_seq_len:
            raise ValueError(f"{seen + length} tokens, {self.max_seq_len} fit")
        cos, sin = self.rotary(torch.zeros(1), torch.arange(seen, seen + length)[None])
        cos, sin = self.put(cos[:, None]), self.put(sin[:, None])
        mask = torch.full((length, seen + length), torch.finfo(torch.bfloat16).min).triu(seen + 1)[None, None]
        mask = self.put(mask)
        ids = ttnn.from_torch(input_ids.int(), dtype=ttnn.uint32, device=self.tt)
        x = ttnn.embedding(ids, self.embedding, layout=TILE)
        present = []
        for layer, kept in zip(self.stack, past):
            x, kv = layer(x, cos, sin, mask, kept)
            present.append(kv)
        logits = ttnn.to_torch(ttnn.from_device(self.head(self.norm(x)))).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=present)


def build_model(hf_model, tt_device, max_seq_len):
    return PlainLlama(hf_model, tt_device, max_seq_len)
