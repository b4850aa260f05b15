"""HF's generate() with a model.py, its text as it comes."""

import functools
import sys
import time
from contextlib import contextmanager

from bringup.errors import printable


def generate(job, model, temperature=0.0, top_p=1.0):
    """Stream a continuation to stdout; its token ids and times."""
    import torch

    from bringup.errors import blame
    from bringup.evaluation.consistency import mask_for

    torch.manual_seed(job.settings.seed)
    streamer = Streamer(job.tokenizer)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    )
    input_ids = torch.tensor([job.prompt_ids])
    try:
        with blame(job.model_file.path, "generating"):
            if temperature == 0 and hasattr(model, "next_token_device"):
                _generate_by_own_method(model, input_ids, job.settings.max_new_tokens, job.eos, streamer)
            else:
                with _prompt_by_own_method(model):
                    model.generate(
                        input_ids,
                        **mask_for(model, torch.ones_like(input_ids)),
                        max_new_tokens=job.settings.max_new_tokens,
                        pad_token_id=job.eos[0] if job.eos else 0,
                        streamer=streamer,
                        **sampling,
                    )
    finally:
        if streamer.prompt is None:
            print(flush=True)  # an error message starts on its own line
    times = streamer.times
    later = times[-1] - times[0]
    return {
        "token_ids": streamer.ids,
        "new_tokens": len(streamer.ids),
        "text": job.tokenizer.decode(streamer.ids) if job.tokenizer else None,
        "ttft_ms": 1000 * (times[0] - streamer.start),
        "tokens_per_second_per_user": (len(times) - 1) / later if later > 0 else None,
        "emulated": job.activation.emulated,
    }


# Two methods that published single files offer their own harness, beside `forward`.


@contextmanager
def _prompt_by_own_method(model):
    """The prompt goes to `prefill_logits_last_device(input_ids, use_cache)`, where the file has it: the last token's
    logits, [batch, vocab], and the cache."""
    if hasattr(model, "prefill_logits_last_device"):
        from transformers.modeling_outputs import CausalLMOutputWithPast

        @functools.wraps(model.forward)
        def forward(input_ids, **_):
            del model.forward  # for the prompt only
            logits, past = model.prefill_logits_last_device(input_ids, use_cache=True)
            return CausalLMOutputWithPast(logits=logits[:, None], past_key_values=past)

        model.forward = forward
    try:
        yield
    finally:
        vars(model).pop("forward", None)


def _generate_by_own_method(model, input_ids, count, eos, streamer):
    """Greedy tokens from `next_token_device(input_ids, past_key_values, use_cache)`: a token id and the cache."""
    import torch

    streamer.put(input_ids)
    past = None
    for _ in range(count):
        token, past = model.next_token_device(input_ids, past_key_values=past, use_cache=True)
        input_ids = torch.tensor([[token]])
        streamer.put(input_ids)
        if token in eos:
            break
    streamer.end()


class Streamer:
    """Prints words as they are complete (ids where there is no tokenizer) and notes when each token came.

    It begins with the second token: until then kernels may be compiled, which is said in a line of its own."""

    def __init__(self, tokenizer):
        self.tokenizer, self.ids, self.times, self.printed = tokenizer, [], [], 0
        self.start = self.prompt = None

    def put(self, ids):
        if self.start is None:  # generate() hands in the prompt first
            self.start = time.perf_counter()
            self.prompt = self.tokenizer and self.tokenizer.decode(ids[0], skip_special_tokens=True)
            return
        self.times.append(time.perf_counter())
        self.ids.append(int(ids))
        if self.tokenizer is None:
            self._write(f"{self.ids[-1]} ")
        else:
            self._flush(final=False)

    def end(self):
        if self.tokenizer:
            self._flush(final=True)
        print("\033[0m" * sys.stdout.isatty(), end="", flush=True)

    def _flush(self, final):
        if len(self.ids) < 2 and not final:
            return
        if self.prompt is not None:
            self._write(self.prompt)
            print("\033[1m" * sys.stdout.isatty(), end="", flush=True)
            self.prompt = None
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        # A later byte may still change the last characters of the text: hold them back until a word ends.
        end = len(text) if final else max(text.rfind(" "), text.rfind("\n")) + 1
        if end > self.printed:
            self._write(text[self.printed : end])
            self.printed = end

    def _write(self, text):
        print(printable(text), end="", flush=True)


def common_prefix(a, b):
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n
