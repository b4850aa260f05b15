"""What is read off a value: a factor, a constant, the order of its rows, the position that each row is of."""

import inspect
import math

import torch

from bringup.evaluation import hf_layers
from bringup.evaluation.lines import ranges

NEAR = 0.012  # relative: a factor that was read off and what in the model is that large


def factor(got, want):
    """The number that `want` is to be multiplied by, by least squares."""
    size = float(want.double().square().sum())
    return float((got.double() * want.double()).sum()) / size if size else 0.0


def sizes(case):
    """(name, number) of what a model multiplies by, or forgets to."""
    c = case.config
    hidden, heads = c.hidden_size, c.num_attention_heads
    kv = getattr(c, "num_key_value_heads", heads)
    head_dim = getattr(c, "head_dim", None) or hidden // heads
    scaling = getattr(hf_layers.rotary_of(case.hf.model), "attention_scaling", 1.0)
    if case.chips > 1:
        yield f"the number of chips, {case.chips}: summed over the chips once too often", float(case.chips)
        yield f"1 / the number of chips, {case.chips}", 1 / case.chips
    yield from (("it is there twice", 2.0), ("the sign is wrong", -1.0), ("a half", 0.5))
    for name, n in (
        ("hidden_size", hidden),
        ("head_dim", head_dim),
        ("the number of heads", heads),
        ("the number of KV heads", kv),
        ("query heads per KV head", heads // kv),
        ("num_hidden_layers", c.num_hidden_layers),
        ("2 * num_hidden_layers", 2 * c.num_hidden_layers),
        ("vocab_size", c.vocab_size),
        ("intermediate_size", c.intermediate_size),
    ):
        if n > 1:
            yield f"sqrt({name})", math.sqrt(n)
            yield f"1 / sqrt({name})", 1 / math.sqrt(n)
            yield name, float(n)
            yield f"1 / {name}", 1.0 / n
    for name, n in fields(c).items():
        if n not in (0, 1) and is_factor(name):
            yield name, float(n)
            yield f"1 / {name}", 1 / n
            yield f"{name} squared: multiplied by where HF divides", float(n) ** 2
            yield f"1 / {name} squared: divided by where HF multiplies", float(n) ** -2
    if scaling != 1.0:
        yield "the attention factor of the rotation", scaling
        yield "the attention factor of the rotation, squared", scaling**2
        yield "1 / the attention factor of the rotation", 1 / scaling


def fields(config):
    """The configuration's fields and the numbers that it makes of them, by name."""
    made = (n for n, of in inspect.getmembers(type(config), lambda of: isinstance(of, property)))
    found = config.to_dict() | {n: getattr(config, n, None) for n in made}
    return {n: v for n, v in found.items() if isinstance(v, float | int) and not isinstance(v, bool)}


def is_factor(field):
    """Is a field of that name one that values are multiplied by?"""
    return "multiplier" in field or "scal" in field


def named(case, number, near=NEAR):
    """`number` with what in the model is as large: "13.86, sqrt(hidden_size)"; at most two names."""
    names = [name for name, n in sizes(case) if abs(number - n) <= near * abs(n)]
    said = f"{number:.3g}"
    return f"{said} ({'; or '.join(names[:2])})" if names else said


def nearest_rows(got, pool):
    """(index in `pool`, relative distance) of what each row of `got` is nearest to."""
    apart = torch.cdist(got.float(), pool.float())
    best, index = apart.min(dim=1)
    return index, best / got.norm(dim=1).clamp(min=1e-30)


def whose(behind, n):
    """The users of a batch that are `n` tokens behind."""
    return f"which is that of {ranges([user for user, far in behind.items() if far == n], 'user')} of the batch"


def described(positions, instead, decode_from, behind=None):
    """In words, which position each of `positions` has: for position p + 5, always for 48, ... `behind`: how far each
    other user of a batch is behind this one."""
    p, q = (torch.as_tensor(x).long() for x in (positions, instead))
    shift = q - p
    if bool((shift == shift[0]).all()):
        n = int(shift[0])
        if -n in (behind or {}).values():
            return f"for position p {n:+d}, {whose(behind, -n)}"
        again = f": counted from {int(q[0])} again after the prompt" if len(p) > 1 and n == -decode_from != 0 else ""
        return f"for position p {n:+d}{again}"
    if bool((q == q[0]).all()):
        last = int(q[0])
        if last and not last & (last + 1) and bool((p > last).all()):
            return (
                f"always for position {last}: as of a table of {last + 1} positions, at whose end later ones are held"
            )
        return f"always for position {last}: the position stands still and does not advance"
    for step in (2, 3, 4):
        if torch.equal(q, step * p):
            return f"for position {step} p"
        if torch.equal(q, p // step):
            return f"for position p // {step}"
    for size in (2**i for i in range(1, 15)):
        if torch.equal(q, p % size) and bool((p >= size).any()):
            return f"for position p mod {size}: it wraps at {size}"
        if torch.equal(q, p.clamp(max=size - 1)) and bool((p >= size).any()):
            return f"for position {size - 1} from position {size - 1} on"
    total = p + q
    if bool((total == total[0]).all()):
        return f"for position {int(total[0])} - p: in reverse"
    wrong = shift != 0
    if bool(((shift == 0) | (shift == shift[wrong][0])).all()):
        return f"for position p {int(shift[wrong][0]):+d} at {ranges(p[wrong].tolist(), 'position')}"
    shown = ", ".join(f"{int(a)} as {int(b)}" for a, b in list(zip(p[wrong], q[wrong], strict=True))[:4])
    return f"for other positions: {shown}{', ...' if int(wrong.sum()) > 4 else ''}"
