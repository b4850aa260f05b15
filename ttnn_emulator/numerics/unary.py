"""Unary functions: a table of all 65,536 bfloat16 inputs where the device was recorded, torch elsewhere.

Source    `tables.npz`: exhaustive recordings, ttnn 0.81.1 on the functional simulator v1.10 (`unary.npz`), made by
          `bench/make_tables.py`.
"""

import functools
import math
import pathlib

import torch

from ..chips import machine
from ..errors import untested
from . import activations, arithmetic, rounding, vector

TABLES = pathlib.Path(__file__).parent


#: The vector unit's look-up table of gelu: x / 2 + a |x| + b, by where |x| is (0.5, 1, 1.5, 2, 3), float16.
_GELU_A = (0.1928, 0.4939, 0.6188, 0.6099, 0.5402, 0.5)
_GELU_B = (-0.00010443, -0.1604, -0.2796, -0.2635, -0.1194, 0.0)


def _gelu(x, fast_and_approximate_mode=False):
    if not fast_and_approximate_mode:
        return torch.nn.functional.gelu(x)
    size = x.abs()
    piece = torch.bucketize(size, torch.tensor([0.5, 1, 1.5, 2, 3], device=x.device), right=True)
    a, b = (torch.tensor(t, dtype=torch.float16, device=x.device).double()[piece] for t in (_GELU_A, _GELU_B))
    return (0.5 * x.double() + (a * size + b).float()).float()


def _pow(x, exponent):
    """Whole exponents by float32 products, as `POWER_ITERATIVE`; others as they are."""
    if exponent < 0 or exponent != int(exponent) or not x.is_floating_point():
        return torch.pow(x, exponent)
    result, exponent = torch.ones_like(x), int(exponent)
    while exponent:
        result = result * x if exponent & 1 else result
        x, exponent = x * x, exponent >> 1
    return result


def _silu(x):
    return torch.nn.functional.silu(x.double()).float()  # torch's own is an ulp off here and there


