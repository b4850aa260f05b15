"""What the op log says of each module, against the model's configuration and what the file declares.

Some of it no value shows: an epsilon that is smaller than any activation, a window that the text does not fill.
"""

import ast
import inspect
import re
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

from bringup.evaluation import hf_layers
from bringup.evaluation.layers.activations import FFNS, MIXERS, MODULES, ORDER, place, split
from bringup.evaluation.layers.declared import BLOCK_FORMATS, formats, word
from bringup.evaluation.layers.verdict import Divergence

NORMS = ("ttnn.rms_norm", "ttnn.layer_norm")
PRODUCTS = ("ttnn.linear", "ttnn.matmul", "ttnn.sparse_matmul", "ttnn.experimental.minimal_matmul")
RESIDUALS = ("self_attn.residual", "mlp.residual")
FIDELITIES = ("LoFi", "HiFi2", "HiFi3", "HiFi4")
WAYS = {"prefill": "a prompt", "decode": "steps"}
SLACK = 0.02  # of an epsilon or a scale: they are passed as float32


class Call(NamedTuple):
    """One call: the op, its arguments that are no tensors as text, what its programs ran with (fidelity, destination,
    ...), the dtype of its first operand and those of its results."""

    op: str
    arguments: dict
    ran: dict
    given: object
    made: tuple

    @property
    def fidelity(self):
        return self.ran.get("math_fidelity")


class Fact(NamedTuple):
    """Something that is not as configured. `wrong`: it is a fault whatever the values say."""

    module: str
    phase: str
    words: str
    rule: "Rule"

    @property
    def wrong(self):
        return self.rule.wrong

    def at(self, divergence):
        """Does it speak of the module at whose point the divergence is?"""
        layer, point = split(self.module)
        if self.rule is ONE_WAY and self.phase != divergence.phase:
            return False
        return layer == divergence.layer and divergence.point.split(".")[0] == point.split(".")[0]

    def divergence(self):
        layer, point = split(self.module)
        return Divergence(layer, point, self.phase, f"{self.words}; no value of this text shows it")


