"""Values of a configuration as Python source: whatever they hold, they come out as themselves and as nothing else."""

import math

WIDTH = 120


def literal(value, indent=0):
    """The source of plain data, in double quotes where that needs no escapes; long ones an item per line.

    Only None, bool, int, float, str, list, tuple and dict have one: nothing else is ever taken from a configuration.
    """
    text = _flat(value)
    if indent + len(text) < WIDTH - 1 or not isinstance(value, (dict, list, tuple)) or not value:
        return text
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        items = [f"{inner}{_flat(k)}: {literal(v, indent + 4)},\n" for k, v in value.items()]
        return "{\n" + "".join(items) + " " * indent + "}"
    begin, end = "[]" if isinstance(value, list) else "()"
    return f"{begin}\n" + "".join(f"{inner}{literal(v, indent + 4)},\n" for v in value) + " " * indent + end


def _flat(value):
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, str):
        text = ascii(value)
        return text if '"' in text or "\\" in text else f'"{text[1:-1]}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flat(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        parts = ", ".join(map(_flat, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' * (len(value) == 1)})"
    raise TypeError(f"no plain data: {type(value).__name__}")
