"""The experts that the device chose, in the place of HF's choice: what then differs is computation.

A score that formats turn sends a token to another expert, and its logits far away; that is no fault. So HF runs with
the device's choices, and where HF would have chosen otherwise, the scores must have been as good as equal.
"""

import dataclasses
from contextlib import contextmanager

#: How much worse than HF's k-th an expert may be that the device chose, of the spread of tokens' scores and times
#: the relative error of all logits: scores are off by as much as the hidden state, and the worst of many is asked.
NEAR = 10


@contextmanager
def watched(model):
    """Inside, {name of a router on the device: [what it gave in each call, [rows, experts]]}."""
    import ttnn

    from bringup.blocks.router import Router

    seen, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, Router):
            calls = seen.setdefault(name, [])

            def take(module, args, out, calls=calls):
                calls.append(ttnn.to_torch(ttnn.get_device_tensors(out)[0]).float()[0, 0])

            handles.append(module.register_forward_hook(take))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def of_text(calls, users, prompt, steps):
    """[users * positions, experts] of prompts that ran one after the other and steps of all, as HF has its rows."""
    import torch

    texts = [[call[:prompt]] for call in calls[:users]]
    for call in calls[users : users + steps]:
        for user, text in enumerate(texts):
            text.append(call[user : user + 1])
    return torch.cat([part for text in texts for part in text])


def force(model, seen, users, prompt, steps, hf_model):
    """From now on `hf_model` takes the device's choices for this text; gives the list of how far HF's own were from
    them, one number a router and run."""

    from bringup.new.reading import mixtures

    apart = []
    device, hf = dict(model.named_modules()), dict(hf_model.named_modules())
    for name, calls in seen.items():
        moe, routing = hf[name.rpartition(".")[0]], device[name].routing
        at = of_text(calls, users, prompt, steps).topk(routing.top_k, -1)[1]

        inside = []  # HF's mixture that runs: a copy of the model in bfloat16 has these hooks too

        def enter(module, args, inside=inside):
            inside[:] = [module]

        def choose(module, args, inside=inside, at=at, routing=routing):
            rows, _, given = args  # what HF calls its experts with, whichever way it made the choice
            apart.append(float(short(inside[0], rows, routing, at).max()))
            return rows, at, mixtures.weights(inside[0], rows, routing, at).gather(-1, at).to(given.dtype)

        moe.register_forward_pre_hook(enter)
        moe.experts.register_forward_pre_hook(choose)
    return apart


def short(hf_moe, rows, routing, at):
    """By how much the worst of the experts `at` falls short of HF's k-th, or its group of HF's, of the scores' spread:
    [rows]."""
    import torch

    from bringup.new.reading import mixtures

    score = mixtures.scores(hf_moe, rows, dataclasses.replace(routing, groups=1))[1]
    by = mixtures.scores(hf_moe, rows, routing)[1]
    found = (by.topk(routing.top_k, -1)[0][:, -1] - score.gather(-1, at).min(-1)[0]) / score.std(-1).mean()
    if routing.groups == 1:
        return found
    best = score.unflatten(-1, (routing.groups, -1)).topk(2, -1)[0].sum(-1)
    least = best.gather(-1, at // (score.shape[-1] // routing.groups)).min(-1)[0]
    of_group = (best.topk(routing.top_groups, -1)[0][:, -1] - least) / best.std(-1).mean()
    return torch.where(of_group > 0, of_group, found)  # in another group other experts stand to be chosen
