"""A model file run by shapes alone: no weights, no values, the memory and the op log of its true configuration."""

import inspect
from contextlib import contextmanager
from dataclasses import dataclass

from bringup import backends
from bringup.backends import model_files, systems
from bringup.errors import BadInput, blame, shown
from bringup.files import located


@dataclass(frozen=True)
class SpecRun:
    """Bytes of one chip, and the calls of a prompt and of a decode step once their programs are cached.

    `replayed` has both of a model whose next token stays on the device (`token_step`), as it replays them from traces.
    """

    built: dict  # `backends.memory` after build_model
    peaks: dict  # phase -> {"dram": bytes, "l1": bytes}
    prefill: list  # of op.OpRecord
    decode: list
    replayed: tuple | None = None

    def activations(self, phase):
        """What a phase takes beyond what is there after building, at its peak."""
        return self.peaks[phase]["dram"] - self.built["dram"]["allocated"]


def find_model_file(hf_id, system):
    """The model file of a known id and system below the current or the project's models/, or None."""
    path = located(f"models/{hf_id}/{system}/functional/model.py")
    return path if path.is_file() else None


def spec_run(model_py, config, system, *, max_seq_len, prompt, formats=None, settings=None, steps=True):
    """Build `model_py` for `config` on `system`, run a prompt of `prompt` tokens and a decode step, twice.

    `formats` and `settings` (fields of `blocks.Precision`) change the file's own precision. With `steps` False it is
    only built. Raises what the model raises, as ModelFailed.
    """
    import ttnn_emulator
    from bringup.planning.shapes import meta_model

    backends.activate("emulator")
    system = systems.get(system)
    file = model_files.load_model_file(model_py, system)
    hf_model = meta_model(config)
    with ttnn_emulator.spec_only(), backends.open_system(system) as device:
        with blame(file.path, "building the model by shapes"):
            options = precision_option(file, formats, settings)
            model = file.build_model(hf_model, device, max_seq_len, **options)
        built = backends.memory(device)
        peaks, logs = {}, {}
        with blame(file.path, "running the model by shapes"):
            for _ in range(2 if steps else 0):  # the second time nothing is new to the program cache
                _pass(model, device, prompt, peaks, logs)
            replayed = _replayed(model, prompt) if steps and hasattr(model, "token_step") else None
    return SpecRun(built, peaks, logs.get("prefill", []), logs.get("decode", []), replayed)


def precision_option(file, formats, settings):
    """The keyword `precision` for build_model: the file's own one with those changes; none where nothing changes."""
    from dataclasses import replace

    changes = (formats.changes() if formats else {}) | (settings or {})
    if not changes:
        return {}
    own = getattr(file.module, "PRECISION", None)
    if own is None or "precision" not in inspect.signature(file.build_model).parameters:
        raise BadInput(
            f"{shown(file.path)} has one precision",
            want="PRECISION, and build_model(..., precision=PRECISION), as the files made of bringup.blocks have",
        )
    return {"precision": replace(own, **changes)}


def _pass(model, device, prompt, peaks, logs):
    from bringup.checkpoints.session import Session
    from ttnn_emulator.op import record

    session = Session(model)
    for phase, tokens in (("prefill", [0] * prompt), ("decode", [0])):
        for allocator in device.allocators.values():
            allocator.peak = allocator.allocated
        with record() as logs[phase]:
            session(tokens)
        memory = backends.memory(device)
        before = peaks.get(phase, {"dram": 0, "l1": 0})
        peaks[phase] = {kind: max(before[kind], memory[kind]["peak"]) for kind in before}


def _replayed(model, prompt):
    """(calls of a prompt, calls of a step from a token to the next) from traces that runs before have captured."""
    import torch

    from bringup.checkpoints.session import Session
    from ttnn_emulator.op import record

    token = torch.zeros(1, 1, dtype=torch.int64)
    with traced(model):
        for _ in range(2):
            with record() as first:
                Session(model)([0] * prompt)
    with traced(model):
        for _ in range(2):
            model.traced = False
            session = Session(model)
            session([0] * prompt)
            model.traced = True
            with record() as step:
                model.next_token_device(token, session.past, use_cache=True)
    return first, step


@contextmanager
def traced(model):
    """Inside, what the model captures it replays."""
    model.traced = True
    try:
        yield
    finally:
        model.traced = False
        model.release_trace()
