"""Queries and keys after RoPE: what was rotated, in which pairs, by which angles, which are read off."""

import copy
import math

import torch

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.declared import BLOCK_FORMATS
from bringup.evaluation.layers.suspects import reading, weights
from bringup.evaluation.layers.suspects.case import distance, on_grid
from bringup.evaluation.layers.suspects.norms import head_norm, is_of_all, norm_of_all, normed

THETAS = (500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1.5e5, 2.5e5, 5e5, 1e6, 2e6, 5e6, 8e6, 1e7, 1e8)
SAME = 1e-3  # relative: HF's value, and its formula
FINE = 1 << 15  # frequencies between -pi and pi that are looked at


class Rotation:
    """HF's q or k of a case before rotation, x [heads, n, head_dim], and its tables."""

    def __init__(self, case, which):
        self.case, self.which = case, which
        extras = case.own.extras[case.layer]
        self.x, self.cos, self.sin = extras[which].float()[0], extras["cos"].float()[0], extras["sin"].float()[0]
        self.n, self.head_dim = self.x.shape[1:]
        rotary, config = hf_layers.rotary_of(case.hf.model), case.config
        # Gemma-3's has tables for each type of layer
        self.type = None if hasattr(rotary, "inv_freq") else config.layer_types[case.layer]
        of_type = "" if self.type is None else f"{self.type}_"
        self.parameters = config.rope_parameters if self.type is None else config.rope_parameters[self.type]
        self.frequencies = getattr(rotary, f"{of_type}inv_freq").detach().float()
        self.factor = getattr(rotary, f"{of_type}attention_scaling", 1.0)
        if self.cos.shape[-1] == len(self.frequencies):  # a column for each pair: gpt-oss's
            self.cos, self.sin = (torch.cat((t, t), -1) for t in (self.cos, self.sin))
        self.width = self.cos.shape[-1]  # of a head, that is rotated: less than head_dim where that is partial
        self.positions = torch.arange(self.n).float()
        self.neighbours = self._of_neighbours()
        if self.neighbours:
            self.x = self.laid(self.x)

    def _of_neighbours(self):
        """Does HF turn neighbours? From here on they are half a head apart, as HF's other rotations have them."""
        want = self.case.by_head(self.case.own.points[self.case.name], self.head_dim)
        tables = self.cos, self.sin
        if torch.equal(self.cos[:, ::2], self.cos[:, 1::2]):  # a column for each of the two
            self.cos, self.sin = (torch.cat((t[:, ::2],) * 2, -1) for t in tables)
        if distance(interleave(self.turned(halves(self.x, self.width)), self.width), want) < SAME:
            return True
        self.cos, self.sin = tables
        return False

    def laid(self, x):
        """x in HF's order of dims, as the mechanisms take it; `flat` is the way back."""
        return halves(x, self.width) if self.neighbours else x

    def flat(self, x):
        """[heads, n, head_dim] -> [n, width]"""
        return (interleave(x, self.width) if self.neighbours else x).transpose(0, 1).flatten(1)

    def turned(self, x=None, cos=None, sin=None):
        """HF's layout: dims i and i + width / 2 are a pair; what is beyond the width stays."""
        x = self.x if x is None else x
        cos, sin = self.cos if cos is None else cos, self.sin if sin is None else sin
        part, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        a, b = part.chunk(2, dim=-1)
        return torch.cat([part * cos + torch.cat([-b, a], dim=-1) * sin, rest], dim=-1)

    def in_pairs(self, x=None):
        """Meta's layout: dims 2i and 2i + 1 are a pair."""
        x = self.x if x is None else x
        half = self.width // 2
        cos, sin = self.cos[:, :half], self.sin[:, :half]
        part, rest = x[..., : self.width], x[..., self.width :]
        a, b = part[..., 0::2], part[..., 1::2]
        pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        return torch.cat([pairs, rest], dim=-1)

    def tables(self, angles):
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos() * self.factor, angles.sin() * self.factor

    def by(self, frequencies, positions=None):
        positions = self.positions if positions is None else positions
        return self.turned(None, *self.tables(positions[:, None] * frequencies))

    def pairs(self):
        """z [rows, pairs] complex, summed over heads: how far the device turned each pair; and the sizes they have."""
        rows, half = self.case.rows, self.width // 2
        got = self.laid(self.case.by_head(self.case.got, self.head_dim))[..., : self.width]
        x = self.x[:, rows, : self.width]
        there, here = torch.complex(got[..., :half], got[..., half:]), torch.complex(x[..., :half], x[..., half:])
        return (there * here.conj()).sum(0), here.abs().square().sum(0)


