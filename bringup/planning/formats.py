"""Which dtype each group of weights, and the cache, has: `bfp8`, or `attention=bfp8,mlp=bfp4,head=bf16`."""

from dataclasses import asdict, dataclass

from bringup.errors import BadInput

# Short names, and the library's own.
DTYPES = {"bf16": "bfloat16", "bfp8": "bfloat8_b", "bfp4": "bfloat4_b"}
GROUPS = ("attention", "mlp", "head")


@dataclass(frozen=True)
class Formats:
    """A short dtype name per group; `cache` is the KV cache's."""

    attention: str = "bf16"
    mlp: str = "bf16"
    head: str = "bf16"
    cache: str = "bf16"

    @classmethod
    def parse(cls, weights, cache="bf16"):
        """`weights` is one dtype for all groups, or GROUP=DTYPE with commas between; a group left out is bf16."""
        if "=" not in weights:
            return cls(*[dtype_name(weights)] * 3, dtype_name(cache))
        given = {}
        for part in weights.split(","):
            group, _, name = part.partition("=")
            if group not in GROUPS or not name:
                raise BadInput(
                    "which weights?", got=part, want=f"DTYPE, or GROUP=DTYPE with commas, GROUP of {', '.join(GROUPS)}"
                )
            given[group] = dtype_name(name)
        return cls(**given, cache=dtype_name(cache))

    @classmethod
    def of(cls, precision):
        """Those of a `blocks.Precision`."""
        return cls(*(dtype_name(str(getattr(precision, g)).rpartition(".")[2]) for g in (*GROUPS, "cache")))

    def changes(self):
        """The fields of `blocks.Precision` as ttnn dtypes."""
        import ttnn

        return {group: getattr(ttnn, DTYPES[name]) for group, name in asdict(self).items()}

    def __str__(self):
        weights = {self.attention, self.mlp, self.head}
        if len(weights) == 1:
            return weights.pop()
        return ",".join(f"{group}={getattr(self, group)}" for group in GROUPS)


def dtype_name(name):
    """bf16, bfp8 or bfp4, from either spelling."""
    name = name.lower()
    short = name if name in DTYPES else {long: short for short, long in DTYPES.items()}.get(name)
    if short is None:
        raise BadInput("unknown dtype", got=name, want="one of " + ", ".join(f"{s} ({d})" for s, d in DTYPES.items()))
    return short
