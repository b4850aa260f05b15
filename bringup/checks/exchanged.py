"""Are two tensors of the checkpoint in each other's place? Both sides share that; HF's guesses of a text tell."""

import itertools
import math
import time
from statistics import NormalDist

SECONDS = 20  # for all pairs; a model whose pairs take longer is not asked
GAIN = 0.1  # in the logarithm of the place of a token
FALSE_ALARMS = 0.01  # of checkpoints, if an exchange made no token better or worse on the average
TRAINED = 0.8  # of the logarithm of the vocabulary: a trained model's is below


def find(context):
    """(names of two weights, HF's place of a text's tokens, and with them exchanged); None: none, or not asked."""
    import torch

    from bringup.evaluation.texts import DEFAULT_PROMPT

    job, model = context.job, context.hf
    if job.tokenizer is None or job.source.random_seed is not None:
        return None
    head, tail = job.given_text(DEFAULT_PROMPT)
    ids = torch.tensor([[*head, *tail]])
    start = time.perf_counter()
    before = _losses(model, ids)
    pairs = _pairs(model)
    if len(pairs) * (time.perf_counter() - start) > SECONDS:
        return None
    best = None
    for (a, first), (b, second) in pairs:
        first.data, second.data = second.data, first.data
        try:
            better = before - _losses(model, ids)
        finally:
            first.data, second.data = second.data, first.data
        gain = better.mean().item()
        if beyond_chance(better, len(pairs)) and (best is None or gain > best[0]):
            best = gain, (a, b)
    loss = before.mean().item()
    if best is None or loss - best[0] > TRAINED * math.log(model.config.vocab_size):
        return None
    return best[1], math.exp(loss), math.exp(loss - best[0])


def beyond_chance(better, pairs):
    """Whether tokens are better off, on the average, by more than the luckiest of so many `pairs` would have them."""
    errors = NormalDist().inv_cdf(1 - FALSE_ALARMS / pairs)
    return better.mean().item() > max(GAIN, errors * better.std().item() / math.sqrt(len(better)))


def _losses(model, ids):
    """Logarithm of the place at which HF has each token after the first: a loss that no temperature changes."""
    import torch

    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    wanted = logits.gather(1, ids[0, 1:, None])
    return (logits > wanted).sum(1).add(1).float().log()


def _pairs(model):
    """Pairs of matrices of one shape and dtype, of all layers; of norms a text does not tell."""
    weights = [(n, p) for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n and "lm_head" not in n]
    return [
        (a, b) for a, b in itertools.combinations(weights, 2) if (a[1].shape, a[1].dtype) == (b[1].shape, b[1].dtype)
    ]
