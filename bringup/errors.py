"""What a user gets to read when something is wrong: the problem, what was got and wanted, what to do. No traceback.

`BadInput` (exit code 2): the command cannot mean anything as given. `ModelFailed` (exit code 1): the model file raised,
and the line of it that did is named. A file that cannot be read or
written is named with what the system says (exit code 2). A model file that ends the process has failed too: without a
result there is no success. Control characters and marks that turn the direction of writing are shown as escapes.
`BRINGUP_TRACEBACK=1` shows the whole traceback of each.
"""

import errno
import os
import re
import sys
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

LIBRARIES = {"site-packages", "ttnn_emulator", "contextlib.py"}
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
LONGEST = 1000  # characters of a line of a message


def printable(text):
    """Text from a file or a checkpoint as it may go to a terminal: what would steer it is shown as \\x1b."""
    return UNSEEN.sub(lambda c: c[0].encode("unicode_escape", "surrogatepass").decode(), text)


class BringupError(Exception):
    """A message for the user; `code` is the exit code."""

    code = 1

    def __init__(self, problem, got=None, want=None, hint=None):
        rows = [("got", got), ("want", want), ("hint", hint)]
        lines = "\n".join([str(problem)] + [f"  {name:<6} {text}" for name, text in rows if text is not None])
        cut = [line if len(line) <= LONGEST else line[:LONGEST] + " ..." for line in printable(lines).split("\n")]
        super().__init__("\n".join(cut))

    def followed_by(self, command):
        """The same error, whose last line is what to type next."""
        return type(self)(f"{self}\n  next   {command}")


class BadInput(BringupError):
    code = 2


class ModelFailed(BringupError):
    code = 1


def where(error, path=None):
    """`file:line` of the deepest frame of `path` in the error's traceback; else the deepest outside the libraries."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if path and Path(f.filename) == Path(path).resolve()]
    near = [f for f in frames if not LIBRARIES & set(Path(f.filename).parts)]
    if not frames:
        return shown(path) if path else "?"
    frame = (own or near or frames)[-1]
    return f"{shown(frame.filename)}:{frame.lineno}"


def shown(path):
    """A path as the user would type it."""
    with suppress(ValueError, OSError, RuntimeError):  # elsewhere; a loop of links; a folder that is gone
        path = Path(path).resolve().relative_to(Path.cwd())
    return printable(str(path)).replace("\n", "\\n")


@contextmanager
def blame(path, doing):
    """Turn what a model file raises while `doing` into `ModelFailed` that names its line; our own errors pass."""
    try:
        with staying():
            yield
    except BringupError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(error, path, doing) from error


@contextmanager
def staying():
    """A folder that a model file goes into is left again: paths are the user's, and weights are read lazily."""
    here = None
    with suppress(OSError):  # the user's folder is gone
        here = Path.cwd()
    try:
        yield
    finally:
        if here is not None:
            os.chdir(here)


def failed(error, path, doing, hint=None):
    """What a model file raised while `doing`, as `ModelFailed`."""
    return ModelFailed(f"{where(error, path)}: {type(error).__name__} while {doing}\n{indent(error)}", hint=hint)


def indent(error):
    if isinstance(error, SystemExit):
        return f"  it ends the process, with exit code {error.code}, and there is no result"
    return "\n".join("  " + line for line in (str(error).strip() or "(no message)").splitlines())


def guarded(main, *args):
    """Run `main`; print what it raises for people and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has not every character
    show = os.environ.get("BRINGUP_TRACEBACK") == "1"
    try:
        with _exits_raise():
            code = main(*args) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `... | head`
        _mute()
        return 141
    except (Exception, SystemExit) as error:
        if show:
            raise
        message, code = _told(error)
        print(f"error: {printable(message)}", file=sys.stderr)
        return code


def _told(error):
    """(message, exit code) of what a command raised."""
    if isinstance(error, BringupError):
        return str(error), error.code
    if isinstance(error, OSError) and error.filename is not None:  # a file that the user named
        return f"{shown(error.filename)}: {error.strerror}", 2
    if isinstance(error, OSError) and error.errno in FULL:  # files are written by `bringup.files`, which names them
        _mute()
        return f"cannot write the output: {error.strerror}", 2
    if isinstance(error, SystemExit):
        return f"{where(error)}: {type(error).__name__}\n{indent(error)}", 1
    return f"{where(error)}: {type(error).__name__}: {error}\n  hint   BRINGUP_TRACEBACK=1 shows the whole traceback", 1


def _mute():
    """What is still in stdout's buffer goes nowhere, so that the end of the process does not trip over it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _exits_raise():
    """Inside, `os._exit` of this process raises SystemExit: a model file that calls it would look like a success."""
    process, leave = os.getpid(), os._exit

    def refuse(code):
        if os.getpid() != process:
            leave(code)
        raise SystemExit(code)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave
