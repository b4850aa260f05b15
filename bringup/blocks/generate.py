"""The HF-facing model: prompts into the cache, one token at a time out of it, and transformers' generate() on top.

A model file subclasses `CausalLM` and gives it `model(tokens, step)`, hidden states before the last norm, and
`logits(hidden)`.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
import ttnn
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from bringup.blocks import hf
from bringup.blocks.cache import Pages
from bringup.blocks.config import check_window
from bringup.blocks.memory import check_fits
from bringup.blocks.parallel import TILE, USERS, Mesh, round_up
from bringup.blocks.precision import Precision
from bringup.blocks.rope import RopeTables, layer_types, rotary_of
from bringup.blocks.state import Tokens


@dataclass
class Step:
    """What every layer needs to know of one pass: a prompt of the users in one row, or one token of all users."""

    is_decode: bool
    cos: ttnn.Tensor
    sin: ttnn.Tensor
    row: int | None = None  # prompt: the row of the cache to fill
    start: int = 0  # prompt: the position of its first token here, where it runs in chunks
    positions: ttnn.Tensor | None = None  # decode: [32] int32, where each row's token goes; -1: no user
    at: ttnn.Tensor | None = None  # decode: [1, 32] uint32, the same for look-ups; 0: no user
    pages: Pages | None = None  # where the users' blocks are, if the cache is paged
    tokens: Tokens | None = None  # prompt: which rows are tokens, if layers keep states
    by_type: dict = field(default_factory=dict)  # (cos, sin) by type of layer, where HF has several rotations


class KVCache(Cache):
    """What the host knows of the device cache: how many tokens of each user it holds. `states`: layers keep states,
    which no token can be taken out of again."""

    def __init__(self, lengths: list[int], mask: torch.Tensor, states: bool = False):
        super().__init__(layers=[])
        self.states = states
        self.lengths = lengths  # tokens of each user, without padding
        self.mask = mask  # [users, columns of input_ids so far] bool: where a token is, and not padding

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.mask.shape[1]

    def crop(self, max_length: int):
        """Forget the last tokens, down to `max_length`, or as many as it says below zero: later ones take their
        place."""
        columns = self.get_seq_length()
        if self.states:
            raise ValueError("crop: layers of this model keep a state that holds all tokens; run the prompt again")
        keep = min(columns, max_length if max_length > 0 else columns + max_length)
        if keep < 1 or not self.mask[:, min(keep, columns - 1) :].all():
            raise ValueError(f"crop({max_length}): past_key_values of {columns} columns would keep no token or padding")
        self.lengths = [length - (columns - keep) for length in self.lengths]
        self.mask = self.mask[:, :keep]

    def reorder_cache(self, beam_idx: torch.Tensor):
        raise ValueError("beam search would move users between rows of the device cache; use num_beams=1")

    def _refuse(self, *args, **kwargs):
        raise ValueError(
            "past_key_values: the keys and values are on the device, which holds one set of users at a time; they are "
            "not copied, repeated or changed from the host. Run the prompt again"
        )

    update = batch_repeat_interleave = batch_select_indices = reset = _refuse
    __copy__ = __deepcopy__ = __reduce_ex__ = _refuse


class CausalLM(torch.nn.Module, GenerationMixin):
    """A decoder on the device that `transformers` can drive.

    input_ids [B, S] int64 -> logits [B, kept, vocab] float32. Each user is prefilled on its own (its padding, left or
    right, never reaches the device) and all are decoded together. Tensor parallel: every chip sees every user, at most
    32. Data parallel: each chip has users of its own, at most 32 a chip.
    """

    main_input_name = "input_ids"
    rope_tables = RopeTables
    _is_stateful = True  # one cache, on the device: no assisted decoding

    def __init__(self, hf_model: torch.nn.Module, config, mesh: Mesh, max_seq_len: int, precision: Precision):
        super().__init__()
        if max_seq_len < 1:
            raise ValueError(f"max_seq_len must be at least 1, not {max_seq_len}")
        check_window(config, hf_model.config, max_seq_len)
        self.config = hf_model.config
        self.generation_config = hf_model.generation_config
        self.device = torch.device("cpu")  # of input_ids and logits
        self.mesh, self.tt_device = mesh, mesh.device
        self.max_seq_len = max_seq_len
        self.max_users = USERS * mesh.data_ways
        self.cache = check_fits(hf_model, config, max_seq_len, mesh, precision)
        self.cache.open(mesh)
        self.cache_len = self.cache.length
        rotary = rotary_of(hf_model.model)
        self.ropes = {
            layer_type: self.rope_tables(rotary, hf_model.config, self.cache_len, mesh, config, layer_type)
            for layer_type in layer_types(rotary, hf_model.config)
        }
        self.rope = next(iter(self.ropes.values()))  # the only one, in most models
        self.decode_inputs = [
            mesh.put_users(value, dtype) for value, dtype in self._host_inputs([0] * USERS * mesh.data_ways, {})
        ]
        self.traced = False
        self._traces: dict = {}  # (handle, what comes out) of each captured pass
        self._ran: set = set()  # passes, prompts by their shapes: what the first of a kind leaves on the device stays
        self._live: KVCache | None = None  # the one whose tokens the device holds
        self._tapped: list | None = None  # hidden states of the pass that runs, where they were asked for

    # transformers' side

    def can_generate(self) -> bool:
        return True

    def _supports_default_dynamic_cache(self) -> bool:
        return False

    def _optimize_model_for_decode(self):
        return nullcontext()  # transformers would ask a PreTrainedModel for its experts

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        """The tokens that the cache does not hold yet, and whatever else `generate` was told."""
        new, at = kwargs.pop("next_sequence_length", None), kwargs.get("cache_position")
        if at is not None and len(at) != input_ids.shape[1]:  # transformers 4
            new = len(at)
        if new is not None and past_key_values is not None:
            if new < 1:
                raise ValueError(
                    f"past_key_values hold {past_key_values.get_seq_length()} tokens, input_ids has "
                    f"{input_ids.shape[1]}: none is new. past_key_values.crop(-n) forgets the last n"
                )
            input_ids = input_ids[:, -new:]
        given = {k: v for k, v in kwargs.items() if k not in ("is_first_iteration", "labels")}
        return given | {"input_ids": input_ids, "past_key_values": past_key_values}

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: KVCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast | tuple:
        """A new prompt (no past_key_values), or the next token or tokens of the one before; arguments as in HF.

        `logits_to_keep`: the last n positions, 0 for all, or the positions themselves. In a batch the last positions of
        each user end with its own last token, also where the padding is on the right; where padding is they are zero.
        What the device does not do (`inputs_embeds`, `output_attentions`, positions of one's own) is a ValueError.
        """
        hf.check_arguments(kwargs)
        input_ids = self._checked(input_ids)
        cache = past_key_values
        if cache is not None:
            self._check_live(cache, len(input_ids))
        mask = hf.token_mask(input_ids, attention_mask, cache)
        hf.check_positions(kwargs, mask, cache)
        everything = bool(output_hidden_states) or labels is not None or isinstance(logits_to_keep, torch.Tensor)
        keep = 0 if everything else logits_to_keep
        with self._taps(output_hidden_states):
            if cache is None:
                cache = self.empty_cache(len(input_ids))
                logits, *hidden = self._prompts(input_ids, mask, cache, keep)
            else:
                steps = [self._next_tokens(input_ids[:, i], cache) for i in range(input_ids.shape[1])]
                logits, *hidden = (torch.stack(values[-keep:], dim=1) for values in zip(*steps, strict=True))
        loss = None if labels is None else hf.loss(logits, labels, mask, kwargs)
        if everything:
            logits = hf.kept(logits, logits_to_keep)
        use_cache = getattr(self.config, "use_cache", True) if use_cache is None else use_cache
        out = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=cache if use_cache else None,
            hidden_states=tuple(hidden) or None,
        )
        return out.to_tuple() if return_dict is False else out

    def _check_live(self, cache, users: int):
        if not isinstance(cache, KVCache):
            raise ValueError(
                "past_key_values must be those that this model returned, whose keys are on the device, not "
                f"{type(cache).__name__}"
            )
        if cache is not self._live:
            raise ValueError("past_key_values are of an earlier prompt: the device holds one set of users at a time")
        if users != len(cache.lengths):
            raise ValueError(f"past_key_values hold {len(cache.lengths)} users, input_ids has {users}")

    @contextmanager
    def _taps(self, wanted):
        """Inside, each pass leaves its hidden states in `_tapped`, as HF has them: embeddings, the output of each layer
        but the last, and that one's after the norm."""
        if not wanted:
            yield
            return
        decoder = self.model
        tapped: list[torch.Tensor] = []
        self._tapped = tapped

        def take(module, args, out):
            tapped.append(self.mesh.get(out)[..., : self.config.hidden_size].float())

        points = [*decoder.layers[:-1], decoder.norm]
        hooks = [decoder.layers[0].register_forward_pre_hook(lambda module, args: take(module, args, args[0]))]
        hooks += [point.register_forward_hook(take) for point in points]
        try:
            yield
        finally:
            self._tapped = None
            for hook in hooks:
                hook.remove()

    def _results(self, logits: ttnn.Tensor) -> list[torch.Tensor]:
        """Logits and what was tapped of one pass, on the host: [groups, rows, width] each."""
        found = [self._to_host(logits), *(self._tapped or ())]
        if self._tapped is not None:
            self._tapped.clear()
        return found

    def empty_cache(self, users: int = 1) -> KVCache:
        """Forget the users before; pass the result as past_key_values to run a prompt token by token through decode."""
        self.reset()
        self._live = cache = KVCache([0] * users, torch.zeros(users, 0, dtype=torch.bool), bool(self.cache.states.kept))
        return cache

    def reset(self):
        """Forget all users. Their keys stay in the device cache until overwritten; no later position reaches them."""
        self._live = None
        self.cache.clear()

    def _checked(self, input_ids) -> torch.Tensor:
        if not isinstance(input_ids, torch.Tensor):
            raise ValueError(f"input_ids must be a torch tensor [users, tokens], not {type(input_ids).__name__}")
        if input_ids.dim() != 2 or 0 in input_ids.shape:
            raise ValueError(f"input_ids must be [users, tokens], at least one of each, not {list(input_ids.shape)}")
        if len(input_ids) > self.max_users:
            raise ValueError(f"input_ids has {len(input_ids)} users; a decode step has room for {self.max_users}")
        low, high = int(input_ids.min()), int(input_ids.max())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(f"input_ids must be in 0..{self.config.vocab_size - 1}, not {low}..{high}")
        return input_ids

    # prompts

    def _prompts(self, input_ids, mask, cache: KVCache, keep: int) -> list[torch.Tensor]:
        """[users, kept, width] of logits, and of hidden states where they are tapped."""
        spans = hf.spans(mask)
        longest = max(stop - start for start, stop in spans)
        if longest > self.max_seq_len:
            self.reset()
            raise ValueError(f"a prompt of {longest} tokens does not fit max_seq_len {self.max_seq_len}")
        users, columns = input_ids.shape
        found: list[torch.Tensor] = []
        per_group = -(-users // self.mesh.data_ways)
        lengths = [stop - start for start, stop in spans]
        self._draw({self._row(user, users): length for user, length in enumerate(lengths)})
        for row in range(per_group):
            group = list(range(row, users, per_group))  # one user of each chip group: user g * per_group + row
            prompts = [input_ids[u, slice(*spans[u])] for u in group]
            for user, results in zip(group, self._prompt_row(prompts, row, keep), strict=True):
                end = spans[user][1] if keep == 0 else keep  # all: where the tokens stand; n: the last n, at the end
                if not found:
                    found = [torch.zeros(users, keep or columns, kept.shape[-1]) for kept in results]
                for whole, kept in zip(found, results, strict=True):
                    kept = kept[-(keep or columns) :]
                    whole[user, end - len(kept) : end] = kept
        cache.lengths, cache.mask = lengths, mask
        return found

    def _prompt_row(self, prompts: list[torch.Tensor], row: int, keep: int) -> list[list[torch.Tensor]]:
        """A prompt for each chip group into `row` of its cache -> for each at least the last `keep` positions of what
        `_results` gives."""
        length = round_up(max(map(len, prompts)), TILE)
        tokens = torch.zeros(self.mesh.data_ways, length, dtype=torch.int32)
        for group, prompt in enumerate(prompts):
            tokens[group, : len(prompt)] = prompt
        first = 0 if keep == 0 else max(0, min(map(len, prompts)) - keep) // TILE * TILE
        chunk = self.cache.prompt_chunk or length
        results = []
        for start in range(0, length, chunk):
            lengths = [len(prompt) - start for prompt in prompts]
            made = self._prompt_chunk(tokens[:, start : start + chunk], lengths, start, row, max(0, first - start))
            if made is not None:
                results.append(self._results(made))
        whole = [torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0] for pieces in zip(*results, strict=True)]
        return [[each[group, : len(prompt) - first] for each in whole] for group, prompt in enumerate(prompts)]

    def _prompt_chunk(
        self, tokens: torch.Tensor, lengths: list[int], start: int, row: int, first: int
    ) -> ttnn.Tensor | None:
        """Tokens [groups, S] of prompts, from position `start` on, of which `lengths` are no padding -> logits of those
        from `first` on."""
        rows = tokens.shape[1]
        self._first_of((rows, first))
        pages, tokens_of = self.cache.of_prompt(row, start, rows), self.cache.states.of_prompt(lengths, rows, row)
        return self._prompt_pass(self.mesh.put_users(tokens, ttnn.uint32), row, start, first, pages, tokens_of)

    def _first_of(self, kind):
        """Gives captured passes back before the first of a kind: a new program keeps buffers, which could lie where a
        replay writes."""
        if kind not in self._ran:
            self.release_trace()
            self._ran.add(kind)

    def _prompt_pass(self, tokens: ttnn.Tensor, row: int, start: int, first: int, pages, of=None) -> ttnn.Tensor | None:
        rows, whole = tokens.shape[-1], self.cache.prompt_chunk is None
        turns = {name: rope.of_prompt(start, rows, whole) for name, rope in self.ropes.items()}
        step = self.new_step(turns, is_decode=False, row=row, start=start, pages=pages, tokens=of)
        hidden = self.model(tokens, step)
        if first >= rows:
            return None
        return self.end(self.tail(hidden, first) if first else hidden)

    def end(self, hidden: ttnn.Tensor) -> ttnn.Tensor:
        """What a prompt ends in, and `_results` takes."""
        return self.logits(hidden)

    def tail(self, hidden: ttnn.Tensor, first: int) -> ttnn.Tensor:
        """The rows from `first` on."""
        return ttnn.slice(hidden, (0, 0, first, 0), (1, 1, hidden.shape[-2], hidden.shape[-1]))

    def _row(self, user: int, users: int) -> int:
        """The row of the caches, counted over all groups of chips, that a user of so many has."""
        per_group = -(-users // self.mesh.data_ways)
        return user // per_group * USERS + user % per_group

    def _draw(self, positions: dict[int, int]):
        """Room in the cache for so many positions in each row; the users are forgotten where there is none."""
        try:
            self.cache.draw(positions)
        except ValueError:
            self.reset()
            raise

    # decode

    def _next_tokens(self, tokens: torch.Tensor, cache: KVCache) -> list[torch.Tensor]:
        """The next token of each user [B] -> logits [B, vocab], and tapped hidden states [B, hidden]."""
        where = self._ready(tokens, cache)
        results = self._results(self._replayed("step", self.step) if self._tapped is None else self.step())
        self._advance(cache)
        return [each.reshape(self.max_users, -1)[where].float() for each in results]

    def _ready(self, tokens: torch.Tensor, cache: KVCache) -> list[int]:
        """Room in the cache and the inputs of a step for the next token of each user [B]; the users' rows."""
        fullest = max(cache.lengths)
        if fullest >= self.max_seq_len:
            raise ValueError(f"the cache is full: {fullest} tokens of max_seq_len {self.max_seq_len}")
        where = [self._row(user, len(tokens)) for user in range(len(tokens))]
        self.cache.draw({row: length + 1 for row, length in zip(where, cache.lengths, strict=True)})
        self.cache.upload()
        rows = [0] * self.max_users
        for row, token in zip(where, tokens.tolist(), strict=True):
            rows[row] = token
        positions = dict(zip(where, cache.lengths, strict=True))
        self._send(rows, positions)
        return where

    def _send(self, tokens: list[int], positions: dict[int, int]):
        for buffer, (value, dtype) in zip(self.decode_inputs, self._host_inputs(tokens, positions), strict=True):
            ttnn.copy_host_to_device_tensor(self.mesh.put_users(value, dtype, on_device=False), buffer)

    def _advance(self, cache: KVCache):
        cache.lengths = [length + 1 for length in cache.lengths]
        cache.mask = torch.nn.functional.pad(cache.mask, (0, 1), value=True)

    def _host_inputs(self, tokens: list[int], positions: dict[int, int]):
        """The three small inputs of a step: tokens, positions for the cache (-1: no user) and for the rotation."""
        at = torch.tensor([positions.get(row, -1) for row in range(self.max_users)], dtype=torch.int32)
        return [
            (torch.tensor(tokens, dtype=torch.int32).reshape(-1, USERS), ttnn.uint32),
            (at, ttnn.int32),
            (at.clamp(min=0).reshape(-1, USERS), ttnn.uint32),
        ]

    def _replayed(self, name, run) -> ttnn.Tensor:
        """What `run`, by this name, gives on what its inputs now hold: run, or replayed where `traced` and captured
        once."""
        if name in self._traces:
            handle, output = self._traces[name]
            ttnn.execute_trace(self.tt_device, handle, cq_id=0, blocking=False)
            return output
        self._first_of(name)
        output = self._kept(name, run())
        if self.traced:
            handle = ttnn.begin_trace_capture(self.tt_device, cq_id=0)
            try:
                captured = self._kept(name, run())
            finally:  # a capture that a failing step left open would refuse all that follows
                ttnn.end_trace_capture(self.tt_device, handle, cq_id=0)
            self._traces[name] = handle, captured
        return output

    def _kept(self, name, output: ttnn.Tensor) -> ttnn.Tensor:
        """What a replay leaves its results in. A model with several captured passes overrides it."""
        return output

    def release_trace(self):
        """Give the captured steps back; the next one runs untraced, or is captured again while `traced`."""
        for handle, _ in self._traces.values():
            ttnn.release_trace(self.tt_device, handle)
        self._traces.clear()

    def step(self) -> ttnn.Tensor:
        """One decode step, from device buffers to logits [1, 1, 32, vocab]: no host tensor is made or read in it."""
        tokens, positions, rope_positions = self.decode_inputs
        turns = {name: rope.look_up(rope_positions) for name, rope in self.ropes.items()}
        step = self.new_step(turns, is_decode=True, positions=positions, at=rope_positions, pages=self.cache.of_step())
        return self.logits(self.model(tokens, step))

    def new_step(self, turns: dict, **fields) -> Step:
        """A pass with these (cos, sin) by type of layer."""
        cos, sin = next(iter(turns.values()))
        return Step(cos=cos, sin=sin, by_type=turns, **fields)

    def _to_host(self, logits: ttnn.Tensor) -> torch.Tensor:
        """[1, 1, rows, vocab / ways] on the chips -> [groups, rows, vocab] as held, without the padding."""
        logits, vocabulary = self.mesh.get(logits)[..., : self.config.vocab_size], self.config.vocab_size
        if logits.shape[-1] != vocabulary:
            raise ValueError(f"logits have {logits.shape[-1]} columns, the vocabulary is {vocabulary}")
        return logits


def soft_cap(x: ttnn.Tensor, cap: float) -> ttnn.Tensor:
    """cap * tanh(x / cap)"""
    return ttnn.multiply(ttnn.tanh(ttnn.multiply(x, 1 / cap)), cap)
