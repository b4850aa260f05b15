"""Pearson correlation of two tensors, and an assertion whose message says what may have gone wrong.

from bringup.evaluation.pcc import assert_with_pcc
assert_with_pcc(hf_output, device_output, 0.999)
"""

import math

EXPLAINED = 0.99  # a rearrangement explains a difference when it brings the PCC here


def pcc(expected, actual):
    """Pearson's correlation over all elements, in float64; NaN where one is not finite.

    Where one is constant there is none: 1 for equal tensors, else 0.
    """
    import torch

    x, y = expected.flatten().double(), actual.flatten().double()
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        return math.nan
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx.norm() * dy.norm())
    if spread == 0.0:
        return 1.0 if torch.equal(x, y) else 0.0
    return max(-1.0, min(1.0, float(dx @ dy) / spread))


def rel_l2(expected, actual):
    """|actual - expected| / |expected|, in float64."""
    size = float(expected.double().norm())
    distance = float((actual.double() - expected.double()).norm())
    return distance / size if size else math.inf if distance else 0.0


def rel_l2_for(bar):
    """The relative L2 distance that a PCC of `bar` stands for where nothing but noise differs: sqrt(2 (1 - bar))."""
    return math.sqrt(2.0 * (1.0 - bar))


def assert_with_pcc(expected, actual, pcc=0.99, rel_l2=None):
    """AssertionError unless the PCC of two tensors of one shape is at least `pcc`; returns the PCC.

    PCC does not see a constant factor or offset: `rel_l2` also bounds |actual - expected| / |expected|. The message has
    both figures, the greatest error and where it is, and what explains the difference, when something simple does.
    """
    if tuple(expected.shape) != tuple(actual.shape):
        raise AssertionError(f"shapes differ: expected {list(expected.shape)}, actual {list(actual.shape)}")
    found, distance = _pcc(expected, actual), _rel_l2(expected, actual)
    if found >= pcc and (rel_l2 is None or distance <= rel_l2):
        return found
    wanted = f">= {pcc}" + (f", relative L2 <= {rel_l2:.3g}" if rel_l2 is not None else "")
    raise AssertionError(
        f"PCC {found:.6f}, relative L2 {distance:.3g}\n  got    {largest_error(expected, actual)}\n"
        f"  want   PCC {wanted}; shapes {list(expected.shape)}" + _hint(expected, actual)
    )


_pcc, _rel_l2 = pcc, rel_l2  # assert_with_pcc's arguments have these names


def _hint(expected, actual):
    why = explain(expected, actual)
    return f"\n  hint   {why}" if why else ""


def largest_error(expected, actual):
    """The element that is furthest off, in words."""
    import torch

    error = (actual.double() - expected.double()).abs()
    error = torch.where(torch.isfinite(error), error, torch.full_like(error, math.inf))
    flat = int(error.argmax())
    where = [int(i) for i in torch.unravel_index(torch.tensor(flat), error.shape)]
    x, y = float(expected.flatten()[flat]), float(actual.flatten()[flat])
    return f"max error {float(error.flatten()[flat]):.4g} at {where}: {y:.6g} instead of {x:.6g}"


def explain(expected, actual, names=()):
    """What turns `expected` into `actual` in a few words, or None where nothing simple does.

    `names` says what the dims are, one word each ("user", "head", ...): a slice of one is then called that.
    """
    import torch

    x, y = expected.detach().double().cpu(), actual.detach().double().cpu()
    if bad := _not_finite(y):
        return bad
    if float(y.norm()) == 0.0:
        return "actual is all zeros"
    for text, candidate in _rearranged(x, names):
        if candidate.shape == y.shape and not torch.equal(candidate, x) and _pcc(candidate, y) > EXPLAINED:
            return text
    return _factor(x, y) or _permuted(x, y, names) or _partly(x, y, names)


def _not_finite(y):
    import torch

    bad = ~torch.isfinite(y)
    if not bool(bad.any()):
        return None
    first = [int(i) for i in bad.nonzero()[0]]
    return f"{int(bad.sum())} of {y.numel()} elements are NaN or infinite, the first at {first}"


