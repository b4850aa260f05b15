"""Every block of a built model against the HF module of the same name: true dimensions, same weights, random input.

Decode is 32 users, one token each, at positions around every boundary, with a filled cache; prefill is one user's
prompt. HF computes in float32. For models of `bringup.blocks`, whose parts have HF's names; others are not opened up.

A part that is not HF's does no harm where what follows makes up for it: rows of q and k in another order, a norm's
weight in the next product. What counts then is the branch, norm and all, and the cache is the model's own.
"""

import copy
import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass

from bringup.evaluation import hf_layers
from bringup.evaluation.module_phases import USERS, Decode, Prefill, hf_rotation
from bringup.evaluation.pcc import explain, pcc, rel_l2, rel_l2_for

LARGE = 3.0  # times the bound of a branch: what a part must be off by to be seen there, if nothing made up for it
MIXERS = ("self_attn", "linear_attn")  # what mixes positions: over keys, or in a state
TIGHT, WIDE = 0.999, 0.99  # norm, RoPE, products and what they put into the cache; attention, MLP, a whole layer


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
    compensated: bool = False  # it is not HF's, and what follows makes up for it

    def as_dict(self):
        return dataclasses.asdict(self)

    def __str__(self):
        if self.ok is None:
            return f"{self.name} {self.phase} {self.shape}: called"
        sign = ">=" if self.pcc >= self.bound else "<"
        bar = rel_l2_for(self.bound)
        far = "" if self.rel_l2 <= bar else f", more than the {bar:.3f} of that PCC"
        line = f"{self.name} {self.phase} {self.shape}: PCC {self.pcc:.6f} {sign} {self.bound}"
        return f"{line}, relative L2 {self.rel_l2:.4f}{far}" + (f"; {self.hint}" if self.hint else "")


def made_of_blocks(model):
    """(True, None), or (False, why not) where the parts of the model cannot be reached by HF's names."""
    from bringup.blocks import CausalLM
    from bringup.blocks.cache import Blocks

    if not isinstance(model, CausalLM):
        return False, "the file does not use bringup.blocks, and its parts have no names that could be compared"
    if model.mesh.data_ways > 1:
        return False, "data parallel: every chip has users of its own"
    if isinstance(model.cache, Blocks):
        return False, "the cache is paged, and no row of it is one user's: a shorter --max_seq_len has rows"
    wanted = ("embed_tokens", "layers", "norm")
    missing = [f"model.{n}" for n in wanted if not hasattr(model.model, n)] + ["lm_head"] * (
        not hasattr(model, "lm_head")
    )
    for i, layer in enumerate(model.model.layers if not missing else ()):
        mixer = [n for n in MIXERS if hasattr(layer, n)]
        missing += [f"model.layers.{i}.{' or .'.join(MIXERS)}"] * (not mixer)
        missing += [f"model.layers.{i}.mlp"] * (not hasattr(layer, "mlp"))
    return (False, f"it has no {', '.join(missing[:3])}") if missing else (True, None)


def first_of_each_kind(model):
    """The numbers of the first layer with each mixer: the first with attention comes first."""
    kinds = [next(n for n in MIXERS if hasattr(layer, n)) for layer in model.model.layers]
    return [kinds.index(kind) for kind in sorted(set(kinds), key=MIXERS.index)]


def run(model, hf_model, *, layer=0, seed=0, values=True):
    """A list of `ModuleResult` for the blocks of one decoder layer with attention, the last norm and the head."""
    import torch

    with torch.inference_mode():
        test = ModuleTest(model, hf_model, layer, seed, values)
        for phase in (Prefill(test), Decode(test)):  # a prompt shows whether the cache must be the model's own
            for part, branch in (("self_attn", test.attention_branch), ("mlp", test.mlp_branch)):
                with test.made_up_for(phase, branch):
                    test.norm(phase, test.before[part])
                    test.attention(phase) if part == "self_attn" else test.mlp(phase)
            for name in test.norms():
                if name not in test.before.values():
                    test.norm(phase, name)
            test.whole_layer(phase)
            with test.made_up_for(phase, test.head_branch):
                test.last_norm(phase)
                test.head(phase)
    return sorted(test.results, key=lambda r: r.phase != "decode")


