"""What a bfloat16 destination register adds to a product: the many roundings of its running sum as one error of the
measured size."""

import functools
import math

import torch

TILE = 32

#: Measured on random normal operands with the exact matrix unit: the error that a bf16 destination adds to the
#: product of the operands' kept bits, for K = 32 * 2^i in one block: relative rms about the mean gain, and gain - 1.
#: By passes: 1 (LoFi; also HiFi2 with bfloat4_b weights), 2 (HiFi2), 4 (HiFi3 and HiFi4), 3 (those with bfloat4_b
#: weights).
_ONE_BLOCK = {
    1: ((0.0021, 0.0027, 0.0037, 0.0051, 0.0080, 0.0118, 0.0196, 0.0343, 0.0652, 0.137),
        (0.0004, 0.0007, 0.0014, 0.0026, 0.0057, 0.0108, 0.0222, 0.0465, 0.0937, 0.201)),
    2: ((0.0032, 0.0041, 0.0053, 0.0079, 0.0118, 0.0184, 0.0292, 0.0465, 0.0790, 0.154),
        (0.0010, 0.0018, 0.0030, 0.0057, 0.0102, 0.0175, 0.0309, 0.0545, 0.1010, 0.206)),
    3: ((0.0030, 0.0037, 0.0045, 0.0060, 0.0082, 0.0123, 0.0195, 0.0335, 0.0650, 0.137),
        (0.0001, 0.0002, 0.0008, 0.0017, 0.0039, 0.0093, 0.0205, 0.0445, 0.0940, 0.200)),
    4: ((0.0039, 0.0047, 0.0060, 0.0082, 0.0119, 0.0177, 0.0284, 0.0469, 0.0825, 0.153),
        (0.0009, 0.0012, 0.0023, 0.0043, 0.0084, 0.0154, 0.0275, 0.0512, 0.1009, 0.203)),
}  # fmt: skip
#: The same within blocks of 2^i tiles whose sums are added in L1, without the error of those additions.
_BLOCKS = {
    1: ((0.0038, 0.0047, 0.0064, 0.0088, 0.0128), (0.0009, 0.0019, 0.0040, 0.0076, 0.0140)),
    2: ((0.0046, 0.0060, 0.0083, 0.0120, 0.0184), (0.0018, 0.0034, 0.0062, 0.0115, 0.0202)),
    3: ((0.0042, 0.0056, 0.0072, 0.0095, 0.0130), (0.0009, 0.0013, 0.0035, 0.0070, 0.0135)),
    4: ((0.0051, 0.0068, 0.0091, 0.0124, 0.0186), (0.0017, 0.0029, 0.0052, 0.0101, 0.0178)),
}  # fmt: skip
_ROUNDING = 0.00166  # relative rms of one rounding to bfloat16


def _at(table, log2):
    """Linear interpolation of a table over 0, 1, 2, ..."""
    log2 = min(max(log2, 0.0), len(table) - 1)
    i = min(int(log2), len(table) - 2)
    return table[i] + (table[i + 1] - table[i]) * (log2 - i)


@functools.cache
def bf16_destination(passes: int, k: int, block_w: int) -> tuple[float, float, float]:
    """What a bf16 destination adds: relative rms error, gain - 1, and the share of the error's variance that does not
    scale with the element. block_w 0: one block."""
    blocks = -(-k // (TILE * block_w)) if block_w else 1
    if blocks == 1:
        size, gain = (_at(t, math.log2(max(k, TILE) / TILE)) for t in _ONE_BLOCK[passes])
        return size, gain, min(1.0, max(0.1, 0.22 + 0.13 * math.log2(k / 64)))
    within, gain = (_at(t, math.log2(block_w)) for t in _BLOCKS[passes])
    variance = within**2 * (1 - 1 / (2 * blocks)) + _ROUNDING**2 * blocks / 2
    return math.sqrt(variance), gain, 0.42


@functools.lru_cache(64)
def _column_salt(n: int, device: str) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.int64) * 0x9E3779B1 >> 7).to(torch.int16).to(device)


def in_bf16(y, passes, k, block_w):
    """Give y [M, N] (bfloat16) the error of a bf16 destination: y (1 + gain + a h) + b h rms(row).

    h is a pseudo-random number from a hash of y's bits and the column, +-[0.5, 2), mean square 1.46: the same input
    gives the same output, whatever row it is in.
    """
    size, gain, constant = bf16_destination(passes, k, block_w)
    variance = size**2 - 2 * _ROUNDING**2  # torch rounds the product, and the sum below is rounded once more
    if variance <= 0:
        return y
    a, b = math.sqrt(1 - constant), math.sqrt(constant)
    unit = math.sqrt(variance / (1.458 * (a * a + b * b + 1.6 * a * b)))
    salt = _column_salt(y.shape[-1], str(y.device))
    if y.device.type == "cpu":
        from . import fused  # numba and its compiler: imported when first needed

        flat, salt = (t.reshape(-1).numpy().view("uint16") for t in (y.contiguous().view(torch.int16), salt))
        fused.perturb(flat, y.shape[-1], salt, gain, unit * a, unit * b)
        return torch.from_numpy(flat.view("int16")).view(torch.bfloat16).view(y.shape)
    h = (y.view(torch.int16) * 0x6255).add_(salt)
    h.bitwise_xor_((h >> 8) & 0xFF).mul_(0x2F35).bitwise_xor_((h >> 8) & 0xFF).bitwise_and_(-0x7F01).bitwise_or_(0x3F00)
    rms = torch.linalg.vector_norm(y, dim=-1, keepdim=True, dtype=torch.float32).div_(math.sqrt(y.shape[-1]))
    amplitude = torch.abs(y).mul_(unit * a).add_(rms.mul_(unit * b).to(torch.bfloat16))
    error = torch.mul(y, gain).addcmul_(h.view(torch.bfloat16), amplitude)
    return error.add_(y)


def passes(fidelity: str, w_dtype: str = "bfloat16") -> int:
    """How many products of operand pieces the fidelity sums."""
    four = w_dtype == "bfloat4_b"
    return {"LoFi": 1, "HiFi2": 1 if four else 2}.get(fidelity, 3 if four else 4)
