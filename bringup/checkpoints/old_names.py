"""Model files that were written for transformers 4: what version 5 dropped or moved, answered to such a file alone.

Nothing is patched: the file gets a stand-in of the HF model (the same parameters) whose modules and configurations
answer to their old names, and what it imports from transformers is handed to it by an import of its own.

Source    transformers 4.57 and 5.23: configurations, `modeling_rope_utils`, `conversion_mapping`
"""

import ast
import builtins
import copy
import functools
import importlib.abc
import importlib.machinery
import types
from pathlib import Path

HINT = "it is written for transformers < 5: an environment of its own with `pip install 'transformers<5'` runs it"


# ---------------------------------------------------------------- does a file need it?
#: What is imported by files for version 5 as well.
BOTH = {"AutoConfig", "AutoModelForCausalLM", "AutoModelForImageTextToText"}


@functools.cache
def read_by(path):
    """The old names that a model file and the files beside it that it imports read, sorted."""
    found, seen, files = set(), set(), [Path(path)]
    while files:
        file = files.pop()
        if file in seen:
            continue
        seen.add(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # importing it will say why
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found |= {node.attr} & OLD
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} & CONFIG.keys()
            elif isinstance(node, ast.ImportFrom):
                found |= {a.name for a in node.names} & IMPORTED.get(node.module, {}).keys() - BOTH
                files += _beside(file, [node.module or a.name for a in node.names])
            elif isinstance(node, ast.Import):
                files += _beside(file, [a.name for a in node.names])
    return sorted(found)


def _beside(file, names):
    paths = (file.parent.joinpath(*name.split(".")) for name in names if name)
    return [p for path in paths for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]


# ---------------------------------------------------------------- configurations
def _rope(config):
    """The parameters of RoPE; where layers have several, those of full attention, which version 4 had at the top."""
    rope = config.rope_parameters or {}
    return rope.get("full_attention") or rope


def _scaling(config):
    """None for plain RoPE, as a checkpoint has it; theta and the rotated share stood beside it."""
    rope = _rope(config)
    if rope.get("rope_type", "default") == "default":
        return None
    return {k: v for k, v in rope.items() if k not in ("rope_theta", "partial_rotary_factor")}


def _window_pattern(config):
    """Every how many layers attention is full."""
    return getattr(config, "_sliding_window_pattern", None) or config.layer_types.index("full_attention") + 1


#: Field of version 4 -> its value, from a configuration of version 5. What raises is a field that it does not have.
CONFIG = {
    "rope_theta": lambda config: _rope(config)["rope_theta"],
    "rope_scaling": _scaling,
    "partial_rotary_factor": lambda config: _rope(config)["partial_rotary_factor"],
    "rope_local_base_freq": lambda config: config.rope_parameters["sliding_attention"]["rope_theta"],
    "sliding_window_pattern": _window_pattern,
    "torch_dtype": lambda config: config.dtype,
}
_NONE = (AttributeError, KeyError, TypeError, ValueError)


_AS_NEW = "_class_of_version_5"


@functools.cache
def _config_class(kind):
    def __getattribute__(self, name):
        if name in CONFIG:
            try:
                return CONFIG[name](_AsNew(self))
            except _NONE:
                pass  # then as version 5 has it
        value = object.__getattribute__(self, name)
        return _old_config(value) if name.endswith("_config") and hasattr(value, "to_dict") else value

    def to_dict(self):
        fields = kind.to_dict(self)
        for name in CONFIG:
            if (value := getattr(self, name, fields)) is not fields:
                fields[name] = value
        return fields

    body = {"__getattribute__": __getattribute__, "to_dict": to_dict, "__module__": kind.__module__, _AS_NEW: kind}
    return type(kind.__name__, (kind,), body)


class _AsNew:
    """Such a configuration as version 5 has it."""

    def __init__(self, config):
        self._config = config

    def __getattr__(self, name):
        return object.__getattribute__(self._config, name)


def _old_config(config):
    """A copy of the configuration that answers to its old names."""
    made = copy.copy(config)
    made.__class__ = _config_class(type(config))
    return made


# ---------------------------------------------------------------- modules and weights
#: Attribute of a module of version 4 -> its value.
MODULES = {
    "num_heads": lambda module: module.config.num_attention_heads,
    "num_key_value_heads": lambda module: module.config.num_key_value_heads,
    "hidden_size": lambda module: module.config.hidden_size,
    "language_model": lambda module: module.model.language_model,
}
#: Start of a weight's name in a checkpoint of text and images -> where it may be now.
PREFIXES = {
    "language_model.model.": ("model.language_model.", "model."),
    "language_model.lm_head.": ("lm_head.",),
    "model.language_model.": ("model.",),
}
OLD = CONFIG.keys() | {"language_model"}  # the others are names that many things have


class _Weights(dict):
    """A state dict that has the names of version 4 too, experts apart again."""

    def __init__(self, model, held):
        super().__init__(held)
        self.model, self.old = model, None

    def __missing__(self, key):
        for old, places in PREFIXES.items():
            for new in places if key.startswith(old) else ():
                if super().__contains__(new + key.removeprefix(old)):
                    return self[new + key.removeprefix(old)]
        if self.old is None:
            from transformers.core_model_loading import revert_weight_conversion

            self.old = revert_weight_conversion(self.model, dict(self))
        return self.old[key]

    def __contains__(self, key):
        return super().__contains__(key) or self.get(key) is not None

    def get(self, key, default=None):
        try:
            return self[key]
        except KeyError:
            return default


