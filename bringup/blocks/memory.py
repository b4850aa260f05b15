"""Does a model fit, and with which cache? Bytes per chip by the shapes of the HF model, before anything is loaded."""

import re

import torch
import ttnn

from bringup.blocks.cache import BLOCK, PROMPT_CHUNK, Blocks, Rows
from bringup.blocks.config import of_layer
from bringup.blocks.moe import PIECE_BYTES
from bringup.blocks.parallel import TILE, USERS, Heads, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.rope import head_width
from bringup.blocks.weights import Banked

# Bytes of a 32x32 tile (ttnn 0.81.1: block formats have 64 exponent bytes a tile).
TILE_BYTES = {ttnn.bfloat16: 2048, ttnn.float32: 4096, ttnn.bfloat8_b: 1088, ttnn.bfloat4_b: 576}
SMALL = 8 << 20  # tokens, positions, tables of programs, holes, and that each tensor is dealt out over whole banks
# Left free beside a pool: a board keeps the programs' kernels in DRAM too, which neither the library's mock cluster nor
# the emulator counts. A guess with room, not a measure.
KERNELS = 128 << 20
MLP = re.compile(r"mlp|feed_forward|shared_expert")
#: Products by parts of the names of their weights.
PARTS = {
    "qkv": ("q_proj", "k_proj", "v_proj"), "o": ("o_proj",), "up": ("gate_proj", "up_proj"), "down": ("down_proj",),
    "head": ("lm_head",),
}  # fmt: skip


#: Types of layers that keep a state and no keys.
KEYLESS = ("linear_attention", "conv")


def weight_bytes(hf_model, mesh: Mesh, precision: Precision) -> int:
    """Weights of one chip: its share of the matrices, and the whole token table (padding of shares not counted, but
    that of weights in the banks)."""
    groups = {"self_attn": precision.attention, "linear_attn": precision.attention, ".conv.": precision.attention}
    groups |= dict.fromkeys(("mlp", "feed_forward", "block_sparse_moe"), precision.mlp) | {"lm_head": precision.head}
    total = 0
    for name, weight in hf_model.named_parameters(remove_duplicate=False):  # a tied head is a copy on the device
        group = next((dtype for part, dtype in groups.items() if part in name), None)
        if weight.dim() == 1:
            total += TILE * 2 * weight.numel()  # a norm, or a bias: one row of tiles
        elif group is None:
            total += 2 * weight.numel()  # the token table, row-major bfloat16
        elif name.endswith("bias") or weight.shape[1] == 1:  # of experts, or taps of a convolution: rows of tiles
            total += TILE * 2 * weight.numel() // mesh.tensor_ways
        else:
            total += weight.numel() * TILE_BYTES[group] // 1024 // mesh.tensor_ways
            total += banked_padding(name, weight.shape, mesh, precision)
    return total


