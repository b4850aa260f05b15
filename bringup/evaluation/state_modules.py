"""Blocks of a layer that keeps a state in place of keys, against HF's: prompts of some users, then steps of theirs.

HF computes each user's whole text at once, in float32.
"""

from bringup.evaluation import modules
from bringup.evaluation.module_phases import USERS, Decode, Prefill

STEPS = 3
TILE = 32
LENGTHS = {0: 64, 5: 33, 31: 1}  # of prompts, by the row of the user: a whole chunk, past a tile, a token


def of_layer(model, hf_model, *, layer=0, seed=0, values=True):
    """A list of `ModuleResult` for the blocks of one decoder layer, of either kind."""
    own = modules.run if hasattr(model.model.layers[layer], "self_attn") else run
    return own(model, hf_model, layer=layer, seed=seed, values=values)


def run(model, hf_model, *, layer=0, seed=0, values=True):
    """A list of `ModuleResult` for the norms, the mixer, the MLP and the whole of one decoder layer."""
    import torch

    with torch.inference_mode():
        test = _StateTest(model, hf_model, layer, seed, values)
        for phase in (Prefill(test), Decode(test)):
            for name in test.norms():
                test.norm(phase, name)
            test.mlp(phase)
        test.mixed(f"{test.prefix}.{test.mixer}")
        test.mixed(test.prefix)
    return sorted(test.results, key=lambda r: r.phase != "decode")


class _Rows:
    """Of several users: a row's number says nothing by itself."""

    def __init__(self, name):
        self.name = name

    def names(self, dims):
        return ("row", "column")

    def users(self, text):
        return text


class _StateTest(modules.ModuleTest):
    mixer = "linear_attn"

    def once(self):
        self.of_hf(self.prefix, self.random(2, self.config.hidden_size))

    def of_hf(self, name, x):
        """HF's layer, or its mixer, on a user's text [tokens, hidden]."""
        import torch

        if name != self.prefix:
            return getattr(self.hf, self.mixer)(x[None])[0]
        at = Prefill(self).rotary(torch.arange(len(x))[None])
        out = self.hf(x[None], position_embeddings=at, attention_mask=None)
        return (out[0] if isinstance(out, tuple) else out)[0]

    def mixed(self, name):
        """The layer, or its mixer, over a prompt of each user, and over steps in which all go on."""
        import torch

        whole = name == self.prefix
        block = self.layer if whole else getattr(self.layer, self.mixer)
        room = self.model.cache_len - STEPS
        lengths = {row: min(n, room) for row, n in LENGTHS.items()}
        given, got = {}, {"prefill": [], "decode": []}
        for row, n in lengths.items():
            x = self.random(n + STEPS, self.config.hidden_size)
            given[row] = x if whole else self.into(self.mixer, x).bfloat16().float()
            out = self.chips(block(*self.prompt(given[row][:n], row))) or ()
            got["prefill"].append([c[..., :n, :] for c in out])
        for i in range(STEPS):
            x = self.random(USERS, self.config.hidden_size)
            for row, n in lengths.items():
                x[row] = given[row][n + i]
            out = self.chips(block(self.put(x), self.step())) or ()
            got["decode"].append([c[..., list(lengths), :] for c in out])
        want = {row: self.of_hf(name, x) for row, x in given.items()}
        parts = {
            "prefill": [want[row][:n] for row, n in lengths.items()],
            "decode": [torch.stack([want[row][n + i] for row, n in lengths.items()]) for i in range(STEPS)],
        }
        for phase in map(_Rows, got):
            chips = [torch.cat([c.reshape(-1, c.shape[-1]) for c in of]) for of in zip(*got[phase.name], strict=True)]
            self.compare(name, phase, torch.cat(parts[phase.name]), chips or None, modules.WIDE)

    def prompt(self, x, row):
        """(x [tokens, hidden] in whole tiles, its step) as a prompt of the user in `row`."""
        import torch
        import ttnn

        rows = -(-len(x) // TILE) * TILE
        padded = torch.cat((x, self.random(rows - len(x), x.shape[1])))
        turns = {name: rope.prompt for name, rope in self.model.ropes.items()}
        kept = self.model.cache.states.of_prompt([len(x)], rows, row)
        step = self.model.new_step(turns, is_decode=False, row=row, tokens=kept)
        return self.mesh.put(padded[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT), step

    def step(self):
        import torch
        import ttnn

        at = self.mesh.put(torch.zeros(1, USERS, dtype=torch.int32), ttnn.uint32)
        turns = {name: rope.look_up(at) for name, rope in self.model.ropes.items()}
        return self.model.new_step(turns, is_decode=True, positions=at, at=at)