def rotation(case):
    which = "q" if case.point == "self_attn.q_rope" else "k"
    r = Rotation(case, which)
    for mechanism in (_layouts, _angles, _positions, _frequencies, _tables, _partial, _other_dims):
        for words, value in mechanism(r):
            yield f"{which} {words}", r.flat(value)
    for words, value in _weights(r):
        yield words, r.flat(value)


def _layouts(r):
    yield "without rotation", r.x
    if r.neighbours:
        turned = r.turned(interleave(r.x, r.width))
        yield "rotated in two halves of a head, where HF turns neighbours", r.laid(turned)
        yield "as HF has it, with the neighbours of a head put half a head apart", r.laid(r.turned())
        return
    yield "rotated in adjacent pairs (Meta's layout), where HF pairs the two halves of a head", r.in_pairs()
    yield "as HF has it, with a head's dims in Meta's order", interleave(r.turned(), r.width)
    yield (
        f"rotated as HF does, with the rows of {r.which}_proj in Meta's order",
        r.turned(interleave(r.x, r.width)),
    )
    yield (
        f"rotated as HF does, with the rows of {r.which}_proj put from Meta's order into HF's though they are HF's",
        r.turned(halves(r.x, r.width)),
    )
    yield "rotated in adjacent pairs, with its rows in Meta's order", r.in_pairs(interleave(r.x, r.width))


def _angles(r):
    yield "rotated backwards: the sign of the sine is wrong", r.turned(sin=-r.sin)
    yield "rotated with cos and sin in each other's place", r.turned(cos=r.sin, sin=r.cos)
    yield "times the cosine only: the half with the sine is left out", r.turned(sin=torch.zeros_like(r.sin))
    yield "times the sine only: the half with the cosine is left out", r.turned(cos=torch.zeros_like(r.cos))
    yield "rotated twice, as if for position 2 p", r.turned(r.turned())
    if r.factor != 1.0:
        kind = r.parameters["rope_type"]
        yield f"without the attention factor {r.factor:.4g} of {kind}", r.turned() / r.factor
        yield f"with the attention factor {r.factor:.4g} of {kind} twice", r.turned() * r.factor


def _positions(r):
    """Which position each row is rotated for: the one that turns it farthest towards the device's."""
    case = r.case
    z, _ = r.pairs()
    length = max(r.n + 64, 2 * r.n)
    candidates = torch.arange(-64, length).float()
    angles = candidates[:, None] * r.frequencies
    score = z.real @ angles.cos().T + z.imag @ angles.sin().T
    best = candidates[score.argmax(dim=1)]
    if torch.equal(best.long(), case.rows):
        return
    at = r.positions.clone()
    at[case.rows] = best
    said = reading.described(case.rows, best, case.device.decode_from, case.others_behind)
    if case.chunk and torch.equal(best.long(), case.rows % case.chunk):
        said += f", the positions of a prompt that run at once: each chunk of {case.chunk} is rotated as the first is"
    yield f"rotated {said}", r.by(r.frequencies, at)


