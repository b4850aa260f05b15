"""The tensors that one chip holds of a decoder, from its HF configuration: names, shapes, dtypes, bytes in the banks.

They are laid out as `bringup.blocks` does it: the token table in rows, everything else in tiles; q, k and v in one
matrix; q/k/v, gate, up and the head cut by their outputs over the chips, o and down by their inputs, the rest on every
chip. A weight that no rule knows is counted on every chip, and named.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

from bringup.checkpoints import by_layer
from bringup.planning.formats import DTYPES

TILE, USERS, BLOCK = 32, 32, 64  # rows of a tile, users of a step, positions of a block of a paged cache
# Hidden states that an all_reduce over two mesh axes holds beside its operand (ttnn 0.81.1, buffers of its steps).
SUM_STATES = 4.3
#: Parts of a weight's name -> its group.
GROUPS = {
    "attn": "attention", ".conv.": "attention", "mlp": "mlp", "feed_forward": "mlp", "block_sparse_moe": "mlp",
    "lm_head": "head",
}  # fmt: skip
ROW_PARALLEL = ("o_proj", "down_proj", "dense_4h_to_h")


def meta_model(config):
    """The HF model of a configuration, without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


@dataclass(frozen=True)
class Held:
    """A tensor of one chip. `exact` is how many elements it would have if the shares needed no padding and no copy."""

    name: str
    group: str  # attention, mlp, head, embedding, norms, other
    shape: tuple
    dtype: str  # bf16, bfp8, bfp4
    rows: bool = False  # row-major
    exact: float = 0
    chip: object = None  # `ttnn_emulator.chips.Chip`

    @cached_property
    def bytes(self):
        return bank_bytes(self.shape, self.dtype, self.chip, self.rows)

    @property
    def padding_bytes(self):
        """What whole tiles per chip, heads of zeros and copies of heads cost."""
        elements = self.shape[-1] * self.shape[-2]
        return round(self.bytes * (1 - self.exact / elements)) if elements else 0


def bank_bytes(shape, dtype, chip, rows=False):
    """Bytes that an interleaved DRAM tensor takes on a chip: its pages dealt over the banks, all banks alike."""
    import ttnn_emulator
    from ttnn_emulator.memory import DRAM_MEMORY_CONFIG, buffer_bytes

    *lead, height, width = shape
    if not rows:
        height, width = round_up(height, TILE), round_up(width, TILE)
    layout = ttnn_emulator.ROW_MAJOR_LAYOUT if rows else ttnn_emulator.TILE_LAYOUT
    dtype = getattr(ttnn_emulator, {**DTYPES, "int32": "int32"}[dtype])
    return buffer_bytes((*lead, height, width), dtype, layout, DRAM_MEMORY_CONFIG, chip)[0] * chip.dram.count


