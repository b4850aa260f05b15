"""What a wrong value would be right for: the usual mistakes of a bring-up, recomputed and compared with the device.

At the first point that diverges every suspect is computed by HF's own modules in float32 on the device's own input. The
one that explains most of the error is named, if it leaves less than a third of it.
"""

import torch

from bringup.evaluation import pcc
from bringup.evaluation.layers.activations import split
from bringup.evaluation.layers.device_activations import device_cache

REMAINS = 1 / 3  # of the error: what a suspect may leave and still be named
EPSILONS = (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
FORMATS = ("bfloat8_b", "bfloat4_b")


@torch.no_grad()
def explain(hf_model, device, own, divergence, model=None):
    """What the device computed instead at the point of `divergence`, in words with the number; None for no idea."""
    case = Case(hf_model, device, own, divergence, model)
    got, want = device.points[case.name], own.points[case.name]
    if not bool(got[case.rows].isfinite().all()):
        return None
    best, words = REMAINS, None
    for text, value, *rows in case.suspects():
        rows = rows[0] if rows else case.rows
        value = value.float() if len(value) == len(rows) else value.float()[rows]
        left, error = distance(value, got[rows]), distance(want[rows], got[rows])
        if left < best * error:
            best, words = left / error, f"it is {text} ({left:.2g} from that)"
    if words is None and case.point == "lm_head":  # a rearranged vocabulary is no suspect of its own
        words = pcc.explain(want[case.rows], got[case.rows])
        for dim, name in (("the last dim", "the vocabulary"), ("dim 1", "the vocabulary"), ("dim 0", "the positions")):
            words = words and words.replace(dim, name)
    return words


def formats(model, layer, point, precision):
    """Which of the weights behind a point are in another format than the model file declares."""
    import ttnn

    from bringup.evaluation.layers.declared import declared

    part = point.split(".")[0]
    name = part if part == "lm_head" else f"model.layers.{layer}.{part}" if layer is not None else f"model.{part}"
    module = dict(model.named_modules()).get(name) if model is not None else None
    want = declared(name, precision) if precision is not None else None
    if module is None or want is None:
        return None
    matrices = {n: w for n, w in vars(module).items() if isinstance(w, ttnn.Tensor) and w.shape[-2] > 1}
    held = {n: w.dtype for n, w in matrices.items() if tuple(w.shape)[:-2] == (1, 1)}  # a cache has users there
    other = [f"{n} is {_word(dtype)}" for n, dtype in held.items() if dtype != want]
    return f"on the device {', '.join(other)}; the model file declares {_word(want)}" if other else None


def _word(dtype):
    return str(dtype).rpartition(".")[2].lower()


def distance(x, y):
    """Relative to y."""
    return float((x - y).norm() / y.norm().clamp(min=1e-30))


class Case:
    """One point of one layer: HF's modules there, and the device's inputs to them."""

    def __init__(self, hf_model, device, own, divergence, model=None):
        self.hf, self.device, self.own, self.model = hf_model, device, own, model
        self.layer, self.point = divergence.layer, divergence.point
        inside = f"model.layers.{self.layer}." if self.layer is not None else ""
        self.name = next(n for n in device.points if split(n) == (self.layer, self.point))
        self.prefix = inside
        self.module = dict(hf_model.named_modules()).get(self.name)
        rows = torch.arange(len(device.ids))[device.rows(divergence.phase)]
        known = device.known.get(self.name)
        self.rows = rows if known is None else rows[known[rows]]
        self.decode = divergence.phase == "decode"
        # whether HF's attention has the parts that the suspects are made of: some fuse q, k and v
        self.seen_by_hf = {f"{inside}self_attn.{n}" for n in ("k_rope", "v_cache")} <= own.points.keys()

    def value(self, point):
        """What the device has at a point of this layer; where it was not seen, HF's on the device's inputs."""
        name = self.prefix + point
        return self.device.points[name] if name in self.device.points else self.own.points[name]

    def before(self):
        """The residual stream that enters this layer, or the last norm."""
        layer = self.layer if self.layer is not None else len(self.hf.model.layers)
        name = f"model.layers.{layer - 1}.mlp.residual" if layer else "model.embed_tokens"
        return self.device.points[name] if name in self.device.points else self.own.points[name]

    def suspects(self):
        """(words, value) for each, the value [positions, width] of all positions or of this phase's. A third says at
        which positions alone it would show."""
        yield "all zeros", torch.zeros_like(self.device.points[self.name])
        kinds = {
            "input_layernorm": lambda: self.norm(self.before()),
            "post_attention_layernorm": lambda: self.norm(self.value("self_attn.residual")),
            "norm": lambda: self.norm(self.before()),
            "self_attn.q_rope": lambda: self.rope("q"),
            "self_attn.k_rope": lambda: self.rope("k"),
            "self_attn.k_cache": lambda: self.cache("k"),
            "self_attn.v_cache": lambda: self.cache("v"),
            "self_attn": self.attention,
            "self_attn.residual": lambda: self.residual(self.before(), "self_attn"),
            "mlp": lambda: self.linears(self.module, self.value("post_attention_layernorm")),
            "mlp.residual": lambda: self.residual(self.value("self_attn.residual"), "mlp"),
            "lm_head": lambda: self.linears(self.hf.lm_head, self._get("model.norm")),
        }
        if self.point in kinds and (self.seen_by_hf or not self.point.startswith("self_attn")):
            yield from kinds[self.point]()

    def _get(self, name):
        return self.device.points.get(name, self.own.points[name])

    # norms and residuals

    def norm(self, x):
        weight, eps = self.module.weight.float(), getattr(self.module, "variance_epsilon", None)
        if eps is None:  # not RMSNorm as Llama has it
            return
        square = x.square().mean(-1, keepdim=True)
        for other in EPSILONS:
            if other != eps:
                yield f"the norm with epsilon {other:g} where HF has {eps:g}", x * (square + other).rsqrt() * weight
        yield "the norm without its weight", x * (square + eps).rsqrt()
        yield "the norm with weight + 1", x * (square + eps).rsqrt() * (weight + 1)
        yield "LayerNorm, which subtracts the mean", torch.nn.functional.layer_norm(x, x.shape[-1:], weight, None, eps)
        yield "its input, not normalised", x

    def residual(self, x, branch):
        y = self.value(branch)
        yield f"the output of {branch} alone: the residual is not added", y
        yield f"the residual alone: the output of {branch} is not added", x
        yield (
            "the normalised input plus the branch: the residual is taken after the norm",
            y + self.value("input_layernorm" if branch == "self_attn" else "post_attention_layernorm"),
        )
        yield f"the output of {branch} added twice", x + 2 * y
        if branch == "mlp":
            yield "the layer's input plus the MLP: attention is left out of the residual", self.before() + y

    # queries, keys, cache

    def rope(self, which):
        extras = self.own.extras[self.layer]
        x, cos, sin = extras[which].float(), extras["cos"].float(), extras["sin"].float()
        flat = lambda t: t.transpose(1, 2).flatten(2)[0]  # noqa: E731  [1, heads, S, head_dim] -> [S, width]
        kind = self.hf.config.rope_parameters["rope_type"]
        right = _rotate(x, cos, sin)
        yield f"{which} without rotation", flat(x)
        yield (
            f"{which} rotated in adjacent pairs (Meta's layout), where HF pairs the two halves of a head",
            flat(_rotate_pairs(x, cos, sin)),
        )
        yield (
            "HF's value with a head's dims in Meta's order (harmless where q and k both are)",
            flat(_interleave(right)),
        )
        yield (
            f"{which} rotated as HF does, with the rows of {which}_proj in Meta's order",
            flat(_rotate(_interleave(x), cos, sin)),
        )
        yield f"{which} rotated backwards", flat(_rotate(x, cos, -sin))
        for by in (-1, 1):
            yield f"{which} rotated for position p {by:+d}", flat(_rotate(x, *self.tables(by)))
        if kind != "default":
            yield (
                f"{which} rotated at plain frequencies: the {kind} scaling is left out",
                flat(_rotate(x, *self.plain_tables(x.shape[-1]))),
            )
        factor = getattr(self.hf.model.rotary_emb, "attention_scaling", 1.0)
        if factor != 1.0:
            yield f"{which} without the attention factor {factor:.4g} of {kind}", flat(right / factor)
        if which == "k":
            v = self.own.points[self.prefix + "self_attn.v_cache"].unflatten(1, (x.shape[1], -1)).transpose(0, 1)[None]
            yield "v rotated: keys and values are swapped", flat(_rotate(v, cos, sin))
        yield from self.other_heads(x.shape[1])
        yield from self.other_weights(
            f"{which}_proj", lambda linear, h: flat(_rotate(_as_heads(linear(h), x), cos, sin))
        )

    def tables(self, shift):
        positions = (torch.arange(len(self.device.ids)) + shift).clamp(min=0)[None]
        return (t.float() for t in self.hf.model.rotary_emb(torch.zeros(1), positions))

    def plain_tables(self, head_dim):
        """cos and sin of rope_theta alone."""
        theta = self.hf.config.rope_parameters["rope_theta"]
        frequencies = theta ** (-torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.arange(len(self.device.ids)).float()[:, None] * frequencies
        angles = torch.cat([angles, angles], dim=-1)[None]
        return angles.cos(), angles.sin()

    def cache(self, which):
        heads = self.hf.config.num_key_value_heads
        right = self.own.points[self.name]
        start = self.device.decode_from if self.decode else 0
        for by in (1, -1):
            moved = right.roll(by, 0)
            moved[start if by > 0 else -1] = self.device.points[self.name][start if by > 0 else -1]
            late = "late" if by > 0 else "early"
            yield f"the cache with every {which} written one position {late}", moved
        keys, values = self.own.extras[self.layer]["k"].float(), self.own.points[self.prefix + "self_attn.v_cache"]
        if which == "k":
            yield "k before RoPE", keys.transpose(1, 2).flatten(2)[0]
            yield "v: keys and values are swapped", values
        else:
            yield "k before RoPE: keys and values are swapped", keys.transpose(1, 2).flatten(2)[0]
            yield "k after RoPE: keys and values are swapped", self.value("self_attn.k_rope")
        yield from self.other_heads(heads)
        if which == "v":
            yield from self.other_weights("v_proj", lambda linear, h: linear(h))

    def other_heads(self, heads):
        """The heads in another order, read off from which of HF's is nearest to each of the device's."""
        got, want = (
            a.points[self.name][self.rows].unflatten(1, (heads, -1)).transpose(0, 1).flatten(1)
            for a in (self.device, self.own)
        )
        order = torch.cdist(got, want).argmin(dim=1)
        if order.tolist() != list(range(heads)):
            said = ", ".join(f"{i} is HF's {j}" for i, j in enumerate(order.tolist()) if i != j)
            value = want[order].unflatten(1, (len(self.rows), -1)).transpose(0, 1).flatten(1)
            yield f"HF's value with the heads in another order: head {said}", value

    # attention

    def attention(self):
        q, k, v = (self.heads(point) for point in ("q_rope", "k_cache", "v_cache"))
        scale = self.module.scaling
        n = len(self.device.ids)
        causal = torch.ones(n, n, dtype=torch.bool).tril()
        group = len(q) // len(k)
        pairs = [i // group for i in range(len(q))]

        def out(mask=causal, scale=scale, pairs=pairs, values=v):
            return self.module.o_proj(_attend(q, k[pairs], values[pairs], mask, scale).transpose(0, 1).flatten(1))

        yield "attention without the scale 1/sqrt(head_dim)", out(scale=1.0)
        yield "attention scaled by 1/head_dim", out(scale=scale**2)
        yield "attention scaled twice the head_dim", out(scale=scale / 2**0.5)
        itself = causal.tril(-1)
        itself[0, 0] = True
        yield "attention that misses a token's own key: the causal mask is off by one", out(mask=itself)
        if not self.decode:
            next_too = causal | torch.ones_like(causal).tril(1)
            yield "attention that sees one position too many: the causal mask is off by one", out(mask=next_too)
            prompt = torch.arange(n) < self.device.decode_from
            yield "attention without a causal mask", out(mask=causal | prompt)
        elif self.model is not None:
            yield from self.beyond(q, scale, pairs)
        if group > 1:
            yield (
                "attention with its heads in the wrong order: query head i reads KV head i % n, not i // group",
                out(pairs=[i % len(k) for i in range(len(q))]),
            )
        yield from self.pairing(q, k, v, causal, scale)
        yield from self.other_weights("o_proj", lambda linear, _: linear(self._attended(q, k, v, causal, scale, pairs)))

    def heads(self, point):
        """[heads, positions, head_dim]"""
        return self.value("self_attn." + point).unflatten(1, (-1, self.module.head_dim)).transpose(0, 1)

    def _attended(self, q, k, v, mask, scale, pairs):
        return _attend(q, k[pairs], v[pairs], mask, scale).transpose(0, 1).flatten(1)

    def beyond(self, q, scale, pairs):
        """The last step with what the cache holds beyond its position: up to where would explain the value best."""
        held = device_cache(self.model, self.layer)
        n, last = len(self.device.ids), self.rows[-1:]
        if len(held) < 2 or len(held["k_cache"]) <= n or int(last) != n - 1:
            return
        k, v = (held[name].unflatten(1, (-1, self.module.head_dim)).transpose(0, 1) for name in ("k_cache", "v_cache"))
        scores = (k[pairs] @ q[:, -1, :, None])[..., 0] * scale  # [heads, all positions of the cache]
        weights = (scores - scores.amax(1, keepdim=True)).exp()
        read = (weights[..., None] * v[pairs]).cumsum(1) / weights.cumsum(1)[..., None]  # up to each position
        values = self.module.o_proj(read.transpose(0, 1).flatten(1))[n:]
        end = int((values - self.device.points[self.name][last]).norm(dim=1).argmin())
        words = "attention that sees one position too many: the causal mask is off by one"
        if end > 0:
            words = "attention that reads on beyond its position, over what an earlier prompt left in the cache"
        yield words, values[[end]], last

    def pairing(self, q, k, v, mask, scale, limit=512):
        """Which KV head each query head reads, or whose columns of o_proj it meets: least squares over all choices."""
        n, hd = len(q), q.shape[2]
        if n * max(n, len(k)) > limit:
            return
        weight = self.module.o_proj.weight.float().unflatten(1, (n, hd))  # [hidden, slot, head_dim]
        got = self.device.points[self.name][self.rows].flatten()
        read = torch.stack(
            [_attend(q, k[[j]].expand(n, -1, -1), v[[j]].expand(n, -1, -1), mask, scale) for j in range(len(k))]
        )
        read = read[:, :, self.rows]  # [kv, q, rows, head_dim]
        group = n // len(k)
        own = torch.stack([read[i // group, i] for i in range(n)])  # [q, rows, head_dim]
        by_pair = torch.einsum("jird,oid->ijro", read, weight)  # query head i on KV head j
        by_slot = torch.einsum("ird,osd->siro", own, weight)  # query head i in slot s
        for options, say in (
            (by_pair, "query head {} reads KV head {}"),
            (by_slot, "the columns of o_proj for head {} meet head {}"),
        ):
            matrix = options.flatten(2).flatten(0, 1)
            fit = torch.linalg.lstsq(
                matrix @ matrix.T + 1e-6 * matrix.square().mean() * torch.eye(len(matrix)), matrix @ got
            )
            choice = fit.solution.unflatten(0, options.shape[:2]).argmax(dim=1)
            right = [i // group for i in range(n)] if options is by_pair else list(range(n))
            wrong = [(i, j) for i, j in enumerate(choice.tolist()) if j != right[i]]
            if wrong:
                value = sum(options[i, j] for i, j in enumerate(choice.tolist()))
                said = ", ".join(say.format(i, j) for i, j in wrong[:4]) + " ..." * (len(wrong) > 4)
                yield f"attention with its heads in the wrong order: {said}", value

    # weights

    def linears(self, module, x):
        for dtype in FORMATS:
            yield f"HF's value with weights rounded to {dtype}", self.rounded(module, dtype, lambda: module(x[None])[0])
        if hasattr(module, "gate_proj"):
            act, gate, up, down = module.act_fn, module.gate_proj, module.up_proj, module.down_proj
            yield "the MLP with gate and up swapped", down(act(up(x)) * gate(x))
            yield "the MLP without its activation", down(gate(x) * up(x))
            yield "the MLP with gelu", down(torch.nn.functional.gelu(gate(x)) * up(x))

    def other_weights(self, name, run):
        linear, h = getattr(self.hf.model.layers[self.layer].self_attn, name), self.value("input_layernorm")
        for dtype in FORMATS:
            yield f"HF's value with {name} rounded to {dtype}", self.rounded(linear, dtype, lambda: run(linear, h))

    def rounded(self, module, dtype, run):
        import ttnn

        from bringup.blocks import Precision
        from bringup.evaluation.layers.declared import weights_as

        root = torch.nn.ModuleDict({"mlp": module})  # a name that `declared` knows
        with weights_as(root, Precision.of(getattr(ttnn, dtype))):
            return run()


def _attend(q, k, v, mask, scale):
    """[heads, n, head_dim] each, mask [n, m]"""
    scores = (q @ k.transpose(1, 2) * scale).masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def _as_heads(flat, like):
    return flat.unflatten(1, (like.shape[1], like.shape[3])).transpose(0, 1)[None]


def _rotate(x, cos, sin):
    """HF's layout: dims i and i + head_dim / 2 are a pair."""
    a, b = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-b, a], dim=-1) * sin[:, None]


def _rotate_pairs(x, cos, sin):
    """Meta's layout: dims 2i and 2i + 1 are a pair."""
    half = x.shape[-1] // 2
    cos, sin = cos[:, None, :, :half], sin[:, None, :, :half]
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def _interleave(x):
    a, b = x.chunk(2, dim=-1)
    return torch.stack([a, b], dim=-1).flatten(-2)
