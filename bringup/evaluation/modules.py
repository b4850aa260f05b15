"""Every block of a built model against the HF module of the same name: true dimensions, same weights, random input.

Decode is 32 users, one token each, at positions around every boundary, with a filled cache; prefill is one user's
prompt. HF computes in float32. For models of `bringup.blocks`, whose parts have HF's names; others are not opened up.
"""

import copy
import dataclasses
import sys
from contextlib import contextmanager
from dataclasses import dataclass

from bringup.evaluation.pcc import explain, pcc, rel_l2, rel_l2_for

TIGHT, WIDE = 0.999, 0.99  # norm, RoPE, products and what they put into the cache; attention, MLP, a whole layer
USERS = 32
PROMPT = 128
PROMPT_ROW = 3  # of the cache: a row that is not the first
NEAR = (0, 1, 30, 31, 32, 33, 62, 63, 64, 65, 126, 127, 128, 129)


@dataclass
class ModuleResult:
    """One block in one phase. `ok` wants the PCC of `bound` and the distance that such a PCC stands for.

    The distance is asked for because PCC does not see a constant factor. `ok` is None where there are no values.
    """

    name: str
    phase: str
    pcc: float | None
    rel_l2: float | None
    bound: float
    ok: bool | None
    shape: list
    hint: str | None = None

    def as_dict(self):
        return dataclasses.asdict(self)

    def __str__(self):
        if self.ok is None:
            return f"{self.name} {self.phase} {self.shape}: called"
        sign = ">=" if self.pcc >= self.bound else "<"
        bar = rel_l2_for(self.bound)
        far = "" if self.rel_l2 <= bar else f", more than the {bar:.3f} of that PCC"
        line = f"{self.name} {self.phase} {self.shape}: PCC {self.pcc:.6f} {sign} {self.bound}"
        return f"{line}, relative L2 {self.rel_l2:.4f}{far}" + (f": {self.hint}" if self.hint else "")


def made_of_blocks(model):
    """(True, None), or (False, why not) where the parts of the model cannot be reached by HF's names."""
    from bringup.blocks import CausalLM

    if not isinstance(model, CausalLM):
        return False, "the file does not use bringup.blocks, and its parts have no names that could be compared"
    if model.mesh.data_ways > 1:
        return False, "data parallel: every chip has users of its own"
    wanted = ("embed_tokens", "layers", "norm")
    missing = [f"model.{n}" for n in wanted if not hasattr(model.model, n)] + ["lm_head"] * (
        not hasattr(model, "lm_head")
    )
    parts = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
    missing += [f"model.layers.0.{n}" for n in parts if not missing and not hasattr(model.model.layers[0], n)]
    return (False, f"it has no {', '.join(missing)}") if missing else (True, None)


def run(model, hf_model, *, layer=0, seed=0, values=True):
    """A list of `ModuleResult` for the blocks of one decoder layer, the last norm and the head."""
    import torch

    with torch.inference_mode():
        test = _Test(model, hf_model, layer, seed, values)
        for phase in (_Decode(test), _Prefill(test)):
            test.norm(
                phase, f"model.layers.{layer}.input_layernorm", test.layer.input_layernorm, test.hf.input_layernorm
            )
            test.attention(phase)
            name = "post_attention_layernorm"
            test.norm(phase, f"model.layers.{layer}.{name}", getattr(test.layer, name), getattr(test.hf, name))
            test.mlp(phase)
            test.whole_layer(phase)
            test.norm(phase, "model.norm", model.model.norm, test.hf_norm)
            test.head(phase)
    return test.results


