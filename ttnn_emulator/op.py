"""What every op shares: its name, the guard of its arguments, and where to find it.

An op is a Python function with ttnn's own signature under `@op("ttnn.name")`. Its body is the *rule*: it looks at
specs, raises `DeviceRejects` or `NotEmulated`, and says what comes out. It ends in `launch` (or `update`, for ops that
write into a tensor), which is handed the *compute*: a function from the values of one chip to the values of one chip.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from . import dtypes
from .device import MeshDevice
from .errors import DeviceRejects, NotEmulated
from .memory import MemoryConfig
from .mesh import Topology
from .oplog import describe, recorded, state
from .oplog import record as record  # where users find them
from .oplog import spec_only as spec_only
from .semaphore import GlobalSemaphore
from .tensor import Tensor

#: Every public op by its ttnn name; the tests ask that each has a case.
REGISTRY: dict[str, Callable] = {}

#: What the annotation of a public parameter takes; annotations that are not here are not checked.
TYPES: dict[object, Any] = {
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


def op(name: str, *aliases: str, lacks: tuple[str, ...] = ()):
    """Registers a function as the op `name` (and its aliases) and guards its arguments.

    Annotated parameters are checked by type; a mistake is the library's TypeError. A refusal from inside is told the
    op's name and its operands. `lacks` are keywords of the function that this op of its family does not have.
    """

    def decorate(fn):
        whole = inspect.signature(fn)
        signature = whole.replace(parameters=[p for p in whole.parameters.values() if p.name not in lacks])
        checks: dict[str, Any] = {p.name: TYPES.get(p.annotation) for p in signature.parameters.values()}
        positional = [(n, c) for (n, c), p in zip(checks.items(), signature.parameters.values()) if p.kind < 2]
        checks = {n: c for n, c in checks.items() if c is not None}

        @functools.wraps(fn)
        def call(*args, **kwargs):
            for value, (arg, kind) in zip(args, positional):
                if kind is not None and not isinstance(value, kind):
                    raise _mistyped(name, signature, f"got    {arg} = {describe(value)}")
            for arg, value in kwargs.items():
                if arg in lacks:
                    raise _mistyped(name, signature, f"got    {arg} = {describe(value)}, which it does not have")
                if arg in checks and not isinstance(value, checks[arg]):
                    raise _mistyped(name, signature, f"got    {arg} = {describe(value)}")
            try:
                if state.log is None or state.current is not None:
                    return fn(*args, **kwargs)
                return recorded(name, fn, args, kwargs)
            except DeviceRejects as e:
                if e.op is None:
                    named = [(n, v) for (n, _), v in zip(positional, args)] + list(kwargs.items())
                    e.locate(name, [(n, describe(v)) for n, v in named])
                raise
            except TypeError as e:
                if e.__traceback__ is None or e.__traceback__.tb_next is None:  # the call itself did not bind
                    raise _mistyped(name, signature, str(e)) from None
                raise

        call.op_name, call.__signature__ = name, signature  # type: ignore[attr-defined]
        for each in (name, *aliases):
            REGISTRY[each] = call
        return call

    return decorate


def described(doc: str, **fields: str) -> str:
    """A docstring of a generated op: what it does, and the fields that all docstrings of ops have."""
    return "\n".join([doc, "", *(f"    {name:<9} {text}" for name, text in fields.items())])


def refuse_unmodelled(op_name: str, **arguments) -> None:
    """Raises NotEmulated for the first argument that was given (is neither None, False nor empty) and has no model."""
    for arg, value in arguments.items():
        if value is not None and value is not False and not (isinstance(value, (list, tuple)) and not value):
            raise NotEmulated(f"{op_name}: argument {arg}={describe(value)} has no model in the emulator")
