"""What an optimised model chose: data beside its model.py, which `bringup tune` finds and writes."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ttnn

from bringup.blocks.precision import Precision, compute_config
from bringup.blocks.weights import Banked

PRODUCTS = ("qkv", "o", "up", "down", "head")
DTYPES = ("bfloat16", "bfloat8_b", "bfloat4_b")
FIDELITIES = ("LoFi", "HiFi2", "HiFi3", "HiFi4")


@dataclass(frozen=True)
class Choices(Precision):
    """A `Precision` that says more: `up` is the format of up and gate, where it is not that of the MLP; a fidelity for
    each product; `sharded` names the products whose weights lie in the banks of DRAM side by side, with a program for
    that in decode steps; `cores` have a share of a step's residual each at most, `inner` one of what an MLP has inside;
    `asynchronous`: sums over the chips wait on semaphores of the model, not of the library.
    """

    up: Any = None
    fidelity: dict = field(default_factory=lambda: dict.fromkeys(PRODUCTS, "HiFi2"))
    sharded: tuple = PRODUCTS
    cores: int = 32
    inner: int = 32
    asynchronous: bool = True

    @classmethod
    def read(cls, path) -> "Choices":
        """Of a choices.json; ValueError names what it has that is none."""
        return cls.of_data(json.loads(Path(path).read_text()))

    @classmethod
    def of_data(cls, data: dict) -> "Choices":
        """weights: {attention, up, mlp, head: dtype}, cache: dtype, fidelity: {product: name}, sdpa and norm: name of a
        fidelity, sharded: [product], cores, inner, asynchronous."""
        left = set(data) - {"weights", "cache", "fidelity", "sdpa", "norm", "sharded", "cores", "inner", "asynchronous"}
        chosen, fidelity = data["weights"], data["fidelity"]
        wrong = [f"{k}: {v}" for k, v in (*chosen.items(), ("cache", data["cache"])) if v not in DTYPES]
        wrong += [f"{k}: {v}" for k, v in fidelity.items() if k not in PRODUCTS or v not in FIDELITIES]
        wrong += [name for name in (*data["sharded"], *left) if name in left or name not in PRODUCTS]
        if wrong:
            raise ValueError(f"choices: {', '.join(wrong)} is none of {DTYPES}, {FIDELITIES} or {PRODUCTS}")
        dtypes = {name: getattr(ttnn, dtype) for name, dtype in chosen.items()}
        return cls(
            **dtypes,
            cache=getattr(ttnn, data["cache"]),
            fidelity=dict(fidelity),
            sdpa=compute_config(data["sdpa"]),
            norm=compute_config(data["norm"]),
            sharded=tuple(data["sharded"]),
            cores=data["cores"],
            inner=data["inner"],
            asynchronous=data["asynchronous"],
        )

    def as_data(self) -> dict:
        """What `read` reads."""
        name = lambda value: str(value).rpartition(".")[2].lower()  # noqa: E731
        weights = {group: name(getattr(self, group)) for group in ("attention", "mlp", "head")}
        return {
            "weights": weights | {"up": name(self.up or self.mlp)},
            "cache": name(self.cache),
            "fidelity": dict(self.fidelity),
            "sdpa": self.sdpa.math_fidelity.name,
            "norm": self.norm.math_fidelity.name,
            "sharded": list(self.sharded),
            "cores": self.cores,
            "inner": self.inner,
            "asynchronous": self.asynchronous,
        }

    def format(self, product: str) -> Any:
        dtype = (self.up or self.mlp) if product == "up" else super().format(product)
        shares = self.inner if product in ("up", "down") else 1
        return Banked(dtype, shares) if product in self.sharded else dtype

    def compute(self, product: str):
        """Its compute config."""
        return compute_config(self.fidelity[product])
