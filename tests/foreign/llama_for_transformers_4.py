"""A small bring-up in the manner of published single files for transformers 4: its configuration read by the old names.

No attention on the device: what is tried here is what the file reads of its HF model, and that its numbers are right.
"""

from dataclasses import dataclass

import torch
import ttnn
from transformers import AutoModelForVision2Seq, GenerationConfig
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


@dataclass
class ModelConfig:
    hidden_size: int
    num_attention_heads: int
    head_dim: int
    rope_theta: float
    rope_scaling: dict | None
    max_position_embeddings: int


def frequencies(config):
    """Of every pair of dims, and the factor of cos and sin."""
    kind = "default"
    if config.rope_scaling:
        kind = config.rope_scaling.get("rope_type", config.rope_scaling.get("type"))
    return ROPE_INIT_FUNCTIONS[kind](config, device=torch.device("cpu"), seq_len=64)


class Model(GenerationMixin, torch.nn.Module):
    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, hf_model, device):
        super().__init__()
        hf = hf_model.config
        self.config, self.generation_config = hf, GenerationConfig.from_model_config(hf)
        self.read = ModelConfig(
            hf.hidden_size, hf.num_attention_heads, hf.head_dim, hf.rope_theta, hf.rope_scaling,
            hf.max_position_embeddings,
        )  # fmt: skip
        self.heads = hf_model.model.layers[0].self_attn.num_heads
        self.inv_freq, self.factor = frequencies(self.read)
        self.other_class = AutoModelForVision2Seq
        weights = hf_model.state_dict()
        put = lambda w: ttnn.from_torch(w.to(torch.bfloat16), layout=ttnn.TILE_LAYOUT, device=device)  # noqa: E731
        self.embedding = weights["model.embed_tokens.weight"]
        self.head, self.device_ = put(weights["model.embed_tokens.weight"].T.contiguous()), device

    def forward(self, input_ids=None, past_key_values=None, **_):
        x = self.embedding[input_ids].to(torch.bfloat16)
        x = ttnn.from_torch(x, layout=ttnn.TILE_LAYOUT, device=self.device_)
        return CausalLMOutputWithPast(logits=ttnn.to_torch(ttnn.linear(x, self.head)).float(), past_key_values=())


def build_model(hf_model, tt_device, max_seq_len):
    return Model(hf_model, tt_device)
