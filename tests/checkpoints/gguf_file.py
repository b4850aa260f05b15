"""A GGUF file of the random Llama of `tests.evaluation.tiny`, as llama.cpp's converter would write it."""

import gguf
import numpy as np

from tests.evaluation import tiny

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(hf_name):
    for theirs, ours in NAMES.items():
        hf_name = hf_name.replace(theirs, ours)
    return hf_name.replace("model.layers.", "blk.")


def interleaved(weight, heads):
    """Rows of q and k as llama.cpp's rotation wants them: pairs side by side, where HF has halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(path, kind="Q8_0", layers=2, extra=(), tokens=None):
    """Writes the file, its matrices in `kind`; gives the HF model that it is of."""
    hf = tiny.hf_model()
    c = hf.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = [chr(i) for i in range(33, 127)] + [chr(i) for i in range(256, 600)]
    words = ["<unk>", "<s>", "</s>", *letters]
    merged = words[3] + words[4]
    words = [*words[: c.vocab_size - 1], merged]
    writer.add_token_list(tokens or words)
    writer.add_token_types([3, 3, 3] + [1] * (c.vocab_size - 3))
    writer.add_token_merges([f"{words[3]} {words[4]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    kind = gguf.GGMLQuantizationType[kind]
    for name, weight in hf.named_parameters():
        value = weight.detach().numpy()
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(name.split(".")[-2])
        value = interleaved(value, heads) if heads else value
        if value.ndim == 1:
            writer.add_tensor(name_of(name), np.ascontiguousarray(value))
        else:
            writer.add_tensor(name_of(name), gguf.quants.quantize(value, kind), raw_dtype=kind)
    for name in extra:
        writer.add_tensor(name, np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hf
