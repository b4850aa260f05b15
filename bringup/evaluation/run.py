"""One evaluation from settings to figures: what `eval.py`, `demo.py --eval` and `scripts/run_eval.py` share."""

import gc
import os
import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from bringup import backends, loading, systems
from bringup.console import mib, progress
from bringup.errors import BadInput, blame, shown

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PROMPT = ROOT / "prompts" / "long.txt"
RANDOM_PROMPT_TOKENS = 100


def default_cache_dir():
    return os.environ.get("BRINGUP_CACHE", "~/.cache/ttnn-bringup")


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
    prompt_tokens: int | None = None  # cut or repeat the prompt to this many tokens
    max_new_tokens: int = 100
    min_new_tokens: int = 0
    max_seq_len: int | None = None
    prefill_decode: bool = False
    batch: int = 1
    trace: bool = False
    device_id: int = 0
    hf_dtype: str = "float32"
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
        self.model_file = loading.ModelFile(s.model_py, None, s.system) if hf_only else loading.describe(s.model_py)
        self.system = systems.get(s.system or self.model_file.system or "n150")
        self.checkpoint = s.model or self.model_file.hf_id
        if self.checkpoint is None:
            raise BadInput("which checkpoint?", want="--model DIR_OR_HF_ID, or a path like " + loading.PATH_RULE)
        self.source = loading.find_source(self.checkpoint, s.random_weights, s.seed)
        self.config = loading.load_config(self.source)
        self.prompt_ids = self._prompt_ids()
        self.max_seq_len = self._max_seq_len()
        self.cache_dir = s.cache_dir or default_cache_dir()
        self._hf_model = None
        self._choose_threads()
        if hf_only:
            self.activation = backends.Activation("none", "mode hf", "the HF model on this machine")
        else:
            self.activation = backends.activate(s.backend, self.system, s.numerics)
            self.model_file = loading.load_model_file(s.model_py, self.system)

    def _choose_threads(self):
        """One thread for a tiny model: its products take less time than threads need to meet on a busy PC."""
        if self.config.hidden_size < 1024 and "OMP_NUM_THREADS" not in os.environ:
            import torch

            torch.set_num_threads(1)

    @cached_property
    def tokenizer(self):
        return loading.load_tokenizer(self.source)

    @property
    def eos(self):
        eos = self.config.eos_token_id
        return () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,)

    def _prompt_ids(self):
        s = self.settings
        given = [n for n in ("prompt", "prompt_file", "prompt_ids_file") if getattr(s, n) is not None]
        if len(given) > 1:
            raise BadInput("one prompt, please", got=" and ".join("--" + n for n in given))
        if s.prompt_ids_file is not None:
            text = _read(s.prompt_ids_file).replace(",", " ").strip().strip("[]")
            try:
                ids = [int(word) for word in text.split()]
            except ValueError as error:
                raise BadInput(f"{s.prompt_ids_file}: {error}", want="token ids, as in 1 2 3 or [1, 2, 3]") from error
            if bad := [i for i in ids if not 0 <= i < self.config.vocab_size]:
                raise BadInput(
                    "token ids outside the vocabulary", got=bad[:5], want=f"0 to {self.config.vocab_size - 1}"
                )
        elif self.tokenizer is None:
            if given:
                raise BadInput(f"{self.source.name} has no tokenizer for --{given[0]}", hint="--prompt_ids_file")
            ids = loading.random_prompt_ids(self.config, s.prompt_tokens or RANDOM_PROMPT_TOKENS, s.seed)
        else:
            text = s.prompt if s.prompt is not None else _read(s.prompt_file or DEFAULT_PROMPT).strip()
            ids = self.tokenizer(text)["input_ids"] if text else []
        if not ids:
            raise BadInput("the prompt is empty")
        if s.prompt_tokens is not None:
            ids = (ids * (s.prompt_tokens // len(ids) + 1))[: s.prompt_tokens]
        return ids

    def _max_seq_len(self):
        """The cache length: as asked; else 256 or the next power of two that holds the prompt and what follows it.

        A power of two keeps decode attention's chunks legal (ttnn 0.81.1: a chunk is a power of two that divides it).
        """
        s, limit = self.settings, self.config.max_position_embeddings
        needed = len(self.prompt_ids) + s.max_new_tokens - 1  # the last token is never fed
        length = s.max_seq_len or min(limit, max(256, 1 << (needed - 1).bit_length()))
        asked = f"{len(self.prompt_ids)} prompt tokens + {s.max_new_tokens} new - 1 = {needed}"
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

    def describe(self):
        """What is about to run, in two lines."""
        numbers = f"{len(self.prompt_ids)} prompt tokens, {self.settings.max_new_tokens} new, cache {self.max_seq_len}"
        weights = "random weights of " * (self.source.random_seed is not None) + self.source.name
        path = "HF" if self.activation.name == "none" else shown(self.model_file.path)
        return f"system: {self.system}\nmodel: {path} with {weights}; {numbers}"

    def hf_model(self):
        """The HF model in its checkpoint's dtype, loaded once."""
        if self._hf_model is None:
            self._hf_model = loading.load_hf_model(self.source)
        return self._hf_model

    def reference(self):
        from bringup.evaluation import reference

        s = self.settings
        return reference.get(
            self.source,
            self.prompt_ids,
            s.max_new_tokens,
            eos=self.eos,
            min_new_tokens=s.min_new_tokens,
            dtype=s.hf_dtype,
            cache_dir=self.cache_dir,
            load=self.hf_model,
        )

    @contextmanager
    def open_model(self):
        """The model on its open device, as (model, device); the HF model is released once it is built."""
        with backends.open_system(self.system, self.settings.device_id) as device:
            model = loading.build(self.model_file, self.hf_model(), device, self.max_seq_len)
            self._hf_model = None
            gc.collect()
            if self.settings.trace:
                if not hasattr(model, "traced"):
                    raise BadInput(f"{shown(self.model_file.path)} has no traced decode", hint="leave --trace out")
                model.traced = True
            yield model, device
            del model  # before the device closes
            gc.collect()

    def measure(self, model, device, reference):
        """Teacher-force the model with the reference's tokens; the result as plain data."""
        from bringup.evaluation import metrics, teacher_forcing

        s = self.settings
        start = time.perf_counter()
        with progress(f"teacher forcing ({self.activation.name})", len(reference.tokens)) as advance:
            with blame(self.model_file.path, "running the model"):
                logits, session = teacher_forcing.run(
                    model,
                    self.prompt_ids,
                    reference.tokens,
                    prefill_decode=s.prefill_decode,
                    batch=s.batch,
                    advance=advance,
                )
        seconds = time.perf_counter() - start
        if logits.shape[1] != reference.logits.shape[1]:
            raise BadInput(
                f"{shown(self.model_file.path)} returns logits over another vocabulary",
                got=logits.shape[1],
                want=reference.logits.shape[1],
            )
        result = self.facts() | {"seconds_total": seconds, "memory": device and backends.memory(device)}
        prefill = len(self.prompt_ids) if s.prefill_decode else 1
        decode = session.seconds[prefill:]
        result["seconds_prefill"] = sum(session.seconds[:prefill])
        result["seconds_per_decode_step"] = sorted(decode)[len(decode) // 2] if decode else None
        result["reference"] = {"dtype": s.hf_dtype, "cached": reference.cached, "seconds": reference.seconds}
        if self.activation.values:
            comparison = metrics.compare(reference.logits, logits, reference.tokens)
            result |= comparison.figures() | {"positions": comparison.positions()}
        return result

    def facts(self):
        """What was run, for the record."""
        s = self.settings
        return {
            "model_py": shown(self.model_file.path),
            "hf_id": self.model_file.hf_id,
            "checkpoint": self.source.name,
            "random_weights": self.source.random_seed is not None,
            "system": self.system.name,
            "backend": self.activation.name,
            "numerics": numerics_in_use(self.activation),
            "prompt_tokens": len(self.prompt_ids),
            "max_seq_len": self.max_seq_len,
            "prefill": "token by token" if s.prefill_decode else "one pass",
            "batch": s.batch,
            "trace": s.trace,
            "command": self.command(),
        }

    def command(self):
        """The command line that repeats this evaluation, without what only says where files are kept."""
        words = ["python eval.py", shown(self.model_file.path)]
        for field in fields(Settings):
            value = getattr(self.settings, field.name)
            if field.name in ("model_py", "cache_dir") or value == field.default:
                continue
            flag = "--" + (field.name.replace("_", "-") if field.name in ("random_weights", "hf_dtype") else field.name)
            words += [flag] if value is True else [flag, shlex.quote(str(value))]
        return " ".join(words)


def numerics_in_use(activation):
    if activation.name != "emulator":
        return None
    import ttnn_emulator.numerics

    return ttnn_emulator.numerics.mode()


def lines(result):
    """The result for people."""
    from bringup.evaluation.metrics import Rate

    out = []
    if "top1" in result:
        n = result["n"]
        top1, top5, of_reference = (Rate(round(result[k] * n), n) for k in ("top1", "top5", "top5_of_reference"))
        out += [
            f"Top-1 accuracy: {top1}",
            f"Top-5 accuracy: {top5}",
            f"  n = {n}, 95 % intervals: top-1 {top1.spread()}, top-5 {top5.spread()}",
            f"  top-5 is the reference token in the device's five best; the device's best in the reference's five: "
            f"{of_reference}",
            f"KL(reference || device): mean {result['kl_mean']:.2e}, 99th percentile {result['kl_p99']:.2e}, "
            f"worst {result['kl_worst']:.2e} nats",
            f"Logits: relative L2 {result['rel_l2']:.4f}, PCC {result['pcc']:.6f}, predictions outside the reference's "
            f"best 100: {result['garbage']}",
            f"Perplexity on the reference's tokens: device {result['perplexity_device']:.4f}, "
            f"reference {result['perplexity_reference']:.4f}",
        ]
    else:
        out.append(f"The calls were accepted; {result['backend']} holds no values, so there is no accuracy")
    if result["memory"]:
        out.append(memory_line(result["memory"]))
    return out


def memory_line(memory):
    dram = memory["dram"]
    peak = f", peak {mib(dram['peak'])}" if "peak" in dram else ""
    return f"DRAM per chip: {mib(dram['allocated'])}{peak} of {mib(dram['total'])}"


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompt: {error}") from error
