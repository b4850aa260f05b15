"""What the chip computes, given values: the bottom layer of the emulator.

Two modules with the same functions and one switch between them:

    exact    bit for bit wherever the hardware's rule is known: the matrix unit's integer arithmetic (a compiled
             kernel), the packer, tables of every unary function
    fast     torch on the CPU's bf16 units, or on any torch device: each operation's error against the exact product
             has the device's size and bias

Values are those of one chip: torch.bfloat16 for bfloat16 and, on their grid, for bfloat8_b and bfloat4_b;
torch.float32; torch integers. Dtypes are the strings "bfloat16", "float32", "bfloat8_b", "bfloat4_b", "uint32", ...
Every function takes final operands and returns final stored values of the `dtype` asked for.

The switch is `TTNN_EMULATOR_NUMERICS`, `set_mode`, or `with use("exact"):`; `now()` is the module in force.

Source    ttnn 0.81.1 on the official functional simulator v1.10, Wormhole B0: recorded vectors and rules.
"""

import contextlib
import importlib
import os
from typing import NamedTuple

from ..chips import Arithmetic, machine

MODES = ("fast", "exact")


class ComputeConfig(NamedTuple):
    """What a resolved compute kernel config says."""

    math_fidelity: str = "HiFi2"  # LoFi, HiFi2, HiFi3, HiFi4: one to four passes over pieces of the operands
    math_approx_mode: bool = False  # approximate vector-unit functions, where a kernel asks for the mode
    fp32_dest_acc_en: bool = False  # the destination register holds fp32, not bf16
    packer_l1_acc: bool = False  # partial sums over blocks of K are added in L1


#: What each operation computes with when no compute kernel config is passed. A name of a pair of dtypes goes first.
DEFAULTS: dict[str, ComputeConfig] = {
    "matmul": ComputeConfig("HiFi2", False, False, True),
    "matmul(bfloat8_b, bfloat8_b)": ComputeConfig("LoFi", False, False, True),
    "minimal_matmul": ComputeConfig("HiFi2", False, True, True),
    "sparse_matmul": ComputeConfig("LoFi", False, False, True),
    "attn_matmul": ComputeConfig("LoFi", True, False, False),
    "fast_reduce_nc": ComputeConfig("HiFi4", False, False, False),
    "rms_norm": ComputeConfig("HiFi4", True, False, False),
    "layer_norm": ComputeConfig("HiFi4", False, True, False),
    "softmax": ComputeConfig("HiFi3", True, True, False),
    "reduce": ComputeConfig("HiFi3", False, True, False),
    "rotary": ComputeConfig("HiFi4", True, False, False),
    "attention": ComputeConfig("HiFi2", True, False, False),
    "attention_decode": ComputeConfig("HiFi2", True, False, False),
}


def default_config(op: str, *dtypes: str) -> ComputeConfig:
    """The default of an operation of `DEFAULTS` for operands of these dtypes."""
    found = DEFAULTS.get(f"{op}({', '.join(dtypes)})", DEFAULTS[op])
    return found._replace(math_fidelity=arithmetic().fp32_fidelity) if op in ("softmax", "reduce") else found


def arithmetic() -> Arithmetic:
    """By whose approximations and tables is computed: those of the machine's chip."""
    return machine().chip.arithmetic


def approximate_steps() -> int:
    """Newton steps of a reciprocal in approximate modes."""
    return 0 if arithmetic().estimates_reciprocals else 1


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"numerics {mode!r} is not one of {', '.join(MODES)}")
    return mode


_mode = _checked(os.environ.get("TTNN_EMULATOR_NUMERICS") or "fast")


def mode() -> str:
    """The mode in force: "fast" or "exact"."""
    return _mode


def set_mode(mode: str) -> None:
    global _mode
    _mode = _checked(mode)


@contextlib.contextmanager
def use(mode: str):
    """The mode inside a `with` block."""
    before = _mode
    set_mode(mode)
    try:
        yield
    finally:
        set_mode(before)


_modules: dict = {}


def now():
    """The module that computes in the present mode: `numerics.exact` or `numerics.fast`."""
    module = _modules.get(_mode)
    if module is None:
        module = _modules[_mode] = importlib.import_module(f"{__name__}.{_mode}")
    return module