def _frequencies(r):
    """The frequency of each pair, read off from how it turns from position to position; and which rule has these."""
    kind = r.parameters["rope_type"]
    theta, hd = r.parameters.get("rope_theta", 1e4), r.width
    exponent = torch.arange(0, hd, 2).float() / hd
    if kind != "default":
        yield f"rotated at plain frequencies: the {kind} scaling is left out", r.by(theta**-exponent)
        plain = [t / r.factor for t in r.tables(r.positions[:, None] * theta**-exponent)]
        yield (
            f"rotated at plain frequencies and without the attention factor: the {kind} scaling is left out",
            r.turned(None, *plain),
        )
    hidden, heads = r.case.config.hidden_size, r.case.config.num_attention_heads
    for dim in dict.fromkeys((2 * hd, hd // 2, 4 * hd, hidden // heads, hidden, 64, 128, 96, 80, 256)):
        if dim != hd:
            other = theta ** (-torch.arange(0, hd, 2).float() / dim)
            same = f"head_dim is {r.head_dim}; as rope_theta {theta ** (hd / dim):,.4g} would give"
            yield f"rotated with tables for heads of {dim} ({same})", r.by(other)
    yield from _other_parameters(r)
    yield from _other_lists(r)
    for name, other in r.case.config.to_dict().items():
        if isinstance(other, (int, float)) and other > 100 and abs(other - theta) > 1e-3 * theta:
            words = f"rotated with rope_theta {other:,.0f}, which is {name}, where HF has {theta:,.0f}"
            yield words, r.by(float(other) ** -exponent)
    for other in THETAS:
        if abs(other - theta) > 1e-3 * theta:
            yield f"rotated with rope_theta {other:,.0f} where HF has {theta:,.0f}", r.by(other**-exponent)
    read, sure = _read_frequencies(r)
    if read is None:
        return
    value = r.by(read)
    ratio = read / r.frequencies
    visible = sure & (r.frequencies * len(r.case.rows) > 0.3)
    if bool(visible.any()):
        common = float(ratio[visible].median())
        if float((ratio[visible] - common).abs().max()) < 0.03 * abs(common):
            factor = _nice(common)
            said = f"1 / {_nice(1 / common):g}" if abs(common) < 1 else f"{factor:g}"
            yield f"rotated at {said} of HF's frequencies", r.by(r.frequencies * factor)
            yield f"rotated at {said} of HF's frequencies", r.by(r.frequencies / _nice(1 / common))
        low = visible & (read > 1e-3)
        if int(low.sum()) >= 3:
            y, x = read[low].log(), exponent[low]
            slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
            other = math.exp(-slope)
            if abs(math.log(other / theta)) > 0.01 and abs(float(read[0]) - 1) < 0.02:
                for digits in (1, 2, 3):
                    near = float(f"{other:.{digits}g}")
                    yield f"rotated with rope_theta {near:,.0f} where HF has {theta:,.0f}", r.by(near**-exponent)
        other = [i for i in range(len(ratio)) if bool(visible[i]) and abs(float(ratio[i]) - 1) > 0.05]
        if other:
            said = ", ".join(f"pair {i} at {float(ratio[i]):.3g} of HF's frequency" for i in other[:3])
            yield f"rotated at other frequencies: {said}{', ...' if len(other) > 3 else ''}", value


def _other_parameters(r):
    """HF's own tables with another value of one of their parameters."""
    given = r.parameters
    for name, value in given.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or name == "rope_theta":
            continue
        for other in dict.fromkeys((*(value * 2.0**n for n in (-3, -2, -1, 1, 2, 3)), 1.0, 2.0, 4.0, 8.0, 32.0)):
            yield from _with(r, {**given, name: type(value)(other)}, f"{name} {other:g} where HF has {value:g}")


def _other_lists(r):
    """HF's own tables with one list of factors in the place of another: of long prompts and of short ones."""
    given = r.parameters
    lists = [name for name, value in given.items() if isinstance(value, list)]
    for name in lists:
        for other in lists:
            if other != name and given[other] != given[name] and len(given[other]) == len(given[name]):
                yield from _with(r, {**given, name: given[other]}, f"{other} in the place of {name}")
        yield from _with(r, {**given, name: [1.0] * len(given[name])}, f"no {name}")


def _with(r, parameters, words):
    config = copy.deepcopy(r.case.config)
    config.rope_parameters = parameters if r.type is None else {**config.rope_parameters, r.type: parameters}
    try:
        rotary = type(hf_layers.rotary_of(r.case.hf.model))(config=config)
        tables = hf_layers.tables(rotary, config, r.case.layer, r.positions[None].long())
    except (ArithmeticError, RuntimeError, TypeError, ValueError):
        return
    cos, sin = (table[0].float() for table in tables)
    if cos.shape[-1] == len(r.frequencies):
        cos, sin = (torch.cat((t, t), -1) for t in (cos, sin))
    if cos.shape[-1] <= r.head_dim:
        yield f"rotated with {words}", r.turned(None, cos, sin)


def _nice(x):
    """A factor as someone would have written it."""
    rounded = float(f"{x:.2g}")
    whole = round(x)
    return float(whole) if whole and abs(x - whole) < 0.02 * abs(whole) else rounded


def _read_frequencies(r):
    """(frequency of each pair, where that is sure); (None, None) where there are too few positions."""
    rows = r.case.rows
    if len(rows) < 8 or int(rows[-1] - rows[0]) != len(rows) - 1:
        return None, None
    z, size = r.pairs()
    z = z / size.clamp(min=1e-30)
    spectrum = torch.fft.fft(z, n=FINE, dim=0)  # [frequencies, pairs]
    omega = torch.fft.fftfreq(FINE).float() * 2 * math.pi
    start = torch.polar(torch.ones_like(omega), -omega * float(rows[0]))
    score = (spectrum * start[:, None]).real / len(rows)
    best, index = score.max(dim=0)
    read = omega[index]
    return read, best > 0.95 * z.abs().mean(0)


def _tables(r):
    """The same angles in a coarser format, or the tables."""
    f, p = r.frequencies, r.positions
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
        low = lambda t, d=dtype: t.to(d)  # noqa: E731
        yield (
            f"rotated by angles that are computed in {name}: positions and frequencies both are {name}",
            r.turned(None, *r.tables((low(p)[:, None] * low(f)).float())),
        )
        yield f"rotated by frequencies in {name}", r.by(low(f).float())
        yield f"rotated by angles rounded to {name}", r.turned(None, *r.tables(low(p[:, None] * f).float()))
        yield f"rotated by positions in {name}", r.by(f, low(p).float())
    for dtype in BLOCK_FORMATS:
        cos, sin = on_grid(r.cos, dtype), on_grid(r.sin, dtype)
        yield f"rotated with cos and sin rounded to {dtype}", r.turned(None, cos, sin)


def _other_dims(r):
    """As many dims as HF turns, in another place of the head."""
    for start in range(1, r.head_dim - r.width + 1):
        at = slice(start, start + r.width)
        value = r.x.clone()
        value[..., at] = r.turned(r.x[..., at])
        dims = f"dims {start} to {start + r.width - 1} of a head's {r.head_dim}"
        yield f"rotated in {dims}, where HF turns the first {r.width}", value


def _partial(r):
    """A part of each head is rotated."""
    f, theta = r.frequencies, r.parameters.get("rope_theta", 1e4)
    for share in (0.25, 0.5, 0.75):
        width = int(r.head_dim * share) // 2 * 2
        if not width or width >= r.width:
            continue
        own = theta ** (-torch.arange(0, width, 2).float() / width)
        dims = f"the first {width} of a head's {r.head_dim} dims (partial_rotary_factor {share:g})"
        said = f"rotated only in part: {dims}"
        for words, frequencies in ((said, own), (said + ", at the whole head's frequencies", f[: width // 2])):
            yield words, r.turned(None, *r.tables(r.positions[:, None] * frequencies))
        first = f.clone()
        first[width // 2 :] = 0
        yield f"rotated only in part: the first {width // 2} of {len(f)} pairs", r.by(first)
        last = f.clone()
        last[: len(f) - width // 2] = 0
        yield f"rotated only in part: the last {width // 2} of {len(f)} pairs", r.by(last)


def _weights(r):
    """q_proj or k_proj with other weights, rotated as HF does."""
    case, which = r.case, r.which
    name = f"{which}_proj"
    if not case.has(f"self_attn.{name}") or case.is_latent:
        return
    h = case.into_attention()
    norm, later = hf_layers.head_norm(case.attention, which), None
    if hf_layers.norm_after_rotation(case.attention) is not None:
        norm, later = None, norm

    def heads(flat):
        return r.turned(r.laid(normed(case, norm, flat)))

    own = weights.linear(case, f"self_attn.{name}")
    if len(own.weight) == 2 * len(r.x) * r.head_dim:  # q_proj with the output gate's rows
        both = weights.apply(h, own.weight.detach(), own.bias)
        behind = "HF has each head's gate behind its q"
        yield f"q_proj's rows as all of q, then all of the gate: {behind}", heads(both.chunk(2, 1)[0])
        yield f"q_proj's rows as all of the gate, then all of q: {behind}", heads(both.chunk(2, 1)[1])
        gates = both.unflatten(1, (-1, 2, r.head_dim))[:, :, 1].flatten(1)
        yield "the gate's rows of q_proj in the place of q's", heads(gates)
        return
    if norm is not None:
        flat = weights.apply(h, own.weight.detach(), own.bias)
        plain = case.by_head(flat, r.head_dim)
        for words, x in norm_of_all(case, which, flat) if is_of_all(case, norm) else head_norm(case, which, plain):
            yield words, r.turned(r.laid(x))
        if not is_of_all(case, norm) and not r.neighbours:
            yield f"{which} with {which}_norm after the rotation, not before", norm(r.turned(plain))
    if later is not None:
        plain = case.by_head(weights.apply(h, own.weight.detach(), own.bias), r.head_dim)
        words = f"{which} normed before its rotation, where HF norms it after"
        yield words, r.turned(r.laid(later(plain)))
        yield f"{which} normed already at the rotation, where HF norms it after", later(r.turned(r.laid(plain)))
    for words, weight, bias in weights.instead(case, f"self_attn.{name}"):
        if weight.shape == own.weight.shape:
            yield words, heads(weights.apply(h, weight, bias))
    yield f"{name} of the residual stream, not normalised", heads(weights.apply(case.before(), own.weight, own.bias))
    parts = [weights.linear(case, f"self_attn.{p}_proj") for p in "qkv"]
    groups = {case.config.num_key_value_heads, case.chips} - {1}
    for n in sorted(groups):
        for words, (q, k, _) in weights.fused([p.weight.detach().float() for p in parts], n, case.chips):
            yield f"{which} of {words}", heads(weights.apply(h, q if which == "q" else k, own.bias))
    if which == "k" or len(r.x) == case.config.num_key_value_heads:
        other = weights.linear(case, "self_attn.v_proj")
        yield "v rotated: keys and values are swapped", heads(weights.apply(h, other.weight.detach(), other.bias))


def interleave(x, width=None):
    """Halves (HF) to pairs (Meta)."""
    width = width or x.shape[-1]
    a, b = x[..., :width].chunk(2, dim=-1)
    return torch.cat([torch.stack([a, b], dim=-1).flatten(-2), x[..., width:]], dim=-1)


def halves(x, width=None):
    """Pairs (Meta) to halves (HF)."""
    width = width or x.shape[-1]
    part = x[..., :width]
    return torch.cat([part[..., 0::2], part[..., 1::2], x[..., width:]], dim=-1)
