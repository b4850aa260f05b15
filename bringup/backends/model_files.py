"""Model files: what a path says, the module behind it, and the model that its `build_model` makes."""

import functools
import hashlib
import importlib.util
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bringup import files
from bringup.backends import systems
from bringup.checkpoints import old_names
from bringup.errors import BadInput, ModelFailed, blame, indent, shown, where

PATH_RULE = "models/<org>/<model>/<system>/functional/model.py"


@dataclass(frozen=True)
class ModelFile:
    """A model.py: where it is, what its path says (None where it says nothing), and its module once loaded."""

    path: Path
    hf_id: str | None
    system: str | None
    module: Any = None
    old_names: tuple = ()  # names of transformers 4 that it reads

    @property
    def mesh_shape(self):
        shape = getattr(self.module, "MESH_SHAPE", None)
        return None if shape is None else tuple(shape)

    @property
    def build_model(self):
        """The file's own; one for transformers 4 gets an HF model that answers to its old names, and a line says so."""
        build = self.module.build_model
        if not self.old_names:
            return build

        @functools.wraps(build)
        def with_old_names(hf_model, *args, **kwargs):
            names = ", ".join(self.old_names)
            print(f"{shown(self.path)} is written for transformers 4: {names} answered as there", file=sys.stderr)
            return build(old_names.stand_in(hf_model), *args, **kwargs)

        return with_old_names


def describe(path):
    """What the path of a model file says about it, without loading it."""
    path = files.located(path)
    if path.is_dir():
        path = path / "model.py"
    if not path.is_file():
        raise BadInput("no such model file", got=shown(path), want=f"a model.py, as in {PATH_RULE}")
    parts = path.resolve().parts
    if len(parts) >= 6 and parts[-6] == "models" and parts[-3] in systems.NAMES:
        return ModelFile(path, f"{parts[-5]}/{parts[-4]}", parts[-3])
    return ModelFile(path, None, None)


def load_model_file(path, system=None):
    """Import a model.py (after `backends.activate`) and check that it has `build_model` and fits `system`'s mesh."""
    found = describe(path)
    module = import_file(found.path)
    if not callable(getattr(module, "build_model", None)):
        raise BadInput(
            f"{shown(found.path)} has no build_model",
            want="build_model(hf_model, tt_device, max_seq_len)",
            hint=_close_names(module),
        )
    found = ModelFile(found.path, found.hf_id, found.system, module, tuple(old_names.read_by(found.path)))
    check_mesh(found, system or found.system or "n150")
    return found


def check_mesh(model_file, system):
    """Refuse a file that names another mesh than the system has. A file that names none runs anywhere."""
    system = systems.get(system)
    shape = model_file.mesh_shape
    if shape is not None and shape != system.mesh_shape:
        fits = [s.name for s in systems.SYSTEMS.values() if s.mesh_shape == shape]
        raise BadInput(
            f"{shown(model_file.path)} is for another mesh",
            got=f"MESH_SHAPE = {shape}, and {system}",
            want=f"MESH_SHAPE = {system.mesh_shape}",
            hint=f"--system {fits[0]}" if fits else None,
        )


def import_file(path):
    """The module of a Python file whose folder names need not be identifiers; each file is loaded once."""
    path = Path(path).resolve()
    name = "model_" + hashlib.sha256(str(path).encode()).hexdigest()[:12]
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput("not a Python file", got=shown(path))
    module = importlib.util.module_from_spec(spec)
    if old_names.read_by(path):
        vars(module)["__builtins__"] = old_names.own_imports()
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # files that import a neighbour
    try:
        spec.loader.exec_module(module)
    except BadInput:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise ModelFailed(
            f"{where(error, path)}: {type(error).__name__} while loading it\n{indent(error)}",
            hint=_written_for_4(error),
        ) from error
    return module


def _written_for_4(error):
    """A hint where what is missing is transformers' own: a name, or a module, that version 5 dropped."""
    name = getattr(error, "name", None) or ""
    return old_names.HINT if isinstance(error, ImportError) and name.partition(".")[0] == "transformers" else None


def _close_names(module):
    near = [
        n
        for n, v in vars(module).items()
        if callable(v) and re.search("build|model", n, re.I) and v.__module__ == module.__name__
    ]
    return f"it has {', '.join(near)}" if near else None


# What generate() of transformers 5.23 asks of `self` and version 4 did not: a GenerationMixin written for 4 lacks it.
# "Remote code" means there: pass `cache_position` as version 4 did, where forward names it.
GENERATE_ASKS = {
    "is_remote_code": classmethod(lambda cls: True),
    "get_experts_implementation": lambda self: {},
    "device": property(lambda self: _cpu()),
}


def _cpu():
    import torch

    return torch.device("cpu")


def build(model_file, hf_model, device, max_seq_len):
    """`build_model` of a loaded file; what it raises is reported with the line of the file."""
    build_model = model_file.build_model
    try:
        inspect.signature(build_model).bind(hf_model, device, max_seq_len)
    except TypeError as error:
        raise ModelFailed(
            f"build_model of {shown(model_file.path)} does not take (hf_model, tt_device, max_seq_len): {error}",
            got=f"build_model{inspect.signature(build_model)}",
        ) from error
    with blame(model_file.path, "building the model"):
        model = build_model(hf_model, device, max_seq_len)
    if not callable(getattr(model, "forward", None)):
        raise BadInput(
            f"build_model of {shown(model_file.path)} returned no model",
            got=type(model).__name__,
            want="a torch.nn.Module with GenerationMixin and forward(input_ids, past_key_values=..., ...)",
        )
    for name, answer in GENERATE_ASKS.items():
        if not hasattr(model, name):
            setattr(type(model), name, answer)
    return model
