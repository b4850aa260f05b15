"""Edits of a model file or of a block, as a hand makes them: (function, what stood there, what stands there now).

An `Edit` compiles functions again from their changed text, where they are. It is asked of a small model with random
weights or of a stored checkpoint.
"""

import dataclasses
import importlib
import inspect
import textwrap
from contextlib import ExitStack, contextmanager
from functools import cache

import torch

from bringup import backends
from bringup.backends import model_files
from bringup.blocks import generate
from bringup.blocks.cache import Blocks
from bringup.blocks.precision import compute_config
from bringup.checkpoints import sources
from bringup.checkpoints.known import known_config
from bringup.evaluation import layers
from bringup.new import small
from tests.checks import faults, slips
from tests.checks.faults import replaced
from tests.checks.planted import qwen2
from tests.new.test_families import written

LENGTH = 128
OURS = slips.FAMILIES | {"qwen3_moe": "Qwen/Qwen3-30B-A3B", "qwen3_5": "Qwen/Qwen3.5-0.8B"}
NEW = "new "  # before the name of a family: its file is written by `bringup new`
#: What of a small model is another's.
FIELDS = {
    "qwen3_5": lambda fields: {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
    "gpt_oss": lambda fields: {"intermediate_size": fields["hidden_size"]},  # a square, as in the real one
}


@dataclasses.dataclass(frozen=True)
class Edit:
    name: str
    model: str
    edits: tuple  # of (function, old, new): "module.Class.function" of bringup.blocks, or "file.Class.function"
    points: tuple[str, ...] = ()  # where it may be found; none: it is harmless
    named: str = ""  # a pattern of the reasons that name it
    cause: str = ""
    phase: str | None = "prefill"
    layer: int | None = 0
    system: str = "n150"
    style: str = "functional"
    user: int = 0  # of a batch, who sees it
    prompt: int = 45
    steps: int = 7
    pages: int | None = None  # positions of a prompt that run at once, where the cache is paged
    fidelity: str | None = None  # that the file declares

    @property
    def places(self) -> tuple[str, ...]:
        return self.points if self.layer is None else tuple(f"layer {self.layer}, {point}" for point in self.points)


def _owner(path: str, space: dict):
    """(what has it, its name) of a function by its path; a model file's names are in `space`."""
    where, *names = path.split(".")
    if where == "file":
        return space[names[0]], names[1]
    module = importlib.import_module(f"bringup.blocks.{where}")
    if inspect.ismodule(inner := getattr(module, names[0])):
        module, names = inner, names[1:]
    return (module, names[0]) if len(names) == 1 else (getattr(module, names[0]), names[1])


def _compiled(function, changes):
    """The function with its text changed; one of a class may call super()."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert old in source, f"{function.__qualname__} has no {old!r}"
        source = source.replace(old, new)
    body = source[source.index("def ") :]
    made: dict = {}
    text = "def made(__class__):\n" + textwrap.indent(body, "    ") + f"\n    return {function.__name__}\n"
    exec(compile(text, f"<{function.__qualname__}, edited>", "exec"), function.__globals__, made)
    return made["made"](function.__globals__.get(function.__qualname__.rpartition(".")[0]))


@contextmanager
def _in_place(owner, name, changes):
    original = inspect.getattr_static(owner, name)
    bound = isinstance(original, staticmethod | classmethod)
    edited = _compiled(original.__func__ if bound else original, changes)
    setattr(owner, name, type(original)(edited) if bound else edited)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _paged(chunk: int):
    def make(_):
        return lambda hf_model, config, max_seq_len, mesh, precision: Blocks(LENGTH, 65)

    return replaced(generate, "check_fits", make), replaced(Blocks, "prompt_chunk", lambda _: chunk)


@contextmanager
def planted(edit: Edit, module):
    """The module's build with the edit in place."""
    build, changes = module.build_model, {}
    for path, old, new in edit.edits:
        changes.setdefault(_owner(path, build.__globals__), []).append((old, new))
    with ExitStack() as stack:
        for (owner, name), lines in changes.items():
            stack.enter_context(_in_place(owner, name, lines))
        for context in _paged(edit.pages) if edit.pages else ():
            stack.enter_context(context)
        if edit.fidelity is None:
            yield build
            return
        declared = dataclasses.replace(module.PRECISION, linear=compute_config(edit.fidelity))
        stack.enter_context(replaced(module, "PRECISION", lambda _: declared))
        yield lambda *args: module.build_model(*args, precision=declared)


class Files:
    """Model files, HF models and ids of the edits' models, made once."""

    def __init__(self, into):
        self.into = into
        self.of = cache(self._of)

    def _of(self, model, system, style):
        if model in faults.CHECKPOINTS or model == "tiny-qwen2":
            return self._stored(model, system, style)
        if model.startswith(NEW):
            family = model.removeprefix(NEW)
            asked, path = written(family, self.into / family / system, system)
            asked.initializer_range = 0.08
            known = type(asked)().to_dict()
            fields = {
                k: v for k, v in asked.to_diff_dict().items() if k in (*known, "head_dim") and k not in small.NO_PART
            }
            fields = {"model_type": family} | fields
        else:
            path = slips.ROOT / "models" / OURS[model] / system / style / "model.py"
            config = known_config(OURS[model])
            fields = small.fields(config, small.layers(config))
            fields |= FIELDS.get(model, lambda _: {})(fields)
        module = model_files.load_model_file(path, system).module
        hf = small.as_stored(small.hf_model(fields), module.PRECISION.mlp)
        generator = torch.Generator().manual_seed(1)
        return module, hf, torch.randint(3, fields["vocab_size"], (LENGTH,), generator=generator).tolist()

    def _stored(self, model, system, style):
        if model == "tiny-qwen2":
            folder = qwen2.checkpoint(self.into / model)
            path = qwen2.model_file(self.into / "files")
        else:
            folder = slips.ROOT / "checkpoints" / model
            path = slips.ROOT / "models" / faults.CHECKPOINTS[model] / system / style / "model.py"
        source = sources.find_source(str(folder))
        ids = sources.load_tokenizer(source)((slips.ROOT / "prompts" / "long.txt").read_text())["input_ids"]
        return model_files.load_model_file(path, system).module, sources.load_hf_model(source), ids


def first(edit: Edit, files: Files):
    """What the finder says first of the edited model; None: nothing."""
    module, hf, ids = files.of(edit.model, edit.system, edit.style)
    with backends.open_system(edit.system) as device, planted(edit, module) as build, torch.no_grad():
        model = build(hf, device, LENGTH)
        precision = layers.precision_of(module)
        return layers.profile(model, hf, ids[: edit.prompt + edit.steps], edit.prompt, precision, edit.user).first
