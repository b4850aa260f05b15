"""Numbers that a model computes with, by the fields of its configuration that give them."""

import math

from bringup.new.effects import NUMBER

NEAR = 1e-4  # relative
FORMS = (
    ("config.{}", lambda v: v),
    ("1 / config.{}", lambda v: 1 / v),
    ("config.{}**0.5", math.sqrt),
    ("config.{}**-0.5", lambda v: v**-0.5),
)
BY_DEPTH = "config.{} / config.num_hidden_layers**0.5"  # of each sum with the residual stream: MiniCPM's
SIZES = ("hidden_size", "head_dim", "num_hidden_layers", "num_attention_heads")


def told_apart(fields):
    """`fields` with factors that no two have alike, so that a number in the model says which field it is."""
    given = [n for n, v in fields.items() if _factor(n, v) and v not in (0, 1)]
    return fields | {name: fields[name] * (1 + 0.013 * (k + 1)) for k, name in enumerate(given)}


def source(config, value, first=()):
    """`value` as source of the model file: a form of a field, or the number itself. `first`: fields that are asked
    before others."""
    if value == 1:
        return "1.0"
    named = [n for n, v in config.to_dict().items() if _factor(n, v) or (NUMBER.search(n) and type(v) is int)]
    for name in (*first, *named, *SIZES):
        field = _field(config, name)
        if isinstance(field, bool) or not isinstance(field, (int, float)) or field <= 0:
            continue
        for form, of in FORMS:
            if math.isclose(of(field), value, rel_tol=NEAR):
                return form.format(name)
        if name in first and math.isclose(field / config.hidden_size, value, rel_tol=NEAR):
            return f"config.{name} / config.hidden_size"
        if name in named and math.isclose(field / config.num_hidden_layers**0.5, value, rel_tol=NEAR):
            return BY_DEPTH.format(name)
    return f"{value:.6g}"


def _field(config, name):
    try:
        return getattr(config, name, None)
    except RuntimeError:  # it differs by layer
        return None


def _factor(name, value):
    return bool(NUMBER.search(name)) and isinstance(value, float) and value > 0
