"""What every op shares: argument checks, the op log, memory, the loop over chips, traces.

An op is a Python function with ttnn's own signature under `@op("ttnn.name")`. Its body is the *rule*: it looks at
specs, raises `DeviceRejects` or `NotEmulated`, and says what comes out. It ends in `launch` (or `update`, for ops that
write into a tensor), which is handed the *compute*: a function from the values of one chip to the values of one chip.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from typing import NamedTuple

import numpy
import torch

from . import dtypes
from .device import MeshDevice
from .dtypes import cpp
from .errors import DeviceRejects, NotEmulated
from .memory import Buffer, BufferType, MemoryConfig, buffer_bytes
from .mesh import Topology
from .numerics.rows import HELD, Repeated, Slices, all_whole, slice_wise, slice_wise_over_chips
from .semaphore import GlobalSemaphore
from .tensor import PlacementShard, Tensor, TensorSpec, TensorTopology, replicated

#: Every public op by its ttnn name; the tests ask that each has a case.
REGISTRY: dict[str, object] = {}


class _State:
    """What is in force: `spec_only`, the log being written (or None), the record of the call being made, and what
    notes the memory in use (or None)."""

    __slots__ = ("spec_only", "log", "current", "recorder")

    def __init__(self):
        self.spec_only, self.log, self.current, self.recorder = False, None, None, None


state = _State()


# ---------------------------------------------------------------- arguments
#: What the annotation of a public parameter takes; annotations that are not here are not checked.
TYPES = {
    "Tensor": Tensor, "Tensor | None": (Tensor, type(None)), "int": int, "float": (int, float), "bool": bool,
    "int | None": (int, type(None)), "float | None": (int, float, type(None)), "bool | None": (bool, type(None)),
    "DataType": dtypes.DataType, "DataType | None": (dtypes.DataType, type(None)),
    "Layout": dtypes.Layout, "Layout | None": (dtypes.Layout, type(None)),
    "MemoryConfig": MemoryConfig, "MemoryConfig | None": (MemoryConfig, type(None)),
    "MeshDevice": MeshDevice, "MeshDevice | None": (MeshDevice, type(None)),
    "GlobalSemaphore | None": (GlobalSemaphore, type(None)), "Topology": Topology,
}  # fmt: skip


def _mistyped(name: str, signature: inspect.Signature, why: str) -> TypeError:
    return TypeError(f"{name}(): incompatible function arguments.\n  {why}\n  want   {name}{signature}")


def op(name: str, *aliases: str):
    """Registers a function as the op `name` (and its aliases) and guards its arguments.

    Annotated parameters are checked by type; a mistake is the library's TypeError. A refusal from inside is told the
    op's name and its operands.
    """

    def decorate(fn):
        signature = inspect.signature(fn)
        checks = {p.name: TYPES.get(p.annotation) for p in signature.parameters.values()}
        positional = [(n, c) for (n, c), p in zip(checks.items(), signature.parameters.values()) if p.kind < 2]
        checks = {n: c for n, c in checks.items() if c is not None}

        @functools.wraps(fn)
        def call(*args, **kwargs):
            for value, (arg, kind) in zip(args, positional):
                if kind is not None and not isinstance(value, kind):
                    raise _mistyped(name, signature, f"got    {arg} = {describe(value)}")
            for arg, value in kwargs.items():
                if arg in checks and not isinstance(value, checks[arg]):
                    raise _mistyped(name, signature, f"got    {arg} = {describe(value)}")
            try:
                if state.log is None or state.current is not None:
                    return fn(*args, **kwargs)
                return _recorded(name, fn, args, kwargs)
            except DeviceRejects as e:
                if e.op is None:
                    named = [(n, v) for (n, _), v in zip(positional, args)] + list(kwargs.items())
                    e.locate(name, [(n, describe(v)) for n, v in named])
                raise
            except TypeError as e:
                if e.__traceback__.tb_next is None:  # the call itself did not bind
                    raise _mistyped(name, signature, str(e)) from None
                raise

        call.op_name = name
        for each in (name, *aliases):
            REGISTRY[each] = call
        return call

    return decorate


def describe(value) -> str:
    """A value as a message shows it: specs whole, everything else short."""
    if isinstance(value, Tensor):
        return str(value.spec)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Tensor) for v in value):
        return "[" + ", ".join(str(v.spec) for v in value) + "]"
    if type(value).__module__.startswith("torch") and hasattr(value, "shape"):
        return f"torch tensor {list(value.shape)} {value.dtype}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


# ---------------------------------------------------------------- modes and the log
@contextlib.contextmanager
def spec_only():
    """Inside, ops check their arguments, allocate and return specs, and compute nothing."""
    before, state.spec_only = state.spec_only, True
    try:
        yield
    finally:
        state.spec_only = before


class Launch(NamedTuple):
    """One program that a call ran on the device."""

    op: str
    inputs: tuple
    outputs: tuple
    flops: int  # floating-point operations on one chip
    attrs: dict  # fidelity and the like

    @property
    def bytes(self) -> int:
        """Bytes read and written on one chip: every operand once."""
        return sum(s.bytes for s in (*self.inputs, *self.outputs))


class OpRecord:
    """One call of a public op: specs in and out, the programs it launched, memory after it, the line that made it.

    `held` says which tensors and which memory (`record(buffers=True)`), else None.
    """

    __slots__ = ("op", "inputs", "outputs", "launches", "dram_bytes", "l1_bytes", "line", "chips", "held")

    def __init__(self, op: str, inputs: tuple):
        self.op, self.inputs, self.outputs, self.launches = op, inputs, (), []
        self.dram_bytes = self.l1_bytes = self.chips = 0
        self.line, self.held = caller(), None

    @property
    def flops(self) -> int:
        return sum(each.flops for each in self.launches)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.launches)

    def as_dict(self) -> dict:
        ins, outs = ([spec_dict(s) for s in specs] for specs in (self.inputs, self.outputs))
        d = {"op": self.op, "inputs": ins, "outputs": outs}
        for each in self.launches:
            d.update(each.attrs)
        return d | {k: getattr(self, k) for k in ("flops", "bytes", "dram_bytes", "l1_bytes", "line", "chips")}

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.inputs))}) -> {', '.join(map(str, self.outputs))}"


def _tensors(values):
    for v in values:
        if isinstance(v, Tensor):
            yield v
        elif isinstance(v, (list, tuple)):
            yield from _tensors(v)


def _recorded(name, fn, args, kwargs):
    given = list(_tensors((*args, *kwargs.values())))
    rec = state.current = OpRecord(name, tuple(t.spec for t in given))
    try:
        result = fn(*args, **kwargs)
    finally:
        state.current = None
    made = list(_tensors((result,)))
    rec.outputs = tuple(t.spec for t in made)
    device = next((t.buffer.device for t in (*made, *given) if t.buffer is not None), None)
    if device is not None:
        rec.chips = device.chips
        rec.dram_bytes, rec.l1_bytes = (a.allocated * a.banks for a in device.allocators.values())
    if state.recorder is not None:
        named = [*zip(inspect.signature(fn).parameters, args), *kwargs.items()]
        others = [(k, describe(v)) for k, v in named if v is not None and next(_tensors((v,)), None) is None]
        rec.held = state.recorder.after(given, made, others, device)
    state.log.append(rec)
    return result


def spec_dict(s: TensorSpec) -> dict:
    """A spec as plain JSON, with the field names of the recorded contract."""
    d = {"shape": list(s.shape), "padded_shape": list(s.padded_shape)}
    d |= {"dtype": dtypes.NAME[s.dtype], "layout": s.layout.name}
    m = s.memory_config
    if m is not None:
        d["memory_config"] = {"memory_layout": m.memory_layout.name, "buffer_type": m.buffer_type.name}
        if m.shard_spec is not None:
            grid = [[*r.start, *r.end] for r in m.shard_spec.grid.ranges()]
            d["memory_config"]["shard_spec"] = {
                "grid": grid, "shape": list(m.shard_spec.shape), "orientation": m.shard_spec.orientation.name,
            }  # fmt: skip
    return d


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def caller() -> str:
    """`file:line` of the nearest frame named model.py, else of the first one outside the emulator."""
    frame, outside = sys._getframe(1), None
    while frame is not None:
        path = frame.f_code.co_filename
        if path.endswith("model.py"):
            return f"{path}:{frame.f_lineno}"
        if outside is None and not path.startswith(_HERE):
            outside = f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "?"


@contextlib.contextmanager
def record(buffers: bool = False):
    """Collects an OpRecord for every call of an op that is made inside; what an op calls in turn is part of it.

    With `buffers` each says in `held` which tensors it took and made, and what is where in memory after it.
    """
    from .held import Recorder

    before = state.log, state.recorder
    state.log, state.recorder = [], Recorder() if buffers else None
    try:
        yield state.log
    finally:
        state.log, state.recorder = before


# ---------------------------------------------------------------- running
def on_device(tensor: Tensor, name: str = "Input tensor") -> Tensor:
    """The tensor, or the refusal of one that is on the host or was freed."""
    if tensor.buffer is None:
        raise DeviceRejects(f"{name} must be on device, got storage type: {cpp(tensor.storage_type())}")
    if not tensor.buffer.alive:
        raise DeviceRejects(f"{name} is not allocated", "it was deallocated earlier")
    return tensor


def allocate(spec: TensorSpec, device: MeshDevice, topology=None) -> Tensor:
    """A device tensor without contents."""
    if not device.is_open:
        raise DeviceRejects("the device is closed")
    return Tensor(spec, _buffer(spec, device), topology=topology or replicated(device.chips))


def _buffer(spec: TensorSpec, device: MeshDevice) -> Buffer:
    bank_bytes, total = buffer_bytes(spec.padded_shape, spec.dtype, spec.layout, spec.memory_config, device.chip)
    shards = spec.memory_config.shard_spec
    return Buffer(device, spec.memory_config.buffer_type, bank_bytes, total, shards and shards.num_cores())


@contextlib.contextmanager
def scratch(device: MeshDevice, *specs: TensorSpec):
    """Inside, the device holds these as well: what the steps of an op hand to one another, allocated in this order."""
    buffers = []
    try:
        for s in specs:
            buffers.append(_buffer(s, device))
        yield
    finally:
        for buffer in reversed(buffers):
            buffer.free()


def keep(device: MeshDevice, program: tuple, kind: BufferType, *sizes: int) -> None:
    """Memory that a program takes when it is new and that stays with the program cache: bytes in each bank.

    Source    ttnn 0.81.1, allocated bytes of ops run once, run again, run after the cache was cleared and without one
    """
    if program not in device.kept:
        buffers = [Buffer(device, kind, size, size * device.allocators[kind].banks) for size in sizes]
        if device.program_cache:
            device.kept[program] = buffers
        else:
            for buffer in buffers:
                buffer.free()


def merge_topology(tensors) -> TensorTopology:
    """The topology of a result: axis by axis, how the first operand is spread that is.

    Source    recorded contract, mesh cases; ttnn 0.81.1 on n300 and t3000
    """
    first = tensors[0].topology
    if all(t.topology is first for t in tensors):
        return first
    return _merged(tuple(t.topology for t in tensors))


@functools.lru_cache(maxsize=4096)
def _merged(topologies: tuple) -> TensorTopology:
    """Of the tensors that are spread (if none is, the first) those with most axes count; on each the first shard."""
    spread = [t for t in topologies if any(isinstance(p, PlacementShard) for p in t.placements())] or topologies[:1]
    axes = max(len(t.distribution_shape()) for t in spread)
    counted = [t for t in spread if len(t.distribution_shape()) == axes]
    placements = tuple(
        next((p for p in on_axis if isinstance(p, PlacementShard)), on_axis[0])
        for on_axis in zip(*(t.placements() for t in counted))
    )
    same = next((t for t in counted if tuple(t.placements()) == placements), None)
    return same or TensorTopology(counted[0].distribution_shape(), placements)


def launch(
    name, inputs, specs, compute, *, topology=None, flops=0, attrs=None, collective=False, through=(), together=None,
    rows: Slices | None = None, into: Tensor | None = None,
):  # fmt: skip
    """Runs one op: allocates what comes out, and computes it chip by chip, identical chips once.

    inputs      tensors or None, in the order in which `compute` takes their values
    specs       the spec of the result, or a list of them (then a list comes back)
    compute     values of one chip -> value(s) of one chip, already on the grid of the result's dtype;
                with `collective`, lists with the values of all chips -> list(s) for all chips
    together    the same for several chips at once, of ops with one result: lists of values -> list of values, or
                None where chip by chip is better
    topology    how the result is spread; by default as the operands are
    flops       floating-point operations on one chip, for the log
    attrs       what else the log should say (fidelity, and so on)
    through     specs of what the device's own steps hand to one another: allocated before the results, freed after
    rows        where `compute` treats slices one by one: along which dims (`numerics.rows`); what repeats is then
                computed once
    into        a tensor that is there already and takes the (one) result
    """
    several = isinstance(specs, list)
    tensors = [t for t in inputs if t is not None]
    for t in tensors:
        if t.buffer is None or not t.buffer.alive:
            on_device(t)
    device = tensors[0].buffer.device
    if topology is None:
        topology = merge_topology(tensors)
    with scratch(device, *through) if through else _NOTHING:
        outputs = (
            [same(on_device(into))]
            if into is not None
            else [allocate(s, device, topology) for s in (specs if several else (specs,))]
        )
    ins, outs = tuple(t.spec for t in tensors), tuple(o.spec for o in outputs)
    program, capture = (name, ins, outs), device.capture
    if capture is None:
        device.programs.add(program)
    elif program not in device.programs:
        raise DeviceRejects(*_COLD_PROGRAM)
    if state.current is not None:
        state.current.launches.append(Launch(name, ins, outs, flops, attrs or {}))
    buffers = [o.buffer if into is None else o.buffer.store for o in outputs]
    if capture is not None:
        work = (inputs, buffers, compute, collective, together, rows)
        capture.add(_run, work, Launch(name, ins, outs, flops, attrs or {}), buffers)
    elif not state.spec_only:
        _run(inputs, buffers, compute, collective, together, rows)
    return outputs if several else outputs[0]


_NOTHING = contextlib.nullcontext()
_COLD_PROGRAM = (
    "Cannot load new binaries during trace capture.This program is not yet in program cache. "
    "Warm up before capturing a trace.See the operation's hash signature for arguments that must match.",
    "run the same ops on tensors of the same specs once before begin_trace_capture",
)


def _run(inputs, buffers, compute, collective=False, together=None, rows=None) -> None:
    if rows is None:
        values = [None if t is None else t.contents() for t in inputs]
    else:
        values = [None if t is None else t.held() for t in inputs]
        if rows is not HELD and (rows.search or any(type(c) is Repeated for v in values if v is not None for c in v)):
            compute = (slice_wise_over_chips if collective else slice_wise)(compute, rows)
            together = together and slice_wise_over_chips(together, rows)
    chips = max((len(v) for v in values if v is not None), default=1)
    if collective:
        n = buffers[0].device.chips
        results = compute(*(None if v is None else v * n if len(v) == 1 else v for v in values))
        results = results if len(buffers) > 1 else (results,)
    elif chips == 1:
        args = [None if v is None else v[0] for v in values]
        result = compute(*args)
        sources = {_storage(v) for v in args if v is not None}
        for buffer, r in zip(buffers, result if len(buffers) > 1 else (result,)):
            buffer.data = [_copy(r) if _storage(r) in sources else r]
        return
    else:
        arguments = [tuple(None if v is None else v[0] if len(v) == 1 else v[i] for v in values) for i in range(chips)]
        keys = [tuple(map(id, args)) for args in arguments]
        distinct = dict(zip(keys, arguments))
        done = together(*zip(*distinct.values())) if together is not None and len(distinct) > 1 else None
        done = dict(zip(distinct, done or [compute(*args) for args in distinct.values()]))
        results = [[done[key] for key in keys]] if len(buffers) == 1 else list(zip(*(done[key] for key in keys)))
    sources = {_storage(t) for v in values if v is not None for t in v}
    for buffer, result in zip(buffers, results):
        own = {}
        for r in result:
            if id(r) not in own:
                own[id(r)] = _copy(r) if _storage(r) in sources else r
        if len(own) == 1:
            buffer.data = list(own.values())
        else:
            buffer.data = [own[id(r)] for r in result]


def _storage(value) -> int:
    return (value.kept if type(value) is Repeated else value).untyped_storage().data_ptr()


def _copy(value):
    return Repeated(value.kept.clone(), value.index, value.dim) if type(value) is Repeated else value.clone()


def update(name, target: Tensor, inputs, compute, *, flops=0, attrs=None, through=(), rows=None) -> Tensor:
    """Runs an op that writes into `target`: `compute(target value, *values)` changes the first in place.

    Its operands come whole, whatever `rows` says, which is `launch`'s.
    """
    on_device(target)
    for t in inputs:
        if t is not None and (t.buffer is None or not t.buffer.alive):
            on_device(t)
    device = target.buffer.device
    if through:
        with scratch(device, *through):
            pass  # it fits, and counts in the peak
    ins = tuple(t.spec for t in inputs if t is not None)
    program, capture = (name, target.spec, ins), device.capture
    if capture is None:
        device.programs.add(program)
    elif program not in device.programs:
        raise DeviceRejects(*_COLD_PROGRAM)
    if state.current is not None:
        state.current.launches.append(Launch(name, ins, ins[:1], flops, attrs or {}))
    if capture is not None:
        capture.add(_run_update, (target, inputs, compute), Launch(name, ins, ins[:1], flops, attrs or {}))
    elif not state.spec_only:
        _run_update(target, inputs, compute)
    return target


def _run_update(target: Tensor, inputs, compute) -> None:
    target.contents()  # raises where there is nothing to write into
    root = target.buffer.store
    root.data = all_whole(root.data)
    values = [None if t is None else t.contents() for t in inputs]
    chips = max(len(v) for v in (root.data, *values) if v is not None)
    arguments = [tuple(None if v is None else v[0] if len(v) == 1 else v[i] for v in values) for i in range(chips)]
    # Chips that share contents and are now given different values get contents of their own.
    versions, data = {}, []
    for held, args in zip(root.data * chips if len(root.data) == 1 else root.data, arguments):
        mine = versions.setdefault(id(held), {})
        key = tuple(map(id, args))
        if key not in mine:
            sealed = held.is_inference() and not torch.is_inference_mode_enabled()  # torch would refuse to write there
            mine[key] = _writable(held, own=bool(mine) or sealed)
        data.append(mine[key])
    root.data = data if len(data) > 1 else data[:1]
    done = set()
    for value, args in zip(target.contents(), arguments):
        if value.data_ptr() not in done:
            done.add(value.data_ptr())
            compute(value, *args)


def _writable(held, own: bool):
    """Contents that can be written to: in memory of their `own`, or where they are one value expanded.

    Expanded zeros, which a new cache is, become pages that the system has cleared: none is there before it is written.
    """
    if held.device.type != "cpu" or any(held.stride()) or held.numel() < 1 << 16 or held[(0,) * held.dim()] != 0:
        return held.clone() if own else held.contiguous()
    cleared = torch.from_numpy(numpy.zeros(held.numel() * held.element_size(), numpy.uint8))
    return cleared.view(held.dtype).reshape(held.shape)


class Plans(dict):
    """What the checks of an op came to, by all that they depend on: a call like one before is not checked again.

    Values are what `launch` takes after the inputs; keys hold specs and settings, never tensors.
    """

    MOST = 4096

    def remember(self, key, plan):
        if len(self) >= self.MOST:
            self.clear()
        if key is not None:
            self[key] = plan
        return plan


def same(tensor: Tensor) -> Tensor:
    """Another handle on the same tensor: what the library returns where an op has nothing to do."""
    return Tensor(tensor.spec, tensor.buffer, tensor.host, tensor.topology, tensor.chip)


def view(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """A tensor of another shape on the same memory, without a copy."""
    if tensor.buffer is None:
        host = None if tensor.host is None else [v.reshape(spec.shape) for v in tensor.host]
        return Tensor(spec, host=host, topology=tensor.topology)
    return Tensor(spec, Buffer.view_of(tensor.buffer), topology=tensor.topology, chip=tensor.chip)


def output_memory(tensor: Tensor, memory_config: MemoryConfig | None) -> MemoryConfig:
    """What was asked for, else where the operand is."""
    return tensor.spec.memory_config if memory_config is None else memory_config


def run_into(inputs, output: Tensor, compute) -> None:
    """Gives an existing tensor new contents, computed from the operands; the memory is there already."""
    if state.spec_only:
        return
    device = output.buffer.device
    if device.capture is not None:
        own = [output.buffer] if output.buffer.root else ()  # a view that shows padding
        device.capture.add(_run, (inputs, [output.buffer], compute), None, own)
    else:
        _run(inputs, [output.buffer], compute)


def unmodelled(inputs, specs):
    """Results without contents: the call is legal on the device, and reading what comes out raises NotEmulated."""
    several = isinstance(specs, list)
    device, topology = inputs[0].buffer.device, merge_topology(inputs)
    outputs = [allocate(s, device, topology) for s in (specs if several else (specs,))]
    return outputs if several else outputs[0]


def refuse_unmodelled(op_name: str, **arguments) -> None:
    """Raises NotEmulated for the first argument that was given (is neither None, False nor empty) and has no model."""
    for arg, value in arguments.items():
        if value is not None and value is not False and not (isinstance(value, (list, tuple)) and not value):
            raise NotEmulated(f"{op_name}: argument {arg}={describe(value)} has no model in the emulator")
