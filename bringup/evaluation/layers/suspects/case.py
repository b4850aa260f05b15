"""One point of one layer: HF's modules there, the device's inputs to them, and whether a suspected value fits."""

import torch

from bringup.evaluation.layers.activations import BEFORE_FFN, BEFORE_MIXER, FFNS, MIXERS, split
from bringup.evaluation.layers.declared import through
from bringup.evaluation.layers.device_activations import USERS, behind

REMAINS = 1 / 3  # of the error: what a suspect may leave and still be named
COARSE = 0.15  # of the error: what may be left where a value near the edge of a coarse grid falls to either side


def distance(x, y):
    """Relative to y."""
    return float((x - y).norm() / y.norm().clamp(min=1e-30))


class Case:
    """A point that diverges: `rows` are the positions that are judged, `bound` and `row_bound` what formats explain."""

    def __init__(self, hf_model, device, own, divergence, model=None):
        self.hf, self.device, self.own, self.model = hf_model, device, own, model
        self.config = hf_model.config
        self.layer, self.point, self.phase = divergence.layer, divergence.point, divergence.phase
        self.name = next(n for n in device.points if split(n) == (self.layer, self.point))
        self.prefix = f"model.layers.{self.layer}." if self.layer is not None else "model."
        self.modules = dict(hf_model.named_modules())
        self.module = self.modules.get(self.name)
        rows = torch.arange(len(device.ids))[device.rows(divergence.phase)]
        known = device.known.get(self.name)
        self.rows = rows if known is None else rows[known[rows]]
        self.decode = divergence.phase == "decode"
        self.got, self.want = device.points[self.name][self.rows], own.points[self.name][self.rows]
        self.error = distance(self.want, self.got)
        verdict = divergence.verdict or {}
        self.bound = verdict.get("bound") or self.error * REMAINS
        self.row_bound = verdict.get("worst_bound") or 2 * self.bound

    # what the device had

    @property
    def attention(self):
        return self.hf.model.layers[self.layer].self_attn

    @property
    def chips(self):
        """Chips that share one user's work."""
        return getattr(getattr(self.model, "mesh", None), "tensor_ways", 1)

    @property
    def chunk(self):
        """How many positions of a prompt run at once; None where it runs as a whole."""
        return getattr(getattr(self.model, "cache", None), "prompt_chunk", None)

    @property
    def others_behind(self):
        """{user: how many tokens it is behind the one that is watched}, of a batch."""
        user = self.device.user
        return {other: behind(other) for other in range(USERS) if other != user} if user else {}

    def value(self, point):
        """What the device had at a point of this layer; where it was not seen, HF's on the device's inputs."""
        return self.any(self.prefix + point)

    def any(self, name):
        known = self.device.known.get(name)
        if name in self.device.points and (known is None or bool(known.all())):
            return self.device.points[name]
        if name in self.device.points:
            return torch.where(known[:, None], self.device.points[name], self.own.points[name])
        return self.own.points[name]

    def is_seen(self, point):
        """Did HF take the device's value at a point of this layer?"""
        name = self.prefix + point
        return (
            name in self.own.points and getattr(self.device.points.get(name), "shape", 0) == self.own.points[name].shape
        )

    def before(self):
        """The residual stream that enters this layer, or the last norm."""
        layer = self.layer if self.layer is not None else len(self.hf.model.layers)
        return self.any(f"model.layers.{layer - 1}.mlp.residual" if layer else "model.embed_tokens")

    def into_attention(self):
        """What HF's attention takes: the norm before it, or the stream."""
        name = next((name for name in BEFORE_MIXER if self.has(name)), None)
        return self.before() if name is None else self.value(name)

    def into_mlp(self):
        """What HF's MLP takes: the norm before it, attention's where they stand side by side, or the stream."""
        for name in BEFORE_FFN:
            if self.has(name):
                return self.value(name)
        if not any(map(self.has, BEFORE_MIXER)):
            return self.value("self_attn.residual")
        return self.value("post_attention_layernorm" if self.has("post_attention_layernorm") else "input_layernorm")

    @property
    def mixer(self):
        """The name of what mixes positions in this layer."""
        return next((name for name in MIXERS if self.has(name)), MIXERS[0])

    @property
    def ffn(self):
        """The name of the MLP, or of what stands in its place."""
        return next((name for name in FFNS if self.has(name)), FFNS[0])

    def has(self, *parts):
        """Does HF's layer have modules of these names?"""
        return all(self.prefix + part in self.modules for part in parts)

    # heads

    @property
    def is_latent(self):
        """Are keys and values made of one short vector for all heads?"""
        return self.has("self_attn.kv_a_proj_with_mqa")

    @property
    def head_dim(self):
        """Of latent attention what turns of a head."""
        return self.attention.qk_rope_head_dim if self.is_latent else self.attention.head_dim

    def by_head(self, x, head_dim=None):
        """[n, heads * head_dim] -> [heads, n, head_dim]"""
        return x.unflatten(1, (-1, head_dim or self.head_dim)).transpose(0, 1)

    @property
    def of_heads(self):
        """Is the point's value heads side by side?"""
        return self.point in ("self_attn.q_rope", "self_attn.k_rope", "self_attn.k_cache", "self_attn.v_cache")

    # verdicts

    def at_rows(self, value):
        """A suspected value at the judged positions; it may be given for these only."""
        value = value.detach().float()
        return value if len(value) == len(self.rows) else value[self.rows]

    def grids(self, dtype):
        """Functions that put x [.., width] on the grid of a format: as the host rounds, as ttnn.typecast cuts off."""
        yield lambda x: on_grid(x.bfloat16(), dtype)
        if hasattr(self.model, "mesh"):
            yield lambda x: self._cast(x.reshape(-1, x.shape[-1]), dtype).reshape(x.shape)

    def _cast(self, x, dtype):
        import ttnn

        on_chips = self.model.mesh.put(x[None, None], ttnn.bfloat16, ttnn.TILE_LAYOUT)
        chips = ttnn.get_device_tensors(ttnn.typecast(on_chips, getattr(ttnn, dtype)))
        return ttnn.to_torch(chips[0]).float()[0, 0]

    def left(self, value, slack=0.0):
        """What a value at the judged positions leaves, relative to the device's: None where it does not fit. With
        `slack` so much of the error may be left: a coarse grid has neighbours that noise decides between."""
        if value.shape != self.got.shape or not bool(value.isfinite().all()):
            return None
        left = distance(value, self.got)
        if left > max(self.bound, slack * self.error) or left > REMAINS * self.error:
            return None
        sizes = self.got.norm(dim=-1)
        by_row = (value - self.got).norm(dim=-1) / sizes.clamp(min=max(0.1 * float(sizes.mean()), 1e-30))
        return left if float(by_row.max()) <= max(self.row_bound, 4 * slack * self.error) else None


def rounded(weight, dtype):
    """A linear layer's weight [out, in] on the grid that it has on the device as [in, out]."""
    import ttnn

    return through(weight.detach().float().T, getattr(ttnn, dtype)).T


def on_grid(x, dtype):
    """x [.., width] as a device tensor of `dtype` holds it."""
    import ttnn

    return through(x, getattr(ttnn, dtype))
