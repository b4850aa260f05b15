"""The two phases in which `modules` runs a block: the step that the device gets, and HF's side of it."""

import re
import sys
from contextlib import contextmanager

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.suspects.reading import described
from bringup.evaluation.lines import ranges

USERS = 32
PROMPT = 128
PROMPT_ROW = 3  # of the cache: a row that is not the first
NEAR = (0, 1, 30, 31, 32, 33, 62, 63, 64, 65, 126, 127, 128, 129)


class Phase:
    """What both have: HF's side, and whose heads are where."""

    def __init__(self, test):
        self.test, self.model = test, test.model
        self.hf_written = {}

    def hf_attention(self, hf, x):
        """HF's attention on x, noting what it adds to the cache."""
        out = hf(self.batch(x), **self.hf_arguments(), **hf_layers.beside_keys(hf))[0].reshape(x.shape)
        kept, new = self.cache.layers[0], self.positions.shape[1]
        self.hf_written = {"keys": kept.keys[:, :, -new:], "values": kept.values[:, :, -new:]}
        return out

    def hf_layer(self, hf, x, *beside):
        given = self.hf_arguments() | (hf_layers.beside_keys(hf.self_attn) if hasattr(hf, "self_attn") else {})
        out = hf(*map(self.batch, (x, *beside)), **given)
        return (out[0] if isinstance(out, tuple) else out).reshape(x.shape)

    def rotary(self, positions):
        """HF's (cos, sin) [batch, length, head_dim] at positions [batch, length]."""
        return hf_layers.tables(self.test.rotary, self.test.config, self.test.index, positions)

    def rotate(self, hf, x):
        """HF's own rotation of heads [batch, n, length, head_dim]."""
        return hf_layers.rotated(hf, x, *self.rotary(self.positions))

    def users(self, text):
        """The same words, with what is known of whom they are about."""
        return text

    def rotated_for(self, hf, before, after):
        """For which positions q or k was rotated, in words; None where that is no position."""
        import torch

        length = self.model.cache_len
        x, y = (t.transpose(1, 2).reshape(-1, t.shape[1], t.shape[3])[:, :1] for t in (before, after))  # [rows, 1, hd]
        tables = self.rotary(torch.arange(length)[None])
        best = []
        for row, want in zip(x, y, strict=True):
            tried = hf_layers.rotated(hf, row[None, :, None].expand(-1, -1, length, -1), *tables)  # [1, 1, length, hd]
            apart = (tried[0, 0] - want).norm(dim=-1) / want.norm()
            best.append((int(apart.argmin()), float(apart.min())))
        at = self.positions.flatten()
        found = torch.tensor([p for p, _ in best])
        if max(a for _, a in best) > 0.05 or torch.equal(found, at):
            return None
        return self.of_rows("rotated", at, found)

    def of_rows(self, done, at, found):
        return f"{done} {described(at, found, 0)}"

    def written_at(self, block, part, want):
        """Where in the cache keys or values were written instead; None where they are nowhere."""
        return None

    def of_hf(self, x, which):
        """HF's heads [batch, n, length, head_dim] in the order in which the chips hold them, copies and all."""
        return x[:, [h for chip in which for h in chip if h is not None]]

    def by_head(self, chips, which, order):
        """What `of_hf` gives, of the device, whose heads have HF's dims in `order`."""
        import torch

        from bringup.blocks import rope

        chips = [rope.of_hf(chip, order) for chip in chips]
        found = [self.head(chips[c], i) for c, chip in enumerate(which) for i, h in enumerate(chip) if h is not None]
        return torch.stack(found, 1)