#: name -> function of a float32 tensor and the operation's parameters. Used for float32 tensors and for what has no
#: table: then it is the function in float32, rounded once (RNE); the device's polynomial may differ in the last bit.
FORMULAS = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "relu6": lambda x: x.clamp(0, 6),
    "relu_max": lambda x, upper_limit: x.clamp(0, upper_limit),
    "relu_min": lambda x, lower_limit: x.clamp(min=lower_limit),
    "leaky_relu": lambda x, negative_slope=0.01: torch.nn.functional.leaky_relu(x, negative_slope),
    "elu": lambda x, alpha=1.0: torch.nn.functional.elu(x, alpha),
    "selu": lambda x, scale=1.0506999492645264, alpha=1.673259973526001: scale * torch.nn.functional.elu(x, alpha),
    "silu": _silu,
    "swish": _silu,
    "mish": torch.nn.functional.mish,
    "gelu": _gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "sigmoid": lambda x, **_: torch.sigmoid(x),
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "hardsigmoid": lambda x: (x.double() * 0.1666666716337204 + 0.5).float().clamp(0, 1),  # float32(1 / 6)
    "hardswish": torch.nn.functional.hardswish,
    "hardmish": lambda x: x * (x + 2.8).clamp(0, 5) / 5,
    "hardtanh": lambda x, min_val=-1.0, max_val=1.0: x.clamp(min_val, max_val),
    "softplus": lambda x, beta=1.0, threshold=20.0: torch.nn.functional.softplus(x, beta, threshold),
    "softsign": torch.nn.functional.softsign,
    "tanh": lambda x, fast_and_approximate_mode=False: torch.tanh(x),
    "exp": lambda x, fast_and_approximate_mode=False: (vector.exp_approx if fast_and_approximate_mode else torch.exp)(
        x
    ),
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": lambda x, **_: torch.log(x),
    "log2": lambda x, **_: torch.log2(x),
    "log10": lambda x, **_: torch.log10(x),
    "log1p": lambda x, **_: torch.log1p(x),
    "sqrt": lambda x, **_: torch.sqrt(x),
    "rsqrt": lambda x, fast_and_approximate_mode=False: torch.rsqrt(x),
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "cbrt": lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3),
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "signbit": lambda x: torch.signbit(x).to(x.dtype),
    "ceil": torch.ceil,
    "floor": torch.floor,
    "trunc": torch.trunc,
    "frac": torch.frac,
    "round": lambda x, decimals=0: torch.round(x, decimals=decimals or 0),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "erf": lambda x, **_: torch.erf(x),
    "erfc": lambda x, **_: torch.erfc(x),
    "erfinv": torch.erfinv,
    "deg2rad": torch.deg2rad,
    "rad2deg": torch.rad2deg,
    "logical_not": lambda x: ((x == 0) & ~torch.signbit(x)).to(x.dtype),  # of -0 it is 0 (recorded)
    "isnan": lambda x: torch.isnan(x).to(x.dtype),
    "isinf": lambda x: torch.isinf(x).to(x.dtype),
    "isposinf": lambda x: torch.isposinf(x).to(x.dtype),
    "isneginf": lambda x: torch.isneginf(x).to(x.dtype),
    "isfinite": lambda x: torch.isfinite(x).to(x.dtype),
    "eqz": lambda x: (x == 0).to(x.dtype),
    "nez": lambda x: (x != 0).to(x.dtype),
    "gtz": lambda x: (x > 0).to(x.dtype),
    "ltz": lambda x: (x < 0).to(x.dtype),
    "gez": lambda x: (x >= 0).to(x.dtype),
    "lez": lambda x: (x <= 0).to(x.dtype),
    "clamp": lambda x, min=None, max=None: torch.clamp(x, min, max),
    "pow": lambda x, exponent: _pow(x, exponent),
    "power": lambda x, exponent: _pow(x, exponent),
    "fill": lambda x, fill_value: torch.full_like(x, fill_value),
    "threshold": lambda x, threshold, value: torch.where(x > threshold, x, torch.full_like(x, value)),
    "rpow": lambda x, exponent: torch.pow(exponent, x),
    "rdiv": lambda x, value: value / x,
    "i0": torch.special.i0,
    "i1": torch.special.i1,
    "heaviside": lambda x, value=0.0: torch.heaviside(x, torch.tensor(value, dtype=x.dtype, device=x.device)),
    "tanhshrink": torch.nn.functional.tanhshrink,
    "softshrink": lambda x, lambd=0.5: torch.nn.functional.softshrink(x, lambd),
    "hardshrink": lambda x, lambd=0.5: torch.nn.functional.hardshrink(x, lambd),
    "celu": lambda x, alpha=1.0: torch.nn.functional.celu(x, alpha),
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "xielu": activations.xielu,
    "softcap": activations.softcap,
    "mul_unary": lambda x, value: x * value,
    "add_unary": lambda x, value: x + value,
    "sub_unary": lambda x, value: x - value,
    "rsub_unary": lambda x, value: value - x,
    "prelu": lambda x, weight: torch.where(x < 0, x * weight, x),
    "bitwise_not": torch.bitwise_not,
}


#: Functions whose kernel stores into a bf16 destination without rounding.
CUT = {
    "pow", "power", "leaky_relu", "prelu", "clamp", "mul_unary", "add_unary", "sub_unary", "deg2rad", "rad2deg",
    "hardsigmoid",
}  # fmt: skip


@functools.cache
def _archive(files: tuple[str, ...]) -> dict:
    import numpy as np

    found: dict = {}
    for file in files:
        with np.load(TABLES / f"{file}.npz") as z:
            for name in (n for n in z.files if not n.endswith(".at")):
                at = f"{name}.at"
                found[name] = found[name].copy() if at in z.files else z[name]
                if at in z.files:  # where it differs from the table before
                    found[name][z[at]] = z[name]
    return found


def table(name: str, device: str = "cpu") -> torch.Tensor:
    """`_table` of this machine's chip."""
    own = arithmetic()
    if name in own.unrecorded:
        untested(f"ttnn.{name.split('_')[0]} by another chip's table: not recorded on {machine().chip.family}")
    return _table(name, device, own.tables)


