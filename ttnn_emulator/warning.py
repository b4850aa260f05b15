"""The library's log, of which the emulator has the warnings: when they come, their words, and where they are written.

A line on standard output, `time | warning  | category | text`, as far as `TT_METAL_LOGGER_LEVEL` (or `TT_LOGGER_LEVEL`)
lets warnings pass. The library's lines end in the place in its sources, which is left out here.

Source    ttnn 0.81.1 on a mock cluster: every recorded call made again with its log open
"""

from __future__ import annotations

import contextlib
import datetime
import os

from .config import MathFidelity

_SILENT = {"error", "critical", "fatal", "off"}  # levels above a warning

_given: set = set()  # of those that the library gives once
_collectors: list[list[str]] = []

HIFI4_FP32 = (
    "On Wormhole with fp32 accumulation, output accuracy can be worse with HiFi4 than HiFi3 due to a hardware bug. "
    "Prefer using HiFi3 with fp32 accumulation on Wormhole."
)
LEGACY_TILIZE = (
    "ttnn::tilize: Using input shard spec for output tensor because the legacy sharded optimized program factory is "
    "being used"
)
GATHER_DEPRECATED = (
    "The following ttnn.all_gather args are deprecated and will be removed in September-2026: num_links, topology, "
    "chunks_per_sync, num_workers_per_link, num_buffers_per_channel, use_l1_small_for_semaphores."
)
SEMAPHORES_IN_L1 = (
    "Allocating semaphores in L1, which may fragment L1 and reduce headroom for subsequent op allocations. Pass a "
    "non-zero l1_small_size to ttnn.open_device / ttnn.open_mesh_device to reserve an L1_SMALL region for them."
)
NO_LINKS = "Failed to discover available ethernet links; falling back to 1 link"
SEEDS_ALONE = (  # the library then seeds all users with one, which the emulator does not
    "Logic error during selecting ManualSeed program factory, defaulting to "
    "ManualSeedSingleSeedToAllCoresProgramFactory"
)
ACTIVE_TRACE = (
    "Allocating device buffers is potentially unsafe due to the existence of an active trace. These buffers may be "
    "corrupted once a trace is executed if they are not released before then. Use the trace allocation tracker to "
    "verify."
)


def warn(text: str, category: str = "Op", once=None) -> None:
    """Gives a warning; where `once` is said, a single time for each value of it in a process."""
    if _collectors:
        if text not in _collectors[-1]:
            _collectors[-1].append(text)
        return
    if once is not None:
        if once in _given:
            return
        _given.add(once)
    level = os.environ.get("TT_METAL_LOGGER_LEVEL") or os.environ.get("TT_LOGGER_LEVEL") or "info"
    if level.lower() not in _SILENT:
        time = datetime.datetime.now().isoformat(" ", "milliseconds")
        print(f"{time} | warning  | {category:>15} | {text}", flush=True)


@contextlib.contextmanager
def collected():
    """The warnings given inside, each text once and also those that the library says once in a process. None is
    printed, and what is collected further out does not have them."""
    found: list[str] = []
    _collectors.append(found)
    try:
        yield found
    finally:
        _collectors[:] = [each for each in _collectors if each is not found]


def check_fidelity(config, chip) -> None:
    """Warns of a compute config that asks for HiFi4 with an fp32 destination where the chip has that erratum."""
    if config is None or not config.fp32_dest_acc_en or config.math_fidelity is not MathFidelity.HiFi4:
        return
    if "HiFi4 with an fp32 destination" in chip.errata:
        warn(HIFI4_FP32, once=HIFI4_FP32)
