"""ttnn.graph: the library records its calls as a graph; here `bringup run --log` and `record()` tell the same."""

import enum

from ..errors import NotEmulated

__all__ = [
    "is_graph_capture_active", "RunMode", "begin_graph_capture", "end_graph_capture", "end_graph_capture_to_file",
    "visualize", "pretty_print",
]  # fmt: skip


class RunMode(enum.Enum):
    NORMAL = 0
    NO_DISPATCH = 1


def is_graph_capture_active() -> bool:
    return False


def _not_here(*args, **kwargs):
    raise NotEmulated("graph capture has no model in the emulator; `with ttnn_emulator.record() as log` has every call")


begin_graph_capture = end_graph_capture = end_graph_capture_to_file = visualize = pretty_print = _not_here
