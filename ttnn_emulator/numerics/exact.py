"""Bit for bit what the chip computes, wherever its rule is known.

Every operation is the sequence of steps of the library's own kernel, each step by the rule of the unit that does it:
`fpu` (element-wise FPU and matrix unit), `vector` (the vector unit) and `rounding.pack` (the packer).

Source    ttnn 0.81.1: kernel sources in the wheel; all recorded vectors of matmul, linear, element-wise, norms,
          softmax, reductions, rotary and attention are reproduced bit for bit (`tests/numerics/test_exact.py`).
"""

from . import ComputeConfig, fpu
from .binary import add, div, div_fast, ldexp, mul, mul_on_fpu, rsub, squared_difference, sub
from .common import activated, auto_block_w, rotary
from .flash import attention
from .flash_decode import attention_decode
from .norms import layer_norm, norm_from_sums, norm_sums, rms_norm, softmax, weights
from .reductions import max, mean, min, prod, sum
from .rounding import pack, typecast
from .unary import unary

__all__ = [
    "add", "attention", "attention_decode", "auto_block_w", "div", "div_fast", "layer_norm", "ldexp", "matmul", "max",
    "mean", "min", "mul", "mul_on_fpu", "norm_from_sums", "norm_sums", "pack", "prod", "rms_norm", "rotary", "rsub",
    "softmax", "squared_difference", "sub", "sum", "typecast", "unary", "weights",
]  # fmt: skip


# ---------------------------------------------------------------- matmul


def matmul(
    x, w, config: ComputeConfig, *, dtype, block_w=None, bias=None, activation=None, w_truncated=None, w_dtype=None,
    sum_all=False,
):  # fmt: skip
    """x @ w (+ bias), activation(...), stored as `dtype`.

    Shapes    x [..., M, K], w [..., K, N] -> [..., M, N]; batch dimensions broadcast; bias [..., 1, N]
    Numerics  The matrix unit's integer rule. With packer_l1_acc, K goes in blocks of `block_w` tiles (None: the
              library's choice) whose sums are added in L1; with a bias or `sum_all` the last one too,
              and the bias is an FPU add. The activation sees the destination register. Of float32 operands the unit
              takes 11 (w: 10) significand bits, with a bf16 destination 8.
    """
    blocks = 0
    if config.packer_l1_acc:
        blocks = block_w or auto_block_w(x.shape[-2], x.shape[-1], w.shape[-1])
    fp32 = config.fp32_dest_acc_en
    y = fpu.matmul(x, w, config.math_fidelity, fp32, blocks, sum_all=sum_all or bias is not None)
    if bias is not None:
        y = fpu.add(y, bias, fp32)
    return pack(y if activation is None else activated(y, activation), dtype)
