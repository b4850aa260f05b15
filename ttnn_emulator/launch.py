"""Running an op once its rule has spoken: memory, the program, the log, and the values of each chip."""

from __future__ import annotations

import contextlib
import functools
import threading

import numpy
import torch

from .buffer import Buffer
from .device import MeshDevice
from .dtypes import cpp
from .errors import DeviceRejects, NotEmulated, Unknown
from .memory import BufferType, MemoryConfig
from .numerics.rows import (
    EACH,
    HELD,
    Repeated,
    Slices,
    all_whole,
    slice_wise,
    slice_wise_over_chips,
    stacked,
    whole,
)
from .oplog import Launch, state
from .same_device import one_device
from .tensor import PlacementShard, Tensor, TensorSpec, TensorTopology, replicated
from .torch_device import placed
from .warning import ACTIVE_TRACE, warn


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
        device.check_open()
    if device.traces:
        warn(ACTIVE_TRACE, "Metal", once=(ACTIVE_TRACE, threading.get_ident()))
    return Tensor(spec, _buffer(spec, device), topology=topology or replicated(device.chips))


def _buffer(spec: TensorSpec, device: MeshDevice) -> Buffer:
    bank_bytes, total = spec.room(device.chip)
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
    elif device.traces or device.capture:
        check_kept(program, device.kept[program])
        if device.capture:
            device.capture.kept[program] = device.kept[program]


def check_kept(program: tuple, buffers) -> None:
    """Refuses a program whose own memory a trace has written over."""
    for buffer in buffers:
        if buffer.unknown:
            raise NotEmulated(f"what {program[0]} keeps in {buffer.buffer_type.name} is lost: {buffer.unknown}")


