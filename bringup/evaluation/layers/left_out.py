"""What HF has and the device did not run: a last norm that is not called, a layer that is not there.

A module that never runs has no value, so its absence shows at the next point that has one. HF is run once more without
it: where that gives the device's value, the module is named in place of the point.
"""

import torch

from bringup.evaluation.layers.activations import MODULES, place, record_reference, split
from bringup.evaluation.layers.suspects import REMAINS, distance

SINGLY = 4  # where more did not run, they are left out together only: each try is a run of HF


def find(hf_model, device, own, divergence):
    """The `Divergence` of what was left out right before this one, or None. `own`: HF on the device's inputs."""
    name = next(n for n in device.points if split(n) == (divergence.layer, divergence.point))
    missing = _missing(hf_model, device, name, divergence.phase)
    rows = torch.arange(len(device.ids))[device.rows(divergence.phase)]
    rows = rows[device.known[name][rows]] if name in device.known else rows
    got = device.points[name][rows]
    if not missing or not bool(got.isfinite().all()):
        return None
    error = distance(own.points[name][rows], got)
    run = (hf_model, device.ids, device.decode_from)
    for names in [missing] + ([[m] for m in missing] if 1 < len(missing) <= SINGLY else []):
        left = distance(record_reference(*run, given=device, without=names).points[name][rows], got)
        if left < REMAINS * error:
            others = [str(type(divergence)(*_split(n), divergence.phase, "")) for n in names[1:]]
            nor = f", nor did {'; '.join(others[:3])}{'; ...' * (len(others) > 3)}" if others else ""
            why = f"did not run{nor} ({_there(hf_model, device, names[0])}); without {'them' if others else 'it'} "
            why += f"HF gives the device's {divergence} ({left:.2g} from that)"
            return type(divergence)(*_split(names[0]), divergence.phase, why)
    return None


def _missing(hf_model, device, name, phase):
    """HF's modules between the last point that the device has and this one, which did not run in that phase."""
    if not device.ran:  # its modules were not watched
        return []
    modules = dict(hf_model.named_modules())
    layers = [f"model.layers.{i}" for i in range(len(modules.get("model.layers", ())))]
    order = ["model.embed_tokens"]
    for layer in layers:  # a layer that did not run at all, or what of it did not
        parts = [f"{layer}.{part}" for part in MODULES if f"{layer}.{part}" in modules]
        ran = any((part, phase) in device.ran for part in (layer, *parts))
        order += parts if ran else [layer]
    order.append("model.norm")
    seen = [place(n) for n, known in device.known.items() if bool(known[device.rows(phase)].any())]
    before = max((p for p in seen if p < place(name)), default=(-2, 0))
    between = [n for n in order if n in modules and before < _place(n) < place(name)]
    return [n for n in between if n != "model.embed_tokens" and (n, phase) not in device.ran]


def _split(name):
    """As `split`; a layer is (3, "")."""
    layer = name.removeprefix("model.layers.")
    return (int(layer), "") if layer.isdigit() else split(name)


def _place(name):
    layer, point = _split(name)
    return (layer, 0) if point == "" else place(name)


def _there(hf_model, device, name):
    """Whether the device model has what did not run."""
    if _split(name)[1] == "" and name not in device.modules:
        n = len({m for m in device.modules if m.startswith("model.layers.") and _split(m)[1] == ""})
        return f"the device model has {n} layer{'s' * (n != 1)}, HF {len(hf_model.model.layers)}"
    if name in device.modules:
        return "the device model has it, and does not call it"
    return "HF has it, the device model has no module of that name"
