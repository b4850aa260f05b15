"""What the items of the checklist share: each thing is made when the first item asks for it, and kept."""

import dataclasses
import gc
import platform
import shlex
from contextlib import ExitStack, contextmanager
from functools import cached_property
from types import SimpleNamespace

from bringup.errors import BringupError, shown

SECTIONS = ("accuracy", "layers", "modules", "consistency", "texts", "memory", "ops", "predicted")
MORE = 4  # times the tokens, where those of a check leave a rate open
PROFILE_TOKENS, PROFILE_STEPS = 48, 16  # of the text that is watched layer by layer: a prompt, and decode steps
OTHER = 7  # tokens by which a text is turned to be another


class Context:
    """The job, the HF model and what it says, the open device with the built model, and what was measured."""

    def __init__(self, job, quick=False, items=None, build=None):
        from bringup.evaluation.run import Job, Settings

        self.job = Job(job) if isinstance(job, Settings) else job
        if build is not None:
            file = self.job.model_file
            module = SimpleNamespace(**{**vars(file.module), "build_model": build})
            self.job.model_file = dataclasses.replace(file, given=module)
        self.given_build = build
        self.quick, self.items = quick, items
        self.broken = None  # why there is no model, once that is known
        self.sections = {"consistency": []}
        self.profiles = {}  # of other tokens, or of another user, than those which are always watched
        self.records = {}  # the op log of a prompt and of a decode step, where the backend keeps one
        self._open = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for holder in ("built", "probe"):  # the model goes before its device closes
            self.__dict__.pop(holder, None)
        gc.collect()
        self._open.close()

    # HF

    @property
    def hf(self):
        """The HF model in its checkpoint's dtype."""
        return self.job.hf_model()

    @cached_property
    def reference(self):
        """The HF model's own greedy tokens, and their logits in float32."""
        return self.job.reference()

    @cached_property
    def longer_reference(self):
        """The same of four times as many tokens, as far as the cache holds them: where few leave a rate open. None
        where there are no more, or the text was given."""
        n = len(self.reference.tokens)
        more = min(MORE * n, self.job.max_seq_len - len(self.reference.prompt_ids) + 1)
        return None if self.reference.text_file is not None or more <= n else self.job.reference(new_tokens=more)

    @cached_property
    def reference_on_text(self):
        """The same of a given text; None where there is no tokenizer for it, or no item that asks."""
        from bringup.evaluation.texts import DEFAULT_PROMPT

        asked = self.items is None or {"teacher_forcing", "optimized"} & {*self.items}
        if self.job.tokenizer is None or not self.values or not asked:
            return None
        return self.job.reference(text_file=DEFAULT_PROMPT)

    def hf_alone(self):
        """What HF says is made before the model file is loaded, whichever item asks first."""
        return self.reference, self.reference_on_text

    @cached_property
    def in_bf16(self):
        """HF in bfloat16 on the reference's tokens, as a `Comparison`: what the format costs without a device."""
        from bringup.evaluation import metrics

        reference = self.reference
        return metrics.compare(reference.logits, reference.bf16, reference.tokens)

    @cached_property
    def text(self):
        """The text of the consistency questions, through HF."""
        from bringup.evaluation.consistency import Text

        return Text.through(self.hf, self.job.prompt_ids + self.reference.tokens, self.job.max_seq_len)

    # the device

    @cached_property
    def built(self):
        """(model, device); a failure is remembered, so that one item reports it and the others are skipped."""
        try:
            return self._open.enter_context(self.job.open_model(keep_hf=True))
        except BringupError as error:
            self.broken = str(error).splitlines()[0]
            raise

    @property
    def model(self):
        return self.built[0]

    @property
    def device(self):
        return self.built[1]

    @property
    def values(self):
        return self.job.activation.values

    @property
    def emulator(self):
        return self.job.activation.name == "emulator"

    @property
    def no_values(self):
        return f"the calls were accepted; {self.job.activation.name} holds no values"

    @cached_property
    def uses_blocks(self):
        """Is the model made of bringup.blocks, whose parts have HF's names? Else why not, as (False, reason)."""
        from bringup.evaluation.modules import made_of_blocks

        return made_of_blocks(self.model)

    # what was measured

    @cached_property
    def measured(self):
        """The teacher-forced run, as `eval.py --json` writes it."""
        reference = self.reference
        return self.job.measure(self.model, self.device, reference)

    @cached_property
    def measured_on_text(self):
        """The same over a given text, the harder test; None where there is no tokenizer for it."""
        reference = self.reference_on_text
        return reference and self.job.measure(self.model, self.device, reference)

    @cached_property
    def profile(self):
        """Every point of every layer against HF, as `layers.Profile`."""
        import torch

        from bringup.errors import blame
        from bringup.evaluation import layers

        precision = layers.precision_of(self.job.model_file.module)
        ids = (self.job.prompt_ids + self.reference.tokens)[: PROFILE_TOKENS + PROFILE_STEPS]
        with blame(self.job.model_file.path, "running it layer by layer"), torch.inference_mode():
            watched = self.model, self.hf
            before = max(1, len(ids) - PROFILE_STEPS)
            found = layers.profile(*watched, ids, before, precision)
            first = found.first
            if first is not None and first.layer and first.point.endswith("_cache"):
                # The same tokens' keys may be there from before, and be right in the first layer: other tokens tell.
                turned = [*ids[OTHER:], *ids[:OTHER]]
                other = layers.profile(*watched, turned, before, precision, earlier=self.text.ids)
                found = other if other.first is not None and (other.first.layer or 0) < first.layer else found
        self.sections["layers"] = found.as_dict()
        return found

    def profile_at(self, tokens, prompt=False, user=0):
        """The same around a token: decode steps there, or a prompt of so many tokens; as `user` of many."""
        import torch

        from bringup.errors import blame
        from bringup.evaluation import layers

        key = tokens, prompt, user
        if key in self.profiles:
            return self.profiles[key]
        precision = layers.precision_of(self.job.model_file.module)
        ids = self.text.ids[: tokens + PROFILE_STEPS // 4]
        before = tokens if prompt else max(1, tokens - PROFILE_STEPS // 2)
        before = min(before, len(ids) - 1)
        with blame(self.job.model_file.path, "running it layer by layer"), torch.inference_mode():
            found = self.profiles[key] = layers.profile(self.model, self.hf, ids, before, precision, user)
        if found.first is not None:
            self.sections["layers"] = found.as_dict()
        return found

    @cached_property
    def modules(self):
        """Every block against HF's: a list of `ModuleResult`."""
        from bringup.errors import blame
        from bringup.evaluation import modules, state_modules

        last = min(self.job.config.num_hidden_layers, len(self.model.model.layers)) - 1
        layers = modules.first_of_each_kind(self.model)
        layers += [last] * (not self.quick and last not in layers)
        found = []
        for layer in layers:
            with blame(self.job.model_file.path, f"running the blocks of layer {layer}"):
                found += state_modules.of_layer(
                    self.model, self.hf, layer=layer, seed=self.job.settings.seed, values=self.values
                )
        self.sections["modules"] = [r.as_dict() for r in found]
        return found

    @cached_property
    def probe(self):
        from bringup.evaluation.consistency import Probe

        return Probe(
            self.model,
            self.text,
            self.job.max_seq_len,
            values=self.values,
            deterministic=self.emulator,
        )

    def ask(self, *names):
        """Consistency questions by name; their results, also kept for the record."""
        from bringup.errors import blame
        from bringup.evaluation.consistency import CHECKS

        found = []
        for name in names:
            with blame(self.job.model_file.path, f"asking about {name.replace('_', ' ')}"), self._passes(name):
                found.append(CHECKS[name](self.probe))
            self.sections["consistency"].append(dataclasses.asdict(found[-1]))
        return found

    @contextmanager
    def _passes(self, name):
        """Progress of a consistency question, in passes of the model."""
        from bringup.console import progress
        from bringup.evaluation.consistency import BOUNDARIES, LENGTHS

        length = self.probe.max_seq_len
        decoded = max(n for n in BOUNDARIES if n <= length) if self.probe.decoded is None else 0
        total = {
            "decode": decoded,
            "cache_end": 4,
            "prefill_against_decode": decoded + sum(n <= length for n in BOUNDARIES),
            "prompt_lengths": 2 * sum(n < length for n in LENGTHS),
            "second_prompt": 8,
            "batch": 12,
            "users": 4,
            "same_seed": 16,
        }[name]
        with progress(f"{name.replace('_', ' ')}, passes", total) as advance:
            handle = self.model.register_forward_hook(lambda *_: advance())
            try:
                yield
            finally:
                handle.remove()

    # the record

    def facts(self):
        """What was run, on what."""
        facts = self.job.facts()
        names = ("hf_id", "checkpoint", "random_weights", "system", "backend", "numerics")
        return {
            "model_py": shown(self.job.model_file.path),
            **{name: facts[name] for name in names},
            "quick": self.quick,
            "command": self.command(),
            "versions": versions(self.job.activation),
        }

    def command(self):
        """The command line that repeats this check."""
        s, job = self.job.settings, self.job
        words = ["bringup check", shlex.quote(shown(job.model_file.path))]
        words += ["--model " + shlex.quote(s.model)] if s.model else []
        words += ["--random-weights"] * s.random_weights
        words += [f"--system {s.system}"] if s.system else []
        words += [f"--backend {s.backend}"] if s.backend else []
        words += [f"--numerics {s.numerics}"] if s.numerics else []
        words += [f"--device_id {s.device_id}"] if s.device_id else []
        words += [f"--max_seq_len {s.max_seq_len}"] if s.max_seq_len else []
        words += [f"--seed {s.seed}"] if s.seed else []
        words += [f"--items {','.join(self.items)}"] if self.items else []
        return " ".join(words + ["--quick"] * self.quick)

    def found(self):
        """The sections of the record; None where nothing was measured."""
        return {name: self.sections.get(name) for name in SECTIONS}


def versions(activation):
    import torch
    import transformers

    from bringup import __version__

    found = {"ttnn-bringup": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return found | {"transformers": transformers.__version__, "ttnn": activation.detail}
