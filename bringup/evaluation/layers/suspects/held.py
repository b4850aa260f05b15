"""What the cache held besides what HF has there: an earlier text, another user's, nothing yet, another block."""

import torch

from bringup.evaluation.layers.activations import record_reference
from bringup.evaluation.layers.device_activations import USERS, device_cache


def attention(a):
    """Steps that read something else of the cache than HF's keys and values up to their own."""
    yield from _not_yet_written(a)
    yield from _beyond(a)
    yield from _of_another_user(a)


def _not_yet_written(a):
    """What stood at a step's own place before: attention runs first, the key and value are written afterwards."""
    zeros = [torch.zeros_like(t) for t in (a.k, a.v)]
    there = {"nothing (zeros)": zeros}
    if a.case.device.earlier:
        before = [t[:, : a.n] for t in left(a.case)]
        there["what an earlier text left"] = [
            torch.cat((x, y[:, x.shape[1] :]), 1) for x, y in zip(before, zeros, strict=True)
        ]
    scores = a.q @ a.k[a.pairs].transpose(1, 2) * a.scale
    for words, (k, v) in there.items():
        k, v = k[a.pairs], v[a.pairs]
        own = torch.diag_embed((a.q * k).sum(-1) * a.scale - scores.diagonal(dim1=1, dim2=2))
        share = (scores + own).masked_fill(~a.causal, float("-inf")).softmax(-1)
        read = share @ a.v[a.pairs] + share.diagonal(dim1=1, dim2=2)[..., None] * (v - a.v[a.pairs])
        said = "attention before a step's key and value are written: at its own place it reads"
        yield f"{said} {words}", a.out(read)


def _beyond(a):
    """A step with what the cache held beyond its position: up to where would explain the value best."""
    case = a.case
    steps = [(case.rows[-1:], held)] if (held := _held(a, case.device.user)) else []
    worst = case.rows[(case.got - case.want).norm(dim=1).argmax()][None]
    if case.device.earlier:
        steps.append((worst, left(case)))
    for at, (k, v) in steps:
        own = int(at) + 1
        k, v = (torch.cat([x[:, :own], y[:, own:]], dim=1) for x, y in ((a.k, k), (a.v, v)))
        scores = (k[a.pairs] @ a.q[:, own - 1, :, None])[..., 0] * a.scale  # [heads, all positions of the cache]
        shares = (scores - scores.amax(1, keepdim=True)).exp()
        read = (shares[..., None] * v[a.pairs]).cumsum(1) / shares.cumsum(1)[..., None]  # up to each position
        values = a.out(read)[own:]
        if len(values):
            end = int((values - case.device.points[case.name][at]).norm(dim=1).argmin())
            words = "attention that sees one position too many: the causal mask is off by one"
            if end > 0:
                words = (
                    f"attention that reads on beyond its position, {own - 1}, to {own + end}, "
                    "over padding and what an earlier prompt left in the cache"
                )
            yield words, values[[end]], at


def left(case):
    """What HF would have left in the cache: an earlier prompt, and over it this one, padded with 0 to whole tiles."""
    device = case.device
    texts = device.earlier, [*device.ids[: device.decode_from], *[0] * (-device.decode_from % 32)]
    runs = [record_reference(case.hf, text, len(text)).points for text in texts]
    found = []
    for name in ("k_cache", "v_cache"):
        earlier, own = (run[f"{case.prefix}self_attn.{name}"] for run in runs)
        found.append(case.by_head(torch.cat([own, earlier[len(own) :]])))
    return found


def _held(a, user):
    """Keys and values of a user's whole row of the cache, [heads, length, head_dim] each; None where there is none, or
    the last step is not judged."""
    held = device_cache(a.case.model, a.case.layer, user)
    if len(held) < 2 or len(held["k_cache"]) <= a.n or int(a.case.rows[-1]) != a.n - 1:
        return None
    return [a.case.by_head(held[name]) for name in ("k_cache", "v_cache")]


def _of_another_user(a):
    """The last step of a user among others, over the keys and values of another one."""
    case = a.case
    for user in range(USERS) if case.device.user else ():
        held = _held(a, user) if user != case.device.user else None
        if held is not None:
            k, v = (x[:, : a.n] for x in held)
            read = a.attend(a.q[:, -1:], k[a.pairs], v[a.pairs], a.causal[-1:], a.scale)
            words = f"attention of user {case.device.user} over the keys and values of user {user}"
            yield words, a.out(read), case.rows[-1:]
