"""Traces: a run of ops is captured once, and replayed on whatever its buffers hold by then. Also queues' events.

A capture allocates as a run would and computes nothing. It keeps buffers, not tensors: what the program drops is freed
by reference counting, as on the device, and the replay writes to it again all the same.
"""

from __future__ import annotations

from typing import NamedTuple

from .buffer import Buffer
from .device import MeshCoordinate, MeshDevice, Number
from .errors import DeviceRejects, NotEmulated, Unknown
from .launch import check_kept
from .numerics.rows import all_whole
from .tensor import Tensor, share

#: What one program adds to a trace at the very least: its launch and its runtime arguments, one 1024-byte page of
#: commands. A lower bound, not a measure: a region that is refused here is too small on the device, the reverse does
#: not hold.
TRACE_BYTES_OF_A_PROGRAM = 1024


NOT_RUN = (
    "it was made inside a trace capture that has not been executed, or from such a tensor; a device reads what lay in "
    "its memory before"
)
OVERWRITTEN = (
    "it lies where a trace that was captured before writes its intermediates, and that trace has been executed since: "
    "a device corrupts it in silence. Allocate it before the capture, or write it again before it is read"
)


class MeshTraceId(Number):
    """What `begin_trace_capture` returns."""

    __slots__ = ()


class Held:
    """A tensor as a trace knows it: the memory that it is in, and its shape."""

    __slots__ = ("buffer", "spec", "chip")

    def __init__(self, tensor: Tensor):
        self.buffer, self.spec, self.chip = tensor.buffer, tensor.spec, tensor.chip

    def contents(self) -> list:
        return all_whole(self.held())

    def held(self) -> list:
        data = self.buffer.store.data
        if data is None:
            if self.buffer.store.unknown:
                raise Unknown(self.spec, self.buffer.store.unknown)
            raise NotEmulated(
                f"execute_trace: {self.spec} was freed after the capture; a device reads whatever is there by then"
            )
        return share(data, self.chip, self.spec.shape)


def _held(value):
    if isinstance(value, Tensor):
        return Held(value)
    return type(value)(map(_held, value)) if type(value) in (tuple, list) else value


def _buffers(value):
    if isinstance(value, Held):
        yield value.buffer
        if value.buffer.store is not value.buffer:
            yield value.buffer.store
    elif isinstance(value, Buffer):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _buffers(v)


class Capture:
    """The programs of a trace in the order of their launch."""

    def __init__(self, trace_id: int, queue: int):
        self.trace_id, self.queue = trace_id, queue
        self.steps: list[tuple] = []  # (function, arguments)
        self.launches: list = []  # what the op log says of each
        self.written: dict[int, Buffer] = {}  # made by the trace, by identity
        self.kept: dict[tuple, list] = {}  # memory that its programs hold

    def add(self, function, args, launch=None, outputs=()) -> None:
        """One program: `function(*args)` computes it; `outputs` are the buffers that it fills anew."""
        self.steps.append((function, tuple(map(_held, args))))
        if launch is not None:
            self.launches.append(launch)
        for buffer in outputs:
            self.written[id(buffer)] = buffer
            buffer.unknown = NOT_RUN

    def finish(self) -> None:
        """Works out after which step each buffer is no longer needed, and which memory a replay writes to."""
        last, self.read = {}, {}  # read: what the trace takes from outside
        for i, (_, args) in enumerate(self.steps):
            for buffer in _buffers(args):
                if id(buffer) in self.written:
                    last[id(buffer)] = i
                else:
                    self.read[id(buffer)] = buffer
        self.done = [[] for _ in self.steps]
        for key, i in last.items():
            self.done[i].append(self.written[key])
        self.spans = {}
        for buffer in self.written.values():
            if buffer.bank_bytes and buffer.root is None:
                self.spans.setdefault(buffer.buffer_type, []).append(
                    (buffer.address, buffer.address + buffer.bank_bytes)
                )
        self.spans = {kind: _merged(spans) for kind, spans in self.spans.items()}

    def replay(self) -> None:
        for (function, args), done in zip(self.steps, self.done):
            function(*args)
            for buffer in done:
                if not buffer.alive:
                    buffer.data, buffer.unknown = None, None

    def overwrite(self, device: MeshDevice) -> None:
        """What a replay does to memory allocated since the capture where its intermediates were."""
        for program, buffers in self.kept.items():
            check_kept(program, buffers)
        for buffer in [b for b in device.later.values() if id(b) not in self.written]:
            start, end = buffer.address, buffer.address + buffer.bank_bytes
            if any(a < end and start < b for a, b in self.spans.get(buffer.buffer_type, ())):
                buffer.data, buffer.unknown = None, OVERWRITTEN
                if not buffer.handles and not any(buffer in kept for kept in device.kept.values()):
                    raise NotEmulated(f"execute_trace: a global semaphore is lost: {OVERWRITTEN}")


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Half-open intervals, joined where they touch."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            if end > out[-1][1]:
                out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def _id(name: str, trace_id) -> int:
    if not isinstance(trace_id, MeshTraceId):
        raise TypeError(
            f"{name}(): incompatible function arguments. The following argument types are supported:\n"
            f"    1. {name}(mesh_device: ttnn.MeshDevice, trace_id: ttnn.MeshTraceId, ...)\n"
            f"got trace_id = {trace_id!r}; want what begin_trace_capture returned"
        )
    return trace_id.value


