"""The op log of the real `ttnn`: every call with its specs, memory and line, in the form of the emulator's log.

with library_log.record(device) as log:
    model(...)
log.records[-1]     # {"op": "ttnn.linear", "inputs": [...], "outputs": [...], "dram_bytes": ..., "line": "model.py:57"}

A record is a dict:

    op               the library's name of the call that the model made; what an op calls in turn is part of it
    inputs, outputs  specs: shape, padded_shape, dtype, layout, and memory_config where the tensor is on the device
    dram_bytes       allocated on one chip after the call, over all banks; l1_bytes likewise
    dram_peak        the most that was allocated during the call, temporaries of the library included; l1_peak likewise
    line             file:line of the nearest frame of a model.py, else of the first frame outside the library
    chips            chips of the mesh

Memory is what the library's allocators report: a memory view once, and from then on the buffers that its own graph
capture sees come and go. Nothing of the installation is changed: the class behind every registered op is wrapped while
the log is on.

A process may die inside an op. Where `BRINGUP_JOURNAL` names a file, each call is written there before it is made.
"""

import json
import os
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass, field

JOURNAL = "BRINGUP_JOURNAL"
_BANKS = {"DRAM": 12, "L1": 64}  # of one Wormhole chip; read from the library when a log starts
_GRAIN = 32  # a buffer takes a multiple of this in each bank (ttnn 0.81.1: buffer addresses)


@dataclass
class Log:
    """Records in the order of the calls. `failed` is the call that raised, with the error's text, or None."""

    records: list = field(default_factory=list)
    failed: dict | None = None

    def peak(self, kind="dram", start=0):
        """The most bytes that one chip held over the records from `start` on."""
        return max((r[f"{kind}_peak"] for r in self.records[start:]), default=0)


@contextmanager
def record(device, journal=None):
    """Collect a record for every op call that is made inside, on the library that `import ttnn` is in this process."""
    from ttnn.decorators import FastOperation

    journal = journal or os.environ.get(JOURNAL)
    recorder = _Recorder(device, _Journal(journal) if journal else None)
    plain = FastOperation.__call__

    def call(self, *args, **kwargs):
        return recorder.call(self, plain, args, kwargs)

    FastOperation.__call__ = call
    recorder.start()
    try:
        yield recorder.log
    finally:
        FastOperation.__call__ = plain
        recorder.stop()


