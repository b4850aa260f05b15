"""A foreign build: takes the weights by state_dict, in whatever order, and puts them on the device with plain ttnn."""

import torch
import ttnn


class Uploaded(torch.nn.Module):
    def __init__(self, hf_model, device):
        super().__init__()
        self.hf_model = hf_model
        self.on_device = {
            name: ttnn.from_torch(value.data.reshape(1, 1, *value.shape[-2:]) if value.dim() > 1 else value[None],
                                  dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
            for name, value in hf_model.state_dict().items()
        }  # fmt: skip
        self.ids = ttnn.from_torch(torch.zeros(1, 32, dtype=torch.int32), device=device)

    def forward(self, input_ids, past_key_values=None, **kwargs):
        return self.hf_model(input_ids=input_ids, past_key_values=past_key_values, use_cache=True)


def build_model(hf_model, tt_device, max_seq_len):
    return Uploaded(hf_model, tt_device)
