"""Multiply-adds a second of the exact matrix unit, per core, for each fidelity and destination.

    python bench/exact_matmul.py [--rows 1,32] [--k 2048] [--n 2048] [--threads 1] [--json FILE]

Beside each figure: its ratio to the target of 100 million, and to a plain torch bfloat16 product on the same
threads. `--check` first compares every kernel with the plain integer rule of the tests, bit for bit.
"""

import argparse
import json
import pathlib
import platform
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numba
import numpy as np
import torch

from ttnn_emulator.numerics import matrix_unit

TARGET = 100e6


def best(f, seconds=1.0):
    """The shortest of the runs that fit in the time, and at least three."""
    f()
    times, stop = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", default="1,32", help="rows of x (default: 1,32)")
    p.add_argument("--k", type=int, default=2048)
    p.add_argument("--n", type=int, default=2048)
    p.add_argument("--threads", type=int, default=1, help="threads (default: 1; the figures are per thread)")
    p.add_argument("--check", action="store_true", help="compare with the tests' oracle first")
    p.add_argument("--json", metavar="FILE", help="write the figures")
    a = p.parse_args()
    numba.set_num_threads(a.threads)
    torch.set_num_threads(a.threads)
    g = torch.Generator().manual_seed(0)
    w = (torch.randn(a.n, a.k, generator=g) * 0.02).bfloat16()  # [N, K], as HF stores weights
    w_bits = w.view(torch.int16).numpy().view(np.uint16).T
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {a.threads} threads",
        "k": a.k,
        "n": a.n,
        "cases": [],
    }
    for rows in map(int, a.rows.split(",")):
        x = torch.randn(rows, a.k, generator=g).bfloat16()
        x_bits = x.view(torch.int16).numpy().view(np.uint16)
        plain = rows * a.k * a.n / best(lambda x=x: x @ w.T) / a.threads
        print(f"{rows} x {a.k} x {a.n}: torch bfloat16 {plain / 1e6:,.0f} million a second and core")
        for fidelity in matrix_unit.PHASES:
            for fp32 in (False, True):
                if a.check:
                    check(x_bits[:2, :128], w_bits[:128, :40], fidelity, fp32)
                run = lambda x=x_bits, f=fidelity, d=fp32: matrix_unit.matmul(x, w_bits, f, d)  # noqa: E731
                rate = rows * a.k * a.n / best(run) / a.threads
                destination = "fp32" if fp32 else "bf16"
                result["cases"].append(
                    {"rows": rows, "fidelity": fidelity, "destination": destination, "macs_per_second_per_core": rate,
                     "of_target": rate / TARGET, "of_torch_bf16": rate / plain}
                )  # fmt: skip
                print(
                    f"  {fidelity:5} {destination}  {rate / 1e6:8,.0f} million   {rate / TARGET:5.1f}x the target   "
                    f"{rate / plain:.3f}x torch"
                )
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(result, indent=1) + "\n")


def check(x, w, fidelity, fp32):
    from tests.numerics import fpu_reference

    want = fpu_reference.matmul(x, w, fidelity, fp32, raw=True)
    got = matrix_unit.matmul(x, w, fidelity, fp32).view(np.uint32).astype(np.int64)
    if not (want == got).all():
        sys.exit(
            f"{fidelity}, {'fp32' if fp32 else 'bf16'} destination: {(want != got).sum()} of {want.size} bits differ"
        )


if __name__ == "__main__":
    main()