class _Recorder:
    def __init__(self, device, journal):
        import ttnn

        self.ttnn, self.graph = ttnn, ttnn._ttnn.graph
        self.device, self.journal, self.log = device, journal, Log()
        self.depth = 0
        self.chips = device.get_num_devices()
        self.banks, self.held = {}, {}
        for kind in _BANKS:
            view = ttnn.get_memory_view(device, getattr(ttnn.BufferType, kind))
            self.banks[kind], self.held[kind] = view.num_banks, view.total_bytes_allocated_per_bank

    def start(self):
        self.graph.begin_graph_capture(self.graph.RunMode.NORMAL)

    def stop(self):
        self.graph.end_graph_capture()

    def call(self, operation, plain, args, kwargs):
        if self.depth:
            return plain(operation, *args, **kwargs)
        self._account()  # what was freed since the last call
        entry = {
            "op": operation.python_fully_qualified_name,
            "inputs": [self.spec(t) for t in self.tensors((args, kwargs))],
            "outputs": [],
            "line": caller(),
            "chips": self.chips,
        }
        if self.journal:
            self.journal.write(entry, args, kwargs)
        self.depth += 1
        try:
            result = plain(operation, *args, **kwargs)
        except Exception as error:
            self.log.failed = entry | {"call": shown_call(entry["op"], args, kwargs), "error": str(error)}
            raise
        finally:
            self.depth -= 1
            peaks = self._account()
        entry["outputs"] = [self.spec(t) for t in self.tensors(result)]
        for kind, peak in peaks.items():
            entry[f"{kind.lower()}_bytes"] = self.held[kind] * self.banks[kind]
            entry[f"{kind.lower()}_peak"] = peak * self.banks[kind]
        self.log.records.append(entry)
        return result

    def _account(self):
        """Follow the buffers that came and went since the last look; returns the peak per bank of each memory."""
        peaks, mesh = dict(self.held), None
        nodes = self.graph.end_graph_capture()
        self.start()
        for node in nodes:
            kind = node["node_type"]
            if kind not in ("buffer_allocate", "buffer_deallocate"):
                continue
            what = node["params"]
            memory, mesh = what["type"], what["device_id"] if mesh is None else mesh
            if memory not in self.held or what["device_id"] != mesh:
                continue
            size = -(-int(what["max_size_per_bank"]) // _GRAIN) * _GRAIN
            self.held[memory] += size if kind == "buffer_allocate" else -size
            peaks[memory] = max(peaks[memory], self.held[memory])
        return peaks

    def tensors(self, values):
        """The tensors in a call's arguments or results, in their order."""
        if isinstance(values, self.ttnn.Tensor):
            yield values
        elif isinstance(values, dict):
            for value in values.values():
                yield from self.tensors(value)
        elif isinstance(values, (list, tuple)):
            for value in values:
                yield from self.tensors(value)

    def spec(self, tensor):
        """A tensor's spec as plain data, with the field names of the recorded contract."""
        found = {
            "shape": list(tensor.shape),
            "padded_shape": list(tensor.padded_shape),
            "dtype": tensor.dtype.name.lower(),
            "layout": tensor.layout.name.removesuffix("_LAYOUT"),
        }
        if tensor.storage_type() == self.ttnn.StorageType.DEVICE:
            found["memory_config"] = memory_dict(tensor.memory_config())
        return found


def memory_dict(config):
    """A memory config as plain data."""
    found = {"memory_layout": config.memory_layout.name, "buffer_type": config.buffer_type.name}
    shards = config.shard_spec
    if shards is not None:
        found["shard_spec"] = {
            "grid": [[r.start.x, r.start.y, r.end.x, r.end.y] for r in shards.grid.ranges()],
            "shape": list(shards.shape),
            "orientation": shards.orientation.name,
        }
    return found


def caller():
    """`file:line` of the nearest frame named model.py, else of the first one outside this file and the library."""
    outside = None
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.endswith("model.py"):
            return f"{path}:{frame.f_lineno}"
        if outside is None and path != __file__ and f"{os.sep}ttnn{os.sep}" not in path:
            outside = f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "?"


def shown_call(op, args, kwargs):
    """A call as text: operands by their specs, the rest by their values."""
    parts = [_shown(a) for a in args] + [f"{name}={_shown(value)}" for name, value in kwargs.items()]
    return f"{op}({', '.join(parts)})"


def _shown(value):
    if type(value).__name__ == "Tensor" and hasattr(value, "shape"):
        where = ""
        if hasattr(value, "memory_config") and "DEVICE" in str(value.storage_type()):
            config = value.memory_config()
            where = f" {config.buffer_type.name}" + (f" {config.memory_layout.name}" if config.is_sharded() else "")
        dtype = getattr(value.dtype, "name", str(value.dtype)).lower()
        layout = f" {value.layout.name}" if hasattr(value.layout, "name") else ""
        return f"{list(value.shape)} {dtype}{layout}{where}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _Journal:
    """A file that holds the call being made, so that it can be read when the process is gone."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def write(self, entry, args, kwargs):
        line = json.dumps({"op": entry["op"], "call": shown_call(entry["op"], args, kwargs), "line": entry["line"]})
        data = line.encode()
        os.pwrite(self.file, data, 0)
        os.ftruncate(self.file, len(data))


def read_journal(path):
    """The last call that a process was about to make, or None where it made none."""
    try:
        with open(path) as file:
            return json.loads(file.read())
    except (OSError, ValueError):
        return None
