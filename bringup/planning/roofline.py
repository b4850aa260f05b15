"""Predicted time of an op log on a system; always labelled "predicted", never measured.

What each program takes on the chip is `kernels`'. A trace replays one after the other. Without one the host makes the
calls ahead of the chip: a phase takes the longer of both. What a call reads back to the host comes on top. Left out:
what the host does between steps.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

from bringup.backends import systems
from bringup.planning import kernels
from bringup.planning.kernels import PRODUCTS, Rates

READ = "ttnn.to_torch"
KINDS = ("weights", "kv", "dispatch", "ccl", "other")


class Work(NamedTuple):
    """What one call asks of one chip: how long that takes is another question."""

    op: str
    programs: tuple  # of Kernel
    host_bytes: float = 0


@dataclass(frozen=True)
class OpTime:
    """Predicted time of one public op call, or of several (`calls`); `dispatch` is the part of it spent on starting.

    bound    what it mostly waits for: dram, compute, ccl, host or dispatch
    split    the seconds without dispatch by kind of program: weights, kv, ccl, other
    bytes    DRAM traffic of one chip; flops likewise
    """

    op: str
    seconds: float
    bound: str
    bytes: float
    flops: float
    calls: int
    programs: int
    split: dict
    dispatch: float


@dataclass(frozen=True)
class Prediction:
    """Speed of one system: a prompt, then tokens of each user. `split` has the seconds of a decode step by kind."""

    ttft_seconds: float
    tokens_per_second_per_user: float
    split: dict
    weights_bound_tps: float
    traced: bool

    def as_dict(self):
        return {"label": "predicted", **asdict(self)}


def work(record, system, users=1, context=128):
    """The `Work` of one record of `ttnn_emulator.op.record()`; None where neither chip nor host has anything to do."""
    if record.op == READ:
        total = sum(spec.bytes for spec in record.inputs) * max(1, record.chips)  # the shares of all chips
        return Work(record.op, (), total)
    programs = tuple(kernels.kernel(launch, system, users, context) for launch in record.launches)
    return Work(record.op, programs) if programs else None


def read_seconds(host_bytes, joined, rates):
    """Seconds in which the host has so many bytes of logits; `joined`: the shares of several chips, put together."""
    return host_bytes / (rates.mesh_read_bytes_per_second if joined else rates.read_bytes_per_second)


def op_times(records, system, *, traced=False, users=1, context=128, rates=None):
    """An `OpTime` for each record of `ttnn_emulator.op.record()` that takes time on the system.

    users, context    how many users a decode step has, and the positions each attends to: the log has the cache whole
    """
    system = systems.get(system)
    rates = rates or Rates.fitted(system.chip)
    asked = [each for each in (work(record, system, users, context) for record in records) if each is not None]
    times = [_op_time(each, system, rates) for each in asked]
    calls = sum(bool(each.programs) for each in asked)
    late = 0 if traced else calls * rates.call_seconds - sum(t.seconds for t in times if t.programs)
    return [_waiting(t, late / calls) if late > 0 and t.programs else t for t in times]


def _op_time(work, system, rates):
    if not work.programs:
        read = read_seconds(work.host_bytes, system.chips > 1, rates)
        return OpTime(work.op, read, "host", 0, 0, 1, 0, {"other": read}, 0)
    found: dict = {}
    kinds: dict = {}
    total = 0.0
    for program in work.programs:
        waits = {name: float(value) for name, value in kernels.waits(program, system, rates).items()}
        _add(found, waits)
        seconds = float(kernels.seconds(program, system, rates))
        _add(kinds, {program.kind: seconds - waits["dispatch"]})
        total += seconds
    dispatch = found["dispatch"]
    found["dram"] = found.get("dram", 0) + found.pop("write", 0)
    n_bytes = sum(p.read + p.written for p in work.programs)
    flops = sum(p.flops for p in work.programs)
    bound = max(found, key=found.__getitem__)
    return OpTime(work.op, total, bound, n_bytes, flops, 1, len(work.programs), kinds, dispatch)


def _add(sums, terms):
    """Adds to each sum its term."""
    for name, value in terms.items():
        sums[name] = sums.get(name, 0.0) + value


def _waiting(time, late):
    """The same call where the chip waits for the host so long."""
    bound = "dispatch" if late > time.seconds - time.dispatch else time.bound
    return OpTime(**asdict(time) | {"seconds": time.seconds + late, "dispatch": time.dispatch + late, "bound": bound})


def by_op(times):
    """One `OpTime` for each op, the slowest first; its bound is that of most of its seconds."""
    groups: dict = {}
    for time in times:
        groups.setdefault(time.op, []).append(time)
    summed = []
    for op, each in groups.items():
        bounds: dict = {}
        kinds: dict = {}
        for time in each:
            _add(bounds, {time.bound: time.seconds})
            _add(kinds, time.split)
        names = ("seconds", "bytes", "flops", "calls", "programs", "dispatch")
        total = {name: sum(getattr(time, name) for time in each) for name in names}
        summed.append(OpTime(op=op, bound=max(bounds, key=bounds.get), split=kinds, **total))
    return sorted(summed, key=lambda time: -time.seconds)


def predict(
    prefill_records, decode_records, system, *, traced=False, users=1, context=128, rates=None, read_logits=True,
    traced_prompt=False,
):  # fmt: skip
    """The `Prediction` of a prompt's log and a decode step's, each traced or not.

    With `read_logits` False the next token is chosen on the device: what the logs read to the host does not count.
    """
    system = systems.get(system)
    rates = rates or Rates.fitted(system.chip)
    if not read_logits:
        prefill_records, decode_records = without_reads(prefill_records), without_reads(decode_records)
    prefill = op_times(prefill_records, system, traced=traced_prompt, users=users, context=context, rates=rates)
    decode = op_times(decode_records, system, traced=traced, users=users, context=context, rates=rates)
    weights = sum(launch.inputs[1].bytes for r in decode_records for launch in r.launches if launch.op in PRODUCTS)
    return Prediction(
        ttft_seconds=sum(time.seconds for time in prefill),
        tokens_per_second_per_user=1 / sum(time.seconds for time in decode),
        split=split(decode),
        weights_bound_tps=system.chip.dram_bytes_per_second / weights if weights else float("inf"),
        traced=traced,
    )


def without_reads(records):
    return [record for record in records if record.op != READ]


def split(times):
    """Seconds by kind; starting programs is a kind of its own."""
    found = dict.fromkeys(KINDS, 0.0)
    for time in times:
        _add(found, time.split | {"dispatch": time.dispatch})
    return found
