"""What a model file is for: the HF configs it covers, and the systems it serves beside its own."""

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol, TypeVar


class ConfigClass(Protocol):
    """A dataclass with REQUIRES, as `read_config` takes it."""

    REQUIRES: ClassVar[dict]
    __dataclass_fields__: ClassVar[dict]


T = TypeVar("T", bound=ConfigClass)


def read_config(config_class: type[T], hf_config) -> T:
    """A Config with HF's values; raises ValueError naming every field that is missing or not covered.

    `config_class` is a dataclass whose fields are HF field names. Its REQUIRES maps a field, or `field.key` for
    one that is a dict, to the values that the model file is written for.
    """
    problems = []
    for name, allowed in config_class.REQUIRES.items():
        value = _lookup(hf_config, name)
        if value not in allowed:
            problems.append(f"{name} = {value!r}, covered: {', '.join(map(repr, allowed))}")
    fields = [f.name for f in dataclasses.fields(config_class)]
    problems += [f"{name} is missing" for name in fields if not hasattr(hf_config, name)]
    if problems:
        raise ValueError(
            f"{type(hf_config).__name__} is not what this model file was written for:\n  " + "\n  ".join(problems)
        )
    return config_class(**{name: getattr(hf_config, name) for name in fields})


def of_layer(config, which: int | str | None):
    """HF's configuration of a layer, by number or type, where sizes differ by layer; else `config` itself."""
    if which is None or not hasattr(config, "per_layer_config"):
        return config
    return config.per_layer_config[which]


def check_window(config, hf_config, max_seq_len: int) -> None:
    """ValueError where a sliding window of HF leaves out what attention here would see: a model file that cuts it off
    has `sliding_window` among the fields that its Config reads."""
    if hasattr(config, "sliding_window"):
        return
    window, types = getattr(hf_config, "sliding_window", None), getattr(hf_config, "layer_types", None)
    if window is not None and (types is None or "sliding_attention" in types) and max_seq_len > window:
        raise ValueError(f"max_seq_len = {max_seq_len} is longer than sliding_window = {window}: no block cuts it off")


def _lookup(hf_config, name: str):
    """The value of `field`, `field.key` or `field.key.key`; the word "missing" where the config has none."""
    field, *keys = name.split(".")
    value = getattr(hf_config, field, "missing")
    for key in keys:
        value = value.get(key, "missing") if isinstance(value, dict) else "missing"
    return value


def delegate(model_file: str, system: str) -> ModuleType:
    """The full model file of `system` beside `model_file` of its kind: functional or optimized."""
    path = Path(model_file).resolve().parents[2] / system / Path(model_file).resolve().parent.name / "model.py"
    spec = importlib.util.spec_from_file_location(f"bringup_model_{system}_{abs(hash(path))}", path)
    assert spec is not None, path  # it ends in .py
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
