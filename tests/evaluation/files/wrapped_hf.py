"""A "bring-up" that is the HF model itself, returning the last position only: for testing what drives model files."""

import torch
import ttnn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast


class Wrapped(torch.nn.Module, GenerationMixin):
    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, hf_model, device):
        super().__init__()
        self.hf_model, self.config, self.generation_config = hf_model, hf_model.config, hf_model.generation_config
        assert ttnn.__name__ == "ttnn_emulator"

    def forward(self, input_ids, past_key_values=None, attention_mask=None, use_cache=None, **kwargs):
        out = self.hf_model(input_ids=input_ids, past_key_values=past_key_values, use_cache=True)
        return CausalLMOutputWithPast(logits=out.logits[:, -1:], past_key_values=out.past_key_values)


def build_model(hf_model, tt_device, max_seq_len):
    return Wrapped(hf_model, tt_device)
