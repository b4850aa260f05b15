"""What `bringup bench` measures beside whole models: conversion of weights, host time of an op, the exact matrix unit.

Each figure is the best of several runs: on a shared machine the one least disturbed.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bringup.errors import BringupError
from bringup.files import PACKAGES, PROJECT

WEIGHT = (4096, 14336)  # in, out: the MLP of a 7B model
#: The library's own conversion, where it is not here to be measured: bfloat16 to bfloat8_b, GB of input a second.
TTNN_GB_PER_SECOND = 0.36
TTNN_SOURCE = "recorded: ttnn 0.81.1 on two cores of an AMD EPYC"


def best(run, seconds=1.0, least=3):
    """The shortest of the runs that fit in the time."""
    run()
    times, stop = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < stop:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def conversion_rate(ttnn, device=None, seconds=2.0):
    """GB of bfloat16 a second that `from_torch` turns into bfloat8_b tiles: an HF weight, transposed on the way."""
    import torch

    weight = (torch.randn(WEIGHT[::-1], generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16().T
    how = {"dtype": ttnn.bfloat8_b, "layout": ttnn.TILE_LAYOUT} | ({} if device is None else {"device": device})
    return weight.numel() * 2e-9 / best(lambda: ttnn.from_torch(weight, **how), seconds)


def library_conversion_rate():
    """(GB a second, where from): measured where a Python has the wheel, else as recorded."""
    from bringup.backends.verify import python_with_wheel
    from bringup.errors import BringupError

    try:
        python = python_with_wheel(os.environ.get("BRINGUP_TTNN_PYTHON"))
        code = (
            "from bringup import backends; from bringup.bench import parts; backends.activate('mock', 'n150'); "
            "import ttnn; print(parts.conversion_rate(ttnn))"
        )
        done = subprocess.run(
            [python, "-c", code], check=True, capture_output=True, text=True, timeout=300,
            env=os.environ | {"PYTHONPATH": str(PACKAGES)},
        )  # fmt: skip
        return float(done.stdout.split()[-1]), f"measured with {python}"
    except (BringupError, OSError, ValueError, IndexError, subprocess.SubprocessError):
        return TTNN_GB_PER_SECOND, TTNN_SOURCE


def op_overhead(ttnn, device):
    """Microseconds of a call of the cheapest ops on one tile, less the arithmetic on the same values."""
    import torch

    from ttnn_emulator import numerics

    with torch.inference_mode():
        x, y = (
            ttnn.from_torch(torch.randn(1, 1, 32, 32).bfloat16(), layout=ttnn.TILE_LAYOUT, device=device)
            for _ in range(2)
        )
        a, b = x.contents()[0], y.contents()[0]
        n, kinds = numerics.now(), ["bfloat16"] * 3
        calls = {
            "ttnn.add": (lambda: ttnn.add(x, y), lambda: n.add(a, b, *kinds)),
            "ttnn.silu": (lambda: ttnn.silu(x), lambda: n.unary("silu", a, "bfloat16")),
            "ttnn.to_memory_config": (lambda: ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG), lambda: a.clone()),
        }
        return {name: 1e6 * (_often(call) - _often(arithmetic)) for name, (call, arithmetic) in calls.items()}


def _often(call, times=200):
    def run():
        for _ in range(times):
            call()

    return best(run, 0.3) / times


def exact_rate():
    """Multiply-adds a second of the exact matrix unit on one core, by fidelity and destination: [32, 2048] x [2048,
    2048]."""
    import numba
    import numpy as np
    import torch

    from ttnn_emulator.numerics import matrix_unit

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x, w = (
        torch.randn(n, 2048, generator=generator).bfloat16().view(torch.int16).numpy().view(np.uint16)
        for n in (32, 2048)
    )
    rates = {}
    for fidelity, wide in (("LoFi", False), ("HiFi2", False), ("HiFi3", True)):
        seconds = best(lambda fidelity=fidelity, wide=wide: matrix_unit.matmul(x, w.T, fidelity, wide), 0.5)
        rates[f"{fidelity}, {'fp32' if wide else 'bf16'} destination"] = x.size * 2048 / seconds
    numba.set_num_threads(before)
    return rates


def help_seconds():
    """Start to end of `eval.py --help`."""
    command = [sys.executable, str(PROJECT / "eval.py"), "--help"]
    return best(lambda: subprocess.run(command, check=True, capture_output=True), 1.0)


#: Figure -> what is run, as people run it; what it has compiled or written to the cache folder is there.
LLAMA = "models/meta-llama/Llama-3.2-1B/n150/functional/model.py"
ALLAM = "models/humain-ai/ALLaM-7B-Instruct-preview/n150/functional/model.py"
COMMANDS = {
    "exact_eval": [
        "eval",
        LLAMA,
        "--model",
        "checkpoints/tiny-llama",
        "--numerics",
        "exact",
        "--min_new_tokens",
        "100",
    ],
    "demo": ["demo"],
}
#: Runs a command and leaves its peak memory. Not from here: Linux counts what the one who starts a process has had
#: resident as the new process's own, and this is small.
LAUNCHER = (
    "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:]); _, status, usage = os.wait4(p.pid, 0); "
    "print(usage.ru_maxrss, file=open('peak', 'w')); sys.exit(os.waitstatus_to_exitcode(status) and 1)"
)
LARGE = {"large_eval": ["eval", ALLAM, "--random-weights", "--min_new_tokens", "16", "--max_new_tokens", "16"]}


def commands(clock="wall", large=False):
    """{name_seconds, name_gib: peak memory} of a second run of each command."""
    now = {"wall": time.perf_counter, "cpu": _of_children}[clock]
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "HF_HUB_OFFLINE": "1"}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in (COMMANDS | (LARGE if large else {})).items():
            command = [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "bringup.cli", *words]
            for _ in range(2):
                start = now()
                done = subprocess.run(
                    command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                seconds = now() - start
                if done.returncode:
                    raise BringupError(f"bringup {' '.join(words)} failed", got=done.stdout.strip()[-500:])
            peak = int((Path(folder) / "peak").read_text()) / 2**20
            found |= {f"{name}_seconds": seconds, f"{name}_gib": peak}
    return found


def _of_children():
    """Processor seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(numerics=None):
    """All of them, in this process, on the emulator."""
    from bringup import backends

    backends.activate("emulator", "n150", numerics)
    import ttnn

    with backends.open_system("n150") as device:
        rate, overhead = conversion_rate(ttnn, device), op_overhead(ttnn, device)
    library, source = library_conversion_rate()
    return {
        "conversion_gb_per_second": rate,
        "ttnn_conversion_gb_per_second": library,
        "ttnn_conversion": source,
        "op_overhead_microseconds": overhead,
        "eval_help_seconds": help_seconds(),
        "exact_macs_per_second_per_core": exact_rate(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
