"""How `fast` multiplies matrices on this machine: all of its products, one place.

    bf16   torch's bfloat16 product: processors that multiply bfloat16 (AMX, AVX-512 BF16)
    rows   a large weight by the own kernel (`few_rows`) up to MANY rows; all else as fp32
    fp32   by the own kernel up to TILE rows; else torch's float32 product, a large operand in parts that stay in the
           cache

Without bf16 units torch's bfloat16 product costs 3 to 150 times the float32 one. One or two rows against a large weight
go by `few_rows` on every CPU; on another torch device the product is its own.
The result is the same whatever the way: products of bfloat16 are exact in fp32, sums are fp32 in an order of the
library's own, and one rounding ends it; so two ways differ where a sum falls beside a rounding boundary, by an ulp of
bfloat16 (`tests/numerics/test_product.py`).

The way is chosen once: bf16 where the processor has units for it, else by a measurement of some milliseconds, which the
cache folder keeps. `TTNN_EMULATOR_PRODUCT` (bf16, rows, fp32) overrides it.
"""

import functools
import hashlib
import json
import math
import os
import platform
import threading
import time
from pathlib import Path

import torch

from .rounding import truncate

WAYS = ("bf16", "rows", "fp32")
VARIABLE = "TTNN_EMULATOR_PRODUCT"
PART = 1 << 20  # elements of an operand that are opened at a time: 4 MiB in float32
TILE, MANY = 32, 384  # rows up to which the own kernel is taken: always, and where it was faster with 128
TOGETHER = 4  # rows of a batch that go to it together
MOST = 1 << 26  # elements of a batched result that is computed at once


# ---------------------------------------------------------------- the choice


@functools.cache
def choice() -> tuple[str, str]:
    """(way, why) on this machine's CPU."""
    named = os.environ.get(VARIABLE)
    if named:
        if named not in WAYS:
            raise ValueError(f"{VARIABLE}={named!r} is not one of {', '.join(WAYS)}")
        return named, f"{VARIABLE} says so"
    if platform.machine().lower() in ("x86_64", "amd64"):
        has = torch.cpu.get_capabilities()
        units = [name for name in ("amx_bf16", "avx512_bf16") if has.get(name)]
        level = torch.backends.cpu.get_cpu_capability()
        if units and "AVX512" in level and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "bf16", f"the processor has {units[0]}"
        return _measured(("rows", "fp32"), f"{level} without bf16 units, ")
    return _measured(WAYS, "")


def _measured(ways: tuple, reason: str) -> tuple[str, str]:
    """By the time of a product of 128 rows, kept in the cache folder."""
    folder = Path(os.environ.get("BRINGUP_CACHE") or "~/.cache/ttnn-bringup").expanduser()
    kept = folder / "product.json"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    key = f"{platform.machine()} {name} {torch.backends.cpu.get_cpu_capability()} "
    ours = hashlib.sha256(Path(__file__).with_name("few_rows.py").read_bytes()).hexdigest()[:8]
    key += f"torch {torch.__version__} {torch.get_num_threads()} threads, few_rows {ours}"
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        x, w = torch.ones(128, 1024, dtype=torch.bfloat16), torch.ones(1024, 1024, dtype=torch.bfloat16).T
        known[key] = dict.fromkeys(ways, math.inf)
        for _ in range(7):  # in turns: threads of one way's library may still wait in a loop while another is measured
            for way in ways:
                known[key][way] = min(known[key][way], _seconds(_MULTIPLY[way], x, w))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
        except OSError:
            pass  # measured again in the next process
    times = known[key]
    way = min(times, key=times.get)
    return way, f"{reason}measured: " + ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in times.items())


def _seconds(multiply, x, w):
    start = time.perf_counter()
    multiply(x, w, 0)
    return time.perf_counter() - start


# ---------------------------------------------------------------- the product