@contextmanager
def logged(modules, phase, calls):
    """Inside, the calls that each of `modules` makes are noted in calls[name, phase]; nothing where no log is kept."""
    import ttnn

    if not hasattr(ttnn, "record"):  # the library keeps no such log
        yield
        return
    handles, frames = [], []
    with ttnn.record(buffers=True) as log:

        def enter(*_):
            frames.append((len(log), []))

        def leave(name):
            start, parts = frames.pop()
            if frames:
                frames[-1][1].append((name, start, len(log)))
            if re.fullmatch(r"model\.layers\.\d+", name):
                for part, records in _between(parts, log):
                    calls[f"{name}.{part}", phase] = _calls(records)
            else:
                calls[name, phase] = _calls(log[start:])

        for name, module in modules.items():
            if name:
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(lambda *_, name=name: leave(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _between(parts, log):
    """What a layer itself calls after its attention, and after its MLP: the sums with the residual."""
    for (name, _, stop), following in zip(parts, [*(start for _, start, _ in parts[1:]), len(log)], strict=True):
        part = name.rpartition(".")[2]
        if part in (*MIXERS, *FFNS):
            yield f"{MIXERS[0] if part in MIXERS else FFNS[0]}.residual", log[stop:following]


def _calls(records):
    return [call for record in records if (call := _call(record)) is not None]


def _call(record):
    if record.held is None or not record.launches:
        return None
    ran = next((launch.attrs for launch in record.launches if launch.attrs.get("math_fidelity")), {})
    given = record.inputs[0].dtype if record.inputs else None
    return Call(record.op, dict(record.held.arguments), dict(ran), given, tuple(spec.dtype for spec in record.outputs))


def differing(hf_model, device, model, precision):
    """A list of `Fact`, in the order of the modules."""
    found = list(_one_way(device))
    modules = dict(hf_model.named_modules())
    judged = [key for key in device.calls if _is_judged(key[0], modules)]
    for name, phase in sorted(judged, key=lambda key: (key[1] != "prefill", _order(key[0]))):
        if (said := formats(model, *split(name), precision, coarser=True)) and not any(f.words == said for f in found):
            found.append(Fact(name, phase, said, FORMATS))
        for rule in RULES:
            for call in device.calls[name, phase]:
                applies = not rule.ops or call.op in rule.ops
                said = rule.check(call, modules.get(name), model, precision) if applies else None
                if said and not any(f.module == name and f.words == said for f in found):
                    found.append(Fact(name, phase, said, rule))
    return found


def _one_way(device):
    """Norms and rotations of the device that run in a prompt alone, or in steps alone."""
    names = {name for name, _ in device.ran if re.search(r"\.\d+\..*(_rope|norm)$", name)}
    for name in sorted(names, key=_order):
        missing = [phase for phase in WAYS if (name, phase) not in device.ran]
        if len(missing) == 1 and split(name)[0] is not None:
            other = next(phase for phase in WAYS if phase not in missing)
            words = f"{split(name)[1]} does not run in {WAYS[missing[0]]}, it does in {WAYS[other]}"
            yield Fact(name, missing[0], words, ONE_WAY)


def _is_judged(name, modules):
    """Modules that have a point, norms inside them, and the sums with the residual."""
    known = name in modules and hasattr(modules[name], "variance_epsilon")
    return known or split(name)[1] in (*MODULES, *RESIDUALS, "norm", "lm_head")


def _order(name):
    layer, part = split(name)
    if layer is None or part in ORDER:
        return place(name)
    part = part.split(".")[0]  # a norm by another name, such as AFMoE's pre_mlp_layernorm, comes last in its layer
    return (layer, ORDER.index(part) if part in ORDER else len(ORDER))


class Rule(NamedTuple):
    """`check(call, hf_module, model, precision)` gives words, or None; no `ops`: of every op.

    `alone`: wrong where q and k are HF's.
    """

    ops: tuple
    check: Callable
    wrong: bool
    alone: bool = False


def _number(call, argument):
    """An argument's value; the op's default where it was not given; None where there is none."""
    if argument in call.arguments:
        try:
            return ast.literal_eval(call.arguments[argument])
        except (SyntaxError, ValueError):
            return None
    import ttnn

    function = ttnn
    for part in call.op.split(".")[1:]:
        function = getattr(function, part, None)
    try:
        default = inspect.signature(function).parameters[argument].default
    except (KeyError, TypeError, ValueError):
        return None
    return default if isinstance(default, (int, float)) else None


def _epsilon(call, module, model, precision):
    want = getattr(module, "variance_epsilon", None)
    got = _number(call, "epsilon")
    if want is None or got is None or abs(got - want) <= SLACK * want:
        return None
    how = "" if "epsilon" in call.arguments else ", the op's default"
    return f"the op log: {call.op} runs with epsilon {got:g}{how}, HF has {want:g}"


def _window(call, module, model, precision):
    got = _number(call, "sliding_window_size")
    want = hf_layers.window(module, module.config) if hasattr(module, "config") else None
    least = min(filter(None, (got, want)), default=None)
    if (got or None) == want or least is None or least >= getattr(model, "max_seq_len", least + 1):
        return None
    has = f"a window of {want}" if want else "no window"
    sees = f"a window of the last {got} positions" if got else "all positions"
    return f"the op log: {call.op} sees {sees}, HF has {has}"


def _config(call, precision):
    """What the file declares for ops of that kind."""
    kind = "linear" if call.op in PRODUCTS else "norm" if call.op in NORMS else "sdpa"
    return kind, getattr(precision, kind, None)


def _fidelity(call, module, model, precision, coarser=False):
    kind, config = _config(call, precision)
    want = str(getattr(config, "math_fidelity", "")).rpartition(".")[2]
    chosen = getattr(precision, "fidelity", {}).values() if kind == "linear" else ()  # of each product
    if not want or call.fidelity in (None, want, *chosen):
        return None
    if coarser != (FIDELITIES.index(call.fidelity) < FIDELITIES.index(want)):
        return None
    return f"the op log: {call.op} runs in {call.fidelity}, the model file declares {want}"


def _coarser(call, module, model, precision):
    """Fewer passes than declared: an argument that was left out, or another's."""
    return _fidelity(call, module, model, precision, coarser=True)


def _destination(call, module, model, precision):
    """Sums in bfloat16 where the file declares float32."""
    _, config = _config(call, precision)
    if call.ran.get("fp32_dest") is not False or not getattr(config, "fp32_dest_acc_en", False):
        return None
    return f"the op log: {call.op} sums in bfloat16, the model file declares an fp32 destination"


def _exponential(call, module, model, precision):
    if not call.ran.get("exp_approx") or not getattr(precision, "exact_exp", False):
        return None
    return f"the op log: {call.op} runs with the approximate exp, the model file declares the exact one"


def _sink(call, module, model, precision):
    if call.ran.get("sink", True) or getattr(module, "sinks", None) is None:
        return None
    return f"the op log: {call.op} is given no attention_sink, HF has a sink for each head"


def _scale(call, module, model, precision):
    got, want = _number(call, "scale"), getattr(module, "scaling", None)
    if got is None or want is None or abs(got - want) <= SLACK * want:
        return None
    return f"the op log: {call.op} has the scale {got:.4g}, HF {want:.4g}"


def _made(call, module, model, precision):
    """Block formats that the file does not declare: blocks have them in weights and cache, others perhaps elsewhere."""
    from bringup.blocks import CausalLM

    parts = ("cache",) if isinstance(model, CausalLM) else ("attention", "mlp", "head", "cache")
    said = {getattr(precision, part, None) for part in parts}
    for dtype in call.made if precision is not None else ():
        if word(dtype) in BLOCK_FORMATS and dtype not in (call.given, *said):  # what it is given another made
            return f"the op log: {call.op} gives {word(dtype)}, the model file declares no such format for it"
    return None


ATTENTION = (
    "ttnn.transformer.scaled_dot_product_attention",
    "ttnn.transformer.scaled_dot_product_attention_decode",
    "ttnn.transformer.paged_scaled_dot_product_attention_decode",
    "ttnn.transformer.chunked_scaled_dot_product_attention",
)
RULES = (
    Rule(NORMS, _epsilon, wrong=True),
    Rule(ATTENTION, _window, wrong=True),
    Rule(ATTENTION, _scale, wrong=False, alone=True),
    Rule((*PRODUCTS, *NORMS, *ATTENTION), _coarser, wrong=True),
    Rule((*PRODUCTS, *NORMS, *ATTENTION), _fidelity, wrong=False),
    Rule((*PRODUCTS, *NORMS, *ATTENTION), _destination, wrong=True),
    Rule(ATTENTION, _exponential, wrong=True),
    Rule(ATTENTION, _sink, wrong=True),
    Rule((), _made, wrong=True),
)
ONE_WAY = Rule((), lambda *_: None, wrong=False)
FORMATS = Rule((), lambda *_: None, wrong=True)  # weights that are held in another format than declared