def _rearranged(x, names=()):
    """(what it is called, expected so rearranged) for the mistakes that are easily made."""
    import torch

    width = x.shape[-1] if x.dim() else 0
    if x.dim() >= 2:
        yield "actual is expected with the last two dims transposed", x.transpose(-1, -2)
        yield "actual is expected^T read in expected's shape", x.transpose(-1, -2).reshape(x.shape)
    if width > 1 and width % 2 == 0:
        a, b = x[..., : width // 2], x[..., width // 2 :]
        yield "the two halves of the last dim are swapped", torch.cat([b, a], -1)
        yield (
            "the last dim is interleaved: halves (HF) became pairs (Meta's layout)",
            torch.stack([a, b], -1).reshape(x.shape),
        )
        yield (
            "the last dim is de-interleaved: pairs (Meta's layout) became halves (HF)",
            torch.cat([x[..., ::2], x[..., 1::2]], -1),
        )
    for dim in range(x.dim()):
        if x.shape[dim] > 2:
            what = f"{names[dim]}s are" if dim < len(names) else f"dim {dim} is"
            yield f"{what} shifted by one (later)", x.roll(1, dim)
            yield f"{what} shifted by one (earlier)", x.roll(-1, dim)
            yield f"{what} reversed", x.flip(dim)


def _factor(x, y):
    """A constant factor, or a constant added."""
    factor = float((x * y).sum() / (x * x).sum()) if float(x.norm()) else 0.0
    if abs(factor - 1) > 0.01 and _rel_l2(y, factor * x) < 0.1:
        root = factor**2 if factor > 0 else 0.0
        known = f" (the square root of {root:.4g})" if abs(root - round(root)) < 0.01 * root and root > 1.5 else ""
        return f"actual is {factor:.4g}{known} times expected"
    offset = float((y - x).mean())
    if _rel_l2(y, x + offset) < 0.1 and abs(offset) > 0.01 * float(x.std()):
        return f"actual is expected plus {offset:.4g}"
    return None


def _permuted(x, y, names=()):
    """A dim whose slices are all there, in another order."""
    import torch

    for dim in range(x.dim()):
        n = x.shape[dim]
        if not 2 <= n <= 128 or x.numel() == n:
            continue
        a, b = (t.movedim(dim, 0).reshape(n, -1) for t in (x, y))
        a, b = (torch.nn.functional.normalize(t - t.mean(1, keepdim=True), dim=1) for t in (a, b))
        likeness, source = (b @ a.T).max(1)
        order = source.tolist()
        if float(likeness.min()) > EXPLAINED and order != list(range(n)):
            kind = "in another order" if sorted(order) == list(range(n)) else "mixed up"
            if dim < len(names):
                other = [(i, j) for i, j in enumerate(order) if i != j]
                said = ", ".join(f"{names[dim]} {i} has what is {names[dim]} {j}'s" for i, j in other[:4])
                return f"{names[dim]}s are {kind}: {said}{', ...' if len(other) > 4 else ''}"
            shown = ", ".join(map(str, order[:8])) + (", ..." if n > 8 else "")
            return f"the slices of dim {dim} are {kind}: actual has [{shown}] of expected"
    return None


def _partly(x, y, names=()):
    """A few slices of a dim that hold nearly all of the error."""
    for dim in range(x.dim()):
        n = x.shape[dim]
        if n < 2:
            continue
        share = (y - x).square().movedim(dim, 0).reshape(n, -1).sum(1)
        order = share.argsort(descending=True)
        few = order[: max(1, n // 4)]
        if float(share[few].sum()) > 0.98 * float(share.sum()) > 0.0:
            kept = sorted(int(i) for i in few if float(share[i]) > 0.01 * float(share.sum()))
            if dim < len(names):
                one = names[dim] if len(kept) == 1 else names[dim] + "s"
                return f"nearly all of the error is in {one} {_ranges(kept)} (of {n})"
            return f"nearly all of the error is in {_ranges(kept)} of dim {dim} (of {n})"
    return None


def _ranges(indices):
    """[1, 2, 3, 7] -> "1-3, 7"."""
    out: list[list[int]] = []
    for i in indices:
        if out and out[-1][1] == i - 1:
            out[-1][1] = i
        else:
            out.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out[:8]) + (", ..." if len(out) > 8 else "")