@functools.cache
def _module_class(kind):
    def __getattr__(self, name):
        try:
            return kind.__getattr__(self, name)
        except AttributeError:
            if name not in MODULES:
                raise
            try:
                return MODULES[name](self)
            except _NONE:
                pass
            raise

    body = {"__getattr__": __getattr__, "__module__": kind.__module__}
    if hasattr(kind, "from_pretrained"):
        body["state_dict"] = lambda self, *args, **kwargs: _Weights(self, kind.state_dict(self, *args, **kwargs))
    return type(kind.__name__, (kind,), body)


def stand_in(model):
    """The HF model again, with the same parameters, hooks and buffers; its modules answer to their old names."""
    made = copy.copy(model)
    vars(made)["_modules"] = {name: child and stand_in(child) for name, child in model._modules.items()}
    if hasattr(vars(model).get("config"), "to_dict"):
        vars(made)["config"] = _old_config(model.config)
    made.__class__ = _module_class(type(model))
    return made


# ---------------------------------------------------------------- imports
def _plain_rope(config, device=None, seq_len=None, **_):
    """Frequencies of RoPE without scaling, and 1: what version 4 had under "default"."""
    import torch

    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head_dim * getattr(config, "partial_rotary_factor", 1.0))
    steps = torch.arange(0, dim, 2, dtype=torch.int64).to(device=device, dtype=torch.float) / dim
    return 1.0 / (config.rope_theta**steps), 1.0


class _Scaled:
    """A configuration in the manner of version 4, of whatever class, as the functions of version 5 read it."""

    def __init__(self, config, kind):
        self._config = config
        self.rope_parameters = {
            "original_max_position_embeddings": getattr(config, "original_max_position_embeddings", None)
            or config.max_position_embeddings,
            "partial_rotary_factor": getattr(config, "partial_rotary_factor", 1.0),
            **(config.rope_scaling or {}),
            "rope_type": kind,
            "rope_theta": config.rope_theta,
        }

    def __getattr__(self, name):
        return getattr(self._config, name)

    def standardize_rope_params(self):
        """They are."""


def _rope_functions():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def old(kind, function):
        return lambda config, device=None, seq_len=None, **_: function(_Scaled(config, kind), device, seq_len)

    return {"default": _plain_rope} | {kind: old(kind, f) for kind, f in ROPE_INIT_FUNCTIONS.items()}


def _image_text_model():
    return _auto("AutoModelForImageTextToText", stand_in)


def _auto(name, made):
    """The Auto class of that name; what it loads or makes answers to its old names."""
    import transformers

    kind = getattr(transformers, name)

    def answering(method):
        def call(*args, **kwargs):
            given = [_new_config(a) for a in args], {k: _new_config(v) for k, v in kwargs.items()}
            return made(getattr(kind, method)(*given[0], **given[1]))

        return staticmethod(call)

    body = {method: answering(method) for method in ("from_pretrained", "from_config") if hasattr(kind, method)}
    return type(name, (kind,), body | {"__module__": kind.__module__})


def _new_config(value):
    """A configuration that answers to old names as transformers made it; other things as they are."""
    kind = vars(type(value)).get(_AS_NEW)
    if kind is None:
        return value
    made = copy.copy(value)
    made.__class__ = kind
    return made


#: Module -> name that version 5 does not have, or has with another meaning -> what makes it.
IMPORTED = {
    "transformers": {
        "AutoModelForVision2Seq": _image_text_model,
        "AutoConfig": lambda: _auto("AutoConfig", _old_config),
        "AutoModelForCausalLM": lambda: _auto("AutoModelForCausalLM", stand_in),
        "AutoModelForImageTextToText": lambda: _auto("AutoModelForImageTextToText", stand_in),
    },
    "transformers.modeling_rope_utils": {"ROPE_INIT_FUNCTIONS": _rope_functions},
}


class Finder(importlib.abc.MetaPathFinder):
    """Gives the files of a program that were written for transformers 4 imports of their own, and tells `said` of them.

    Files of installed packages are left as they are.
    """

    def __init__(self, said):
        self.said = said

    def find_spec(self, fullname, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        if INSTALLED & set(Path(spec.origin).parts) or not (names := read_by(spec.origin)):
            return None
        self.said(spec.origin, names)
        execute = spec.loader.exec_module

        def exec_module(module):
            module.__builtins__ = own_imports()
            execute(module)

        spec.loader.exec_module = exec_module
        return spec


INSTALLED = {"site-packages", "dist-packages", Path(ast.__file__).parent.name}


def own_imports():
    """`__builtins__` of a model file: its imports from transformers find the old names, nobody else's do."""

    def __import__(name, globals=None, locals=None, fromlist=(), level=0):
        found = builtins.__import__(name, globals, locals, fromlist, level)
        if level or name.partition(".")[0] != "transformers":
            return found
        old = IMPORTED.get(found.__name__, {})
        shown = types.ModuleType(found.__name__, found.__doc__)
        shown.__getattr__ = lambda attribute: old[attribute]() if attribute in old else getattr(found, attribute)
        return shown

    return vars(builtins) | {"__import__": __import__}
