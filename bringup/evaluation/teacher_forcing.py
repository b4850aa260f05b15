"""A model led through tokens that someone else chose, and the logits with which it meets each."""

import time

from bringup.checkpoints import session as sessions
from bringup.checkpoints.session import Session, Watch
from bringup.errors import ModelFailed


def run(model, prompt_ids, tokens, *, prefill_decode=False, one_pass=False, batch=1, watch=None):
    """Logits [n, vocabulary] with which the model meets each of the n `tokens`, and the `Session` that they came from.

    The prompt goes in as one prefill pass, or with `prefill_decode` token by token. With `one_pass` the tokens go in
    with it, so that every logit is a prompt's. With a batch every user gets the same tokens, and it is an error if
    they do not get the same prediction.
    """
    import torch

    session, watch = Session(model, batch), watch or Watch()
    found = []

    def take(logits):
        if bool((torch.isnan(logits) | torch.isposinf(logits)).any()):  # -inf forbids a token
            raise ModelFailed(
                f"the logits hold nan or inf at step {len(found)}", got=f"{session.seen} tokens were given"
            )
        best = logits.argmax(-1)
        if bool((best != best[0]).any()):
            raise ModelFailed(
                f"users with the same tokens get different predictions at step {len(found)}", got=best.tolist()
            )
        found.append(logits[0].clone())

    if one_pass:
        start = time.perf_counter()
        logits = sessions.one_pass(model, prompt_ids, tokens, watch=watch)
        session.seconds.append(time.perf_counter() - start)
        session.seen = len(prompt_ids) + len(tokens) - 1
        if len(logits) != len(tokens):
            raise ModelFailed("forward returned logits of too few positions", got=len(logits), want=len(tokens))
        for row in logits:
            take(row[None].float().cpu())
        return torch.stack(found), session
    with watch.prompt(len(prompt_ids) if prefill_decode else 1):
        if prefill_decode:
            for token in prompt_ids[:-1]:
                session([token])
            take(session(prompt_ids[-1:]))
        else:
            take(session(list(prompt_ids)))
    with watch.tokens(len(tokens) - 1) as advance:
        for token in tokens[:-1]:
            take(session([token]))
            advance()
    return torch.stack(found), session
