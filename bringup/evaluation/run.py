"""One evaluation from settings to figures: what `eval.py`, `demo.py --eval` and `scripts/run_eval.py` share."""

import gc
import os
import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from bringup import backends
from bringup.backends import model_files, systems
from bringup.checkpoints import mapped, sources
from bringup.errors import BadInput, ModelFailed, blame, shown
from bringup.evaluation import texts
from bringup.evaluation.lines import lines, memory_line  # noqa: F401  (of this module for its users)

# DRAM for the commands of a captured decode step; without it a board refuses the capture. A choice, not a measure: the
# largest step here launches 693 programs a chip (AFM-4.5B on t3000, counted on the emulator), so that each has 95 KiB,
# and it is 0.5 % of a chip's DRAM. A region that is too small is refused with the size that was needed.
TRACE_REGION_BYTES = 64 << 20
WITNESS_TOKENS = 8  # of the prompt, to see that the HF model is still the one that was loaded


@dataclass(frozen=True)
class Settings:
    """What the user asked for. Names are those of the flags."""

    model_py: str
    model: str | None = None
    system: str | None = None
    backend: str | None = None
    numerics: str | None = None
    random_weights: bool = False
    seed: int = 0
    prompt: str | None = None
    prompt_file: str | None = None
    prompt_ids_file: str | None = None
    text_file: str | None = None
    chat: bool = False
    prompt_tokens: int | None = None  # cut or repeat the prompt to this many tokens
    max_new_tokens: int = 100
    min_new_tokens: int = 0
    max_seq_len: int | None = None
    prefill_decode: bool = False
    one_pass: bool = False  # the given text goes in as a prompt: no decode step
    batch: int = 1
    trace: bool = False
    trace_region_size: int = TRACE_REGION_BYTES
    device_id: int = 0
    hf_dtype: str = "float32"
    three_way: bool = True
    cache_dir: str = ""


