"""The formats and compute configs of one model, in one place, so that a model file can name and justify them."""

from dataclasses import dataclass, field
from typing import Any

import ttnn


def compute_config(fidelity: str = "HiFi3", fp32_dest: bool = True, l1_acc: bool = True):
    """A compute-kernel config without approximations in the vector unit; the library's one class serves every chip."""
    return ttnn.WormholeComputeKernelConfig(
        math_fidelity=getattr(ttnn.MathFidelity, fidelity),
        math_approx_mode=False,
        fp32_dest_acc_en=fp32_dest,
        packer_l1_acc=l1_acc,
    )


@dataclass(frozen=True)
class Precision:
    """Weight dtypes by group, the dtype of the KV cache, and a compute config per kind of op.

    The library's defaults (HiFi2 products, a bfloat16 running sum, an approximate exp in attention) are most of a
    device's distance from the HF model. HiFi3 with an fp32 destination leaves the rounding to bfloat16 itself; HiFi4
    gives no more, and on Wormhole's silicon corrupts single elements (tt-metal issue 38306). A decode step mostly waits
    for the weights from DRAM, so the three phases should cost it little (not measured on a board).
    """

    attention: Any
    mlp: Any
    head: Any
    cache: Any = ttnn.bfloat16
    linear: Any = field(default_factory=compute_config)
    norm: Any = field(default_factory=compute_config)
    sdpa: Any = field(default_factory=compute_config)
    exact_exp: bool = True

    def format(self, product: str) -> Any:
        """What the weight of qkv, o, up (and gate), down or head is on the device."""
        return {"qkv": self.attention, "o": self.attention, "head": self.head}.get(product, self.mlp)

    @classmethod
    def of(cls, weight_dtype, **changes) -> "Precision":
        """One dtype for all weights."""
        return cls(attention=weight_dtype, mlp=weight_dtype, head=weight_dtype, **changes)
