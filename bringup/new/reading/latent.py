"""Latent attention of HF: the block's formula in torch, against what the module gave."""

from bringup.new.traits import Part

SAME = 1e-4  # relative L2 of two float32 computations of the same thing


def is_latent(module):
    return hasattr(module, "kv_a_proj_with_mqa") and hasattr(module, "kv_b_proj")


def read_part(module, path, seen, traits):
    """The `Part` of one layer's attention; None, with a gap in `traits`, where the block does not compute it."""
    name, where, config = path.rpartition(".")[2], type(module).__name__, seen.config
    rotation = "Rotation(interleaved=True)" if getattr(config, "rope_interleave", False) else None
    tables = seen.calls[path][1]["position_embeddings"]
    out, want = latent(module, seen.into(path)[0], *(t[0] for t in tables), rotation), seen.out_of(path)[0]
    if float((out - want).norm()) > SAME * float(want.norm()):
        traits.lacks(f"{name} is no latent attention as the block has it", where, "that, as HF's forward has it")
        return None
    traits.rotation = rotation
    traits.words["attention"] = f"latent: one key of {module.kv_lora_rank} + {module.qk_rope_head_dim} for all"
    traits.sources["attention"] = f"{where}, run on random values: latent attention"
    arguments = (f"hf_layer.{name}", "config", "cache", "mesh", "precision")
    return Part("LatentAttention", arguments, (("rank", "config.kv_lora_rank"),))


def latent(hf, x, cos, sin, rotation):
    """What `LatentAttention` computes of x [S, hidden], in torch; cos and sin [S, rope]."""
    import torch
    from torch.nn.functional import linear

    from bringup.blocks.rope import Rotation
    from bringup.new.reading.attention import turn

    rotation = Rotation(interleaved=rotation is not None)
    n, rank = hf.num_heads, hf.kv_lora_rank
    with torch.no_grad():
        q = hf.q_proj(x) if hf.q_lora_rank is None else hf.q_b_proj(hf.q_a_layernorm(hf.q_a_proj(x)))
        nope, turned = q.unflatten(-1, (n, -1)).split((hf.qk_nope_head_dim, hf.qk_rope_head_dim), -1)
        kv, k_turned = hf.kv_a_proj_with_mqa(x).split((rank, hf.qk_rope_head_dim), -1)
        kv = hf.kv_a_layernorm(kv)
        up_k, up_v = hf.kv_b_proj.weight.unflatten(0, (n, -1)).split((hf.qk_nope_head_dim, hf.v_head_dim), 1)
        turned, k_turned = (turn(t, rotation, cos, sin) for t in (turned.transpose(0, 1), k_turned[None]))
        scores = torch.einsum("snd,ndr,tr->nst", nope, up_k, kv) + turned @ k_turned.mT
        shares = (scores * hf.scaling + torch.full(scores.shape[1:], float("-inf")).triu(1)).softmax(-1)
        heads = torch.einsum("nst,tr,nvr->snv", shares, kv, up_v)
        return linear(heads.flatten(1), hf.o_proj.weight, hf.o_proj.bias)