def banked_padding(name: str, shape: torch.Size, mesh: Mesh, precision: Precision) -> int:
    """What a matrix [out, in] by HF's name has more of where a chip's columns lie in the banks side by side, an equal
    number of tiles in each, and what an MLP has inside is padded to whole tiles of its cores."""
    product = next((p for p, parts in PARTS.items() if any(part in name for part in parts)), None)
    how = None if product is None else precision.format(product)
    if not isinstance(how, Banked):
        return 0
    ways, (out, inside) = mesh.tensor_ways, shape
    columns, rows = (out, inside // ways) if product in ("o", "down") else (out // ways, inside)
    across, down = -(-columns // TILE), -(-rows // TILE)
    if product == "up":
        across = round_up(across, how.shares)
    if product == "down":
        down = round_up(down, how.shares)
    return (round_up(across, mesh.banks) * down - columns * rows // TILE**2) * TILE_BYTES[how.dtype]


def state_bytes(hf_model, mesh: Mesh) -> int:
    """What layers without keys keep of all 32 users, on one chip."""
    total = 0
    for module in hf_model.modules():
        if isinstance(module, torch.nn.Conv1d):
            total += 2 * USERS * (module.kernel_size[0] - 1) * module.out_channels
        elif hasattr(module, "A_log"):
            total += 4 * USERS * module.num_v_heads * module.head_k_dim * module.head_v_dim
    return total // mesh.tensor_ways


def with_keys(config) -> list[int]:
    """Layers that have keys and values of their own in the cache."""
    types = getattr(config, "layer_types", None) or ()
    own = config.num_hidden_layers - getattr(config, "num_kv_shared_layers", 0)
    return [i for i in range(own) if i >= len(types) or types[i] not in KEYLESS]


def widest(config):
    """`config`, or HF's of the layer with the widest heads where they differ by layer."""
    return max((of_layer(config, i) for i in range(config.num_hidden_layers)), key=lambda c: c.head_dim)


def cache_bytes(config, mesh: Mesh, precision: Precision) -> int:
    """Unpaged: keys and values of one position for all 32 users and all layers, on one chip."""
    return USERS * _position_bytes(config, mesh, precision)


def block_bytes(config, mesh: Mesh, precision: Precision) -> int:
    """Paged: keys and values of one block, 64 positions of one user, for all layers, on one chip."""
    return BLOCK * _position_bytes(config, mesh, precision)


def _position_bytes(config, mesh: Mesh, precision: Precision) -> int:
    values = 0
    for layer in (of_layer(config, i) for i in with_keys(config)):
        if hasattr(config, "kv_lora_rank"):  # a latent, on every chip
            values += config.kv_lora_rank + config.head_dim
        else:
            heads = Heads.over(mesh.tensor_ways, layer.num_attention_heads, layer.num_key_value_heads)
            values += 2 * heads.n_kv * head_width(layer.head_dim)
    return values * TILE_BYTES[precision.cache] // 1024


def rope_bytes(config, length: int) -> int:
    """cos and sin of `length` positions, in tiles and in rows, on every chip."""
    return 2 * 2 * 2 * length * head_width(widest(config).head_dim)


def table_bytes(length: int, mesh: Mesh) -> int:
    """The page table of 32 users of `length` positions; a row is a page of one bank, of whole 64 bytes at most."""
    return round_up(USERS, mesh.banks) * round_up(4 * length // BLOCK, 64)


def prompt_bytes(hf_model, config, rows: int, mesh: Mesh) -> int:
    """The most that `rows` tokens of a prompt need at once, beside weights and cache, on one chip.

    bfloat16 rows of: the residual stream before and after attention and its norm, with the MLP's gate, up and product
    (or a sum over the chips, 4.3 times what is summed, as the library's collectives allocate it); or the stream and its
    norm with q, k and v as one product, as heads, and rotated. Experts take a prompt in pieces. And logits, of the last
    tile and of a step. And what each layer takes beside the stream, which is six rows as it is made.
    """
    wide_heads = widest(config)
    heads = Heads.over(mesh.tensor_ways, wide_heads.num_attention_heads, wide_heads.num_key_value_heads)
    stream = config.hidden_size
    layers = hf_model.model.layers
    mlps = {name: max(w.shape) for name, w in layers.named_parameters() if w.dim() == 2 and MLP.search(name)}
    wide = round_up(max(mlps.values(), default=0), TILE * mesh.tensor_ways) // mesh.tensor_ways
    inner = (3 if any("gate" in name or "w3" in name for name in mlps) else 2) * wide
    mixture, routed = 0, 0
    for module in layers.modules():
        if hasattr(module, "experts"):
            mixture, routed = PIECE_BYTES, 4 * 6 * round_up(module.experts.num_experts, TILE)
        if isinstance(module, torch.nn.Conv1d):  # a convolution's terms and sums are float32
            inner = max(inner, 12 * module.out_channels // mesh.tensor_ways)
    summed = 4.3 * stream if mesh.tensor_ways > 1 else 0
    width = head_width(wide_heads.head_dim)
    qkv = (heads.n_query + 2 * heads.n_kv) * width
    most = max(3 * stream + max(inner, summed), 2 * stream + 3 * qkv) + 2 * width
    if (table := getattr(hf_model.model, "embed_tokens_per_layer", None)) is not None:
        most = max(most + table.weight.shape[1], stream + 6 * table.weight.shape[1])
    logits = 2 * TILE * round_up(hf_model.config.vocab_size, TILE * mesh.tensor_ways) // mesh.tensor_ways
    return int(round_up(rows, TILE) * (2 * most + routed) + 2 * logits) + mixture + SMALL


def upload_bytes(hf_model, mesh: Mesh) -> int:
    """What putting the largest weight on a mesh needs beside it: its bfloat16 rows, before they are tiles.

    And the holes that those of a layer's weights have left, four of them at most.
    """
    if mesh.chips == 1:
        return 0
    largest = max(w.numel() for w in hf_model.parameters())
    of_layer = max(w.numel() for w in hf_model.model.layers[0].parameters())
    return 2 * (largest + 4 * of_layer) // mesh.tensor_ways + SMALL


def pool_blocks(free: int, config, max_seq_len: int, mesh: Mesh, precision: Precision) -> int:
    """Blocks of a pool in `free` bytes, at most what 32 users of max_seq_len can use; one of them is nobody's."""
    tensors = 2 * len(with_keys(config))
    free -= tensors * mesh.banks * TILE_BYTES[precision.cache]  # each is dealt out over whole banks
    most = USERS * (round_up(max_seq_len, BLOCK) // BLOCK) + 1
    return max(0, min(most, free // block_bytes(config, mesh, precision)))


def check_fits(hf_model, config, max_seq_len: int, mesh: Mesh, precision: Precision) -> Rows | Blocks:
    """The cache for prompts and answers of max_seq_len: 32 rows where they fit, else the largest pool that does.

    ValueError, with the sizes and what would make it fit, where not even one user of max_seq_len does.
    """
    view = ttnn.get_memory_view(mesh.device, ttnn.BufferType.DRAM)
    free = view.num_banks * view.total_bytes_free_per_bank
    weights = weight_bytes(hf_model, mesh, precision) + state_bytes(hf_model, mesh)

    def left(length: int, chunk: int) -> int:
        """For the cache, where rotary tables are `length` long and prompts run in chunks."""
        working = max(prompt_bytes(hf_model, config, min(chunk, length), mesh), upload_bytes(hf_model, mesh))
        return free - weights - rope_bytes(config, length) - working

    row, page = round_up(max_seq_len, TILE), round_up(max_seq_len, BLOCK)
    rows = row * cache_bytes(config, mesh, precision)
    if rows <= left(row, row):
        return Rows(row)
    room = left(page, PROMPT_CHUNK) - table_bytes(page, mesh) - KERNELS
    blocks = pool_blocks(room, config, page, mesh, precision)
    if blocks > page // BLOCK:
        return Blocks(page, blocks)

    one = block_bytes(config, mesh, precision) * (page // BLOCK)
    needed = free - room + one
    per_position = block_bytes(config, mesh, precision) // BLOCK + rope_bytes(config, 1)
    longest = (room + rope_bytes(config, page)) // per_position // BLOCK * BLOCK - 2 * BLOCK
    if longest >= BLOCK:
        hint = f"max_seq_len up to about {longest} fits"
    else:
        small = Precision.of(ttnn.bfloat8_b, cache=precision.cache)
        hint = f"weights in bfloat8_b would be {weight_bytes(hf_model, mesh, small) / 1e9:.2f} GB"
    raise ValueError(
        f"the model does not fit: {needed / 1e9:.2f} GB a chip needed, {free / 1e9:.2f} GB there\n"
        f"  weights {weights / 1e9:.2f} GB, paged cache of one user of {page} positions {one / 1e9:.2f} GB,"
        f" on {mesh.tensor_ways} chip{'s' * (mesh.tensor_ways > 1)}\n"
        f"  {hint}; a bfloat8_b cache halves that of bfloat16; more chips share both"
    )
