"""What `bringup tune` measures of a candidate: predicted seconds, by shapes; and accuracy, with a checkpoint.

A candidate's time is that of one layer and of one more at true widths, for layers that are alike: what a step or a
prompt takes is a sum over them. Each result is a file: what is there is not run again.
"""

import hashlib
import json
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from bringup import spread
from bringup.errors import BringupError
from bringup.files import write_json
from bringup.tuning import candidates, sweep
from bringup.tuning.sweep import CONTEXT, PROMPT, Common

ANSWER = 100  # tokens after a prompt of PROMPT, in what is to take the least time
FIGURES = ("n", "top1", "top1_interval", "top5", "kl_mean", "rel_l2", "perplexity_device", "perplexity_reference")
FUNCTIONAL = "functional"  # in the place of a candidate: the file beside, with its own precision
_jobs: dict = {}  # of this process, by Common: the HF model is loaded once


@dataclass
class Lab:
    """Where trials are made: the file, the checkpoint, the folder of results, and until when."""

    common: Common
    config: object
    out: Path
    digest: str
    jobs: int | None = None
    engine: str = "processes"
    deadline: float = float("inf")
    say: object = print
    started: float = 0.0

    def __post_init__(self):
        self.started = time.monotonic()
        self.asked = {"time": {}, "fast": {}, "exact": {}, "full": {}}  # what was measured, by candidate

    def late(self):
        return time.monotonic() > self.deadline

    def tell(self, text):
        self.say(f"{time.monotonic() - self.started:6.0f} s  {text}", flush=True)

    def times(self, found, what):
        """{"prompt": seconds, "step": seconds} or {"refused": why} of each candidate."""
        return self._results("time", write_time, found, what)

    def full(self, data):
        """The same of the whole model: it is built and run at its true size."""
        return self._results("full", write_full, [data], "the whole model, by shapes")[0]

    def accuracies(self, found, what, numerics="fast"):
        """FIGURES or {"refused": why} of each."""
        return self._results(numerics, write_accuracy, found, what)

    def _results(self, kind, write, found, what):
        common = self.common if kind in ("time", "full") else replace(self.common, numerics=kind)
        files = {name: self._file(kind, name) for name in dict.fromkeys(map(_name, found))}
        tasks = {path: (common, self.config, name) for name, path in files.items()}
        new = sum(not path.is_file() for path in files.values())
        failed = spread.run(write, tasks, self.jobs, self.engine, f"tune, {what}")
        results = {name: sweep.found(path, failed) for name, path in files.items()}
        self.asked[kind] |= results
        if new:
            self.tell(f"{what}: {new} points")
        return [results[_name(data)] for data in found]

    def _file(self, kind, name):
        digest = hashlib.sha256(f"{self.digest} {name}".encode()).hexdigest()[:16]
        return self.out / "points" / f"{kind}-{digest}.json"


def _name(data):
    return data if data == FUNCTIONAL else candidates.key(data)


def seconds(timed):
    """Of a prompt and its answer; infinite where it was refused."""
    return timed["prompt"] + ANSWER * timed["step"] if "refused" not in timed else float("inf")


# One trial -----------------------------------------------------------------------------------------------------------


def settings_of(name):
    """The fields of the `Choices` of a candidate; none of the functional file's."""
    if name == FUNCTIONAL:
        return None
    from bringup.blocks.optimized import Choices

    chosen = Choices.of_data(json.loads(name))
    return {f.name: getattr(chosen, f.name) for f in fields(chosen)}


def write_time(common, config, name, path):
    write_json(path, _or_refused(lambda: _predicted(common, config, name)))


def write_full(common, config, name, path):
    write_json(path, _or_refused(lambda: _run(common, config, name)))


def _or_refused(measure):
    from bringup.backends import library_warnings

    with library_warnings.collected():
        try:
            return measure()
        except BringupError as error:
            return {"refused": str(error)}


def _predicted(common, config, name):
    """Of all layers, from one layer and from two where they are alike."""
    layers = config.num_hidden_layers
    if not alike(config) or layers < 3:
        return _run(common, config, name)
    one, two = (_run(common, cut(config, n), name) for n in (1, 2))
    return {phase: one[phase] + (layers - 1) * (two[phase] - one[phase]) for phase in one}


def alike(config):
    """Are all layers of one kind?"""
    return len(set(getattr(config, "layer_types", None) or ["one"])) == 1


def cut(config, layers):
    """The configuration with its first layers alone."""
    data = config.to_dict()
    if data.get("layer_types"):
        data["layer_types"] = data["layer_types"][:layers]
    return type(config).from_dict(data | {"num_hidden_layers": layers})


def _run(common, config, name):
    from bringup import backends
    from bringup.backends import systems
    from bringup.planning.spec_run import spec_run
    from bringup.planning.wiring import TOKEN_ON_DEVICE, speeds

    backends.activate(common.backend)
    system, settings = systems.get(common.system), settings_of(name)
    found = spec_run(common.model_py, config, system, max_seq_len=CONTEXT, prompt=PROMPT, settings=settings)
    predicted = speeds(found, system, context=PROMPT + 32)[TOKEN_ON_DEVICE]
    return {"prompt": predicted.ttft_seconds, "step": 1 / predicted.tokens_per_second_per_user}


def write_accuracy(common, config, name, path):
    write_json(path, _or_refused(lambda: _accuracy(common, name)))


def _accuracy(common, name):
    from bringup import backends
    from bringup.backends import model_files
    from bringup.planning.spec_run import precision_option

    if name == FUNCTIONAL:
        path = functional(common.model_py)
        common = replace(common, model_py=str(path), system=model_files.describe(path).system or common.system)
    if common not in _jobs:
        fresh = sweep.job_of(common)
        if same := next((job for job in _jobs.values() if job.source == fresh.source), None):
            fresh.share(same)
        _jobs[common] = fresh
    job, settings = _jobs[common], settings_of(name)
    backends.activate(common.backend, job.system, common.numerics)
    option = precision_option(job.model_file, None, settings)
    (result,) = job.measure_built([job.reference()], **option)
    return {figure: result[figure] for figure in FIGURES}


def functional(model_py):
    """The functional file beside an optimised one."""
    path = Path(model_py).resolve()
    return path.parents[1] / FUNCTIONAL / path.name