def round_up(n, multiple):
    return -(-n // multiple) * multiple


class Shapes:
    """The tensors of a configuration on `ways` tensor-parallel chips."""

    def __init__(self, config, ways, formats, chip):
        self.config, self.ways, self.formats, self.chip = config, ways, formats, chip
        self._make = partial(Held, chip=chip)
        self.hidden, self.layers, self.vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size
        most = by_layer.alike(config)
        self.n_heads = config.num_attention_heads
        self.n_kv_heads = getattr(most, "num_key_value_heads", None) or self.n_heads
        self.head_dim = getattr(most, "head_dim", None) or self.hidden // self.n_heads
        self.n_query, self.n_kv = heads_per_chip(ways, self.n_heads, self.n_kv_heads)
        self.differing = by_layer.sizes(config)

    def of_layer(self, i):
        """(query heads, KV heads, columns of a head) of a chip in layer i."""
        more = self.differing.get(i, {})
        heads = heads_per_chip(self.ways, self.n_heads, more.get("num_key_value_heads", self.n_kv_heads))
        return *heads, more.get("head_dim", self.head_dim)

    @cached_property
    def widest(self):
        """The same of the layer with the widest heads."""
        return max((self.of_layer(i) for i in range(self.layers)), key=lambda of: of[2])

    @cached_property
    def weights(self):
        """All weights of a chip, as a list of `Held`."""
        found, qkv = [], {}
        parameters = dict(meta_model(self.config).named_parameters(remove_duplicate=False))
        if "lm_head.weight" not in parameters and "model.embed_tokens.weight" in parameters:
            parameters["lm_head.weight"] = parameters["model.embed_tokens.weight"]  # tied: a copy on the device
        for name, weight in parameters.items():
            module, _, leaf = name.removesuffix(".weight").rpartition(".")
            if leaf in ("q_proj", "k_proj", "v_proj") and weight.dim() == 2:
                qkv.setdefault(module, {})[leaf] = weight.shape
            else:
                found.append(self._held(name, leaf, tuple(weight.shape)))
        return [self._fused(module, parts) for module, parts in qkv.items()] + found

    def _fused(self, module, parts):
        n_query, n_kv, head_dim = self.of_layer(_layer(module))
        gated = "q_proj" in parts and parts["q_proj"][0] == 2 * self.n_heads * head_dim  # its gate stands beside it
        heads = {"q_proj": n_query * (1 + gated)}
        both = n_kv * ("k_proj" in parts and "v_proj" not in parts)  # keys are values too
        width = (sum(heads.get(leaf, n_kv) for leaf in parts) + both) * head_dim
        columns = parts["q_proj"][1]
        exact = columns * sum(shape[0] for shape in parts.values()) / self.ways
        return self._make(
            f"{module}.qkv_proj", "attention", (1, 1, columns, width), self.formats.attention, exact=exact
        )

    def _held(self, name, leaf, shape):
        count = 1
        for n in shape:
            count *= n
        if "embed_tokens" in name:
            return self._make(name, "embedding", shape, "bf16", rows=True, exact=count)
        if len(shape) == 1:
            return self._make(name, "norms", (1, 1, 1, *shape), "bf16", exact=count)
        if "per_layer_" in name:  # on every chip
            return self._make(name, "mlp", (1, 1, shape[1], shape[0]), self.formats.mlp, exact=count)
        group = next((group for part, group in GROUPS.items() if part in name), "")
        if not group:
            return self._make(name, "other", (1, 1, count // shape[-1], shape[-1]), "bf16", exact=count)
        if name.endswith("bias"):  # of experts: a row of tiles each
            each = (-(-shape[0] // self.ways), TILE, shape[1])
            return self._make(name, group, each, "bf16", exact=count / self.ways)
        if "conv" in leaf:  # a row of tiles for each tap
            return self._make(name, group, (shape[-1], TILE, shape[0] // self.ways), "bf16", exact=count / self.ways)
        outputs, inputs = (shape[-2], shape[-1]) if len(shape) == 2 else (count // shape[-1], shape[-1])
        if leaf == "o_proj":
            n_query, _, head_dim = self.of_layer(_layer(name))
            inputs = n_query * head_dim
        elif leaf in ROW_PARALLEL:
            inputs = self._share(inputs)
        else:
            outputs = self._share(outputs)
        dtype = getattr(self.formats, group)
        return self._make(name, group, (1, 1, inputs, outputs), dtype, exact=count / self.ways)

    def _share(self, n):
        return n if self.ways == 1 else round_up(n, TILE * self.ways) // self.ways

    def weight_bytes(self):
        """Bytes of one chip by group."""
        groups = {}
        for held in self.weights:
            groups[held.group] = groups.get(held.group, 0) + held.bytes
        return groups

    def cache_bytes(self, context):
        """Keys and values of 32 users, `context` positions each, whether used or not."""
        return self._bytes_of_cache(lambda heads, width: (USERS, heads, context, width)) + self.state_bytes()

    def _bytes_of_cache(self, shape):
        return sum(
            count * bank_bytes(shape(heads, width), self.formats.cache, self.chip)
            for (heads, width), count in Counter(self._kept()).items()
        )

    def _kept(self):
        """(heads, columns) of each tensor of the cache: keys and values where a layer has them, or latents."""
        from bringup.blocks.memory import with_keys

        rank = getattr(self.config, "kv_lora_rank", None)
        if rank is not None:
            return [(1, rank + self.config.qk_rope_head_dim)] * len(with_keys(self.config))
        return [self.of_layer(i)[1:] for i in with_keys(self.config) for _ in "kv"]

    @lru_cache  # noqa: B019  (as long as the plan)
    def state_bytes(self):
        """What layers without keys keep of 32 users."""
        from types import SimpleNamespace

        from bringup.blocks.memory import state_bytes

        return state_bytes(meta_model(self.config), SimpleNamespace(tensor_ways=self.ways))

    def paged_cache_bytes(self, context, users):
        """Blocks of 64 positions for `users` users and one that is nobody's, and the page table of 32 rows."""
        blocks = -(-context // BLOCK)
        pool = self._bytes_of_cache(lambda heads, width: (users * blocks + 1, heads, BLOCK, width))
        table = bank_bytes((USERS, blocks), "int32", self.chip, rows=True)
        return pool + table + self.state_bytes()

    def position_bytes(self):
        """Keys and values of one position of one user."""
        return (self.cache_bytes(BLOCK) - self.state_bytes()) // USERS // BLOCK

    def rope_bytes(self, context):
        """cos and sin, in tiles for a prompt and in rows for look-up; every chip has all of them."""
        width = self.widest[2]
        tiles, rows = (1, 1, context, width), (context, width)
        return 2 * (bank_bytes(tiles, "bf16", self.chip) + bank_bytes(rows, "bf16", self.chip, rows=True))

    def activation_bytes(self, rows):
        """The most that `rows` tokens of a prompt need at once in bfloat16.

        Three hidden states (the residual before and after attention, and its norm), and the largest of: the MLP's
        inner tensors, q, k and v three times, the steps of a sum over chips; or the logits of a tile of rows.
        """
        n_query, n_kv, head_dim = self.widest
        names = {h.name.rpartition(".")[0].rpartition(".")[2] for h in self.weights}
        inner = max((h.shape[-1] for h in self.weights if h.group == "mlp" and "down_proj" not in h.name), default=0)
        widest = max(
            (3 if "gate_proj" in names else 2) * inner,
            3 * (n_query + 2 * n_kv) * head_dim,
            SUM_STATES * self.hidden if self.ways > 1 else 0,
        )
        rows = round_up(rows, TILE)
        return 2 * max(round(rows * (3 * self.hidden + widest)), TILE * self._share(self.vocabulary))

    def upload_bytes(self):
        """What writing the largest bfloat16 matrix needs on a mesh beside its tiles: itself, in rows (ttnn 0.81.1).

        Block formats are written as they are. The hole that it leaves is rarely where the next tensor fits.
        """
        matrices = [h.bytes for h in self.weights if h.dtype == "bf16" and not h.rows]
        return 0 if self.ways == 1 else max(matrices, default=0)

    def unknown(self):
        """Weights that no rule knows."""
        return [held.name for held in self.weights if held.group == "other"]

    def tensor_parallel(self):
        """Whether each dimension divides over the chips, and what padding or copies of it cost, as plain data."""
        ways, head_bytes = self.ways, {"attention": 0, "mlp": 0, "head": 0}
        for held in self.weights:
            if held.group in head_bytes:
                head_bytes[held.group] += held.padding_bytes
        inner = getattr(self.config, "intermediate_size", 0)
        rows = [("query heads", self.n_heads, self.n_query, head_bytes["attention"])]
        rows += [("KV heads", self.n_kv_heads, self.n_kv, None)]  # in the row above
        rows += [("MLP", inner, self._share(inner), head_bytes["mlp"])]
        rows += [("vocabulary", self.vocabulary, self._share(self.vocabulary), head_bytes["head"])]
        return [
            {"what": what, "size": size, "per_chip": each, "divides": each * ways == size, "padding_bytes": cost}
            for what, size, each, cost in rows
        ]


def _layer(name):
    """The number of a layer in a weight's name."""
    found = re.search(r"layers\.(\d+)\.", f"{name}.")
    return int(found[1]) if found else 0


def heads_per_chip(ways, n_heads, n_kv_heads):
    """(query heads, KV heads) of a chip: whole KV heads with their queries, or a copy of one and a part of them."""
    group = n_heads // n_kv_heads
    if n_kv_heads >= ways:
        n_kv = -(-n_kv_heads // ways)
        return n_kv * group, n_kv
    return -(-group // (ways // n_kv_heads)), 1
