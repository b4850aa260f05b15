"""Model files: what a path says, the module behind it, and the model that its `build_model` makes."""

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

from bringup import files
from bringup.backends import systems
from bringup.checkpoints import old_names
from bringup.errors import BadInput, ModelFailed, blame, failed, shown, staying

PATH_RULE = "models/<org>/<model>/<system>/functional/model.py"


@dataclass(frozen=True)
class ModelFile:
    """A model.py: where it is, and what its path says (None where it says nothing).

    Its module is loaded when it is first asked for: what the HF model says is made before that, so that a file that
    patches torch or transformers has no part in what it is compared with. `given` stands in for the module.
    """

    path: Path
    hf_id: str | None
    system: str | None
    given: Any = None

    @cached_property
    def module(self):
        if self.given is not None:
            return self.given
        module = import_file(self.path)
        if not callable(getattr(module, "build_model", None)):
            own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", 0) == module.__name__]
            raise _no_build_model(self.path, own)
        return module

    @cached_property
    def old_names(self):
        """Names of transformers 4 that it reads."""
        return tuple(old_names.read_by(self.path))

    @property
    def build_model(self):
        """The file's own; one for transformers 4 gets an HF model that answers to its old names, and a line says so."""
        build = self.module.build_model
        if not self.old_names:
            return build

        @wraps(build)
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
        return ModelFile(path, f"{parts[-5]}/{parts[-4]}", _system(path, parts[-3]))
    return ModelFile(path, None, None)


def _system(path, folder):
    """The folder's system, or the same chips as the file's MESH_SHAPE opens them (t3000_1x8)."""
    with suppress(OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        shape = _stated_shape(ast.parse(path.read_bytes()))
        ways = [s for s in systems.SYSTEMS.values() if s.name.startswith(f"{folder}_") and s.mesh_shape == shape]
        if ways and shape != systems.get(folder).mesh_shape:
            return ways[0].name
    return folder


def _stated_shape(tree):
    """MESH_SHAPE as the text has it, or None; ValueError where it is no literal."""
    given = [n for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) == "MESH_SHAPE"]
    return ast.literal_eval(given[-1].value) if given else None


def load_model_file(path, system=None):
    """Import a model.py (after `backends.activate`) and check that it has `build_model` and fits `system`'s mesh."""
    found = describe(path)
    check_mesh(found, system or found.system or "n150")
    return found


def look_over(model_file, system):
    """Refuses, without running it, a file that cannot be loaded or is for another mesh, as far as its text says so.

    What only running it shows comes when the module is loaded.
    """
    path = model_file.path
    try:
        source = path.read_bytes()
        tree = ast.parse(source, filename=str(path.resolve()))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise failed(error, path, "loading it") from error
    names: dict[str, None] = {}
    for node in _at_import(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = None
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name: None for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = None
    with suppress(ValueError):
        _check_shape(path, _stated_shape(tree), system)
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and b"sys.path" not in source:
            _look_for(node, path)
    if not {"build_model", "*"} & set(names) and b"globals()" not in source:
        raise _no_build_model(path, names)


def _at_import(tree):
    """The nodes that run when the file is loaded."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _at_import(child)


def _look_for(node, path):
    """Raises for an imported package that is nowhere: said before the reference has taken its time."""
    names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for name in names:
        top = (name or "ttnn").partition(".")[0]
        if getattr(node, "level", 0) or top in {"ttnn", *sys.modules} or list(path.parent.glob(f"{top}*")):
            continue
        with suppress(ValueError, ImportError):
            if importlib.util.find_spec(top) is None:
                raise ModelFailed(
                    f"{shown(path)}:{node.lineno}: ModuleNotFoundError while loading it\n  No module named {top!r}"
                )


def _no_build_model(path, names):
    near = [n for n in names if re.search("build|model", n, re.I)]
    return BadInput(
        f"{shown(path)} has no build_model",
        want="build_model(hf_model, tt_device, max_seq_len)",
        hint=f"it has {', '.join(near)}" if near else None,
    )


def check_mesh(model_file, system):
    """Refuse a file that names another mesh than the system has. A file that names none runs anywhere."""
    _check_shape(model_file.path, getattr(model_file.module, "MESH_SHAPE", None), system)


def _check_shape(path, shape, system):
    system = systems.get(system)
    try:
        shape = None if shape is None else tuple(shape)
    except TypeError:
        raise BadInput(f"{shown(path)}: MESH_SHAPE is no shape", got=repr(shape), want="(rows, columns)") from None
    if shape is not None and shape != system.mesh_shape:
        fits = [s.name for s in systems.SYSTEMS.values() if s.mesh_shape == shape]
        raise BadInput(
            f"{shown(path)} is for another mesh",
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
        with staying():
            spec.loader.exec_module(module)
    except BadInput:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise failed(error, path, "loading it", hint=_written_for_4(error)) from error
    return module


def _written_for_4(error):
    """A hint where what is missing is transformers' own: a name, or a module, that version 5 dropped."""
    name = getattr(error, "name", None) or ""
    return old_names.HINT if isinstance(error, ImportError) and name.partition(".")[0] == "transformers" else None


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
