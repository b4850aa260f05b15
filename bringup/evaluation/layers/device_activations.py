"""What every named point of a model on the device computes, read back without touching the model file.

The device goes through the sequence as in use: the first tokens as a prompt, the rest one by one.
"""

import inspect
import re
from contextlib import contextmanager, nullcontext

from bringup.checkpoints.session import answered
from bringup.console import progress
from bringup.evaluation.layers.activations import LAYER, ORDER, Activations, after_attention, first_of, hooks
from bringup.evaluation.pcc import rel_l2

USERS = 32


def behind(user):
    """How many tokens a user of a batch is behind the one that is watched: three at least, which no slip is."""
    return 3 + user % 4


def text_of(ids, behind):
    """The tokens of a user that is so far behind, by the columns of the one that is watched: other ones than its."""
    return [*ids[behind:], *ids[:behind]]


def record_device(model, ids, decode_from, user=0):
    """The device's activations for one sequence: `decode_from` tokens as a prompt, then one by one; as one of 32 users
    of a batch, where `user` is not the first.

    By hooks on submodules that carry HF's names; else what `output_hidden_states=True` returns; else logits only.
    Another text runs before, a longer one where it fits: what it leaves in the cache must not be taken for this one's.
    """
    import torch

    from bringup.evaluation.layers import facts

    modules = dict(model.named_modules())
    named = [n for n in modules if n in ("model.embed_tokens", "model.norm") or _is_point(n)]
    names = inspect.signature(model.forward).parameters
    states = not any(_is_point(n) for n in named) and "output_hidden_states" in names
    out = Activations(list(ids), decode_from, "submodules" if any(map(_is_point, named)) else "logits")
    out.user = user
    recorder = _Recorder(out, model, user)

    passes = [(0, decode_from)] + [(i, i + 1) for i in range(decode_from, len(ids))]
    with _untraced(model), hooks() as hook, torch.no_grad(), progress("layer by layer, passes", len(passes)) as advance:
        if out.depth == "submodules":
            out.earlier = _earlier(model, names, ids)
            out.modules = frozenset(modules)
            for name, module in modules.items():
                hook(module, lambda *_, name=name: recorder.ran(name))
            hook(modules[named[0]], lambda x: recorder.next_piece() or x, before=True)
            for name in named:
                hook(modules[name], lambda _, o, name=name: recorder.module(name, first_of(o)))
            for name, module in modules.items():
                if re.fullmatch(r"model\.layers\.\d+", name):
                    mid = f"{name}.self_attn.residual"
                    if (after := after_attention(module)) is not None:
                        hook(after, lambda x, mid=mid: recorder.hidden(mid, x) or x, before=True)
                    hook(module, lambda _, o, name=name: recorder.hidden(name + ".mlp.residual", first_of(o)))
        past = None
        for n, (start, stop) in enumerate(passes):
            recorder.begin(start, stop)
            with facts.logged(modules, recorder.phase, out.calls) if n in (0, 1) else nullcontext():
                result = answered(_call(model, names, ids, start, stop, past, states, user))
            past = result.past_key_values
            recorder.put("lm_head", _rows(result.logits[user:] if user else result.logits, stop - start))
            if states and result.hidden_states is not None:
                out.depth = "hidden_states"
                recorder.hidden_states(result.hidden_states)
            advance()
    if out.depth == "submodules":
        for name in named:
            if name.endswith(".self_attn") and any(n.startswith(name) for n, _ in out.ran):  # else nobody wrote it
                recorder.begin(decode_from, len(ids))
                for kind, rows in recorder.cached(name, len(ids)).items():
                    recorder.put(f"{name}.{kind}", rows)
    return out


@contextmanager
def _untraced(model):
    """A replayed step runs no module: inside, steps run."""
    traced = getattr(model, "traced", False)
    if traced:
        model.release_trace()
        model.traced = False
    try:
        yield
    finally:
        if traced:
            model.traced = True


def _earlier(model, names, ids):
    """Runs another text, the same tokens from the end and a tile more where the model takes them, the last of them as
    a step; gives its tokens."""
    room = getattr(model, "max_seq_len", len(ids))
    text = list(ids)[::-1] + list(ids)[: max(0, min(32, room - len(ids)))]
    last = len(text) - 1
    past = answered(_call(model, names, text, 0, last, None, False)).past_key_values if last else None
    if past is None:
        return []
    _call(model, names, text, last, last + 1, past, False)
    return text


def _is_point(name):
    inside = LAYER.fullmatch(name)
    return bool(inside) and inside[2] in ORDER


