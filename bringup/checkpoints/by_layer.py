"""What of a configuration differs by layer, and the same model with fewer layers of each kind."""

import copy
from contextlib import suppress


def sizes(config):
    """Sizes that some layers have unlike most, as HF's files have them: {layer: {field: size}}."""
    return {int(i): more for i, more in (config.to_dict().get("per_layer_config") or {}).items()}


def alike(config):
    """`config` with the sizes of most layers in all of them; a copy where that changes it."""
    if sizes(config):
        config = copy.deepcopy(config)
        config.per_layer_config = None
    return config


def shared(config):
    """How many of the last layers have the keys and values of layers before."""
    return getattr(config, "num_kv_shared_layers", 0) or 0


def kept(config, layers):
    """Which layers a model of about so many has: the first.

    Where the last ones have the keys of others, of each type that whose keys are shared and one that has these; and
    the first, where there may be as many.
    """
    count = config.num_hidden_layers
    if layers >= count or not shared(config):
        return list(range(min(layers, count)))
    first = count - shared(config)
    of_types = [[i for i, kind in enumerate(config.layer_types) if kind == each] for each in set(config.layer_types)]
    needed = {i for of in of_types for i in (max(j for j in of if j < first), min(j for j in of if j >= first))}
    more = needed | {of[0] for of in of_types}
    return sorted(more if layers >= len(more) else needed)


def fewer(config, layers):
    """`config` with the layers that are `kept`; a copy."""
    config, which, count = copy.deepcopy(config), kept(config, layers), config.num_hidden_layers
    differing = sizes(config)
    if differing:
        config.per_layer_config = None
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == count:
            with suppress(AttributeError):  # it follows from other fields
                setattr(config, name, [value[i] for i in which])
    if shared(config):
        config.num_kv_shared_layers = sum(i >= count - shared(config) for i in which)
    config.num_hidden_layers = len(which)
    if more := {at: differing[i] for at, i in enumerate(which) if i in differing}:
        config.per_layer_config = more
    return config
