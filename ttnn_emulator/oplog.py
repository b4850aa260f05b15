"""The op log: what calls a program made, what they ran on the device, and what memory they left."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from . import dtypes
from .tensor import Tensor, TensorSpec

if TYPE_CHECKING:
    from .held import Held, Recorder


class _State(threading.local):
    """What is in force in this thread: `spec_only`, the log being written (or None), the record of the call being made,
    and what notes the memory in use (or None)."""

    spec_only = False
    log: list[OpRecord] | None = None
    current: OpRecord | None = None
    recorder: Recorder | None = None


state = _State()


@contextlib.contextmanager
def spec_only():
    """Inside, ops check their arguments, allocate and return specs, and compute nothing."""
    before, state.spec_only = state.spec_only, True
    try:
        yield
    finally:
        state.spec_only = before


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
        self.op, self.inputs = op, inputs
        self.outputs: tuple = ()
        self.launches: list[Launch] = []
        self.dram_bytes = self.l1_bytes = self.chips = 0
        self.line = caller()
        self.held: Held | None = None

    @property
    def flops(self) -> int:
        return sum(each.flops for each in self.launches)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.launches)

    def as_dict(self) -> dict:
        ins, outs = ([spec_dict(s) for s in specs] for specs in (self.inputs, self.outputs))
        d: dict = {"op": self.op, "inputs": ins, "outputs": outs}
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


def recorded(name, fn, args, kwargs):
    """Makes the call, and writes it down."""
    given = list(_tensors((*args, *kwargs.values())))
    log = state.log
    assert log is not None
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
    log.append(rec)
    return result


def spec_dict(s: TensorSpec) -> dict:
    """A spec as plain JSON, with the field names of the recorded contract."""
    d: dict = {"shape": list(s.shape), "padded_shape": list(s.padded_shape)}
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
    frame: FrameType | None = sys._getframe(1)
    outside = None
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