class _Test:
    """One layer of the model and of HF, and the results so far."""

    def __init__(self, model, hf_model, index, seed, values):
        import torch

        self.model, self.mesh, self.values = model, model.mesh, values
        self.layer = model.model.layers[index]
        self.prefix = f"model.layers.{index}"
        self.hf = copy.deepcopy(hf_model.model.layers[index]).float()
        self.hf.self_attn.layer_idx = 0  # of a cache that holds this layer only
        self.hf_norm = copy.deepcopy(hf_model.model.norm).float()
        self.hf_head = hf_model.get_output_embeddings().weight
        self.rotary, self.config = hf_model.model.rotary_emb, hf_model.config
        self.generator = torch.Generator().manual_seed(seed)
        self.results = []

    # input and output

    def random(self, *shape):
        """Normal numbers on bfloat16's grid, in float32."""
        import torch

        return torch.randn(*shape, generator=self.generator).bfloat16().float()

    def put(self, x):
        """Rows [rows, width] on every chip, as [1, 1, rows, width]; those of a decode step in L1."""
        import ttnn

        x = self.mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)
        return ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG) if x.shape[-2] == USERS else x

    def chips(self, x):
        """A device tensor as one float32 tensor per chip, or None without values."""
        import ttnn

        return [ttnn.to_torch(t).float() for t in ttnn.get_device_tensors(x)] if self.values else None

    def compare(self, name, phase, expected, actual, bound):
        """Keeps a result. `actual` is a list with what each chip has, which must all be `expected`, or one tensor."""
        import torch

        if isinstance(actual, list):
            expected, actual = (
                torch.stack([expected] * len(actual)),
                torch.stack([a.reshape(expected.shape) for a in actual]),
            )
        shape = list(expected.shape)
        if not self.values:
            self.results.append(ModuleResult(name, phase.name, None, None, bound, None, shape))
            return
        result = ModuleResult(name, phase.name, pcc(expected, actual), rel_l2(expected, actual), bound, True, shape)
        result.ok = result.pcc >= bound and result.rel_l2 <= rel_l2_for(bound)
        if not result.ok:
            result.hint = explain(expected, actual)
        self.results.append(result)

    # the blocks

    def norm(self, phase, name, block, hf_norm):
        """Rows of sizes from 0.01 to 10, as a residual stream has: the small ones see epsilon."""
        import torch

        x = self.random(phase.rows, self.config.hidden_size) * torch.logspace(-2, 1, phase.rows)[:, None]
        x = x.bfloat16().float()
        got = self.chips(block(self.put(x)))
        self.compare(name, phase, hf_norm(x), got, TIGHT)

    def attention(self, phase):
        """The attention, and inside it the products before RoPE, RoPE by itself, and what went into the cache."""
        block, hf, name = self.layer.self_attn, self.hf.self_attn, f"{self.prefix}.self_attn"
        x = self.hf.input_layernorm(self.random(phase.rows, self.config.hidden_size)).bfloat16().float()
        step = phase.prepare(block, hf)
        with _tapped(self, block) as seen:
            out = self.chips(block(self.put(x), step))
        with _hf_rotation(hf) as hf_seen:
            expected = phase.hf_attention(hf, x)
        if not self.values:
            self.compare(name, phase, expected, None, WIDE)
            return
        which = {"q": block.heads.query, "k": block.heads.kv}
        for part in ("q", "k"):
            before, after = (phase.by_head(seen[f"{part}_rope", when], which[part]) for when in ("in", "out"))
            want = phase.of_hf(hf_seen[part], which[part])
            self.compare(f"{name}.{part}_proj", phase, want, before, TIGHT)
            rotated = phase.rotate(hf, before)
            self.compare(f"{name}.{part}_rope", phase, rotated, after, TIGHT)
        for part in ("keys", "values"):
            want = phase.of_hf(phase.hf_written[part], which["k"])
            self.compare(f"{name}.{part}", phase, want, phase.written(block, part), TIGHT)
        self.compare(name, phase, expected, out, WIDE)

    def mlp(self, phase):
        x = self.hf.post_attention_layernorm(self.random(phase.rows, self.config.hidden_size)).bfloat16().float()
        got = self.chips(self.layer.mlp(self.put(x)))
        self.compare(f"{self.prefix}.mlp", phase, self.hf.mlp(x), got, WIDE)

    def whole_layer(self, phase):
        x = self.random(phase.rows, self.config.hidden_size)
        step = phase.prepare(self.layer.self_attn, self.hf.self_attn)
        got = self.chips(self.layer(self.put(x), step))
        self.compare(self.prefix, phase, phase.hf_layer(self.hf, x), got, WIDE)

    def head(self, phase):
        x = self.hf_norm(self.random(USERS, self.config.hidden_size)).bfloat16().float()
        out = self.model.lm_head(self.put(x))
        got = self.mesh.get(out)[0, :, : self.config.vocab_size].float() if self.values else None
        self.compare("lm_head", phase, x @ self.hf_head.float().T, got, TIGHT)


# One phase each: the step that the device gets, what HF computes, and where the heads are


class _Phase:
    def __init__(self, test):
        self.test, self.model = test, test.model
        self.hf_written = {}

    def hf_attention(self, hf, x):
        """HF's attention on x, noting what it adds to the cache."""
        out = hf(self.batch(x), **self.hf_arguments())[0].reshape(x.shape)
        kept, new = self.cache.layers[0], self.positions.shape[1]
        self.hf_written = {"keys": kept.keys[:, :, -new:], "values": kept.values[:, :, -new:]}
        return out

    def hf_layer(self, hf, x):
        out = hf(self.batch(x), **self.hf_arguments())
        return (out[0] if isinstance(out, tuple) else out).reshape(x.shape)

    def rotary(self, positions):
        """HF's (cos, sin) [batch, length, head_dim] at positions [batch, length]."""
        import torch

        return self.test.rotary(torch.zeros(1), positions)

    def rotate(self, hf, x):
        """HF's own rotation of heads [batch, n, length, head_dim]."""
        return _rotation(hf)(x, x, *self.rotary(self.positions))[0]

    def of_hf(self, x, which):
        """HF's heads [batch, n, length, head_dim] in the order in which the chips hold them, copies and all."""
        return x[:, [h for chip in which for h in chip if h is not None]]

    def by_head(self, chips, which):
        """What `of_hf` gives, of the device."""
        import torch

        found = [self.head(chips[c], i) for c, chip in enumerate(which) for i, h in enumerate(chip) if h is not None]
        return torch.stack(found, 1)