# ---------------------------------------------------------------- what a program calls
def begin_trace_capture(mesh_device: MeshDevice, *, cq_id=None) -> MeshTraceId:
    """From here on ops are recorded and not run, until `end_trace_capture`.

    Raises    DeviceRejects while another capture is open on this queue. Inside: host reads and writes, waiting for
              events, and programs that have not run before ("Warm up before capturing a trace")
    Source    ttnn 0.81.1, asked of the library
    """
    queue = mesh_device.queue(cq_id)
    number, mesh_device.next_trace = mesh_device.next_trace, mesh_device.next_trace + 1
    if mesh_device.capture is not None:
        raise DeviceRejects(f"CQ {mesh_device.capture.queue} is already being used for tracing tid {number}")
    mesh_device.capture = Capture(number, queue)
    return MeshTraceId(number)


def end_trace_capture(mesh_device: MeshDevice, trace_id: MeshTraceId, *, cq_id=None) -> None:
    """Closes the capture and keeps it as a trace.

    Raises    DeviceRejects where no such capture is open on the queue, or the trace region is too small
    Differs   the size of a trace is not known: only regions below one page of commands a program are refused
    Source    ttnn 0.81.1, asked of the library
    """
    number, queue, capture = _id("end_trace_capture", trace_id), mesh_device.queue(cq_id), mesh_device.capture
    if capture is None or capture.trace_id != number or capture.queue != queue:
        raise DeviceRejects(f"CQ {queue} is not being used for tracing tid {number}")
    mesh_device.capture = None
    size, region = len(capture.steps) * TRACE_BYTES_OF_A_PROGRAM, mesh_device.trace_region_size
    size += sum(len(t.steps) * TRACE_BYTES_OF_A_PROGRAM for t in mesh_device.traces.values())
    if region and size > region:
        raise DeviceRejects(
            f"Creating trace buffers of size {size}B on MeshDevice {mesh_device.id()}, but only {region}B is "
            "allocated for "
            "trace region.",
            "the size is a lower bound; open the device with a larger trace_region_size",
        )
    capture.finish()
    mesh_device.traces[number] = capture


def execute_trace(mesh_device: MeshDevice, trace_id: MeshTraceId, *, cq_id=None, blocking: bool = True) -> None:
    """Replays a trace on what its buffers hold now; results are in the tensors that the capture made.

    Raises    DeviceRejects for a trace that was released or never captured; NotEmulated where the replay would read
              tensors that were freed. Where it writes over tensors, or over what programs keep, that were allocated
              after the capture, whoever reads those next raises it. A device does all that in silence
    Source    ttnn 0.81.1, asked of the library
    """
    from .oplog import OpRecord, state

    number = _id("execute_trace", trace_id)
    queue = mesh_device.queue(cq_id)
    trace = mesh_device.traces.get(number)
    if trace is None:
        raise DeviceRejects(
            f"Trace instance {number} must exist on Mesh device {mesh_device.id()}'s active sub-device manager 0",
            "it was released, or its capture was not ended",
        )
    if mesh_device.capture is not None:
        raise DeviceRejects("Trace execution is not supported during trace capture.")
    trace.overwrite(mesh_device)
    if state.log is not None:
        record = OpRecord("ttnn.execute_trace", ())
        record.launches, record.chips = list(trace.launches), mesh_device.chips
        record.dram_bytes, record.l1_bytes = (a.allocated * a.banks for a in mesh_device.allocators.values())
        state.log.append(record)
    mesh_device.check_order(trace.read.values(), queue)
    if not state.spec_only:
        trace.replay()


def release_trace(mesh_device: MeshDevice, trace_id: MeshTraceId) -> None:
    """Forgets a trace; one that is not there is no error."""
    number = _id("release_trace", trace_id)
    mesh_device.check_open()
    mesh_device.traces.pop(number, None)


def is_trace_capture_active(device: MeshDevice) -> bool:
    return device.capture is not None


# ---------------------------------------------------------------- events
class MeshEvent(NamedTuple):
    """A point in a queue's order."""

    id: int
    device_id: int
    mesh_cq_id: int
    device_range: tuple

    def __repr__(self) -> str:
        start, end = self.device_range
        return (f"MeshEvent(id={self.id}, device_id={self.device_id}, mesh_cq_id={self.mesh_cq_id}, "
                f"device_range=MeshCoordinateRange(start={start}, end={end}))")  # fmt: skip

    __str__ = __repr__


def record_event(mesh_device: MeshDevice, cq_id=None, sub_device_ids=(), device_range=None) -> MeshEvent:
    """Marks what a queue has been given so far."""
    queue = mesh_device.queue(cq_id)
    number = mesh_device.events[queue]
    mesh_device.events[queue] += 1
    whole = MeshCoordinate([0] * len(mesh_device.shape)), MeshCoordinate([n - 1 for n in mesh_device.shape])
    mesh_device.recorded[queue, number] = mesh_device.writes
    return MeshEvent(number, mesh_device.id(), queue, device_range or whole)


def _known(name: str, event) -> MeshEvent:
    if not isinstance(event, MeshEvent):
        raise TypeError(f"{name}(): incompatible function arguments: want the MeshEvent of record_event, got {event!r}")
    return event


def wait_for_event(cq_id, mesh_event: MeshEvent) -> None:
    """A queue goes on when another has come to the event. Everything here runs in program order, so that it has."""
    from .machine import open_devices

    event = _known("wait_for_event", mesh_event)
    for device in open_devices():
        if device.id() == event.device_id:
            queue = device.queue(cq_id)
            if device.capture is not None:
                raise DeviceRejects("Event Synchronization is not supported during trace capture.")
            device.waited(queue, event)
            return
    raise DeviceRejects(f"{event} belongs to a device that is closed")


def event_synchronize(mesh_event: MeshEvent) -> None:
    """The host waits until the event has been reached."""
    _known("event_synchronize", mesh_event)
