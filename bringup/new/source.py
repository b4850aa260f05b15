"""Traits as source of a model file: what a layer is made of, its forward, and the same in the docstring's picture."""

import dataclasses
import re

from bringup.new.literal import WIDTH
from bringup.new.traits import FIELD

#: What a keyword is in a layer that does not have it.
WITHOUT = {"window": "None", "rope": "Rope", "scale": "None", "layer_type": "None"}
#: Fields that say what is computed: those that a file does not read have to be as they were when it was written.
PINNED = re.compile(
    r"act$|activation|bias|use_qk|layernorm|parallel|softcap|clip|sliding_window$|bidirection|tie_word|multiplier"
    r"|logit_scale|logits_scaling|moe_block|hidden_size_per_layer_input"
)
BRANCHES = {"self_attn": "attended", "mlp": "mixed"}


class Wiring:
    """The statements of a layer's forward, in Python or as the docstring's picture says them."""

    def __init__(self, traits, picture=False, mixer=None):
        self.calls, self.mixer = {call.name: call for call in traits.calls}, mixer
        self.traits, self.picture = traits, picture
        self.shared = set()
        while True:  # a part whose value is used twice gets a name
            self.used, self.lines, self.stream = {}, [], {"x": 1.0}
            self._write()
            more = {name for name, n in self.used.items() if n > 1} - self.shared
            if not more:
                break
            self.shared |= more

    def _write(self):
        for call in self.calls.values():
            if call.name in self.shared:
                self.lines.append(f"{self._name(call.name)} = {self._run(call)}")
            elif len(call.terms) > 1:
                self._advance(dict(call.terms))
        self._advance(dict(self.traits.result), last=True)

    def _advance(self, terms, last=False):
        """x becomes the sum of these terms, as far as it is not yet."""
        if terms == self.stream:
            return
        (name, factor), *others = terms.items()
        if not others and name not in self.stream and factor == 1:  # one part alone, such as a factor of all
            part = self._part(name)
            if self.picture:
                part = part.replace("(x)", f"({self.lines.pop()})")
            self.lines.append(part if self.picture or not last else f"return {part}")
            return
        text = "x"
        times = {n: terms.get(n, 0.0) / f for n, f in self.stream.items()}
        if len(set(times.values())) != 1 or 0.0 in times.values():
            raise ValueError("a sum that the stream so far is no part of")
        if (by := next(iter(times.values()))) != 1:
            text = self._times("x", by)
        for name, factor in terms.items():
            if name not in self.stream:
                part = self._part(name)
                text = self._add(text, part if factor == 1 else self._times(part, factor))
        self.stream = terms
        self.lines.append(text if self.picture else f"return {text}" if last else f"x = {text}")

    def _part(self, name):
        self.used[name] = self.used.get(name, 0) + 1
        return self._name(name) if name in self.shared else self._run(self.calls[name])

    def _run(self, call):
        terms = dict(call.terms)
        if len(terms) > 1 or terms == self.stream or set(terms) == {"x"}:
            self._advance(terms) if terms != self.stream else None
            given = "x"
        else:
            (name, factor), *_ = terms.items()
            given = self._part(name) if factor == 1 else self._times(self._part(name), factor)
        step = ", step" if self._takes_step(call.name) and not self.picture else ""
        more = next((f", {p.takes}" for p in self.traits.parts[call.name] if p is not None and p.takes), "")
        if self.picture:
            return f"{'|'.join(_names(self.traits.parts[call.name]))}({given}{more})"
        return f"{'mixer' if call.name == self.mixer else f'self.{call.name}'}({given}{more}{step})"

    def _takes_step(self, name):
        return any(p is not None and "cache" in p.arguments for p in self.traits.parts[name])

    def _name(self, name):
        return "normed" if "norm" in name else BRANCHES.get(name, name)

    def _add(self, a, b):
        return f"{a} + {b}" if self.picture else f"ttnn.add({a}, {b})"

    def _times(self, value, factor):
        source = self.traits.numbers[factor]
        if self.picture:
            return f"{source.replace('config.', '')} * {value}"
        return f"ttnn.multiply({value}, {attribute(source)})"


def attribute(source):
    """What a module calls a number of the configuration: self.residual_multiplier."""
    plain = re.fullmatch(r"config\.(\w+)", source)
    return (
        f"self.{plain[1]}"
        if plain
        else f"self.{'_'.join(FIELD.findall(source))}_factor"
        if FIELD.findall(source)
        else source
    )


def assigned(sources):
    """The lines of __init__ that keep these numbers."""
    return [f"{attribute(s)} = {s}" for s in dict.fromkeys(sources) if attribute(s) != s]


#: Fields that say which layers have which mixer, or which MLP.
OF_MIXERS, OF_MLPS = re.compile("^layer_types$|shared"), re.compile("mlp|dense|sparse")