@functools.cache
def _table(name: str, device: str, files: tuple[str, ...]) -> torch.Tensor:
    """The recorded function as bfloat16 [65536], indexed by bit pattern + 32768 (so that int16 indices need one
    addition)."""
    array = _archive(files)[name].view("int16")
    return torch.from_numpy(array).view(torch.bfloat16).roll(32768).to(device)


def recorded() -> list[str]:
    """The names that have a table; `_fast` and `_accurate` stand for fast_and_approximate_mode True and False."""
    return sorted(_archive(arithmetic().tables))


def table_name(name: str, params: dict) -> str | None:
    """The table that answers this call, or None."""
    name = {"swish": "silu"}.get(name, name)
    rest, held = dict(params), _archive(arithmetic().tables)
    approximate = rest.pop("fast_and_approximate_mode", None)
    if any(v is not None for v in rest.values()):
        return None
    for suffix in ("_fast",) if approximate else ("_accurate", "") if approximate is False else ("",):
        if name + suffix in held:
            return name + suffix
    return name if name in held and name in ("tanh", "sigmoid", "log", "sqrt", "reciprocal") else None


def take(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A table (as `table` and `tabulate` make them) at every bfloat16 of x."""
    index = x.contiguous().view(torch.int16).to(torch.int32).add_(32768).flatten()
    return values.index_select(0, index).view(x.shape)


def look_up(x: torch.Tensor, name: str) -> torch.Tensor:
    """The recorded function `name` at every bfloat16 of x."""
    return take(table(name, str(x.device)), x)


@functools.cache
def tabulate(function, *args, device: str = "cpu") -> torch.Tensor:
    """A table of function(x, *args) over all bfloat16 x, for `take`."""
    x = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return function(x, *args).to(device)


def _without_nan(y, x):
    """y with infinities of x's sign for nans: what a nan is to the vector unit."""
    return torch.where(torch.isnan(y), torch.copysign(torch.full_like(y, math.inf), x.to(y.dtype)), y)


def _power_of_two(value: float) -> bool:
    return value > 0 and math.frexp(value)[0] == 0.5


def unary(name: str, x: torch.Tensor, dtype: str, **params) -> torch.Tensor:
    """A unary function by its ttnn name.

    Dtypes    bfloat16 and block formats by table where recorded; float32 by formula; integers: relu, abs, neg,
              square, ...
    Numerics  With a table the bits are the device's. Without one: the float32 function, one RNE (or cut, `CUT`); its
              last bit may differ; nan is an infinity. Results in a block format go through the
              packer.
    """
    if name == "softplus" and x.dtype == torch.bfloat16 and _power_of_two(params.get("beta", 1.0)):
        beta, threshold = params.get("beta", 1.0), params.get("threshold", 20.0)
        x = _without_nan(x, x)
        scaled = x * beta
        y = torch.where(scaled > threshold, x, look_up(scaled, name) / beta)
        return rounding.pack(y, dtype)
    if name not in FORMULAS:
        raise NotImplementedError(f"unary {name!r} has neither a table nor a formula")
    if not x.is_floating_point():
        return rounding.cast_integer(FORMULAS[name](x.to(torch.int64), **params), dtype)
    if x.dtype == torch.bfloat16 and (found := table_name(name, params)):
        y = look_up(x, found)
    else:
        wide = x.to(torch.float32)
        if x.dtype == torch.bfloat16 or dtype == "bfloat16":
            y = FORMULAS[name](wide if name.startswith("is") else _without_nan(wide, wide), **params)
            y = rounding.to_bf16_truncated(y) if name in CUT else y.to(torch.bfloat16)
            y = rounding.pack(_without_nan(y, x), "bfloat16")
        else:
            y = FORMULAS[name](wide.contiguous(), **params)  # torch's gelu has other bits on strides
    if dtype in rounding.BLOCK_FORMATS:
        return rounding.pack(y, dtype)
    return y.to(rounding.HELD_AS[dtype]) if dtype in rounding.FLOATS else rounding.cast_integer(y, dtype)
