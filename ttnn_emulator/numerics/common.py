"""Operations that are bit for bit the device's in both modes, because the rule is known and cheap to follow.

Element-wise arithmetic, norms, softmax, reductions, rotary; and helpers of the two modes. Each is the sequence of
steps of the library's own kernel, each step by the rule of the unit that does it: `fpu` (element-wise FPU and matrix
unit), `vector` (the vector unit), `rounding.pack` (the packer).
"""

import builtins
import functools

import torch

from . import ComputeConfig, fpu
from .rounding import (
    FLOATS,
    cast_integer,
    pack,
    scalar,
    to_bf16_rna,
    truncate,
)
from .unary import unary

TILE = 32
MATMUL_GRID = 8  # columns of the worker grid


def auto_block_w(m: int, k: int, n: int) -> int:
    """in0_block_w, in tiles, that the library chooses by itself for x [m, k] @ w [k, n].

    Wide or tall outputs (more than 8 to 1 in tiles, or one tile) go to a 1-d program that takes 2 tiles when K is an
    even number of them; others to a 2-d program that takes an eighth of K.

    Source    ttnn 0.81.1, block sizes asked (`ops.matmul.program.automatic` has the whole rule)
    """
    mt, kt, nt = (-(-d // TILE) for d in (m, k, n))
    if builtins.max(mt, nt) // builtins.min(mt, nt) > 8 or mt == 1 or nt == 1:
        return 2 if kt % 2 == 0 else 1
    return kt // MATMUL_GRID if kt % MATMUL_GRID == 0 else 1


def operand(a, b):
    """b as a tensor: a number is first rounded to bfloat16."""
    return b if torch.is_tensor(b) else torch.tensor(scalar(b), dtype=torch.bfloat16, device=a.device)


def stored(y, dtype):
    """pack() of what the FPU left: a destination holds no denormal, -0 or nan, so that bfloat16 takes little."""
    if dtype == "bfloat16":
        return y if y.dtype == torch.bfloat16 else to_bf16_rna(y)
    return pack(y, dtype) if dtype in FLOATS else cast_integer(y, dtype)


def activated(y, activation):
    """A fused activation (a name or a function) on the destination register."""
    if callable(activation):
        return activation(y)
    return unary(activation, y, "float32" if y.dtype == torch.float32 else "bfloat16")


# ---------------------------------------------------------------- rotary


@functools.lru_cache(256)
def _spreads(table: tuple, x: tuple) -> bool:
    """Whether a table broadcasts to x."""
    return torch.broadcast_shapes(x, table) == x


def rotary(x, cos, sin, config: ComputeConfig, dtype, turned=None, cut=False):
    """x * cos + turned * sin; the arguments broadcast. Bit for bit.

    turned    by default rotate_half(x), in the halves layout of HF models; cut: without the last bit that LoFi and
              HiFi2 drop where the matrix unit turns x
    Numerics  FPU products and an FPU add in the phases of the fidelity, packed to bfloat16 after each.
    """
    fidelity, fp32, half = config.math_fidelity, config.fp32_dest_acc_en, x.shape[-1] // 2
    x, cos, sin = (t.to(torch.bfloat16) for t in (x, cos, sin))
    cut = cut and fidelity in ("LoFi", "HiFi2")
    one_pass = turned is None and x.device.type == "cpu" and half % (TILE // 2) == 0 and cos.shape == sin.shape
    if one_pass and cos.shape[-1] == 2 * half and _spreads(cos.shape, x.shape):
        return stored(fpu.rotary(x, cos, sin, fidelity, fp32, cut), dtype)
    if turned is None:
        turned = truncate(x, 7) if cut else x
        turned = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    first, second = (stored(fpu.mul(*pair, fidelity, fp32), "bfloat16") for pair in ((x, cos), (turned, sin)))
    return stored(fpu.add(first, second, fp32), dtype)
