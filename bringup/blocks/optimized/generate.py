"""The model whose next token stays on the device: from the tokens of a step to those of the next one."""

import torch
import ttnn

from bringup.blocks.cache import Pages
from bringup.blocks.generate import CausalLM, KVCache
from bringup.blocks.optimized.product import SHORT, whole
from bringup.blocks.rope import TurnedTables


class OptimizedCausalLM(CausalLM):
    """`CausalLM` with greedy steps of which only the tokens come back."""

    rope_tables = TurnedTables

    def __init__(self, hf_model: torch.nn.Module, config, mesh, max_seq_len: int, choices):
        super().__init__(hf_model, config, mesh, max_seq_len, choices)
        self._inputs: dict[tuple, list] = {}  # tokens and pages of prompts that are replayed
        self._outputs: dict = {}  # where passes that are replayed leave their results
        self._choosing = False  # prompts end in the likeliest tokens
        self._held: tuple | None = None  # what the device has put into `decode_inputs` for its next step

    def _send(self, tokens: list[int], positions: dict[int, int]):
        if self._held != (tokens, positions):
            self._held = None
            super()._send(tokens, positions)

    def token_step(self) -> ttnn.Tensor:
        """A step that ends with the likeliest tokens, [1, 32] uint32, in the buffer where the next one reads them."""
        tokens, positions, at = self.decode_inputs
        best = self.likeliest(self.step())
        ttnn.copy(ttnn.reshape(best, tokens.shape), tokens)
        ttnn.plus_one(positions, skip_negative_entries=True)
        ttnn.plus_one(at)
        return tokens

    def _prompt_chunk(self, tokens: torch.Tensor, lengths: list[int], start: int, row: int, first: int):
        """A short prompt is replayed where steps are: in the first row, or in any where the cache is paged."""
        rows, paged = tokens.shape[1], self.cache.prompt_chunk is not None
        if not self.traced or rows > SHORT or (row and not paged) or self._tapped is not None:
            return super()._prompt_chunk(tokens, lengths, start, row, first)
        name = "prompt", rows, start, first, self._choosing
        pages = self.cache.of_prompt(row, start, rows, on_device=False)
        given = [self.mesh.put_users(tokens, ttnn.uint32, on_device=False), *(pages.tables if pages else ())]
        if name not in self._inputs:
            self._first_of(name)
            self._inputs[name] = [each.to(self.tt_device) for each in given]
        kept = self._inputs[name]
        for host, device in zip(given, kept, strict=True):
            ttnn.copy_host_to_device_tensor(host, device)
        pages = Pages(*kept[1:]) if paged else None
        return self._replayed(name, lambda: self._prompt_pass(kept[0], 0, start, first, pages))

    def _kept(self, name, output: ttnn.Tensor) -> ttnn.Tensor:
        """One buffer for each pass, in DRAM, which is there before anything is captured: what a capture allocates for
        itself is where another one's replay may write."""
        if name not in self._outputs:
            self._outputs[name] = ttnn.to_memory_config(output, ttnn.DRAM_MEMORY_CONFIG)
        buffer = self._outputs[name]
        if output.buffer_address() != buffer.buffer_address():
            ttnn.copy(output, buffer)
        return buffer

    def end(self, hidden: ttnn.Tensor) -> ttnn.Tensor:
        logits = super().end(hidden)
        return self.likeliest(logits) if self._choosing else logits

    def tail(self, hidden: ttnn.Tensor, first: int) -> ttnn.Tensor:
        return super().tail(whole(hidden), first)

    def likeliest(self, logits: ttnn.Tensor) -> ttnn.Tensor:
        """logits [1, 1, rows, vocab / ways] -> [1, 1, rows] uint32; the chips' shares side by side on each."""
        if self.mesh.tensor_ways > 1:
            logits = self.mesh.gather(logits)
        rows = ttnn.untilize(logits)
        if rows.shape[-1] > self.config.vocab_size:
            rows = ttnn.slice(rows, (0, 0, 0, 0), (1, 1, rows.shape[-2], self.config.vocab_size))
        return ttnn.argmax(rows, dim=3)

    def _results(self, logits: ttnn.Tensor) -> list[torch.Tensor]:
        if not self._choosing:
            return super()._results(logits)
        return [self.mesh.get_users(logits).reshape(self.mesh.data_ways, -1, 1).float()]

    @torch.no_grad()
    def prefill_logits_last_device(self, input_ids: torch.Tensor, use_cache: bool = True):
        """Logits of the last token [users, vocab] and the cache."""
        out = self(input_ids, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    @torch.no_grad()
    def next_token_device(self, input_ids: torch.Tensor, past_key_values: KVCache | None = None, use_cache=True):
        """The likeliest token after a prompt, or after the token before: an int of one user, a list of several; and the
        cache. Tokens that the device chose are not sent to it again."""
        if past_key_values is None:
            self._choosing = True
            try:
                found, past_key_values = self.prefill_logits_last_device(input_ids)
            finally:
                self._choosing = False
            return self._answer(found[:, 0].int().tolist()), past_key_values
        input_ids, cache = self._checked(input_ids), past_key_values
        self._check_live(cache, len(input_ids))
        where = self._ready(input_ids[:, -1], cache)
        self._held = None  # until the step has run
        chosen = self.mesh.get_users(self._replayed("token step", self.token_step)).flatten().tolist()
        self._advance(cache)
        found = {row: chosen[row] for row in where}
        tokens = [found.get(row, 0) for row in range(self.max_users)]
        self._held = tokens, dict(zip(where, cache.lengths, strict=True))
        return self._answer(list(found.values())), cache

    @staticmethod
    def _answer(tokens: list[int]):
        return tokens[0] if len(tokens) == 1 else tokens
