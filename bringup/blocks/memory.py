"""Does a model fit? Bytes per chip by the shapes of the HF model, counted before anything is loaded."""

import ttnn

from bringup.blocks.parallel import USERS, Heads, Mesh
from bringup.blocks.precision import Precision

# Bytes of a 32x32 tile (ttnn 0.81.1: block formats have 64 exponent bytes a tile).
TILE_BYTES = {ttnn.bfloat16: 2048, ttnn.float32: 4096, ttnn.bfloat8_b: 1088, ttnn.bfloat4_b: 576}


def weight_bytes(hf_model, mesh: Mesh, precision: Precision) -> int:
    """Weights of one chip: its share of the matrices, and the whole token table (padding of shares not counted)."""
    groups = {"self_attn": precision.attention, "mlp": precision.mlp, "lm_head": precision.head}
    total = 0
    for name, weight in hf_model.named_parameters(remove_duplicate=False):  # a tied head is a copy on the device
        group = next((dtype for part, dtype in groups.items() if part in name), None)
        if group is None:
            total += 2 * weight.numel()  # the token table, row-major bfloat16; norms
        else:
            total += weight.numel() * TILE_BYTES[group] // 1024 // mesh.tensor_ways
    return total


def cache_bytes(config, mesh: Mesh, precision: Precision) -> int:
    """Keys and values of one position for all 32 users and all layers, on one chip."""
    heads = Heads.over(mesh.tensor_ways, config.num_attention_heads, config.num_key_value_heads)
    values = 2 * config.num_hidden_layers * USERS * heads.n_kv * config.head_dim
    return values * TILE_BYTES[precision.cache] // 1024


def check_fits(hf_model, config, cache_len: int, mesh: Mesh, precision: Precision):
    """ValueError, with the sizes and what would make it fit, where weights and cache exceed the chip's free DRAM."""
    view = ttnn.get_memory_view(mesh.device, ttnn.BufferType.DRAM)
    free = view.num_banks * view.total_bytes_free_per_bank
    weights, position = weight_bytes(hf_model, mesh, precision), cache_bytes(config, mesh, precision)
    needed = weights + cache_len * position
    if needed <= free:
        return
    longest = (free - weights) // position // 32 * 32
    if longest >= 32:
        hint = f"max_seq_len up to about {longest} fits"
    else:
        small = Precision.of(ttnn.bfloat8_b, cache=precision.cache)
        hint = f"weights in bfloat8_b would be {weight_bytes(hf_model, mesh, small) / 1e9:.2f} GB"
    raise ValueError(
        f"the model does not fit: {needed / 1e9:.2f} GB a chip needed, {free / 1e9:.2f} GB there\n"
        f"  weights {weights / 1e9:.2f} GB, cache of {cache_len} positions for {USERS} users"
        f" {cache_len * position / 1e9:.2f} GB, on {mesh.tensor_ways} chip{'s' * (mesh.tensor_ways > 1)}\n"
        f"  {hint}; a bfloat8_b cache halves that of bfloat16; more chips share both"
    )
