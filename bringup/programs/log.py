"""What a program called: a line for each call in a file, and a table of ops with memory and predicted time."""

import json
import sys
from contextlib import contextmanager

from bringup import backends, files
from bringup.backends import systems
from bringup.console import screen
from bringup.errors import BadInput
from bringup.files import writable


@contextmanager
def kept(path, system):
    """With a path, the op log of the body is written there, also when it fails, and shown on standard error."""
    if path is None:
        yield
        return
    active = backends.choice.ACTIVE
    if active.name != "emulator":
        raise BadInput("--log is the emulator's op log", got=f"backend {active.name}", hint="leave it out")
    writable(path)
    import ttnn_emulator

    with ttnn_emulator.record() as records:
        try:
            yield
        finally:
            write(path, records, systems.get(system))


def write(path, records, system):
    """{"system", "ops": the table, "peak": bytes of a chip, "calls": [record, ...]}"""
    table = summary(records, system)
    peak = {kind: max((getattr(r, f"{kind}_bytes") for r in records), default=0) for kind in ("dram", "l1")}
    found = {"system": system.name, "ops": table, "peak": peak, "calls": [r.as_dict() for r in records]}
    files.write(path, json.dumps(found, indent=1, default=str) + "\n")
    show(table, peak, len(records))


def summary(records, system):
    """Calls, bytes, flops and predicted seconds by op, the longest first; ops that run no program have no time."""
    from bringup.planning import roofline

    times = {t.op: t for t in roofline.by_op(roofline.op_times(records, system, traced=False))}
    rows = {}
    for r in records:
        row = rows.setdefault(r.op, {"op": r.op, "calls": 0, "bytes": 0, "flops": 0})
        row["calls"] += 1
        row["bytes"] += r.bytes
        row["flops"] += r.flops
    for op, row in rows.items():
        row["predicted_seconds"] = times[op].seconds if op in times else None
    return sorted(rows.values(), key=lambda row: -(row["predicted_seconds"] or 0))


def show(table, peak, calls):
    from rich.table import Table

    console = screen(stderr=True, file=sys.stderr)
    shown = Table(title=f"{calls} calls; predicted, untraced", title_justify="left")
    for name in ("op", "calls", "MB", "GFLOP", "predicted ms"):
        shown.add_column(name, justify="left" if name == "op" else "right")
    for row in table:
        seconds = row["predicted_seconds"]
        shown.add_row(
            row["op"], str(row["calls"]), f"{row['bytes'] / 1e6:.1f}", f"{row['flops'] / 1e9:.2f}",
            "" if seconds is None else f"{1e3 * seconds:.3f}",
        )  # fmt: skip
    console.print(shown)
    console.print(f"most after a call, one chip: DRAM {peak['dram'] / 1e6:.1f} MB, L1 {peak['l1'] / 1e6:.1f} MB")