def _call(model, names, ids, start, stop, past, states, user=0):
    """One forward as generate() would make it, asking for the logits of all positions where that can be asked. With
    `user` 32 users run, the others with other tokens of the text, and some less at its beginning."""
    import torch

    positions = torch.arange(start, stop)
    given = {
        "attention_mask": torch.ones(1, stop, dtype=torch.int64),
        "position_ids": positions[None],
        "cache_position": positions,
        "logits_to_keep": 0,
        "return_dict": True,
        "use_cache": True,
    }
    given = {name: value for name, value in given.items() if name in names}
    if states:
        given["output_hidden_states"] = True
    if user:
        mask = torch.ones(USERS, stop, dtype=torch.int64)
        for other in range(USERS):
            mask[other, : behind(other) if other != user else 0] = 0
        given |= {"attention_mask": mask} if "attention_mask" in names else {}
        texts = [ids if other == user else text_of(ids, behind(other)) for other in range(USERS)]
        tokens = torch.tensor([list(text[start:stop]) for text in texts])
        return model(input_ids=tokens, past_key_values=past, **{k: v for k, v in given.items() if k != "position_ids"})
    return model(input_ids=torch.tensor([list(ids[start:stop])]), past_key_values=past, **given)


def device_cache(model, layer, user=0):
    """{"k_cache", "v_cache"} of a user in one layer: the whole row that it has on the device now."""
    return _Recorder(Activations([], 0), model, user).cached(f"model.layers.{layer}.self_attn")