class _Decode(_Phase):
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

    def prepare(self, block, hf):
        """Fills the cache, in the device and for HF, and gives the step."""
        import torch
        import ttnn

        length = self.model.cache_len
        x = hf_norm_input(self.test, length)
        tables = self.rotary(torch.arange(length)[None])
        shape = (USERS, length, -1, block.head_dim)
        with _hf_rotation(hf) as seen:
            hf(x, position_embeddings=tables, attention_mask=None)
        self.keys = _rotation(hf)(seen["k"], seen["k"], *tables)[0].bfloat16().float()
        self.cached_values = hf.v_proj(x).view(shape).transpose(1, 2).bfloat16().float()
        kept = cache_of(block)
        put_cache(self.test.mesh, block.heads, kept.keys, self.keys)
        put_cache(self.test.mesh, block.heads, kept.values, self.cached_values)
        at = self.positions.flatten().to(torch.int32)
        positions = self.test.mesh.put(at, ttnn.int32)
        cos, sin = self.model.rope.look_up(self.test.mesh.put(at[None], ttnn.uint32))
        return new_step(is_decode=True, cos=cos, sin=sin, positions=positions)

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
            c[torch.arange(USERS), :, at][None] for c in self.test.chips(getattr(cache_of(block), part))
        ]  # [1, 32, n, hd]
        return self.by_head(chips, block.heads.kv)


class _Prefill(_Phase):
    """One user's prompt, into a row of the cache."""

    name = "prefill"

    def __init__(self, test):
        import torch

        super().__init__(test)
        self.rows = min(PROMPT, test.model.cache_len)
        self.positions = torch.arange(self.rows)[None]

    def prepare(self, block, hf):
        cos, sin = self.model.rope.prompt
        return new_step(is_decode=False, cos=cos, sin=sin, row=PROMPT_ROW)

    def batch(self, x):
        return x[None]

    def hf_arguments(self):
        import torch
        from transformers import DynamicCache

        self.cache = DynamicCache()
        mask = torch.full((self.rows, self.rows), float("-inf")).triu(1)
        return {
            "position_embeddings": self.rotary(self.positions),
            "attention_mask": mask[None, None],
            "past_key_values": self.cache,
        }

    def head(self, chip, i):
        return chip[:, i]  # [1, n, S, head_dim] -> [1, S, head_dim]

    def written(self, block, part):
        chips = [
            c[PROMPT_ROW : PROMPT_ROW + 1, :, : self.rows] for c in self.test.chips(getattr(cache_of(block), part))
        ]
        return self.by_head(chips, block.heads.kv)


def hf_norm_input(test, length):
    """Inputs [32, length, hidden] of the tokens that the cache already holds."""
    return test.hf.input_layernorm(test.random(USERS, length, test.config.hidden_size))


def cache_of(block):
    """What holds the `keys` and `values` [32, heads of a chip, length, head_dim] of an attention."""
    return getattr(block, "cache", block)


def put_cache(mesh, heads, kept, value):
    """Keys or values [32, heads, length, head_dim] into a layer's cache, each chip its heads."""
    import torch
    import ttnn

    zeros = torch.zeros_like(value[:, 0])
    slots = [zeros if h is None else value[:, h] for chip in heads.kv for h in chip]
    host = mesh.put(torch.stack(slots, 1), kept.dtype, ttnn.TILE_LAYOUT, shard_dim=1, on_device=False)
    ttnn.copy_host_to_device_tensor(host, kept)


def new_step(**fields):
    from bringup.blocks.generate import Step

    return Step(**fields)


def _rotation(hf_attention):
    """The function with which HF's attention rotates q and k."""
    return sys.modules[type(hf_attention).__module__].apply_rotary_pos_emb


@contextmanager
def _hf_rotation(hf_attention):
    """Notes q and k [batch, n, length, head_dim] as HF's attention hands them to its rotation."""
    module, seen = sys.modules[type(hf_attention).__module__], {}
    rotate = module.apply_rotary_pos_emb

    def noted(q, k, *args, **kwargs):
        seen.update(q=q, k=k)
        return rotate(q, k, *args, **kwargs)

    module.apply_rotary_pos_emb = noted
    try:
        yield seen
    finally:
        module.apply_rotary_pos_emb = rotate


@contextmanager
def _tapped(test, block):
    """Notes what goes into and comes out of q_rope and k_rope, chip by chip, before anyone frees it."""
    seen, handles = {}, []
    for name in ("q_rope", "k_rope"):

        def before(module, args, name=name):
            seen[name, "in"] = test.chips(args[0])

        def after(module, args, out, name=name):
            seen[name, "out"] = test.chips(out)

        part = getattr(block, name)
        handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
