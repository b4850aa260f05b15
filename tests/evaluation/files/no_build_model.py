"""Has no build_model."""


def make_model(hf_model, tt_device, max_seq_len):
    return hf_model
