"""Fields of a configuration that HF computes with and that show in no module: each is tried with 1 in its place, or,
where it is next to nothing (it guards a division), with 0."""

import re

from bringup.new import small

#: Numbers that blocks read, that follow from sizes, or that say nothing of what is computed.
READ = re.compile(
    r"eps|epsilon|rope|rotary|dropout|initializer|_std$|_range$|_id$|window|max_position|limit|aux_loss|jitter|rms_norm|swiglu"
)
NUMBER = re.compile(r"multiplier|scal|softcap|factor|alpha|beta|gamma|temperature")
NOTHING = 1e-6
SAME = 1e-6  # relative L2 of logits that do not depend on a field


def unread(config, said):
    """(field, its value, how far the logits move without it or None where that could not be tried), for each."""
    import torch

    fields = small.fields(config, 2)
    names = [n for n, v in fields.items() if _counts(n, v) and n not in said]
    if not names:
        return
    ids = torch.randint(3, small.VOCAB, (1, 12), generator=torch.Generator().manual_seed(0))
    try:
        model = small.hf_model(fields)
        with torch.no_grad():
            want = model(ids).logits
    except Exception:  # HF's classes raise whatever odd sizes make them do
        yield from ((name, fields[name], None) for name in names)
        return
    for name in names:
        try:
            other = small.hf_model(fields | {name: _other(fields[name])})
            other.load_state_dict(model.state_dict())
            with torch.no_grad():
                moved = small.relative_l2(other(ids).logits, want)
        except Exception:
            moved = None
        if moved is None or not moved < SAME:
            yield name, fields[name], moved


def _counts(name, value):
    """A number other than 0 and 1, or a list of such, under a name that nothing here reads."""
    if READ.search(name) or name in small.NO_PART:
        return False
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return False
    return (any(isinstance(v, float) for v in values) or bool(NUMBER.search(name))) and any(
        v not in (0, 1) for v in values
    )


def _other(value):
    if isinstance(value, (list, tuple)):
        return [1.0] * len(value)
    return type(value)(0 if abs(value) < NOTHING else 1)