class Decode(Phase):
    """32 users at their own positions, over a cache full of other keys and values."""

    name, rows = "decode", USERS

    def __init__(self, test):
        import torch

        super().__init__(test)
        length = test.model.cache_len
        near = [p for p in (*NEAR, length - 2, length - 1) if 0 <= p < length]
        spread = [i * length // USERS for i in range(USERS)]
        places = list(dict.fromkeys([*near, *spread]))[:USERS]
        self.positions = torch.tensor(places + [length - 1] * (USERS - len(places)))[:, None]  # [32, 1]

    def names(self, dims):
        return {2: ("user", "column"), 4: ("user", "head", "position", "dim")}.get(dims, ())

    def users(self, text):
        """Users of the hint who are just those from a position on are said to be."""
        if not text or not (found := re.search(r"in users? ([\d, -]+) \(of", text)):
            return text
        spans = [part.split("-") for part in found[1].split(", ")]
        these = {u for span in spans for u in range(int(span[0]), int(span[-1]) + 1)}
        at = self.positions.flatten().tolist()
        first = min(at[u] for u in these)
        if these != {u for u, p in enumerate(at) if p >= first}:
            return text
        return f"{text}: those at positions from {first} on"

    def of_rows(self, done, at, found):
        wrong = (at != found).nonzero().flatten()
        who, verb = ranges(wrong.tolist(), "user"), "is" if len(wrong) == 1 else "are"
        if len(set(found[wrong].tolist())) == 1:
            of = "of user 0, " if found[wrong][0] == at[0] else ""
            return f"{who} {verb} {done} for the position {of}{int(found[wrong][0])}"
        said = described(at, found, 0)
        if said.startswith("for other") or " at position" in said:
            said = described(at[wrong], found[wrong], 0)
        return f"{who} {verb} {done} {said}"

    def written_at(self, block, part, want):
        import torch

        from bringup.blocks import rope

        chips = self.test.chips(getattr(block.cache, part))  # [32, heads, length, hd]
        cache = rope.of_hf(chips[0][:, 0], order_of(block, part))
        first = next(h for h in block.heads.kv[0] if h is not None)
        mine = want[:, block.heads.kv[0].index(first), 0]  # [32, hd]
        apart = (cache - mine[:, None]).norm(dim=-1) / mine.norm(dim=-1)[:, None]
        at = self.positions.flatten()
        if float(apart.min(dim=1).values.max()) > 0.05:
            return None
        found = apart.argmin(dim=1)
        return None if torch.equal(found, at) else self.of_rows("written", at, found)

    def prepare(self, block, hf):
        """Fills the cache, in the device and for HF, and gives the step."""
        import torch
        import ttnn
        from transformers import DynamicCache

        length = self.model.cache_len
        raw = self.test.random(USERS, length, self.test.config.hidden_size)
        x = self.test.into("self_attn", raw)  # of the tokens that the cache already holds
        filled = DynamicCache()
        tables = self.rotary(torch.arange(length)[None])
        given = hf_layers.beside_keys(hf)
        hf(x, position_embeddings=tables, attention_mask=None, past_key_values=filled, **given)
        self.keys, self.cached_values = (t.bfloat16().float() for t in (filled.layers[0].keys, filled.layers[0].values))
        kept = block.cache  # [32, heads of a chip, length, head_dim] each
        if self.test.own_cache:
            prompt = Prefill(self.test)
            for user in range(USERS):
                step = prompt.prepare(block, hf, user)
                block(self.test.into("self_attn", self.test.put(raw[user]), self.test.layer), step)
        else:
            put_cache(self.test.mesh, block, kept.keys, self.keys, block.qk_order)
            put_cache(self.test.mesh, block, kept.values, self.cached_values, block.v_order)
        at = self.positions.flatten().to(torch.int32)
        positions = self.test.mesh.put(at, ttnn.int32)
        at = self.test.mesh.put(at[None], ttnn.uint32)
        turns = {name: rope.look_up(at) for name, rope in self.model.ropes.items()}
        return self.model.new_step(turns, is_decode=True, positions=positions, at=at)

    def batch(self, x):
        return x[:, None]  # [32, 1, hidden]

    def hf_arguments(self):
        """A user sees the cached keys before its position, and its own, which HF appends."""
        import torch
        from transformers import DynamicCache

        self.cache = DynamicCache()
        self.cache.update(self.keys, self.cached_values, 0)
        length = self.keys.shape[2]
        columns = torch.arange(length + 1)[None]
        unseen = (columns >= self.positions) & (columns < length)
        if (window := hf_layers.window(self.test.hf.self_attn, self.test.config)) is not None:
            unseen |= columns <= self.positions - window
        mask = torch.zeros(USERS, length + 1).masked_fill(unseen, float("-inf"))
        return {
            "position_embeddings": self.rotary(self.positions),
            "attention_mask": mask[:, None, None],
            "past_key_values": self.cache,
        }

    def head(self, chip, i):
        return chip[0, :, i : i + 1]  # [1, 32, n, head_dim] -> [32, 1, head_dim]

    def written(self, block, part):
        """What each user's position of the cache holds: [32, slots, 1, head_dim]."""
        import torch

        at = self.positions.flatten()
        chips = [
            c[torch.arange(USERS), :, at][None] for c in self.test.chips(getattr(block.cache, part))
        ]  # [1, 32, n, hd]
        return self.by_head(chips, block.heads.kv, order_of(block, part))


class Prefill(Phase):
    """One user's prompt, into a row of the cache."""

    name = "prefill"

    def __init__(self, test):
        import torch

        super().__init__(test)
        self.rows = min(PROMPT, test.model.cache_len)
        self.positions = torch.arange(self.rows)[None]

    def names(self, dims):
        return {2: ("position", "column"), 4: ("prompt", "head", "position", "dim")}.get(dims, ())

    def prepare(self, block, hf, row=PROMPT_ROW):
        turns = {name: rope.prompt for name, rope in self.model.ropes.items()}
        return self.model.new_step(turns, is_decode=False, row=row)

    def batch(self, x):
        return x[None]

    def hf_arguments(self):
        import torch
        from transformers import DynamicCache

        self.cache = DynamicCache()
        mask = torch.full((self.rows, self.rows), float("-inf")).triu(1)
        if (window := hf_layers.window(self.test.hf.self_attn, self.test.config)) is not None:
            mask += torch.full((self.rows, self.rows), float("-inf")).tril(-window)
        return {
            "position_embeddings": self.rotary(self.positions),
            "attention_mask": mask[None, None],
            "past_key_values": self.cache,
        }

    def head(self, chip, i):
        return chip[:, i]  # [1, n, S, head_dim] -> [1, S, head_dim]

    def written(self, block, part):
        chips = [c[PROMPT_ROW : PROMPT_ROW + 1, :, : self.rows] for c in self.test.chips(getattr(block.cache, part))]
        return self.by_head(chips, block.heads.kv, order_of(block, part))


def order_of(block, part):
    """HF's dim in each column of what the cache holds."""
    return block.qk_order if part == "keys" else block.v_order


def put_cache(mesh, block, kept, value, order):
    """Keys or values [32, heads, length, head_dim] into a layer's cache, each chip its heads, in the device's order."""
    import torch
    import ttnn

    from bringup.blocks import weights

    value = weights.columns(value, order, 3)
    zeros = torch.zeros_like(value[:, 0])
    slots = [zeros if h is None else value[:, h] for chip in block.heads.kv for h in chip]
    host = mesh.put(torch.stack(slots, 1), kept.dtype, ttnn.TILE_LAYOUT, shard_dim=1, on_device=False)
    ttnn.copy_host_to_device_tensor(host, kept)


@contextmanager
def hf_rotation(hf_attention):
    """Notes q and k [batch, n, length, head_dim] as HF's attention hands them to its rotation."""
    module, seen = sys.modules[type(hf_attention).__module__], {}
    rotate = module.apply_rotary_pos_emb

    def noted(q, k, *args, **kwargs):
        seen.update(q=q, k=k)
        return rotate(q, k, *args, **kwargs)

    def one(x, *args, unsqueeze_dim=1, **kwargs):  # q, then k
        seen["k" if "q" in seen else "q"] = x if unsqueeze_dim == 1 else x.transpose(1, 2)
        return rotate(x, *args, unsqueeze_dim=unsqueeze_dim, **kwargs)

    module.apply_rotary_pos_emb = noted if hf_layers.turns_both(rotate) else one
    try:
        yield seen
    finally:
        module.apply_rotary_pos_emb = rotate
