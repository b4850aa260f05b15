"""Files that are there whole or not at all."""

import json
import math
import os
from contextlib import contextmanager
from pathlib import Path

from bringup.errors import BadInput, shown

#: What is to be on the path for `bringup` and `ttnn_emulator`: a clone, or where packages are installed.
PACKAGES = Path(__file__).resolve().parents[1]
#: Where models/, prompts/ and checkpoints/ are: the clone; in an installed wheel the copies that it carries.
PROJECT = PACKAGES if (PACKAGES / "pyproject.toml").is_file() else PACKAGES / "bringup" / "shipped"


def located(path):
    """A path as the user typed it; where nothing is there, the project's own of that name, if there is one.

    So the commands of the documentation run in any folder.
    """
    path = Path(path)
    ours = PROJECT / path
    return ours if not path.exists() and ours.exists() else path


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


def writable(path, folder=False):
    """Asks for a file (or folder) that is written at the end of a run before the run, and makes the folder it is in.

    Returns   the path, None where there is none
    Raises    BadInput where nothing can be written there
    """
    if path is None:
        return None
    path = Path(path)
    place = path if folder else path.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {shown(path)}", got=error.strerror) from error
    taken = path.is_dir() and not folder
    if taken or not os.access(path if path.exists() else place, os.W_OK):
        raise BadInput(f"cannot write {shown(path)}", got="a folder" if taken else "no permission to write there")
    return path


def write_json(result, path):
    """The whole record to a file."""
    Path(path).write_text(json.dumps(plain(result), indent=1) + "\n")


def short(result):
    """A result without its records per position."""
    return {k: short(v) if isinstance(v, dict) else v for k, v in result.items() if k != "positions"}


def plain(value):
    """Plain data that every reader of JSON takes: what is no finite number is None."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
