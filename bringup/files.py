"""Files that are there whole or not at all."""

import os
from contextlib import contextmanager


@contextmanager
def written_whole(path):
    """Yields a path beside `path` to write to, which takes its place at the end.

    What is interrupted leaves no half file, and two processes that write the same file do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
