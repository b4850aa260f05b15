"""The gated delta rule: a state [K, V] per head that decays, forgets what a key held and learns a value for it.

Source    ttnn 0.81.1: recorded vectors of the recurrent form (one and three tokens, one and two heads); the chunked
          form was not recorded
"""

import torch

from . import fpu, vector
from .rounding import truncate_fp32


def recurrent(q, k, v, g, beta, state, bitwise: bool):
    """One token after another: outputs [H, T, V] and the states after each [H, T, K, V].

    Shapes    q (scaled) and k [H, T, K], v [H, T, V], g and beta [H, T], state [H, K, V]; all float32
    Numerics  HiFi4 with an fp32 destination: operands with 11 bits, the state kept in fp32. Not `bitwise`: the same
              steps in torch's fp32.
    """
    cut = truncate_fp32
    outputs, states = [], []
    for t in range(q.shape[1]):
        decay, b = vector.exp_accurate(g[:, t, None, None]), truncate_fp32(beta[:, t, None])
        key, query, value = k[:, t], q[:, t, None], v[:, t]
        if bitwise:
            state = fpu.mul(state, decay.expand_as(state), "HiFi4", True)
            held = fpu.matmul(key[:, None], state, "HiFi4", True)[:, 0]
            new = fpu.sub(value, held, True) * b
            state = fpu.mul_onto(state, new[:, None], key[..., None], "HiFi4")
            outputs.append(fpu.matmul(query, state, "HiFi4", True)[:, 0])
        else:
            state, key = cut(cut(state) * cut(decay)), cut(key)
            # Sums and not products of torch's, whose order may differ from head to head.
            new = cut((cut(value) - cut((key[..., None] * state).sum(1))) * b)
            state = torch.addcmul(state, key[..., None], new[:, None])
            outputs.append((cut(query)[:, 0, :, None] * cut(state)).sum(1))
        states.append(state)
    return torch.stack(outputs, 1), torch.stack(states, 1)


def chunked(q, k, v, g, beta, state, size: int):
    """The same in chunks of `size` tokens, each solved at once in fp32: outputs [H, T, V] and the last state.

    T is a multiple of `size`.
    """
    h, n = q.shape[0], q.shape[1] // size
    q, k, v, g, beta = (t.reshape(h, n, size, *t.shape[2:]) for t in (q, k, v, g, beta))
    decay = g.cumsum(-1)  # [H, n, size], log
    between = (decay[..., :, None] - decay[..., None, :]).exp().tril()
    strict = (beta[..., None] * (k @ k.mT) * between).tril(-1) + torch.eye(size, device=q.device)
    rights = torch.cat([beta[..., None] * v, (beta * decay.exp())[..., None] * k], -1)
    solved = torch.linalg.solve_triangular(strict, rights, upper=False, unitriangular=True)
    values, keys = solved.split([v.shape[-1], k.shape[-1]], -1)
    outputs = []
    for i in range(n):
        new = values[:, i] - keys[:, i] @ state
        rows = (q[:, i] * decay[:, i].exp()[..., None]) @ state + (q[:, i] @ k[:, i].mT * between[:, i]) @ new
        last = decay[:, i, -1, None]
        state = state * last.exp()[..., None] + (k[:, i] * (last - decay[:, i]).exp()[..., None]).mT @ new
        outputs.append(rows)
    return torch.cat(outputs, 1), state
