"""For n300 only."""

MESH_SHAPE = (1, 2)


def build_model(hf_model, tt_device, max_seq_len):
    return hf_model