def parts(traits, config):
    """(lines of DecoderLayer.__init__ that make its parts, the blocks they name)."""
    lines, blocks, conditions = [], set(), {}
    for kinds in traits.parts.values():
        if len(names := _names(kinds)) > 1:
            made, named = _either(kinds, names, config, conditions)
            lines += made
        else:
            made, named = _made(names[0], kinds, config, conditions)
            lines += made
        blocks |= named
    return [f"{name} = {source}" for name, source in conditions.items()] + lines, blocks


def _names(kinds):
    """HF's names of a part in the layers, in order."""
    return list(dict.fromkeys(kind.name or kind.arguments[0].rpartition(".")[2] for kind in kinds))


def _either(kinds, names, config, conditions):
    """The statements of a part that goes by another name in some layers, where it is of another kind."""
    first, second = ([k for k in kinds if k.arguments[0].endswith(f".{name}")] for name in names)
    condition, holds = _condition([k in first for k in kinds], config, conditions, kinds)
    if not holds:
        first, second, names = second, first, names[::-1]
    ways = zip(names, (first, second), strict=True)
    (one, a), (other, b) = (_made(name, some, config, conditions, 12) for name, some in ways)
    return [f"self.{condition} = {condition}", *_if_else(condition, one, other)], a | b


def _if_else(condition, one, other):
    inside = lambda lines: [f"    {line}" for line in lines]  # noqa: E731
    return [f"if {condition}:", *inside(one), "else:", *inside(other)]


def mixer(traits, config):
    """(name of a part, the expression that says which it is) where it goes by two names; None."""
    for name, kinds in traits.parts.items():
        if None not in kinds and len(names := _names(kinds)) > 1:
            condition, holds = _condition([k.arguments[0].endswith(f".{names[0]}") for k in kinds], config, {}, kinds)
            names = names if holds else names[::-1]
            return name, f"self.{names[0]} if self.{condition} else self.{names[1]}"
    return None


def _made(name, kinds, config, conditions, indent=8):
    """(the statements that make one part, whatever its layer, the blocks they name)"""
    variants = list(dict.fromkeys(kinds))
    if len(variants) == 1:
        return _statement(name, variants[0], indent), {variants[0].block, *variants[0].needs}
    if len(variants) > 2:
        return _made_by_fields(name, kinds, config, indent)
    which = [kind == variants[0] for kind in kinds]
    first, second = variants
    condition, holds = _condition(which, config, conditions, kinds)
    if not holds:
        first, second = second, first
    named = {first.block, second.block, *first.needs, *second.needs}
    if first.block != second.block or first.arguments != second.arguments:
        one, other = (_statement(name, part, indent + 4) for part in (first, second))
        return _if_else(condition, one, other), named
    keywords, a, b = [], dict(first.keywords), dict(second.keywords)
    for keyword in dict.fromkeys([*a, *b]):
        one, other = a.get(keyword, WITHOUT.get(keyword)), b.get(keyword, WITHOUT.get(keyword))
        keywords.append((keyword, one if one == other else f"{one} if {condition} else {other}"))
        named |= {text for text in (one, other) if text in ("Rope", "NoRope") and one != other}
    return _statement(name, dataclasses.replace(first, keywords=tuple(keywords)), indent), named


def _made_by_fields(name, kinds, config, indent):
    """The same of more than two kinds: which block it is and each of its keywords follow a field of their own."""
    if len({k.arguments for k in kinds}) > 1:
        raise ValueError(f"{len(set(kinds))} kinds of {kinds[0].arguments[0]}")
    named = {n for k in kinds for n in (k.block, *k.needs)}

    def chosen(values):
        """Source of what a layer has of `values`, one for each."""
        first, *others = dict.fromkeys(values)
        if not others:
            return first
        if len(others) > 1:
            raise ValueError(f"{len(others) + 1} kinds of {kinds[0].arguments[0]}")
        own = {}
        condition, holds = _condition([v == first for v in values], config, own, kinds)
        condition = own.get(condition, condition)
        one, other = (first, others[0]) if holds else (others[0], first)
        return f"{one} if {condition} else {other}"

    given = [dict(k.keywords) for k in kinds]
    names = dict.fromkeys(n for g in given for n in g)
    keywords = [(n, chosen([g.get(n, WITHOUT.get(n)) for g in given])) for n in names]
    if "rope" in names:
        named |= {g.get("rope", "Rope") for g in given}
    block = chosen([k.block for k in kinds])
    if block == kinds[0].block:
        return _statement(name, dataclasses.replace(kinds[0], keywords=tuple(keywords)), indent), named
    part = dataclasses.replace(kinds[0], block="kind", keywords=tuple(keywords))
    return [f"kind = {block}", *_statement(name, part, indent)], named


