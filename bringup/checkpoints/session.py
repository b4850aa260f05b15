"""Drive a causal language model token by token, as HF's generate() does, with tokens that someone else chose."""

import inspect
import time
from contextlib import contextmanager

from bringup.console import progress
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
        """Feed `ids` to every user (or a list of as many ids for each); the logits [B, vocabulary] after the last one,
        in float32 on the host."""
        import torch

        input_ids = torch.tensor(ids, dtype=torch.int64)
        input_ids = input_ids.repeat(self.batch, 1) if input_ids.dim() == 1 else input_ids
        length = input_ids.shape[1]
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
            out = answered(self.model(input_ids=input_ids, past_key_values=self.past, **kwargs))
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


def answered(output):
    """What forward returned, if it is what the contract says."""
    if not (hasattr(output, "logits") and hasattr(output, "past_key_values")):
        kind = type(output).__name__
        raise ModelFailed(f"forward must return CausalLMOutputWithPast (logits, past_key_values), not {kind}")
    return output


class Watch:
    """Progress of a run on stderr: the layers of the prompt as they are done, then the tokens. Without text: none."""

    def __init__(self, text=None, layers=()):
        self.text, self.layers = text, layers

    @contextmanager
    def prompt(self, passes=1):
        if self.text is None or not self.layers:
            yield
            return
        with progress(f"{self.text}, prompt, layers", len(self.layers) * passes) as advance:
            hooks = [layer.register_forward_hook(lambda *_: advance()) for layer in self.layers]
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()

    @contextmanager
    def tokens(self, total):
        if self.text is None:
            yield lambda: None
            return
        with progress(f"{self.text}, tokens", total) as advance:
            yield advance


def layers_of(model, n_layers):
    """The decoder layers of a model: its ModuleList of `n_layers` modules, or none."""
    import torch

    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n_layers)
    return next(lists, ())


def one_pass(model, prompt_ids, tokens, *, watch=None):
    """What `run` gives, of a model that takes prompt and tokens in a single forward pass."""
    import torch

    ids, n = torch.tensor([[*prompt_ids, *tokens[:-1]]]), len(tokens)
    names = inspect.signature(model.forward).parameters
    keep = {name: value for name, value in (("logits_to_keep", n), ("use_cache", False)) if name in names}
    with (watch or Watch()).prompt(), torch.inference_mode():
        logits = model(input_ids=ids, **keep).logits[0, -n:]
    return logits.float()


def greedy(model, prompt_ids, new_tokens, *, eos=(), min_new_tokens=0, begun=None, keep=None, watch=None):
    """The model's own greedy continuation: its tokens, and the logits [n, vocabulary] that chose them.

    It stops after an `eos` token; before `min_new_tokens` such a token is forbidden, and its logit is -inf. `begun`
    (tokens, logits) is where an earlier run stopped; `keep(tokens, logits)` is called after each token.
    """
    import torch

    session, watch = Session(model), watch or Watch()
    tokens, found = [], []
    if begun is not None:
        tokens, found = list(begun[0]), list(begun[1])
    with watch.prompt():
        logits = session([*prompt_ids, *tokens])
    with watch.tokens(new_tokens - len(tokens)) as advance:
        while True:
            logits = logits[0].clone()
            if len(tokens) < min_new_tokens:
                logits[list(eos)] = float("-inf")
            tokens.append(int(logits.argmax()))
            found.append(logits)
            advance()
            if len(tokens) == new_tokens or tokens[-1] in eos:
                return tokens, torch.stack(found)
            if keep is not None:
                keep(tokens, found)
            logits = session(tokens[-1:])
