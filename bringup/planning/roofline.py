"""Predicted time of an op log on a system; always labelled "predicted", never measured.

Each program takes the larger of its DRAM traffic over the memory's rate and its products over the matrix unit's, a
collective what its links and its steps take, and each what starting it costs: the device's own start-up when the
program is replayed from a trace, the host's dispatch when it is not. What a call reads back to the host is copied at
the host's rate. Left out: traffic that stays in L1, element-wise arithmetic (DRAM is slower), and what
the host does between steps.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from bringup.backends import systems

# How often a product goes through the matrix unit. Tenstorrent, tt-metal tech_reports/matrix_engine/matrix_engine.md.
PHASES = {"LoFi": 1, "HiFi2": 2, "HiFi3": 3, "HiFi4": 4}
WEIGHTS = ("ttnn.linear", "ttnn.matmul")
READ = "ttnn.to_torch"
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_broadcast", "all_to_all")
KINDS = ("weights", "kv", "dispatch", "ccl", "other")
CONSTANTS = Path(__file__).with_name("constants.json")


@dataclass(frozen=True)
class Rates:
    """What no data sheet says, of one kind of chip; `calibration` fits them.

    Seconds are per program, or per collective and mesh axis.
    """

    dram_fraction: float  # of the memory's rate, reached by a large product
    matrix_fraction: float  # of the matrix unit's rate, likewise
    traced_seconds: float  # start of a program inside a trace
    untraced_seconds: float  # dispatch of a program by the host
    collective_seconds: float  # a collective along one mesh axis, beside its bytes
    mesh_read_bytes_per_second: float  # logits of several chips, copied to the host and joined there

    @classmethod
    def fitted(cls, chip):
        found = json.loads(CONSTANTS.read_text())["rates"][chip.name]
        return cls(**{f.name: found[f.name] for f in fields(cls)})


class Work(NamedTuple):
    """What one call asks of one chip: how long that takes is another question."""

    op: str
    kind: str  # weights, kv, ccl or other
    programs: int
    dram_bytes: float
    flops: float  # on the matrix unit
    phases: int  # of the matrix unit; 0: not used
    axes: int  # mesh axes along which a collective runs
    link_bytes: float
    host_bytes: float


@dataclass(frozen=True)
class OpTime:
    """Predicted time of one public op call, or of several (`calls`); `dispatch` is the part of it spent on starting.

    bound    what it mostly waits for: dram, compute, ccl, host or dispatch
    kind     weights, kv, ccl or other, for the split
    bytes    DRAM traffic of one chip; flops likewise
    """

    op: str
    seconds: float
    bound: str
    bytes: float
    flops: float
    calls: int
    programs: int
    kind: str
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


# What is asked ------------------------------------------------------------------------------------------------------


def work(record, system, users=1, context=128):
    """The `Work` of one record of `ttnn_emulator.op.record()`; None where the chip has nothing to do."""
    if record.op == READ:
        total = sum(spec.bytes for spec in record.inputs) * max(1, record.chips)  # the shares of all chips
        return Work(record.op, "other", 0, 0, 0, 0, 0, 0, total)
    if not record.launches:
        return None
    launches = record.launches
    collective = is_collective(launches[0].op)
    axes = [n for n in system.mesh_shape if n > 1] if collective else []
    reduces = "all_reduce" in record.op  # a reduce_scatter and an all_gather along each axis (ttnn 0.81.1)
    rounds = 2 if reduces else 1
    whole = max(spec.bytes for spec in (*launches[0].inputs, *launches[0].outputs))
    return Work(
        op=record.op,
        kind=_kind(launches[0].op),
        programs=len(axes) * rounds if collective else len(launches),
        dram_bytes=sum(dram_bytes(each, users, context) for each in launches),
        flops=sum(flops(each, users, context) for each in launches),
        phases=max(_phases(each) for each in launches),
        axes=len(axes),
        link_bytes=sum(rounds * whole * (n - 1) / n for n in axes),
        host_bytes=0,
    )


def _kind(op):
    if op in WEIGHTS:
        return "weights"
    if is_collective(op):
        return "ccl"
    return "kv" if "attention" in op or "cache" in op else "other"


def is_collective(op):
    return op.rpartition(".")[2].startswith(COLLECTIVES)


def _phases(launch):
    given = launch.attrs.get("math_fidelity")
    return 0 if given is None else PHASES[str(getattr(given, "name", given)).rpartition(".")[2]]


def dram_bytes(launch, users, context):
    """What a program reads from and writes to DRAM on one chip; the log has whole operands, and it may use few rows."""
    op, inputs, outputs = launch.op, launch.inputs, launch.outputs
    each = [_in_dram(spec) for spec in inputs]
    if op == "ttnn.embedding":
        each[1] = outputs[0].bytes
    elif "attention_decode" in op:
        share = min(1.0, users * _whole_tiles(context) / _positions(inputs[1]))
        each[1:3] = [share * n for n in each[1:3]]
    elif "chunked_scaled_dot_product" in op:  # a prompt's chunk attends to what the cache holds of the prompt so far
        _, heads, rows, width = inputs[0].shape
        share = min(1.0, launch.flops / (4 * heads * rows * width) / _positions(inputs[1]))
        each[1:3] = [share * n for n in each[1:3]]
    elif op == "ttnn.experimental.rotary_embedding" and len(inputs) > 2:
        rows, length = inputs[0].shape[-2], inputs[1].shape[-2]
        each[1:3] = [n * min(1.0, rows / length) for n in each[1:3]]
    elif op == "ttnn.slice":
        each[0] = min(each[0], outputs[0].bytes)
    return sum(each) + sum(_in_dram(spec) for spec in outputs)


def flops(launch, users, context):
    """Floating-point operations of a program, attention over the users and positions that there are."""
    if "attention_decode" not in launch.op:
        return launch.flops
    _, _, heads, width = launch.inputs[0].shape
    return 4 * users * heads * _whole_tiles(context) * width


def _in_dram(spec):
    memory = spec.memory_config
    return spec.bytes if memory is not None and memory.buffer_type.name == "DRAM" else 0


def _positions(cache):
    """Positions of all users in a cache [users or blocks, KV heads, positions, head_dim]."""
    return cache.shape[0] * cache.shape[2]


def _whole_tiles(context):
    return -(-context // 32) * 32


# How long it takes --------------------------------------------------------------------------------------------------


def waits(work, system, traced, rates):
    """Seconds by what a call waits for; `dispatch` comes on top of the longest of the others."""
    chip = system.chip
    found = {"dram": work.dram_bytes / (rates.dram_fraction * chip.dram_bytes_per_second)}
    if work.phases:
        peak = chip.cores * chip.cycles_per_second * chip.flops_per_cycle / work.phases
        found["compute"] = work.flops / (rates.matrix_fraction * peak)
    if work.axes:
        found["ccl"] = work.axes * rates.collective_seconds + work.link_bytes / (
            system.links * chip.link_bytes_per_second
        )
    if work.host_bytes:
        rate = chip.host_bytes_per_second if system.chips == 1 else rates.mesh_read_bytes_per_second
        found["host"] = work.host_bytes / rate
    found["dispatch"] = work.programs * (rates.traced_seconds if traced else rates.untraced_seconds)
    return found


def seconds(work, system, traced, rates):
    found = waits(work, system, traced, rates)
    return found.pop("dispatch") + max(found.values())


def op_times(records, system, *, traced=False, users=1, context=128, rates=None):
    """An `OpTime` for each record of `ttnn_emulator.op.record()` that takes time on the system.

    users, context    how many users a decode step has, and the positions each attends to: the log has the cache whole
    """
    system = systems.get(system)
    rates = rates or Rates.fitted(system.chip)
    asked = [work(record, system, users, context) for record in records]
    return [_op_time(each, system, traced, rates) for each in asked if each is not None]


def _op_time(work, system, traced, rates):
    found = waits(work, system, traced, rates)
    bound, dispatch = max(found, key=found.get), found.pop("dispatch")
    total = dispatch + max(found.values())
    return OpTime(work.op, total, bound, work.dram_bytes, work.flops, 1, work.programs, work.kind, dispatch)


def by_op(times):
    """One `OpTime` for each op, the slowest first; its bound is that of most of its seconds."""
    groups = {}
    for time in times:
        groups.setdefault(time.op, []).append(time)
    summed = []
    for op, each in groups.items():
        bounds = {}
        for time in each:
            bounds[time.bound] = bounds.get(time.bound, 0) + time.seconds
        names = ("seconds", "bytes", "flops", "calls", "programs", "dispatch")
        total = {name: sum(getattr(time, name) for time in each) for name in names}
        summed.append(OpTime(op=op, bound=max(bounds, key=bounds.get), kind=each[0].kind, **total))
    return sorted(summed, key=lambda time: -time.seconds)


def predict(
    prefill_records, decode_records, system, *, traced=False, users=1, context=128, rates=None, read_logits=True
):
    """The `Prediction` of a prompt's log and a decode step's. Only the decode step is ever traced.

    With `read_logits` False the next token is chosen on the device: what the logs read to the host does not count.
    """
    system = systems.get(system)
    rates = rates or Rates.fitted(system.chip)
    if not read_logits:
        prefill_records, decode_records = without_reads(prefill_records), without_reads(decode_records)
    prefill = op_times(prefill_records, system, users=users, context=context, rates=rates)
    decode = op_times(decode_records, system, traced=traced, users=users, context=context, rates=rates)
    weights = sum(launch.inputs[1].bytes for r in decode_records for launch in r.launches if launch.op in WEIGHTS)
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
        found["dispatch"] += time.dispatch
        found[time.kind] += time.seconds - time.dispatch
    return found
