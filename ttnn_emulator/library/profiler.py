"""ttnn.profiler: marks for the Tracy profiler, which is not there: nothing happens.

Source    ttnn 0.81.1 without Tracy, what each returns
"""

__all__ = ["start_tracy_zone", "stop_tracy_zone", "tracy_message", "tracy_frame"]


def start_tracy_zone(source: str, functName: str, lineNum: int, color: int = 0) -> None:
    """Nothing."""


def stop_tracy_zone(name: str = "", color: int = 0) -> bool:
    return True


def tracy_message(source: str, color: int = 0) -> None:
    """Nothing."""


def tracy_frame() -> None:
    """Nothing."""