class Job:
    """Settings made concrete, and checked before anything large is loaded.

    With `hf_only` the HF model takes the device's place: no model file is read and no backend chosen.
    """

    def __init__(self, settings, hf_only=False):
        self.settings = s = settings
        if s.max_new_tokens < 1:
            raise BadInput("nothing to generate", got=f"--max_new_tokens {s.max_new_tokens}", want="at least 1")
        if not 0 <= s.min_new_tokens <= s.max_new_tokens:
            raise BadInput(
                "--min_new_tokens is out of range",
                got=s.min_new_tokens,
                want=f"0 to --max_new_tokens ({s.max_new_tokens})",
            )
        if not 1 <= s.batch <= 32:
            raise BadInput(
                "--batch is out of range", got=s.batch, want="1 to 32: a decode tile has 32 rows, one per user"
            )
        hf_id = None if s.model is None or Path(s.model).exists() else s.model
        if s.one_pass and (s.text_file is None or s.prefill_decode or s.trace or s.batch > 1):
            raise BadInput("--one_pass is a text as one prompt", want="--text_file, one user, no decode step")
        self.model_file = (
            model_files.ModelFile(s.model_py, hf_id, s.system) if hf_only else model_files.describe(s.model_py)
        )
        self.system = systems.get(s.system or self.model_file.system or "n150")
        self.checkpoint = s.model or self.model_file.hf_id
        if self.checkpoint is None:
            raise BadInput("which checkpoint?", want="--model DIR_OR_HF_ID, or a path like " + model_files.PATH_RULE)
        self.cache_dir = s.cache_dir or sources.default_cache_dir()
        self.source = sources.find_source(self.checkpoint, s.random_weights, s.seed, self.cache_dir)
        self.config = sources.load_config(self.source)
        texts.check_one(s)
        self.given_tokens = None  # of a text that the models are led through
        if s.text_file is None:
            self.prompt_ids = texts.prompt_ids(s, self.config, self.source, self.tokenizer)
        else:
            self.prompt_ids, self.given_tokens = self.given_text(s.text_file)
        self.max_seq_len = self._max_seq_len()
        self._hf_model, self.seconds_build = None, None
        self._choose_threads()
        if hf_only:
            self.activation = backends.Activation("none", "mode hf", "the HF model on this machine")
        else:
            self.activation = backends.activate(s.backend, self.system, s.numerics)
            model_files.look_over(self.model_file, self.system)

    def _choose_threads(self):
        """One thread for a tiny model: its products take less time than threads need to meet on a busy PC."""
        if self.config.hidden_size < 1024 and "OMP_NUM_THREADS" not in os.environ:
            import torch

            torch.set_num_threads(1)

    @cached_property
    def tokenizer(self):
        return sources.load_tokenizer(self.source)

    @property
    def eos(self):
        eos = self.config.eos_token_id
        return () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)

    def _max_seq_len(self):
        """The cache length: as asked; else 256 or the next power of two that holds the prompt and what follows it.

        A power of two keeps decode attention's chunks legal (ttnn 0.81.1: a chunk is a power of two that divides it).
        """
        s, limit = self.settings, self.config.max_position_embeddings
        new = s.max_new_tokens if self.given_tokens is None else len(self.given_tokens)
        needed = len(self.prompt_ids) + new - 1  # the last token is never fed
        length = s.max_seq_len or min(limit, max(256, 1 << (needed - 1).bit_length()))
        asked = f"{len(self.prompt_ids)} prompt tokens + {new} new - 1 = {needed}"
        if length > limit:
            raise BadInput(
                "the model has no positions for that cache", got=f"--max_seq_len {length}", want=f"<= {limit}"
            )
        if needed > length:
            raise BadInput(
                "the prompt and the new tokens do not fit the cache",
                got=asked,
                want=f"<= {length} ({'--max_seq_len' if s.max_seq_len else 'max_position_embeddings'})",
                hint=f"--max_seq_len {needed + -needed % 32}"
                if needed <= limit
                else "a shorter prompt or fewer new tokens",
            )
        return length

    def given_text(self, path):
        """The text of a file as (prompt ids, the tokens that follow), cut to what the model and its cache can hold."""
        s, longest = self.settings, getattr(self, "max_seq_len", self.config.max_position_embeddings)
        return texts.given_text(path, self.tokenizer, s.max_new_tokens, s.prompt_tokens, longest, self.config)

    def describe(self):
        """What is about to run, in two lines."""
        s = self.settings
        chat = " in the chat template" * s.chat
        numbers = f"{len(self.prompt_ids)} prompt tokens{chat}, {s.max_new_tokens} new, cache {self.max_seq_len}"
        if self.given_tokens is not None:
            numbers = (
                f"{len(self.prompt_ids)} tokens of {s.text_file} as the prompt, the next "
                f"{len(self.given_tokens)} given {'with it' if s.one_pass else 'one by one'}, cache {self.max_seq_len}"
            )
        weights = "random weights of " * self.source.random + self.source.name
        path = "HF" if self.activation.name == "none" else shown(self.model_file.path)
        note = f"\nweights: {self.source.note}" * (self.source.note is not None)
        return f"system: {self.system}\nmodel: {path} with {weights}; {numbers}{note}"

    def hf_model(self):
        """The HF model in its checkpoint's dtype, loaded once."""
        if self._hf_model is None:
            import torch

            with torch.inference_mode(False):  # weights that are made inside can be used nowhere else
                self._hf_model = sources.load_hf_model(self.source, cache_dir=self.cache_dir)
        return self._hf_model

    def share(self, other):
        """Take the HF model that another job of the same checkpoint has loaded."""
        self._hf_model = other._hf_model

    def reference(self, text_file=None, new_tokens=None):
        """What the HF model says: of the text in `text_file` (default: the settings'), else of its own greedy text
        of `new_tokens` tokens (default: as the settings say).

        With `three_way`, the same model in bfloat16 on the same tokens comes with it.
        """
        from bringup.checkpoints import reference

        s, text_file = self.settings, text_file or self.settings.text_file
        if text_file is not None:
            return self.scored(*self.given_text(text_file), shown(text_file))
        found = reference.get(
            self.source,
            self.prompt_ids,
            new_tokens or s.max_new_tokens,
            eos=self.eos,
            min_new_tokens=new_tokens or s.min_new_tokens,
            dtype=s.hf_dtype,
            cache_dir=self.cache_dir,
            load=self.hf_model,
        )
        return self._three_way(found)

    def scored(self, prompt_ids, tokens, text):
        """The same of tokens that somebody else chose; `text` says where they are from."""
        from bringup.checkpoints import reference

        common = {"dtype": self.settings.hf_dtype, "cache_dir": self.cache_dir, "load": self.hf_model}
        return self._three_way(reference.score(self.source, prompt_ids, tokens, text_file=text, **common))

    def _three_way(self, found):
        from bringup.checkpoints import reference

        if not self.settings.three_way or self.settings.hf_dtype != "float32":
            return found
        common = {"dtype": "bfloat16", "cache_dir": self.cache_dir, "load": self.hf_model}
        narrow = reference.score(self.source, found.prompt_ids, found.tokens, **common)
        return replace(found, bf16=narrow.logits, seconds=found.seconds + narrow.seconds)

    @contextmanager
    def open_model(self, keep_hf=False):
        """The model on its open device, as (model, device); once it is built the HF model is released or kept."""
        from bringup.evaluation.uploads import watched

        s, options = self.settings, {}
        if s.trace:
            options["trace_region_size"] = s.trace_region_size
            if self.activation.name == "mock":
                raise BadInput("the library cannot capture a trace on its mock cluster", hint="leave --trace out")
        with backends.open_system(self.system, s.device_id, **options) as device:
            start = time.perf_counter()
            before = self._witness() if keep_hf else None
            model_files.check_mesh(self.model_file, self.system)
            with watched(self.hf_model(), self.source.weight_files(self.cache_dir)):
                model = model_files.build(self.model_file, self.hf_model(), device, self.max_seq_len)
            if keep_hf:
                self._hf_is_as_before(before)
            else:
                self._hf_model = None
            gc.collect()
            self.seconds_build = time.perf_counter() - start
            if s.trace:
                if not hasattr(model, "traced"):
                    raise BadInput(f"{shown(self.model_file.path)} has no traced decode", hint="leave --trace out")
                model.traced = True
            yield model, device
            del model  # before the device closes
            gc.collect()

    def _witness(self):
        """The HF model's logits of the first tokens: the same as long as nobody changes it, or what it is run by."""
        import torch

        ids = torch.tensor([self.prompt_ids[:WITNESS_TOKENS]])
        with torch.inference_mode():
            return self.hf_model()(input_ids=ids, use_cache=False).logits

    def _hf_is_as_before(self, before):
        """HF runs on beside the model. Weights that build_model changed in place are read again; more it may not."""
        import torch

        if torch.equal(self._witness(), before):
            return
        self._hf_model = None
        if not torch.equal(self._witness(), before):
            raise ModelFailed(
                f"{shown(self.model_file.path)} changes what HF computes in this process: it patches torch or "
                "transformers, and would be compared with itself",
                hint="a model file leaves them as they are; eval.py runs HF before it loads the file, and can be used",
            )

    def measure(self, model, device, reference):
        """Lead the model through the reference's tokens and compare; the result as plain data."""
        from bringup.checkpoints import session
        from bringup.evaluation import metrics, teacher_forcing

        s = self.settings
        start = time.perf_counter()
        layers = session.layers_of(model, self.config.num_hidden_layers)
        with blame(self.model_file.path, "running the model"):
            logits, session = teacher_forcing.run(
                model,
                reference.prompt_ids,
                reference.tokens,
                prefill_decode=s.prefill_decode,
                one_pass=s.one_pass,
                batch=s.batch,
                watch=session.Watch(f"teacher forcing ({self.activation.name})", layers),
            )
        seconds = time.perf_counter() - start
        if logits.shape[1] != reference.logits.shape[1]:
            raise BadInput(
                f"{shown(self.model_file.path)} returns logits over another vocabulary",
                got=logits.shape[1],
                want=reference.logits.shape[1],
            )
        result = self.facts() | {"prompt_tokens": len(reference.prompt_ids), "text_file": reference.text_file}
        result |= {"seconds_total": seconds, "memory": device and backends.memory(device)}
        prefill = len(reference.prompt_ids) if s.prefill_decode else 1
        decode = session.seconds[prefill:]
        result["seconds_build"] = self.seconds_build
        result["seconds_prefill"] = sum(session.seconds[:prefill])
        result["seconds_per_decode_step"] = sorted(decode)[len(decode) // 2] if decode else None
        result["reference"] = {"dtype": reference.dtype, "cached": reference.cached, "seconds": reference.seconds}
        result["peak_rss_bytes"] = mapped.peak_rss_bytes()
        if self.activation.values:
            comparison = metrics.compare(reference.logits, logits, reference.tokens)
            result |= comparison.figures() | {"positions": comparison.positions(), "bf16": None}
            if reference.bf16 is not None:
                bf16 = metrics.compare(reference.logits, reference.bf16, reference.tokens)
                result["bf16"] = bf16.figures() | {"positions": bf16.positions()}
        return result

    def measure_built(self, references, **options):
        """What `measure` gives of each reference, by a model built with these options on chips of its own."""
        with backends.open_system(self.system) as device:
            with blame(self.model_file.path, "building the model"):
                model = self.model_file.build_model(self.hf_model(), device, self.max_seq_len, **options)
            self.seconds_build = 0.0
            results = [self.measure(model, device, reference) for reference in references]
            del model  # before the device closes
            gc.collect()
        return results

    def facts(self):
        """What was run, for the record."""
        s = self.settings
        return {
            "model_py": None if self.activation.name == "none" else shown(self.model_file.path),
            "hf_id": self.model_file.hf_id,
            "checkpoint": self.source.name,
            "weights_note": self.source.note,
            "random_weights": self.source.random_seed is not None,
            "system": self.system.name,
            "backend": self.activation.name,
            "numerics": numerics_in_use(self.activation),
            "prompt_tokens": len(self.prompt_ids),
            "max_seq_len": self.max_seq_len,
            "prefill": "token by token" if s.prefill_decode else "one pass",
            "one_pass": s.one_pass,
            "batch": s.batch,
            "trace": s.trace,
            "command": self.command(),
        }

    def command(self, script="eval.py"):
        """The command line that repeats this evaluation, without what only says where files are kept."""
        words = [f"python {script}", shown(self.model_file.path)]
        for field in fields(Settings):
            value = getattr(self.settings, field.name)
            if field.name in ("model_py", "cache_dir") or value == field.default:
                continue
            flag = "--" + "no-" * (value is False) + field.name
            if field.name in ("random_weights", "hf_dtype"):
                flag = flag.replace("_", "-")
            words += [flag] if isinstance(value, bool) else [flag, shlex.quote(str(value))]
        return " ".join(words)


def numerics_in_use(activation):
    if activation.name != "emulator":
        return None
    import ttnn_emulator.numerics

    return ttnn_emulator.numerics.mode()