def _condition(which, config, conditions, kinds):
    """(source that tells the layers of `which` from the others, whether it holds in them). Of several fields that do,
    what is said of such parts goes before what happens to agree."""
    own = OF_MLPS if any("MLP" in k.block or "Mixture" in k.block for k in kinds) else OF_MIXERS
    found = [(name, source, holds == which) for name, source, holds in _tellers(config, len(which)) if holds in (
        which, [not w for w in which])]  # fmt: skip
    if not found:
        raise ValueError("layers of two kinds that no field of the configuration tells apart")
    name, source, holds = min(found, key=lambda teller: not own.search(teller[0]))
    if name != "layer_types":
        return source, holds
    short = re.search(r'"([a-z]+)', source)[1]
    conditions[short] = source
    return short, holds


def _tellers(config, count):
    """(field, source, in which of the first layers it holds) of what a configuration says of single layers."""
    for name, value in [("layer_types", getattr(config, "layer_types", None) or []), *config.to_dict().items()]:
        of_layers = isinstance(value, list) and len(value) == config.num_hidden_layers
        if of_layers and isinstance(value[0], str):
            for kind in dict.fromkeys(value[:count]):
                yield name, f'config.{name}[i] == "{kind}"', [v == kind for v in value[:count]]
        elif of_layers:
            yield name, f"config.{name}[i]", [bool(v) for v in value[:count]]
        elif isinstance(value, list):
            yield name, f"i in config.{name}", [i in value for i in range(count)]
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, f"i < config.{name}", [i < value for i in range(count)]
            if "shared" in name:  # by the last layers
                last = config.num_hidden_layers - value
                yield name, f"i >= config.num_hidden_layers - config.{name}", [i >= last for i in range(count)]


def _statement(name, part, indent):
    """The line that makes a part; before it what would spread its arguments over as many lines: a routing, and what
    some layers have and others do not."""
    given, before = {n: n for n in part.arguments} | {n: f"{n}={v}" for n, v in part.keywords}, []
    longs = [(a, "routing", a) for a in part.arguments if a.startswith("Routing(")]
    longs += [(a, "sizes", a) for a in part.arguments if "per_layer_config" in a]
    longs += [(n, n, v) for n, v in part.keywords if " if " in v]
    longs += [(n, n, v) for n, v in part.keywords if n == "layer_type" and "sizes" in [s for _, s, _ in longs]]
    for key, short, value in longs:
        if indent + 4 + len(", ".join(given.values())) <= WIDTH:
            break
        before.append(f"{short} = {value}")
        given[key] = short if key == value else f"{key}={short}"
    return [*before, f"self.{name} = {part.block}({', '.join(given.values())})"]


def wrapped(line, indent=8):
    """A statement of the model file, as the formatter puts it: its call's arguments on a line, or one a line."""
    if indent + len(line) <= WIDTH:
        return " " * indent + line
    head, _, rest = line.partition("(")
    body, _, tail = rest.rpartition(")")
    pad, inner, items = " " * indent, " " * (indent + 4), split_arguments(body)
    if len(inner) + len(", ".join(items)) <= WIDTH:
        return f"{pad}{head}(\n{inner}{', '.join(items)}\n{pad}){tail}"
    return f"{pad}{head}(\n" + "".join(f"{inner}{item},\n" for item in items) + f"{pad}){tail}"


def split_arguments(text):
    """At the commas that are in no brackets."""
    found, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c == "," and not depth:
            found.append(text[start:at].strip())
            start = at + 1
    return [*found, text[start:].strip()]


def picture(traits, layers):
    """The docstring's picture of the model."""
    steps = Wiring(traits, picture=True).lines
    scale = " * ".join(s.replace("config.", "") for s in (traits.embed_scale, traits.stream_scale) if s)
    first = f"tokens -> {f'{scale} * ' if scale else ''}embed_tokens -> {layers} x [ "
    whole = first + " ; ".join(steps) + " ]"
    if 4 + len(whole) > WIDTH:
        pad = "\n    " + " " * len(first)
        whole = first + f" ;{pad}".join(steps) + " ]"
        if max(map(len, whole.splitlines())) + 4 > WIDTH:
            whole = first.rstrip() + f"\n{' ' * 11}" + f" ;\n{' ' * 11}".join(steps) + " ]"
    return whole


def requires(config, used):
    """The fields that the file depends on and does not read, with this configuration's values."""
    found = {"model_type": config.model_type}
    known = type(config)().to_dict()
    types = getattr(config, "layer_types", None)
    if types and "sliding_attention" not in types:  # the field is there, and no layer has it
        used = {*used, "sliding_window"}
    for name, value in sorted(config.to_dict().items()):
        plain = value is None or isinstance(value, (bool, int, float, str))
        if name in known and name not in used and plain and PINNED.search(name):
            found[name] = value
    rope = config.rope_parameters
    for kind, parameters in rope.items() if "rope_type" not in rope else [(None, rope)]:
        for name in ("rope_type", "partial_rotary_factor"):
            if name in parameters and (name, parameters["rope_type"]) != ("partial_rotary_factor", "proportional"):
                found[".".join(filter(None, ("rope_parameters", kind, name)))] = parameters[name]
    return found


def type_of(value):
    """A field's type, as Config says it."""
    return {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}.get(type(value), "object")