def product(x: torch.Tensor, w: torch.Tensor, drop: int = 0, wide: bool = False) -> torch.Tensor:
    """x @ w, summed in fp32: rounded once to bfloat16, or (`wide`) as float32.

    Shapes    x [..., M, K], w [..., K, N] -> [..., M, N]; batch dimensions broadcast
    Dtypes    bfloat16; with `wide` also float32
    Numerics  w counts without its `drop` low bits
    Speed     w is best a transposed view of a contiguous [N, K], as HF stores it
    """
    if wide:
        return _in_parts(x, w, drop, wide=True)
    if x.device.type != "cpu":
        return x @ _cut(w, drop)
    return _MULTIPLY[choice()[0]](x, w, drop)


def _cut(w, drop):
    return truncate(w, 8 - drop) if drop else w


def _by_rows(x, w, drop, most):
    """The own kernel's product of up to `most` rows, or None where it does not fit."""
    batch = w.shape[:-2]
    if x.shape[:-2] == batch and x.shape[-2] <= (min(most, TOGETHER) if batch else most):
        from . import few_rows  # numba and its compiler: imported when first needed

        if len(batch) > 1:
            x, w = x.flatten(0, -3), w.flatten(0, -3)
        if few_rows.fits(x, w):
            return few_rows.product(x, w, drop).view(*batch, x.shape[-2], w.shape[-1])
    return None


def _bf16(x, w, drop):
    y = _by_rows(x, w, drop, 2)
    if y is not None:
        return y
    if not drop or w.dim() > 2:
        return x @ _cut(w, drop)
    columns = max(32, PART // w.shape[0])
    return torch.cat([x @ _cut(part, drop) for part in w.split(columns, -1)], -1)


def _rows(x, w, drop, most=MANY):
    y = _by_rows(x, w, drop, most)
    return _in_parts(x, w, drop) if y is None else y


def _fp32(x, w, drop):
    return _rows(x, w, drop, TILE)


def _in_parts(x, w, drop, wide=False):
    dtype = torch.float32 if wide else torch.bfloat16
    x = x.to(torch.float32)
    if w.dim() > 2:
        return _batched(x, _cut(w, drop), dtype)
    k, n = w.shape
    rows = x.reshape(-1, k)
    if w.dtype == torch.float32 or w.device.type != "cpu":
        return (rows @ _cut(w, drop).to(torch.float32)).to(dtype).view(*x.shape[:-1], n)
    columns = min(n, max(256, PART // max(k, 1)))  # fewer cost the library more than they save
    out = torch.empty(rows.shape[0], n, dtype=dtype)
    opened = _opened(columns * k)
    turned = w.stride(0) == 1
    for start in range(0, n, columns):
        part = _cut(w[:, start : start + columns], drop)
        own = opened[: part.numel()]
        own = own.view(part.shape[::-1]).T if turned else own.view(part.shape)
        out[:, start : start + columns] = rows @ own.copy_(part)
    return out.view(*x.shape[:-1], n)


_threads = threading.local()


def _opened(size):
    """Memory of the thread for an opened part: new pages each time would cost as much as opening."""
    kept = getattr(_threads, "opened", None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):
            kept = _threads.opened = torch.empty(size, dtype=torch.float32)
    return kept


def _batched(x, w, dtype):
    """Batch by batch where all at once would hold too much."""
    batch = x.shape[:-2]
    batch = batch if batch == w.shape[:-2] else torch.broadcast_shapes(batch, w.shape[:-2])
    m, n = x.shape[-2], w.shape[-1]
    if math.prod(batch) * m * n <= MOST:
        return (x @ w.to(torch.float32)).to(dtype)
    out = torch.empty(*batch, m, n, dtype=dtype, device=x.device)
    x, w = (t.expand(*batch, *t.shape[-2:]) for t in (x, w))
    for at in torch.cartesian_prod(*map(torch.arange, batch)).reshape(-1, len(batch)).tolist():
        out[tuple(at)] = x[tuple(at)] @ w[tuple(at)].to(torch.float32)
    return out


_MULTIPLY = {"bf16": _bf16, "rows": _rows, "fp32": _fp32}