class ModuleTest:
    """One layer of the model and of HF, and the results so far."""

    mixer = "self_attn"

    def __init__(self, model, hf_model, index, seed, values):
        import torch

        self.model, self.mesh, self.values = model, model.mesh, values
        self.layer = model.model.layers[index]
        self.prefix = f"model.layers.{index}"
        self.hf = copy.deepcopy(hf_model.model.layers[index]).float()
        getattr(self.hf, self.mixer).layer_idx = 0  # of a cache that holds this layer only
        hf_norm = getattr(hf_model.model, "norm", None) or hf_model.model.final_layernorm
        self.hf_norm = copy.deepcopy(hf_norm).float()
        self.hf_head = copy.deepcopy(hf_model.get_output_embeddings()).float()
        self.rotary, self.config, self.index = hf_layers.rotary_of(hf_model.model), hf_model.config, index
        self.generator = torch.Generator().manual_seed(seed)
        self.results = []
        self.own_cache = False  # the model's keys and values are in a basis of its own
        self.before = hf_layers.norms_before(self.hf, self.once, (self.mixer, "mlp"))

    def once(self):
        """Runs HF's layer on a prompt."""
        first = Prefill(self)
        first.hf_layer(self.hf, self.random(first.rows, self.config.hidden_size), *self.beside(first))

    # input and output

    def beside(self, phase):
        """What a layer takes beside the stream."""
        return [self.random(phase.rows, width) for width in hf_layers.inputs_beside(self.hf)]

    def random(self, *shape):
        """Normal numbers on bfloat16's grid, in float32."""
        import torch

        return torch.randn(*shape, generator=self.generator).bfloat16().float()

    def stream(self, rows):
        """Rows of sizes from 0.01 to 10, as a residual stream has: the small ones see epsilon."""
        import torch

        return (self.random(rows, self.config.hidden_size) * torch.logspace(-2, 1, rows)[:, None]).bfloat16().float()

    def put(self, x):
        """Rows [rows, width] on every chip, as [1, 1, rows, width]; those of a decode step in L1."""
        import ttnn

        x = self.mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)
        return ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG) if x.shape[-2] == USERS else x

    def chips(self, x):
        """A device tensor as one float32 tensor per chip, or None without values."""
        import ttnn

        return [ttnn.to_torch(t).float() for t in ttnn.get_device_tensors(x)] if self.values else None

    def compare(self, name, phase, expected, actual, bound, hint=None):
        """Keeps a result. `actual` is a list with what each chip has, which must all be `expected`, or one tensor.
        `hint()` may say what is wrong, where something is."""
        names = phase.names(expected.dim())
        if isinstance(actual, list):
            names = ("chip", *names)
            expected, actual = _stacked(expected, actual)
        shape = list(expected.shape)
        if not self.values:
            self.results.append(ModuleResult(name, phase.name, None, None, bound, None, shape))
            return
        result = ModuleResult(name, phase.name, pcc(expected, actual), rel_l2(expected, actual), bound, True, shape)
        result.ok = result.pcc >= bound and result.rel_l2 <= rel_l2_for(bound)
        if not result.ok:
            result.hint = phase.users((hint and hint()) or explain(expected, actual, names))
        self.results.append(result)

    @contextmanager
    def made_up_for(self, phase, branch):
        """Excuses the results of the block that are far off, where the branch that they are of is HF's as a whole."""
        start = len(self.results)
        yield
        bad = [r for r in self.results[start:] if r.ok is False]
        if not bad:
            return
        bar = LARGE * rel_l2_for(TIGHT)
        if any(r.rel_l2 is None or not r.rel_l2 > bar for r in bad):
            return
        if phase.name == "decode" and branch == self.attention_branch and not self.own_cache:
            return
        before, self.own_cache = self.own_cache, self.own_cache or branch == self.attention_branch
        expected, actual = branch(phase)
        got = _stacked(expected, actual)
        if rel_l2(*got) > rel_l2_for(TIGHT):
            self.own_cache = before
            return
        for r in bad:
            r.ok, r.compensated = True, True
            r.hint = f"made up for: {branch.__doc__.strip()} is HF's (PCC {pcc(*got):.6f})"

    # the blocks

    def norms(self):
        """The names of the layer's norms."""
        return [name for name, _ in self.hf.named_children() if "norm" in name]

    def norm(self, phase, name):
        if name is not None:
            self.compare_norm(phase, f"{self.prefix}.{name}", getattr(self.layer, name), getattr(self.hf, name))

    def last_norm(self, phase):
        self.compare_norm(phase, "model.norm", self.model.model.norm, self.hf_norm)

    def compare_norm(self, phase, name, block, hf_norm):
        x = self.stream(phase.rows)
        got = self.chips(block(self.put(x)))
        self.compare(name, phase, hf_norm(x), got, TIGHT)

    def into(self, part, x, layer=None):
        """What a part takes where the stream is x: HF's, or that of the device's `layer`."""
        name = self.before[part]
        return x if name is None else getattr(layer or self.hf, name)(x)

    def attention(self, phase):
        """The attention, and inside it the products before RoPE, RoPE by itself, and what went into the cache."""
        block, hf, name = self.layer.self_attn, self.hf.self_attn, f"{self.prefix}.self_attn"
        x = self.into("self_attn", self.random(phase.rows, self.config.hidden_size)).bfloat16().float()
        step = phase.prepare(block, hf)
        with _tapped(self, block) as seen:
            out = self.chips(block(self.put(x), step))
        with hf_rotation(hf) as hf_seen:
            expected = phase.hf_attention(hf, x)
        if not self.values:
            self.compare(name, phase, expected, None, WIDE)
            return
        which = {"q": block.heads.query, "k": block.heads.kv}
        for part in hf_seen:  # none in a layer that turns nothing
            before, after = (
                phase.by_head(seen[f"{part}_rope", when], which[part], block.qk_order) for when in ("in", "out")
            )
            want = phase.of_hf(hf_seen[part], which[part])
            self.compare(f"{name}.{part}_proj", phase, want, before[..., : want.shape[-1]], TIGHT)
            rotated = phase.rotate(hf, before)
            self.compare(
                f"{name}.{part}_rope",
                phase,
                rotated,
                after,
                TIGHT,
                lambda before=before, after=after: phase.rotated_for(hf, before, after),
            )
        for part in ("keys", "values"):
            want = phase.of_hf(phase.hf_written[part], which["k"])
            self.compare(
                f"{name}.{part}",
                phase,
                want,
                phase.written(block, part),
                TIGHT,
                lambda part=part, want=want: phase.written_at(block, part, want),
            )
        self.compare(name, phase, expected, out, WIDE)

    def mlp(self, phase):
        x = self.into("mlp", self.random(phase.rows, self.config.hidden_size)).bfloat16().float()
        got = self.chips(self.layer.mlp(self.put(x)))
        self.compare(f"{self.prefix}.mlp", phase, self.hf_mlp(x), got, WIDE)

    def hf_mlp(self, x):
        out = self.hf.mlp(x[None])
        return (out[0] if isinstance(out, tuple) else out)[0]  # some give their router's scores as well

    def whole_layer(self, phase):
        x, beside = self.random(phase.rows, self.config.hidden_size), self.beside(phase)
        step = phase.prepare(self.layer.self_attn, self.hf.self_attn)
        got = self.chips(self.layer(*map(self.put, (x, *beside)), step))
        self.compare(self.prefix, phase, phase.hf_layer(self.hf, x, *beside), got, WIDE)

    def head(self, phase):
        x = self.hf_norm(self.random(USERS, self.config.hidden_size)).bfloat16().float()
        out = self.model.lm_head(self.put(x))
        got = self.mesh.get(out)[0, :, : self.config.vocab_size].float() if self.values else None
        self.compare("lm_head", phase, self.hf_head(x), got, TIGHT)

    # a branch as a whole: what it adds to the residual stream; (expected, what each chip has)

    def attention_branch(self, phase):
        """attention on the normalised stream"""
        x, block, hf = self.stream(phase.rows), self.layer, self.hf
        step = phase.prepare(block.self_attn, hf.self_attn)
        out = self.chips(block.self_attn(self.into("self_attn", self.put(x), block), step))
        return phase.hf_attention(hf.self_attn, self.into("self_attn", x)), out

    def mlp_branch(self, phase):
        """the MLP on the normalised stream"""
        x, block = self.stream(phase.rows), self.layer
        out = self.chips(block.mlp(self.into("mlp", self.put(x), block)))
        return self.hf_mlp(self.into("mlp", x)), out

    def head_branch(self, phase):
        """the head on the normalised stream"""
        x = self.stream(USERS)
        out = self.model.lm_head(self.model.model.norm(self.put(x)))
        got = self.mesh.get(out)[0, :, : self.config.vocab_size].float()
        return self.hf_head(self.hf_norm(x)), [got]


def _stacked(expected, actual):
    """The same for every chip, as one pair of tensors."""
    import torch

    return torch.stack([expected] * len(actual)), torch.stack([a.reshape(expected.shape) for a in actual])


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
