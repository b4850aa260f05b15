"""Are two tensors of the checkpoint in each other's place? Both sides share that; HF's guesses of a text tell."""

import itertools
import math
from statistics import NormalDist

from bringup.files import PROJECT

WORK = 2e11  # weights times tokens, over all passes: some 20 s of two cores; a model that takes more is not asked
SUSPECTS = 8  # pairs with which the first text is guessed best: a second, long text decides
TOKENS = 896  # of the second text, beyond its prompt
GAIN = 0.2  # in the logarithm of the place of a token: on a text of another kind a clean checkpoint gained 0.11
FALSE_ALARMS = 0.01  # of checkpoints, if an exchange made no token better or worse on the average
APART = 2  # standard errors between the best pair and the next
TRAINED = 0.8  # of the logarithm of the vocabulary: a trained model's is below
SECOND = PROJECT / "prompts" / "prose.txt"


def find(context):
    """(names of two weights, HF's place of a text's tokens, and with them exchanged); None: none, or not asked."""
    from bringup.evaluation import texts

    job, model = context.job, context.hf
    if job.tokenizer is None or job.source.random:
        return None
    first = _ids(job.given_text(texts.DEFAULT_PROMPT))
    pairs = _pairs(model)
    longest = min(TOKENS, getattr(model.config, "max_position_embeddings", TOKENS) - texts.GIVEN_PROMPT_TOKENS)
    tokens = (1 + len(pairs)) * first.shape[1] + (1 + SUSPECTS) * longest
    if longest < 1 or tokens * sum(p.numel() for p in model.parameters()) > WORK:
        return None
    before = _losses(model, first)
    gains = [(float((before - _exchanged(model, pair, first)).mean()), i) for i, pair in enumerate(pairs)]
    suspects = [pairs[i] for gain, i in sorted(gains, reverse=True)[:SUSPECTS] if gain > 0]
    second = _ids(texts.given_text(SECOND, job.tokenizer, longest, config=model.config))
    before = _losses(model, second)
    better = [before - _exchanged(model, pair, second) for pair in suspects]
    order = sorted(range(len(suspects)), key=lambda i: -better[i].mean().item())
    if not order or not beyond_chance(better[order[0]], len(suspects)):
        return None
    best, loss = better[order[0]], before.mean().item()
    rivals = (better[i] for i in order[1:2])
    if any((best - rival).mean() < APART * (best - rival).std() / math.sqrt(len(best)) for rival in rivals):
        return None  # another pair mends nearly as much: which of the two it is no text tells
    mended = loss - best.mean().item()
    if mended > TRAINED * math.log(model.config.vocab_size):
        return None
    return tuple(name for name, _ in suspects[order[0]]), math.exp(loss), math.exp(mended)


def beyond_chance(better, pairs):
    """Whether tokens are better off, on the average, by more than the luckiest of so many `pairs` would have them."""
    errors = NormalDist().inv_cdf(1 - FALSE_ALARMS / pairs)
    return better.mean().item() > max(GAIN, errors * better.std().item() / math.sqrt(len(better)))


def _ids(text):
    import torch

    head, tail = text
    return torch.tensor([[*head, *tail]])


def _exchanged(model, pair, ids):
    """What HF loses with the pair in each other's place."""
    (_, first), (_, second) = pair
    first.data, second.data = second.data, first.data
    try:
        return _losses(model, ids)
    finally:
        first.data, second.data = second.data, first.data


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