class _Recorder:
    """Reads ttnn tensors back, at the positions of the pass that runs now."""

    def __init__(self, out, model, user=0):
        self.out, self.start, self.stop, self.user = out, 0, 0, user
        self.pieces, self.piece = [(0, 0)], 0  # (user, its first position) of what a prompt runs in, and which now runs
        mesh = getattr(model, "mesh", None)
        self.one_chip = getattr(mesh, "data_ways", 1) > 1  # user 0 lives on the first chip
        self.hidden_size = getattr(getattr(model, "config", None), "hidden_size", None)
        self.model, self.modules = model, dict(model.named_modules())

    def chips(self, x):
        """The value on each chip that has a part in this user's work."""
        import torch
        import ttnn

        if isinstance(x, torch.Tensor):
            return [x]
        chips = ttnn.get_device_tensors(x)
        return [ttnn.to_torch(chip) for chip in (chips[:1] if self.one_chip else chips)]

    def begin(self, start, stop):
        """A pass: users' prompts run one after the other, each as a whole or in chunks, as the model's cache has it."""
        self.start, self.stop, self.piece = start, stop, -1
        chunk = getattr(getattr(self.model, "cache", None), "prompt_chunk", None) or stop
        users = range(USERS) if self.user else (0,)
        held = {user: stop - (behind(user) if user != self.user else 0) for user in users}
        self.pieces = [(user, at) for user, n in held.items() for at in range(0, n, chunk)]

    @property
    def rows(self):
        """How many positions of the sequence the values that now come are of, and the position after them."""
        if self.start:
            return self.stop - self.start, self.stop
        at = self.pieces[min(max(self.piece, 0), len(self.pieces) - 1)][1]
        chunk = getattr(getattr(self.model, "cache", None), "prompt_chunk", None) or self.stop
        end = min(self.stop, at + chunk)
        return end - at, end

    def put(self, name, rows, stop=None):
        """rows [n, width]: the last n positions of this pass, or before `stop`; fewer than all where the model gives
        fewer."""
        import torch

        if self.user and self.another and name != "lm_head":
            return
        if name not in self.out.points:
            self.out.points[name] = torch.zeros(len(self.out.ids), rows.shape[-1])
            self.out.known[name] = torch.zeros(len(self.out.ids), dtype=torch.bool)
        stop = self.stop if stop is None else stop
        at = slice(stop - len(rows), stop)
        self.out.points[name][at], self.out.known[name][at] = rows.float(), True

    def next_piece(self):
        self.piece += 1

    @property
    def another(self):
        """Is this the prompt of another user?"""
        if self.start:
            return False
        return not 0 <= self.piece < len(self.pieces) or self.pieces[self.piece][0] != self.user

    @property
    def phase(self):
        return "decode" if self.start else "prefill"

    def ran(self, name):
        self.out.ran.setdefault((name, self.phase))

    def module(self, name, output):
        if name.endswith("_rope"):
            self.heads(name, output)
        else:
            self.hidden(name, output)

    def hidden(self, name, x):
        """x [1, 1, rows, hidden], the same on every chip or cut along `hidden`; in decode row 0 is the user.

        What is kept is the first chip's value, or that of the first chip that has no number.
        """
        import torch

        if self.user and self.another:
            return
        first, (n, stop) = self.user if self.start else 0, self.rows
        chips = [_rows(chip, n, first) for chip in self.chips(x)]
        if len(chips) > 1 and chips[0].shape[-1] * len(chips) == self.hidden_size:
            chips = [torch.cat(chips, dim=-1)]
        finite = [chip for chip in chips if bool(chip.isfinite().all())]
        apart = [rel_l2(finite[0], chip) for chip in finite[1:]]
        key = name, self.phase
        self.out.spread[key] = max([self.out.spread.get(key, 0.0), *apart])
        shown = chips[0] if len(finite) == len(chips) else next(c for c in chips if not bool(c.isfinite().all()))
        if len(shown) == n:
            self.put(name, shown, stop)

    def heads(self, name, x):
        """Per chip [1, heads, rows, head_dim], or in decode [1, users, heads, head_dim], in the order of the heads."""
        (n, stop), chips = self.rows, [chip.float() for chip in self.chips(x)]
        chips = [chip[0, self.user : self.user + 1] if self.start else chip[0, :, :n].transpose(0, 1) for chip in chips]
        if len(chips[0]) == n:
            self.put(name, self.collect(name.rpartition(".")[0], name.rpartition(".")[2], chips), stop)

    def collect(self, attention, kind, chips):
        """Per chip [n, heads, width] of q_rope, k_rope, k_cache or v_cache -> [n, all heads * head_dim] in HF's order,
        of heads and of their dims."""
        import torch

        query = kind == "q_rope"
        order = getattr(self.modules[attention], "v_order" if kind == "v_cache" else "qk_order", None)
        if order is not None:
            from bringup.blocks.rope import of_hf

            chips = [of_hf(chip, order) for chip in chips]
        heads = getattr(self.modules[attention], "heads", None)
        if heads is None:
            return torch.cat(chips, dim=1).flatten(1)
        if chips[0].shape[1] == 1 < len((heads.query if query else heads.kv)[0]):  # one for all heads, on every chip
            return chips[0][:, 0]
        shares = heads.query if query else heads.kv
        where = {}
        for chip, share in enumerate(shares[: len(chips)]):
            for slot, head in enumerate(share):
                where.setdefault(head, (chip, slot))
        where.pop(None, None)
        places = [at for _, at in sorted(where.items())]
        held = enumerate(shares[: len(chips)])
        slots = [(c, s) for c, share in held for s, head in enumerate(share) if head is not None]
        count = self.head_count(query)
        if len(places) != count and len(slots) % count == 0:  # a head that no chip has: each slot for what it should be
            places = slots[:: len(slots) // count]
        return torch.stack([chips[c][:, s] for c, s in places], dim=1).flatten(1)

    def head_count(self, query):
        config = self.model.config
        heads = config.num_attention_heads
        return heads if query else getattr(config, "num_key_value_heads", heads)

    def cached(self, name, n=None):
        """The first user's keys and values, [n, all heads * head_dim] each, as the device holds them now: in its row,
        or in its blocks. The first n positions; with None all of a row. Nothing where there is no such cache."""
        import torch
        import ttnn

        held = getattr(self.modules[name], "cache", self.modules[name])
        table = getattr(getattr(self.model, "cache", None), "table", None)
        found = {}
        for kind, tensor in (("k_cache", getattr(held, "keys", None)), ("v_cache", getattr(held, "values", None))):
            if not isinstance(tensor, ttnn.Tensor):
                continue
            _, heads, length, head_dim = tensor.shape
            end = length if n is None else n
            blocks = [self.user] if table is None else table[self.user, : -(-end // length)].tolist()
            parts = []
            for block in blocks:
                part = ttnn.slice(tensor, (block, 0, 0, 0), (block + 1, heads, min(length, end + -end % 32), head_dim))
                parts.append([chip[0].transpose(0, 1).float() for chip in self.chips(part)])
            chips = [torch.cat(of_chip)[:end] for of_chip in zip(*parts, strict=True)]
            found[kind] = self.collect(name, kind, chips)
        return found

    def hidden_states(self, states):
        """HF's convention: the embeddings, the output of each layer, and for the last one that of the final norm."""
        names = ["model.embed_tokens"] + [f"model.layers.{i}.mlp.residual" for i in range(len(states) - 2)]
        for name, x in zip([*names, "model.norm"], states, strict=True):
            self.hidden(name, x)


def _rows(x, n, first=0):
    """[..., rows, width] -> n rows [n, width], or as many as there are."""
    return x.reshape(-1, x.shape[-1])[first : first + n]
