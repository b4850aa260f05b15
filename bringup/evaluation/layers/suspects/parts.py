"""Where in a value the difference is: heads, chips, positions or columns that alone differ."""

import torch

from bringup.evaluation.layers.suspects import reading

CLEAN = 0.02  # of the whole error (squared) that may lie outside the parts which are named


def mixtures(case, value):
    """(words, value): `value` in some heads, chips or positions alone and HF's in the others, by which is nearer."""
    if case.of_heads and case.got.shape[1] % case.head_dim == 0:
        yield from _mixed(case, value, 1, case.got.shape[1] // case.head_dim, "head")
    if case.chips > 1 and case.got.shape[1] % case.chips == 0:
        yield from _mixed(case, value, 1, case.chips, "chip")
    yield from _mixed(case, value, 0, len(case.got), "position")


def empty(case):
    """HF's value with nothing at some positions."""
    none = case.got.norm(dim=1) < 1e-6 * case.want.norm(dim=1)
    if (
        not bool(none.any()) or bool(none.all()) or case.point.endswith("_cache")
    ):  # there it is told what was not written
        return
    at = case.rows[none]
    where = (
        f"from position {int(at[0])} on" if _to_the_end(case, at) else f"at {reading.ranges(at.tolist(), 'position')}"
    )
    yield f"nothing (zeros) {where}, and HF's value elsewhere", case.want.masked_fill(none[:, None], 0.0)


def _mixed(case, value, dim, n, one):
    got, want, other = (t.unflatten(dim, (n, -1)).movedim(dim, 0).flatten(1) for t in (case.got, case.want, value))
    nearer = (got - other).square().sum(1) < (got - want).square().sum(1)
    differs = (other - want).square().sum(1) > 1e-8 * want.square().sum(1)
    chosen = nearer & differs
    if not bool(chosen.any()) or not bool((differs & ~chosen).any()):
        return
    mask = chosen.repeat_interleave(case.got.shape[dim] // n)
    mask = mask[:, None] if dim == 0 else mask[None]
    which = chosen.nonzero().flatten()
    if one == "position":
        which = case.rows[which]
        if _to_the_end(case, which):
            yield f"from position {int(which[0])} on", torch.where(mask, value, case.want)
            return
    yield f"in {reading.ranges(which.tolist(), one)} alone", torch.where(mask, value, case.want)


def _to_the_end(case, which):
    """Are these positions all from one on?"""
    return len(which) > 1 and int(which[-1]) == int(case.rows[-1]) and int(which[-1] - which[0]) == len(which) - 1


def concentrated(case):
    """Words on the parts that alone differ; None where the difference is everywhere."""
    found = []
    if case.chips > 1 and case.got.shape[1] % case.chips == 0:
        found.append((1, case.chips, "chip", ""))
    if case.of_heads and case.got.shape[1] % case.head_dim == 0:
        found.append((1, case.got.shape[1] // case.head_dim, "head", ""))
    found.append((0, len(case.got), "position", ""))
    width = case.got.shape[1]
    found += [(1, width // 32, "block", " of 32 columns")] if width % 32 == 0 else []
    said = []
    for dim, n, one, more in found:
        if n < 2:
            continue
        share = (case.got - case.want).square().unflatten(dim, (n, -1)).movedim(dim, 0).flatten(1).sum(1)
        size = case.want.square().unflatten(dim, (n, -1)).movedim(dim, 0).flatten(1).sum(1)
        large = share > (case.bound**2) * size
        rest = float(share[~large].sum())
        if not bool(large.any()) or rest > CLEAN * float(share.sum()) or int(large.sum()) > 0.8 * n:
            continue
        which = large.nonzero().flatten()
        which = case.rows[which] if one == "position" else which
        if one == "position" and _to_the_end(case, which):
            said.append(f"from position {int(which[0])} on")
        else:
            said.append(f"in {reading.ranges(which.tolist(), one)} (of {n}){more}")
    return f"only {', '.join(said[:2])}" if said else None
