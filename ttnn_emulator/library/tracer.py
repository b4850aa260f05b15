"""ttnn.tracer: the library draws a graph of what ran inside `with trace():`; here the program runs and is not drawn."""

from contextlib import contextmanager

from ..errors import NotEmulated

__all__ = ["trace", "visualize", "is_tracing_enabled", "enable_tracing", "disable_tracing", "get_graph"]


@contextmanager
def trace():
    """The body runs as it does without."""
    yield


def is_tracing_enabled() -> bool:
    return False


def enable_tracing() -> None:
    """Nothing."""


def disable_tracing() -> None:
    """Nothing."""


def visualize(*args, **kwargs):
    raise NotEmulated("graphs are not drawn here; `bringup run --log ops.json` writes every call")


get_graph = visualize
