"""The two ends of a model: what comes out of the token table into the first layer, and what the head gives becomes."""

from itertools import pairwise

from bringup.new.reading import numbers
from bringup.new.reading.attention import _same

OF_HEAD = ("dim_model_base",)  # the width that a head's input is scaled to: MiniCPM's


def tokens(seen, traits):
    """Scales of the token table: inside HF's module, and between it and the first layer."""
    config, table = seen.config, seen.model.model.embed_tokens
    rows, given, into = table.weight[seen.calls["model.embed_tokens"][0][0]], seen.out_of("model.embed_tokens"), None
    into = seen.into("model.layers.0")
    inside, after = _factor(rows, given), _factor(given, into)
    where = type(table).__name__
    if inside is None or after is None:
        what = "what goes into the first layer is not a row of the token table times a number"
        traits.lacks(what, where, "what HF does to it")
        return
    if inside != 1:
        traits.embed_scale = numbers.source(config, inside, ("hidden_size",))
        traits.sources["token table"] = f"{where}: its rows times {inside:.6g}, {traits.embed_scale}"
    if after != 1:
        traits.stream_scale = numbers.source(config, after)
        traits.sources["first layer"] = f"takes the tokens' rows times {after:.6g}, {traits.stream_scale}"


def stream(seen, traits):
    """The layers follow one another, then the norm, then the head; nothing between them."""
    config, count = seen.config, len(seen.model.model.layers)
    where = f"{type(seen.model.model).__name__}.forward"
    order = [f"model.layers.{i}" for i in range(count)] + [f"model.{traits.norm_name}", "lm_head"]
    traits.head_bias = getattr(seen.model.lm_head, "bias", None) is not None
    for before, after in pairwise(order):
        once = seen.times.get(before) == 1
        times = _factor(seen.out_of(before), seen.into(after)) if once else None
        if times not in (None, 1) and after == "lm_head" and not traits.head_bias:
            traits.logits.append(("multiply", numbers.source(config, times, OF_HEAD)))
        elif times != 1:
            traits.lacks(f"{after} does not take what {before} gives", where, "a step between them")
    out, logits = seen.out_of("lm_head"), seen.logits
    if out.shape != logits.shape:
        traits.lacks(f"logits {list(logits.shape)} of a head that gives {list(out.shape)}", where, "a head of its own")
        return
    if (times := _factor(out, logits)) is not None:
        if times != 1:
            traits.logits.append(("multiply", numbers.source(config, times)))
    elif cap := _cap(config, out, logits):
        traits.logits.append(("soft_cap", f"config.{cap}"))
    else:
        traits.lacks("logits are not the head's product", f"{type(seen.model).__name__}.forward", "what HF does to it")
    if traits.logits:
        traits.sources["logits"] = " ".join(traits.logits[0])


def _cap(config, out, logits):
    """The field that caps the logits, or None."""
    for name, value in config.to_dict().items():
        if "cap" in name and isinstance(value, (int, float)) and value and _same((out / value).tanh() * value, logits):
            return name
    return None


def _factor(x, y):
    """The number that y is x times; None where it is not."""
    if x.shape != y.shape:
        return None
    x, y = x.detach(), y.detach()
    times = float((x.double() * y.double()).sum() / x.double().square().sum())
    return (1.0 if abs(times - 1) < 1e-6 else times) if _same(x * times, y) else None
