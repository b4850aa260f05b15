"""Files that are there whole or not at all: everything the commands write goes through here.

A file is written beside its place and moved there when it is complete: what is interrupted or finds the disk full
leaves the file that was there. A link stays a link, a file keeps its mode, and what is no file (/dev/stdout, a pipe)
is written as it is.
"""

import json
import math
import os
import shutil
from contextlib import contextmanager, suppress
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


#: What libraries that write for us raise on a full disk, beside OSError: safetensors, sqlite3.
ERRORS = ("SafetensorError", "OperationalError")


@contextmanager
def written_whole(path):
    """Yields a path beside `path` to write to, which takes its place at the end; makes the folder it is in.

    Two processes that write the same file do not meet.
    Raises    BadInput, with what the system says, where it cannot be written
    """
    path = Path(path)
    with _writing(path):
        if _is_no_file(path):
            yield path
            return
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name[:60]}.{os.getpid()}.partial")  # a name has 255 bytes
        try:
            yield partial
            if place.exists():
                place.open("r+b").close()  # a file that may not be written is not replaced either
                shutil.copymode(place, partial)
            partial.replace(place)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _is_no_file(path):
    """Is it a device or a pipe, also by another name (/dev/stdout of a command whose output goes to a file)?"""
    elsewhere = os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))
    return elsewhere or (path.exists() and not path.is_file())


@contextmanager
def _writing(path):
    """What the system, or a library that writes for us, says of `path`, as BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {shown(path)}", got=error.strerror or str(error)) from error
    except Exception as error:
        if type(error).__name__ not in ERRORS:
            raise
        raise BadInput(f"cannot write {shown(path)}", got=str(error)) from error


def write(path, content):
    """Writes text (UTF-8; what cannot be encoded as \\udcff) or bytes whole; returns the path."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    with written_whole(path) as partial, open(partial, "ab" if _is_no_file(Path(path)) else "wb") as stream:
        stream.write(data)
    return Path(path)


def write_json(path, value, indent=1):
    """Writes `plain` data as JSON that every reader takes."""
    return write(path, json.dumps(plain(value), indent=indent) + "\n")


def write_all(contents):
    """{path: text}: all of them, or none: what was there before comes back, and folders that were made go again."""
    contents = {Path(path): text for path, text in contents.items()}
    before = {path: path.read_bytes() if path.is_file() else None for path in contents}
    made = [folder for path in contents for folder in path.absolute().parents if not folder.exists()]
    try:
        for path, text in contents.items():
            write(path, text)
    except BaseException:
        for path, data in before.items():
            with suppress(OSError, BadInput):
                path.unlink(missing_ok=True) if data is None else write(path, data)
        for folder in sorted(set(made), key=lambda f: -len(f.parts)):
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise
    return list(contents)


#: Programs, and files of checkpoints: a result that goes over one would cost what it is of.
NO_RESULTS = (".py", ".safetensors", ".gguf", ".bin", "config.json", "tokenizer.json", ".index.json")


def writable(path, folder=False):
    """Asks for a file (or folder) that is written at the end of a run before the run, and makes the folder it is in.

    Returns   the path, None where there is none
    Raises    BadInput where nothing can be written there
    """
    if path is None:
        return None
    path = Path(path)
    place = path if folder else path.parent
    with _writing(path):
        place.mkdir(parents=True, exist_ok=True)
        taken = not folder and path.is_dir()
        places = [path] * path.exists() + [place] * (folder or not _is_no_file(path))
    if taken or not all(os.access(p, os.W_OK) for p in places):
        raise BadInput(f"cannot write {shown(path)}", got="a folder" if taken else "no permission to write there")
    if not folder and path.name.endswith(NO_RESULTS) and path.is_file():
        raise BadInput(f"cannot write {shown(path)}", got="a program, or a file of a checkpoint, that is there already")
    return path


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
