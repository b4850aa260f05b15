"""A Qwen2 of a published kind for transformers 4: one file, everything from the configuration by its old names.

`getattr` with defaults, the long names of attention's sizes, `rope_scaling["type"]`; biases on q, k and v, tied or own
lm_head, no cache: each call computes the whole text.
"""

import torch
import ttnn
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

TILE = 32


class Settings:
    def __init__(self, config, attention):
        scaling = getattr(config, "rope_scaling", None)
        assert scaling is None or scaling["type"] == "linear"
        self.theta = getattr(config, "rope_theta", 10000.0)
        self.stretch = 1.0 if scaling is None else scaling["factor"]
        self.eps = config.rms_norm_eps
        self.heads, self.groups = attention.num_heads, attention.num_key_value_groups
        self.width = attention.head_dim
        assert attention.hidden_size == config.hidden_size


class Qwen(GenerationMixin, torch.nn.Module):
    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, hf_model, device, max_seq_len):
        super().__init__()
        self.config, self.generation_config, self.mesh = hf_model.config, hf_model.generation_config, device
        self.read = s = Settings(hf_model.config, hf_model.model.layers[0].self_attn)
        self.exact = ttnn.WormholeComputeKernelConfig(
            math_fidelity=ttnn.MathFidelity.HiFi3, math_approx_mode=False, fp32_dest_acc_en=True, packer_l1_acc=True
        )
        turns = torch.arange(max_seq_len)[:, None] / s.stretch / s.theta ** (torch.arange(0, s.width, 2) / s.width)
        self.cos, self.sin = (self.put(f(torch.cat([turns, turns], -1))[None, None]) for f in (torch.cos, torch.sin))
        weights = hf_model.state_dict()
        self.embedding = self.put(weights["model.embed_tokens.weight"], ttnn.ROW_MAJOR_LAYOUT)
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        self.head, self.norm = self.put(head.T), self.put(weights["model.norm.weight"][None])
        self.layers = [self.layer(weights, f"model.layers.{i}.") for i in range(self.config.num_hidden_layers)]

    def put(self, value, layout=ttnn.TILE_LAYOUT):
        value = value.detach().to(torch.bfloat16).contiguous()
        return ttnn.from_torch(value, dtype=ttnn.bfloat16, layout=layout, device=self.mesh)

    def layer(self, weights, name):
        w = {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
        qkv = [w[f"self_attn.{p}_proj.weight"] for p in "qkv"], [w[f"self_attn.{p}_proj.bias"] for p in "qkv"]
        return {
            "qkv": (self.put(torch.cat(qkv[0]).T), self.put(torch.cat(qkv[1])[None])),
            "o": (self.put(w["self_attn.o_proj.weight"].T), None),
            **{p: (self.put(w[f"mlp.{p}_proj.weight"].T), None) for p in ("gate", "up", "down")},
            "before": self.put(w["input_layernorm.weight"][None]),
            "after": self.put(w["post_attention_layernorm.weight"][None]),
        }

    def linear(self, x, weight):
        return ttnn.linear(x, weight[0], bias=weight[1], compute_kernel_config=self.exact)

    def normed(self, x, weight):
        return ttnn.rms_norm(x, epsilon=self.read.eps, weight=weight, compute_kernel_config=self.exact)

    def attention(self, layer, x, length):
        s = self.read
        q, k, v = ttnn.experimental.nlp_create_qkv_heads(
            self.linear(x, layer["qkv"]), num_heads=s.heads, num_kv_heads=s.heads // s.groups, transpose_k_heads=False
        )
        q, k = (ttnn.experimental.rotary_embedding(t, self.cos, self.sin)[:, :, :length] for t in (q, k))
        y = ttnn.transformer.scaled_dot_product_attention(q, k, v, is_causal=True, compute_kernel_config=self.exact)
        return self.linear(ttnn.experimental.nlp_concat_heads(y), layer["o"])

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids=None, past_key_values=None, **_):
        count = input_ids.shape[1]
        length = -(-count // TILE) * TILE
        ids = torch.nn.functional.pad(input_ids, (0, length - count)).int()
        ids = ttnn.from_torch(ids, dtype=ttnn.uint32, device=self.mesh)
        x = ttnn.unsqueeze_to_4D(ttnn.embedding(ids, self.embedding, layout=ttnn.TILE_LAYOUT))
        for layer in self.layers:
            x = ttnn.add(x, self.attention(layer, self.normed(x, layer["before"]), length))
            h = self.normed(x, layer["after"])
            h = ttnn.mul(ttnn.silu(self.linear(h, layer["gate"])), self.linear(h, layer["up"]))
            x = ttnn.add(x, self.linear(h, layer["down"]))
        logits = self.linear(self.normed(x, self.norm), (self.head, None))
        return CausalLMOutputWithPast(logits=ttnn.to_torch(logits)[0, :, :count].float(), past_key_values=None)


def build_model(hf_model, tt_device, max_seq_len):
    return Qwen(hf_model, tt_device, max_seq_len)