def merge_topology(tensors) -> TensorTopology:
    """The topology of a result: axis by axis, how the first operand is spread that is.

    Source    recorded contract, mesh cases; ttnn 0.81.1 on n300 and t3000
    """
    first = tensors[0].topology
    for t in tensors:
        if t.topology is not first:
            return _merged(tuple(t.topology for t in tensors))
    return first


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
    rows: Slices | None = None, into: Tensor | list[Tensor] | None = None,
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
    into        the tensor that takes the result, or tensors that take the results, where they are there already
    """
    several = isinstance(specs, list)
    taken = [] if into is None else into if isinstance(into, (list, tuple)) else [into]
    tensors = [t for t in inputs if t is not None]
    for t in tensors:
        if t.buffer is None or not t.buffer.alive:
            on_device(t)
    device = tensors[0].buffer.device
    if taken or len(tensors) > 1:
        one_device(name, [*tensors, *map(on_device, taken)] if taken else tensors)
    if topology is None:
        topology = merge_topology(tensors)
    if into is not None:
        device.check_open()
        for t in taken:
            check_alone(name, t)
        with scratch(device, *through):
            outputs = [same(t) for t in taken]
    elif through:
        with scratch(device, *through):
            outputs = [allocate(s, device, topology) for s in (specs if several else (specs,))]
    else:
        outputs = [allocate(s, device, topology) for s in (specs if several else (specs,))]
    ins, outs = tuple(t.spec for t in tensors), tuple(o.spec for o in outputs)
    buffers = [o.buffer if into is None else o.buffer.store for o in outputs]
    work = (inputs, buffers, compute, collective, together, rows)
    _issue(device, (name, ins, outs), (name, ins, outs, flops, attrs or {}), _run, work, buffers)
    return outputs if several else outputs[0]


def _issue(device, program: tuple, launched: tuple, run, work: tuple, buffers=()) -> None:
    """Loads a program, writes it down (`Launch(*launched)`), and runs it: now, or when the trace being captured is."""
    capture = device.capture
    if not device.new_programs and program not in device.programs:
        raise DeviceRejects(
            f'Device operation "{program[0]}": program cache miss occurred, but cache misses are forbidden',
            "device.set_program_cache_misses_allowed(True)",
        )
    if capture is None:
        device.programs.add(program)
    elif program not in device.programs:
        raise DeviceRejects(*_COLD_PROGRAM)
    if state.current is not None:
        state.current.launches.append(Launch(*launched))
    if capture is not None:
        capture.add(run, work, Launch(*launched), buffers)
    elif not state.spec_only:
        run(*work)


_COLD_PROGRAM = (
    "Cannot load new binaries during trace capture.This program is not yet in program cache. "
    "Warm up before capturing a trace.See the operation's hash signature for arguments that must match.",
    "run the same ops on tensors of the same specs once before begin_trace_capture",
)


def _run(inputs, buffers, compute, collective=False, together=None, rows=None) -> None:
    try:
        values = [None if t is None else t.contents() if rows is None else t.held() for t in inputs]
    except Unknown as e:
        for buffer in buffers:  # a program warms up on what a trace has yet to write
            buffer.data, buffer.unknown = None, e.why
        return
    chips = max((len(v) for v in values if v is not None), default=1)
    if chips > 1 and rows is EACH and together is None and not collective:
        together = stacked(compute)
    if rows not in (None, HELD) and (
        rows.search or any(type(c) is Repeated for v in values if v is not None for c in v)
    ):
        compute = (slice_wise_over_chips if collective else slice_wise)(compute, rows)
        together = together and slice_wise_over_chips(together, rows)
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


def generate(name, made: TensorSpec, device: MeshDevice, compute) -> Tensor:
    """Runs an op without operands: `compute()` gives what every chip then has."""
    out = allocate(made, device)
    work = ((), [out.buffer], lambda: placed([compute()])[0])
    _issue(device, (name, made), (name, (), (made,), made.shape.volume(), {}), _run, work, [out.buffer])
    return out


def update(name, target: Tensor, inputs, compute, *, flops=0, attrs=None, through=(), rows=None) -> Tensor:
    """Runs an op that writes into `target`: `compute(target value, *values)` changes the first in place.

    Its operands come whole, whatever `rows` says, which is `launch`'s.
    """
    on_device(target)
    check_alone(name, target)
    for t in inputs:
        if t is not None and (t.buffer is None or not t.buffer.alive):
            on_device(t)
    device = one_device(name, (*(t for t in inputs if t is not None), target))
    device.check_open()
    if through:
        with scratch(device, *through):
            pass  # it fits, and counts in the peak
    ins = tuple(t.spec for t in inputs if t is not None)
    launched = (name, ins, ins[:1], flops, attrs or {})
    _issue(device, (name, target.spec, ins), launched, _run_update, (target, inputs, compute))
    return target


def _run_update(target: Tensor, inputs, compute) -> None:
    target.contents()  # raises where there is nothing to write into
    root = target.buffer.store
    root.data = all_whole(root.data)
    values = [None if t is None else t.contents() for t in inputs]
    chips = max(len(v) for v in (root.data, *values) if v is not None)
    arguments = [tuple(None if v is None else v[0] if len(v) == 1 else v[i] for v in values) for i in range(chips)]
    # Chips that share contents and are now given different values get contents of their own.
    versions: dict[int, dict] = {}
    data = []
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


def finish(name, inputs, out, compute, output_tensor=None, **how) -> Tensor:
    """`launch`, or where the call named an output tensor, the same computation written into that."""
    if output_tensor is None:
        return launch(name, inputs, out, compute, **how)
    there = on_device(output_tensor).spec
    if (there.shape, there.dtype) == (out.shape, out.dtype):
        launch(name, inputs, out, compute, into=output_tensor, **how)
        return same(output_tensor)
    how.pop("together", None)
    update(name, output_tensor, inputs, lambda target, *values: target.copy_(whole(compute(*values))), **how)
    return same(output_tensor)


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


def refilled(tensor: Tensor, spec: TensorSpec, compute) -> Tensor:
    """A tensor on the memory of another one whose contents are held apart: a part of it, or part of its padding. While
    both are there neither can be written to (`check_alone`)."""
    out = view(tensor, spec)
    out.buffer.hold_apart()
    run_into((tensor,), out, compute)
    return out


def check_alone(name: str, tensor: Tensor) -> None:
    """Refuses to write where another tensor shows the same memory and would not show what is written."""
    if tensor.buffer.shown_apart:
        raise NotEmulated(
            f"{name} writes into memory that another tensor shows too (of ttnn.narrow or ttnn.pad): the emulator holds "
            "its contents apart, and they would stay as they are; write before, or take ttnn.slice in its place"
        )


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


def check_places(name: str, places: torch.Tensor, size: int, what: str) -> None:
    """Refuses indices beyond what they pick from: the device reads, or writes, what lies there."""
    if places.numel() and not 0 <= int(places.min()) <= int(places.max()) < size:
        beyond = places[(places < 0) | (places >= size)].flatten()
        raise NotEmulated(
            f"{name}: index {int(beyond[0])} is beyond the {what} of {size} ({beyond.numel()} of {places.numel()} "
            "indices are); the device takes what lies there in memory, which has no model in the emulator"
        )
