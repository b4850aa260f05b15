"""ttnn.decorators: operations of a program's own, and the torch functions that ops are compared with."""

from __future__ import annotations

import contextlib
import functools

import torch

from ..config import CONFIG
from ..errors import NotEmulated
from ..op import REGISTRY
from ..ops.core import transfer
from ..tensor import Tensor

__all__ = [
    "register_python_operation", "get_golden_function", "get_fallback_function", "attach_golden_function",
    "manage_config", "query_registered_operations",
]  # fmt: skip

#: Names that torch has differently.
IN_TORCH = {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu, "relu": torch.relu,
            "softplus": torch.nn.functional.softplus, "linear": lambda a, b, *, bias=None, **_: (
                torch.matmul(a, b) if bias is None else torch.matmul(a, b) + bias),
            "matmul": lambda a, b, **_: torch.matmul(a, b), "rsub": lambda a, b: b - a}  # fmt: skip


def register_python_operation(*, name: str, golden_function=None, **_):
    """Decorates a function that is to be an operation called `name`; it stays a plain function here."""

    def decorate(function):
        @functools.wraps(function)
        def operation(*args, **kwargs):
            return function(*args, **kwargs)

        operation.python_fully_qualified_name, operation.golden_function = name, golden_function
        return operation

    return decorate


def attach_golden_function(operation, golden_function, **_) -> None:
    """Says which torch function an operation is to be compared with."""
    operation.golden_function = golden_function


def get_golden_function(operation):
    """The torch function that an operation is compared with.

    Raises    NotEmulated for ops whose golden function is more than torch's function of the same name
    """
    if callable(found := getattr(operation, "golden_function", None)):
        return found
    name = getattr(operation, "op_name", "")
    own = name.rpartition(".")[2]
    if not name:
        raise AttributeError(f"{operation!r} object has no attribute 'golden_function'")
    function = IN_TORCH.get(own) or getattr(torch, own, None)
    if not callable(function) or name.count(".") != 1:
        raise NotEmulated(f"the golden function of {name} has no model in the emulator; compare with torch's own")
    return function


def get_fallback_function(operation):
    """The golden function on device tensors: to torch, computed there, and back."""
    golden = get_golden_function(operation)

    def fallback(*args, **kwargs):
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        put = lambda v: transfer.to_torch(v) if isinstance(v, Tensor) else v  # noqa: E731
        result = golden(*map(put, args), **{k: put(v) for k, v in kwargs.items()})
        if not isinstance(result, torch.Tensor) or not given:
            return result
        like = given[0]
        return transfer.from_torch(result, like.dtype, layout=like.layout, device=like.device())

    return fallback


@contextlib.contextmanager
def manage_config(name: str, value):
    """Inside, `ttnn.CONFIG.<name>` is `value`."""
    before = getattr(CONFIG, name)
    setattr(CONFIG, name, value)
    try:
        yield
    finally:
        setattr(CONFIG, name, before)


def query_registered_operations(*_, **__) -> list:
    """The emulated ops."""
    return sorted(set(REGISTRY.values()), key=lambda call: call.op_name)
