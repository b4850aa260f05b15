"""Drive a causal language model token by token, as HF's generate() does, with tokens that someone else chose."""

import inspect
import time

from bringup.errors import ModelFailed


class Session:
    """One sequence (or a batch of equal ones) going through a model: a prefill call, then one call per token.

    Any module works whose forward takes `input_ids` and `past_key_values` and returns an output with `logits`
    ([B, S or 1, vocabulary]) and `past_key_values`; `attention_mask`, `position_ids`, `cache_position`, `use_cache`
    and `logits_to_keep` are passed as generate() passes them where the forward names them.
    """

    def __init__(self, model, batch=1):
        self.model, self.batch = model, batch
        self.past, self.seen = None, 0
        parameters = inspect.signature(model.forward).parameters
        self.names = set(parameters)
        self.open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.seconds = []  # per call

    def __call__(self, ids):
        """Feed `ids` to every user; the logits [B, vocabulary] after the last one, in float32 on the host."""
        import torch

        length = len(ids)
        input_ids = torch.tensor(ids, dtype=torch.int64).repeat(self.batch, 1)
        positions = torch.arange(self.seen, self.seen + length)
        named = {
            "attention_mask": torch.ones(self.batch, self.seen + length, dtype=torch.int64),
            "position_ids": positions.repeat(self.batch, 1),
            "cache_position": positions,
            "return_dict": True,
            "logits_to_keep": 1,
        }
        kwargs = {name: value for name, value in named.items() if name in self.names}
        if self.open or "use_cache" in self.names:
            kwargs["use_cache"] = True
        start = time.perf_counter()
        with torch.inference_mode():
            out = self.model(input_ids=input_ids, past_key_values=self.past, **kwargs)
        self.seconds.append(time.perf_counter() - start)
        self.past, self.seen = out.past_key_values, self.seen + length
        logits = out.logits
        if logits.dim() == 3:
            logits = logits[:, -1]
        if logits.dim() != 2 or logits.shape[0] != self.batch:
            raise ModelFailed(
                "forward returned logits of a shape that cannot be read",
                got=list(out.logits.shape),
                want=f"[{self.batch}, {length} or 1, vocabulary]",
            )
        return logits.float().cpu()


def run(model, prompt_ids, tokens, *, prefill_decode=False, batch=1, advance=lambda: None):
    """Logits [n, vocabulary] with which the model meets each of the n `tokens`, and the `Session` that they came from.

    The prompt goes in as one prefill pass, or with `prefill_decode` token by token. `advance` is called after each
    step. With a batch every user gets the same tokens, and it is an error if they do not get the same prediction.
    """
    import torch

    session = Session(model, batch)
    found = []

    def take(logits):
        if bool(torch.isnan(logits).any()):
            raise ModelFailed(f"the logits hold nan at step {len(found)}", got=f"{session.seen} tokens were given")
        best = logits.argmax(-1)
        if bool((best != best[0]).any()):
            raise ModelFailed(
                f"users with the same tokens get different predictions at step {len(found)}", got=best.tolist()
            )
        found.append(logits[0].clone())
        advance()

    if prefill_decode:
        for token in prompt_ids[:-1]:
            session([token])
        take(session(prompt_ids[-1:]))
    else:
        take(session(list(prompt_ids)))
    for token in tokens[:-1]:
        take(session([token]))
    return torch.stack(found), session


def greedy(model, prompt_ids, new_tokens, *, eos=(), min_new_tokens=0, advance=lambda: None):
    """The model's own greedy continuation: its tokens, and the logits [n, vocabulary] that chose them.

    It stops after an `eos` token; before `min_new_tokens` such a token is forbidden, and its logit is -inf.
    """
    import torch

    session = Session(model)
    tokens, found = [], []
    logits = session(list(prompt_ids))
    while True:
        logits = logits[0].clone()
        if len(tokens) < min_new_tokens:
            logits[list(eos)] = float("-inf")
        tokens.append(int(logits.argmax()))
        found.append(logits)
        advance()
        if len(tokens) == new_tokens or tokens[-1] in eos:
            return tokens, torch.stack(found)
        logits = session(tokens[-1:])
