"""What a model is, as plain data: the traits that `reading` finds in HF's configuration and modules, and the gaps."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Gap:
    """`what` (field and value), the HF module that has it, and what would be needed."""

    what: str
    where: str
    needed: str

    def __str__(self):
        return f"{self.what} ({self.where})\n      needed: {self.needed}"


@dataclass(frozen=True)
class Part:
    """A part of a decoder layer: the block that computes it, and with what.

    `arguments` and the values of `keywords` are source of the model file, where `config` is its Config, `hf_layer` HF's
    layer and `i` the layer's number.
    """

    block: str
    arguments: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()  # blocks that the keywords name
    name: str = ""  # in the layer, where the first argument does not end in it
    takes: str = ""  # what it takes beside the stream, an argument of the layer


@dataclass(frozen=True)
class Call:
    """A part of a layer runs: on a sum of the stream "x" and of what parts before it gave, each times a number."""

    name: str
    terms: tuple[tuple[str, float], ...]


@dataclass
class Traits:
    """A decoder. Values that may differ by layer are lists, one entry for each layer of the model that was tried."""

    architecture: str = ""
    parts: dict[str, list[Part]] = field(default_factory=dict)  # by HF's name in the layer, in the order of the calls
    calls: tuple[Call, ...] = ()
    result: tuple[tuple[str, float], ...] = ()  # what the layer gives, as the terms of a call
    numbers: dict[float, str] = field(default_factory=dict)  # factors of terms -> source
    norm: Part | None = None  # after the last layer
    norm_name: str = "norm"  # HF's
    eps: str = ""  # of the norms, source
    embed_scale: str | None = None  # HF's token table gives its rows times this
    stream_scale: str | None = None  # and they go into the first layer times that
    per_layer: Part | None = None  # what gives each layer something beside the stream, of the decoder
    config: object = None  # HF's, of the model that was tried
    logits: list[tuple[str, str]] = field(default_factory=list)  # ("multiply" or "soft_cap", source) after the head
    head_bias: bool = False
    rotation: str | None = None  # of the Config, where it is not that of all dims in two halves
    words: dict[str, str] = field(default_factory=dict)  # what the docstring says of "attention", "mlp", "norm", "rope"
    sources: dict[str, str] = field(default_factory=dict)  # fact -> where it came from
    gaps: list[Gap] = field(default_factory=list)

    def lacks(self, what, where, needed):
        gap = Gap(" ".join(str(what).split())[:300], where, needed)
        if gap not in self.gaps:
            self.gaps.append(gap)

    def fields(self):
        """The fields of the configuration that the model file reads."""
        parts = [p for kinds in self.parts.values() for p in kinds if p is not None] + [self.norm] * (
            self.norm is not None
        )
        texts = [t for p in parts for t in (*p.arguments, *(v for _, v in p.keywords))]
        texts += [*self.numbers.values(), *(t for _, t in self.logits), self.eps, self.embed_scale, self.stream_scale]
        return list(dict.fromkeys(name for text in texts if text for name in FIELD.findall(text)))


FIELD = re.compile(r"\bconfig\.(\w+)")
